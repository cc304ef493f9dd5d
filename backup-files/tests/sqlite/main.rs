//! SQLite databases: at rest, written to, crashed, locked, on read-only mounts, under awkward names.

#![allow(clippy::unwrap_used, reason = "tests")]

mod at_rest;
mod child;
mod crashed;
mod database;
mod locked;
mod written;
