//! Integrity checks that leave no trace.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::Cancelled;
use super::connection::{self, Begun, Open};
use super::error::SqliteError;

/// Checks a restored copy which nobody has open yet; nothing is made beside it.
///
/// # Errors
/// [`SqliteError::Corrupt`] with SQLite's first findings, [`SqliteError::NotCheckable`] if only its application can
/// tell, [`SqliteError::NotADatabase`], [`SqliteError::Cancelled`].
pub fn integrity_check(path: &Path, cancelled: &Cancelled) -> Result<(), SqliteError> {
    let path = std::path::absolute(path)?;
    opened(&path, Open::Immutable, cancelled)
}

/// Checks by a connection made for it.
pub(super) fn opened(path: &Path, how: Open, cancelled: &Cancelled) -> Result<(), SqliteError> {
    let unreadable = || SqliteError::NotCheckable("SQLite cannot open it where it is".into());
    let mut connection = connection::open(path, how)?.ok_or_else(unreadable)?;
    match connection::begin(&connection, Duration::ZERO, cancelled)? {
        Begun::Yes => run(&mut connection, cancelled),
        Begun::HotJournal | Begun::CannotOpen => Err(unreadable()),
    }
}

/// Checks a database image in memory.
pub(super) fn of_bytes(bytes: &[u8], cancelled: &Cancelled) -> Result<(), SqliteError> {
    let Some((header, rest)) = bytes.split_at_checked(super::detect::Header::LENGTH) else {
        return Err(SqliteError::NotADatabase("shorter than a header".into()));
    };
    let mut header = header.to_vec();
    // In memory there is no WAL mode.
    header[18..20].copy_from_slice(&[1, 1]);
    let mut connection = Connection::open_in_memory()?;
    connection.deserialize_read_exact("main", std::io::Read::chain(&header[..], rest), bytes.len(), true)?;
    run(&mut connection, cancelled)
}

pub(super) fn run(connection: &mut Connection, cancelled: &Cancelled) -> Result<(), SqliteError> {
    let asked = cancelled.clone();
    connection.progress_handler(10_000, Some(move || asked.asked()))?;
    let findings = findings(connection);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match findings {
        Ok(lines) if lines == ["ok"] => Ok(()),
        Ok(lines) => Err(SqliteError::Corrupt(lines.join("; "))),
        Err(error) => Err(match SqliteError::from(error) {
            SqliteError::Sqlite(why) => SqliteError::NotCheckable(why),
            error => error,
        }),
    }
}

fn findings(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check(10)")?;
    let rows = statement.query_map([], |row| row.get(0))?;
    rows.collect()
}
