//! What a run tells while it goes on. The library prints nothing: observers do.

use serde::Serialize;
use std::sync::Arc;

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing: a file vanished after it was listed.
    Note,
    /// Worth acting on: a file changed while it was read. With `strict` the result is partial.
    Warning,
    /// Something is not in the backup, or was not restored: the result is partial.
    Lost,
}

/// Something that the report, the manifest and the plan must say. It is kept, not only logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Note {
    /// How much it matters.
    pub severity: Severity,
    /// Component it is about; empty: the whole run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub component: String,
    /// Path or object it is about, printable.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What happened.
    pub text: String,
}

/// A step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Sources are connected, the destination is tried.
    Preflight,
    /// The moment is fixed in every source.
    Fix,
    /// Data flows.
    Pour,
    /// The manifest is written and the archive made durable.
    Commit,
    /// What was written is read again.
    ReadBack,
    /// Definitions are tried before anything is taken away.
    Rehearse,
    /// What was restored is compared with what was counted at the time of the backup.
    Prove,
    /// Restored data takes the place of the old data.
    Publish,
    /// A failed restore is undone.
    Revert,
}

/// One typed event of a run.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Event {
    /// A step begins.
    Phase {
        /// Which one.
        phase: Phase,
    },
    /// A backup begins to be copied.
    CopyStarted {
        /// Its id.
        id: crate::BackupId,
        /// Its place among those that are copied, from 1.
        number: usize,
        /// How many there are.
        of: usize,
    },
    /// A component begins to flow.
    ComponentStarted {
        /// Its name.
        component: String,
        /// Bytes to come, as far as is known.
        estimate: Option<u64>,
    },
    /// How far a component is; at most ten times a second.
    Progress {
        /// Its name.
        component: String,
        /// Entries done.
        entries: u64,
        /// Bytes done.
        bytes: u64,
    },
    /// A component has flowed to its end.
    ComponentFinished {
        /// Its name.
        component: String,
        /// Entries.
        entries: u64,
        /// Bytes.
        bytes: u64,
        /// Entries that were lost.
        lost: u64,
    },
    /// Something that will also be in the report.
    Noted {
        /// What.
        note: Note,
    },
    /// What comes through a pipe is written into a temporary file first: the index is at its end.
    Spooling {
        /// Where that file lies.
        folder: String,
    },
    /// The run waits for something that is not its own.
    Waiting {
        /// What for, and who holds it.
        reason: String,
    },
}

/// Receives events. Called from the tasks of the run: must be quick and must not block.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;
