//! What is a SQLite database, and which files beside it belong to it.

use std::ffi::{OsStr, OsString};

/// <https://sqlite.org/fileformat2.html#the_database_header>
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// Whether a file that begins so is a SQLite database. Sixteen bytes are enough; fewer are none.
#[must_use]
pub fn is_database(first_bytes: &[u8]) -> bool {
    first_bytes.starts_with(MAGIC)
}

/// Whether a file that begins so is a write-ahead log or a rollback journal that SQLite would apply to its database.
#[must_use]
pub fn is_log(first_bytes: &[u8]) -> bool {
    first_bytes.starts_with(&super::journal::MAGIC)
        || super::wal::MAGIC.iter().any(|magic| first_bytes.starts_with(&magic.to_be_bytes()))
}

/// What is added to the name of a database in those of its side files.
pub const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The names beside `database_name` which SQLite uses for it and which are not stored: `-wal`, `-shm`, `-journal`.
/// They belong to it only if `database_name` is a database ([`is_database`]).
#[must_use]
pub fn side_files(database_name: &OsStr) -> [OsString; 3] {
    SIDE_FILES.map(|suffix| {
        let mut name = database_name.to_os_string();
        name.push(suffix);
        name
    })
}

/// What the first hundred bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) page_size: u32,
    pub(super) wal: bool,
}

impl Header {
    pub(super) const LENGTH: usize = 100;

    /// None: the magic alone does not make a database.
    pub(super) fn parse(bytes: &[u8]) -> Option<Header> {
        if bytes.len() < Header::LENGTH || !is_database(bytes) {
            return None;
        }
        let page_size = match u16::from_be_bytes([bytes[16], bytes[17]]) {
            1 => 65_536,
            size => u32::from(size),
        };
        let known_versions = (1..=2).contains(&bytes[18]) && (1..=2).contains(&bytes[19]);
        let fractions = bytes[21..24] == [64, 32, 32];
        (is_page_size(page_size) && known_versions && fractions)
            .then_some(Header { page_size, wal: bytes[19] == 2 })
    }
}

pub(super) fn is_page_size(size: u32) -> bool {
    size.is_power_of_two() && (512..=65_536).contains(&size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_magic_decides_and_not_the_name() {
        assert!(is_database(b"SQLite format 3\0 and more"));
        assert!(!is_database(b"SQLite format 3"));
        assert!(!is_database(b""));
    }

    #[test]
    fn a_header_with_impossible_values_is_no_database() {
        let mut bytes = vec![0_u8; 100];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..24].copy_from_slice(&[0, 1, 2, 2, 0, 64, 32, 32]);
        assert_eq!(Header::parse(&bytes), Some(Header { page_size: 65_536, wal: true }));
        assert_eq!(Header::parse(&bytes[..99]), None);
        for (at, value) in [(17, 3), (18, 3), (19, 0), (21, 63)] {
            let mut damaged = bytes.clone();
            damaged[at] = value;
            assert_eq!(Header::parse(&damaged), None, "byte {at}");
        }
    }
}
