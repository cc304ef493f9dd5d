//! Restores that are not over: interrupted ones are brought to an end, others undone or settled.

use crate::{Registry, Result};
use backup_core::{
    Context, Error, ErrorKind, ForgottenRestore, Healed, JournalTarget, PendingRestore, RestorePhase,
    forget_restore, heal_restores, pending, real_path, restored_places, settle_restore, undo_restore,
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
    Ok(heal_restores(state_dir, homes, registry, Timestamp::now(), cx).await?)
}

/// Ends the restore whose id begins with `id` without the places that can never be reached again (a disk that is broken, a server that is
/// gone): what cannot be reverted or settled is given up, and the restore is forgotten. Reads `state_dir` only.
pub async fn forget(
    id: &str,
    state_dir: &Path,
    registry: &Registry,
    cx: &Context,
) -> Result<ForgottenRestore> {
    Ok(forget_restore(state_dir, id, registry, cx).await?)
}

/// Folders with the journal of a restore to `place`: beside it, or in it where it is a mount point. For `heal` when the state
/// folder is lost. Whose they are is for `heal` to look at: others may have made them.
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
            let named = item.file_name().to_string_lossy().starts_with(&prefix);
            let journal = item.path().join("journal.json").symlink_metadata();
            // What this user may not look into is somebody else's, and that is said.
            if named && journal.err().is_none_or(|e| e.kind() == io::ErrorKind::PermissionDenied) {
                homes.push(item.path());
            }
        }
    }
    homes.sort();
    Ok(homes)
}

/// Whether a restore to this place is known from the state folder: one that is not over, or whose old data is kept.
pub fn is_restored_to(place: &Path, state_dir: &Path) -> Result<bool> {
    let names = [std::path::absolute(place).map_err(|e| unreadable(place, e))?, real_path(place)];
    Ok(restored_places(state_dir)?
        .iter()
        .any(|known| names.iter().any(|name| *known == name.display().to_string())))
}

fn unreadable(folder: &Path, e: io::Error) -> Error {
    Error::io(ErrorKind::Target, "look for journals", e).on(folder.display())
}

/// The restore that `conclude` would act on. Reads only: to say what it is before it is decided.
pub fn kept(old: Old, id: Option<&str>, module: Option<&str>, state_dir: &Path) -> Result<PendingRestore> {
    let all = pending(state_dir, &[])?;
    Ok(one_of(&all, old, id, module, state_dir)?.clone())
}

/// Undoes or settles the restore whose id, or whose backup's id, begins with `id`; without one the only one that there is, of
/// this module if one is given. One that was interrupted only if its own id is given: if another host began it, the caller
/// answers for that run's end.
pub async fn conclude(
    old: Old,
    id: Option<&str>,
    module: Option<&str>,
    state_dir: &Path,
    registry: &Registry,
    cx: &Context,
) -> Result<PendingRestore> {
    let all = pending(state_dir, &[])?;
    let restore = one_of(&all, old, id, module, state_dir)?;
    match old {
        Old::BringBack => undo_restore(restore, registry, cx).await?,
        Old::LetGo => settle_restore(restore, registry, cx).await?,
    }
    Ok(restore.clone())
}

/// Whether `newer` was restored over what `older` had restored, or into it.
fn is_over(newer: &PendingRestore, older: &PendingRestore) -> bool {
    let same = |o: &JournalTarget| newer.targets.iter().any(|t| (&o.kind, &o.place) == (&t.kind, &t.place));
    // Its old data would be moved away with what it lies in.
    let inside = |o: &JournalTarget| newer.homes.iter().any(|home| home.starts_with(&o.place));
    let over = older.targets.iter().any(|o| newer.phase == RestorePhase::Published && same(o) || inside(o));
    newer.id != older.id && newer.started > older.started && over
}

fn one_of<'a>(
    all: &'a [PendingRestore],
    old: Old,
    id: Option<&str>,
    module: Option<&str>,
    state_dir: &Path,
) -> Result<&'a PendingRestore, Error> {
    let operation = match old {
        Old::BringBack => "undo a restore",
        Old::LetGo => "settle a restore",
    };
    let done: Vec<&PendingRestore> = all
        .iter()
        .filter(|r| r.phase == RestorePhase::Published || id.is_some_and(|id| is_interrupted(r, old, id)))
        .filter(|r| module.is_none_or(|m| r.label == m))
        .filter(|r| {
            id.is_none_or(|id| {
                r.id.as_str().starts_with(id) || r.backup.as_str().starts_with(id) || is_in(r, id)
            })
        })
        .collect();
    match done.as_slice() {
        [one] => match all.iter().find(|newer| old == Old::BringBack && is_over(newer, one)) {
            // Its old data is what the newer one has replaced by now.
            Some(newer) => Err(Error::new(
                ErrorKind::Refused,
                operation,
                format!(
                    "the restore {} of the same place, or into it, was later, and its old data is kept, too",
                    newer.id
                ),
            )
            .on(&one.id)
            .hint(format!("first that one: `backup restore --undo {}`, then this one", newer.id))),
            None => Ok(one),
        },
        [] => Err(Error::new(
            ErrorKind::NotFound,
            operation,
            format!("none whose old data is still kept is known in {}", state_dir.display()),
        )
        .hint(
            "a restore in place, or one that was settled at once, keeps none; `backup heal PLACE` finds one beside what was restored; `backup heal` brings one that was interrupted to \
             its end (so does its id), and names those that cannot be reached",
        )),
        several => {
            let list: Vec<String> = several
                .iter()
                .map(|r| {
                    let places: Vec<&str> = r.targets.iter().map(|t| t.place.as_str()).collect();
                    format!("{} ({}, {}, to {})", r.id, r.label, r.started.strftime("%F %T"), places.join(", "))
                })
                .collect();
            Err(Error::new(ErrorKind::Usage, operation, format!("there are several: {}", list.join("; ")))
                .hint("name one by its id"))
        }
    }
}

/// Whether this is the id in the name of a folder of it, which is what a person sees beside the data.
fn is_in(restore: &PendingRestore, id: &str) -> bool {
    let names = restore.homes.iter().filter_map(|home| home.file_name()?.to_str());
    id.len() >= 10 && names.filter_map(|name| name.rsplit_once(".backup-")).any(|(_, of)| of.starts_with(id))
}

/// Whether it is the one of this id, and can only be ended this way.
fn is_interrupted(restore: &PendingRestore, old: Old, id: &str) -> bool {
    let dropping = restore.phase == RestorePhase::Settling;
    let named = !id.is_empty() && restore.id.as_str().starts_with(id);
    named && restore.running != Some(true) && dropping == (old == Old::LetGo)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::{BackupId, ProcessStamp};

    fn restore(phase: RestorePhase, running: Option<bool>) -> PendingRestore {
        PendingRestore {
            id: BackupId::generate(),
            label: "m".into(),
            backup: BackupId::generate(),
            phase,
            started: Timestamp::now(),
            published: None,
            keep_until: None,
            targets: Vec::new(),
            homes: Vec::new(),
            process: ProcessStamp::current(),
            journal: PathBuf::new(),
            running,
        }
    }

    #[test]
    fn an_interrupted_restore_is_undone_only_by_its_own_id_and_never_while_it_runs() {
        use RestorePhase::{Preparing, Publishing, Reverting, Settling};
        for phase in [Preparing, Publishing, Reverting] {
            let all = [restore(phase, None)];
            let (id, backup) = (all[0].id.to_string(), all[0].backup.to_string());
            assert_eq!(
                one_of(&all, Old::BringBack, Some(&id), None, Path::new("state")).unwrap().id,
                all[0].id
            );
            for not in [None, Some(""), Some(&*backup)] {
                assert!(one_of(&all, Old::BringBack, not, None, Path::new("state")).is_err(), "{not:?}");
            }
            assert!(one_of(&all, Old::LetGo, Some(&id), None, Path::new("state")).is_err());
            let runs = [PendingRestore { running: Some(true), ..all[0].clone() }];
            assert!(one_of(&runs, Old::BringBack, Some(&id), None, Path::new("state")).is_err());
        }
        let dropping = [restore(Settling, None)];
        let id = dropping[0].id.to_string();
        assert!(one_of(&dropping, Old::LetGo, Some(&id), None, Path::new("state")).is_ok());
        assert!(one_of(&dropping, Old::BringBack, Some(&id), None, Path::new("state")).is_err());
    }
}
