//! SQLite connections which only read, and what must be known to leave nothing behind.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::Cancelled;
use super::detect::side_files;
use super::error::SqliteError;
use crate::system::path_to_bytes;

/// How SQLite opens a database for reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// With locks. Makes `-wal` and `-shm` for a WAL database that has none: see [`SideFiles`].
    Shared,
    /// As Shared, and an existing `-shm` is not written to; a missing one is an error. Not for a database which this
    /// process may also open for writing: connections of one process share what they know of the `-shm`.
    SharedWithoutWritingShm,
    /// No locks and no side files, for a file of which the caller knows that it does not change.
    Immutable,
}

/// None: SQLite cannot open it, being able to read it or not (a path over 512 bytes, say).
pub(super) fn open(path: &Path, how: Open) -> Result<Option<Connection>, SqliteError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let with_uri = flags | OpenFlags::SQLITE_OPEN_URI;
    let opened = match how {
        Open::Shared => Connection::open_with_flags(path, flags),
        Open::SharedWithoutWritingShm => Connection::open_with_flags(uri(path, "readonly_shm=1"), with_uri),
        Open::Immutable => Connection::open_with_flags(uri(path, "immutable=1"), with_uri),
    };
    match opened {
        Ok(connection) => {
            connection.busy_timeout(Duration::ZERO)?;
            Ok(Some(connection))
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The outcome of [`begin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// The moment is fixed.
    Yes,
    /// A crashed transaction would have to be rolled back first, which a reader does not do.
    HotJournal,
    /// SQLite cannot open a file it needs: a path over 512 bytes, a folder in which no `-shm` can be made.
    CannotOpen,
}

/// Starts a read transaction, waiting at most `limit` for writers that keep readers out.
pub(super) fn begin(
    connection: &Connection,
    limit: Duration,
    cancelled: &Cancelled,
) -> Result<Begun, SqliteError> {
    let start = Instant::now();
    loop {
        // BEGIN alone takes no lock; the first read does. A value of the header is read without the schema, which
        // may be damaged.
        let begun = connection
            .execute_batch("BEGIN")
            .and_then(|()| connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0)));
        let Err(error) = begun else { return Ok(Begun::Yes) };
        let code = error.sqlite_error().map(|error| error.extended_code);
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        match (error.sqlite_error_code(), code) {
            (_, Some(ffi::SQLITE_READONLY_ROLLBACK)) => return Ok(Begun::HotJournal),
            (Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly), _) => return Ok(Begun::CannotOpen),
            (Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked), _) => {}
            _ => return Err(error.into()),
        }
        if cancelled.asked() {
            return Err(SqliteError::Cancelled);
        }
        if start.elapsed() >= limit {
            return Err(SqliteError::Locked(limit));
        }
        std::thread::sleep(Duration::from_millis(5).min(limit));
    }
}

/// Whether the read transaction just begun is one of WAL mode.
pub(super) fn is_wal(connection: &Connection) -> Result<bool, SqliteError> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    Ok(mode.eq_ignore_ascii_case("wal"))
}

/// The side files' paths, and which were there before a connection of ours was.
#[derive(Debug)]
pub(super) struct SideFiles {
    database: PathBuf,
    pub(super) wal: PathBuf,
    pub(super) journal: PathBuf,
    wal_before: bool,
    shm_before: bool,
}

impl SideFiles {
    pub(super) fn look(database: &Path) -> SideFiles {
        let [wal, shm, journal] =
            side_files(database.file_name().unwrap_or_default()).map(|name| database.with_file_name(name));
        let (wal_before, shm_before) = (wal.exists(), shm.exists());
        SideFiles { database: database.to_path_buf(), wal, journal, wal_before, shm_before }
    }

    pub(super) fn shm_before(&self) -> bool {
        self.shm_before
    }

    /// Has SQLite remove what SQLite made for our connection, which must be closed by now.
    ///
    /// A reader that closes last leaves an empty `-wal` and a `-shm`; a connection that may write removes them,
    /// under the exclusive lock which alone makes that safe, and with an empty log it writes nothing. Removing them
    /// ourselves could take them from under a process that has just opened them.
    pub(super) fn remove_ours(&self) {
        let empty_wal = self.wal.symlink_metadata().is_ok_and(|wal| wal.len() == 0);
        if self.wal_before || self.shm_before || !empty_wal || self.journal.exists() {
            return;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        // If it fails somebody else has the database open by now, and will remove them.
        if let Ok(connection) = Connection::open_with_flags(&self.database, flags) {
            let _ = connection.query_row("PRAGMA schema_version", [], |row| row.get::<_, i64>(0));
        }
    }
}

/// `file:` with every byte escaped that means something in a URI or is not ASCII.
fn uri(path: &Path, parameter: &str) -> String {
    let mut uri = String::from("file:");
    for byte in path_to_bytes(path) {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => uri.push(char::from(byte)),
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri.push('?');
    uri.push_str(parameter);
    uri
}
