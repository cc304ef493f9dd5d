//! What a name is, in one struct for all Unixes.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, fstat, major, minor, statat};

/// What a file is.
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

/// Times are seconds and nanoseconds since 1970; `blocks` are of 512 bytes; `mode` are the twelve permission bits.
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
    /// Major and minor number of a device.
    pub(crate) rdev: (u32, u32),
}

/// Of a name in a folder; of a symbolic link itself.
pub(crate) fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    Ok(convert(&statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
}

/// When this name's file was made, which nobody can set; None where the system does not tell.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn birth_time_at(dir: BorrowedFd<'_>, name: &[u8]) -> Option<(i64, u32)> {
    use rustix::fs::{StatxFlags, statx};
    let found = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME).ok()?;
    let told = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    told.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

/// Other systems have other calls.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn birth_time_at(_dir: BorrowedFd<'_>, _name: &[u8]) -> Option<(i64, u32)> {
    None
}

/// When the file of this inode and this name was made; `None` where that is not told.
pub(crate) fn birth_at(dir: BorrowedFd<'_>, name: &[u8], ino: u64) -> Option<(i64, u32)> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::fs::{StatxFlags, statx};
        let wanted = StatxFlags::BTIME | StatxFlags::INO;
        let found = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
        let told = StatxFlags::from_bits_retain(found.stx_mask).contains(wanted) && found.stx_ino == ino;
        told.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = (dir, name, ino);
        None
    }
}

/// Of what is open.
pub(crate) fn stat_fd(file: BorrowedFd<'_>) -> io::Result<Stat> {
    Ok(convert(&fstat(file)?))
}

#[allow(
    clippy::unnecessary_cast,
    clippy::cast_lossless,
    reason = "the types of these fields differ between systems"
)]
fn convert(stat: &rustix::fs::Stat) -> Stat {
    Stat {
        kind: match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::CharacterDevice => Kind::CharacterDevice,
            FileType::Unknown => Kind::Unknown,
        },
        mode: stat.st_mode as u32 & 0o7777,
        uid: stat.st_uid as u32,
        gid: stat.st_gid as u32,
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
        ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        ino: stat.st_ino as u64,
        dev: stat.st_dev as u64,
        nlink: stat.st_nlink as u64,
        rdev: (major(stat.st_rdev), minor(stat.st_rdev)),
    }
}
