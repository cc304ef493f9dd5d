//! Lines of the index: one live line for every path, with everything that a restore needs to know of the entry.

use super::json_bound;
use crate::{Entry, Error, Facts, Kind, Posix, Result, Sha, Stage, is_entry_path};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// A shard is written when it has grown to this; a reader takes no larger ones than `LARGEST_SHARD`.
pub(super) const SHARD: usize = 1 << 20;
pub(super) const LARGEST_SHARD: u64 = 16 << 20;

/// Bytes of a path: a folder in a folder for every second of them, and somebody must make them all.
pub(super) const LONGEST_PATH: usize = 65_535;

/// Where a member is in the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Where its first header block begins.
    pub(super) header: u64,
    /// Where its data begins.
    pub(super) data: u64,
    /// Bytes of its data, without padding.
    pub(super) length: u64,
}

impl Place {
    /// Where the next member begins.
    pub(super) fn end(&self) -> u64 {
        self.data.saturating_add(crate::tar::padded(self.length))
    }
}

/// One line of the index.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    /// Number of the component in the manifest.
    pub(super) component: u32,
    /// Path, kind, stage, attributes. A sparse file's extents are in the tar only.
    pub(super) entry: Entry,
    /// sha256 of a file's expanded content.
    pub(super) sha256: Option<Sha>,
    /// Whether the data begins with a map of extents.
    pub(super) sparse: bool,
    /// Its members: one, or the segments in their order. A discarded try keeps its members here, too.
    pub(super) places: Vec<Place>,
    /// What its producer counted.
    pub(super) facts: Facts,
    /// Why it is not live.
    pub(super) discarded: Option<String>,
}

/// As it is stored; short names, because there is one for every file. Described in docs/format.md.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire<'a> {
    c: u32,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    p: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pb: Option<String>,
    k: Kind,
    #[serde(default = "data", skip_serializing_if = "is_data")]
    s: Stage,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    h: Option<Cow<'a, str>>,
    /// mode, uid, gid, seconds, nanoseconds
    #[serde(default, skip_serializing_if = "Option::is_none")]
    a: Option<(u32, u64, u64, i64, u32)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    x: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    dev: Option<(u32, u32)>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    l: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lb: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    z: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    at: Vec<(u64, u64, u64)>,
    #[serde(default, skip_serializing_if = "Facts::is_empty")]
    f: Facts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    st: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    discarded: Option<String>,
}

fn data() -> Stage {
    Stage::Data
}
fn is_data(stage: &Stage) -> bool {
    *stage == Stage::Data
}

/// `,"d":"` 16 digits `"}`
const DIGEST_TAIL: usize = 6 + 16 + 2;

/// Text where it is UTF-8, base64 where it is not.
fn split_text(bytes: &[u8]) -> (Option<Cow<'_, str>>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Cow::Borrowed(text)), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

fn join_text(text: Option<Cow<'_, str>>, base64: Option<String>) -> Result<Option<Bytes>> {
    match (text, base64) {
        (Some(text), None) => Ok(Some(text.into_owned().into())),
        (None, Some(b)) => {
            BASE64.decode(b).map(|b| Some(b.into())).map_err(|_| bad("it has no base64 where it should"))
        }
        (None, None) => Ok(None),
        _ => Err(bad("it says one thing twice")),
    }
}

fn bad(text: impl std::fmt::Display) -> Error {
    Error::damaged("read a line of the index", text)
}

/// Of the 32 bytes of a sha256, the first that a line ends with.
const DIGEST_BYTES: usize = 8;

fn digest(json: &[u8]) -> [u8; 2 * DIGEST_BYTES] {
    let sha256: Sha = Sha256::digest(json).into();
    let mut first = [0; DIGEST_BYTES];
    first.copy_from_slice(&sha256[..DIGEST_BYTES]);
    digits(&first)
}

/// Hexadecimal digits, without a text of their own in memory: there are three numbers to write for every file.
fn digits<const BYTES: usize, const DIGITS: usize>(bytes: &[u8; BYTES]) -> [u8; DIGITS] {
    const { assert!(DIGITS == 2 * BYTES) }
    let mut digits = [0; DIGITS];
    // Fails for other lengths only.
    let _ = hex::encode_to_slice(bytes, &mut digits);
    digits
}

impl Line {
    /// Appends the line with its newline.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let e = &self.entry;
        let (p, pb) = split_text(&e.path);
        let (l, lb) = e.link.as_deref().map_or((None, None), split_text);
        let posix = e.posix.as_ref();
        let sha256: Option<[u8; 64]> = self.sha256.as_ref().map(digits);
        let wire = Wire {
            c: self.component,
            p,
            pb,
            k: e.kind,
            s: e.stage,
            n: e.size,
            h: sha256.as_ref().map(|digits| String::from_utf8_lossy(digits)),
            a: posix.map(|a| (a.mode, a.uid, a.gid, a.mtime.0, a.mtime.1)),
            x: posix.map_or_else(Vec::new, |a| {
                a.xattrs.iter().map(|(k, v)| (BASE64.encode(k), BASE64.encode(v))).collect()
            }),
            dev: posix.and_then(|a| a.device),
            l,
            lb,
            z: self.sparse,
            at: self.places.iter().map(|p| (p.header, p.data - p.header, p.length)).collect(),
            f: self.facts.clone(),
            st: e.store.clone(),
            discarded: self.discarded.clone(),
        };
        let begin = out.len();
        // Writing plain data into memory cannot fail; half a line would fail its digest.
        let _ = serde_json::to_writer(&mut *out, &wire);
        let digest = digest(&out[begin..]);
        out.pop();
        out.extend_from_slice(b",\"d\":\"");
        out.extend_from_slice(&digest);
        out.extend_from_slice(b"\"}\n");
    }

    /// From one line without its newline. Strict: what `encode` would not write is refused.
    pub(super) fn decode(line: &[u8]) -> Result<Self> {
        let cut = line.len().checked_sub(DIGEST_TAIL).ok_or_else(|| bad("it is too short"))?;
        let (body, tail) = line.split_at(cut);
        let mut json = Vec::with_capacity(cut + 1);
        json.extend_from_slice(body);
        json.push(b'}');
        let told = tail.strip_prefix(b",\"d\":\"").and_then(|rest| rest.strip_suffix(b"\"}"));
        if told != Some(digest(&json).as_slice()) {
            return Err(bad("its digest is wrong"));
        }
        if !json_bound::at_most(json_bound::LINE_VALUES, &json) {
            return Err(bad("it has too many values"));
        }
        let w: Wire<'_> = serde_json::from_slice(&json).map_err(bad)?;
        let path = join_text(w.p, w.pb)?.ok_or_else(|| bad("it has no path"))?;
        let show = crate::display_path(&path);
        if path.len() > LONGEST_PATH {
            return Err(bad("its path is too long"));
        }
        if !is_entry_path(&path) {
            return Err(bad("this path would leave its component").on(show));
        }
        let mut xattrs = Vec::with_capacity(w.x.len());
        for (k, v) in w.x {
            let (Ok(k), Ok(v)) = (BASE64.decode(k), BASE64.decode(v)) else {
                return Err(bad("an attribute").on(show));
            };
            xattrs.push((k.into(), v.into()));
        }
        let device = w.dev;
        if w.a.is_none() && (device.is_some() || !xattrs.is_empty()) {
            return Err(bad("it has attributes without an owner").on(show));
        }
        let posix = w.a.map(|(mode, uid, gid, seconds, nanos)| Posix {
            mode,
            uid,
            gid,
            mtime: (seconds, nanos),
            xattrs,
            device,
        });
        if posix.as_ref().is_some_and(|p| p.mode > 0o7777 || p.mtime.1 >= 1_000_000_000) {
            return Err(bad("an attribute has an impossible value").on(show));
        }
        let sha256 = match w.h {
            None => None,
            Some(digits) => {
                let mut sha256 = Sha::default();
                hex::decode_to_slice(&*digits, &mut sha256).map_err(|_| bad("a digest").on(&show))?;
                Some(sha256)
            }
        };
        let mut places = Vec::with_capacity(w.at.len());
        for (header, skip, length) in w.at {
            let data = header.checked_add(skip).ok_or_else(|| bad("a place").on(&show))?;
            if data.checked_add(length).is_none() || header % 512 != 0 || skip % 512 != 0 || skip == 0 {
                return Err(bad("a place is impossible").on(show));
            }
            places.push(Place { header, data, length });
        }
        let link = join_text(w.l, w.lb)?;
        let needs_link = matches!(w.k, Kind::Symlink | Kind::HardLink);
        if needs_link != link.is_some() || link.as_ref().is_some_and(|l| l.is_empty() || l.contains(&0)) {
            return Err(bad("its link is impossible").on(show));
        }
        if w.k == Kind::HardLink && link.as_ref().is_some_and(|l| !is_entry_path(l)) {
            return Err(bad("this hard link would lead out of its component").on(show));
        }
        let live = w.discarded.is_none();
        let is_file = w.k == Kind::File;
        if live && (is_file != sha256.is_some() || is_file != w.n.is_some() || (!is_file && w.z)) {
            return Err(bad("length and digest do not fit its kind").on(show));
        }
        // No file system has longer ones, and its zeros would be hashed for ever.
        if w.n.is_some_and(|n| n > i64::MAX as u64) {
            return Err(bad("its length is impossible").on(show));
        }
        if live && (places.is_empty() || (places.len() > 1 && (!is_file || w.z))) {
            return Err(bad("its members do not fit its kind").on(show));
        }
        let stored: u64 = places.iter().map(|p| p.length).fold(0, u64::saturating_add);
        if live && !w.z && stored != w.n.unwrap_or(0) {
            return Err(bad("its members do not have its length").on(show));
        }
        let entry =
            Entry { path, stage: w.s, kind: w.k, size: w.n, link, posix, store: w.st, ..Entry::default() };
        Ok(Line { component: w.c, entry, sha256, sparse: w.z, places, facts: w.f, discarded: w.discarded })
    }
}

/// Appends the line of `SHA256SUMS` for a member, as `sha256sum` writes it: names with a backslash or a line break are escaped
/// and the line begins with a backslash.
pub(super) fn encode_sum(name: &[u8], sha256: &Sha, out: &mut Vec<u8>) {
    let escaped = name.iter().any(|b| matches!(b, b'\\' | b'\n' | b'\r'));
    if escaped {
        out.push(b'\\');
    }
    let digits: [u8; 64] = digits(sha256);
    out.extend_from_slice(&digits);
    out.extend_from_slice(b"  ");
    for b in name {
        match b {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            other => out.push(*other),
        }
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let mut entry = Entry::file(&b"a/\xff\n"[..], Stage::Data).sized(5);
        entry.posix = Some(Posix {
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime: (-3, 4),
            xattrs: vec![("user.x".into(), "1\n".into())],
            device: None,
        });
        Line {
            component: 1,
            entry,
            sha256: Some([3; 32]),
            sparse: false,
            places: vec![Place { header: 512, data: 1024, length: 5 }],
            facts: Facts::new(),
            discarded: None,
        }
    }

    #[test]
    fn a_line_comes_back_and_every_changed_bit_of_it_is_noticed() {
        let mut bytes = Vec::new();
        line().encode(&mut bytes);
        assert_eq!(bytes.pop(), Some(b'\n'));
        assert_eq!(Line::decode(&bytes).unwrap(), line());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Line::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_line_that_would_leave_its_component_is_refused() {
        let hostile = |change: fn(&mut Line)| {
            let mut l = line();
            change(&mut l);
            let mut bytes = Vec::new();
            l.encode(&mut bytes);
            bytes.pop();
            Line::decode(&bytes).unwrap_err()
        };
        hostile(|l| l.entry.path = "../x".into());
        hostile(|l| l.entry.path = "/etc/passwd".into());
        hostile(|l| {
            (l.entry.kind, l.entry.link) = (Kind::HardLink, Some("../../etc/passwd".into()));
            (l.sha256, l.entry.size) = (None, None);
            l.places[0].length = 0;
        });
        hostile(|l| l.entry.size = Some(6));
        hostile(|l| l.places.clear());
        hostile(|l| l.places[0].length = u64::MAX);
    }

    #[test]
    fn sums_are_written_as_sha256sum_reads_them() {
        let mut out = Vec::new();
        encode_sum(b"a\nb\\c", &[0; 32], &mut out);
        assert_eq!(out, [&b"\\"[..], "0".repeat(64).as_bytes(), b"  a\\nb\\\\c\n"].concat());
    }
}
