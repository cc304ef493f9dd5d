//! SQLite databases copied consistently while they are in use, without changing anything beside them.
//!
//! Which way a database is read follows from who else has it open ([`Method`] says which was taken):
//!
//! * nobody, nothing left over: the file's own bytes, with proof afterwards that nothing changed meanwhile;
//! * nobody, a `-wal` or a hot `-journal` left by a crash: the file's bytes with the committed frames, or the
//!   pages to be rolled back, laid over them in passing, as SQLite's recovery would, without touching the source;
//! * somebody, WAL mode: page by page through `sqlite_dbpage` inside one read transaction, which stops nobody;
//! * rollback mode: the file's bytes under SQLite's shared lock, for as long as eight megabytes take; larger
//!   ones as above with proof afterwards, see [`Approach`].
//!
//! POSIX drops a process's locks on a file when *any* of its descriptors on it is closed
//! (<https://sqlite.org/howtocorrupt.html>, section 2.2). A program which embeds this library and has the database
//! open itself is asked for by [`locked_by_this_process`]; such files are read through SQLite alone.

mod check;
mod connection;
mod detect;
mod error;
mod guard;
mod journal;
mod opening;
mod overlay;
mod snapshot;
mod stream;
mod wal;

pub use check::integrity_check;
pub use detect::{SIDE_FILES, is_database, is_log, side_files};
pub use error::{ReadError, SqliteError};
pub use guard::locked_by_this_process;
pub use snapshot::{Approach, Cancelled, Method, Snapshot};
