//! Wrappers that make a sound content, source, sink or target fail the way the world does.

mod content;
mod sink;
mod source;
mod target;

/// Panics as the code of a store may, without the report on stderr that would look like a failed test.
fn panic_as_told(who: &str) -> ! {
    std::panic::resume_unwind(Box::new(format!("{who} panics as it was told to")))
}

pub use content::ContentFault;
pub use sink::{
    BreaksAfter, DiscardsFirst, DropsMidPut, FullAfter, KeepsAll, LastFirst, OneAtATime, RecordsPuts, SlowOn,
};
pub use source::{FaultySource, SourceFault};
pub use target::{Fault, FaultyTarget, Step};
