//! The portable archive: one tar with everything in it, compressed as independent frames, readable with `tar`, `zstd` (or
//! `gzip`, `xz`) and `sha256sum` alone. The stored format is specified in docs/format.md.

mod check;
mod compression;
mod convoy;
mod encrypted_only;
mod folder;
mod frames;
#[doc(hidden)]
pub mod fuzzing;
mod heal;
mod index;
mod json_bound;
mod layout;
mod locator;
mod lock;
mod member_entry;
mod missing;
mod name;
mod options;
mod output;
mod paths;
mod pipe;
mod put;
mod reader;
mod restore_guide;
mod salvage;
mod same_passphrase;
mod sidecar;
mod source;
mod together;
mod writer;
mod written;

pub use compression::Compression;
pub use folder::PortableArchive;
pub use name::DEFAULT_TEMPLATE;
pub use options::PortableOptions;
pub use pipe::{PipeIn, PipeOut, PipeWriter};
pub use together::Together;

pub(crate) use member_entry::entry_of;

use crate::{BackupHeader, BackupSummary, Manifest, tar::Member};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Name of the member that makes a backup one.
const MANIFEST: &[u8] = b"manifest.json";

/// A member of the archive's own: private, and the same for the same content.
fn own_member(name: &[u8], size: u64) -> Member {
    Member { path: name.to_vec(), mode: 0o600, size, ..Member::default() }
}

/// The first member: what a person or a program wants to know without reading to the end. Field names are fixed.
fn metadata_json(header: &BackupHeader) -> Vec<u8> {
    let components: Vec<Value> = header
        .components
        .iter()
        .map(|c| json!({ "name": c.name, "kind": c.kind, "folder": c.folder, "origin": c.origin }))
        .collect();
    let mut object = serde_json::Map::new();
    object.insert("format".into(), crate::FORMAT_VERSION.into());
    object.insert("id".into(), header.id.as_str().into());
    object.insert("moduleId".into(), header.module.clone().into());
    object.insert("series".into(), header.series.0.clone().into());
    object.insert("createdAt".into(), header.created.to_string().into());
    object.insert("host".into(), header.host.clone().into());
    object.insert("components".into(), components.into());
    object.insert("tags".into(), header.tags.clone().into());
    if let Some(note) = &header.note {
        object.insert("notes".into(), note.clone().into());
    }
    for (key, value) in &header.metadata {
        // What the embedder adds cannot take the place of what is ours.
        object.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let mut out = serde_json::to_vec_pretty(&Value::Object(object)).unwrap_or_default();
    out.push(b'\n');
    out
}

fn summary(manifest: &Manifest, location: String, bytes: u64, verified: Option<Timestamp>) -> BackupSummary {
    let h = &manifest.header;
    BackupSummary {
        id: h.id.clone(),
        module: h.module.clone(),
        series: h.series.clone(),
        created: h.created,
        state: manifest.state,
        location,
        stored_bytes: bytes,
        data_bytes: manifest.data_bytes(),
        entries: manifest.entries(),
        components: manifest.components.iter().map(|c| c.header.name.clone()).collect(),
        verified,
        damaged: None,
        tags: h.tags.clone(),
        note: h.note.clone(),
        encrypted: false,
        was: None,
    }
}
