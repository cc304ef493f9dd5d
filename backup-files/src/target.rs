//! A folder or file that is being restored.

pub(crate) mod attributes;
pub(crate) mod make_entry;
pub(crate) mod merge;
pub(crate) mod phase;
pub(crate) mod place;
pub(crate) mod pool;
pub(crate) mod publish;
pub(crate) mod shadow;
pub(crate) mod unchanged;
pub(crate) mod write_out;

use crate::{
    config::FilesConfig,
    devices,
    source::{blocking, database::stored_as_database},
    system::{self, Kind},
    target::place::{FOUND, PREVIOUS, Place},
    target::publish::{Beside, Publisher, Steps, beside},
    target::shadow::{How, Shadow},
    target::unchanged::{has_data, is_empty, is_home, mounts, refuse_mounts, refuse_new_data},
};
use async_trait::async_trait;
use backup_core::{
    Context, Entry, Error, ErrorKind, Incoming, Refusal, Result, Severity, Sink, Survey, Target,
    display_path, real_path,
};
use serde_json::Value;
use std::{
    fmt, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How it is published where there is nothing.
const APPEARS: &str = "appears in one step";

/// Entries of a present folder that are counted for the plan.
const COUNTED: usize = 10_000;

pub(crate) struct FilesTarget {
    component: String,
    place: Place,
    no_owner: bool,
    merge: bool,
    make_parent: bool,
    /// Somebody has agreed to devices.
    devices: bool,
    /// What the plan says: there is data that goes.
    replaces: Option<bool>,
    shadow: Option<Arc<Shadow>>,
    steps: Steps,
}

impl FilesTarget {
    pub(crate) fn new(component: &str, config: &FilesConfig) -> Result<Self> {
        let place = Place::new(config.path.clone())?;
        Ok(FilesTarget {
            component: component.to_owned(),
            place,
            no_owner: config.no_owner,
            merge: config.merge,
            make_parent: config.make_parent,
            devices: false,
            replaces: None,
            shadow: None,
            steps: Steps::default(),
        })
    }

    pub(crate) fn recover(undo: Value) -> Result<Self> {
        Ok(FilesTarget {
            component: String::new(),
            place: Place::from_undo(undo)?,
            no_owner: false,
            merge: false,
            make_parent: false,
            devices: false,
            replaces: None,
            shadow: None,
            steps: Steps::default(),
        })
    }

    pub(crate) fn boxed(component: &str, config: &FilesConfig) -> Result<Box<dyn Target>> {
        Ok(Box::new(Self::new(component, config)?))
    }

    pub(crate) fn recovered(undo: Value) -> Result<Box<dyn Target>> {
        Ok(Box::new(Self::recover(undo)?))
    }

    /// Stops before the step at which this says no, as a kill would.
    #[cfg(test)]
    pub(crate) fn with_steps(mut self, steps: Steps) -> Self {
        self.steps = steps;
        self
    }

    /// Of a single file whose target is a folder: `cp` would put it in there.
    async fn file_over_folder(&self, incoming: &Incoming, cx: &Context) -> Result<Option<Refusal>> {
        let target = &self.place.target;
        let one = incoming.component.proof.count("all", "entries") == 1;
        if !one || !std::fs::symlink_metadata(target).is_ok_and(|found| found.is_dir()) {
            return Ok(None);
        }
        let is_file = |entry: &Entry| entry.path.is_empty() && entry.kind == backup_core::Kind::File;
        if incoming.count(is_file, cx).await? == 0 {
            return Ok(None);
        }
        let origin = incoming.component.header.origin.get("path").and_then(Value::as_str);
        let name = origin.map_or(&*self.component, |path| path.rsplit('/').next().unwrap_or_default());
        Ok(Some(
            Refusal::new(
                "a single file would take the place of this folder",
                format!("say what the file is to be called: --to {}", target.join(name).display()),
            )
            .acceptable_as("file-over-folder"),
        ))
    }

    /// What stands where SQLite would look for the log of a database that comes as a single file.
    async fn side_file_in_the_way(&self, incoming: &Incoming, cx: &Context) -> Result<Option<Refusal>> {
        let place = self.place.clone();
        let looked = blocking("look at the target", move || {
            let there = |replaces, database| {
                let (parent, name) = place.parent()?;
                beside(parent.as_fd(), &name, replaces, database)
            };
            let failed = |e| Error::io(ErrorKind::Target, "look at the target", e).on(place.target.display());
            match there(place.target.is_file(), true) {
                // The folder is still to be made.
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Beside::default()),
                there => there.map_err(failed),
            }
        });
        let Some(name) = looked.await?.in_the_way else { return Ok(None) };
        let is_database = |entry: &Entry| entry.path.is_empty() && stored_as_database(entry);
        if incoming.count(is_database, cx).await? == 0 {
            return Ok(None);
        }
        let path = self.place.target.with_file_name(name);
        let path = path.display();
        Ok(Some(Refusal::new(
            format!(
                "{path} stands beside it, and SQLite would take it for the log of the database that comes"
            ),
            format!("move {path} away"),
        )))
    }

    async fn work(
        &self,
        cx: &Context,
        what: &'static str,
        without_home: fn() -> io::Result<()>,
        work: impl FnOnce(&Publisher) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let (place, steps) = (self.place.clone(), self.steps.clone());
        let place_text = place.target.display().to_string();
        let (cx, component) = (cx.clone(), self.component.clone());
        blocking(what, move || {
            let work = Publisher::open(&place, steps).and_then(|open| match open {
                Some(publisher) => {
                    let done = work(&publisher);
                    for (name, kept) in publisher.take_set_aside(&place) {
                        let kept = kept.display();
                        let (severity, text) = match name.starts_with(PREVIOUS) {
                            true => (
                                Severity::Lost,
                                format!("the database was written to without this log of its, which is in {kept} now"),
                            ),
                            false => (
                                Severity::Warning,
                                format!("it appeared during the restore and was moved to {kept}"),
                            ),
                        };
                        cx.note(severity, &component, display_path(&name), text);
                    }
                    done
                }
                None => without_home(),
            });
            work.map_err(|e| Error::io(ErrorKind::Target, what, e).on(place_text))
        })
        .await
    }

    async fn remove_home(&self, cx: &Context, reverted: bool) -> Result<()> {
        let place = self.place.clone();
        let kept = place.home.join(system::path_from_bytes(FOUND.to_vec()));
        if kept.is_dir() {
            let text =
                format!("what appeared during the restore was not removed: it is in {}", kept.display());
            cx.note(Severity::Warning, &self.component, "", text);
        }
        blocking("remove the folder of the restore", move || {
            place.remove_home(reverted);
            Ok(())
        })
        .await
    }
}

impl fmt::Display for FilesTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.target.display().fmt(f)
    }
}

#[async_trait]
impl Target for FilesTarget {
    async fn survey(&mut self, incoming: &Incoming, cx: &Context) -> Result<Survey> {
        let (place, no_owner, merge) = (self.place.clone(), self.no_owner, self.merge);
        let make_parent = self.make_parent;
        let look = move || match make_parent.then(|| absent(&place, no_owner)).transpose()?.flatten() {
            Some(absent) => Ok(absent),
            None => survey(&place, no_owner, merge),
        };
        let mut survey = blocking("look at the target", look).await?;
        if system::is_root() {
            survey.refusals.extend(devices::refusal(incoming, cx).await?);
        }
        survey.refusals.extend(self.file_over_folder(incoming, cx).await?);
        survey.refusals.extend(self.side_file_in_the_way(incoming, cx).await?);
        self.devices = devices::are_agreed_to(incoming);
        self.replaces = Some(survey.replaces);
        Ok(survey)
    }

    fn undo(&self) -> Value {
        self.place.to_undo()
    }

    fn journal_home(&self) -> Option<PathBuf> {
        Some(self.place.home.clone())
    }

    async fn prepare(&mut self, cx: &Context) -> Result<Arc<dyn Sink>> {
        let (component, place, cx) = (self.component.clone(), self.place.clone(), cx.clone());
        let how = How {
            no_owner: self.no_owner,
            devices: self.devices,
            merge: self.merge,
            steps: self.steps.clone(),
        };
        let (planned, looked_at) = (self.replaces, self.place.clone());
        let replaces = blocking("look at the target", move || {
            refuse_mounts(&looked_at)?;
            planned.map_or_else(|| has_data(&looked_at), Ok)
        });
        self.replaces = Some(replaces.await?);
        let shadow = blocking("make the shadow", move || {
            let made = make_home(&place.home).and_then(|()| Shadow::new(&component, &place, how, &cx));
            made.map_err(|e| {
                Error::io(ErrorKind::Target, "make a folder beside the target", e).on(place.home.display())
            })?
        });
        let shadow = Arc::new(shadow.await?);
        self.shadow = Some(shadow.clone());
        Ok(shadow)
    }

    async fn publish(&mut self, cx: &Context) -> Result<()> {
        let (place, replaces) = (self.place.clone(), self.replaces.unwrap_or(true));
        let unchanged = move || refuse_mounts(&place).and_then(|()| refuse_new_data(&place, replaces));
        blocking("look at the target", unchanged).await?;
        let must_be_there = self.shadow.as_ref().is_some_and(|shadow| shadow.holds_anything());
        let merge = self.merge;
        let gone = || Err(io::Error::other("what was restored is gone: its folder was moved or removed"));
        let publish = move |publisher: &Publisher| match publisher.has_shadow()? {
            false if must_be_there => gone(),
            _ if merge => publisher.publish(replaces).and_then(|()| publisher.keep_late()),
            _ => publisher.publish(replaces),
        };
        self.work(cx, "put the restored files in place", gone, publish).await
    }

    async fn check_revert(&mut self, cx: &Context) -> Result<()> {
        self.work(cx, "bring the old files back", || Ok(()), Publisher::check_revert).await
    }

    async fn revert(&mut self, cx: &Context) -> Result<()> {
        if let Some(shadow) = self.shadow.take() {
            shadow.stop().await; // after a cancellation its threads may still have work
        }
        self.work(cx, "bring the old files back", || Ok(()), Publisher::revert).await?;
        self.remove_home(cx, true).await
    }

    async fn settle(&mut self, cx: &Context) -> Result<()> {
        self.work(cx, "remove the old files", || Ok(()), Publisher::clear).await?;
        self.remove_home(cx, false).await
    }
}

/// The journal makes it first; without a journal it is made here.
fn make_home(home: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(home) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    // All that is made in it would inherit them.
    system::remove_acls(system::open_dir(home)?.as_fd())
}

/// Of a target in a folder that is still to be made, in one that is there.
fn absent(place: &Place, no_owner: bool) -> Result<Option<Survey>> {
    let parent = place.target.parent().unwrap_or(&place.target);
    let Some(above) = parent.parent().filter(|above| above.is_dir() && parent.symlink_metadata().is_err())
    else {
        return Ok(None);
    };
    let failed = |e| Error::io(ErrorKind::Target, "look at the target", e).on(above.display());
    let space = system::free_space(above).map_err(failed)?;
    Ok(Some(Survey {
        place: place.target.display().to_string(),
        present: "nothing".to_owned(),
        identity: "nothing".into(),
        free_bytes: Some(space.free),
        free_entries: (space.inodes > 0).then_some(space.free_inodes),
        publish: APPEARS.to_owned(),
        notes: notes(no_owner),
        local_path: Some(real_path(&place.target)),
        ..Survey::default()
    }))
}

fn notes(no_owner: bool) -> Vec<String> {
    let mut notes = Vec::new();
    if no_owner {
        notes.push("owners are not restored".into());
    }
    if !system::is_root() {
        notes.push(
            "not root: owners other than this user's, devices and some attributes cannot be restored".into(),
        );
    }
    notes
}

fn survey(place: &Place, no_owner: bool, merge: bool) -> Result<Survey> {
    let failed = |e| Error::io(ErrorKind::Target, "look at the target", e).on(place.target.display());
    let (parent, name) = match place.parent() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = place.target.parent().unwrap_or(&place.target);
            return Err(Error::new(
                ErrorKind::NotFound,
                "restore",
                "the folder above the target does not exist",
            )
            .on(place.target.display())
            .hint(format!("make it: mkdir -p {}", parent.display())));
        }
        parent => parent.map_err(failed)?,
    };
    let stat = match system::stat_at(parent.as_fd(), &name) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        stat => Some(stat.map_err(failed)?),
    };
    if stat.is_some_and(|stat| stat.kind == Kind::Symlink) {
        let leads = std::fs::canonicalize(&place.target).map(|to| to.display().to_string());
        return Err(Error::new(ErrorKind::Refused, "restore", "the target is a symbolic link")
            .on(place.target.display())
            .hint(format!("name what it leads to: {}", leads.unwrap_or_else(|_| "nothing".into()))));
    }
    let is_file = stat.is_some_and(|stat| stat.kind == Kind::File);
    let logs = beside(parent.as_fd(), &name, is_file, false).map_err(failed)?.leave;
    let above = place.home.parent().unwrap_or(&place.home);
    let space = system::free_space(above).map_err(failed)?;
    let mut notes = notes(no_owner);
    let mount_point = stat.is_some_and(|stat| stat.kind == Kind::Directory)
        && system::is_mount_point(&place.target).map_err(failed)?;
    if mount_point != place.mount_point {
        return Err(Error::new(
            ErrorKind::Refused,
            "restore",
            "something was mounted or unmounted there just now",
        )
        .on(place.target.display()));
    }
    let mounted = mounts(place)?.into_iter().map(|at| {
        Refusal::new(
            format!("something is mounted inside it, at {at}: it would move with the old data"),
            format!("umount {at}"),
        )
    });
    let merges = merge && stat.is_some_and(|stat| stat.kind == Kind::Directory);
    if merges {
        notes.push(
            "merged: what the backup lacks stays, by a second name of the same file: what is written into such a file shows in the old data, too"
                .into(),
        );
        notes.push(
            "merged: stop what writes there: of a file that stays and is replaced during the restore, the newer one is only in the old data"
                .into(),
        );
    }
    let publish = match (&stat, place.mount_point) {
        (None, _) => APPEARS,
        (_, true) => {
            "renamed one by one, because something is mounted there: for a moment parts can be missing"
        }
        (_, false) => {
            "exchanged in one step; renamed one by one where the file system cannot: then, for a moment, parts can be missing; what has it open or mounted (a container) goes on with the old data until it is restarted"
        }
    };
    Ok(Survey {
        place: place.target.display().to_string(),
        replaces: stat.is_some() && !is_empty(place), // an empty folder is no data
        present: present(place, stat.as_ref(), &logs).map_err(failed)?,
        identity: stat.map_or("nothing".into(), |s| format!("{}:{} {:?}", s.dev, s.ino, s.kind)),
        free_bytes: Some(space.free),
        free_entries: (space.inodes > 0).then_some(space.free_inodes),
        publish: publish.to_owned(),
        notes,
        refusals: mounted.collect(),
        merges,
        in_place: false,
        local_path: Some(place.real_path().map_err(failed)?),
    })
}

/// What there is, for people.
fn present(place: &Place, stat: Option<&system::Stat>, logs: &[String]) -> io::Result<String> {
    let Some(stat) = stat else { return Ok("nothing".into()) };
    Ok(match stat.kind {
        Kind::Directory => {
            let dir = system::open_dir(&place.target)?;
            let names = system::read_dir(dir.as_fd())?;
            let count = names
                .filter(|name| !name.as_ref().is_ok_and(|name| is_home(dir.as_fd(), name)))
                .take(COUNTED + 1)
                .count();
            match count {
                0 => "an empty folder".into(),
                1 => "a folder with 1 entry".into(),
                n if n > COUNTED => format!("a folder with more than {COUNTED} entries"),
                n => format!("a folder with {n} entries"),
            }
        }
        Kind::File if logs.is_empty() => format!("a file of {} bytes", stat.size),
        Kind::File => {
            format!("a file of {} bytes with what SQLite has beside it ({})", stat.size, logs.join(", "))
        }
        _ => "something that is neither file nor folder".into(),
    })
}
