//! Wrappers that make a sound content, source, sink or target fail the way the world does.

mod content;
mod sink;
mod source;
mod target;

pub use content::ContentFault;
pub use sink::{
    BreaksAfter, DiscardsFirst, DropsMidPut, FullAfter, KeepsAll, LastFirst, OneAtATime, RecordsPuts, SlowOn,
};
pub use source::{FaultySource, SourceFault};
pub use target::{Fault, FaultyTarget, Step};
