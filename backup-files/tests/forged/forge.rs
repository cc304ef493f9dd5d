//! Writes archives by hand, after docs/format.md alone: nothing of the product's code helps, so that it cannot share a mistake
//! with it, and everything can be a lie.

use crate::frames::pack;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const KINDS: [&str; 7] = ["file", "directory", "symlink", "hard-link", "fifo", "char-device", "block-device"];
/// Fields of a line in the order of the table.
const FIELDS: [&str; 17] =
    ["c", "p", "pb", "k", "s", "n", "h", "a", "x", "dev", "l", "lb", "z", "at", "f", "st", "discarded"];

pub(crate) fn sha(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A ustar header. Names over 100 bytes are cut.
pub(crate) fn header(name: &[u8], typeflag: u8, mode: u32, size: u64, link: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000000");
    block[156] = typeflag;
    block[157..157 + link.len()].copy_from_slice(link);
    block[329..336].copy_from_slice(b"0000000");
    block[337..344].copy_from_slice(b"0000000");
    block[257..265].copy_from_slice(b"ustar\x0000");
    seal(&mut block);
    block
}

/// The checksum of a header block.
pub(crate) fn seal(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A pax header with these records.
pub(crate) fn pax(name: &str, records: &[(&str, &str)]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..).find(|n| rest + n.to_string().len() == *n).unwrap();
        data.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
    }
    let mut out = header(format!("PaxHeaders/{name}").as_bytes(), b'x', 0o644, data.len() as u64, b"");
    out.extend_from_slice(&padded(data));
    out
}

fn padded(mut data: Vec<u8>) -> Vec<u8> {
    data.resize(data.len().next_multiple_of(512), 0);
    data
}

/// A line of the index.
#[derive(Clone)]
pub(crate) struct Line(Vec<(&'static str, Value)>);

impl Line {
    pub(crate) fn new(kind: &str, path: &str) -> Line {
        Line(Vec::new()).set("c", 0).set("p", path).set("k", kind)
    }

    pub(crate) fn set(mut self, field: &'static str, value: impl Into<Value>) -> Line {
        self = self.without(field);
        self.0.push((field, value.into()));
        self.0.sort_by_key(|(field, _)| FIELDS.iter().position(|f| f == field));
        self
    }

    pub(crate) fn without(mut self, field: &str) -> Line {
        self.0.retain(|(f, _)| *f != field);
        self
    }

    fn get(&self, field: &str) -> &Value {
        self.0.iter().find(|(f, _)| *f == field).map_or(&Value::Null, |(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        let fields: Vec<String> = self.0.iter().map(|(f, v)| format!("{}:{v}", json!(f))).collect();
        let body = format!("{{{}}}", fields.join(","));
        format!("{},\"d\":\"{}\"}}\n", &body[..body.len() - 1], &sha(body.as_bytes())[..16])
    }
}

/// The facts `all`.
#[derive(Default)]
struct Totals {
    entries: u64,
    bytes: u64,
    sum: [u64; 4],
}

impl Totals {
    fn add(&mut self, line: &Line) {
        let path = line.get("p").as_str().unwrap_or_default().as_bytes();
        let kind = KINDS.iter().position(|k| line.get("k") == k).unwrap_or_default();
        let mut digest = Sha256::new();
        digest.update((path.len() as u64).to_le_bytes());
        digest.update(path);
        digest.update([kind as u8]);
        digest.update(line.get("l").as_str().unwrap_or_default());
        digest.update(hex::decode(line.get("h").as_str().unwrap_or_default()).unwrap_or_default());
        let mut carry = 0;
        for (word, bytes) in self.sum.iter_mut().zip(digest.finalize().chunks(8)) {
            let added = u64::from_le_bytes(bytes.try_into().unwrap());
            let total = u128::from(*word) + u128::from(added) + carry;
            (*word, carry) = (total as u64, total >> 64);
        }
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(line.get("n").as_u64().unwrap_or(0));
    }

    fn facts(&self) -> Value {
        let digest: String = self.sum.iter().map(|w| format!("{w:016x}")).collect();
        json!([
            ["all", "bytes", { "count": self.bytes }],
            ["all", "digest", { "digest": digest }],
            ["all", "entries", { "count": self.entries }],
        ])
    }
}

/// An archive of one component `data` of files, being forged.
pub(crate) struct Forge {
    pub(crate) compression: &'static str,
    pub(crate) tar: Vec<u8>,
    /// What is written between the manifest and the locator.
    pub(crate) after_manifest: Vec<u8>,
    pub(crate) own: Vec<Value>,
    index: Vec<u8>,
    sums: Vec<u8>,
    totals: Totals,
}

impl Forge {
    pub(crate) fn new(compression: &'static str) -> Forge {
        let mut forge = Forge {
            compression,
            tar: Vec::new(),
            after_manifest: Vec::new(),
            own: Vec::new(),
            index: Vec::new(),
            sums: Vec::new(),
            totals: Totals::default(),
        };
        forge.own_member("metadata.json", b"{}\n");
        forge.own_member("RESTORE.md", b"# Restore\n");
        forge
    }

    /// Any member; what `at` says of it.
    pub(crate) fn member(&mut self, headers: &[u8], data: &[u8]) -> Value {
        let at = json!([self.tar.len(), headers.len(), data.len()]);
        self.tar.extend_from_slice(headers);
        self.tar.extend_from_slice(&padded(data.to_vec()));
        at
    }

    pub(crate) fn own_member(&mut self, name: &str, data: &[u8]) {
        let at = self.member(&header(name.as_bytes(), b'0', 0o600, data.len() as u64, b""), data);
        self.own.push(json!([name, at[0], at[1], at[2], sha(data)]));
    }

    /// The line of a file whose member is in the tar; it is not in the index before `line`.
    pub(crate) fn file_line(&mut self, path: &str, data: &[u8]) -> Line {
        let name = format!("files/data/{path}");
        let at = self.member(&header(name.as_bytes(), b'0', 0o600, data.len() as u64, b""), data);
        self.sums.extend_from_slice(format!("{}  {name}\n", sha(data)).as_bytes());
        Line::new("file", path).set("n", data.len()).set("h", sha(data)).set("at", json!([at]))
    }

    pub(crate) fn file(&mut self, path: &str, data: &[u8]) {
        let line = self.file_line(path, data);
        self.line(&line);
    }

    /// A file with a map of extents before its data, and whatever size.
    pub(crate) fn sparse(&mut self, path: &str, size: u64, map: &str, data: &[u8]) {
        let data = [padded(map.as_bytes().to_vec()), data.to_vec()].concat();
        let name = format!("files/data/{path}");
        let headers = [
            pax(
                path,
                &[
                    ("GNU.sparse.major", "1"),
                    ("GNU.sparse.minor", "0"),
                    ("GNU.sparse.name", &name),
                    ("GNU.sparse.realsize", &size.to_string()),
                ],
            ),
            header(b"files/data/GNUSparseFile.0/s", b'0', 0o600, data.len() as u64, b""),
        ];
        let at = self.member(&headers.concat(), &data);
        let line = Line::new("file", path).set("n", size).set("h", sha(b"?")).set("z", true);
        self.line(&line.set("at", json!([at])));
    }

    /// Something without data.
    pub(crate) fn node_line(&mut self, kind: &str, path: &str, link: Option<&str>) -> Line {
        let typeflag = b"0521634"[KINDS.iter().position(|k| *k == kind).unwrap()];
        let slash = if kind == "directory" { "/" } else { "" };
        let name =
            if path.is_empty() { format!("files/data{slash}") } else { format!("files/data/{path}{slash}") };
        let shown = match (kind, link) {
            ("hard-link", Some(file)) => format!("files/data/{file}"),
            (_, link) => link.unwrap_or_default().to_owned(),
        };
        let at = self.member(&header(name.as_bytes(), typeflag, 0o600, 0, shown.as_bytes()), b"");
        let mut line = Line::new(kind, path).set("at", json!([at]));
        if let Some(link) = link {
            line = line.set("l", link);
        }
        match kind {
            "directory" | "hard-link" => line.set("s", "complete"),
            _ => line,
        }
    }

    pub(crate) fn node(&mut self, kind: &str, path: &str, link: Option<&str>) {
        let line = self.node_line(kind, path, link);
        self.line(&line);
    }

    /// Into the index and into the sums of the manifest.
    pub(crate) fn line(&mut self, line: &Line) {
        self.totals.add(line);
        self.index.extend_from_slice(line.text().as_bytes());
    }

    /// Any bytes into the index.
    pub(crate) fn raw_index(&mut self, bytes: &[u8]) {
        self.index.extend_from_slice(bytes);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.finish_with(|_| {})
    }

    /// The archive, with a manifest that is changed before it is written.
    pub(crate) fn finish_with(mut self, edit: impl FnOnce(&mut Value)) -> Vec<u8> {
        self.shards();
        let mut manifest = self.manifest();
        edit(&mut manifest);
        self.finish_as(manifest.to_string().as_bytes())
    }

    /// What is left of index and sums.
    pub(crate) fn shards(&mut self) {
        let (index, sums) = (std::mem::take(&mut self.index), std::mem::take(&mut self.sums));
        if !index.is_empty() {
            self.own_member("index/000000.jsonl", &index);
        }
        if !sums.is_empty() {
            self.own_member("SHA256SUMS/000000", &sums);
        }
    }

    pub(crate) fn manifest(&self) -> Value {
        let time = "2025-08-11T09:16:28.5Z";
        json!({
            "format": 1, "id": "01k2c8jv0zq4m0000000000000", "module": "shop", "series": "here:shop",
            "created": time, "finished": time, "host": "here", "state": "complete",
            "components": [{
                "name": "data", "kind": "files", "folder": "files", "origin": { "path": "/srv/data" },
                "moment": { "first": time, "last": time }, "proof": self.totals.facts(), "lost": 0,
            }],
            "notes": [], "not_included": [], "metadata": {}, "tags": [],
            "layout": { "compression": self.compression, "end": self.tar.len(), "own": self.own },
        })
    }

    /// The archive, with this for a manifest.
    pub(crate) fn finish_as(self, manifest: &[u8]) -> Vec<u8> {
        let (tar, cuts) = self.whole_tar(manifest);
        pack(&tar, &cuts)
    }

    /// The tar with where its frames end; none if it stands as it is.
    pub(crate) fn whole_tar(mut self, manifest: &[u8]) -> (Vec<u8>, Vec<usize>) {
        let offset = self.tar.len();
        self.member(&header(b"manifest.json", b'0', 0o600, manifest.len() as u64, b""), manifest);
        let after = std::mem::take(&mut self.after_manifest);
        self.tar.extend_from_slice(&after);
        let end = self.tar.len();
        let mut locator = format!(
            "backup archive, format 1\nmanifest.json\noffset {offset}\nlength {}\nsha256 {}\n",
            manifest.len(),
            sha(manifest)
        )
        .into_bytes();
        locator.resize(512, b'\n');
        self.member(&header(b"locator", b'0', 0o600, 512, b""), &locator);
        self.tar.resize(self.tar.len() + 1024, 0);
        let mut cuts: Vec<usize> = (0..offset).step_by(4 << 20).skip(1).collect();
        cuts.extend((offset..end).step_by(4 << 20));
        cuts.extend([end, self.tar.len()]);
        (self.tar, if self.compression == "none" { Vec::new() } else { cuts })
    }
}
