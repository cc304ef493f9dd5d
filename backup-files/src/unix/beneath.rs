//! Paths that are resolved beneath a folder and through no symbolic link.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;

use super::files::open_dir_at;

/// Opens the folder that holds `relative`, and returns it with the last component. With `create`, missing folders
/// are made, for their owner only.
///
/// # Errors
/// `InvalidInput` for an absolute path or one with empty, `.` or `..` components; `NotADirectory` or
/// `FilesystemLoop` where a symbolic link stands in the way.
pub(crate) fn open_parent_beneath(
    root: BorrowedFd<'_>,
    relative: &[u8],
    create: bool,
) -> io::Result<(OwnedFd, Vec<u8>)> {
    let mut components = relative.split(|&byte| byte == b'/').collect::<Vec<_>>();
    components.iter().try_for_each(|component| check_name(component))?;
    let last = components.pop().unwrap_or_default();
    let parent = &relative[..relative.len() - last.len()];
    let parent = parent.strip_suffix(b"/").unwrap_or(parent);
    if parent.is_empty() {
        return Ok((open_dir_itself(root)?, last.to_vec()));
    }
    let opened = match at_once(root, parent) {
        Some(Err(error)) if create && error.kind() == io::ErrorKind::NotFound => None,
        opened => opened,
    };
    let opened = match opened {
        Some(opened) => opened?,
        None => step_by_step(root, &components, create)?,
    };
    Ok((opened, last.to_vec()))
}

/// A single component that names something.
pub(super) fn check_name(name: &[u8]) -> io::Result<()> {
    let bad = matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if bad { Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain name")) } else { Ok(()) }
}

/// A descriptor of its own for a folder.
pub(super) fn open_dir_itself(dir: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    open_dir_at(dir, b".")
}

/// One call, where the kernel has it; None where it has not or cannot say.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn at_once(root: BorrowedFd<'_>, path: &[u8]) -> Option<io::Result<OwnedFd>> {
    use rustix::fs::{ResolveFlags, openat2};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(root, path, flags, Mode::empty(), resolve) {
        // Old kernel; forbidden by a container's seccomp profile; renamed meanwhile; a path over 4096 bytes.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN | Errno::NAMETOOLONG) => None,
        opened => Some(opened.map_err(io::Error::from)),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn at_once(_root: BorrowedFd<'_>, _path: &[u8]) -> Option<io::Result<OwnedFd>> {
    None
}

pub(super) fn step_by_step(root: BorrowedFd<'_>, components: &[&[u8]], create: bool) -> io::Result<OwnedFd> {
    use std::os::fd::AsFd as _;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut dir = open_dir_itself(root)?;
    for &component in components {
        let opened = match openat(dir.as_fd(), component, flags, Mode::empty()) {
            Err(Errno::NOENT) if create => {
                match mkdirat(dir.as_fd(), component, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                openat(dir.as_fd(), component, flags, Mode::empty())
            }
            opened => opened,
        };
        dir = opened?;
    }
    Ok(dir)
}
