//! Contents and entries with known bytes.

use backup_core::{
    BackupHeader, BackupId, ComponentHeader, Content, Entry, Extent, Facts, Kind, Part, Posix, Series, Stage,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::BTreeMap;

/// Bytes that look random and are the same for the same seed: no compression hides a mistake in them.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out
}

/// A stream of `length` bytes in chunks, each of its own noise, yielding between them as a network does.
pub fn chunked(length: u64, chunk: usize, seed: u64) -> Content {
    let chunks = stream::unfold((0u64, seed), move |(at, seed)| async move {
        let n = (length - at).min(chunk as u64);
        if n == 0 {
            return None;
        }
        tokio::task::yield_now().await;
        let bytes = Bytes::from(noise(n as usize, seed));
        Some((Ok(Part::Bytes(bytes)), (at + n, seed + 1)))
    });
    Content::stream(chunks.chain(stream::iter([Ok(Part::End(Facts::new()))])))
}

/// Bytes as a stream of chunks, not as a content in memory.
pub fn streamed(bytes: impl Into<Bytes>, chunk: usize) -> Content {
    let bytes = bytes.into();
    let parts: Vec<_> =
        bytes.chunks(chunk.max(1)).map(|c| Ok(Part::Bytes(Bytes::copy_from_slice(c)))).collect();
    Content::stream(stream::iter(parts).chain(stream::iter([Ok(Part::End(Facts::new()))])))
}

/// A file of the stage `Data` as most stores put it.
pub fn file(path: impl Into<Bytes>) -> Entry {
    Entry::file(path, Stage::Data)
}

/// A file with attributes that formats like to lose: set-user-id, large ids, nanoseconds, a time before 1970, extended
/// attributes with newlines, zeros and equal signs.
pub fn richly_attributed(path: impl Into<Bytes>) -> Entry {
    let xattrs = [
        (&b"user.a\nb=c"[..], &b"line\nline\0\xff=\n"[..]),
        (b"user.empty", b""),
        (b"user.long", &[7; 3000]),
    ];
    Entry {
        posix: Some(Posix {
            mode: 0o4751,
            uid: 4_000_000_000,
            gid: 3_000_000_001,
            mtime: (-1_000_000_001, 999_999_999),
            xattrs: xattrs.iter().map(|(n, v)| (Bytes::from_static(n), Bytes::copy_from_slice(v))).collect(),
            device: None,
        }),
        ..file(path)
    }
}

/// A sparse file and the bytes of its extents, one after another.
pub fn sparse(path: impl Into<Bytes>, extents: &[(u64, u64)], size: u64) -> (Entry, Vec<u8>) {
    let list: Vec<_> =
        extents.iter().map(|(offset, length)| Extent { offset: *offset, length: *length }).collect();
    let stored: u64 = extents.iter().map(|(_, length)| length).sum();
    let posix = Some(Posix { mode: 0o600, mtime: (5, 0), ..Posix::default() });
    let entry = Entry { extents: Some(list.into()), posix, ..file(path).sized(size) };
    (entry, noise(stored as usize, size))
}

/// A directory, as it is put after its children.
pub fn directory(path: impl Into<Bytes>, mode: u32) -> Entry {
    let posix = Some(Posix { mode, mtime: (1_700_000_000, 123_456_789), ..Posix::default() });
    Entry { path: path.into(), stage: Stage::Complete, kind: Kind::Directory, posix, ..Entry::default() }
}

/// A symbolic or hard link.
pub fn link(kind: Kind, path: impl Into<Bytes>, to: impl Into<Bytes>) -> Entry {
    let stage = if kind == Kind::HardLink { Stage::Complete } else { Stage::Data };
    let posix = Some(Posix { mode: 0o777, mtime: (9, 1), ..Posix::default() });
    Entry { path: path.into(), stage, kind, link: Some(to.into()), posix, ..Entry::default() }
}

/// Names that formats and shells like to break on; each is a legal entry path.
pub fn hostile_names() -> Vec<Bytes> {
    let mut names: Vec<Vec<u8>> = [
        &b"with space"[..],
        b"new\nline",
        b"tab\tand\rreturn",
        b"\xff\xfe not utf-8",
        b"-rf",
        b"..dots",
        b"...",
        b"back\\slash\\..\\x",
        b"quote\"'`$(x)",
        b"\x1b[31mred",
        b"*?[a]{b}",
        b"trailing.",
        b"trailing ",
        b" leading",
        b"caf\xc3\xa9",
        b"cafe\xcc\x81",
        b"UPPER",
        b"upper",
        b"CON",
        b"manifest.json",
        b"metadata.json",
        b"RESTORE.md",
        b"index/000000.jsonl",
        b"SHA256SUMS/000000",
        b"locator",
        b"a.seg000000",
        b"a",
        b"a.b/c",
        b"PaxHeaders/x",
        b"%2e%2e%2fx",
        b"#!*:|<>",
    ]
    .iter()
    .map(|n| n.to_vec())
    .collect();
    names.push(vec![b'n'; 255]);
    names.push([vec![b'd'; 99], b"/".to_vec(), vec![b'e'; 100], b"/".to_vec(), vec![b'f'; 200]].concat());
    names.push((0..120).map(|_| "deep").collect::<Vec<_>>().join("/").into_bytes());
    names.into_iter().map(Bytes::from).collect()
}

/// A header of a backup with these components.
pub fn header(series: &str, components: &[&str]) -> BackupHeader {
    let component = |name: &&str| ComponentHeader {
        name: (*name).to_owned(),
        kind: "memory".to_owned(),
        folder: "files".to_owned(),
        origin: serde_json::json!({ "store": name }),
    };
    BackupHeader {
        id: BackupId::generate(),
        module: "module".to_owned(),
        series: Series(series.to_owned()),
        created: jiff::Timestamp::now(),
        host: "host".to_owned(),
        components: components.iter().map(component).collect(),
        metadata: BTreeMap::from([("version".to_owned(), serde_json::json!("1.2"))]),
        tags: vec!["tag".to_owned()],
        note: Some("a note".to_owned()),
    }
}
