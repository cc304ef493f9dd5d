//! What every run can be given: cancellation, an observer, a limit of memory.

use backup_core::{Context, Observer};
use std::fmt;
use tokio_util::sync::CancellationToken;

/// Settings of one run.
#[derive(Clone, Default)]
pub struct Run {
    /// Ends the run in order when it is cancelled.
    pub cancel: CancellationToken,
    /// Receives the events of the run. Must be quick.
    pub observer: Option<Observer>,
    /// Bounds the bytes that are held at once of what is read for a backup; 24 MiB and 4 MiB for each core (of 2 to 16) if not
    /// given.
    pub memory_limit: Option<usize>,
}

impl Run {
    /// The context of one run: its notes are its own.
    pub fn context(&self) -> Context {
        let cx = Context::default();
        let cx = match self.memory_limit {
            Some(bytes) => Context::new(bytes, cx.tasks),
            None => cx,
        };
        cx.with_observer(self.observer.clone()).with_cancel(self.cancel.clone())
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("memory_limit", &self.memory_limit).finish_non_exhaustive()
    }
}
