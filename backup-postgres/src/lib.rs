//! PostgreSQL databases as sources and targets: one moment, read in parallel, restored beside the old data and swapped in.
#![doc = include_str!("../README.md")]

mod address;
mod backend;
mod catalog;
mod client;
mod config;
mod credentials;
mod error;
mod globals;
mod layout;
mod properties;
mod quote;
mod server;
mod source;
mod target;
mod toc;
mod tools;

pub use backend::PostgresBackend;
pub use config::{Method, PostgresConfig};
