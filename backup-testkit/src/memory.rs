//! The reference in memory: a source built entry by entry, and a store that is restored as a transaction.

mod backend;
mod contents;
mod incoming;
mod source;
mod store;
mod target;

pub use backend::MemoryBackend;
pub use contents::{Contents, ContentsSink, Held, differences};
pub use incoming::{incoming, surveyed};
pub use source::{MemorySource, pour_into};
pub use store::{Call, MemoryStore};
pub use target::MemoryTarget;
