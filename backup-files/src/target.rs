//! A folder or file that is being restored.

pub(crate) mod attributes;
pub(crate) mod make_entry;
pub(crate) mod phase;
pub(crate) mod place;
pub(crate) mod pool;
pub(crate) mod publish;
pub(crate) mod shadow;

use crate::{
    config::FilesConfig,
    source::blocking,
    system::{self, Kind},
    target::place::Place,
    target::publish::{Publisher, Steps},
    target::shadow::Shadow,
};
use async_trait::async_trait;
use backup_core::{Context, Error, ErrorKind, Result, Sink, Survey, Target};
use serde_json::Value;
use std::{
    fmt, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Entries of a present folder that are counted for the plan.
const COUNTED: usize = 10_000;

pub(crate) struct FilesTarget {
    component: String,
    place: Place,
    no_owner: bool,
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
            shadow: None,
            steps: Steps::default(),
        })
    }

    pub(crate) fn recover(undo: Value) -> Result<Self> {
        Ok(FilesTarget {
            component: String::new(),
            place: Place::from_undo(undo)?,
            no_owner: false,
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

    async fn work(
        &self,
        what: &'static str,
        without_home: fn() -> io::Result<()>,
        work: impl FnOnce(&Publisher) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let (place, steps) = (self.place.clone(), self.steps.clone());
        let place_text = place.target.display().to_string();
        blocking(what, move || {
            let work = Publisher::open(&place, steps).and_then(|open| match open {
                Some(publisher) => work(&publisher),
                None => without_home(),
            });
            work.map_err(|e| Error::io(ErrorKind::Target, what, e).on(place_text))
        })
        .await
    }

    async fn remove_home(&self, reverted: bool) -> Result<()> {
        let place = self.place.clone();
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
    async fn survey(&mut self, _cx: &Context) -> Result<Survey> {
        let (place, no_owner) = (self.place.clone(), self.no_owner);
        blocking("look at the target", move || survey(&place, no_owner)).await
    }

    fn undo(&self) -> Value {
        self.place.to_undo()
    }

    fn journal_home(&self) -> Option<PathBuf> {
        Some(self.place.home.clone())
    }

    async fn prepare(&mut self, cx: &Context) -> Result<Arc<dyn Sink>> {
        let (component, place, no_owner, cx) =
            (self.component.clone(), self.place.clone(), self.no_owner, cx.clone());
        let shadow = blocking("make the shadow", move || {
            let made = make_home(&place.home).and_then(|()| Shadow::new(&component, &place, no_owner, &cx));
            made.map_err(|e| {
                Error::io(ErrorKind::Target, "make a folder beside the target", e).on(place.home.display())
            })?
        });
        let shadow = Arc::new(shadow.await?);
        self.shadow = Some(shadow.clone());
        Ok(shadow)
    }

    async fn publish(&mut self, _cx: &Context) -> Result<()> {
        let must_be_there = self.shadow.as_ref().is_some_and(|shadow| shadow.holds_anything());
        let gone = || Err(io::Error::other("what was restored is gone: its folder was moved or removed"));
        let publish = move |publisher: &Publisher| match publisher.has_shadow()? {
            false if must_be_there => gone(),
            _ => publisher.publish(),
        };
        self.work("put the restored files in place", gone, publish).await
    }

    async fn revert(&mut self, _cx: &Context) -> Result<()> {
        if let Some(shadow) = self.shadow.take() {
            shadow.stop().await; // after a cancellation its threads may still have work
        }
        self.work("bring the old files back", || Ok(()), Publisher::revert).await?;
        self.remove_home(true).await
    }

    async fn settle(&mut self, _cx: &Context) -> Result<()> {
        self.work("remove the old files", || Ok(()), Publisher::clear).await?;
        self.remove_home(false).await
    }
}

/// The journal makes it first; without a journal it is made here.
fn make_home(home: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match std::fs::DirBuilder::new().mode(0o700).create(home) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn survey(place: &Place, no_owner: bool) -> Result<Survey> {
    let failed = |e| Error::io(ErrorKind::Target, "look at the target", e).on(place.target.display());
    let (parent, name) = match place.parent() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let parent = place.target.parent().unwrap_or(&place.target);
            return Err(Error::new(
                ErrorKind::Target,
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
    let above = place.home.parent().unwrap_or(&place.home);
    let space = system::free_space(above).map_err(failed)?;
    let mut notes = Vec::new();
    if no_owner {
        notes.push("owners are not restored".into());
    }
    if !system::is_root() {
        notes.push(
            "not root: owners other than this user's, devices and some attributes cannot be restored".into(),
        );
    }
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
    let publish = match (&stat, place.mount_point) {
        (None, _) => "appears in one step",
        (_, true) => {
            "renamed one by one, because something is mounted there: for a moment parts can be missing"
        }
        (_, false) => {
            "exchanged in one step; renamed one by one where the file system cannot: then, for a moment, parts can be missing"
        }
    };
    Ok(Survey {
        place: place.target.display().to_string(),
        replaces: stat.is_some() && !is_empty(place), // an empty folder is no data
        present: present(place, stat.as_ref()).map_err(failed)?,
        identity: stat.map_or("nothing".into(), |s| format!("{}:{} {:?}", s.dev, s.ino, s.kind)),
        free_bytes: Some(space.free),
        free_entries: (space.inodes > 0).then_some(space.free_inodes),
        publish: publish.to_owned(),
        notes,
        local_path: Some(place.real_path().map_err(failed)?),
    })
}

fn is_empty(place: &Place) -> bool {
    let own = place.name_inside();
    let names = system::open_dir(&place.target).and_then(|dir| {
        let ours = |name: &io::Result<Vec<u8>>| {
            name.as_ref().is_ok_and(|name| Some(name) == own.as_ref() || name == b"lost+found")
        };
        Ok(system::read_dir(dir.as_fd())?.all(|name| ours(&name)))
    });
    names.unwrap_or(false)
}

/// What there is, for people.
fn present(place: &Place, stat: Option<&system::Stat>) -> io::Result<String> {
    let Some(stat) = stat else { return Ok("nothing".into()) };
    Ok(match stat.kind {
        Kind::Directory => {
            let dir = system::open_dir(&place.target)?;
            let own = place.name_inside();
            let names = system::read_dir(dir.as_fd())?;
            let count = names.filter(|name| name.as_ref().ok() != own.as_ref()).take(COUNTED + 1).count();
            match count {
                0 => "an empty folder".into(),
                1 => "a folder with 1 entry".into(),
                n if n > COUNTED => format!("a folder with more than {COUNTED} entries"),
                n => format!("a folder with {n} entries"),
            }
        }
        Kind::File => format!("a file of {} bytes", stat.size),
        _ => "something that is neither file nor folder".into(),
    })
}
