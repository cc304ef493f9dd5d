//! MySQL and MariaDB: databases of one moment, read in parallel, proven, and restored beside the old ones.
//!
//! [`MysqlBackend`] makes sources and targets from a [`MysqlConfig`]; everything else is theirs.

mod accounts;
mod address;
mod backend;
mod catalog;
mod client;
mod config;
mod credentials;
mod ddl;
mod definitions;
mod error;
mod quote;
mod server;
mod snapshot;
mod source;
mod stored;
mod target;
mod tools;
mod vendor;

pub use backend::MysqlBackend;
pub use config::{Method, MysqlConfig};
