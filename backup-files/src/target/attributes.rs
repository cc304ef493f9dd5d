//! Attributes of what is restored, and what of them could not be set.

use crate::system::{self, Attributes};
use backup_core::{Context, Posix, Severity, display_path};
use rustix::fs::{Gid, Mode, RawMode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    sync::{Mutex, PoisonError},
};

/// What the archive says as what the system takes, and whether the owner has a number that this system cannot have.
pub(crate) fn attributes(posix: &Posix, no_owner: bool) -> (Attributes, bool) {
    let owner = owner_of(posix);
    let attributes = Attributes {
        owner: owner.filter(|_| !no_owner),
        mode: Some(posix.mode),
        mtime: Some(posix.mtime),
        xattrs: posix.xattrs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    };
    (attributes, owner.is_none())
}

fn owner_of(posix: &Posix) -> Option<(u32, u32)> {
    let number = |n: u64| u32::try_from(n).ok().filter(|n| *n != u32::MAX);
    Some((number(posix.uid)?, number(posix.gid)?))
}

/// The same for a file that was just made and is open: three calls in the usual case, where names would take seven.
/// `own`: the owner that it has already. Order: see `system::apply_attributes`.
pub(crate) fn apply_to_new_file(
    file: &File,
    posix: &Posix,
    no_owner: bool,
    own: Option<(u32, u32)>,
    failed: &mut dyn FnMut(&str, io::Error),
) {
    let mut check = |what: &str, done: rustix::io::Result<()>| {
        if let Err(e) = done {
            failed(what, e.into());
        }
    };
    let is_acl = |name: &[u8]| name.starts_with(b"system.posix_acl_");
    if !no_owner {
        match owner_of(posix) {
            owner @ Some(_) if owner == own => {}
            Some((uid, gid)) => {
                check("owner", rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))));
            }
            None => check("owner", Err(rustix::io::Errno::INVAL)),
        }
    }
    for (name, value) in posix.xattrs.iter().filter(|(name, _)| !is_acl(name)) {
        check("xattr", rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        reason = "sixteen bits on some systems"
    )]
    let mode = Mode::from_raw_mode((posix.mode & 0o7777) as RawMode);
    check("mode", rustix::fs::fchmod(file, mode));
    for (name, value) in posix.xattrs.iter().filter(|(name, _)| is_acl(name)) {
        check("xattr", rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()));
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: posix.mtime.0, tv_nsec: posix.mtime.1.into() },
    };
    check("time", rustix::fs::futimens(file, &times));
}

/// What could not be set or made, by sort: a count and the first paths, so that memory does not grow with it.
#[derive(Default)]
pub(crate) struct Losses(Mutex<BTreeMap<&'static str, Loss>>);

#[derive(Default)]
struct Loss {
    count: u64,
    first: Vec<String>,
    why: String,
}

impl Losses {
    /// `what` is what the system calls say: "owner", "xattr user.x", "mode", "time"; or a sort of thing.
    pub(crate) fn add(&self, what: &str, path: &[u8], why: &io::Error) {
        let sort = match what.split(' ').next().unwrap_or_default() {
            "owner" => "the owner could not be set",
            "xattr" => "extended attributes could not be set",
            "mode" => "the permissions could not be set",
            "time" => "the time could not be set",
            "device" => "devices could not be made",
            "fifo" => "pipes could not be made",
            "link" => "hard links could not be made",
            _ => "something could not be set",
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let loss = all.entry(sort).or_default();
        loss.count += 1;
        if loss.first.len() < 3 {
            loss.first.push(display_path(path));
            loss.why = why.to_string();
        }
    }

    /// Notes them: lost, or only worth knowing where that was agreed to.
    pub(crate) fn tell(&self, cx: &Context, component: &str, agreed: bool) {
        let all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (sort, loss) in all {
            // A hard link that is missing is data, not an attribute.
            let agreed = agreed && !sort.starts_with("hard links");
            let severity = if agreed { Severity::Note } else { Severity::Lost };
            let more = if loss.count > loss.first.len() as u64 { ", …" } else { "" };
            let text =
                format!("{sort}: {} times ({}): {}{more}", loss.count, loss.why, loss.first.join(", "));
            cx.note(severity, component, String::new(), text);
        }
    }
}

/// Owner that a new file in this folder gets, if that is certain.
pub(crate) fn owner_of_new_files(folder: &system::Stat) -> Option<(u32, u32)> {
    let inherits = folder.mode & 0o2000 != 0;
    let own = (rustix::process::geteuid().as_raw(), folder.gid);
    (!inherits && folder.uid == own.0 && rustix::process::getegid().as_raw() == folder.gid).then_some(own)
}
