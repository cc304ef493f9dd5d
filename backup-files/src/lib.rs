//! Folders and files with full fidelity, SQLite databases found inside copied consistently.
//!
//! [`FilesBackend`] makes sources and targets from a [`FilesConfig`]; everything else is theirs.

#[cfg(unix)]
mod attributes;
mod backend;
mod config;
#[cfg(unix)]
mod database;
#[cfg(unix)]
mod exclude;
#[cfg(unix)]
mod links;
#[cfg(unix)]
mod listing;
#[cfg(unix)]
mod make;
#[cfg(unix)]
mod phase;
#[cfg(unix)]
mod place;
#[cfg(unix)]
mod pool;
#[cfg(unix)]
mod publish;
#[cfg(unix)]
mod read;
#[cfg(unix)]
mod retrying;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod shadow;
#[cfg(unix)]
mod source;
#[cfg(unix)]
mod spool;
pub mod sqlite;
#[cfg(unix)]
mod stamp;
#[cfg(unix)]
mod stream;
#[cfg(unix)]
mod target;
#[cfg(unix)]
mod walk;

#[cfg(not(unix))]
#[path = "other.rs"]
mod system;
#[cfg(unix)]
#[path = "unix/mod.rs"]
mod system;

pub use backend::FilesBackend;
pub use config::FilesConfig;
