//! From header blocks, pax records and GNU's long names to a member.

use std::collections::HashSet;

use super::acl::{AclTextError, POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT, acl_from_text};
use super::error::TarFault;
use super::header::Header;
use super::member::{Extent, Member, MemberKind};
use super::number::{decimal, unsigned};
use super::pax::{Records, parse_time, unescape_key};
use super::read::Limits;
use super::sparse::Extents;

/// What extended headers say about the next member, or (those few that make sense) about all that follow.
#[derive(Default)]
pub(super) struct Overrides {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    // An empty value takes back what a global header said.
    uid: Option<Option<u64>>,
    gid: Option<Option<u64>>,
    mtime: Option<Option<(i64, u32)>>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    acls: Vec<(&'static [u8], Vec<u8>)>,
    sparse: SparseRecords,
}

#[derive(Default, PartialEq)]
struct SparseRecords {
    major: Option<u64>,
    minor: Option<u64>,
    name: Option<Vec<u8>>,
    real_size: Option<u64>,
    count: Option<u64>,
    offset: Option<u64>,
    /// Offsets and lengths of sparse 0.0 and 0.1.
    map: Option<Vec<(u64, u64)>>,
}

impl Overrides {
    /// Reads the records of a pax header.
    pub(super) fn parse(data: &[u8], limits: &Limits) -> Result<Overrides, TarFault> {
        let mut overrides = Overrides::default();
        for record in Records(data) {
            let (key, value) = record?;
            overrides.take(key, value, limits)?;
        }
        let mut names = HashSet::new();
        if overrides.xattrs.len() > 1 && !overrides.xattrs.iter().all(|(name, _)| names.insert(name)) {
            return Err(TarFault::Pax("an extended attribute stands there twice"));
        }
        Ok(overrides)
    }

    fn take(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), TarFault> {
        let number = |name| decimal(value).ok_or(TarFault::PaxValue(name));
        let optional = |name| if value.is_empty() { Ok(None) } else { number(name).map(Some) };
        match key {
            b"path" => self.path = Some(name_value(value, "path")?),
            b"linkpath" => self.link = Some(name_value(value, "linkpath")?),
            b"size" => self.size = Some(number("size")?),
            b"uid" => self.uid = Some(optional("uid")?),
            b"gid" => self.gid = Some(optional("gid")?),
            b"mtime" if value.is_empty() => self.mtime = Some(None),
            b"mtime" => self.mtime = Some(Some(parse_time(value).ok_or(TarFault::PaxValue("mtime"))?)),
            b"SCHILY.acl.access" => self.acls.push((POSIX_ACL_ACCESS, value.to_vec())),
            b"SCHILY.acl.default" => self.acls.push((POSIX_ACL_DEFAULT, value.to_vec())),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return Err(TarFault::Pax("bad name of an extended attribute"));
                    }
                    self.xattrs.push((unescape_key(name), value.to_vec()));
                } else if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.take(key, value, limits.max_sparse_extents)?;
                }
                // Anything else (atime, comment, user names) is nothing that we restore.
            }
        }
        Ok(())
    }

    /// Adds the records of a later global header.
    pub(super) fn merge_global(&mut self, later: Overrides) -> Result<(), TarFault> {
        let member_only = later.path.is_some()
            || later.link.is_some()
            || later.size.is_some()
            || !later.xattrs.is_empty()
            || !later.acls.is_empty()
            || later.sparse != SparseRecords::default();
        if member_only {
            return Err(TarFault::Pax("a global header holds what only one member can have"));
        }
        self.uid = later.uid.or(self.uid);
        self.gid = later.gid.or(self.gid);
        self.mtime = later.mtime.or(self.mtime);
        Ok(())
    }
}

impl SparseRecords {
    fn take(&mut self, key: &[u8], value: &[u8], limit: usize) -> Result<(), TarFault> {
        let number = || decimal(value).ok_or(TarFault::PaxValue("GNU.sparse"));
        match key {
            b"major" => self.major = Some(number()?),
            b"minor" => self.minor = Some(number()?),
            b"name" => self.name = Some(name_value(value, "GNU.sparse.name")?),
            b"size" | b"realsize" => self.real_size = Some(number()?),
            b"numblocks" => self.count = Some(number()?),
            b"offset" if self.offset.is_none() => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or(TarFault::Sparse("a length without an offset"))?;
                self.push(offset, number()?, limit)?;
            }
            b"map" => {
                let mut numbers = value.split(|&b| b == b',').filter(|part| !part.is_empty());
                self.map = Some(Vec::new());
                while let Some(offset) = numbers.next() {
                    let pair = decimal(offset).zip(numbers.next().and_then(decimal));
                    let (offset, length) = pair.ok_or(TarFault::PaxValue("GNU.sparse.map"))?;
                    self.push(offset, length, limit)?;
                }
            }
            _ => return Err(TarFault::Sparse("an unknown record")),
        }
        Ok(())
    }

    fn push(&mut self, offset: u64, length: u64, limit: usize) -> Result<(), TarFault> {
        let map = self.map.get_or_insert_default();
        if map.len() == limit {
            return Err(TarFault::TooManyExtents(limit));
        }
        map.push((offset, length));
        Ok(())
    }

    /// Fills in the sparse fields of `member`, whose size is known.
    fn apply(self, member: &mut Member, limit: usize) -> Result<(), TarFault> {
        if self == SparseRecords::default() {
            return Ok(());
        }
        if member.kind != MemberKind::File {
            return Err(TarFault::Sparse("not a file"));
        }
        let real_size = self.real_size.ok_or(TarFault::Sparse("its size is missing"))?;
        if real_size > i64::MAX as u64 {
            return Err(TarFault::TooLarge);
        }
        match (self.major, self.minor, self.map) {
            (Some(1), Some(0), None) => {}
            (None, None, map) | (Some(0), Some(0 | 1), map) => {
                let map = map.unwrap_or_default();
                if self.offset.is_some() || self.count.is_some_and(|count| count != map.len() as u64) {
                    return Err(TarFault::Sparse("the number of extents is wrong"));
                }
                let mut extents = Extents::new(real_size, limit);
                for (offset, length) in map {
                    extents.push(offset, length)?;
                }
                member.sparse_map = Some(extents.finish(member.size)?);
            }
            _ => return Err(TarFault::Sparse("an unknown version of the format")),
        }
        member.sparse_size = Some(real_size);
        Ok(())
    }
}

fn name_value(value: &[u8], name: &'static str) -> Result<Vec<u8>, TarFault> {
    if value.is_empty() {
        return Err(TarFault::PaxValue(name));
    }
    Ok(value.to_vec())
}

/// All that precedes a member's own header block.
#[derive(Default)]
pub(super) struct Preceding {
    pub(super) local: Option<Overrides>,
    pub(super) long_name: Option<Vec<u8>>,
    pub(super) long_link: Option<Vec<u8>>,
}

impl Preceding {
    pub(super) fn is_empty(&self) -> bool {
        self.local.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }

    /// The path, as far as it can be known before everything else is read.
    pub(super) fn path(&mut self, header: &Header<'_>) -> Vec<u8> {
        let local = self.local.as_mut();
        let named = local.and_then(|local| local.sparse.name.take().or(local.path.take()));
        named.or(self.long_name.take()).unwrap_or_else(|| header.path())
    }

    /// The member at `path`. What old GNU sparse headers hold is added later: it may need more blocks.
    pub(super) fn member(
        self,
        mut path: Vec<u8>,
        header: &Header<'_>,
        global: &Overrides,
        limits: &Limits,
    ) -> Result<Member, TarFault> {
        if path.contains(&0) {
            return Err(TarFault::Nul("path"));
        }
        let slash = path.ends_with(b"/");
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
        if path.is_empty() {
            return Err(TarFault::EmptyPath);
        }
        let local = self.local.unwrap_or_default();
        let kind = match header.typeflag() {
            // Before POSIX, a slash at the end was what made a directory.
            0 | b'0' | b'7' if slash => MemberKind::Directory,
            0 | b'0' | b'7' | b'S' => MemberKind::File,
            b'1' => MemberKind::HardLink,
            b'2' => MemberKind::Symlink,
            b'3' => MemberKind::CharDevice,
            b'4' => MemberKind::BlockDevice,
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            other => MemberKind::Other(other),
        };
        let mut link = Vec::new();
        if matches!(kind, MemberKind::HardLink | MemberKind::Symlink) {
            link = local.link.or(self.long_link).unwrap_or_else(|| header.link().to_vec());
            if link.is_empty() {
                return Err(TarFault::EmptyLink);
            }
            if link.contains(&0) {
                return Err(TarFault::Nul("link"));
            }
        }
        let size = match local.size {
            Some(size) => size,
            None => header.size()?,
        };
        if size > i64::MAX as u64 {
            return Err(TarFault::TooLarge);
        }
        if size > 0 && !kind.has_data() {
            return Err(TarFault::DataWithoutFile(size));
        }
        let mut member = Member {
            path,
            kind,
            mode: header.mode()?,
            uid: local.uid.or(global.uid).flatten().map_or_else(|| header.uid(), Ok)?,
            gid: local.gid.or(global.gid).flatten().map_or_else(|| header.gid(), Ok)?,
            mtime: match local.mtime.or(global.mtime).flatten() {
                Some(mtime) => mtime,
                None => (header.mtime()?, 0),
            },
            size,
            link,
            xattrs: local.xattrs,
            ..Member::default()
        };
        if matches!(kind, MemberKind::CharDevice | MemberKind::BlockDevice) {
            member.device = Some(header.device()?);
        }
        take_acls(&mut member, local.acls)?;
        local.sparse.apply(&mut member, limits.max_sparse_extents)?;
        Ok(member)
    }
}

/// Text counts only where the binary form is missing.
fn take_acls(member: &mut Member, acls: Vec<(&'static [u8], Vec<u8>)>) -> Result<(), TarFault> {
    for (i, (xattr, text)) in acls.iter().enumerate() {
        let superseded = acls[i + 1..].iter().any(|(later, _)| later == xattr);
        if superseded || text.trim_ascii().is_empty() || member.xattrs.iter().any(|(name, _)| name == xattr) {
            continue;
        }
        match acl_from_text(text, &mut |_, _| None) {
            Ok(binary) => member.xattrs.push((xattr.to_vec(), binary)),
            Err(AclTextError::UnknownName) => member.named_acls.push((xattr.to_vec(), text.clone())),
            Err(AclTextError::Malformed) => return Err(TarFault::Acl),
        }
    }
    Ok(())
}

/// Adds the extents in an old GNU sparse header (at most 4) or in a block that continues it (at most 21); `true` if
/// another block follows.
pub(super) fn old_gnu_extents(block: &[u8], first: bool, extents: &mut Extents) -> Result<bool, TarFault> {
    let (entries, more) = if first { (&block[386..482], block[482]) } else { (&block[..504], block[504]) };
    for entry in entries.chunks_exact(24) {
        let (offset, length) = entry.split_at(12);
        if length[0] == 0 {
            break;
        }
        extents.push(unsigned(offset, "sparse offset")?, unsigned(length, "sparse length")?)?;
    }
    Ok(more != 0)
}

/// The expanded size in an old GNU sparse header.
pub(super) fn old_gnu_size(block: &[u8]) -> Result<u64, TarFault> {
    unsigned(&block[483..495], "sparse size")
}

/// Sets what an old GNU sparse header says.
pub(super) fn set_old_gnu_map(member: &mut Member, real_size: u64, map: Vec<Extent>) -> Result<(), TarFault> {
    if member.sparse_size.is_some() {
        return Err(TarFault::Sparse("two maps"));
    }
    member.sparse_size = Some(real_size);
    member.sparse_map = Some(map);
    Ok(())
}
