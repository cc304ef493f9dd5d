//! One moment of a database: delivered, checked, and proven to have been one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::connection::{Open, SideFiles};
use super::error::{ReadError, SqliteError};
use super::guard::{DatabaseFile, Fingerprint};
use super::opening::Opening;
use super::overlay::Overlay;
use super::{check, stream, wal};
use crate::system::{self, read_at};

/// Asked now and then whether to stop.
#[derive(Clone)]
pub struct Cancelled(Arc<dyn Fn() -> bool + Send + Sync>);

impl Cancelled {
    /// From a question which is true once the work shall stop; it is asked from the thread that works.
    pub fn new(question: impl Fn() -> bool + Send + Sync + 'static) -> Cancelled {
        Cancelled(Arc::new(question))
    }

    pub(super) fn asked(&self) -> bool {
        (self.0)()
    }
}

impl std::fmt::Debug for Cancelled {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Cancelled")
    }
}

/// What to do about writers. Matters for databases over eight megabytes, and for those opened and closed all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approach {
    /// Never makes a writer wait longer than eight megabytes take to read, and nothing is made beside the database.
    /// A database in rollback mode, or one which nobody had open, that is written to meanwhile is
    /// [`SqliteError::Changed`].
    Undisturbed,
    /// After `Changed`. Rollback mode: the shared lock is held until the snapshot is dropped, and writers wait (WAL
    /// mode: nobody waits). A WAL database is opened as any application would; SQLite's side files, if there were
    /// none, exist until the snapshot is dropped.
    Certain,
}

/// How a snapshot is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// The file's own bytes, unchanged from the first to the last.
    AtRest,
    /// The file with the committed frames of a `-wal` which a crash left behind, as recovery would leave it.
    WithWal,
    /// The file with a transaction rolled back which a crash left unfinished in its `-journal`.
    RolledBack,
    /// Page by page through SQLite's `sqlite_dbpage`, inside one read transaction.
    Pages,
    /// SQLite's backup API into a temporary file, because this build of SQLite has no `sqlite_dbpage`.
    BackupApi,
}

/// One moment of a database, until dropped.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) method: Method,
    pub(super) size: u64,
    pub(super) path: PathBuf,
    pub(super) cancelled: Cancelled,
    pub(super) reader: Reader,
}

/// A connection comes before the file in each variant: fields are dropped in order, and closing the file would drop
/// the connection's locks.
#[derive(Debug)]
pub(super) enum Reader {
    Memory(Vec<u8>),
    /// Without connection nothing is locked and `proof` decides.
    File {
        lock: Option<Connection>,
        file: DatabaseFile,
        proof: Fingerprint,
    },
    Overlaid {
        overlay: Overlay,
        main: DatabaseFile,
        proof: Fingerprint,
        second: File,
        second_proof: SecondProof,
        shm: bool,
    },
    Pages {
        connection: Option<Connection>,
        side_files: SideFiles,
    },
    Spooled(tempfile::NamedTempFile),
}

/// A log may grow while only its beginning is used; a journal may not change at all.
#[derive(Debug)]
pub(super) enum SecondProof {
    WalHeader([u8; wal::HEADER]),
    Journal(Fingerprint),
}

impl Snapshot {
    /// Opens the database and fixes the moment. The caller has made sure that `path` is no symbolic link.
    ///
    /// `busy_limit`: how long to wait for somebody's exclusive lock, 5 ms at a time.
    ///
    /// # Errors
    /// [`SqliteError::NotADatabase`] and [`SqliteError::Corrupt`]: to be stored as a plain file, with a warning.
    /// [`SqliteError::Locked`], [`SqliteError::Changed`]: another attempt may succeed.
    pub fn open(
        path: &Path,
        approach: Approach,
        busy_limit: Duration,
        cancelled: &Cancelled,
    ) -> Result<Snapshot, SqliteError> {
        let identity = system::identity(&path.symlink_metadata()?);
        Snapshot::open_this(path, identity, approach, busy_limit, cancelled)
    }

    /// As [`Snapshot::open`], and [`SqliteError::Changed`] unless it is the file of this device and inode.
    pub(crate) fn open_this(
        path: &Path,
        identity: (u64, u64),
        approach: Approach,
        busy_limit: Duration,
        cancelled: &Cancelled,
    ) -> Result<Snapshot, SqliteError> {
        let path = std::path::absolute(path)?;
        let opening = Opening { path: &path, identity, approach, limit: busy_limit, cancelled };
        let (method, size, reader) = opening.open()?;
        Ok(Snapshot { method, size, path, cancelled: cancelled.clone(), reader })
    }

    /// How it is read, for the report.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Exactly how many bytes [`Snapshot::read_all`] delivers.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Delivers the database from first to last byte, in chunks of at most 512 KiB. May be called again.
    ///
    /// # Errors
    /// The sink's own error at once; [`SqliteError::Changed`], possibly after the last chunk: only `Ok` means that
    /// what was delivered is the database.
    pub fn read_all<E>(
        &mut self,
        sink: &mut dyn FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), ReadError<E>> {
        match &self.reader {
            Reader::Memory(bytes) => stream::memory(bytes, sink),
            Reader::File { file, .. } => stream::file(file, self.size, sink),
            Reader::Overlaid { overlay, main, second, .. } => stream::overlaid(main, second, overlay, sink),
            Reader::Pages { connection: Some(connection), .. } => stream::pages(connection, self.size, sink),
            Reader::Pages { connection: None, .. } => Err(SqliteError::Changed.into()),
            Reader::Spooled(spool) => stream::file(spool.as_file(), self.size, sink),
        }?;
        Ok(self.prove()?)
    }

    /// SQLite's integrity check of this very snapshot.
    ///
    /// # Errors
    /// [`SqliteError::Corrupt`], [`SqliteError::NotCheckable`] (also for a large database with a crash's leftovers
    /// if checking it would change something beside it), [`SqliteError::Changed`], [`SqliteError::Cancelled`].
    pub fn integrity_check(&mut self) -> Result<(), SqliteError> {
        let cancelled = self.cancelled.clone();
        let outcome = match &mut self.reader {
            Reader::Memory(bytes) => check::of_bytes(bytes, &cancelled),
            Reader::File { lock: Some(connection), .. }
            | Reader::Pages { connection: Some(connection), .. } => check::run(connection, &cancelled),
            Reader::Pages { connection: None, .. } => Err(SqliteError::Changed),
            Reader::File { lock: None, .. } => check::opened(&self.path, Open::Immutable, &cancelled),
            Reader::Overlaid { shm: true, second_proof: SecondProof::WalHeader(_), .. } => {
                check::opened(&self.path, Open::SharedWithoutWritingShm, &cancelled)
            }
            Reader::Overlaid { .. } => {
                Err(SqliteError::NotCheckable("left by a crash; a check would change its folder".into()))
            }
            Reader::Spooled(spool) => check::integrity_check(spool.path(), &cancelled),
        };
        // What looks damaged may only have been changing.
        self.prove()?;
        outcome
    }

    /// That the files read without a lock are still what they were.
    fn prove(&self) -> Result<(), SqliteError> {
        match &self.reader {
            Reader::Memory(_) | Reader::Pages { .. } | Reader::Spooled(_) => Ok(()),
            Reader::File { file, proof, .. } => proof.verify(file),
            Reader::Overlaid { main, proof, second, second_proof, .. } => {
                proof.verify(main)?;
                match second_proof {
                    SecondProof::Journal(proof) => proof.verify(second),
                    SecondProof::WalHeader(header) => {
                        let mut now = [0; wal::HEADER];
                        read_at(second, 0, &mut now)?;
                        if now == *header { Ok(()) } else { Err(SqliteError::Changed) }
                    }
                }
            }
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Reader::Pages { connection, side_files } = &mut self.reader
            && let Some(connection) = connection.take()
        {
            drop(connection);
            side_files.remove_ours();
        }
    }
}
