//! What a tar member is, apart from its data.

/// Bytes in a tar block: headers, and data with its padding, are multiples of it.
pub const BLOCK: usize = 512;

/// `n` bytes rounded up to a whole number of blocks (saturating).
pub fn padded(n: u64) -> u64 {
    n.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX)
}

/// One member of a tar archive: everything its headers say.
///
/// Ready for [`Member::encode`] when `path` is neither empty nor absolute and has no NUL, and `link` is set for
/// links. A member from the reader has no empty path and no NUL in path, link or attribute names; whether the path
/// stays inside a folder is the caller's to judge ([`Member::is_safe_path`]).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Member {
    /// Raw bytes of the name. The writer adds the `/` of directories, the reader strips it.
    pub path: Vec<u8>,
    /// What the member is.
    pub kind: MemberKind,
    /// Permission bits, with set-id and sticky bits (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time: seconds since 1970 (rounded down, so possibly negative) and nanoseconds after them.
    pub mtime: (i64, u32),
    /// Bytes of data that follow the headers, without padding. A sparse file's map counts, its holes do not. Links,
    /// directories and special files have none.
    pub size: u64,
    /// Text of a symlink, or the path of a hard link's target within the archive; empty for the rest.
    pub link: Vec<u8>,
    /// Extended attributes, ACLs among them in their binary form (`system.posix_acl_access`).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Size of a sparse file with its holes. With `sparse_map` `None`, the data starts with a GNU sparse 1.0 map.
    pub sparse_size: Option<u64>,
    /// Where the data belong, when the headers hold the map (GNU sparse formats before 1.0): the data are the
    /// extents' bytes alone. Written back as sparse 0.1.
    pub sparse_map: Option<Vec<Extent>>,
    /// ACLs found only as text with names of users or groups in them: xattr name and text. The caller knows the
    /// user database: [`acl_from_text`](super::acl_from_text).
    pub named_acls: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
}

/// Kinds of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MemberKind {
    /// A regular file.
    #[default]
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of an earlier member.
    HardLink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A type flag that this module does not know; its data are skipped or read like a file's.
    Other(u8),
}

impl MemberKind {
    /// Whether data can follow the headers.
    pub fn has_data(self) -> bool {
        matches!(self, MemberKind::File | MemberKind::Other(_))
    }
}

/// An extent of data of a sparse file; what no extent covers reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Extent {
    /// Bytes before it in the expanded file.
    pub offset: u64,
    /// Bytes in it.
    pub length: u64,
}

impl Member {
    /// Whether the path stays inside the folder it is joined to: see [`is_safe_path`].
    pub fn is_safe_path(&self) -> bool {
        is_safe_path(&self.path)
    }
}

/// Whether `path` is relative, without NUL and without empty, `.` or `..` components.
///
/// Says nothing about symlinks on the way.
pub fn is_safe_path(path: &[u8]) -> bool {
    !path.contains(&0) && path.split(|&b| b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}
