//! Folders and files with full fidelity, SQLite databases found inside copied consistently.
//!
//! [`FilesBackend`] makes sources and targets from a [`FilesConfig`]; everything else is theirs.

mod backend;
mod config;
#[cfg(unix)]
mod devices;
#[cfg(unix)]
mod source;
#[cfg(unix)]
mod spool;
pub mod sqlite;
#[cfg(unix)]
mod stamp;
#[cfg(unix)]
mod target;

#[cfg(not(unix))]
#[path = "other.rs"]
mod system;
#[cfg(unix)]
#[path = "unix/mod.rs"]
mod system;

pub use backend::FilesBackend;
pub use config::FilesConfig;
