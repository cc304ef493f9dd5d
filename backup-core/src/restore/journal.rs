//! What a restore has begun, on disk before it is begun.
//!
//! The journal lies beside the first local target (`journal.json` in its `Target::journal_home`), so that it is found by
//! whoever looks at the data; a pointer in the state folder (`restores/<id>.json`) leads to it, and so does a pointer in the
//! home of every other local target. Without a local target, or where a file system does not tell whose files are, the journal
//! itself lies in the state folder. Every file is replaced by rename and made durable before the act that it announces. While a
//! run goes on it holds a lock on `restores/<id>.lock`, which the system takes from it however it ends.
//!
//! Once the journal is saved all homes are there, and only its removal takes them away: one that is missing cannot be seen.

use super::{
    document::{Document, Found, InPlace, JOURNAL, PendingRestore, Pointer, RestorePhase, read},
    files::{self, make_private_dir},
    trust,
};
use crate::{Error, ErrorKind, ProcessStamp, Result};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A journal that this process may write: it holds the lock.
#[derive(Clone)]
pub(super) struct Journal {
    pub(super) document: Document,
    pub(super) path: PathBuf,
    _lock: Option<Arc<File>>,
}

impl Journal {
    /// Makes the homes and the journal, phase `Preparing`. On an error nothing is left.
    pub(super) fn begin(document: Document) -> Result<Self> {
        Self::begin_where(document, &is_ours_alone)
    }

    /// The journal goes into its first home if this says yes to all homes, else into the state folder.
    fn begin_where(document: Document, may_hold_it: &dyn Fn(&Path) -> bool) -> Result<Self> {
        files::make_dirs(&document.restores)?;
        let path = match document.homes.first() {
            Some(home) => home.join(JOURNAL),
            None => document.in_restores("json"),
        };
        let lock = files::lock_new(&document.in_restores("lock"))?;
        let mut journal = Journal { document, path, _lock: Some(Arc::new(lock)) };
        let mut made = 0;
        journal.begin_files(may_hold_it, &mut made).inspect_err(|_| {
            // Only what this run made: a home that was there belongs to another restore.
            for home in &journal.document.homes[..made] {
                let _ = files::remove(&home.join(JOURNAL)).and_then(|()| files::remove_dir(home));
            }
            journal.remove_made();
            let _ = files::remove(&journal.document.in_restores("json"));
            let _ = files::remove(&journal.document.in_restores("lock"));
        })?;
        Ok(journal)
    }

    fn begin_files(&mut self, may_hold_it: &dyn Fn(&Path) -> bool, made: &mut usize) -> Result<()> {
        let homes = self.document.homes.clone();
        if homes.is_empty() {
            return self.save();
        }
        // The pointer first: a crash at any later point leaves nothing that cannot be found.
        self.point(false, false)?;
        for (i, home) in homes.iter().enumerate() {
            // The target says in its survey that it is made.
            if let Some(above) = home.parent().filter(|above| !above.exists()) {
                files::make_dir(above)?;
                self.document.made.push(above.to_owned());
            }
            make_private_dir(home)?;
            *made += 1;
            files::write(&home.join(JOURNAL), &self.pointer(i > 0, false))?;
        }
        if homes.iter().all(|home| may_hold_it(home)) {
            self.save()?;
            return self.point(true, false);
        }
        self.path = self.document.in_restores("json");
        for home in &homes {
            files::write(&home.join(JOURNAL), &self.pointer(true, false))?;
        }
        self.save()
    }

    /// Whether it lies there because the file system of a home does not tell whose files are, or because there is no home.
    fn is_in_state_folder(&self) -> bool {
        !self.path.ends_with(JOURNAL)
    }

    /// That this home is there, and of this restore. Where it is not, nothing can be reverted or settled, whatever is said by a
    /// target that finds nothing to do.
    pub(super) fn reach(&self, home: &Path) -> Result<()> {
        const WHAT: &str = "reach the old data of a restore";
        let id = &self.document.id;
        if !self.document.homes.iter().any(|h| h == home) {
            return Err(Error::damaged(WHAT, "it is no folder of this restore").on(home.display()));
        }
        let file = home.join(JOURNAL);
        let there = match self.is_in_state_folder() {
            true => file.is_file(),
            false => read(&file)?.is_some_and(|found| found.id() == id),
        };
        if there {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Target, WHAT, format!("its folder {} is not there", home.display())).hint(
            format!(
                "mount its file system, or give what is above it its old name again, then `backup heal`; \
                 if it is gone for good: `backup heal --forget {id}`"
            ),
        ))
    }

    fn pointer(&self, live: bool, over: bool) -> Pointer {
        let document = &self.document;
        Pointer {
            id: document.id.clone(),
            journal: self.path.clone(),
            homes: document.homes.clone(),
            live,
            over,
            places: document.places(),
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

    /// What the phase asks for is done with this target. That this cannot be written, on a disk that is full, undoes nothing: after a
    /// crash the target is looked at once more.
    pub(super) fn mark_done(&mut self, target: usize, in_place: Option<InPlace>) {
        if let Some(target) = self.document.targets.get_mut(target) {
            (target.done, target.in_place) = (true, in_place);
        }
        let _ = self.save();
    }

    /// Makes a journal that was found beside its data known in this state folder, instead of the one that it was begun with, which
    /// may be lost: what ends it later looks there. Only of a restore whose run has ended.
    pub(super) fn adopt(&mut self, state_dir: &Path) -> Result<()> {
        if self.is_in_state_folder() {
            return Ok(());
        }
        let mut next = self.clone();
        let restores = state_dir.join("restores");
        files::make_dirs(&restores)?;
        let moves = !trust::is_same(&restores, &self.document.restores);
        if moves {
            next.document.restores = restores;
        } else if self.document.in_restores("json").exists() {
            return Ok(());
        }
        // Whoever else looks at it there must find it taken while it is worked on here.
        let new_lock = || files::lock_new(&next.document.in_restores("lock"));
        let lock = match files::lock_existing(&next.document.in_restores("lock"))? {
            files::Lock::Taken(lock) => Some(lock),
            files::Lock::Absent => Some(new_lock()?),
            // By this process itself, where the folder is the one that was begun with.
            files::Lock::Held if !moves => None,
            files::Lock::Held => {
                let e =
                    Error::new(ErrorKind::AlreadyRunning, "heal a restore", "another process works on it");
                return Err(e.on(&self.document.id));
            }
        };
        if let Some(lock) = lock {
            next._lock = Some(Arc::new(lock));
        }
        // The pointer first: it leads to the journal, whichever folder the journal names.
        next.point(true, false)?;
        if moves {
            next.save()?;
            for extension in ["json", "lock"] {
                let _ = files::remove(&self.document.in_restores(extension)); // this user may have no right to
            }
        }
        *self = next;
        Ok(())
    }

    /// Makes durable how far a target is that is restored in place. On an error it is as it was.
    pub(super) fn mark_in_place(&mut self, target: usize, state: InPlace) -> Result<()> {
        let mut next = self.clone();
        if let Some(target) = next.document.targets.get_mut(target) {
            target.in_place = Some(state);
        }
        next.save()?;
        *self = next;
        Ok(())
    }

    /// Folders that were made for the restore, if nothing is in them.
    fn remove_made(&self) {
        for folder in &self.document.made {
            let _ = files::remove_dir(folder); // an empty folder is no harm
        }
    }

    fn save(&self) -> Result<()> {
        files::write(&self.path, &self.document)
    }

    /// All is reverted or settled: takes the journal away. What is found in a home beside it belongs to nobody any more; it
    /// is left and returned.
    pub(super) fn remove(mut self) -> Result<Vec<PathBuf>> {
        let mut strange = Vec::new();
        if self.document.targets.iter().any(|t| !t.done) {
            // A crash in the midst of it must not make a home that is gone one that cannot be reached; on a full disk it is gone all
            // the same.
            self.document.targets.iter_mut().for_each(|t| t.done = true);
            let _ = self.save();
        }
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
        if self.document.phase == RestorePhase::Reverting {
            self.remove_made();
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
        match read(&home.join(JOURNAL)) {
            Ok(Some(found)) if *found.id() != pointer.id => continue,
            Err(e) if e.kind() == ErrorKind::Denied => continue,
            found => found?,
        };
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

/// Whether what lies in this home is known to be this user's word when it is read again.
fn is_ours_alone(home: &Path) -> bool {
    matches!(trust::folder(home), Ok(true)) && matches!(trust::open(&home.join(JOURNAL)), Ok(Some(_)))
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
            homes: d.homes,
            process: d.process,
            journal: self.path.clone(),
            running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BackupId, JournalTarget, restore::document::Place};

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

    /// As on a file system that does not tell whose files are.
    #[test]
    fn where_a_home_could_be_anybodys_the_journal_lies_in_the_state_folder() {
        let dir = tempfile::tempdir().unwrap();
        let homes = vec![dir.path().join("one"), dir.path().join("two")];
        let document =
            Document::new("m", BackupId::generate(), Vec::new(), homes.clone(), &dir.path().join("state"));
        let journal = Journal::begin_where(document, &|home| !home.ends_with("two")).unwrap();
        assert_eq!(journal.path, journal.document.in_restores("json"));
        let seen = journal.document.clone();
        for home in &homes {
            let Some(Found::Pointer(pointer)) = read(&home.join(JOURNAL)).unwrap() else { panic!("none") };
            assert_eq!((&pointer.journal, pointer.live), (&journal.path, true));
            journal.reach(home).unwrap();
        }
        std::fs::rename(&homes[1], dir.path().join("away")).unwrap();
        let e = journal.reach(&homes[1]).unwrap_err();
        assert!(e.hint_text().unwrap().contains("mount"), "{e}");
        std::fs::rename(dir.path().join("away"), &homes[1]).unwrap();
        drop(journal);
        let path = seen.in_restores("json");
        claim(&seen, path).unwrap().unwrap().0.remove().unwrap();
        assert!(!homes[0].exists() && !homes[1].exists());
        assert_eq!(std::fs::read_dir(&seen.restores).unwrap().count(), 0);
    }

    #[test]
    fn a_journal_that_was_copied_or_that_others_may_write_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let journal = begun(dir.path());
        let copy = dir.path().join("copy");
        make_private_dir(&copy).unwrap();
        std::fs::copy(&journal.path, copy.join(JOURNAL)).unwrap();
        let e = read(&copy.join(JOURNAL)).err().unwrap();
        assert!(e.to_string().contains("copy or was moved"), "{e}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&journal.path, std::fs::Permissions::from_mode(0o606)).unwrap();
            assert_eq!(read(&journal.path).err().unwrap().kind(), ErrorKind::Denied);
        }
    }

    /// What was not known to earlier versions is not written where it says nothing, and need not be there.
    #[test]
    fn journals_and_pointers_of_earlier_versions_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let target = JournalTarget {
            component: "c".into(),
            kind: "files".into(),
            place: "/data".into(),
            undo: serde_json::Value::Null,
            done: false,
            in_place: None,
        };
        let (id, homes) = (BackupId::generate(), vec![dir.path().join("home")]);
        let journal =
            Journal::begin(Document::new("m", id, vec![target], homes, &dir.path().join("state"))).unwrap();
        let json = |path: &Path| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
        };
        assert!(json(&journal.path)["targets"][0].get("done").is_none());
        let path = journal.document.in_restores("json");
        let mut pointer = json(&path);
        assert_eq!(pointer["places"][0]["place"], "/data");
        pointer.as_object_mut().unwrap().remove("places");
        std::fs::write(&path, pointer.to_string()).unwrap();
        let Some(Found::Pointer(pointer)) = read(&path).unwrap() else { panic!("it is not read") };
        assert!(pointer.live && pointer.places.is_empty());
    }

    #[test]
    fn places_meet_where_one_is_inside_the_other() {
        let place = |place: &str| Place { kind: "files".into(), place: place.into() };
        for (a, b, meet) in [
            ("/a/b", "/a/b", true),
            ("/a", "/a/b", true),
            ("/a/b", "/a", true),
            ("/a/b", "/a/bc", false),
            ("db://h/a", "db://h/a/b", false),
        ] {
            assert_eq!(place(a).meets(&place(b)), meet, "{a} {b}");
        }
        assert!(!place("/a").meets(&Place { kind: "other".into(), place: "/a".into() }));
    }
}
