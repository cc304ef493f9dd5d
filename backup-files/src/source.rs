//! The reading side: a folder or a single file.

pub(crate) mod database;
pub(crate) mod exclude;
pub(crate) mod large_file;
pub(crate) mod links;
pub(crate) mod listing;
pub(crate) mod read;
pub(crate) mod retrying;
pub(crate) mod run;
pub(crate) mod walk;

use crate::{
    config::FilesConfig,
    source::exclude::Exclude,
    source::retrying::{Retries, Retrying},
    source::run::Run,
    source::walk::{Batch, Walk},
    spool::Spool,
    system::{self, Kind, Stat},
};
use async_trait::async_trait;
use backup_core::{
    Content, Context, Entry, Error, ErrorKind, Facts, Moment, Ready, Result, Severity, Sink, Source,
    Stillness, View, put_stage,
};
use futures::{Stream, StreamExt, stream};
use serde_json::Value;
use std::{
    fmt, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// A folder or a file to be backed up.
pub(crate) struct FilesSource {
    component: String,
    config: FilesConfig,
}

impl FilesSource {
    pub(crate) fn new(component: &str, config: FilesConfig) -> Self {
        FilesSource { component: component.to_owned(), config }
    }

    pub(crate) fn boxed(component: &str, config: FilesConfig) -> Result<Box<dyn Source>> {
        Ok(Box::new(Self::new(component, config)))
    }
}

impl fmt::Display for FilesSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.config.path.display().fmt(f)
    }
}

#[async_trait]
impl Source for FilesSource {
    async fn connect(&self, cx: &Context) -> Result<Box<dyn Ready>> {
        let (component, config) = (self.component.clone(), self.config.clone());
        let looked = blocking("look at the source", move || {
            let found = look(&config.path);
            match found {
                Ok(root) => {
                    if !matches!(root.stat.kind, Kind::File | Kind::Directory) {
                        let e =
                            Error::new(ErrorKind::Usage, "read the source", "it is no folder and no file");
                        let hint = "name the folder that it is in: devices, pipes and sockets have no content to store";
                        return Err(e.on(config.path.display()).hint(hint));
                    }
                    Exclude::new(&config, &root.path)?; // a wrong pattern is said before anything begins
                    Ok(Some(root))
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound && config.optional => Ok(None),
                Err(e) => {
                    let e = Error::io(ErrorKind::Source, "read the source", e);
                    Err(e.on(config.path.display()).hint("check the path, and that this user may read it"))
                }
            }
        });
        let root = looked.await?;
        if root.is_none() {
            cx.note(Severity::Note, &component, self.to_string(), "does not exist; it is optional");
        }
        // A disk that is not mounted looks like this, and the backup would be complete.
        if root.as_ref().is_some_and(|root| root.empty) {
            let text = "the folder is empty: if something is to be mounted there, it is not";
            cx.note(Severity::Warning, &component, self.to_string(), text);
        }
        Ok(Box::new(FilesReady { component, config: self.config.clone(), root }))
    }

    fn origin(&self) -> Value {
        // The folder itself, not the symbolic link by which it was named: that is where it goes back to.
        let path = std::fs::canonicalize(&self.config.path).unwrap_or_else(|_| self.config.path.clone());
        FilesConfig::new(path).to_value()
    }
}

/// What is there; readable.
struct Root {
    path: PathBuf,
    stat: Stat,
    /// A folder with nothing in it.
    empty: bool,
}

fn look(path: &Path) -> io::Result<Root> {
    let path = std::fs::canonicalize(path)?;
    let (parent, name) = match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => (parent, system::path_to_bytes(Path::new(name))),
        _ => (path.as_path(), b".".to_vec()),
    };
    let mut empty = false;
    // Not `open_dir`: a folder above that may be passed and not listed is no obstacle to naming what is in it.
    let stat = match system::open_dir(&path) {
        Ok(dir) => {
            empty = system::read_dir(dir.as_fd())?.next().transpose()?.is_none();
            system::stat_fd(dir.as_fd())?
        }
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
            let dir = system::open_dir(parent)?;
            let stat = system::stat_at(dir.as_fd(), &name)?;
            if stat.kind == Kind::File {
                // It may be a database of the program that we are part of.
                system::close_database(system::open_file_at(dir.as_fd(), &name)?);
            }
            stat
        }
        Err(e) => return Err(e),
    };
    Ok(Root { path, stat, empty })
}

struct FilesReady {
    component: String,
    config: FilesConfig,
    root: Option<Root>,
}

#[async_trait]
impl Ready for FilesReady {
    fn stillness(&self) -> Stillness {
        if self.root.is_some() { Stillness::UntilPoured } else { Stillness::None }
    }

    fn estimate(&self) -> Option<u64> {
        self.root.as_ref().filter(|root| root.stat.kind == Kind::File).map(|root| root.stat.size)
    }

    async fn fix(self: Box<Self>, _cx: &Context) -> Result<Box<dyn View>> {
        Ok(Box::new(FilesView { ready: *self, moment: Moment::now() }))
    }
}

struct FilesView {
    ready: FilesReady,
    moment: Moment,
}

#[async_trait]
impl View for FilesView {
    fn moment(&self) -> Moment {
        self.moment
    }

    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
        let FilesReady { component, config, root } = self.ready;
        let Some(root) = root else { return Ok(Facts::new()) };
        let retries = Retries::default();
        let run = Arc::new(Run {
            component,
            cx: cx.clone(),
            root: root.path,
            strict: config.strict,
            busy_limit: Duration::from_secs(config.busy_seconds.unwrap_or(30).into()),
            retries: retries.clone(),
        });
        let (out, batches) = mpsc::channel(2);
        let walk = blocking("walk", move || Walk::new(run, &config, out)?.run());
        let walk = tokio::spawn(walk);
        let retrying: Arc<dyn Sink> = Arc::new(Retrying::new(sink.clone(), retries));
        let put = put_stage(&retrying, cx, entries(batches)).await;
        let walked = walk.await.map_err(|_| Error::new(ErrorKind::Panicked, "walk", "the walk panicked"))?;
        // A walk that nobody listens to any more says only that it was cancelled.
        put?;
        system::close_parked();
        let walked = walked?;
        for spool in [walked.hard_links, walked.directories] {
            let (out, batches) = mpsc::channel(2);
            let reading = tokio::spawn(blocking("read the spooled entries", move || unspool(spool, &out)));
            put_stage(&sink, cx, entries(batches)).await?;
            reading.await.map_err(|_| Error::new(ErrorKind::Panicked, "read", "the reader panicked"))??;
        }
        Ok(walked.facts)
    }
}

fn unspool(spool: Spool, out: &mpsc::Sender<Batch>) -> Result<()> {
    let failed = |e| Error::io(ErrorKind::Source, "read entries from a temporary file", e);
    let mut batch = Batch::new();
    for entry in spool.read().map_err(failed)? {
        batch.push((entry.map_err(failed)?, Content::empty()));
        if batch.len() == 256 {
            out.blocking_send(std::mem::take(&mut batch)).map_err(|_| Error::cancelled())?;
        }
    }
    out.blocking_send(batch).map_err(|_| Error::cancelled())
}

/// What comes in batches, one by one.
fn entries(batches: mpsc::Receiver<Batch>) -> impl Stream<Item = Result<(Entry, Content)>> + Send {
    let batches = stream::unfold(batches, |mut batches| async { Some((batches.recv().await?, batches)) });
    batches.flat_map(|batch| stream::iter(batch.into_iter().map(Ok)))
}

/// Runs what blocks on a thread for that.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Panicked, what, "its thread panicked")))
}
