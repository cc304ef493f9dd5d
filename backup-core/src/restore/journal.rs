//! What a restore has begun, on disk before it is begun.
//!
//! The journal lies beside the first local target (`journal.json` in its `Target::journal_home`), so that it is found by
//! whoever looks at the data; a pointer in the state folder (`restores/<id>.json`) leads to it, and so does a pointer in the
//! home of every other local target. Without a local target the journal itself lies in the state folder. Every file is
//! replaced by rename and made durable before the act that it announces. While a run goes on it holds a lock on
//! `restores/<id>.lock`, which the system takes from it however it ends.

use super::files::{self, make_private_dir};
use crate::{BackupId, Error, ErrorKind, ProcessStamp, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Name of the journal, or of a pointer to it, in a home.
pub(super) const JOURNAL: &str = "journal.json";

/// Version of the journal that this program writes.
const FORMAT: u32 = 1;

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

/// The journal as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    format: u32,
    pub(super) id: BackupId,
    pub(super) label: String,
    pub(super) backup: BackupId,
    pub(super) phase: RestorePhase,
    pub(super) started: Timestamp,
    #[serde(default)]
    pub(super) published: Option<Timestamp>,
    #[serde(default)]
    pub(super) keep_until: Option<Timestamp>,
    pub(super) process: ProcessStamp,
    pub(super) targets: Vec<JournalTarget>,
    /// Containers of the application.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) app: Vec<String>,
    /// Those of them that this restore has stopped, or is about to: they are started again, whatever happens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) stopped: Vec<String>,
    /// Folders beside the local targets, the one with the journal first.
    homes: Vec<PathBuf>,
    /// `restores` in the state folder of the user who began it.
    restores: PathBuf,
}

/// What stands where the journal is not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pointer {
    pub(super) id: BackupId,
    pub(super) journal: PathBuf,
    /// Which homes were about to be made: those of a run that crashed before its journal was written.
    pub(super) homes: Vec<PathBuf>,
    /// The journal must be there. Before it is written and before it is removed this is false: then a missing journal means
    /// that there is nothing to do, and otherwise that its place cannot be seen (not mounted).
    pub(super) live: bool,
    /// The journal is being removed: all is done, and what is still found in a home belongs to nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) over: bool,
}

/// Either of them.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Found {
    Pointer(Pointer),
    Journal(Box<Document>),
}

/// A journal that this process may write: it holds the lock.
#[derive(Clone)]
pub(super) struct Journal {
    pub(super) document: Document,
    pub(super) path: PathBuf,
    _lock: Option<Arc<File>>,
}

impl Document {
    pub(super) fn new(
        label: &str,
        backup: BackupId,
        targets: Vec<JournalTarget>,
        homes: Vec<PathBuf>,
        state_dir: &Path,
    ) -> Self {
        Document {
            format: FORMAT,
            id: BackupId::generate(),
            label: label.to_owned(),
            backup,
            phase: RestorePhase::Preparing,
            started: Timestamp::now(),
            published: None,
            keep_until: None,
            process: ProcessStamp::current(),
            targets,
            app: Vec::new(),
            stopped: Vec::new(),
            homes,
            restores: state_dir.join("restores"),
        }
    }

    fn in_restores(&self, extension: &str) -> PathBuf {
        self.restores.join(format!("{}.{extension}", self.id))
    }
}

impl Journal {
    /// Makes the homes and the journal, phase `Preparing`. On an error nothing is left.
    pub(super) fn begin(document: Document) -> Result<Self> {
        files::make_dirs(&document.restores)?;
        let path = match document.homes.first() {
            Some(home) => home.join(JOURNAL),
            None => document.in_restores("json"),
        };
        let lock = files::lock_new(&document.in_restores("lock"))?;
        let journal = Journal { document, path, _lock: Some(Arc::new(lock)) };
        let mut made = 0;
        journal.begin_files(&mut made).inspect_err(|_| {
            // Only what this run made: a home that was there belongs to another restore.
            for home in &journal.document.homes[..made] {
                let _ = files::remove(&home.join(JOURNAL)).and_then(|()| files::remove_dir(home));
            }
            let _ = files::remove(&journal.document.in_restores("json"));
            let _ = files::remove(&journal.document.in_restores("lock"));
        })?;
        Ok(journal)
    }

    fn begin_files(&self, made: &mut usize) -> Result<()> {
        let homes = &self.document.homes;
        if homes.is_empty() {
            return self.save();
        }
        // The pointer first: a crash at any later point leaves nothing that cannot be found.
        self.point(false, false)?;
        for home in homes {
            make_private_dir(home)?;
            *made += 1;
        }
        for home in &homes[1..] {
            files::write(&home.join(JOURNAL), &self.pointer(true, false))?;
        }
        self.save()?;
        self.point(true, false)
    }

    fn pointer(&self, live: bool, over: bool) -> Pointer {
        let document = &self.document;
        Pointer {
            id: document.id.clone(),
            journal: self.path.clone(),
            homes: document.homes.clone(),
            live,
            over,
        }
    }

    fn point(&self, live: bool, over: bool) -> Result<()> {
        files::write(&self.document.in_restores("json"), &self.pointer(live, over))
    }

    /// Makes the next phase durable, before its first act.
    pub(super) fn enter(&mut self, phase: RestorePhase) -> Result<()> {
        let mut next = self.clone();
        next.document.phase = phase;
        next.document.process = ProcessStamp::current();
        next.save()?;
        *self = next;
        Ok(())
    }

    fn save(&self) -> Result<()> {
        files::write(&self.path, &self.document)
    }

    /// All is reverted or settled: takes the journal away. What is found in a home beside it belongs to nobody any more; it
    /// is left and returned.
    pub(super) fn remove(self) -> Result<Vec<PathBuf>> {
        let mut strange = Vec::new();
        let homes = &self.document.homes;
        if !homes.is_empty() && self.document.in_restores("json").exists() {
            self.point(false, true)?;
        }
        // The journal last but for its pointer: until then a crash only means that all is done once more.
        for home in homes.iter().skip(1).chain(homes.first()) {
            files::remove(&home.join(JOURNAL))?;
            if !files::remove_dir(home)? {
                strange.push(home.clone());
            }
        }
        files::remove(&self.document.in_restores("json"))?;
        files::remove(&self.document.in_restores("lock"))?;
        Ok(strange)
    }
}

/// What a crash left of a run that had not written its journal, or had removed it: its homes, as far as they are empty, and
/// its pointer.
pub(super) fn clear(pointer: &Pointer, pointer_path: &Path) -> Result<()> {
    for home in &pointer.homes {
        let of_another = match read(&home.join(JOURNAL))? {
            Some(Found::Journal(document)) => document.id != pointer.id,
            Some(Found::Pointer(other)) => other.id != pointer.id,
            None => false,
        };
        if of_another {
            continue;
        }
        files::remove(&home.join(JOURNAL))?;
        if !files::remove_dir(home)? && !pointer.over {
            return Err(no_journal(home));
        }
    }
    files::remove(pointer_path)?;
    files::remove(&pointer_path.with_extension("lock"))
}

/// A home with data and without a journal: nothing here may guess what that data is.
pub(super) fn no_journal(home: &Path) -> Error {
    Error::damaged("heal a restore", "this folder of a restore has no journal, and something is in it")
        .on(home.display())
        .hint("it holds previous or restored data: look before removing it")
}

/// Reads a file of ours; `None`: there is none.
pub(super) fn read(path: &Path) -> Result<Option<Found>> {
    let Some(bytes) = files::read(path)? else { return Ok(None) };
    let damaged = |why: &dyn std::fmt::Display| {
        Error::damaged("read the journal of a restore", why).on(path.display()).hint(
            "the folder beside it holds the previous or the restored data: look before removing anything",
        )
    };
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| damaged(&e))?;
    let format = value.get("format").and_then(Value::as_u64);
    if let Some(format) = format.filter(|f| *f != u64::from(FORMAT)) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "read the journal of a restore",
            format!("it has version {format}, this program knows {FORMAT}"),
        )
        .on(path.display()));
    }
    serde_json::from_value(value).map(Some).map_err(|e| damaged(&e))
}

/// Takes a journal over, if its run does not go on. The second is `PendingRestore::running`: with `None` or `Some(true)` the
/// caller must not act on its own account. What was read before is only where the lock is: the journal is read again under
/// it, because another process may have gone on with it. `None`: that one has brought it to its end.
pub(super) fn claim(seen: &Document, path: PathBuf) -> Result<Option<(Journal, Option<bool>)>> {
    let lock = files::lock_existing(&seen.in_restores("lock"))?;
    let document = match read(&path)? {
        Some(Found::Journal(document)) if document.id == seen.id => *document,
        _ => return Ok(None),
    };
    let process = &document.process;
    let published = document.phase == RestorePhase::Published;
    let (lock, running) = match lock {
        files::Lock::Held => (None, Some(true)),
        // A published restore is nobody's: its process may live on for years and do other things.
        files::Lock::Taken(lock) if published => (Some(Arc::new(lock)), Some(false)),
        files::Lock::Absent if published => (None, Some(false)),
        // The system takes the lock from a run that has ended, but tells only the runs of one host of it.
        files::Lock::Taken(lock) => {
            let here = process.is_of_this_boot() || process.is_of_another_boot();
            let ended = if here { Some(false) } else { process.is_alive_here().map(|_| false) };
            (Some(Arc::new(lock)), ended)
        }
        files::Lock::Absent if process.is_of_another_boot() => (None, Some(false)),
        files::Lock::Absent => (None, process.is_alive_here()),
    };
    Ok(Some((Journal { document, path, _lock: lock }, running)))
}

impl Journal {
    pub(super) fn pending(&self, running: Option<bool>) -> PendingRestore {
        let d = self.document.clone();
        PendingRestore {
            id: d.id,
            label: d.label,
            backup: d.backup,
            phase: d.phase,
            started: d.started,
            published: d.published,
            keep_until: d.keep_until,
            targets: d.targets,
            process: d.process,
            journal: self.path.clone(),
            running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(dir: &Path) -> Journal {
        let homes = vec![dir.join("home")];
        let document = Document::new("m", BackupId::generate(), Vec::new(), homes, &dir.join("state"));
        Journal::begin(document).unwrap()
    }

    #[test]
    fn what_another_process_did_with_a_journal_after_it_was_found_is_what_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = begun(dir.path());
        let (seen, path) = (journal.document.clone(), journal.path.clone());
        assert_eq!(claim(&seen, path.clone()).unwrap().unwrap().1, Some(true));
        journal.enter(RestorePhase::Published).unwrap();
        drop(journal);
        let (journal, running) = claim(&seen, path.clone()).unwrap().unwrap();
        assert_eq!((journal.document.phase, running), (RestorePhase::Published, Some(false)));
        journal.remove().unwrap();
        assert!(claim(&seen, path.clone()).unwrap().is_none(), "it is over");
        let other = begun(dir.path());
        assert_eq!(other.path, path);
        assert!(claim(&seen, path).unwrap().is_none(), "it is another restore's");
    }

    #[test]
    fn a_crash_between_the_end_of_a_journal_and_that_of_its_pointer_leaves_what_is_found_in_a_home_alone() {
        for over in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let journal = begun(dir.path());
            let (home, pointer_path) = (dir.path().join("home"), journal.document.in_restores("json"));
            std::fs::write(home.join("found"), "mine").unwrap();
            journal.point(false, over).unwrap();
            files::remove(&home.join(JOURNAL)).unwrap();
            let Some(Found::Pointer(pointer)) = read(&pointer_path).unwrap() else { panic!("no pointer") };
            // Before the journal was written nobody may say what is in the home.
            assert_eq!(clear(&pointer, &pointer_path).is_ok(), over);
            assert_eq!(pointer_path.exists(), !over);
            assert_eq!(std::fs::read_to_string(home.join("found")).unwrap(), "mine");
        }
    }
}
