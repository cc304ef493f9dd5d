//! Reading one thing that is no folder. Small files are read at once, in the thread of the walk.

use crate::{
    source::database::{Database, Opened},
    source::large_file::{LargeFile, TRIES, extents},
    source::links::made,
    source::listing::Listed,
    source::walk::Walk,
    sqlite::{is_database, side_files},
    stamp::{Change, change_since, entry_kind, fingerprint, is_fresh, posix, posix_of},
    system::{self, Kind, Stat},
};
use backup_core::{Content, Entry, Extent, Result, Stage};
use bytes::Bytes;
use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::SystemTime,
};

/// Up to this size a file is read into memory.
const SMALL: u64 = 1 << 20;
const LARGEST_UNSIZED: usize = 8 << 20;
const MAGIC_LENGTH: usize = 16;
const LOCKED_BY_PROGRAM: &str = "this program holds a lock on it, and it is no SQLite database";

/// The folder and the name in it.
type Named<'a> = (BorrowedFd<'a>, &'a [u8]);

/// What became of reading a small file.
enum Small {
    Read(Vec<u8>, Option<Arc<[Extent]>>, Stat),
    /// It says that it is empty, and has this content: files of `/proc` do.
    Unsized(Vec<u8>, Stat),
    Database,
}

impl Walk {
    /// Reads what this name is, and puts it; `self.path` is its path.
    pub(crate) fn item(&mut self, dir: BorrowedFd<'_>, name: &[u8], listed: Listed) -> Result<()> {
        if self.is_side_file(name) {
            return Ok(());
        }
        let mut parked = None;
        // Opening what is a further name would mean closing it, which drops locks: of ours, if it is a database.
        let look_first = listed != Listed::File
            || !self.locked_by_us.is_empty()
            || !self.links.is_empty()
            || system::any_parked();
        if look_first {
            let stat = match system::stat_at(dir, name) {
                Ok(stat) => stat,
                Err(e) => return self.unreadable("stat", e),
            };
            if stat.kind != Kind::File {
                return self.special(dir, name, &stat);
            }
            // Closing a file of our own would drop the locks of the program that we are part of.
            if self.locked_by_us.contains(&(stat.dev, stat.ino)) {
                return self.locked_by_program(dir, name, stat);
            }
            if self.is_another_name((dir, name), &stat)? {
                return Ok(());
            }
            parked = system::take_parked((stat.dev, stat.ino));
        }
        let file = match parked.map_or_else(|| system::open_file_at(dir, name), Ok) {
            Ok(file) => file,
            Err(e) => {
                // It may have become something else since it was listed.
                return match system::stat_at(dir, name) {
                    Ok(stat) if stat.kind != Kind::File => self.special(dir, name, &stat),
                    _ => self.unreadable("open", e),
                };
            }
        };
        let stat = match system::stat_fd(file.as_fd()) {
            Ok(stat) => stat,
            Err(e) => return self.unreadable("stat", e),
        };
        if stat.kind != Kind::File {
            return self.special(dir, name, &stat);
        }
        if !look_first && self.is_another_name((dir, name), &stat)? {
            return Ok(());
        }
        let at = (dir, name);
        let sent = if stat.size <= SMALL { self.small(at, file, stat) } else { self.large(at, file, stat) };
        match sent {
            Ok(sent) => sent,
            Err(e) => self.unreadable("read", e),
        }
    }

    fn small(&mut self, at: Named<'_>, file: File, stat: Stat) -> io::Result<Result<()>> {
        let fresh = is_fresh(&stat, SystemTime::now());
        let (content, extents, stat, says_empty) = match self.read_small(&file, stat)? {
            Small::Read(content, extents, stat) => (content, extents, stat, false),
            Small::Unsized(content, stat) => {
                let stat = Stat { size: content.len() as u64, ..stat };
                (content, None, stat, true)
            }
            Small::Database => return self.database(at, file, stat),
        };
        let mut entry = Entry::file(Bytes::copy_from_slice(&self.path), Stage::Data).sized(stat.size);
        entry.posix = Some(posix_of(&stat, &file)?);
        // Another change within the same tick of the clock would have the same one; and so would any of what says
        // that it is empty.
        let told = !fresh && !is_fresh(&stat, SystemTime::now()) && !says_empty;
        entry.fingerprint = told.then(|| fingerprint(&stat));
        entry.extents = extents;
        Ok(self.first_name(at, &stat).and_then(|()| self.send(entry, Content::whole(content))))
    }

    fn read_small(&self, file: &File, mut stat: Stat) -> io::Result<Small> {
        let mut try_number = 1;
        if stat.size == 0 {
            let content = read_unsized(file)?;
            if !content.is_empty() && system::stat_fd(file.as_fd())?.size == 0 {
                self.run.note(&self.path, "says that it is empty and is not; stored as it was read");
                return Ok(Small::Unsized(content, stat));
            }
        }
        loop {
            let fresh = is_fresh(&stat, SystemTime::now());
            let extents = extents(file, &stat)?;
            let mut content = read_extents(file, stat.size, extents.as_deref())?;
            if is_database(&content) {
                return Ok(Small::Database);
            }
            let now = system::stat_fd(file.as_fd())?;
            let expected = extents.as_ref().map_or(stat.size, |e| e.iter().map(|e| e.length).sum());
            let shrank = (content.len() as u64) < expected;
            let change = if shrank { Change::Content } else { change_since(&stat, &now) };
            let change = match change {
                Change::Content => change,
                Change::None if !fresh => change,
                // Of a log, what was there at first is as it was; of a fresh file the times do not tell.
                _ if self::extents(file, &stat)? == extents
                    && read_extents(file, stat.size, extents.as_deref())? == content =>
                {
                    change
                }
                _ => Change::Content,
            };
            match change {
                Change::None => {}
                Change::Grew => {
                    self.run.note(&self.path, "grew while it was read; stored up to its size at open");
                }
                _ if try_number < TRIES => {
                    (try_number, stat) = (try_number + 1, now);
                    continue;
                }
                _ if shrank => {
                    self.run.warn(&self.path, "became shorter while it was read; filled up with zeros");
                    content.resize(usize::try_from(expected).unwrap_or(0), 0);
                }
                _ => self.run.warn(&self.path, "changed while it was read; stored as it was read"),
            }
            return Ok(Small::Read(content, extents, stat));
        }
    }

    fn large(&mut self, at: Named<'_>, file: File, stat: Stat) -> io::Result<Result<()>> {
        let mut first = [0; MAGIC_LENGTH];
        let length = system::read_at(&file, 0, &mut first)?;
        if is_database(&first[..length]) {
            return self.database(at, file, stat);
        }
        if let Err(e) = self.first_name(at, &stat) {
            return Ok(Err(e));
        }
        let path = Bytes::copy_from_slice(&self.path);
        let large = LargeFile { run: self.run.clone(), path, file: Arc::new(file), stat, try_number: 1 };
        let (entry, content) = large.entry();
        Ok(self.send(entry, content))
    }

    /// The first bytes say that it is a database.
    fn database(&mut self, (dir, name): Named<'_>, file: File, stat: Stat) -> io::Result<Result<()>> {
        let posix = posix_of(&stat, &file);
        // Before SQLite takes locks, which closing it would drop; and a connection of the program may have some.
        system::close_database(file);
        let posix = posix?;
        let path = Bytes::copy_from_slice(&self.path);
        let database = Database { run: self.run.clone(), path: path.clone(), posix, stat };
        match database.open() {
            Opened::Snapshot(entry, content, method) => {
                Ok(self.send_database((dir, name), &stat, *entry, content, method))
            }
            Opened::PlainFile => {
                let identity = (stat.dev, stat.ino);
                if system::locked_by_this_process().contains(&identity) {
                    return Err(io::Error::other(LOCKED_BY_PROGRAM));
                }
                let file = system::open_file_at(dir, name)?;
                let stat = system::stat_fd(file.as_fd())?;
                if (stat.dev, stat.ino) != identity {
                    return Err(io::Error::other("another file took its place while it was looked at"));
                }
                if let Err(e) = self.first_name((dir, name), &stat) {
                    return Ok(Err(e));
                }
                let file = Arc::new(file);
                let (entry, content) =
                    LargeFile { run: self.run.clone(), path, file, stat, try_number: 1 }.entry();
                Ok(self.send(entry, content))
            }
        }
    }

    /// A database that this very process has open: read through SQLite alone.
    fn locked_by_program(&mut self, dir: BorrowedFd<'_>, name: &[u8], stat: Stat) -> Result<()> {
        if self.is_another_name((dir, name), &stat)? {
            return Ok(());
        }
        let xattrs = match system::list_xattrs_at(dir, name) {
            Ok(xattrs) => xattrs,
            Err(e) => return self.unreadable("read the attributes", e),
        };
        let path = Bytes::copy_from_slice(&self.path);
        let database = Database { run: self.run.clone(), path, posix: posix(&stat, xattrs), stat };
        match database.open() {
            Opened::Snapshot(entry, content, method) => {
                self.send_database((dir, name), &stat, *entry, content, method)
            }
            Opened::PlainFile => self.unreadable("open", io::Error::other(LOCKED_BY_PROGRAM)),
        }
    }

    fn send_database(
        &mut self,
        at: Named<'_>,
        stat: &Stat,
        entry: Entry,
        content: Content,
        method: Option<&str>,
    ) -> Result<()> {
        self.databases.insert(at.1.to_vec());
        if let Some(method) = method {
            self.facts.add_database(&self.path, method);
            self.first_name(at, stat)?;
        }
        self.send(entry, content)?;
        // A snapshot may hold locks, and up to eight megabytes.
        self.flush()
    }

    fn is_side_file(&self, name: &[u8]) -> bool {
        !self.databases.is_empty()
            && side_files(OsStr::new("")).iter().any(|suffix| {
                let database = name.strip_suffix(suffix.as_encoded_bytes());
                database.is_some_and(|database| self.databases.contains(database))
            })
    }

    /// What is no file and no folder.
    fn special(&mut self, dir: BorrowedFd<'_>, name: &[u8], stat: &Stat) -> Result<()> {
        let kind = match entry_kind(stat) {
            Some(backup_core::Kind::Directory) => {
                self.run.note(&self.path, "became a folder after it was listed; left out");
                return Ok(());
            }
            Some(kind) => kind,
            None => {
                self.run.note(&self.path, "is a socket; left out");
                return Ok(());
            }
        };
        if self.is_another_name((dir, name), stat)? {
            return Ok(());
        }
        let mut entry = Entry::file(Bytes::copy_from_slice(&self.path), Stage::Data);
        entry.kind = kind;
        if kind == backup_core::Kind::Symlink {
            match system::read_link_at(dir, name) {
                Ok(text) => entry.link = Some(text.into()),
                Err(e) => return self.unreadable("read the symbolic link", e),
            }
        }
        match system::list_xattrs_at(dir, name) {
            Ok(xattrs) => entry.posix = Some(posix(stat, xattrs)),
            Err(e) => return self.unreadable("read the attributes", e),
        }
        self.first_name((dir, name), stat)?;
        self.send(entry, Content::empty())
    }

    /// Puts a further name of a file that is stored already.
    fn is_another_name(&mut self, (dir, name): Named<'_>, stat: &Stat) -> Result<bool> {
        if stat.nlink < 2 {
            return Ok(false);
        }
        let first = self
            .links
            .first_name((stat.dev, stat.ino), made(dir, name, stat))
            .map_err(|e| self.spool_error(e))?;
        let Some(first) = first else { return Ok(false) };
        let mut entry = Entry::file(Bytes::copy_from_slice(&self.path), Stage::Complete);
        entry.kind = backup_core::Kind::HardLink;
        entry.link = Some(first.into());
        // The attributes are those of the file, but formats keep them per name.
        entry.posix = Some(posix(stat, Vec::new()));
        self.hard_links.push(&entry).map_err(|e| self.spool_error(e))?;
        Ok(true)
    }

    /// Remembers a name that is about to be stored, if the file may have others.
    fn first_name(&mut self, (dir, name): Named<'_>, stat: &Stat) -> Result<()> {
        if stat.nlink < 2 {
            return Ok(());
        }
        let remembered =
            self.links.remember((stat.dev, stat.ino), made(dir, name, stat), stat.nlink, &self.path);
        remembered.map_err(|e| self.spool_error(e))
    }

    fn unreadable(&mut self, operation: &'static str, e: io::Error) -> Result<()> {
        if e.kind() == io::ErrorKind::NotFound && !self.path.is_empty() {
            self.run.note(&self.path, "vanished after it was listed");
            return Ok(());
        }
        self.lose(self.run.unreadable(&self.path, operation, e))
    }
}

/// The data of a small file, holes left out; shorter if the file is shorter by now.
fn read_extents(file: &File, size: u64, extents: Option<&[Extent]>) -> io::Result<Vec<u8>> {
    let whole = [Extent { offset: 0, length: size }];
    let extents = extents.unwrap_or(&whole);
    let total = extents.iter().map(|e| e.length).sum::<u64>();
    let mut content = vec![0; usize::try_from(total).unwrap_or(0)];
    let mut filled = 0;
    for extent in extents {
        let end = filled + usize::try_from(extent.length).unwrap_or(0);
        let got = system::read_at(file, extent.offset, &mut content[filled..end])?;
        filled += got;
        if filled < end {
            content.truncate(filled);
            break;
        }
    }
    Ok(content)
}

/// All that a file has that says it has nothing.
fn read_unsized(file: &File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let mut chunk = vec![0; 4096];
    loop {
        let got = system::read_at(file, content.len() as u64, &mut chunk)?;
        content.extend_from_slice(&chunk[..got]);
        if got < chunk.len() {
            return Ok(content);
        }
        if content.len() > LARGEST_UNSIZED {
            return Err(io::Error::other("it says that it is empty, and has more than eight mebibytes"));
        }
        chunk.resize(1 << 16, 0);
    }
}
