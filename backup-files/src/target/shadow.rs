//! The sink of a restore: a tree beside the live data, complete and durable before anything is swapped.

use crate::{
    source::blocking,
    source::database::stored_as_database,
    spool::Spool,
    sqlite::{self, SqliteError},
    system,
    target::attributes::{Losses, owner_of_new_files},
    target::make_entry::{Job, Maker, NewFile, Parents, failed, in_shadow},
    target::place::Place,
    target::pool::Pool,
};
use async_trait::async_trait;
use backup_core::{
    Content, Context, Entry, Error, ErrorKind, Kind, Proof, Put, Result, Severity, Sink, Stage, Tally,
};
use bytes::{Bytes, BytesMut};
use std::{
    fmt, io,
    os::fd::AsFd,
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
    maker: Arc<Maker>,
    pool: Pool,
    tally: Mutex<Tally>,
    /// Folders with their attributes, and databases to be checked: for the end.
    folders: Mutex<Spool>,
    databases: Mutex<Spool>,
    data_is_made: OnceCell<()>,
    sealed: AtomicBool,
}

impl Shadow {
    /// In the home of this place, which must exist.
    pub(crate) fn new(
        component: &str,
        place: &Place,
        no_owner: bool,
        cx: &Context,
    ) -> io::Result<Result<Self>> {
        let home = system::open_dir(&place.home)?;
        let own = owner_of_new_files(&system::stat_fd(home.as_fd())?);
        let maker = Arc::new(Maker { home, no_owner, own, losses: Losses::default() });
        Ok(Pool::new(cx.tasks, &maker).map(|pool| Shadow {
            component: component.to_owned(),
            place: place.clone(),
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
        loop {
            let bytes = match content.next().await {
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
                let go_on = move || {
                    write(&mut file, &entry, &bytes)?;
                    Ok((file, entry))
                };
                large = Some(blocking("write", go_on).await?);
            } else if first.is_none() && gathered.is_empty() {
                first = Some(bytes);
            } else {
                if let Some(first) = first.take() {
                    gathered.extend_from_slice(&first);
                }
                gathered.extend_from_slice(&bytes);
            }
            let held = first.as_ref().map_or(gathered.len(), Bytes::len) as u64;
            let whole = entry.stored_size() == Some(held);
            if large.is_none() && held >= GATHERED && !(whole && held == GATHERED) {
                let bytes = first.take().unwrap_or_else(|| std::mem::take(&mut gathered).freeze());
                let (maker, entry) = (self.maker.clone(), entry.clone());
                let entered = self.pool.enter().await?;
                let begin = move || {
                    let _entered = entered;
                    let mut file = NewFile::create(&maker, &mut Parents::default(), &entry)?;
                    write(&mut file, &entry, &bytes)?;
                    Ok((file, entry))
                };
                dropped.armed = true;
                large = Some(blocking("write", begin).await?);
            }
        }
        if let Some((mut file, entry)) = large {
            let maker = self.maker.clone();
            let finish = move || file.finish(&maker, &entry).map_err(|e| failed(&entry.path, e));
            blocking("write", finish).await?;
            dropped.armed = false;
        } else {
            let data = first.unwrap_or_else(|| gathered.freeze());
            self.pool.push(Job::File(entry, data)).await?;
        }
        Ok(Put::Stored)
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

fn write(file: &mut NewFile, entry: &Entry, bytes: &[u8]) -> Result<()> {
    file.write(bytes).map_err(|e| failed(&entry.path, e))
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
        };
        blocking("finish the restored files", move || {
            ending.check_databases(databases)?;
            ending.set_folders(folders)?;
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
