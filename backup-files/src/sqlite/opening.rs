//! Fixing the moment of a database: which way to read it.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::connection::{self, Begun, Open, SideFiles};
use super::detect::Header;
use super::error::{ReadError, SqliteError};
use super::guard::{DatabaseFile, Fingerprint, Holder, holder, locked_by_this_process, settled};
use super::journal::{self, Journal};
use super::snapshot::{Approach, Cancelled, Method, Reader, SecondProof, Snapshot};
use super::{stream, wal};
use crate::system::{self, read_at};

/// A database up to this size is read into memory at once, so that locks are held for milliseconds however slow
/// the receiver is, and can be checked there.
const SMALL: u64 = 8 * 1024 * 1024;

/// How it is read, how many bytes that will be, and what it is read from.
pub(super) type Opened = (Method, u64, Reader);

/// What was asked for.
pub(super) struct Opening<'a> {
    pub(super) path: &'a Path,
    /// Device and inode of the file that is meant, which another may have taken the place of.
    pub(super) identity: (u64, u64),
    pub(super) approach: Approach,
    pub(super) limit: Duration,
    pub(super) cancelled: &'a Cancelled,
}

impl Opening<'_> {
    pub(super) fn open(&self) -> Result<Opened, SqliteError> {
        self.still_named()?;
        if locked_by_this_process().contains(&self.identity) {
            return self.through_sqlite(SideFiles::look(self.path));
        }
        let file = self.open_file()?;
        let mut first = [0; Header::LENGTH];
        let length = read_at(&file, 0, &mut first)?;
        let Some(header) = Header::parse(&first[..length]) else {
            return Err(SqliteError::NotADatabase("its header is not one".into()));
        };
        let side_files = SideFiles::look(self.path);
        let log_used = side_files.wal.symlink_metadata().is_ok_and(|log| log.len() > 0);
        if !header.wal && !log_used {
            return self.rollback_mode(file, header, &side_files);
        }
        match (holder(&file), self.approach) {
            // For the exclusive one it waits, and says Locked in the end.
            (Holder::Exclusive | Holder::Readers | Holder::Unknown, _) => self.live(file, side_files),
            (Holder::Nobody, Approach::Undisturbed) => self.left_alone(file, header, &side_files),
            (Holder::Nobody, Approach::Certain) if log_used => {
                match self.left_alone(file.share(), header, &side_files) {
                    Err(SqliteError::Changed) => self.live(file, SideFiles::look(self.path)),
                    opened => opened,
                }
            }
            (Holder::Nobody, Approach::Certain) => self.live(file, side_files),
        }
    }

    /// Rollback mode. SQLite's shared lock says that nobody is writing and that no journal is hot.
    fn rollback_mode(
        &self,
        file: DatabaseFile,
        header: Header,
        side_files: &SideFiles,
    ) -> Result<Opened, SqliteError> {
        let small = Fingerprint::of(&file)?.size() <= SMALL;
        // What is read without the lock must not change from before the moment at which the lock proves it sound.
        let unlocked = match self.approach {
            Approach::Undisturbed if !small => Some(settled(&file, self.limit, self.cancelled)?),
            _ => None,
        };
        let Some(connection) = connection::open(self.path, Open::Shared)? else {
            return self.without_sqlite(file, header, side_files);
        };
        match connection::begin(&connection, self.limit, self.cancelled)? {
            Begun::HotJournal => {
                drop(connection);
                return self.apply_journal(file, header, side_files);
            }
            Begun::CannotOpen => {
                drop(connection);
                return self.without_sqlite(file, header, side_files);
            }
            Begun::Yes => {}
        }
        self.still_the_same(&file)?;
        self.sqlite_has_it(1)?;
        if connection::is_wal(&connection)? {
            return Err(SqliteError::Changed);
        }
        let proof = match unlocked {
            Some(proof) => proof,
            None => Fingerprint::of(&file)?,
        };
        proof.verify(&file)?;
        if proof.size() <= SMALL {
            let bytes = collect(proof.size(), |sink| stream::file(&file, proof.size(), sink))?;
            proof.verify(&file)?;
            // Before the file: see Reader.
            drop(connection);
            return Ok((Method::AtRest, proof.size(), Reader::Memory(bytes)));
        }
        let lock = match self.approach {
            Approach::Certain => Some(connection),
            // Small a moment ago.
            Approach::Undisturbed if unlocked.is_none() => return Err(SqliteError::Changed),
            Approach::Undisturbed => {
                drop(connection);
                None
            }
        };
        Ok((Method::AtRest, proof.size(), Reader::File { lock, file, proof }))
    }

    /// WAL mode and nobody has it open, as far as the locks say.
    ///
    /// The database settles before the log is opened: as long as it then stays as it is, no frame has moved from the
    /// log into it, and the log opened is the one that belongs to it. The other way round the log could be one that
    /// was removed long before.
    fn left_alone(
        &self,
        file: DatabaseFile,
        header: Header,
        side_files: &SideFiles,
    ) -> Result<Opened, SqliteError> {
        let proof = settled(&file, self.limit, self.cancelled)?;
        self.still_the_same(&file)?;
        if let Some((log, _)) = not_empty(&side_files.wal)? {
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
        if not_empty(&side_files.journal)?.is_some() {
            return self.apply_journal(file, header, side_files);
        }
        plain(file, proof)
    }

    /// SQLite cannot open it here: the same by the locks alone.
    fn without_sqlite(
        &self,
        file: DatabaseFile,
        header: Header,
        side_files: &SideFiles,
    ) -> Result<Opened, SqliteError> {
        let proof = settled(&file, self.limit, self.cancelled)?;
        if holder(&file) == Holder::Exclusive {
            return Err(SqliteError::Locked(self.limit));
        }
        self.still_the_same(&file)?;
        if not_empty(&side_files.journal)?.is_some() {
            return self.apply_journal(file, header, side_files);
        }
        plain(file, proof)
    }

    /// A journal which nobody is writing to, over the database; in this order for the reason given above.
    fn apply_journal(
        &self,
        file: DatabaseFile,
        header: Header,
        side_files: &SideFiles,
    ) -> Result<Opened, SqliteError> {
        let proof = settled(&file, self.limit, self.cancelled)?;
        self.still_the_same(&file)?;
        // Gone: somebody rolled it back just now.
        let (journal, size) = not_empty(&side_files.journal)?.ok_or(SqliteError::Changed)?;
        if matches!(journal::read(&journal, size, header.page_size)?, Journal::Cold) {
            return plain(file, proof);
        }
        let journal_proof = settled(&journal, self.limit, self.cancelled)?;
        if journal_proof.size() != size || holder(&file) != Holder::Nobody {
            // Somebody's transaction is running: the journal is not for us to apply.
            return Err(SqliteError::Changed);
        }
        let Journal::Hot(overlay, super_journal) = journal::read(&journal, size, header.page_size)? else {
            return Err(SqliteError::Changed);
        };
        if let Some(super_journal) = super_journal
            && !super_journal.exists()
        {
            // Gone means committed, if we see the folder the writer saw: it may have run in a container.
            let here = side_files.journal.parent() == super_journal.parent();
            return if here { plain(file, proof) } else { Err(SqliteError::SuperJournal(super_journal)) };
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
    fn live(&self, file: DatabaseFile, side_files: SideFiles) -> Result<Opened, SqliteError> {
        // Ours is closed before SQLite takes locks that closing it would drop.
        drop(file);
        self.through_sqlite(side_files)
    }

    fn through_sqlite(&self, side_files: SideFiles) -> Result<Opened, SqliteError> {
        let Some(connection) = connection::open(self.path, Open::Shared)? else {
            return self.unopenable(&side_files);
        };
        let begun = connection::begin(&connection, self.limit, self.cancelled);
        if matches!(begun, Ok(Begun::Yes)) {
            self.sqlite_has_it(0)?;
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
        let file = self.open_file()?;
        let mut first = [0; Header::LENGTH];
        read_at(&file, 0, &mut first)?;
        let header = Header::parse(&first).ok_or(SqliteError::Changed)?;
        if holder(&file) == Holder::Exclusive {
            return Err(SqliteError::Locked(self.limit));
        }
        self.left_alone(file, header, side_files)
    }

    fn still_the_same(&self, file: &File) -> Result<(), SqliteError> {
        self.still_named()?;
        if system::identity(&file.metadata()?) == self.identity { Ok(()) } else { Err(SqliteError::Changed) }
    }

    /// The path leads to the file that is meant.
    fn still_named(&self) -> Result<(), SqliteError> {
        let named = system::identity(&self.path.symlink_metadata()?);
        if named == self.identity { Ok(()) } else { Err(SqliteError::Changed) }
    }

    fn open_file(&self) -> Result<DatabaseFile, SqliteError> {
        let file = DatabaseFile::new(system::open_for_reading(self.path)?);
        self.still_the_same(&file)?;
        Ok(file)
    }

    /// SQLite opens by the path, which may have led elsewhere for just that moment: it must have a descriptor on the
    /// file that is meant, besides as many of ours.
    fn sqlite_has_it(&self, ours: usize) -> Result<(), SqliteError> {
        self.still_named()?;
        let elsewhere = system::descriptors_on(self.identity).is_some_and(|count| count <= ours);
        if elsewhere { Err(SqliteError::Changed) } else { Ok(()) }
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

/// The file's own bytes, small ones at once.
fn plain(file: DatabaseFile, proof: Fingerprint) -> Result<Opened, SqliteError> {
    let size = proof.size();
    if size > SMALL {
        return Ok((Method::AtRest, size, Reader::File { lock: None, file, proof }));
    }
    let bytes = collect(size, |sink| stream::file(&file, size, sink))?;
    proof.verify(&file)?;
    Ok((Method::AtRest, size, Reader::Memory(bytes)))
}

/// A side file with content, and its size.
fn not_empty(side_file: &Path) -> Result<Option<(File, u64)>, SqliteError> {
    match system::open_for_reading(side_file) {
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
    use super::super::check;
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

    #[test]
    fn another_file_than_the_one_that_is_meant_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let [meant, other] = ["meant.db", "other.db"].map(|name| folder.path().join(name));
        for path in [&meant, &other] {
            Connection::open(path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        }
        let identity = system::identity(&meant.symlink_metadata().unwrap());
        let open = |path: &Path| {
            let cancelled = Cancelled::new(|| false);
            Snapshot::open_this(path, identity, Approach::Certain, Duration::ZERO, &cancelled)
        };
        assert!(open(&meant).is_ok());
        assert!(matches!(open(&other), Err(SqliteError::Changed)));
        std::fs::rename(&meant, folder.path().join("moved.db")).unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("moved.db", &meant).unwrap();
            assert!(matches!(open(&meant), Err(SqliteError::Changed)));
            let elsewhere = Opening {
                path: &folder.path().join("moved.db"),
                identity,
                approach: Approach::Certain,
                limit: Duration::ZERO,
                cancelled: &Cancelled::new(|| false),
            };
            // What SQLite would have opened was not this one.
            assert!(matches!(elsewhere.sqlite_has_it(0), Err(SqliteError::Changed)));
        }
    }
}
