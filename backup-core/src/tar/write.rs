//! Writing a member's headers.

use super::acl::{POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT, acl_to_text};
use super::header::{Block, NAME};
use super::member::{BLOCK, Member, MemberKind};
use super::number::{Decimal, largest_octal};
use super::pax;
use super::sparse::end_extent;

impl Member {
    /// Appends the member's headers: a pax header if ustar cannot hold everything, then the ustar header. The data,
    /// padded to [`padded`](super::padded) bytes, are the caller's to append.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut path = self.path.as_slice();
        while path.len() > 1 && path.ends_with(b"/") {
            path = &path[..path.len() - 1];
        }
        let slash = self.kind == MemberKind::Directory && path != b"/";

        // The records are written in place behind an empty header; none: the header goes too.
        let start = out.len();
        out.resize(start + BLOCK, 0);
        self.put_records(path, slash, out);
        let records = out.len() - start - BLOCK;
        if records == 0 {
            out.truncate(start);
        } else {
            out.resize(start + BLOCK + records.next_multiple_of(BLOCK), 0);
            let mut block = Block::new(b'x');
            let (_, name) = split_path(path);
            let mut shown = [0; NAME];
            block.name(fill(&mut shown, &[b"PaxHeaders/", name]));
            block.mode(0o644);
            block.size(records as u64);
            out[start..start + BLOCK].copy_from_slice(&block.seal());
        }

        let mut block = Block::new(self.typeflag());
        let mut shown = [0; NAME];
        if self.sparse_size.is_some() {
            // The name that GNU tar gives it, for those who do not know sparse files.
            let (folder, name) = split_path(path);
            block.name(fill(&mut shown, &[folder, b"GNUSparseFile.0/", name]));
        } else if slash {
            block.name(fill(&mut shown, &[path, b"/"]));
        } else {
            let mut name = fill(&mut shown, &[path]);
            while name.len() > 1 && name.ends_with(b"/") {
                // Cut behind a folder's name, it would read as a directory.
                name = &name[..name.len() - 1];
            }
            block.name(name);
        }
        block.link(&self.link);
        block.mode(self.mode & 0o7777);
        block.owner(self.uid, self.gid);
        if self.kind.has_data() {
            block.size(self.size);
        }
        block.mtime(u64::try_from(self.mtime.0).unwrap_or(0));
        if let Some(device) = self.device {
            block.device(device);
        }
        out.extend_from_slice(&block.seal());
    }

    fn put_records(&self, path: &[u8], slash: bool, out: &mut Vec<u8>) {
        if let Some(real_size) = self.sparse_size {
            match &self.sparse_map {
                None => {
                    pax::put_record(out, b"GNU.sparse.", b"major", b"1");
                    pax::put_record(out, b"GNU.sparse.", b"minor", b"0");
                    pax::put_record(out, b"GNU.sparse.", b"name", path);
                    pax::put_number(out, b"GNU.sparse.realsize", real_size);
                }
                Some(map) => {
                    let end = end_extent(map, real_size);
                    let mut text = Vec::new();
                    for extent in map.iter().chain(&end) {
                        for number in [extent.offset, extent.length] {
                            text.extend_from_slice(Decimal::new(number).bytes());
                            text.push(b',');
                        }
                    }
                    text.pop();
                    pax::put_number(out, b"GNU.sparse.size", real_size);
                    pax::put_number(out, b"GNU.sparse.numblocks", (map.len() + end.iter().len()) as u64);
                    pax::put_record(out, b"GNU.sparse.", b"name", path);
                    pax::put_record(out, b"GNU.sparse.", b"map", &text);
                }
            }
        } else if path.len() + usize::from(slash) > NAME || wants_utf8_record(path) {
            if slash {
                pax::put_record(out, b"", b"path", &[path, b"/"].concat());
            } else {
                pax::put_record(out, b"", b"path", path);
            }
        }
        if self.link.len() > NAME || wants_utf8_record(&self.link) {
            pax::put_record(out, b"", b"linkpath", &self.link);
        }
        if self.kind.has_data() && self.size > largest_octal(12) {
            pax::put_number(out, b"size", self.size);
        }
        if self.uid > largest_octal(8) {
            pax::put_number(out, b"uid", self.uid);
        }
        if self.gid > largest_octal(8) {
            pax::put_number(out, b"gid", self.gid);
        }
        if self.mtime.1 != 0 || !(0..=largest_octal(12) as i64).contains(&self.mtime.0) {
            pax::put_time(out, b"mtime", self.mtime);
        }
        for (name, value) in &self.xattrs {
            // With --acls, GNU tar ignores the attribute and takes the text.
            if let Some(key) = acl_key(name)
                && let Some(text) = acl_to_text(value)
            {
                pax::put_record(out, b"SCHILY.acl.", key, &text);
            }
            let escaped = pax::escape_key(name);
            pax::put_record(out, b"SCHILY.xattr.", escaped.as_deref().unwrap_or(name), value);
        }
        for (name, text) in &self.named_acls {
            if let Some(key) = acl_key(name) {
                pax::put_record(out, b"SCHILY.acl.", key, text);
            }
        }
    }

    fn typeflag(&self) -> u8 {
        match self.kind {
            MemberKind::File => b'0',
            MemberKind::HardLink => b'1',
            MemberKind::Symlink => b'2',
            MemberKind::CharDevice => b'3',
            MemberKind::BlockDevice => b'4',
            MemberKind::Directory => b'5',
            MemberKind::Fifo => b'6',
            MemberKind::Other(flag) => flag,
        }
    }
}

fn acl_key(xattr: &[u8]) -> Option<&'static [u8]> {
    match xattr {
        POSIX_ACL_ACCESS => Some(b"access"),
        POSIX_ACL_DEFAULT => Some(b"default"),
        _ => None,
    }
}

/// Header blocks have no character set, pax records are UTF-8: a name that is gets a record, as GNU tar does; one that
/// is not stays raw in the header, where nobody tries to convert it.
fn wants_utf8_record(name: &[u8]) -> bool {
    !name.is_ascii() && std::str::from_utf8(name).is_ok()
}

/// Folder with its slash (or nothing), and the last component.
fn split_path(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1))
}

/// As much of `parts` as fits.
fn fill<'a>(room: &'a mut [u8; NAME], parts: &[&[u8]]) -> &'a [u8] {
    let mut length = 0;
    for part in parts {
        let kept = part.len().min(NAME - length);
        room[length..length + kept].copy_from_slice(&part[..kept]);
        length += kept;
    }
    &room[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(member: &Member) -> Vec<u8> {
        let mut out = Vec::new();
        member.encode(&mut out);
        out
    }

    #[test]
    fn an_ordinary_file_is_one_block() {
        let member = Member { path: b"a/b".to_vec(), mtime: (1_700_000_000, 0), ..Default::default() };
        assert_eq!(encoded(&member).len(), BLOCK);
        assert_eq!(encoded(&Member { mtime: (1, 1), ..member }).len(), 3 * BLOCK);
    }

    #[test]
    fn encoding_appends() {
        let member = Member { path: b"a".to_vec(), mtime: (1, 1), ..Default::default() };
        let mut out = b"before".to_vec();
        member.encode(&mut out);
        assert_eq!(out, [b"before".to_vec(), encoded(&member)].concat());
    }

    #[test]
    fn a_name_cut_short_in_the_header_does_not_look_like_a_directory() {
        let path = [&[b'a'; 99][..], b"/", &[b'b'; 99]].concat();
        let out = encoded(&Member { path, ..Default::default() });
        assert_eq!(out[out.len() - BLOCK + 98..][..2], *b"a\0");
    }
}
