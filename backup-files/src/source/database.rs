//! SQLite databases among the files: stored as one moment of theirs.

use crate::{
    source::run::Run,
    sqlite::{Approach, Cancelled, Method, ReadError, Snapshot, SqliteError},
    stamp::{fingerprint, posix},
    system::{self, Kind, Stat, path_from_bytes},
};
use backup_core::{Content, Entry, Error, ErrorKind, Facts, Feed, Posix, Result, Stage, display_path};
use bytes::Bytes;
use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A database found by its first bytes.
pub(crate) struct Database {
    pub(crate) run: Arc<Run>,
    pub(crate) path: Bytes,
    pub(crate) posix: Posix,
    pub(crate) stat: Stat,
}

/// How a database is to be stored.
pub(crate) enum Opened {
    /// As a snapshot, read in this way.
    Snapshot(Box<Entry>, Content, Option<&'static str>),
    /// As the file that it is.
    PlainFile,
}

impl Database {
    /// Fixes its moment. May wait for somebody's lock, up to the limit of the configuration.
    pub(crate) fn open(mut self) -> Opened {
        let opened = match self.snapshot(Approach::Undisturbed) {
            Err(SqliteError::Changed) => self.snapshot_again(),
            other => other,
        };
        match opened {
            Ok(snapshot) => {
                let method = method_name(snapshot.method());
                let (entry, content) = self.stored(snapshot, true);
                Opened::Snapshot(Box::new(entry), content, Some(method))
            }
            Err(SqliteError::NotADatabase(why)) => {
                let text = format!("begins as a SQLite database and is none ({why}); stored as a plain file");
                self.run.note(&self.path, &text);
                Opened::PlainFile
            }
            Err(SqliteError::Corrupt(why)) => {
                self.run.warn(&self.path, &format!("is a damaged SQLite database ({why}); stored as it is"));
                Opened::PlainFile
            }
            Err(e) => {
                let (entry, content) = self.failed(&e);
                Opened::Snapshot(Box::new(entry), content, None)
            }
        }
    }

    fn snapshot(&self, approach: Approach) -> Result<Snapshot, SqliteError> {
        let identity = (self.stat.dev, self.stat.ino);
        let path = self.full_path();
        Snapshot::open_this(&path, identity, approach, self.run.busy_limit, &cancelled(&self.run))
    }

    /// Of what has this name by now: another file may have been renamed to it.
    fn snapshot_again(&mut self) -> Result<Snapshot, SqliteError> {
        let root = system::open_dir(if self.path.is_empty() {
            self.run.root.parent().unwrap_or(&self.run.root)
        } else {
            &self.run.root
        })?;
        let name = self.run.root.file_name().map(|name| system::path_to_bytes(Path::new(name)));
        let inside = if self.path.is_empty() { name.unwrap_or_default() } else { self.path.to_vec() };
        let (dir, name) = system::open_parent_beneath(root.as_fd(), &inside, false)?;
        let stat = system::stat_at(dir.as_fd(), &name)?;
        if stat.kind != Kind::File {
            return Err(SqliteError::Changed);
        }
        self.posix = Posix { xattrs: std::mem::take(&mut self.posix.xattrs), ..posix(&stat, Vec::new()) };
        self.stat = stat;
        self.snapshot(Approach::Certain)
    }

    fn full_path(&self) -> PathBuf {
        if self.path.is_empty() {
            return self.run.root.clone();
        }
        self.run.root.join(path_from_bytes(self.path.to_vec()))
    }

    fn stored(self, snapshot: Snapshot, may_retry: bool) -> (Entry, Content) {
        let mut entry = Entry::file(self.path.clone(), Stage::Data).sized(snapshot.size());
        entry.posix = Some(self.posix.clone());
        entry.fingerprint = (snapshot.method() == Method::AtRest).then(|| fingerprint(&self.stat));
        entry.store = Some(serde_json::json!({ "sqlite": method_name(snapshot.method()) }));
        let content = Content::produce(move |feed| async move {
            let read = tokio::task::spawn_blocking(move || self.read(snapshot, &feed, may_retry));
            read.await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Panicked, "read a database", "the reading thread panicked"))
            })
        });
        (entry, content)
    }

    fn read(self, mut snapshot: Snapshot, feed: &Feed, may_retry: bool) -> Result<Facts> {
        match snapshot.read_all(&mut |chunk| feed.blocking_send(chunk)) {
            Ok(()) => {}
            Err(ReadError::Database(SqliteError::Changed)) if may_retry => {
                drop(snapshot);
                return Err(self.again());
            }
            Err(ReadError::Database(e)) => return Err(self.error(&e)),
            Err(ReadError::Sink(e)) => return Err(e),
        }
        match snapshot.integrity_check() {
            Ok(()) => {}
            Err(SqliteError::Cancelled) => return Err(Error::cancelled()),
            Err(SqliteError::Corrupt(why)) => {
                self.run.warn(&self.path, &format!("is a damaged SQLite database ({why}); stored as it is"));
            }
            // What was delivered was proven to be one moment; the check came too late.
            Err(e) => self.run.note(&self.path, &format!("its integrity was not checked: {e}")),
        }
        Ok(Facts::new())
    }

    fn again(mut self) -> Error {
        let (e, path) = (self.error(&SqliteError::Changed), self.path.clone());
        let retries = self.run.retries.clone();
        let next = move || match self.snapshot_again() {
            Ok(snapshot) => self.stored(snapshot, false),
            Err(e) => self.failed(&e),
        };
        retries.offer(path, Box::new(next));
        e
    }

    fn failed(&self, e: &SqliteError) -> (Entry, Content) {
        (Entry::file(self.path.clone(), Stage::Data), Content::failed(self.error(e)))
    }

    fn error(&self, e: &SqliteError) -> Error {
        if matches!(e, SqliteError::Cancelled) {
            return Error::cancelled();
        }
        Error::new(ErrorKind::Source, "read the database", e).on(display_path(&self.path))
    }
}

/// Follows the cancellation of the run.
pub(crate) fn cancelled(run: &Run) -> Cancelled {
    let token = run.cx.cancel.clone();
    Cancelled::new(move || token.is_cancelled())
}

fn method_name(method: Method) -> &'static str {
    match method {
        Method::AtRest => "at-rest",
        Method::WithWal => "with-wal",
        Method::RolledBack => "rolled-back",
        Method::Pages => "pages",
        Method::BackupApi => "backup-api",
    }
}

/// Whether this entry was stored as a snapshot of a database.
pub(crate) fn stored_as_database(entry: &Entry) -> bool {
    entry.store.as_ref().is_some_and(|store| store.get("sqlite").is_some())
}
