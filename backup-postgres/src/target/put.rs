//! What is done with each entry of a component.

use super::{
    indexes::LARGE,
    shadow::{Shadow, WORK},
};
use crate::{
    catalog,
    client::ClientError,
    error,
    layout::{self, RowsOf},
    properties::Properties,
};
use backup_core::{Content, Entry, Error, ErrorKind, Fact, Result};
use bytes::Bytes;
use std::{
    io::Write,
    sync::{Arc, PoisonError},
};

/// Definitions and statements are not data: a database with more of them than this is none that was ever seen.
pub(super) const MOST_STATEMENTS: usize = 256 << 20;

const DISK_FULL: &str = "53100";

/// The way to a single table, as long as there is no shorter one.
const WHOLE: &str = "restore the whole database under another name (--to NAME=postgres://…/other) and take the table from there";
/// What the server says of functions, types, operators and tables that are not there.
const MISSING: [&str; 5] = ["42883", "42704", "42P01", "3F000", "42703"];

/// What has come and is used later.
#[derive(Default)]
pub(super) struct Received {
    pub(super) properties: Option<Properties>,
    pub(super) schema: Option<Arc<tempfile::NamedTempFile>>,
    pub(super) sequences: Option<String>,
    pub(super) refresh: Option<String>,
    /// Statements for all views of the database whose definitions are kept.
    pub(super) views: String,
}

/// What of a table has been loaded.
#[derive(Clone, Default)]
pub(super) struct Loaded {
    pub(super) rows: u64,
    /// Its extension may have put some there before.
    pub(super) of_extension: bool,
    bytes: u64,
    pieces: usize,
    pub(super) is_analyzed: bool,
}

impl Shadow {
    pub(super) fn keep(&self, change: impl FnOnce(&mut Received)) {
        change(&mut self.received.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// An entry of this database, at this path of it.
    pub(super) async fn take(&self, entry: &Entry, path: &str, content: &mut Content) -> Result<(), Taking> {
        let how = &self.server.config;
        let stays = [layout::PROPERTIES, layout::SCHEMA].contains(&path);
        match path {
            // Those that are there stay.
            _ if how.data_only && stays => drain(content).await?,
            // It goes along with every part.
            layout::SEQUENCES if how.schema_only => drain(content).await?,
            layout::PROPERTIES => {
                let read: Properties = serde_json::from_str(&text(content).await?)
                    .map_err(|e| Taking::Target(Error::damaged("read the properties", e).on(path)))?;
                self.keep(|received| received.properties = Some(read));
            }
            layout::SCHEMA => {
                let file = Arc::new(spool(content).await?);
                self.keep(|received| received.schema = Some(file));
            }
            layout::SEQUENCES => {
                let sql = text(content).await?;
                let sql = self.choice.part.as_ref().map_or_else(|| sql.clone(), |p| p.own_sequences(&sql));
                self.keep(|received| received.sequences = Some(sql));
            }
            layout::REFRESH => {
                let sql = text(content).await?;
                self.keep(|received| received.fill(&sql, how.data_only));
            }
            // For people only.
            layout::LOAD | layout::GUIDE => drain(content).await?,
            layout::LARGE_OBJECTS => self.large_objects(content).await?,
            _ if layout::is_dump(path) => self.whole_dump(content).await?,
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
        let schema = self.place_of(&of.schema, &of.table)?;
        let sql = catalog::copy_in(&schema, &of.table, &of.columns, of.format);
        let rows = self
            .with_session(async |session| {
                let copied = session.copy_in(&sql, content).await;
                if copied.as_ref().err().and_then(ClientError::code) == Some(DISK_FULL) && session.is_clean()
                {
                    // A server with no room at all lets nobody log in, who could drop this database. What is told is why.
                    let _ = session.query(&catalog::drop_table(&schema, &of.table)).await;
                }
                Ok(copied)
            })
            .await?
            .map_err(|e| match e {
                ClientError::Content(e) => Taking::Content(e),
                e => {
                    let is_missing = e.code().is_some_and(|code| MISSING.contains(&code));
                    let e = error::target("load the rows", &self.server)(e);
                    let e = e.on(format!("{}.{}", of.schema, of.table));
                    Taking::Target(if is_missing { self.lacking(e) } else { e })
                }
            })?;
        let (subject, measure) = layout::rows_fact(&of.schema, &of.table, path);
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).insert(subject, measure, Fact::Count(rows));
        let (whole, bytes) = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            let sum = loaded.entry((schema, of.table.clone())).or_default();
            sum.of_extension = of.of_extension;
            sum.rows += rows;
            sum.bytes += content.delivered();
            sum.pieces += 1;
            (sum.pieces == of.pieces, sum.bytes)
        };
        let schema = self.received.lock().unwrap_or_else(PoisonError::into_inner).schema.clone();
        // Of a part they are few; of another database they have other numbers.
        let in_time = self.choice.part.is_none() && !self.server.config.data_only;
        if let Some(schema) = schema.filter(|_| whole && in_time && !of.of_extension && bytes >= LARGE) {
            self.analyze(&of).await?;
            self.indexes.begin(&of, schema);
        }
        Ok(())
    }

    /// Before its foreign keys are checked, for which the server plans a query; and then its autovacuum seldom comes, which would stand in
    /// the way of indexes and keys. It shall come for expressions of indexes, which can take longer than all columns.
    async fn analyze(&self, of: &RowsOf) -> Result<(), Taking> {
        let columns = if of.has_expressions { &*of.columns } else { &[] };
        let sql = catalog::analyze(&of.schema, &of.table, columns);
        let failed = error::target("gather statistics", &self.server);
        self.with_session(async |session| {
            tokio::select! {
                done = session.query_within(WORK, &sql) => done.map(drop).map_err(failed),
                () = self.cx.cancel.cancelled() => Err(Error::cancelled()),
            }
        })
        .await?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.entry((of.schema.clone(), of.table.clone())).or_default().is_analyzed = true;
        Ok(())
    }
}

impl Shadow {
    /// What failed because something is not there. A part comes with what its definitions name; what only the text of a function names is
    /// known to nobody.
    pub(super) fn lacking(&self, e: Error) -> Error {
        match self.choice.part {
            Some(_) => {
                e.hint(format!("what only the text of a function names does not come with a part: {WHOLE}"))
            }
            None => e,
        }
    }
}

pub(super) fn unknown_entry(entry: &Entry, why: &str) -> Error {
    Error::new(ErrorKind::Unsupported, "restore the entry", why).on(entry.display_path())
}

/// Whose fault it was.
pub(super) enum Taking {
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

pub(super) async fn drain(content: &mut Content) -> Result<(), Taking> {
    while content.next().await.map_err(Taking::Content)?.is_some() {}
    Ok(())
}

pub(super) async fn text(content: &mut Content) -> Result<String, Taking> {
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
