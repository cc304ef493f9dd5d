//! The table of contents of an archive of `pg_dump -Fc`: its items, and which of them need which.
//!
//! `pg_restore --list` names the items, but neither what they need nor how they are made.

use backup_core::{Error, Result};
use std::{collections::BTreeSet, ops::Range};

const MAGIC: &[u8] = b"PGDMP";
/// Magic, version, sizes and format.
const FIXED: usize = 11;
/// Second, minute, hour, day, month, year and daylight saving.
const TIME_NUMBERS: usize = 7;
/// The versions of the format that are known: of PostgreSQL 12 to 18.
const KNOWN: std::ops::RangeInclusive<u8> = 14..=16;
/// Since then the kind of compression is one byte.
const COMPRESSION_BYTE: u8 = 15;
/// Since then the kind of a relation is told.
const RELATION_KIND: u8 = 16;
/// A table of contents with more bytes than this is none that was ever seen.
pub(crate) const LONGEST: usize = 256 << 20;
/// No archive has more.
const MOST_ITEMS: u32 = 10_000_000;

/// In which part of a restore an item is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// With no part of its own.
    None,
    Before,
    Rows,
    After,
}

/// What an archive has.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// What pg_restore calls it.
    pub(crate) number: u32,
    /// The number that it had in the catalog.
    pub(crate) oid: u32,
    /// `TABLE`, `FK CONSTRAINT`.
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) schema: Option<String>,
    pub(crate) section: Section,
    /// Numbers of items that it needs.
    pub(crate) needs: Vec<u32>,
    /// Its statements make a table a child or a partition of one that it needs.
    pub(crate) inherits: bool,
}

impl Item {
    /// For people.
    pub(crate) fn display(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{} {schema}.{}", self.kind.to_lowercase(), self.name),
            None => format!("{} {}", self.kind.to_lowercase(), self.name),
        }
    }
}

/// All items, in the order in which they are made.
pub(crate) fn read(archive: &[u8]) -> Result<Vec<Item>> {
    Ok(contents(archive)?.items)
}

/// All items, and where the table of contents lies.
fn contents(archive: &[u8]) -> Result<Contents> {
    let mut reader = Reader { all: archive, rest: archive, number: 0, offset: 0 };
    reader.contents().map_err(|why| Error::damaged("read the table of contents of pg_dump", why))
}

struct Contents {
    items: Vec<Item>,
    /// The number of items, and each of them.
    count: Range<usize>,
    places: Vec<Range<usize>>,
    end: usize,
}

/// The same archive without items that are removed. What comes after the table of contents stays: `pg_restore` passes over data that no
/// item has. `archive` is as much of it as holds the table.
pub(crate) fn without(
    archive: &[u8],
    removed: impl FnOnce(&[Item]) -> Result<BTreeSet<u32>>,
) -> Result<Vec<u8>> {
    let contents = contents(archive)?;
    let removed = removed(&contents.items)?;
    let mut kept = Vec::new();
    let mut count = 0u32;
    for (item, place) in contents.items.iter().zip(contents.places) {
        if !removed.contains(&item.number) {
            kept.extend_from_slice(archive.get(place).unwrap_or_default());
            count += 1;
        }
    }
    let mut out = archive.get(..contents.count.start).unwrap_or_default().to_vec();
    out.push(0);
    out.extend(count.to_le_bytes());
    out.extend(kept);
    out.extend_from_slice(archive.get(contents.end..).unwrap_or_default());
    Ok(out)
}

/// Whether this much of an archive holds its table of contents.
fn is_whole(archive: &[u8]) -> bool {
    contents(archive).is_ok()
}

/// The beginning of an archive that flows, until it holds the table of contents.
#[derive(Default)]
pub(crate) struct Held {
    bytes: Vec<u8>,
    tried: usize,
}

impl Held {
    /// The next of it. Whether this is enough; also where nothing that comes could make it so.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> bool {
        self.bytes.extend_from_slice(bytes);
        // Each try reads all: not at every piece.
        let tries = self.bytes.len() >= self.tried * 2;
        if tries {
            self.tried = self.bytes.len();
        }
        tries && is_whole(&self.bytes) || self.is_too_long() || !is_known(&self.bytes)
    }

    /// A table of contents that is as long is none that was ever seen.
    pub(crate) fn is_too_long(&self) -> bool {
        self.bytes.len() > LONGEST
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Whether an archive that begins so may be one that is understood.
fn is_known(begin: &[u8]) -> bool {
    let magic = &MAGIC[..MAGIC.len().min(begin.len())];
    begin.starts_with(magic) && begin.get(6).is_none_or(|minor| KNOWN.contains(minor))
}

struct Reader<'a> {
    all: &'a [u8],
    rest: &'a [u8],
    /// Bytes of a number, and of a place in the archive.
    number: usize,
    offset: usize,
}

type Said<T> = std::result::Result<T, String>;

impl<'a> Reader<'a> {
    fn at(&self) -> usize {
        self.all.len() - self.rest.len()
    }

    fn contents(&mut self) -> Said<Contents> {
        let fixed = self.take(FIXED)?;
        let (major, minor) = (fixed[5], fixed[6]);
        if !fixed.starts_with(MAGIC) {
            return Err("this is no archive of pg_dump -Fc".into());
        }
        if major != 1 || !KNOWN.contains(&minor) {
            return Err(format!("version {major}.{minor} of its format is not known"));
        }
        (self.number, self.offset) = (usize::from(fixed[8]), usize::from(fixed[9]));
        if self.number != 4 || self.offset > 8 {
            return Err("its numbers have an unknown size".into());
        }
        if minor >= COMPRESSION_BYTE {
            self.take(1)?;
        } else {
            self.integer()?;
        }
        for _ in 0..TIME_NUMBERS {
            self.integer()?;
        }
        // Database, version of the server, version of pg_dump.
        for _ in 0..3 {
            self.text()?;
        }
        let begin = self.at();
        let number = u32::try_from(self.integer()?).ok().filter(|n| *n <= MOST_ITEMS);
        let number = number.ok_or("it has an impossible number of items")?;
        let count = begin..self.at();
        let (mut items, mut places) = (Vec::new(), Vec::new());
        for _ in 0..number {
            let begin = self.at();
            items.push(self.item(minor)?);
            places.push(begin..self.at());
        }
        Ok(Contents { items, count, places, end: self.at() })
    }

    fn item(&mut self, minor: u8) -> Said<Item> {
        let unsigned = |n: i64| u32::try_from(n).map_err(|_| format!("{n} is no number of an item"));
        let number = unsigned(self.integer()?)?;
        let _has_data = self.integer()?;
        let _catalog = self.text()?;
        let oid = self.text()?.unwrap_or_default();
        let oid = oid.parse().map_err(|_| format!("{oid} is no number of the catalog"))?;
        let (name, kind) = (self.text()?.unwrap_or_default(), self.text()?.unwrap_or_default());
        let section = match self.integer()? {
            2 => Section::Before,
            3 => Section::Rows,
            4 => Section::After,
            _ => Section::None,
        };
        let statements = self.text()?.unwrap_or_default();
        let inherits = statements.contains("\nINHERITS (") || statements.contains(" ATTACH PARTITION ");
        let (_drop, _copy) = (self.text()?, self.text()?);
        let schema = self.text()?.filter(|schema| !schema.is_empty());
        let (_tablespace, _method) = (self.text()?, self.text()?);
        if minor >= RELATION_KIND {
            self.integer()?;
        }
        let (_owner, _oids) = (self.text()?, self.text()?);
        let mut needs = Vec::new();
        while let Some(need) = self.text()? {
            needs.push(need.parse().map_err(|_| format!("{need} is no number of an item"))?);
        }
        // Where its data is.
        self.take(1 + self.offset)?;
        Ok(Item { number, oid, kind, name, schema, section, needs, inherits })
    }

    fn take(&mut self, bytes: usize) -> Said<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or("it ends in the middle")?;
        self.rest = rest;
        Ok(taken)
    }

    /// A sign, and the bytes, the lowest first.
    fn integer(&mut self) -> Said<i64> {
        let bytes = self.take(1 + self.number)?;
        let value = bytes[1..].iter().rev().fold(0i64, |value, b| value << 8 | i64::from(*b));
        Ok(if bytes[0] == 0 { value } else { -value })
    }

    /// A text with its length before it; none has the length -1.
    fn text(&mut self) -> Said<Option<String>> {
        let Ok(length) = usize::try_from(self.integer()?) else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(self.take(length)?).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive as pg_dump writes it.
    fn archive(minor: u8, items: &[(u32, &str, &str, &[&str])]) -> Vec<u8> {
        let mut out = [MAGIC, &[1, minor, 0, 4, 8, 1]].concat();
        let number = |out: &mut Vec<u8>, n: i32| {
            out.push(u8::from(n < 0));
            out.extend(n.unsigned_abs().to_le_bytes());
        };
        let text = |out: &mut Vec<u8>, t: Option<&str>| match t {
            Some(t) => {
                out.push(0);
                out.extend(u32::try_from(t.len()).unwrap().to_le_bytes());
                out.extend(t.as_bytes());
            }
            None => out.extend([1, 1, 0, 0, 0]),
        };
        if minor >= COMPRESSION_BYTE {
            out.push(0)
        } else {
            number(&mut out, 0)
        }
        (0..TIME_NUMBERS).for_each(|_| number(&mut out, 1));
        ["db", "17.1", "17.1"].iter().for_each(|t| text(&mut out, Some(t)));
        number(&mut out, i32::try_from(items.len()).unwrap());
        for (n, kind, name, needs) in items {
            number(&mut out, i32::try_from(*n).unwrap());
            number(&mut out, 0);
            for t in ["1259", "16400", name, kind] {
                text(&mut out, Some(t));
            }
            number(&mut out, 2);
            for t in [Some("CREATE …"), Some(""), None, Some("public"), Some(""), Some("heap")] {
                text(&mut out, t);
            }
            if minor >= RELATION_KIND {
                number(&mut out, 114);
            }
            text(&mut out, Some("me"));
            text(&mut out, Some("false"));
            needs.iter().for_each(|need| text(&mut out, Some(need)));
            text(&mut out, None);
            out.extend([3, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        out
    }

    #[test]
    fn items_of_every_known_version_are_read_with_what_they_need() {
        for minor in KNOWN {
            let archive = archive(minor, &[(7, "TABLE", "t", &[]), (9, "INDEX", "i", &["7", "3"])]);
            let items = read(&archive).unwrap();
            assert_eq!(
                (items.len(), items[1].number, &*items[1].kind, &*items[1].name),
                (2, 9, "INDEX", "i")
            );
            assert_eq!(
                (items[0].oid, items[0].section, &*items[1].needs),
                (16400, Section::Before, &[7, 3][..])
            );
            assert_eq!(items[0].schema.as_deref(), Some("public"));
            for length in 0..archive.len() {
                assert!(read(&archive[..length]).is_err(), "{length} of {}", archive.len());
            }
        }
    }

    #[test]
    fn items_are_taken_out_and_all_else_stays() {
        for minor in KNOWN {
            let all =
                [archive(minor, &[(7, "TABLE", "t", &[]), (9, "INDEX", "i", &["7"])]), b"data".to_vec()]
                    .concat();
            let less = without(&all, |items| Ok([items[1].number].into())).unwrap();
            let expected = [archive(minor, &[(7, "TABLE", "t", &[])]), b"data".to_vec()].concat();
            assert_eq!(less, expected);
            assert_eq!(without(&all, |_| Ok(BTreeSet::new())).unwrap(), all);
            assert!(is_whole(&all) && !is_whole(&all[..40]));
        }
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        let e = read(&archive(17, &[])).unwrap_err();
        assert!(e.to_string().contains("1.17"), "{e}");
        assert!(read(b"-- PostgreSQL database dump of no archive").is_err());
    }
}
