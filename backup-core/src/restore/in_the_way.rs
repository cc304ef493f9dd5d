//! What stands in the way of a new restore: earlier ones of its places that are not over, and what must not be moved with the
//! data that is replaced, their folders and the state folder.

use super::{
    discover::{Trace, discover},
    document::Place,
    journal::claim,
};
use crate::{Error, ErrorKind, Refusal, RestorePhase, Result, real_path};
use std::path::{Path, PathBuf};

/// Of an error before anything is touched.
const BEGIN: &str = "begin the restore";

/// Refuses what would be restored to a place at which an earlier restore is not over: its revert would take the new data for
/// its own.
pub(super) fn not_in_the_way(state_dir: &Path, wanted: &[Place]) -> Result<()> {
    let met = |place: &&Place| wanted.iter().any(|w| w.meets(place));
    for trace in discover(state_dir, &[])? {
        match trace {
            Trace::Journal(seen, path) => {
                let places = seen.places();
                let Some(place) = places.iter().find(met) else { continue };
                let Some((journal, running)) = claim(&seen, path)? else { continue };
                let document = &journal.document;
                if matches!(document.phase, RestorePhase::Published | RestorePhase::Settling) {
                    continue;
                }
                let (kind, hint) = match running {
                    Some(true) => (ErrorKind::AlreadyRunning, "wait for its end".to_owned()),
                    _ => (
                        ErrorKind::NotRolledBack,
                        format!("heal ends it; if that cannot be: `backup restore --undo {}`", document.id),
                    ),
                };
                let message =
                    format!("an earlier restore, {} by {}, is not over", document.id, document.process);
                return Err(Error::new(kind, BEGIN, message).on(&place.place).hint(hint));
            }
            // Where it is not known what it did, it may have been anything.
            Trace::Lost(pointer, _, e) if pointer.places.is_empty() => return Err(unknown(&e)),
            Trace::Lost(pointer, _, e) => {
                if let Some(place) = pointer.places.iter().find(met) {
                    return Err(unknown(&e).on(&place.place));
                }
            }
            Trace::Bad(_, e) => return Err(unknown(&e)),
            Trace::Nothing(..) | Trace::EmptyHome(_) | Trace::Stray(_) | Trace::NotOurs(..) => {}
        }
    }
    Ok(())
}

fn unknown(e: &Error) -> Error {
    let message = format!("an earlier restore cannot be healed: {e}");
    let hint = e.hint_text().unwrap_or("an earlier restore must be healed first: `backup heal`");
    Error::new(ErrorKind::NotRolledBack, BEGIN, message).hint(hint)
}

/// For each of these places why its old data must not be dropped at once: an earlier restore of it could not be undone any more.
pub(super) fn kept(state_dir: &Path, wanted: &[Place]) -> Result<Vec<Option<Refusal>>> {
    let mut refusals = vec![None; wanted.len()];
    for trace in discover(state_dir, &[])? {
        let Trace::Journal(document, _) = trace else { continue };
        if document.phase != RestorePhase::Published {
            continue;
        }
        for (place, refusal) in wanted.iter().zip(&mut refusals) {
            if document.places().contains(place) {
                let id = &document.id;
                *refusal = Some(Refusal::new(
                    format!(
                        "the old data of an earlier restore of it, {id}, is kept, and could not be brought back any more"
                    ),
                    format!(
                        "`backup settle {id}` lets that go; or leave out what drops the old data at once (--settle, --in-place)"
                    ),
                ));
            }
        }
    }
    Ok(refusals)
}

/// A local target: what is replaced, without symbolic links, and the home that its restore would have.
pub(super) struct Replaced {
    pub(super) path: PathBuf,
    pub(super) home: Option<PathBuf>,
}

/// For each of them why it is refused: what is inside would be moved away with the old data, and dropped with it.
pub(super) fn inside(state_dir: &Path, targets: &[Option<Replaced>]) -> Result<Vec<Vec<Refusal>>> {
    if targets.iter().all(Option::is_none) {
        return Ok(targets.iter().map(|_| Vec::new()).collect());
    }
    let state = real_path(state_dir);
    let traces = discover(state_dir, &[])?;
    let kept = || traces.iter().flat_map(|t| t.homes().iter().map(move |home| (t, home)));
    let refusals = |target: &Replaced| {
        let mut refusals = Vec::new();
        if state.starts_with(&target.path) {
            refusals.push(Refusal::new(
                format!(
                    "the state folder {} lies inside of what would be replaced: the restore could not be undone or healed",
                    state.display()
                ),
                "set BACKUP_STATE_DIR to a folder outside of it, for this restore and for its undo, settle and heal",
            ));
        }
        let above = |path: &Path| path.parent().map(Path::to_owned);
        for (trace, home) in kept() {
            // Where something is mounted, homes are at its top, and stay there.
            let stays = target.home.as_deref().and_then(above) == above(home);
            if home.starts_with(&target.path) && !stays && home.symlink_metadata().is_ok() {
                let id = trace.id().unwrap_or_default();
                refusals.push(Refusal::new(
                    format!(
                        "the restore {id} is not settled, and its old data lies inside, in {}",
                        home.display()
                    ),
                    format!("`backup settle {id}` drops that, `backup restore --undo {id}` brings it back"),
                ));
            }
        }
        refusals
    };
    Ok(targets.iter().map(|t| t.as_ref().map_or_else(Vec::new, refusals)).collect())
}
