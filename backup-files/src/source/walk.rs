//! Walking a tree: depth first, names in the order of their bytes, files before folders, never through a symbolic link.

use crate::{
    config::FilesConfig,
    devices,
    source::exclude::{CACHE_SIGNATURE_LENGTH, CACHE_TAG, Exclude, Excluded, is_cache_tag},
    source::links::LinkTable,
    source::listing::{Listed, Names},
    source::run::Run,
    spool::Spool,
    stamp::posix_of,
    system::{self, Kind, Stat},
};
use backup_core::{Content, EXCLUDED, Entry, Error, ErrorKind, Fact, Facts, PATTERNS, Result, Stage};
use bytes::Bytes;
use std::{
    collections::{BTreeSet, HashSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};
use tokio::sync::mpsc::Sender;

/// Entries that go to the sink together.
pub(crate) type Batch = Vec<(Entry, Content)>;

const BATCH_ENTRIES: usize = 256;
const BATCH_BYTES: usize = 1 << 20;
/// Contents that hold a file open, or a database.
const BATCH_OPEN: usize = 8;
/// Folders open at a time; those further up are opened again on the way back.
const OPEN_FOLDERS: usize = 64;

/// One walk.
pub(crate) struct Walk {
    pub(crate) run: Arc<Run>,
    pub(crate) exclude: Exclude,
    /// The path of what is being looked at, relative to the root.
    pub(crate) path: Vec<u8>,
    pub(crate) links: LinkTable,
    pub(crate) hard_links: Spool,
    directories: Spool,
    /// SQLite databases in the folder being read: their side files come after them and are left out.
    pub(crate) databases: HashSet<Vec<u8>>,
    pub(crate) locked_by_us: BTreeSet<(u64, u64)>,
    pub(crate) facts: TreeFacts,
    device: u64,
    stack: Vec<Folder>,
    batch: Batch,
    batch_bytes: usize,
    batch_open: usize,
    out: Sender<Batch>,
}

/// What a walk leaves for the stage `Complete`.
pub(crate) struct Walked {
    pub(crate) hard_links: Spool,
    pub(crate) directories: Spool,
    pub(crate) facts: Facts,
}

struct Folder {
    /// `None`: closed for now.
    fd: Option<OwnedFd>,
    stat: Stat,
    entry: Entry,
    folders: Names,
}

/// What the backup says of a tree beside its counts.
#[derive(Default)]
pub(crate) struct TreeFacts {
    facts: Facts,
    databases: u64,
    devices: u64,
    /// Paths that match an exclude pattern, not those below them.
    left_out: u64,
    /// Folders of which only the tag that makes them a cache is stored, and mount points.
    bare_folders: u64,
}

impl TreeFacts {
    /// A database that was found; the first hundred are told by name.
    pub(crate) fn add_database(&mut self, path: &[u8], method: &str) {
        self.databases += 1;
        if self.databases <= 100 {
            let subject = format!("sqlite {}", backup_core::display_path(path));
            self.facts.insert(subject, "method", Fact::Note(method.to_owned()));
        }
    }

    fn finish(mut self, exclude: &Exclude) -> Facts {
        if exclude.has_patterns() {
            self.facts.insert(PATTERNS, EXCLUDED, Fact::Note(self.left_out.to_string()));
        }
        if self.databases > 0 {
            self.facts.insert("sqlite", "databases", Fact::Note(self.databases.to_string()));
        }
        devices::tell(self.devices, &mut self.facts);
        let mut excluded = Vec::new();
        if self.left_out > 0 {
            excluded.push(format!("paths that match {}: {}", exclude.asked(), self.left_out));
        }
        if self.bare_folders > 0 {
            excluded.push(format!("contents of caches and other file systems: {}", self.bare_folders));
        }
        if !excluded.is_empty() {
            self.facts.insert("all", EXCLUDED, Fact::Note(excluded.join("; ")));
        }
        self.facts
    }
}

impl Walk {
    pub(crate) fn new(run: Arc<Run>, config: &FilesConfig, out: Sender<Batch>) -> Result<Self> {
        Ok(Walk {
            exclude: Exclude::new(config, &run.root)?,
            run,
            path: Vec::new(),
            links: LinkTable::default(),
            hard_links: Spool::default(),
            directories: Spool::default(),
            databases: HashSet::new(),
            locked_by_us: system::locked_by_this_process(),
            facts: TreeFacts::default(),
            device: 0,
            stack: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            batch_open: 0,
            out,
        })
    }

    /// Reads everything. Blocks: for a thread of its own.
    pub(crate) fn run(mut self) -> Result<Walked> {
        let root = self.run.root.clone();
        if root.symlink_metadata().map_err(|e| self.root_error(e))?.is_dir() {
            let fd = system::open_dir(&root).map_err(|e| self.root_error(e))?;
            self.device = system::stat_fd(fd.as_fd()).map_err(|e| self.root_error(e))?.dev;
            self.enter(fd)?;
            self.descend()?;
        } else {
            let (Some(parent), Some(name)) = (root.parent(), root.file_name()) else {
                return Err(self.root_error(io::ErrorKind::InvalidInput.into()));
            };
            let parent = system::open_dir(parent).map_err(|e| self.root_error(e))?;
            self.item(parent.as_fd(), &system::path_to_bytes(Path::new(name)), Listed::Other)?;
        }
        self.flush()?;
        Ok(Walked {
            hard_links: self.hard_links,
            directories: self.directories,
            facts: self.facts.finish(&self.exclude),
        })
    }

    fn root_error(&self, e: io::Error) -> Error {
        self.run.unreadable(b"", "read the source", e)
    }

    fn descend(&mut self) -> Result<()> {
        while let Some(top) = self.stack.last_mut() {
            if self.run.cx.cancel.is_cancelled() {
                return Err(Error::cancelled());
            }
            let Some((name, _)) = top.folders.next() else {
                self.leave()?;
                continue;
            };
            let name = name.to_vec();
            let length = self.path.len();
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(&name);
            if !self.left_out(true) && self.folder(&name)? {
                continue;
            }
            self.path.truncate(length);
        }
        Ok(())
    }

    /// Goes into a folder of the topmost one; false if there is nothing to go into.
    fn folder(&mut self, name: &[u8]) -> Result<bool> {
        let depth = self.stack.len();
        let Some(Folder { fd: Some(parent), .. }) = self.stack.last() else { return Ok(false) };
        match system::open_dir_at(parent.as_fd(), name) {
            Ok(fd) => {
                if depth >= OPEN_FOLDERS
                    && let Some(far) = self.stack.get_mut(depth - OPEN_FOLDERS)
                    && !far.entry.path.is_empty()
                {
                    far.fd = None;
                }
                self.enter(fd)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.run.note(&self.path, "vanished after it was listed");
                Ok(false)
            }
            Err(e) => {
                self.lose(self.run.unreadable(&self.path, "open the folder", e))?;
                Ok(false)
            }
        }
    }

    /// Reads the files of an open folder, and puts it on the stack.
    fn enter(&mut self, fd: OwnedFd) -> Result<bool> {
        let mut entry = Entry::file(Bytes::copy_from_slice(&self.path), Stage::Complete);
        entry.kind = backup_core::Kind::Directory;
        let looked = system::stat_fd(fd.as_fd()).and_then(|stat| Ok((stat, posix_of(&stat, &fd)?)));
        let stat = match looked {
            Ok((stat, posix)) => {
                entry.posix = Some(posix);
                stat
            }
            Err(e) => return self.lose_folder(e),
        };
        if self.exclude.one_file_system && stat.dev != self.device {
            self.run.note(&self.path, "is another file system; only its mount point is stored");
            self.facts.bare_folders += 1;
            self.directories.push(&entry).map_err(|e| self.spool_error(e))?;
            return Ok(false);
        }
        let (mut files, mut folders) = match Names::read(fd.as_fd()) {
            Ok(names) => names,
            Err(e) => return self.lose_folder(e),
        };
        if self.exclude.caches && self.is_cache(fd.as_fd()) {
            folders = Names::default();
            files = Names::only(CACHE_TAG);
            self.facts.bare_folders += 1;
        }
        self.databases.clear();
        let length = self.path.len();
        while let Some((name, listed)) = files.next() {
            if self.run.cx.cancel.is_cancelled() {
                return Err(Error::cancelled());
            }
            if length > 0 {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name);
            if !self.left_out(false) {
                self.item(fd.as_fd(), name, listed)?;
            }
            self.path.truncate(length);
        }
        self.stack.push(Folder { fd: Some(fd), stat, entry, folders });
        Ok(true)
    }

    fn lose_folder(&mut self, e: io::Error) -> Result<bool> {
        self.lose(self.run.unreadable(&self.path, "list the folder", e))?;
        Ok(false)
    }

    /// Comes back from the topmost folder to the one above it.
    fn leave(&mut self) -> Result<()> {
        let Some(folder) = self.stack.pop() else { return Ok(()) };
        self.directories.push(&folder.entry).map_err(|e| self.spool_error(e))?;
        let Some(above) = self.stack.last_mut() else { return Ok(()) };
        self.path.truncate(above.entry.path.len());
        if above.fd.is_some() {
            return Ok(());
        }
        // `..` of a folder that was moved meanwhile is not the one we came from.
        let again = folder.fd.as_ref().map(|fd| system::open_dir_at(fd.as_fd(), b".."));
        let same = |fd: &OwnedFd| {
            system::stat_fd(fd.as_fd())
                .is_ok_and(|now| (now.dev, now.ino) == (above.stat.dev, above.stat.ino))
        };
        match again {
            Some(Ok(fd)) if same(&fd) => above.fd = Some(fd),
            _ => {
                let root = system::open_dir(&self.run.root);
                let reopened = root.and_then(|root| {
                    let inside = [&above.entry.path[..], b"/x"].concat();
                    system::open_parent_beneath(root.as_fd(), &inside, false)
                });
                match reopened {
                    Ok((fd, _)) if same(&fd) => above.fd = Some(fd),
                    _ => {
                        above.folders = Names::default();
                        // Said, not put: the folder's own entry, still to come, would take it off the losses.
                        self.run.lost(
                            &self.path,
                            "was moved while it was being read: what is in it is incomplete",
                        );
                    }
                }
            }
        }
        Ok(())
    }

    fn left_out(&mut self, is_dir: bool) -> bool {
        match self.exclude.check(&self.path, is_dir) {
            None => false,
            Some(Excluded::Asked) => {
                self.facts.left_out += 1;
                true
            }
            Some(Excluded::Ours) => {
                self.run.note(&self.path, "belongs to backups or restores and is left out");
                true
            }
        }
    }

    fn is_cache(&self, dir: BorrowedFd<'_>) -> bool {
        let Ok(file) = system::open_file_at(dir, CACHE_TAG) else { return false };
        let mut first = [0; CACHE_SIGNATURE_LENGTH];
        let is_file = system::stat_fd(file.as_fd()).is_ok_and(|stat| stat.kind == Kind::File);
        is_file && system::read_at(&file, 0, &mut first).is_ok_and(|n| is_cache_tag(&first[..n]))
    }

    /// Puts something that cannot be read, so that it is counted as lost. Not as a folder: sinks poll only files' contents.
    pub(crate) fn lose(&mut self, e: Error) -> Result<()> {
        let entry = Entry::file(Bytes::copy_from_slice(&self.path), Stage::Data);
        self.send(entry, Content::failed(e))
    }

    /// Puts an entry with the next batch.
    pub(crate) fn send(&mut self, entry: Entry, content: Content) -> Result<()> {
        match content.in_memory() {
            Some(bytes) => self.batch_bytes += bytes,
            None => self.batch_open += 1,
        }
        self.facts.devices += u64::from(devices::is_device(&entry));
        self.batch.push((entry, content));
        let full = self.batch.len() >= BATCH_ENTRIES
            || self.batch_bytes >= BATCH_BYTES
            || self.batch_open >= BATCH_OPEN;
        if full { self.flush() } else { Ok(()) }
    }

    /// Hands over what there is. An error means that nobody takes it any more.
    pub(crate) fn flush(&mut self) -> Result<()> {
        (self.batch_bytes, self.batch_open) = (0, 0);
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() {
            return Ok(());
        }
        self.out.blocking_send(batch).map_err(|_| Error::cancelled())
    }

    /// The temporary file that entries wait in failed.
    pub(crate) fn spool_error(&self, e: io::Error) -> Error {
        Error::io(ErrorKind::Source, "keep entries in a temporary file", e).on(&self.run.component)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::retrying::Retries;
    use backup_core::{Context, Severity};
    use std::time::Duration;

    #[test]
    fn what_was_not_read_of_a_moved_folder_stays_lost() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let depth = OPEN_FOLDERS + 10;
        let deepest = vec!["d"; depth].join("/");
        std::fs::create_dir_all(root.join(&deepest)).unwrap();
        std::fs::create_dir_all(root.join("d/d/later")).unwrap();
        let run = Arc::new(Run {
            component: "c".into(),
            cx: Context::default(),
            root: root.clone(),
            strict: false,
            busy_limit: Duration::ZERO,
            retries: Retries::default(),
        });
        let (out, _batches) = tokio::sync::mpsc::channel(2);
        let mut walk = Walk::new(run.clone(), &FilesConfig::new(&root), out).unwrap();
        walk.enter(system::open_dir(&root).unwrap()).unwrap();
        for _ in 0..depth {
            let next = walk.stack.last_mut().unwrap().folders.next().map(|(name, _)| name.to_vec());
            if !walk.path.is_empty() {
                walk.path.push(b'/');
            }
            walk.path.extend_from_slice(b"d");
            assert!(walk.folder(&next.unwrap()).unwrap());
        }
        // Two folders further down, so that `..` is another one, and the path leads nowhere.
        std::fs::rename(root.join("d/d/d"), dir.path().join("moved")).unwrap();
        std::fs::rename(root.join("d/d"), dir.path().join("moved too")).unwrap();
        walk.descend().unwrap();
        let notes = run.cx.notes();
        let lost: Vec<_> = notes.list.iter().filter(|n| n.severity == Severity::Lost).collect();
        assert!(lost.iter().any(|n| n.text.contains("was moved")), "{:?}", notes.list);
        // Nothing was put that a later entry of the same path could make good.
        assert!(walk.batch.is_empty());
        let folders: Vec<_> = walk.directories.read().unwrap().map(|e| e.unwrap().path).collect();
        assert_eq!(folders.len(), depth + 1);
    }
}
