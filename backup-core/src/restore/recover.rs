//! Brings restores that were interrupted to an end, and undoes or settles those that were not.

use super::{
    application, blocking,
    discover::{Trace, clear, discover},
    document::{self, Document, Found},
    enter,
    in_place::{gone, is_torn, take_back},
    journal::{Journal, claim},
};
use crate::{
    BackupId, ContainerEngine, Context, Error, ErrorKind, JournalTarget, NoContainers, PendingRestore,
    RestorePhase, Result, Severity, Target, pipeline::calmly,
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// What is needed to end a restore that another process has begun.
pub trait Recovery: Sync {
    /// `Backend::recover` of the backend of this kind.
    fn target(&self, kind: &str, undo: Value) -> Result<Box<dyn Target>>;

    /// Where the containers of applications are.
    fn containers(&self) -> Arc<dyn ContainerEngine> {
        Arc::new(NoContainers)
    }
}

impl<F: Fn(&str, Value) -> Result<Box<dyn Target>> + Sync> Recovery for F {
    fn target(&self, kind: &str, undo: Value) -> Result<Box<dyn Target>> {
        self(kind, undo)
    }
}

/// It, as the calls below take it.
pub type Recover<'a> = &'a dyn Recovery;

/// What was done with a restore that was found.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Healed {
    /// It was interrupted before its commit point: everything is as it was before.
    Reverted {
        /// The restore.
        id: BackupId,
        /// Name of the module.
        label: String,
    },
    /// It was interrupted when it had begun to restore something in place. It is over, and all else is as it was before; what is not is told
    /// this once.
    Gone {
        /// The restore.
        id: BackupId,
        /// Name of the module.
        label: String,
        /// What is gone or not whole, and the way out.
        error: Error,
    },
    /// The old data was dropped: its time was over, or its dropping had begun.
    Settled {
        /// The restore.
        id: BackupId,
        /// Name of the module.
        label: String,
    },
    /// It is done, and its old data is kept for an undo.
    Kept {
        /// The restore.
        id: BackupId,
        /// Name of the module.
        label: String,
        /// When the old data is dropped.
        until: Timestamp,
    },
    /// Nothing was done, for a reason: it goes on, or it is another host's.
    LeftAlone {
        /// The restore.
        id: BackupId,
        /// Name of the module.
        label: String,
        /// Why.
        reason: String,
        /// It may have been interrupted, in a run of which nothing can be known here: it ends only by `undo_restore` or
        /// `settle_restore`.
        unfinished: bool,
    },
    /// It had made nothing, or had put everything in order; only a trace of it was there, and was removed.
    Cleared {
        /// What was removed.
        trace: PathBuf,
    },
    /// Nothing was done: others may have written it, and what it says would be done with the rights of this user.
    NotOurs {
        /// What was found.
        journal: PathBuf,
        /// Whose it is.
        error: Error,
    },
    /// It could not be healed; its journal stays.
    Failed {
        /// Its journal, or its folder.
        journal: PathBuf,
        /// Why.
        error: Error,
    },
}

/// All restores that have a journal: those known in `state_dir`, and those in these journal homes (`Target::journal_home`).
/// A journal that cannot be read is an error only if there is no other: it must not bar the undoing of those that can.
/// Blocks on files.
pub fn pending(state_dir: &Path, homes: &[PathBuf]) -> Result<Vec<PendingRestore>> {
    let (mut list, mut bad) = (Vec::new(), None);
    for trace in discover(state_dir, homes)? {
        match trace {
            Trace::Journal(document, path) => {
                list.extend(claim(&document, path)?.map(|(journal, running)| journal.pending(running)));
            }
            Trace::Bad(_, e) | Trace::Lost(_, _, e) | Trace::NotOurs(_, e) => bad = bad.or(Some(e)),
            Trace::Nothing(..) | Trace::EmptyHome(_) | Trace::Stray(_) => {}
        }
    }
    list.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
    match bad {
        Some(e) if list.is_empty() => Err(e),
        _ => Ok(list),
    }
}

/// Places of all restores that are known in `state_dir`, also of those whose journals cannot be read now. Blocks on files.
pub fn restored_places(state_dir: &Path) -> Result<Vec<String>> {
    let places = discover(state_dir, &[])?.into_iter().flat_map(|trace| match trace {
        Trace::Journal(document, _) => document.places(),
        Trace::Nothing(pointer, _) | Trace::Lost(pointer, ..) => pointer.places,
        _ => Vec::new(),
    });
    Ok(places.map(|place| place.place).collect())
}

/// Brings every interrupted restore to an end: before its commit point it is reverted, after it the old data is dropped once
/// its time is over. One that cannot be healed does not keep the others from it. Call it again: it does no harm.
pub async fn heal_restores(
    state_dir: &Path,
    homes: &[PathBuf],
    recover: Recover<'_>,
    now: Timestamp,
    cx: &Context,
) -> Result<Vec<Healed>> {
    let (looked_at, homes) = (state_dir.to_owned(), homes.to_vec());
    let traces = blocking(move || discover(&looked_at, &homes)).await?;
    let mut healed = Vec::new();
    for trace in traces {
        if cx.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        let place = trace.place().to_owned();
        let outcome = match trace {
            Trace::Journal(document, path) => heal_one(*document, path, state_dir, recover, now, cx).await,
            Trace::Bad(_, e) | Trace::Lost(_, _, e) => Err(e),
            Trace::NotOurs(journal, error) => Ok(Some(Healed::NotOurs { journal, error })),
            remains => clear(remains).await,
        };
        match outcome {
            Ok(Some(outcome)) => healed.push(outcome),
            Ok(None) => {}
            Err(error) => healed.push(Healed::Failed { journal: place, error }),
        }
    }
    Ok(healed)
}

async fn heal_one(
    document: Document,
    path: PathBuf,
    state_dir: &Path,
    recover: Recover<'_>,
    now: Timestamp,
    cx: &Context,
) -> Result<Option<Healed>> {
    let Some((mut journal, running)) = blocking(move || claim(&document, path)).await? else {
        return Ok(None);
    };
    let (id, label) = (journal.document.id.clone(), journal.document.label.clone());
    let left = |reason: String, unfinished| {
        Ok(Some(Healed::LeftAlone { id: id.clone(), label: label.clone(), reason, unfinished }))
    };
    match running {
        Some(false) => {}
        Some(true) => return left(format!("it goes on in {}", journal.document.process), false),
        None => {
            let process = &journal.document.process;
            return left(format!("it was begun by {process}; whether that goes on is not known here"), true);
        }
    }
    let state_dir = state_dir.to_owned();
    let journal = blocking(move || journal.adopt(&state_dir).map(|()| journal)).await?;
    match (journal.document.phase, journal.document.keep_until) {
        (RestorePhase::Published, Some(until)) if now < until => Ok(Some(Healed::Kept { id, label, until })),
        (phase @ (RestorePhase::Published | RestorePhase::Settling), _) => {
            if phase == RestorePhase::Published {
                all_within_reach(&journal, recover).await?;
            }
            finish(journal, RestorePhase::Settling, recover, cx).await?;
            Ok(Some(Healed::Settled { id, label }))
        }
        (RestorePhase::Preparing | RestorePhase::Publishing | RestorePhase::Reverting, _) => {
            Ok(Some(match finish(journal, RestorePhase::Reverting, recover, cx).await? {
                None => Healed::Reverted { id, label },
                Some(error) => Healed::Gone { id, label, error },
            }))
        }
    }
}

/// Brings the previous data back. Allowed at any time before the previous data is being dropped, unless the run goes on; for a
/// run of another host the caller answers for its end.
pub async fn undo_restore(restore: &PendingRestore, recover: Recover<'_>, cx: &Context) -> Result<()> {
    let mut journal = take_over(restore, "undo a restore").await?;
    if journal.document.phase == RestorePhase::Settling {
        let e = Error::new(ErrorKind::Refused, "undo a restore", "its previous data is being dropped");
        return Err(e.on(&restore.id).hint("settle drops the rest of it"));
    }
    let in_place = journal.document.targets.iter().find(|t| t.in_place.is_some());
    if let (RestorePhase::Published, Some(t)) = (journal.document.phase, in_place) {
        let message = format!("{} was restored in place: nothing of what was there before is kept", of(t));
        let e = Error::new(ErrorKind::Refused, "undo a restore", message).on(&restore.id);
        return Err(e.hint("`settle` lets the old data of the rest go"));
    }
    if journal.document.phase == RestorePhase::Published {
        // A refusal must leave it as it is: entered, an undo is brought to its end by the next `heal`, whatever is there then.
        all_within_reach(&journal, recover).await?;
        for t in &journal.document.targets {
            let mut target = recover.target(&t.kind, t.undo.clone())?;
            let may = target.check_revert(cx).await;
            may.map_err(|e| not_undone(e.on(of(t)), &journal.document))?;
        }
        let app = journal.document.app.clone();
        journal.document.stopped = application::still_running(&*recover.containers(), &app).await?;
    }
    let was_published = journal.document.phase == RestorePhase::Published;
    // Until this is written nothing was touched.
    enter(&mut journal, RestorePhase::Reverting).await?;
    let failed = |e: Error| e.with_kind(ErrorKind::NotRolledBack);
    let ended = end_targets(&mut journal, RestorePhase::Reverting, recover, cx).await.map_err(failed)?;
    let untouched = was_published && !journal.document.targets.iter().any(|t| t.done);
    let all_refused = ended.failures.iter().all(|e| e.kind() == ErrorKind::Refused);
    match ended.failures.into_iter().next() {
        None => match ended.not_started {
            None => over(journal, RestorePhase::Reverting, cx).await.map_err(failed)?.map_or(Ok(()), Err),
            Some(e) => Err(failed(e)),
        },
        Some(e) if untouched && all_refused => {
            // Who is told that nothing was undone does not expect it of the next `heal`, nor that it drops what he was about to bring back.
            if let Some(e) = ended.not_started {
                cx.note(
                    Severity::Warning,
                    "",
                    "",
                    format!("the application was stopped, and does not start: {e}"),
                );
            }
            journal.document.stopped.clear();
            let another_try = Timestamp::now().saturating_add(ANOTHER_TRY).unwrap_or(Timestamp::MAX);
            journal.document.keep_until = journal.document.keep_until.map(|until| until.max(another_try));
            enter(&mut journal, RestorePhase::Published).await.map_err(failed)?;
            Err(not_undone(e, &journal.document))
        }
        Some(e) => Err(failed(e)),
    }
}

/// So long the old data is kept at least after an undo that was refused.
const ANOTHER_TRY: SignedDuration = SignedDuration::from_hours(24);

/// What was wrong when all targets were to be brought to their end.
pub(super) struct Ended {
    /// Of each target that is not at its end.
    pub(super) failures: Vec<Error>,
    /// Of the application.
    pub(super) not_started: Option<Error>,
}

impl Ended {
    /// The first that went wrong.
    pub(super) fn error(self) -> Option<Error> {
        self.failures.into_iter().next().or(self.not_started)
    }
}

/// The refusal of an undo, with the other way out.
fn not_undone(e: Error, document: &Document) -> Error {
    let own = e.hint_text().map(|hint| format!("{hint}; ")).unwrap_or_default();
    let kept = document.homes.iter().map(|home| home.display().to_string());
    let kept = match kept.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => String::new(),
        homes => format!("look at the old data in {homes}; "),
    };
    e.hint(format!("{own}{kept}`backup settle {}` lets the old data go", document.id))
}

/// Lets the previous data go. Only for a restore that was published.
pub async fn settle_restore(restore: &PendingRestore, recover: Recover<'_>, cx: &Context) -> Result<()> {
    let journal = take_over(restore, "settle a restore").await?;
    if !matches!(journal.document.phase, RestorePhase::Published | RestorePhase::Settling) {
        let e =
            Error::new(ErrorKind::Refused, "settle a restore", "it was interrupted before it took effect");
        return Err(e.on(&restore.id).hint("heal brings the previous data back"));
    }
    if journal.document.phase == RestorePhase::Published {
        all_within_reach(&journal, recover).await?;
    }
    finish(journal, RestorePhase::Settling, recover, cx).await.map(drop)
}

async fn take_over(restore: &PendingRestore, what: &'static str) -> Result<Journal> {
    let (path, id) = (restore.journal.clone(), restore.id.clone());
    blocking(move || {
        let claimed = match document::read(&path)? {
            Some(Found::Journal(document)) if document.id == id => claim(&document, path)?,
            _ => None,
        };
        match claimed {
            None => Err(Error::new(ErrorKind::NotFound, what, "it has no journal any more").on(id)),
            Some((journal, Some(true))) => {
                let message = format!("it goes on in {}", journal.document.process);
                Err(Error::new(ErrorKind::AlreadyRunning, what, message).on(id))
            }
            Some((journal, _)) => Ok(journal),
        }
    })
    .await
}

/// That nothing which is to be reverted or settled lies where it cannot be seen.
pub(super) async fn all_within_reach(journal: &Journal, recover: Recover<'_>) -> Result<()> {
    for t in journal.document.targets.iter().filter(|t| !t.done) {
        let target = recover.target(&t.kind, t.undo.clone())?;
        within_reach(journal, target.journal_home()).await.map_err(|e| e.on(of(t)))?;
    }
    Ok(())
}

/// The same for one target, whose home this is.
pub(super) async fn within_reach(journal: &Journal, home: Option<PathBuf>) -> Result<()> {
    let Some(home) = home else { return Ok(()) };
    let journal = journal.clone();
    blocking(move || journal.reach(&home)).await
}

fn of(target: &JournalTarget) -> String {
    format!("{} at {}", target.component, target.place)
}

/// Reverts or settles every target, then takes the journal away. Not cancelled half-way: what is begun here is the way out. What was
/// reverted and is not as it was before is returned.
async fn finish(
    mut journal: Journal,
    phase: RestorePhase,
    recover: Recover<'_>,
    cx: &Context,
) -> Result<Option<Error>> {
    if let Some(e) = end_targets(&mut journal, phase, recover, cx).await?.error() {
        return Err(e);
    }
    over(journal, phase, cx).await
}

/// All targets are at their end.
async fn over(journal: Journal, phase: RestorePhase, cx: &Context) -> Result<Option<Error>> {
    let gone = gone(&journal.document).filter(|_| phase == RestorePhase::Reverting);
    take_away(journal, cx).await.map(|()| gone)
}

/// Reverts or settles every target that is not done. What went wrong with some of them keeps none of the others from it.
pub(super) async fn end_targets(
    journal: &mut Journal,
    phase: RestorePhase,
    recover: Recover<'_>,
    cx: &Context,
) -> Result<Ended> {
    enter(journal, phase).await?;
    let calm = cx.calm();
    let mut failures = Vec::new();
    let mut targets: Vec<_> = journal.document.targets.clone().into_iter().enumerate().collect();
    let (containers, stopped) = (recover.containers(), journal.document.stopped.clone());
    if phase == RestorePhase::Reverting {
        targets.reverse();
        if let Err(e) = application::stop(&*containers, &stopped).await {
            cx.note(
                Severity::Warning,
                "",
                "",
                format!("the old data is brought back under a running application: {e}"),
            );
        }
    }
    for (i, t) in targets.into_iter().filter(|(_, t)| !t.done) {
        let done = calmly("heal a target", async {
            let mut target = recover.target(&t.kind, t.undo.clone())?;
            within_reach(journal, target.journal_home()).await?;
            match phase {
                RestorePhase::Settling => target.settle(&calm).await.map(|()| t.in_place),
                _ => take_back(&mut *target, t.in_place, &calm).await,
            }
        });
        match done.await {
            Ok(in_place) => {
                let mut next = journal.clone();
                let mark = move || {
                    next.mark_done(i, in_place);
                    Ok(next)
                };
                *journal = blocking(mark).await?;
            }
            Err(e) => failures.push(e.on(of(&t))),
        }
    }
    let mut not_started = None;
    if phase == RestorePhase::Settling || !is_torn(&journal.document) {
        not_started = application::start(&*containers, &stopped).await.err();
    }
    Ok(Ended { failures, not_started })
}

/// Removes the journal of a restore that is over.
pub(super) async fn take_away(journal: Journal, cx: &Context) -> Result<()> {
    for folder in blocking(move || journal.remove()).await? {
        let text = "it is left: something that is not of the restore is in it";
        cx.note(Severity::Warning, "", folder.display().to_string(), text);
    }
    Ok(())
}
