//! What one run carries with it: cancellation, observer, budget, notes.

use crate::{Budget, Event, Note, Observer, RetryPolicy, Severity};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;

/// Notes kept with their texts; of more only the number is known, so that memory does not grow with what goes wrong.
const NOTES_KEPT: usize = 1000;

/// One per run; a clone is the same run.
#[derive(Clone)]
pub struct Context {
    /// Ends the run early, in order. Whoever waits for long listens to it.
    pub cancel: CancellationToken,
    /// Bytes in flight.
    pub budget: Budget,
    /// How many streams flow at once.
    pub tasks: usize,
    /// How failed calls that may be repeated are repeated.
    pub retry: RetryPolicy,
    observer: Option<Observer>,
    notes: Arc<Mutex<Notes>>,
}

/// What was noted in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Notes {
    /// The first thousand.
    pub list: Vec<Note>,
    /// How many more of each severity there were: note, warning, lost.
    pub more: [u64; 3],
}

impl Notes {
    /// The gravest of all, kept in the list or not.
    pub fn worst(&self) -> Option<Severity> {
        let more = [Severity::Note, Severity::Warning, Severity::Lost]
            .into_iter()
            .zip(self.more)
            .filter(|(_, n)| *n > 0)
            .map(|(s, _)| s)
            .max();
        self.list.iter().map(|n| n.severity).max().max(more)
    }
}

impl Context {
    /// A run with this many bytes in flight and streams at once.
    pub fn new(budget: usize, tasks: usize) -> Self {
        Context {
            cancel: CancellationToken::new(),
            budget: Budget::new(budget),
            tasks: tasks.max(1),
            retry: RetryPolicy::default(),
            observer: None,
            notes: Arc::default(),
        }
    }

    /// Tells `observer` every event.
    #[must_use]
    pub fn with_observer(mut self, observer: Option<Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// Ends when `token` is cancelled.
    #[must_use]
    pub fn with_cancel(mut self, token: CancellationToken) -> Self {
        self.cancel = token;
        self
    }

    /// The same run with a cancellation of its own, which also follows this one: to stop one part of the run.
    pub fn child(&self) -> Self {
        Context { cancel: self.cancel.child_token(), ..self.clone() }
    }

    /// The same run, not cancelled: for cleaning up after a cancellation.
    pub fn calm(&self) -> Self {
        Context { cancel: CancellationToken::new(), ..self.clone() }
    }

    /// The same run, whose notes are neither kept nor told: for what is tried before it is done.
    pub(crate) fn without_notes(&self) -> Self {
        let observer = self.observer.clone().map(|observer| -> Observer {
            Arc::new(move |event: &Event| {
                if !matches!(event, Event::Noted { .. }) {
                    observer(event);
                }
            })
        });
        Context { notes: Arc::default(), observer, ..self.clone() }
    }

    /// Tells the observer.
    pub fn emit(&self, event: &Event) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }

    /// Keeps a note for report and manifest, and tells the observer.
    pub fn note(
        &self,
        severity: Severity,
        component: &str,
        path: impl Into<String>,
        text: impl fmt::Display,
    ) {
        let note =
            Note { severity, component: component.to_owned(), path: path.into(), text: text.to_string() };
        self.emit(&Event::Noted { note: note.clone() });
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.list.len() < NOTES_KEPT {
            notes.list.push(note);
        } else {
            notes.more[severity as usize] += 1;
        }
    }

    /// What was noted so far.
    pub fn notes(&self) -> Notes {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Default for Context {
    /// As many streams as the machine has cores, at least two, and 24 MiB in flight with 4 MiB more for each: a reader that
    /// is quicker than the compression fills all of it.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 16);
        Context::new((24 << 20) + cores * (4 << 20), cores)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("budget", &self.budget)
            .field("tasks", &self.tasks)
            .finish_non_exhaustive()
    }
}
