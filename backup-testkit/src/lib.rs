//! Conformance suites and fault wrappers for sources, sinks, targets and archives. README.md shows how to enlist a store.

pub mod conformance;
pub mod faults;
pub mod make;
pub mod memory;
mod run;
#[cfg(feature = "servers")]
pub mod servers;
#[cfg(feature = "services")]
pub mod services;

pub use run::{Must, not_applicable, run, run_again_with, skip};
