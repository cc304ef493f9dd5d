//! Folders and files with full fidelity, SQLite databases found inside copied consistently.
//!
//! [`FilesBackend`] makes sources and targets from a [`FilesConfig`]; everything else is theirs.

mod attributes;
mod backend;
mod config;
mod database;
mod exclude;
mod links;
mod listing;
mod make;
mod phase;
mod place;
mod pool;
mod publish;
mod read;
mod retrying;
mod run;
mod shadow;
mod source;
mod spool;
pub mod sqlite;
mod stamp;
mod stream;
mod target;
mod walk;

#[cfg(not(unix))]
#[path = "other.rs"]
mod system;
#[cfg(unix)]
#[path = "unix/mod.rs"]
mod system;

pub use backend::FilesBackend;
pub use config::FilesConfig;
