//! The sink of a restore: a tree beside the live data, complete and durable before anything is swapped.

use crate::{
    source::blocking,
    source::database::stored_as_database,
    spool::Spool,
    sqlite::{self, SqliteError},
    system,
    target::attributes::{Losses, attributes, owner_of_new_files},
    target::make_entry::{Job, Maker, NewFile, Parents, failed, in_shadow},
    target::merge::Merge,
    target::place::{Place, SHADOW},
    target::pool::Pool,
    target::publish::Steps,
    target::write_out::WriteOut,
};
use async_trait::async_trait;
use backup_core::{
    Content, Context, Entry, Error, ErrorKind, Kind, Posix, Proof, Put, Result, Severity, Sink, Stage, Tally,
};
use bytes::{Bytes, BytesMut};
use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::OnceCell;

/// Up to this size a streamed file is gathered in memory and made by the pool.
const GATHERED: u64 = 1 << 20;

/// Everything that is restored, where nobody looks yet.
pub(crate) struct Shadow {
    component: String,
    place: Place,
    how: How,
    maker: Arc<Maker>,
    pool: Pool,
    tally: Mutex<Tally>,
    /// Folders with their attributes, and databases to be checked: for the end.
    folders: Mutex<Spool>,
    databases: Mutex<Spool>,
    data_is_made: OnceCell<()>,
    sealed: AtomicBool,
}

/// How it is made.
pub(crate) struct How {
    pub(crate) no_owner: bool,
    /// Somebody has agreed to devices.
    pub(crate) devices: bool,
    /// What is live and not in the backup is in it, too.
    pub(crate) merge: bool,
    pub(crate) steps: Steps,
}

impl Shadow {
    /// In the home of this place, which must exist.
    pub(crate) fn new(component: &str, place: &Place, how: How, cx: &Context) -> io::Result<Result<Self>> {
        let no_owner = how.no_owner;
        let home = system::open_dir(&place.home)?;
        let own = owner_of_new_files(&system::stat_fd(home.as_fd())?);
        let write_out = WriteOut::new(system::open_dir(&place.home)?);
        let devices = how.devices;
        let maker = Arc::new(Maker { home, no_owner, devices, own, losses: Losses::default(), write_out });
        Ok(Pool::new(cx.tasks, &maker).map(|pool| Shadow {
            component: component.to_owned(),
            place: place.clone(),
            how,
            maker,
            pool,
            tally: Mutex::default(),
            folders: Mutex::default(),
            databases: Mutex::default(),
            data_is_made: OnceCell::new(),
            sealed: AtomicBool::new(false),
        }))
    }

    /// Whether anything was put in it: then there is something to publish.
    pub(crate) fn holds_anything(&self) -> bool {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.facts().count("all", "entries") > 0
    }

    /// Before it is removed: nothing is made in it any more.
    pub(crate) async fn stop(&self) {
        self.pool.stop().await;
    }

    async fn put_file(&self, entry: Entry, content: &mut Content) -> Result<Put> {
        let mut gathered = BytesMut::new();
        let mut first: Option<Bytes> = None;
        let mut large: Option<(NewFile, Entry)> = None;
        let mut dropped = Dropped { pool: &self.pool, armed: false };
        let mut next = content.next().await;
        loop {
            let bytes = match next {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break,
                Err(e) => {
                    if let Some((file, entry)) = large {
                        let removed =
                            blocking("remove", move || file.remove().map_err(|e| failed(&entry.path, e)));
                        removed.await?;
                    }
                    dropped.armed = false;
                    return discarded(e);
                }
            };
            if let Some((mut file, entry)) = large.take() {
                let maker = self.maker.clone();
                let go_on = move || {
                    write(&mut file, &maker, &entry, &bytes)?;
                    Ok((file, entry))
                };
                // What comes next is hashed while this is written.
                let (written, after) = tokio::join!(blocking("write", go_on), content.next());
                large = Some(self.told(written)?);
                next = after;
                continue;
            }
            if first.is_none() && gathered.is_empty() {
                first = Some(bytes);
            } else {
                if let Some(first) = first.take() {
                    gathered.extend_from_slice(&first);
                }
                gathered.extend_from_slice(&bytes);
            }
            let held = first.as_ref().map_or(gathered.len(), Bytes::len) as u64;
            let whole = entry.stored_size() == Some(held);
            if held >= GATHERED && !(whole && held == GATHERED) {
                let bytes = first.take().unwrap_or_else(|| std::mem::take(&mut gathered).freeze());
                let (maker, entry) = (self.maker.clone(), entry.clone());
                let entered = self.pool.enter().await?;
                let begin = move || {
                    let _entered = entered;
                    let mut file = NewFile::create(&maker, &mut Parents::default(), &entry)?;
                    write(&mut file, &maker, &entry, &bytes)?;
                    Ok((file, entry))
                };
                dropped.armed = true;
                let (begun, after) = tokio::join!(blocking("write", begin), content.next());
                large = Some(self.told(begun)?);
                next = after;
            } else {
                next = content.next().await;
            }
        }
        if let Some((mut file, entry)) = large {
            let maker = self.maker.clone();
            let finish = move || file.finish(&maker, &entry).map_err(|e| failed(&entry.path, e));
            self.told(blocking("write", finish).await)?;
            dropped.armed = false;
        } else {
            let data = first.unwrap_or_else(|| gathered.freeze());
            self.pool.push(Job::File(entry, data)).await?;
        }
        Ok(Put::Stored)
    }

    /// What follows fails with the same.
    fn told<T>(&self, written: Result<T>) -> Result<T> {
        written.inspect_err(|e| self.pool.fail(e.clone()))
    }

    fn spool(&self, spool: &Mutex<Spool>, entry: &Entry) -> Result<()> {
        let pushed = spool.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        pushed.map_err(|e| Error::io(ErrorKind::Target, "keep entries in a temporary file", e))
    }
}

/// A put that is dropped, or that failed, while its file is half written: the shadow takes nothing more.
struct Dropped<'a> {
    pool: &'a Pool,
    armed: bool,
}

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.pool.fail(Error::new(
                ErrorKind::Target,
                "write",
                "an earlier file was not written to its end",
            ));
        }
    }
}

fn write(file: &mut NewFile, maker: &Maker, entry: &Entry, bytes: &[u8]) -> Result<()> {
    file.write(maker, bytes).map_err(|e| failed(&entry.path, e))
}

/// A content that failed leaves the shadow sound; one that was cancelled ends the restore.
fn discarded(e: Error) -> Result<Put> {
    match e.kind() {
        ErrorKind::Cancelled => Err(e),
        _ => Ok(Put::Discarded(e.to_string().into())),
    }
}

impl fmt::Display for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.target.display().fmt(f)
    }
}

#[async_trait]
impl Sink for Shadow {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        if self.sealed.load(Relaxed) {
            return Err(Error::contract("a put after the end").on(entry.display_path()));
        }
        if !backup_core::is_entry_path(&entry.path) {
            return Err(Error::contract("this is no path of an entry").on(entry.display_path()));
        }
        self.pool.check()?;
        if entry.stage == Stage::Complete {
            self.data_is_made.get_or_try_init(|| self.pool.drain()).await?;
        }
        let mut content = content.hashed(&entry);
        let size = entry.size;
        let counted = Entry {
            path: entry.path.clone(),
            kind: entry.kind,
            link: entry.link.clone(),
            ..Entry::default()
        };
        if entry.kind == Kind::File {
            let is_database = stored_as_database(&entry);
            match self.put_file(entry, &mut content).await? {
                Put::Stored => {}
                discarded => return Ok(discarded),
            }
            if is_database {
                self.spool(&self.databases, &counted)?;
            }
        } else {
            loop {
                match content.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(e) => return discarded(e),
                }
            }
            if entry.kind == Kind::Directory {
                self.spool(&self.folders, &entry)?;
                self.pool.push(Job::Folder(entry.path)).await?;
            } else {
                self.pool.push(Job::Node(entry)).await?;
            }
        }
        let digest = content.digest().unwrap_or_default();
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        // Of a sparse file with its holes, as archives count it.
        tally.add(&counted, size.unwrap_or_else(|| content.delivered()), &digest);
        Ok(Put::Stored)
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        if self.sealed.swap(true, Relaxed) {
            return Err(Error::contract("finished twice").on(&self.component));
        }
        self.pool.drain().await?;
        let take =
            |spool: &Mutex<Spool>| std::mem::take(&mut *spool.lock().unwrap_or_else(PoisonError::into_inner));
        let (folders, databases) = (take(&self.folders), take(&self.databases));
        let ending = Ending {
            component: self.component.clone(),
            cx: cx.clone(),
            place: self.place.clone(),
            maker: self.maker.clone(),
            merges: self.how.merge.then(|| self.how.steps.clone()),
        };
        blocking("finish the restored files", move || {
            ending.check_databases(databases)?;
            ending.keep_live()?;
            ending.set_folders(folders)?;
            ending.maker.losses.check()?;
            system::sync_filesystem(ending.maker.home.as_fd())
                .map_err(|e| Error::io(ErrorKind::Target, "make the restored files durable", e))
        })
        .await?;
        self.maker.losses.tell(cx, &self.component, self.maker.no_owner);
        Ok(self.tally.lock().unwrap_or_else(PoisonError::into_inner).facts())
    }
}

/// What is done once everything is there.
struct Ending {
    component: String,
    cx: Context,
    place: Place,
    maker: Arc<Maker>,
    merges: Option<Steps>,
}

impl Ending {
    fn each(&self, spool: Spool, mut act: impl FnMut(Entry) -> Result<()>) -> Result<()> {
        let failed = |e| Error::io(ErrorKind::Target, "read entries from a temporary file", e);
        for entry in spool.read().map_err(failed)? {
            if self.cx.cancel.is_cancelled() {
                return Err(Error::cancelled());
            }
            act(entry.map_err(failed)?)?;
        }
        Ok(())
    }

    /// The last thing that changes them: whatever is made in a folder changes its time.
    fn set_folders(&self, folders: Spool) -> Result<()> {
        self.each(folders, |entry| {
            let Some(posix) = &entry.posix else { return Ok(()) };
            let path = in_shadow(&entry.path);
            let (dir, name) = system::open_parent_beneath(self.maker.home.as_fd(), &path, false)
                .map_err(|e| failed(&entry.path, e))?;
            self.maker.attributes(dir.as_fd(), &name, &entry.path, posix);
            Ok(())
        })
    }

    /// Of a merge: what is live and not in the backup.
    fn keep_live(&self) -> Result<()> {
        let Some(steps) = &self.merges else { return Ok(()) };
        let failed = |e| Error::io(ErrorKind::Target, "keep what the backup lacks", e);
        let open = |dir: &OwnedFd, name: &[u8]| match system::stat_at(dir.as_fd(), name) {
            Ok(stat) if stat.kind == system::Kind::Directory => {
                system::open_dir_at(dir.as_fd(), name).map(Some)
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(None),
        };
        let (parent, name) = self.place.parent().map_err(failed)?;
        let trees = (open(&parent, &name).map_err(failed)?, open(&self.maker.home, SHADOW).map_err(failed)?);
        let (Some(live), Some(new)) = trees else { return Ok(()) };
        let folder = |dir: BorrowedFd<'_>, name: &[u8], path: &[u8], posix: &Posix| {
            // Theirs before and after: `no_owner` is about what comes from the backup.
            for (what, e) in system::apply_attributes(dir, name, &attributes(posix, false).0) {
                self.maker.losses.add(&what, path, &e);
            }
            Ok(())
        };
        let merge = Merge {
            step: &|| match self.cx.cancel.is_cancelled() {
                true => Err(io::Error::other("cancelled")),
                false => steps.next(),
            },
            at_top: &|_| Ok(()),
            folder: &folder,
            unfinished: true,
        };
        let kept = merge.keep(live.as_fd(), new.as_fd());
        if self.cx.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        let kept = kept.map_err(|e| failed(e).on(self.place.target.display()))?;
        let note = |n: u64, severity, text: &str| {
            if n > 0 {
                self.cx.note(severity, &self.component, "", format!("{n} {text}"));
            }
        };
        note(kept.files + kept.folders, Severity::Note, "entries stay that the backup lacks");
        note(
            kept.hidden,
            Severity::Warning,
            "folders are replaced by what is no folder in the backup: what was in them is in the old data only",
        );
        note(
            kept.side_files,
            Severity::Note,
            "files of SQLite beside databases that come from the backup do not stay",
        );
        Ok(())
    }

    fn check_databases(&self, databases: Spool) -> Result<()> {
        let token = self.cx.cancel.clone();
        let cancelled = sqlite::Cancelled::new(move || token.is_cancelled());
        self.each(databases, |entry| {
            let path = self.place.home.join(system::path_from_bytes(in_shadow(&entry.path)));
            let note = |severity, text: String| {
                self.cx.note(severity, &self.component, entry.display_path(), text);
            };
            match sqlite::integrity_check(&path, &cancelled) {
                Ok(()) => {}
                Err(SqliteError::Cancelled) => return Err(Error::cancelled()),
                // Its bytes are those of the backup: it was damaged before.
                Err(SqliteError::Corrupt(why)) => note(
                    Severity::Warning,
                    format!("SQLite finds it damaged ({why}), as it was when it was backed up"),
                ),
                Err(e) => note(Severity::Note, format!("its integrity could not be checked: {e}")),
            }
            Ok(())
        })
    }
}
