//! What a store is made of: named entries with attributes, put stage by stage.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// All puts of one stage end before the next stage begins, in a backup and in a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Schemas, bucket and index definitions.
    Prepare,
    /// The data.
    #[default]
    Data,
    /// What needs the data to be there: indexes, constraints, aliases, hard links, attributes of directories.
    Complete,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Bytes: a file, a dump, an object.
    #[default]
    File,
    /// A directory; put in the stage `Complete`, children before parents.
    Directory,
    /// A symbolic link; its text is `Entry::link`.
    Symlink,
    /// Another name of the file at `Entry::link` (a path of the same component).
    HardLink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// A run of data in a sparse file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

/// Attributes of a file as POSIX knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posix {
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Time of the last change of the content: seconds since 1970 (may be negative) and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes by their full names (`user.x`, `system.posix_acl_access`), in the order of the names.
    pub xattrs: Vec<(Bytes, Bytes)>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
}

/// One named thing of a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Relative; any bytes but NUL; no empty, `.` or `..` part. Empty: the component itself (the folder, or the single file).
    pub path: Bytes,
    /// When it is put.
    pub stage: Stage,
    /// What it is.
    pub kind: Kind,
    /// Bytes of the content as seen by a reader (a sparse file's with its holes). A promise: another length is an error.
    /// `None`: unknown until it ends.
    pub size: Option<u64>,
    /// Opaque to all but the store: equal fingerprints mean equal content.
    pub fingerprint: Option<Bytes>,
    /// Text of a symbolic link; path of a hard link's file in the same component.
    pub link: Option<Bytes>,
    /// Attributes of a file.
    pub posix: Option<Posix>,
    /// Attributes as the store itself knows them, typed by the store.
    pub store: Option<serde_json::Value>,
    /// The data of a sparse file: the content delivers these extents one after another and nothing of the holes. Each begins
    /// and ends at a multiple of 512 bytes, or ends with the file (`tar::align_extents`).
    pub extents: Option<Arc<[Extent]>>,
    /// The producer may be slow (a network): cut into segments rather than hold the archive while it is written.
    pub slow: bool,
}

impl Entry {
    /// A file.
    pub fn file(path: impl Into<Bytes>, stage: Stage) -> Self {
        Entry { path: path.into(), stage, ..Entry::default() }
    }

    /// Promises a length.
    #[must_use]
    pub fn sized(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Bytes that the content delivers: the size, or of a sparse file the sum of its extents.
    pub fn stored_size(&self) -> Option<u64> {
        match &self.extents {
            Some(extents) => Some(extents.iter().map(|e| e.length).sum()),
            None => self.size,
        }
    }

    /// The path for a person: `display_path`.
    pub fn display_path(&self) -> String {
        display_path(&self.path)
    }
}

/// A path for a person; control characters and bytes that are not UTF-8 come out as `\xNN`, so that a hostile name cannot
/// drive the terminal, and a backslash as two, so that no two names come out alike. `path_from_display` takes it back.
pub fn display_path(path: &[u8]) -> String {
    if path.is_empty() {
        return ".".to_owned();
    }
    let mut out = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                out.push_str("\\\\");
            } else if c.is_control() {
                for b in c.to_string().bytes() {
                    out.push_str(&format!("\\x{b:02x}"));
                }
            } else {
                out.push(c);
            }
        }
        for b in chunk.invalid() {
            out.push_str(&format!("\\x{b:02x}"));
        }
    }
    out
}

/// The path that `display_path` shows so, if that is not the text itself: `None` where nothing is escaped, or not as it does it.
pub fn path_from_display(shown: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(shown.len());
    let mut rest = shown;
    while let Some(at) = rest.iter().position(|b| *b == b'\\') {
        out.extend_from_slice(&rest[..at]);
        rest = match &rest[at + 1..] {
            [b'\\', rest @ ..] => {
                out.push(b'\\');
                rest
            }
            [b'x', high @ (b'0'..=b'9' | b'a'..=b'f'), low @ (b'0'..=b'9' | b'a'..=b'f'), rest @ ..] => {
                let digit = |b: &u8| if b.is_ascii_digit() { b - b'0' } else { b - b'a' + 10 };
                out.push(digit(high) << 4 | digit(low));
                rest
            }
            _ => return None,
        };
    }
    out.extend_from_slice(rest);
    (out != shown).then_some(out)
}

/// Whether a path may be an entry's: relative, no NUL, no empty, `.` or `..` part. The empty path is the component itself.
pub fn is_entry_path(path: &[u8]) -> bool {
    path.is_empty()
        || (!path.contains(&0)
            && path.split(|b| *b == b'/').all(|part| !part.is_empty() && part != b"." && part != b".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_the_component_are_no_entry_paths() {
        for good in [&b""[..], b"a", b"a/b", b"..a/b..", b"\xff\n", b"a\\..\\b"] {
            assert!(is_entry_path(good), "{good:?}");
        }
        for bad in [&b"/"[..], b"/a", b"a/", b"a//b", b"..", b"a/../b", b"./a", b"a\0b"] {
            assert!(!is_entry_path(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_hostile_name_cannot_drive_the_terminal() {
        assert_eq!(display_path(b"a\x1b[31m\xffz\xc3\xa9"), "a\\x1b[31m\\xffz\u{e9}");
    }

    #[test]
    fn no_two_names_are_shown_alike_and_what_is_shown_leads_back_to_the_name() {
        let names =
            [&b"\x1b"[..], b"\\x1b", b"\\\x1b", b"a\\", b"a\\\\", b"a\xff", b"plain \xc3\xa9", b"a/b\nc"];
        let shown: std::collections::HashSet<String> = names.iter().map(|n| display_path(n)).collect();
        assert_eq!(shown.len(), names.len());
        for name in names {
            let shown = display_path(name);
            let back = path_from_display(shown.as_bytes()).unwrap_or_else(|| shown.into_bytes());
            assert_eq!(back, name);
        }
        for no_escape in [&b"plain"[..], b"a\\b", b"\\x1", b"\\xZZ", b"\\"] {
            assert_eq!(path_from_display(no_escape), None, "{no_escape:?}");
        }
    }
}
