//! What can go wrong between a SQLite database and its copy.

use std::io;
use std::time::Duration;

/// Why a database could not be copied or did not pass its check.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteError {
    /// The magic is there and the rest is not (damaged, encrypted, another format): to be stored as a plain file.
    #[error("has the first bytes of a SQLite database and is none: {0}")]
    NotADatabase(String),
    /// Somebody held an exclusive lock for all of the time allowed.
    #[error("locked exclusively by another process for more than {0:?}")]
    Locked(Duration),
    /// It was written to, replaced or truncated while being read. What was delivered must be thrown away; a later
    /// attempt may succeed, one with [`Approach::Certain`](super::Approach::Certain) nearly always does.
    #[error("changed while being read")]
    Changed,
    /// SQLite found it damaged; the first lines of what it says.
    #[error("integrity check: {0}")]
    Corrupt(String),
    /// Its integrity cannot be checked here (a collation or module which only its application has, say).
    #[error("its integrity cannot be checked: {0}")]
    NotCheckable(String),
    /// A transaction over several databases was cut short and what decides it is out of reach.
    #[error(
        "a transaction over several databases was interrupted and its super-journal {0:?} cannot be reached from here"
    )]
    SuperJournal(std::path::PathBuf),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// Anything else SQLite says.
    #[error("SQLite: {0}")]
    Sqlite(String),
    /// Reading failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rusqlite::Error> for SqliteError {
    fn from(error: rusqlite::Error) -> SqliteError {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => SqliteError::NotADatabase(error.to_string()),
            Some(ErrorCode::DatabaseCorrupt) => SqliteError::Corrupt(error.to_string()),
            Some(ErrorCode::OperationInterrupted) => SqliteError::Cancelled,
            _ => SqliteError::Sqlite(error.to_string()),
        }
    }
}

/// Why [`Snapshot::read_all`](super::Snapshot::read_all) stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReadError<E> {
    /// The database.
    #[error(transparent)]
    Database(SqliteError),
    /// The receiver, whose error this is.
    #[error("the receiver stopped")]
    Sink(E),
}

impl<E> From<SqliteError> for ReadError<E> {
    fn from(error: SqliteError) -> ReadError<E> {
        ReadError::Database(error)
    }
}
