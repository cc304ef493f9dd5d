//! The manifest as it is stored: version 1. Strict in both directions: another field is another version.

use super::{BackupHeader, Component, ComponentHeader, Manifest, Series, State};
use crate::{BackupId, Facts, Moment, Note, Notes};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Version of the stored format that this program writes.
pub const FORMAT_VERSION: u32 = 1;

/// Why a stored manifest cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// It is newer than this program.
    #[error("it has format version {found}, this program reads up to {FORMAT_VERSION}: use a newer program")]
    Version {
        /// The version that it names.
        found: u64,
    },
    /// It is not a manifest, or a damaged one.
    #[error("it is not a manifest: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is well-formed, but says something that cannot be.
    #[error("{0}")]
    Invalid(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestV1 {
    format: u32,
    id: BackupId,
    module: String,
    series: Series,
    created: Timestamp,
    finished: Timestamp,
    host: String,
    state: State,
    components: Vec<ComponentV1>,
    notes: Vec<Note>,
    #[serde(default, skip_serializing_if = "is_zero")]
    more_notes: [u64; 3],
    not_included: Vec<String>,
    #[serde(default)]
    metadata: BTreeMap<String, Value>,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    layout: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ComponentV1 {
    name: String,
    kind: String,
    folder: String,
    origin: Value,
    moment: Moment,
    proof: Facts,
    lost: u64,
}

fn is_zero(n: &[u64; 3]) -> bool {
    *n == [0; 3]
}

pub(super) fn encode(m: &Manifest) -> Vec<u8> {
    let wire = ManifestV1 {
        format: FORMAT_VERSION,
        id: m.header.id.clone(),
        module: m.header.module.clone(),
        series: m.header.series.clone(),
        created: m.header.created,
        finished: m.finished,
        host: m.header.host.clone(),
        state: m.state,
        components: m
            .components
            .iter()
            .map(|c| ComponentV1 {
                name: c.header.name.clone(),
                kind: c.header.kind.clone(),
                folder: c.header.folder.clone(),
                origin: c.header.origin.clone(),
                moment: c.moment,
                proof: c.proof.clone(),
                lost: c.lost,
            })
            .collect(),
        notes: m.notes.list.clone(),
        more_notes: m.notes.more,
        not_included: m.not_included.clone(),
        metadata: m.header.metadata.clone(),
        tags: m.header.tags.clone(),
        note: m.header.note.clone(),
        layout: m.layout.clone(),
    };
    // Serializing plain data into memory cannot fail; an empty manifest would be refused by every reader.
    let mut out = serde_json::to_vec_pretty(&wire).unwrap_or_default();
    out.push(b'\n');
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    #[derive(Deserialize)]
    struct Version {
        format: u64,
    }
    let version: Version = serde_json::from_slice(bytes)?;
    if version.format != u64::from(FORMAT_VERSION) {
        return Err(ManifestError::Version { found: version.format });
    }
    let wire: ManifestV1 = serde_json::from_slice(bytes)?;
    if matches!(wire.state, State::Incomplete | State::Unknown | State::Missing) {
        return Err(ManifestError::Invalid(format!(
            "a manifest cannot say that its backup is {}",
            wire.state
        )));
    }
    if wire.state == State::Complete
        && let Some(c) = wire.components.iter().find(|c| c.lost > 0)
    {
        return Err(ManifestError::Invalid(format!(
            "it says that the backup is complete, and that {} entries of {} are lost",
            c.lost, c.name
        )));
    }
    let components: Vec<Component> = wire
        .components
        .into_iter()
        .map(|c| Component {
            header: ComponentHeader { name: c.name, kind: c.kind, folder: c.folder, origin: c.origin },
            moment: c.moment,
            proof: c.proof,
            lost: c.lost,
        })
        .collect();
    for (i, c) in components.iter().enumerate() {
        if !is_component_name(&c.header.name) || !is_component_name(&c.header.folder) {
            return Err(ManifestError::Invalid(format!("{:?} is no name of a component", c.header.name)));
        }
        if is_reserved_folder(&c.header.folder) {
            let folder = &c.header.folder;
            return Err(ManifestError::Invalid(format!("the folder {folder} is the archive's own")));
        }
        if components[..i].iter().any(|other| other.header.name == c.header.name) {
            return Err(ManifestError::Invalid(format!("the component {} is there twice", c.header.name)));
        }
    }
    Ok(Manifest {
        header: BackupHeader {
            id: wire.id,
            module: wire.module,
            series: wire.series,
            created: wire.created,
            host: wire.host,
            components: components.iter().map(|c| c.header.clone()).collect(),
            metadata: wire.metadata,
            tags: wire.tags,
            note: wire.note,
        },
        finished: wire.finished,
        state: wire.state,
        components,
        notes: Notes { list: wire.notes, more: wire.more_notes },
        not_included: wire.not_included,
        layout: wire.layout,
    })
}

/// Whether a text may name a component, a module or a folder of an archive: letters, digits, `.`, `_`, `-`, not leading
/// with a dot or dash, at most 100 bytes.
pub fn is_component_name(name: &str) -> bool {
    (1..=100).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether an archive keeps something of its own under this name: no component's folder may have it.
pub(crate) fn is_reserved_folder(folder: &str) -> bool {
    matches!(folder, "index" | "SHA256SUMS" | "metadata.json" | "RESTORE.md" | "manifest.json" | "locator")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_backup_of_which_something_is_lost_is_no_manifest() {
        let text = |state: &str| {
            serde_json::json!({
                "format": 1, "id": "a".repeat(26), "module": "m", "series": "s", "state": state, "host": "h",
                "created": "2025-01-01T00:00:00Z", "finished": "2025-01-01T00:00:00Z",
                "notes": [], "not_included": [], "layout": null,
                "components": [{
                    "name": "c", "kind": "files", "folder": "files", "origin": null, "lost": 1,
                    "moment": Moment::now(), "proof": Facts::new(),
                }],
            })
            .to_string()
        };
        assert!(decode(text("partial").as_bytes()).is_ok());
        assert!(matches!(decode(text("complete").as_bytes()), Err(ManifestError::Invalid(_))));
    }
}
