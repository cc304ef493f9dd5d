//! Restores that are not over: interrupted ones are brought to an end, others undone or settled.

use crate::{Registry, Result};
use backup_core::{
    Context, Error, ErrorKind, Healed, PendingRestore, RestorePhase, heal_restores, pending, settle_restore,
    undo_restore,
};
use jiff::Timestamp;
use std::path::Path;

/// What is done with the old data of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// It takes its place again.
    BringBack,
    /// It is dropped: there is no way back.
    LetGo,
}

/// Brings every interrupted restore to an end, and drops old data whose time is over.
pub async fn heal(state_dir: &Path, registry: &Registry, cx: &Context) -> Result<Vec<Healed>> {
    let recover = |kind: &str, undo| registry.recover(kind, undo);
    Ok(heal_restores(state_dir, &[], &recover, Timestamp::now(), cx).await?)
}

/// Undoes or settles the restore whose id, or whose backup's id, begins with `id`; without one the only one that there is, of
/// this module if one is given.
pub async fn conclude(
    old: Old,
    id: Option<&str>,
    module: Option<&str>,
    state_dir: &Path,
    registry: &Registry,
    cx: &Context,
) -> Result<PendingRestore> {
    let all = pending(state_dir, &[])?;
    let restore = one_of(&all, old, id, module)?;
    let recover = |kind: &str, undo| registry.recover(kind, undo);
    match old {
        Old::BringBack => undo_restore(restore, &recover, cx).await?,
        Old::LetGo => settle_restore(restore, &recover, cx).await?,
    }
    Ok(restore.clone())
}

fn one_of<'a>(
    all: &'a [PendingRestore],
    old: Old,
    id: Option<&str>,
    module: Option<&str>,
) -> Result<&'a PendingRestore, Error> {
    let operation = match old {
        Old::BringBack => "undo a restore",
        Old::LetGo => "settle a restore",
    };
    let done: Vec<&PendingRestore> = all
        .iter()
        .filter(|r| r.phase == RestorePhase::Published)
        .filter(|r| module.is_none_or(|m| r.label == m))
        .filter(|r| id.is_none_or(|id| r.id.as_str().starts_with(id) || r.backup.as_str().starts_with(id)))
        .collect();
    match done.as_slice() {
        [one] => Ok(one),
        [] => Err(Error::new(ErrorKind::NotFound, operation, "there is none whose old data is still kept")
            .hint("one that was interrupted is brought to its end by `backup heal`")),
        several => {
            let list: Vec<String> = several
                .iter()
                .map(|r| format!("{} ({}, {})", r.id, r.label, r.started.strftime("%F %T")))
                .collect();
            Err(Error::new(ErrorKind::Usage, operation, format!("there are several: {}", list.join("; ")))
                .hint("name one by its id"))
        }
    }
}
