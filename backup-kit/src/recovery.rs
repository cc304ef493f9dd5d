//! Restores that are not over: interrupted ones are brought to an end, others undone or settled.

use crate::{Registry, Result};
use backup_core::{
    Context, Error, ErrorKind, Healed, PendingRestore, RestorePhase, heal_restores, pending, settle_restore,
    undo_restore,
};
use jiff::Timestamp;
use std::{
    io,
    path::{Path, PathBuf},
};

/// What is done with the old data of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old {
    /// It takes its place again.
    BringBack,
    /// It is dropped: there is no way back.
    LetGo,
}

/// Brings every interrupted restore to an end, and drops old data whose time is over. Restores are known from `state_dir`;
/// journals that lie beside restored data, in one of the folders `homes`, are found without it.
pub async fn heal(
    state_dir: &Path,
    homes: &[PathBuf],
    registry: &Registry,
    cx: &Context,
) -> Result<Vec<Healed>> {
    let recover = |kind: &str, undo| registry.recover(kind, undo);
    Ok(heal_restores(state_dir, homes, &recover, Timestamp::now(), cx).await?)
}

/// Folders with the journal of a restore to `place`: beside it, or in it where it is a mount point. For `heal` when the state
/// folder is lost.
pub fn journal_homes(place: &Path) -> Result<Vec<PathBuf>> {
    let place = std::path::absolute(place).map_err(|e| unreadable(place, e))?;
    let mut homes = Vec::new();
    let beside = place
        .parent()
        .zip(place.file_name())
        .map(|(parent, name)| (parent.to_owned(), format!(".{}.backup-", name.to_string_lossy())));
    for (folder, prefix) in beside.into_iter().chain([(place, ".backup-".to_owned())]) {
        let list = match std::fs::read_dir(&folder) {
            Ok(list) => list,
            // A restored file is no folder, and an interrupted restore may have left nothing here.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(e) => return Err(unreadable(&folder, e).into()),
        };
        for item in list {
            let item = item.map_err(|e| unreadable(&folder, e))?;
            let ours = item.file_name().to_string_lossy().starts_with(&prefix);
            if ours && item.path().join("journal.json").is_file() {
                homes.push(item.path());
            }
        }
    }
    homes.sort();
    Ok(homes)
}

fn unreadable(folder: &Path, e: io::Error) -> Error {
    Error::io(ErrorKind::Target, "look for journals", e).on(folder.display())
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
