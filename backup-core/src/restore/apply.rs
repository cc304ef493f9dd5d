//! Carries a plan out.

use crate::{BackupId, Notes, State};
use jiff::Timestamp;
use serde::Serialize;

/// A restore that was done.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// Its id, for an undo.
    pub id: BackupId,
    /// The backup that was restored.
    pub backup: BackupId,
    /// The application.
    pub module: String,
    /// What was restored, and where to.
    pub components: Vec<RestoredComponent>,
    /// What happened on the way.
    pub notes: Notes,
    /// Partial if anything was not restored as it was.
    pub state: State,
    /// Whether the old data is gone (also when there was none).
    pub settled: bool,
    /// Until when the old data is kept at least; `None` once settled.
    pub undo_until: Option<Timestamp>,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// One component that was restored.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredComponent {
    /// Its name.
    pub name: String,
    /// Where to.
    pub place: String,
    /// Entries restored.
    pub entries: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Entries that the backup itself lacks.
    pub lost: u64,
}
