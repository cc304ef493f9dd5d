//! What is done with each entry of a component.

use super::shadow::Shadow;
use crate::{
    catalog,
    client::ClientError,
    error,
    layout::{self, RowsOf},
    properties::Properties,
};
use backup_core::{Content, Entry, Error, ErrorKind, Fact, Part, Put, Result};
use bytes::Bytes;
use futures::stream;
use std::{
    io::Write,
    sync::{Arc, Mutex, PoisonError},
};

/// Definitions and statements are not data: a database with more of them than this is none that was ever seen.
const MOST_STATEMENTS: usize = 256 << 20;

/// The way to a single table, as long as there is no shorter one.
const WHOLE: &str = "restore the whole database under another name (--to NAME=postgres://…/other) and take the table from there";

/// What has come and is used later.
#[derive(Default)]
pub(super) struct Received {
    pub(super) properties: Option<Properties>,
    pub(super) schema: Option<Arc<tempfile::NamedTempFile>>,
    pub(super) sequences: Option<String>,
    pub(super) refresh: Option<String>,
}

impl Shadow {
    pub(super) async fn take(&self, entry: Entry, content: Content) -> Result<Put> {
        let mut content = content.hashed(&entry);
        match self.take_content(&entry, &mut content).await {
            Ok(()) => {}
            Err(Taking::Content(e)) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(Taking::Content(e)) => return Ok(Put::Discarded(e.to_string().into())),
            Err(Taking::Target(e)) => return Err(e),
        }
        let digest = content.digest().unwrap_or_default();
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&entry, content.delivered(), &digest);
        Ok(Put::Stored)
    }

    async fn take_content(&self, entry: &Entry, content: &mut Content) -> Result<(), Taking> {
        let path = std::str::from_utf8(&entry.path).unwrap_or_default();
        let keep = |change: &mut dyn FnMut(&mut Received)| {
            change(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner));
        };
        match path {
            layout::PROPERTIES => {
                let read: Properties = serde_json::from_str(&text(content).await?)
                    .map_err(|e| Taking::Target(Error::damaged("read the properties", e).on(path)))?;
                keep(&mut |received| received.properties = Some(read.clone()));
            }
            layout::SCHEMA => {
                let file = Arc::new(spool(content).await?);
                keep(&mut |received| received.schema = Some(file.clone()));
            }
            layout::SEQUENCES => {
                let sql = text(content).await?;
                keep(&mut |received| received.sequences = Some(sql.clone()));
            }
            layout::REFRESH => {
                let sql = text(content).await?;
                keep(&mut |received| received.refresh = Some(sql.clone()));
            }
            // For people only.
            layout::LOAD | layout::GUIDE => drain(content).await?,
            layout::LARGE_OBJECTS => self.large_objects(content).await?,
            _ => self.rows(entry, path, content).await?,
        }
        Ok(())
    }

    async fn rows(&self, entry: &Entry, path: &str, content: &mut Content) -> Result<(), Taking> {
        let unknown = |why: &str| Taking::Target(unknown_entry(entry, why));
        let store = entry.store.clone().ok_or_else(|| unknown("it is no entry of a PostgreSQL database"))?;
        let of: RowsOf = serde_json::from_value(store).map_err(|e| unknown(&e.to_string()))?;
        let opened = self.opened().await?;
        if !opened.is_some_and(|opened| opened.has(&of.schema, &of.table)) {
            // Whether it is whole is told first: that explains more.
            drain(content).await?;
            let e = unknown_entry(entry, "the definitions of its database are not restored with it");
            return Err(Taking::Target(e.hint(WHOLE)));
        }
        let sql = catalog::copy_in(&of.schema, &of.table, &of.columns, of.format);
        let rows = self
            .with_session(async |session| Ok(session.copy_in(&sql, content).await))
            .await?
            .map_err(|e| match e {
                ClientError::Content(e) => Taking::Content(e),
                e => Taking::Target(
                    error::target("load the rows", &self.server)(e).on(format!("{}.{}", of.schema, of.table)),
                ),
            })?;
        let (subject, measure) = layout::rows_fact(&of.schema, &of.table, path);
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).insert(subject, measure, Fact::Count(rows));
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = loaded.entry((of.schema, of.table)).or_insert((0, of.of_extension));
        sum.0 += rows;
        Ok(())
    }

    /// In one transaction: all of them or none. A content that fails ends the tool before it could commit.
    async fn large_objects(&self, content: &mut Content) -> Result<(), Taking> {
        if self.opened().await?.is_none() {
            drain(content).await?;
            let e = Error::damaged(
                "restore the large objects",
                "the definitions of the database are not in the backup",
            );
            return Err(Taking::Target(e));
        }
        let failure: Arc<Mutex<Option<Error>>> = Arc::default();
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let restoring =
            self.tools.restore_stream(&self.name, passed_on(receiver), self.server.config.no_owner);
        let feeding = async {
            loop {
                match content.next().await {
                    Ok(Some(bytes)) => {
                        if sender.send(Part::Bytes(bytes)).await.is_err() {
                            // The tool has stopped reading. The rest is read for its digest.
                            break drain(content).await;
                        }
                    }
                    Ok(None) => {
                        let _ = sender.send(Part::End(backup_core::Facts::new())).await;
                        break Ok(());
                    }
                    Err(e) => {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                        break Ok(());
                    }
                }
            }
            .map(|()| drop(sender))
        };
        let (fed, restored) = tokio::join!(feeding, restoring);
        if let Some(e) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Taking::Content(e));
        }
        fed?;
        Ok(restored.map_err(|e| {
            Error::new(ErrorKind::Target, "restore the large objects", e.message()).caused_by(e)
        })?)
    }
}

fn passed_on(receiver: tokio::sync::mpsc::Receiver<Part>) -> Content {
    Content::stream(stream::unfold(receiver, |mut receiver| async {
        let part = receiver.recv().await?;
        Some((Ok(part), receiver))
    }))
}

fn unknown_entry(entry: &Entry, why: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "restore the entry", why).on(entry.display_path())
}

/// Whose fault it was.
enum Taking {
    /// The content failed; the target is sound.
    Content(Error),
    /// The target is broken.
    Target(Error),
}

impl From<Error> for Taking {
    fn from(e: Error) -> Self {
        Taking::Target(e)
    }
}

async fn drain(content: &mut Content) -> Result<(), Taking> {
    while content.next().await.map_err(Taking::Content)?.is_some() {}
    Ok(())
}

async fn text(content: &mut Content) -> Result<String, Taking> {
    let mut out = Vec::new();
    while let Some(bytes) = content.next().await.map_err(Taking::Content)? {
        within(out.len() + bytes.len())?;
        out.extend_from_slice(&bytes);
    }
    String::from_utf8(out).map_err(|e| Taking::Target(Error::damaged("read statements", e)))
}

fn within(length: usize) -> Result<(), Taking> {
    if length <= MOST_STATEMENTS {
        return Ok(());
    }
    Err(Taking::Target(Error::new(
        ErrorKind::Unsupported,
        "read statements",
        "there are more than 256 MiB of them",
    )))
}

/// Into a temporary file: pg_restore reads an archive of definitions several times.
async fn spool(content: &mut Content) -> Result<tempfile::NamedTempFile, Taking> {
    let mut file = blocking(tempfile::NamedTempFile::new).await?;
    let mut length = 0;
    while let Some(bytes) = content.next().await.map_err(Taking::Content)? {
        length += bytes.len();
        within(length)?;
        file = blocking(move || write(file, &bytes)).await?;
    }
    Ok(file)
}

fn write(mut file: tempfile::NamedTempFile, bytes: &Bytes) -> std::io::Result<tempfile::NamedTempFile> {
    file.write_all(bytes)?;
    Ok(file)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Taking> {
    let done = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other).and_then(|done| done);
    done.map_err(|e| {
        Taking::Target(Error::io(ErrorKind::Target, "keep the definitions in a temporary file", e))
    })
}
