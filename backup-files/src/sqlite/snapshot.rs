//! Fixing the moment of a database: which way to read it, and proof that it was one moment.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::connection::{self, Begun, Open, SideFiles};
use super::detect::Header;
use super::error::{ReadError, SqliteError};
use super::guard::{Fingerprint, Holder, holder, locked_by_this_process, settled};
use super::journal::{self, Journal};
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

/// A database up to this size is read into memory at once, so that locks are held for milliseconds however slow
/// the receiver is, and can be checked there.
const SMALL: u64 = 8 * 1024 * 1024;

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
    method: Method,
    size: u64,
    path: PathBuf,
    cancelled: Cancelled,
    reader: Reader,
}

/// A connection comes before the file in each variant: fields are dropped in order, and closing the file would drop
/// the connection's locks.
#[derive(Debug)]
enum Reader {
    Memory(Vec<u8>),
    /// Without connection nothing is locked and `proof` decides.
    File {
        lock: Option<Connection>,
        file: File,
        proof: Fingerprint,
        rollback_mode: bool,
    },
    Overlaid {
        overlay: Overlay,
        main: File,
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
enum SecondProof {
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
        let path = std::path::absolute(path)?;
        let opening = Opening { path: &path, approach, limit: busy_limit, cancelled };
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
            Reader::File { file, proof, lock, rollback_mode } => {
                proof.verify(file)?;
                let written = *rollback_mode && lock.is_none() && holder(file) == Holder::Exclusive;
                if written { Err(SqliteError::Changed) } else { Ok(()) }
            }
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

type Opened = (Method, u64, Reader);

struct Opening<'a> {
    path: &'a Path,
    approach: Approach,
    limit: Duration,
    cancelled: &'a Cancelled,
}

impl Opening<'_> {
    fn open(&self) -> Result<Opened, SqliteError> {
        let identity = system::identity(&self.path.metadata()?);
        if locked_by_this_process().contains(&identity) {
            return self.through_sqlite(SideFiles::look(self.path));
        }
        let file = system::open_for_reading(self.path)?;
        let mut first = [0; Header::LENGTH];
        let length = read_at(&file, 0, &mut first)?;
        let Some(header) = Header::parse(&first[..length]) else {
            return Err(SqliteError::NotADatabase("its header is not one".into()));
        };
        let side_files = SideFiles::look(self.path);
        let log = system::open_for_reading(&side_files.wal).ok();
        let log_used = log.as_ref().and_then(|log| log.metadata().ok()).is_some_and(|log| log.len() > 0);
        if !header.wal && !log_used {
            return self.rollback_mode(file, header, side_files);
        }
        match (holder(&file), self.approach) {
            // Waits, and says Locked in the end.
            (Holder::Exclusive | Holder::Readers | Holder::Unknown, _) => self.live(file, side_files),
            (Holder::Nobody, Approach::Undisturbed) => self.left_alone(file, header, log, &side_files),
            (Holder::Nobody, Approach::Certain) if log_used => {
                self.left_alone(file, header, log, &side_files)
            }
            (Holder::Nobody, Approach::Certain) => self.live(file, side_files),
        }
    }

    /// Rollback mode. SQLite's shared lock says that nobody is writing and that no journal is hot.
    fn rollback_mode(
        &self,
        file: File,
        header: Header,
        side_files: SideFiles,
    ) -> Result<Opened, SqliteError> {
        let Some(connection) = connection::open(self.path, Open::Shared)? else {
            return self.without_sqlite(file, header, &side_files);
        };
        match connection::begin(&connection, self.limit, self.cancelled)? {
            Begun::HotJournal => {
                drop(connection);
                return self.roll_back(file, header, &side_files);
            }
            Begun::CannotOpen => {
                drop(connection);
                return self.without_sqlite(file, header, &side_files);
            }
            Begun::Yes => {}
        }
        self.still_the_same(&file)?;
        if connection::is_wal(&connection)? {
            return Err(SqliteError::Changed);
        }
        let proof = Fingerprint::of(&file)?;
        if proof.size() <= SMALL {
            let bytes = collect(proof.size(), |sink| stream::file(&file, proof.size(), sink))?;
            proof.verify(&file)?;
            // Before the file: see Reader.
            drop(connection);
            return Ok((Method::AtRest, proof.size(), Reader::Memory(bytes)));
        }
        let lock = match self.approach {
            Approach::Certain => Some(connection),
            Approach::Undisturbed => {
                drop(connection);
                None
            }
        };
        let proof = if lock.is_some() { proof } else { settled(&file, self.limit, self.cancelled)? };
        if lock.is_none() && holder(&file) == Holder::Exclusive {
            return Err(SqliteError::Changed);
        }
        Ok((Method::AtRest, proof.size(), Reader::File { lock, file, proof, rollback_mode: true }))
    }

    /// WAL mode and nobody has it open, as far as the locks say.
    fn left_alone(
        &self,
        file: File,
        header: Header,
        log: Option<File>,
        side_files: &SideFiles,
    ) -> Result<Opened, SqliteError> {
        let proof = settled(&file, self.limit, self.cancelled)?;
        self.still_the_same(&file)?;
        if let Some(log) = log {
            let mut log_header = [0; wal::HEADER];
            read_at(&log, 0, &mut log_header)?;
            if let Some(overlay) = wal::committed(&log)? {
                let second_proof = SecondProof::WalHeader(log_header);
                let shm = side_files.shm_before();
                let reader = Reader::Overlaid { overlay, main: file, proof, second: log, second_proof, shm };
                return self.overlaid(Method::WithWal, reader);
            }
        }
        // A change from rollback to WAL mode, cut short.
        if let Some((journal, size)) = hot_looking(&side_files.journal)? {
            return self.apply_journal(file, header, side_files, (journal, size));
        }
        self.plain(file, proof, false)
    }

    fn plain(&self, file: File, proof: Fingerprint, rollback_mode: bool) -> Result<Opened, SqliteError> {
        let size = proof.size();
        if size <= SMALL {
            let bytes = collect(size, |sink| stream::file(&file, size, sink))?;
            proof.verify(&file)?;
            if rollback_mode && holder(&file) == Holder::Exclusive {
                return Err(SqliteError::Changed);
            }
            return Ok((Method::AtRest, size, Reader::Memory(bytes)));
        }
        Ok((Method::AtRest, size, Reader::File { lock: None, file, proof, rollback_mode }))
    }

    /// SQLite cannot open it here: the same by the locks alone.
    fn without_sqlite(
        &self,
        file: File,
        header: Header,
        side_files: &SideFiles,
    ) -> Result<Opened, SqliteError> {
        let proof = settled(&file, self.limit, self.cancelled)?;
        if holder(&file) == Holder::Exclusive {
            return Err(SqliteError::Locked(self.limit));
        }
        match hot_looking(&side_files.journal)? {
            // Somebody's transaction is running: its journal is not hot and the file may be about to change.
            Some(_) if holder(&file) != Holder::Nobody => Err(SqliteError::Changed),
            Some(journal) => self.apply_journal(file, header, side_files, journal),
            None => self.plain(file, proof, true),
        }
    }

    fn roll_back(&self, file: File, header: Header, side_files: &SideFiles) -> Result<Opened, SqliteError> {
        match hot_looking(&side_files.journal)? {
            Some(journal) => self.apply_journal(file, header, side_files, journal),
            // Somebody rolled it back just now.
            None => Err(SqliteError::Changed),
        }
    }

    fn apply_journal(
        &self,
        file: File,
        header: Header,
        side_files: &SideFiles,
        (journal, size): (File, u64),
    ) -> Result<Opened, SqliteError> {
        let proof = settled(&file, self.limit, self.cancelled)?;
        let journal_proof = Fingerprint::of(&journal)?;
        if journal_proof.size() != size || holder(&file) != Holder::Nobody {
            return Err(SqliteError::Changed);
        }
        let (overlay, super_journal) = match journal::read(&journal, size, header.page_size)? {
            Journal::Cold => return self.plain(file, proof, true),
            Journal::Hot(overlay, super_journal) => (overlay, super_journal),
        };
        if let Some(super_journal) = super_journal
            && !super_journal.exists()
        {
            // Gone means committed, if we see the folder the writer saw: it may have run in a container.
            let here = side_files.journal.parent() == super_journal.parent();
            return if here {
                self.plain(file, proof, true)
            } else {
                Err(SqliteError::SuperJournal(super_journal))
            };
        }
        let second_proof = SecondProof::Journal(journal_proof);
        let reader =
            Reader::Overlaid { overlay, main: file, proof, second: journal, second_proof, shm: false };
        self.overlaid(Method::RolledBack, reader)
    }

    fn overlaid(&self, method: Method, reader: Reader) -> Result<Opened, SqliteError> {
        let Reader::Overlaid { overlay, .. } = &reader else { return Err(SqliteError::Changed) };
        let size = overlay.size();
        if size > SMALL {
            return Ok((method, size, reader));
        }
        let cancelled = self.cancelled.clone();
        let mut snapshot = Snapshot { method, size, path: self.path.to_path_buf(), cancelled, reader };
        let bytes = collect(size, |sink| snapshot.read_all(sink))?;
        Ok((method, size, Reader::Memory(bytes)))
    }

    /// Open elsewhere.
    fn live(&self, file: File, side_files: SideFiles) -> Result<Opened, SqliteError> {
        // Ours is closed before SQLite takes locks that closing it would drop.
        let ours = Fingerprint::of(&file)?;
        drop(file);
        let opened = self.through_sqlite(side_files)?;
        let now = Fingerprint::from_metadata(&self.path.metadata()?);
        if now.same_file(&ours) { Ok(opened) } else { Err(SqliteError::Changed) }
    }

    fn through_sqlite(&self, side_files: SideFiles) -> Result<Opened, SqliteError> {
        let Some(connection) = connection::open(self.path, Open::Shared)? else {
            return self.unopenable(&side_files);
        };
        let begun = connection::begin(&connection, self.limit, self.cancelled);
        if matches!(begun, Ok(Begun::Yes)) {
            return through_connection(connection, side_files, true, self.cancelled);
        }
        drop(connection);
        side_files.remove_ours();
        match begun? {
            Begun::CannotOpen => self.unopenable(&side_files),
            // Not hot when we looked at it.
            Begun::HotJournal | Begun::Yes => Err(SqliteError::Changed),
        }
    }

    /// A folder in which no `-shm` can be made, for example: the bytes are readable all the same.
    fn unopenable(&self, side_files: &SideFiles) -> Result<Opened, SqliteError> {
        let file = system::open_for_reading(self.path)?;
        let mut first = [0; Header::LENGTH];
        read_at(&file, 0, &mut first)?;
        let header = Header::parse(&first).ok_or(SqliteError::Changed)?;
        if holder(&file) == Holder::Exclusive {
            return Err(SqliteError::Locked(self.limit));
        }
        let log = system::open_for_reading(&side_files.wal).ok();
        self.left_alone(file, header, log, side_files)
    }

    fn still_the_same(&self, file: &File) -> Result<(), SqliteError> {
        let named = Fingerprint::from_metadata(&self.path.metadata()?);
        if named.same_file(&Fingerprint::of(file)?) { Ok(()) } else { Err(SqliteError::Changed) }
    }
}

/// A connection with its read transaction begun becomes a reader.
fn through_connection(
    connection: Connection,
    side_files: SideFiles,
    with_pages: bool,
    cancelled: &Cancelled,
) -> Result<Opened, SqliteError> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, u32>(0));
    let size = u64::from(number("PRAGMA page_size")?) * u64::from(number("PRAGMA page_count")?);
    let pages_known = with_pages
        && match connection.prepare("SELECT data FROM sqlite_dbpage") {
            Ok(_) => true,
            Err(error) if error.to_string().contains("no such table") => false,
            Err(error) => return Err(error.into()),
        };
    if !pages_known {
        let spool = spool(&connection, cancelled)?;
        drop(connection);
        side_files.remove_ours();
        let size = spool.as_file().metadata()?.len();
        return Ok((Method::BackupApi, size, Reader::Spooled(spool)));
    }
    if size > SMALL {
        return Ok((Method::Pages, size, Reader::Pages { connection: Some(connection), side_files }));
    }
    let bytes = collect(size, |sink| stream::pages(&connection, size, sink));
    drop(connection);
    side_files.remove_ours();
    Ok((Method::Pages, size, Reader::Memory(bytes?)))
}

/// The backup API under the read transaction held, without which every commit elsewhere would start it over.
fn spool(connection: &Connection, cancelled: &Cancelled) -> Result<tempfile::NamedTempFile, SqliteError> {
    let spool = tempfile::Builder::new().prefix("backup-sqlite-").tempfile()?;
    let mut copy = Connection::open(spool.path())?;
    copy.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")?;
    {
        let backup = Backup::new(connection, &mut copy)?;
        while backup.step(1000)? != StepResult::Done {
            if cancelled.asked() {
                return Err(SqliteError::Cancelled);
            }
        }
    }
    drop(copy);
    Ok(spool)
}

/// A journal with content that could be hot.
fn hot_looking(journal: &Path) -> Result<Option<(File, u64)>, SqliteError> {
    match system::open_for_reading(journal) {
        Ok(file) => {
            let size = file.metadata()?.len();
            Ok((size > 0).then_some((file, size)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn collect(
    size: u64,
    read: impl FnOnce(
        stream::Sink<'_, std::convert::Infallible>,
    ) -> Result<(), ReadError<std::convert::Infallible>>,
) -> Result<Vec<u8>, SqliteError> {
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    let read = read(&mut |chunk| {
        bytes.extend_from_slice(&chunk);
        Ok(())
    });
    match read {
        Ok(()) => Ok(bytes),
        Err(ReadError::Database(error)) => Err(error),
        Err(ReadError::Sink(never)) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An embedding program may link a SQLite without that table.
    #[test]
    fn without_dbpage_the_backup_api_copies_one_moment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.db");
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)")
            .unwrap();
        let cancelled = Cancelled::new(|| false);
        let connection = connection::open(&path, Open::Shared).unwrap().unwrap();
        assert_eq!(connection::begin(&connection, Duration::ZERO, &cancelled).unwrap(), Begun::Yes);
        writer.execute_batch("DELETE FROM t").unwrap();
        let (method, size, reader) =
            through_connection(connection, SideFiles::look(&path), false, &cancelled).unwrap();
        assert_eq!(method, Method::BackupApi);
        let mut snapshot = Snapshot { method, size, path, cancelled: cancelled.clone(), reader };
        snapshot.integrity_check().unwrap();
        let bytes = collect(size, |sink| snapshot.read_all(sink)).unwrap();
        assert_eq!(bytes.len() as u64, size);
        let copy = folder.path().join("copy.db");
        std::fs::write(&copy, bytes).unwrap();
        check::integrity_check(&copy, &cancelled).unwrap();
        let count: i64 = Connection::open(&copy)
            .unwrap()
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 2);
    }
}
