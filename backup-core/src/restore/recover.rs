//! Brings restores that were interrupted to an end, and undoes or settles those that were not.

use super::{
    application, blocking, enter,
    files::{self, temporary},
    journal::{self, Document, Found, JOURNAL, Journal, Pointer, claim},
};
use crate::{
    BackupId, ContainerEngine, Context, Error, ErrorKind, NoContainers, PendingRestore, RestorePhase, Result,
    Severity, Target, pipeline::calmly,
};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
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

/// An empty home whose run is not known may be one that a live run has just made.
const EMPTY_HOME_IS_LEFT_ALONE: Duration = Duration::from_secs(60);

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
            Trace::Bad(_, e) => bad = bad.or(Some(e)),
            Trace::Nothing(..) | Trace::EmptyHome(_) | Trace::Stray(_) => {}
        }
    }
    list.sort_by(|a, b| (a.started, &a.id).cmp(&(b.started, &b.id)));
    match bad {
        Some(e) if list.is_empty() => Err(e),
        _ => Ok(list),
    }
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
    let (state_dir, homes) = (state_dir.to_owned(), homes.to_vec());
    let traces = blocking(move || discover(&state_dir, &homes)).await?;
    let mut healed = Vec::new();
    for trace in traces {
        if cx.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        let place = trace.place().to_owned();
        let outcome = match trace {
            Trace::Journal(document, path) => heal_one(*document, path, recover, now, cx).await,
            Trace::Bad(_, e) => Err(e),
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
    recover: Recover<'_>,
    now: Timestamp,
    cx: &Context,
) -> Result<Option<Healed>> {
    let Some((journal, running)) = blocking(move || claim(&document, path)).await? else { return Ok(None) };
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
    match (journal.document.phase, journal.document.keep_until) {
        (RestorePhase::Published, Some(until)) if now < until => Ok(Some(Healed::Kept { id, label, until })),
        (RestorePhase::Published | RestorePhase::Settling, _) => {
            finish(journal, RestorePhase::Settling, recover, cx).await?;
            Ok(Some(Healed::Settled { id, label }))
        }
        (RestorePhase::Preparing | RestorePhase::Publishing | RestorePhase::Reverting, _) => {
            finish(journal, RestorePhase::Reverting, recover, cx).await?;
            Ok(Some(Healed::Reverted { id, label }))
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
    if journal.document.phase == RestorePhase::Published {
        // A refusal must leave it as it is: entered, an undo is brought to its end by the next `heal`, whatever is there then.
        for t in &journal.document.targets {
            let mut target = recover.target(&t.kind, t.undo.clone())?;
            let may = target.check_revert(cx).await;
            may.map_err(|e| {
                e.on(format!("{} at {}", t.component, t.place)).hint("`settle` lets the old data go")
            })?;
        }
        let app = journal.document.app.clone();
        journal.document.stopped = application::still_running(&*recover.containers(), &app).await?;
    }
    let undone = finish(journal, RestorePhase::Reverting, recover, cx).await;
    undone.map_err(|e| e.with_kind(ErrorKind::NotRolledBack))
}

/// Lets the previous data go. Only for a restore that was published.
pub async fn settle_restore(restore: &PendingRestore, recover: Recover<'_>, cx: &Context) -> Result<()> {
    let journal = take_over(restore, "settle a restore").await?;
    if !matches!(journal.document.phase, RestorePhase::Published | RestorePhase::Settling) {
        let e =
            Error::new(ErrorKind::Refused, "settle a restore", "it was interrupted before it took effect");
        return Err(e.on(&restore.id).hint("heal brings the previous data back"));
    }
    finish(journal, RestorePhase::Settling, recover, cx).await
}

async fn take_over(restore: &PendingRestore, what: &'static str) -> Result<Journal> {
    let (path, id) = (restore.journal.clone(), restore.id.clone());
    blocking(move || {
        let claimed = match journal::read(&path)? {
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

/// Refuses what would be restored to a place at which an earlier restore is not over: its revert would take the new data for
/// its own.
pub(super) fn not_in_the_way(state_dir: &Path, wanted: &[(String, String)]) -> Result<()> {
    for trace in discover(state_dir, &[])? {
        let Trace::Journal(seen, path) = trace else { continue };
        let same = |t: &&journal::JournalTarget| {
            wanted.iter().any(|(kind, place)| *kind == t.kind && *place == t.place)
        };
        let Some(target) = seen.targets.iter().find(same) else { continue };
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
        let message = format!("an earlier restore, {} by {}, is not over", document.id, document.process);
        return Err(Error::new(kind, "restore", message).on(&target.place).hint(hint));
    }
    Ok(())
}

/// Reverts or settles every target, then takes the journal away. Not cancelled half-way: what is begun here is the way out.
async fn finish(mut journal: Journal, phase: RestorePhase, recover: Recover<'_>, cx: &Context) -> Result<()> {
    enter(&mut journal, phase).await?;
    let calm = cx.calm();
    let mut first = None;
    let mut targets = journal.document.targets.clone();
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
    for t in targets {
        let done = calmly("heal a target", async {
            let mut target = recover.target(&t.kind, t.undo.clone())?;
            match phase {
                RestorePhase::Settling => target.settle(&calm).await,
                _ => target.revert(&calm).await,
            }
        });
        if let Err(e) = done.await {
            first.get_or_insert(e.on(format!("{} at {}", t.component, t.place)));
        }
    }
    if let Err(e) = application::start(&*containers, &stopped).await {
        first.get_or_insert(e);
    }
    match first {
        Some(e) => Err(e),
        None => take_away(journal, cx).await,
    }
}

/// Removes the journal of a restore that is over.
pub(super) async fn take_away(journal: Journal, cx: &Context) -> Result<()> {
    for folder in blocking(move || journal.remove()).await? {
        let text = "it is left: something that is not of the restore is in it";
        cx.note(Severity::Warning, "", folder.display().to_string(), text);
    }
    Ok(())
}

/// What restores have left on disk.
enum Trace {
    /// A journal.
    Journal(Box<Document>, PathBuf),
    /// A pointer to a journal that was not written yet, or is removed already.
    Nothing(Pointer, PathBuf),
    /// A home in which there is nothing, of a run that is not known.
    EmptyHome(PathBuf),
    /// A lock or temporary file without a journal.
    Stray(PathBuf),
    /// Something that cannot be understood.
    Bad(PathBuf, Error),
}

impl Trace {
    fn place(&self) -> &Path {
        match self {
            Trace::Journal(_, p)
            | Trace::Nothing(_, p)
            | Trace::EmptyHome(p)
            | Trace::Stray(p)
            | Trace::Bad(p, _) => p,
        }
    }
}

fn discover(state_dir: &Path, homes: &[PathBuf]) -> Result<Vec<Trace>> {
    let mut traces = Vec::new();
    for path in list(&state_dir.join("restores"))? {
        match path.extension().and_then(|e| e.to_str()) {
            Some("json") => traces.push(follow(&path).unwrap_or_else(|e| Trace::Bad(path, e))),
            Some("lock") if !path.with_extension("json").exists() => traces.push(Trace::Stray(path)),
            _ => {}
        }
    }
    for home in homes {
        if home.is_dir() && !traces.iter().any(|t| t.concerns(home)) {
            traces.push(look_into(home).unwrap_or_else(|e| Trace::Bad(home.clone(), e)));
        }
    }
    let mut seen = HashSet::new();
    traces.retain(|t| match t {
        Trace::Journal(document, _) => seen.insert(document.id.clone()),
        _ => true,
    });
    Ok(traces)
}

impl Trace {
    /// Whether it will take care of this home.
    fn concerns(&self, home: &Path) -> bool {
        match self {
            Trace::Nothing(pointer, _) => pointer.homes.iter().any(|h| h == home),
            _ => false,
        }
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(ErrorKind::Source, "look for restores", e).on(folder.display());
    match fs::read_dir(folder) {
        Ok(entries) => {
            let mut paths =
                entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
            paths.sort();
            Ok(paths)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

/// From a file to the journal.
fn follow(path: &Path) -> Result<Trace> {
    let pointer = match journal::read(path)? {
        None => return Ok(Trace::Stray(path.to_owned())),
        Some(Found::Journal(document)) => return Ok(Trace::Journal(document, path.to_owned())),
        Some(Found::Pointer(pointer)) => pointer,
    };
    match journal::read(&pointer.journal)? {
        Some(Found::Journal(document)) if document.id == pointer.id => {
            Ok(Trace::Journal(document, pointer.journal))
        }
        _ if pointer.live => {
            let message = format!("its journal {} is not there", pointer.journal.display());
            Err(Error::new(ErrorKind::NotFound, "find a restore", message)
                .on(path.display())
                .hint("is its file system mounted?"))
        }
        _ => Ok(Trace::Nothing(pointer, path.to_owned())),
    }
}

fn look_into(home: &Path) -> Result<Trace> {
    let path = home.join(JOURNAL);
    if path.exists() {
        return follow(&path);
    }
    let ours = temporary(&path);
    match list(home)?.iter().all(|p| *p == ours) {
        true => Ok(Trace::EmptyHome(home.to_owned())),
        false => Err(journal::no_journal(home)),
    }
}

async fn clear(trace: Trace) -> Result<Option<Healed>> {
    blocking(move || match trace {
        Trace::Nothing(pointer, path) => {
            let in_a_home = pointer.homes.iter().any(|h| path.starts_with(h));
            // Its run may be about to write the journal.
            match files::lock_existing(&path.with_extension("lock"))? {
                files::Lock::Held => return Ok(None),
                _ if in_a_home => return Ok(None),
                _ => {}
            }
            journal::clear(&pointer, &path)?;
            Ok(Some(Healed::Cleared { trace: path }))
        }
        Trace::EmptyHome(home) => {
            let modified = fs::metadata(&home).and_then(|m| m.modified()).unwrap_or(SystemTime::now());
            if modified.elapsed().unwrap_or_default() < EMPTY_HOME_IS_LEFT_ALONE {
                return Ok(None);
            }
            files::remove(&home.join(JOURNAL))?;
            files::remove_dir(&home)?;
            Ok(Some(Healed::Cleared { trace: home }))
        }
        Trace::Stray(path) => {
            if matches!(files::lock_existing(&path)?, files::Lock::Held) {
                return Ok(None);
            }
            files::remove(&path.with_extension("json"))?;
            files::remove(&path)?;
            Ok(Some(Healed::Cleared { trace: path }))
        }
        Trace::Journal(..) | Trace::Bad(..) => Ok(None),
    })
    .await
}
