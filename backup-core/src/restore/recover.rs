//! Brings restores that were interrupted to an end, and undoes or settles those that were not.

use crate::{BackupId, Context, Error, ErrorKind, PendingRestore, Result, Target};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// `Backend::recover` of the backend of this kind.
pub type Recover<'a> = &'a (dyn Fn(&str, Value) -> Result<Box<dyn Target>> + Sync);

/// What was done with a restore that was found.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Healed {
    /// It was interrupted before its commit point: everything is as it was before.
    Reverted {
        /// The restore.
        id: BackupId,
        /// Name of the module.
        label: String,
    },
    /// The old data was dropped: its time was over, or its dropping had begun.
    Settled {
        /// The restore.
        id: BackupId,
        /// Name of the module.
        label: String,
    },
    /// Nothing was done, for a reason: it goes on, it is another host's, or its old data is still kept.
    LeftAlone {
        /// The restore.
        id: BackupId,
        /// Name of the module.
        label: String,
        /// Why.
        reason: String,
    },
    /// It could not be healed; its journal stays.
    Failed {
        /// The restore.
        id: BackupId,
        /// Name of the module.
        label: String,
        /// Why.
        error: Error,
    },
}

/// All restores that have a journal: those known in `state_dir`, and those in these journal homes (`Target::journal_home`).
pub fn pending(state_dir: &Path, homes: &[PathBuf]) -> Result<Vec<PendingRestore>> {
    let _ = (state_dir, homes);
    Ok(Vec::new())
}

/// Brings every interrupted restore to an end. One that cannot be healed does not keep the others from it.
pub async fn heal_restores(
    state_dir: &Path,
    homes: &[PathBuf],
    recover: Recover<'_>,
    now: Timestamp,
    cx: &Context,
) -> Result<Vec<Healed>> {
    let _ = (state_dir, homes, recover, now, cx);
    Ok(Vec::new())
}

/// Brings the previous data back.
pub async fn undo_restore(restore: &PendingRestore, recover: Recover<'_>, cx: &Context) -> Result<()> {
    let _ = (restore, recover, cx);
    Err(Error::new(ErrorKind::Unsupported, "undo a restore", "not yet"))
}

/// Lets the previous data go.
pub async fn settle_restore(restore: &PendingRestore, recover: Recover<'_>, cx: &Context) -> Result<()> {
    let _ = (restore, recover, cx);
    Err(Error::new(ErrorKind::Unsupported, "settle a restore", "not yet"))
}
