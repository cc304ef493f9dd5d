//! What the headers of a tar member say of an entry, where no index does.

use crate::{
    Entry, Kind, Posix, Stage,
    tar::{Member, MemberKind},
};
use bytes::Bytes;

/// The entry of this path; the content of a sparse one is to be found by its map. `None`: a kind of member that is no entry. Hard
/// links keep the name that the archive gives to their file.
pub(crate) fn entry_of(member: &Member, path: Bytes) -> Option<Entry> {
    let kind = match member.kind {
        MemberKind::File => Kind::File,
        MemberKind::Directory => Kind::Directory,
        MemberKind::Symlink => Kind::Symlink,
        MemberKind::HardLink => Kind::HardLink,
        MemberKind::Fifo => Kind::Fifo,
        MemberKind::CharDevice => Kind::CharDevice,
        MemberKind::BlockDevice => Kind::BlockDevice,
        MemberKind::Other(_) => return None,
    };
    let stage = match kind {
        Kind::Directory | Kind::HardLink => Stage::Complete,
        _ => Stage::Data,
    };
    let mut xattrs: Vec<(Bytes, Bytes)> =
        member.xattrs.iter().map(|(name, value)| (name.clone().into(), value.clone().into())).collect();
    xattrs.sort();
    let posix = Posix {
        mode: member.mode & 0o7777,
        uid: member.uid,
        gid: member.gid,
        mtime: member.mtime,
        xattrs,
        device: member.device,
    };
    Some(Entry {
        path,
        stage,
        kind,
        size: (kind == Kind::File).then(|| member.sparse_size.unwrap_or(member.size)),
        link: matches!(kind, Kind::Symlink | Kind::HardLink).then(|| member.link.clone().into()),
        posix: Some(posix),
        ..Entry::default()
    })
}
