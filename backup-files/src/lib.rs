//! Folders and files with full fidelity, SQLite databases found inside copied consistently.

pub mod sqlite;

#[cfg(not(unix))]
#[path = "other.rs"]
mod system;
#[cfg(unix)]
#[path = "unix/mod.rs"]
mod system;
