//! What a restore has begun, on disk before it is begun.

use crate::{BackupId, ProcessStamp};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// How far a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestorePhase {
    /// Shadows are being made and filled. Everything that is live is old.
    Preparing,
    /// Shadows are being swapped in. What is live may be old or new.
    Publishing,
    /// Everything that is live is new; the old data is kept.
    Published,
    /// The old state is being brought back.
    Reverting,
    /// The old data is being dropped.
    Settling,
}

/// One target of a restore as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalTarget {
    /// Name of the component.
    pub component: String,
    /// `Backend::kind`.
    pub kind: String,
    /// Where, for people.
    pub place: String,
    /// `Target::undo`.
    pub undo: Value,
}

/// A restore whose journal exists: it goes on, was interrupted, or can still be undone.
#[derive(Clone, Debug, Serialize)]
pub struct PendingRestore {
    /// Its id.
    pub id: BackupId,
    /// Name of the module.
    pub label: String,
    /// The backup that was restored.
    pub backup: BackupId,
    /// How far it is.
    pub phase: RestorePhase,
    /// When it began.
    pub started: Timestamp,
    /// When it was published.
    pub published: Option<Timestamp>,
    /// Until when the old data is kept.
    pub keep_until: Option<Timestamp>,
    /// Its targets, in the order in which they are published.
    pub targets: Vec<JournalTarget>,
    /// Who runs it, or ran it.
    pub process: ProcessStamp,
    /// Where its journal is.
    pub journal: PathBuf,
    /// Whether its run goes on; `None`: it is another host's, and not known.
    pub running: Option<bool>,
}
