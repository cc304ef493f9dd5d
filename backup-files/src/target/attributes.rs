//! Attributes of what is restored, and what of them could not be set.

use crate::{
    system::{self, Attributes},
    target::make_entry::failed,
};
use backup_core::{Context, Error, Posix, Result, Severity, display_path};
use rustix::fs::{Gid, Mode, RawMode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::fd::AsFd,
    sync::{Mutex, OnceLock, PoisonError},
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

/// Set-user-id and set-group-id.
const SET_ID: u32 = 0o6000;

fn belongs_to(file: &File, owner: (u32, u32)) -> bool {
    system::stat_fd(file.as_fd()).is_ok_and(|stat| (stat.uid, stat.gid) == owner)
}

fn xattr(name: &[u8]) -> String {
    format!("xattr {}", name.escape_ascii())
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
    // ACLs, which contain the mode's group bits or, as those of NFS do, are replaced by it.
    let is_acl = |name: &[u8]| name.starts_with(b"system.");
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
        check(&xattr(name), rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()));
    }
    let mut bits = posix.mode & 0o7777;
    if bits & SET_ID != 0 && !owner_of(posix).is_some_and(|owner| belongs_to(file, owner)) {
        // Whoever it belongs to instead would lend its rights to everybody.
        bits &= !SET_ID;
        let why = "set-user-id and set-group-id are only for the owner that they were given by";
        failed("set-id", io::Error::other(why));
    }
    let mut check = |what: &str, done: rustix::io::Result<()>| {
        if let Err(e) = done {
            failed(what, e.into());
        }
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::unnecessary_cast,
        reason = "sixteen bits on some systems"
    )]
    let mode = Mode::from_raw_mode(bits as RawMode);
    check("mode", rustix::fs::fchmod(file, mode));
    for (name, value) in posix.xattrs.iter().filter(|(name, _)| is_acl(name)) {
        check(&xattr(name), rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()));
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: posix.mtime.0, tv_nsec: posix.mtime.1.into() },
    };
    check("time", rustix::fs::futimens(file, &times));
}

/// What could not be set or made, by sort: a count and the first paths, so that memory does not grow with it.
#[derive(Default)]
pub(crate) struct Losses {
    known: Mutex<BTreeMap<(&'static str, bool), Loss>>,
    /// What is no loss that one can live with.
    broken: OnceLock<Error>,
}

#[derive(Default)]
struct Loss {
    count: u64,
    first: Vec<String>,
    why: String,
}

impl Losses {
    /// `what` is what the system calls say: "owner", "xattr user.x", "mode", "time"; "set-id"; or a sort of thing.
    pub(crate) fn add(&self, what: &str, path: &[u8], why: &io::Error) {
        let privileged = ["trusted.", "security."];
        // What needs the same rights as owners do: who gave those up gave it up, too.
        let given_up = match what.split_once(' ') {
            Some(("xattr", name)) => privileged.iter().any(|space| name.starts_with(space)),
            _ => matches!(what, "owner" | "device" | "set-id"),
        };
        let sort = match what.split(' ').next().unwrap_or_default() {
            "owner" => "the owner could not be set",
            "xattr" => "extended attributes could not be set",
            "mode" | "set-id" => "the permissions could not be set",
            "time" => "the time could not be set",
            "device" => "devices could not be made",
            "fifo" => "pipes could not be made",
            "link" => "hard links could not be made",
            _ => "something could not be set",
        };
        if is_broken(what, why) {
            let text = io::Error::new(why.kind(), format!("{sort}: {why}"));
            let _ = self.broken.set(failed(path, text)); // the first one tells as much
            return;
        }
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let loss = all.entry((sort, given_up)).or_default();
        loss.count += 1;
        if loss.first.len() < 3 {
            loss.first.push(display_path(path));
            loss.why = why.to_string();
        }
    }

    /// An error where the disk is full or fails: it may be able to hold the rest in a moment, and the restore would be full of
    /// gaps.
    pub(crate) fn check(&self) -> Result<()> {
        self.broken.get().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// Notes them: lost, or a warning where owners and what goes with them were given up (`no_owner`).
    pub(crate) fn tell(&self, cx: &Context, component: &str, no_owner: bool) {
        let all = std::mem::take(&mut *self.known.lock().unwrap_or_else(PoisonError::into_inner));
        for ((sort, given_up), loss) in all {
            let severity = if no_owner && given_up { Severity::Warning } else { Severity::Lost };
            let more = if loss.count > loss.first.len() as u64 { ", …" } else { "" };
            let text =
                format!("{sort}: {} times ({}): {}{more}", loss.count, loss.why, loss.first.join(", "));
            cx.note(severity, component, String::new(), text);
        }
    }
}

/// Whether the disk is full or fails, and not only this attribute or this sort of thing.
fn is_broken(what: &str, e: &io::Error) -> bool {
    use rustix::io::Errno;
    // Some file systems have this much room for attributes and no more, however empty they are.
    let is_full =
        [Errno::NOSPC, Errno::DQUOT].iter().any(|full| e.raw_os_error() == Some(full.raw_os_error()));
    let fails = [Errno::IO, Errno::ROFS].iter().any(|fails| e.raw_os_error() == Some(fails.raw_os_error()));
    fails || is_full && !what.starts_with("xattr")
}

/// Owner that a new file in this folder gets, if that is certain.
pub(crate) fn owner_of_new_files(folder: &system::Stat) -> Option<(u32, u32)> {
    let inherits = folder.mode & 0o2000 != 0;
    let own = (rustix::process::geteuid().as_raw(), folder.gid);
    (!inherits && folder.uid == own.0 && rustix::process::getegid().as_raw() == folder.gid).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_could_not_be_set_or_made_is_lost_or_at_least_a_warning_where_it_was_given_up() {
        for (what, given_up) in [
            ("owner", true),
            ("device", true),
            ("set-id", true),
            ("xattr security.capability", true),
            ("xattr user.x", false),
            ("mode", false),
            ("time", false),
            ("link", false),
            ("fifo", false),
        ] {
            for no_owner in [false, true] {
                let (losses, cx) = (Losses::default(), Context::default());
                losses.add(what, b"x", &io::Error::other("no"));
                losses.tell(&cx, "c", no_owner);
                let told: Vec<Severity> = cx.notes().list.iter().map(|note| note.severity).collect();
                let severity = if no_owner && given_up { Severity::Warning } else { Severity::Lost };
                assert_eq!(told, [severity], "{what}");
            }
        }
    }

    #[test]
    fn a_disk_that_is_full_or_fails_is_no_loss_to_live_with() {
        use rustix::io::Errno;
        for (what, errno, broken) in [
            ("link", Errno::NOSPC, true),
            ("link", Errno::DQUOT, true),
            ("mode", Errno::IO, true),
            ("xattr user.x", Errno::IO, true),
            ("xattr user.x", Errno::NOSPC, false),
            ("link", Errno::MLINK, false),
            ("link", Errno::PERM, false),
            ("owner", Errno::PERM, false),
        ] {
            let losses = Losses::default();
            losses.add(what, b"the/path", &errno.into());
            let said = losses.check().map_err(|e| e.to_string());
            assert_eq!(said.is_err(), broken, "{what}: {errno}");
            assert!(said.err().is_none_or(|e| e.contains("the/path")));
        }
    }

    #[test]
    fn a_file_of_another_owner_gets_no_set_id_bits() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::tempfile().unwrap();
        let stat = system::stat_fd(file.as_fd()).unwrap();
        let (uid, gid) = (u64::from(stat.uid), u64::from(stat.gid));
        for (other, no_owner, mode, failures) in
            [(false, true, 0o6755, 0), (false, false, 0o6755, 0), (true, true, 0o755, 1)]
        {
            let posix = Posix { uid: uid + u64::from(other), gid, mode: 0o6755, ..Posix::default() };
            let mut failed = Vec::new();
            apply_to_new_file(&file, &posix, no_owner, None, &mut |what, _| failed.push(what.to_owned()));
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, mode);
            assert_eq!(failed.iter().filter(|what| *what == "set-id").count(), failures, "{failed:?}");
        }
        // A number that no system has: the owner cannot be set.
        let posix = Posix { uid: u64::MAX, gid, mode: 0o4755, ..Posix::default() };
        let mut failed = Vec::new();
        apply_to_new_file(&file, &posix, false, None, &mut |what, _| failed.push(what.to_owned()));
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(failed, ["owner", "set-id"]);
    }
}
