//! Gives up what of a restore can never be reached again, so that it is over.

use super::{
    blocking,
    discover::{Trace, discover},
    document::{self, JOURNAL, Pointer},
    files,
    in_place::gone,
    journal::{Journal, claim},
    recover::{Recover, all_within_reach, end_targets},
};
use crate::{Context, Error, ErrorKind, RestorePhase, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};

const WHAT: &str = "forget a restore";

/// A restore that is over although not all of it could be brought to its end.
#[derive(Clone, Debug, Serialize)]
pub struct ForgottenRestore {
    /// Its id.
    pub id: String,
    /// Places of which nothing is known any more, with what went wrong there.
    pub given_up: Vec<String>,
    /// Folders with old or restored data that stay: whose they are must be seen by a person.
    pub left: Vec<PathBuf>,
}

/// Brings the restore whose id begins with `id` to its end without what cannot be reached: an interrupted one is reverted, one
/// that took effect is settled, wherever that is possible; the rest is given up, and the restore forgotten.
///
/// `NotFound`: the state folder knows none. `Usage`: it knows several. `AlreadyRunning`: it goes on. `Refused`: it took effect, and all of it
/// is within reach.
pub async fn forget_restore(
    state_dir: &Path,
    id: &str,
    recover: Recover<'_>,
    cx: &Context,
) -> Result<ForgottenRestore> {
    let dir = state_dir.to_owned();
    let traces = blocking(move || discover(&dir, &[])).await?;
    let named = |t: &Trace| !id.is_empty() && t.id().is_some_and(|known| known.starts_with(id));
    let mut named: Vec<Trace> = traces.into_iter().filter(named).collect();
    let Some(trace) = named.pop() else {
        return Err(Error::new(ErrorKind::NotFound, WHAT, "the state folder knows none of this id")
            .on(id)
            .hint("look at what lies beside data (.NAME.backup-ID) before you remove it"));
    };
    if !named.is_empty() {
        return Err(Error::new(ErrorKind::Usage, WHAT, "there are several whose id begins so").on(id));
    }
    let id = trace.id().unwrap_or_default().to_owned();
    match trace {
        Trace::Journal(document, path) => match blocking(move || claim(&document, path)).await? {
            None => Err(Error::new(ErrorKind::NotFound, WHAT, "it is over by now").on(id)),
            Some((journal, Some(true))) => Err(goes_on(&journal.document.process).on(id)),
            Some((journal, _)) => give_up(journal, recover, cx).await,
        },
        Trace::Nothing(pointer, path) | Trace::Lost(pointer, path, _) => {
            blocking(move || drop_pointer(&pointer, &path)).await
        }
        // Only a file of the state folder has an id.
        other => {
            let path = other.place().to_owned();
            let given_up = match other {
                Trace::Bad(_, e) => vec![format!("all that it was: {e}")],
                _ => Vec::new(),
            };
            blocking(move || ended(&path).and_then(|()| remove_known(&path))).await?;
            Ok(ForgottenRestore { id, given_up, left: Vec::new() })
        }
    }
}

fn goes_on(process: &dyn std::fmt::Display) -> Error {
    Error::new(ErrorKind::AlreadyRunning, WHAT, format!("it goes on in {process}"))
}

async fn give_up(mut journal: Journal, recover: Recover<'_>, cx: &Context) -> Result<ForgottenRestore> {
    let id = journal.document.id.to_string();
    let phase = match journal.document.phase {
        RestorePhase::Published => {
            if all_within_reach(&journal, recover).await.is_ok() {
                let e = Error::new(ErrorKind::Refused, WHAT, "all of it is within reach, and can be undone");
                let hint = format!(
                    "`backup settle {id}` drops its old data, `backup restore --undo {id}` brings it back"
                );
                return Err(e.on(id).hint(hint));
            }
            RestorePhase::Settling
        }
        RestorePhase::Settling => RestorePhase::Settling,
        RestorePhase::Preparing | RestorePhase::Publishing | RestorePhase::Reverting => {
            RestorePhase::Reverting
        }
    };
    let ended = end_targets(&mut journal, phase, recover, cx).await?;
    let mut failures = ended.failures;
    failures.extend(ended.not_started);
    failures.extend(gone(&journal.document).filter(|_| phase == RestorePhase::Reverting));
    let given_up = failures.iter().map(ToString::to_string).collect();
    let left = blocking(move || journal.remove()).await?;
    Ok(ForgottenRestore { id, given_up, left })
}

/// Nothing but the journal says what is in the homes: what is in them stays.
fn drop_pointer(pointer: &Pointer, path: &Path) -> Result<ForgottenRestore> {
    ended(path)?;
    let mut left = Vec::new();
    for home in &pointer.homes {
        match document::read(&home.join(JOURNAL)) {
            Ok(Some(found)) if *found.id() == pointer.id => {
                files::remove(&home.join(JOURNAL))?;
                if !files::remove_dir(home)? {
                    left.push(home.clone());
                }
            }
            // It is another's.
            Ok(Some(_)) => {}
            _ if home.symlink_metadata().is_ok() => left.push(home.clone()),
            _ => {}
        }
    }
    remove_known(path)?;
    let given_up = pointer.places.iter().map(|p| format!("what it did at {}", p.place)).collect();
    Ok(ForgottenRestore { id: pointer.id.to_string(), given_up, left })
}

/// Whoever began it holds its lock as long as it goes on.
fn ended(path: &Path) -> Result<()> {
    match files::lock_existing(&path.with_extension("lock"))? {
        files::Lock::Held => Err(goes_on(&"another process").on(path.display())),
        _ => Ok(()),
    }
}

fn remove_known(path: &Path) -> Result<()> {
    files::remove(path)?;
    files::remove(&path.with_extension("lock"))
}
