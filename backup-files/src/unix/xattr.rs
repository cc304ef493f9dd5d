//! Extended attributes, ACLs and capabilities among them.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use rustix::fs::{
    XattrFlags, fgetxattr, flistxattr, fremovexattr, fsetxattr, lgetxattr, llistxattr, lsetxattr,
};
use rustix::io::Errno;

use super::stat::stat_at;

/// Name and value.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// Linux allows 64 KiB for a value and for the list of names; other systems more, hence the growing.
const FIRST_GUESS: usize = 1024;
const LIMIT: usize = 64 << 20;

/// All of an open file or folder, by name; none where the file system has none.
pub(crate) fn list_xattrs(file: BorrowedFd<'_>) -> io::Result<Vec<Xattr>> {
    collect(|buffer| flistxattr(file, buffer), |name, buffer| fgetxattr(file, name, buffer))
}

/// All of a name in a folder, which may be a symbolic link or a device.
pub(crate) fn list_xattrs_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<Xattr>> {
    let path = path_of(dir, name);
    collect(|buffer| llistxattr(&path[..], buffer), |name, buffer| lgetxattr(&path[..], name, buffer))
        .map_err(|error| if_it_vanished(error, dir, name))
}

/// Without `/proc` nothing is found: that must not look as if the name itself were gone.
pub(super) fn if_it_vanished(error: io::Error, dir: BorrowedFd<'_>, name: &[u8]) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound && stat_at(dir, name).is_ok() {
        return io::Error::new(io::ErrorKind::Unsupported, "extended attributes need /proc to be mounted");
    }
    error
}

/// Sets one of an open file or folder.
pub(crate) fn set_xattr(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(file, name, value, XattrFlags::empty())?)
}

/// Sets one of a name in a folder, which may be a symbolic link.
pub(crate) fn set_xattr_at(dir: BorrowedFd<'_>, name: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(lsetxattr(&path_of(dir, name)[..], key, value, XattrFlags::empty())?)
}

/// Removes the ACLs that a folder has got from the one above, and thereby what it would hand down.
pub(crate) fn remove_acls(folder: BorrowedFd<'_>) -> io::Result<()> {
    for name in ["system.posix_acl_default", "system.posix_acl_access"] {
        match fremovexattr(folder, name) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// There are no calls relative to a folder; this path means the folder that is open, whatever its name is by now.
pub(super) fn path_of(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Vec<Xattr>> {
    let names = match growing(list) {
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        names => names?,
    };
    let mut found = Vec::new();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        match growing(|buffer| get(name, buffer)) {
            Ok(value) => found.push((name.to_vec(), value)),
            // Removed since it was listed, or listed and not supported (overlayfs does that).
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}

fn growing(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; FIRST_GUESS];
    loop {
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < LIMIT => buffer.resize(buffer.len() * 8, 0),
            Err(error) => return Err(error),
        }
    }
}
