//! The names of `unix/` where there is no Unix: what the standard library can, and `Unsupported` for the rest.
//! A folder is its path there: nothing protects from one that is exchanged meanwhile.
#![allow(
    dead_code,
    unused_variables,
    clippy::unnecessary_wraps,
    reason = "the same names and types as unix/"
)]

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An open folder: its path.
pub(crate) type OwnedFd = PathBuf;
/// A folder or file that is open.
pub(crate) type BorrowedFd<'a> = &'a Path;
/// Name and value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeLock {
    Free,
    Read,
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    BlockDevice,
    CharacterDevice,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) mtime: (i64, u32),
    pub(crate) ctime: (i64, u32),
    pub(crate) ino: u64,
    pub(crate) dev: u64,
    pub(crate) nlink: u64,
    pub(crate) rdev: (u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) free: u64,
    pub(crate) total: u64,
    pub(crate) free_inodes: u64,
    pub(crate) inodes: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) owner: Option<(u32, u32)>,
    pub(crate) mode: Option<u32>,
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) xattrs: Vec<Xattr>,
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

fn join(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(path_from_bytes(name.to_vec()))
}

pub(crate) fn path_from_bytes(bytes: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

pub(crate) fn path_to_bytes(path: &Path) -> Vec<u8> {
    path.to_string_lossy().replace('\\', "/").into_bytes()
}

pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    if path.symlink_metadata()?.is_dir() { Ok(path.into()) } else { Err(io::ErrorKind::NotADirectory.into()) }
}

pub(crate) fn open_dir_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    open_dir(&join(dir, name))
}

pub(crate) fn open_file_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    open_for_reading(&join(dir, name))
}

pub(crate) fn open_for_reading(path: &Path) -> io::Result<File> {
    if path.symlink_metadata()?.is_symlink() { unsupported() } else { File::open(path) }
}

pub(crate) fn read_at(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    use std::io::{Read as _, Seek as _};
    let mut file = file;
    file.seek(io::SeekFrom::Start(offset))?;
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

pub(crate) fn read_link_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(path_to_bytes(&fs::read_link(join(dir, name))?))
}

pub(crate) struct DirNames(fs::ReadDir);

pub(crate) fn read_dir(dir: BorrowedFd<'_>) -> io::Result<DirNames> {
    Ok(DirNames(fs::read_dir(dir)?))
}

impl Iterator for DirNames {
    type Item = io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        Some(self.0.next()?.map(|entry| entry.file_name().to_string_lossy().into_owned().into_bytes()))
    }
}

/// The same for all: whether a file was exchanged is not seen.
pub(crate) fn identity(metadata: &Metadata) -> (u64, u64) {
    (0, 0)
}

/// The modification time, for want of another.
pub(crate) fn change_time(metadata: &Metadata) -> (i64, u32) {
    let since =
        metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(0), since.subsec_nanos())
}

pub(crate) fn range_lock(file: &File, start: u64, length: u64) -> io::Result<RangeLock> {
    unsupported()
}

pub(crate) fn close_database(file: File) {}

pub(crate) fn descriptors_on(identity: (u64, u64)) -> Option<usize> {
    None
}

pub(crate) fn locked_by_this_process() -> BTreeSet<(u64, u64)> {
    BTreeSet::new()
}

pub(crate) fn stat_fd(file: BorrowedFd<'_>) -> io::Result<Stat> {
    let metadata = file.symlink_metadata()?;
    let kind = match metadata.file_type() {
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_symlink() => Kind::Symlink,
        kind if kind.is_file() => Kind::File,
        _ => Kind::Unknown,
    };
    let mode = match (kind, metadata.permissions().readonly()) {
        (Kind::Directory, _) => 0o755,
        (_, true) => 0o444,
        (_, false) => 0o644,
    };
    let (size, time) = (metadata.len(), change_time(&metadata));
    Ok(Stat {
        kind,
        mode,
        uid: 0,
        gid: 0,
        size,
        blocks: size.div_ceil(512),
        mtime: time,
        ctime: time,
        ino: 0,
        dev: 0,
        nlink: 1,
        rdev: (0, 0),
    })
}

pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    stat_fd(&join(dir, name))
}

pub(crate) fn list_xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    Ok(Vec::new())
}

pub(crate) fn list_xattrs_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<Xattr>> {
    Ok(Vec::new())
}

pub(crate) fn set_xattr(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    unsupported()
}

pub(crate) fn set_xattr_at(dir: BorrowedFd<'_>, name: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
    unsupported()
}

pub(crate) fn data_extents(
    file: BorrowedFd<'_>,
    size: u64,
    max_extents: usize,
) -> io::Result<Option<Vec<(u64, u64)>>> {
    Ok(None)
}

pub(crate) fn open_parent_beneath(
    root: BorrowedFd<'_>,
    relative: &[u8],
    create: bool,
) -> io::Result<(OwnedFd, Vec<u8>)> {
    let mut components: Vec<_> = relative.split(|&byte| byte == b'/').collect();
    let bad = |name: &&[u8]| {
        matches!(*name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, 0 | b'\\' | b':'))
    };
    if components.iter().any(bad) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let last = components.pop().unwrap_or_default().to_vec();
    let mut dir = root.to_path_buf();
    for component in components {
        let next = join(&dir, component);
        if create && !next.exists() {
            fs::create_dir(&next)?;
        }
        dir = open_dir(&next)?;
    }
    Ok((dir, last))
}

pub(crate) fn create_file(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).open(join(dir, name))
}

pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    fs::create_dir(join(dir, name))
}

pub(crate) fn make_symlink(target: &[u8], dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    unsupported()
}

pub(crate) fn make_hard_link(
    root: BorrowedFd<'_>,
    existing: &[u8],
    dir: BorrowedFd<'_>,
    name: &[u8],
) -> io::Result<()> {
    let (parent, last) = open_parent_beneath(root, existing, false)?;
    fs::hard_link(join(&parent, &last), join(dir, name))
}

pub(crate) fn make_fifo(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    unsupported()
}

pub(crate) fn make_device(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: Kind,
    major: u32,
    minor: u32,
) -> io::Result<()> {
    unsupported()
}

pub(crate) fn exchange(a: BorrowedFd<'_>, a_name: &[u8], b: BorrowedFd<'_>, b_name: &[u8]) -> io::Result<()> {
    unsupported()
}

/// Not in one step here.
pub(crate) fn rename_noreplace(
    from: BorrowedFd<'_>,
    from_name: &[u8],
    to: BorrowedFd<'_>,
    to_name: &[u8],
) -> io::Result<()> {
    if join(to, to_name).symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    rename(from, from_name, to, to_name)
}

pub(crate) fn rename(
    from: BorrowedFd<'_>,
    from_name: &[u8],
    to: BorrowedFd<'_>,
    to_name: &[u8],
) -> io::Result<()> {
    fs::rename(join(from, from_name), join(to, to_name))
}

pub(crate) fn set_owner(dir: BorrowedFd<'_>, name: &[u8], uid: u32, gid: u32) -> io::Result<()> {
    unsupported()
}

pub(crate) fn set_mode(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    let path = join(dir, name);
    let mut permissions = path.symlink_metadata()?.permissions();
    permissions.set_readonly(mode & 0o200 == 0);
    fs::set_permissions(path, permissions)
}

pub(crate) fn set_times(
    dir: BorrowedFd<'_>,
    name: &[u8],
    (seconds, nanoseconds): (i64, u32),
) -> io::Result<()> {
    let since = Duration::new(u64::try_from(seconds).unwrap_or(0), nanoseconds);
    let time: SystemTime = UNIX_EPOCH + since;
    File::options().write(true).open(join(dir, name))?.set_modified(time)
}

pub(crate) fn apply_attributes(
    dir: BorrowedFd<'_>,
    name: &[u8],
    attributes: &Attributes,
) -> Vec<(String, io::Error)> {
    let mut outcomes = Vec::new();
    if let Some((uid, gid)) = attributes.owner {
        outcomes.push(("owner".to_owned(), set_owner(dir, name, uid, gid)));
    }
    for (key, value) in &attributes.xattrs {
        outcomes.push((format!("xattr {}", key.escape_ascii()), set_xattr_at(dir, name, key, value)));
    }
    if let Some(mtime) = attributes.mtime {
        outcomes.push(("time".to_owned(), set_times(dir, name, mtime)));
    }
    // Last: a read-only file could not be opened for its time.
    if let Some(mode) = attributes.mode {
        outcomes.push(("mode".to_owned(), set_mode(dir, name, mode)));
    }
    outcomes.into_iter().filter_map(|(what, outcome)| Some((what, outcome.err()?))).collect()
}

pub(crate) fn remove_tree_beneath(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    let path = join(parent, name);
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

pub(crate) fn free_space(path: &Path) -> io::Result<Space> {
    unsupported()
}

pub(crate) fn device_id(path: &Path) -> io::Result<u64> {
    unsupported()
}

pub(crate) fn is_mount_point(path: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Folders cannot be synced here; the file system orders its own changes.
pub(crate) fn fsync_dir(dir: BorrowedFd<'_>) -> io::Result<()> {
    Ok(())
}

pub(crate) fn sync_filesystem(file: BorrowedFd<'_>) -> io::Result<()> {
    unsupported()
}

pub(crate) fn user() -> u32 {
    0
}

pub(crate) fn is_root() -> bool {
    false
}
