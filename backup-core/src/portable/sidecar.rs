//! Files beside an archive in a folder: a copy of its manifest, which makes listing cheap, and what came later.

use super::name;
use crate::{
    BackupId, BackupSummary, Error, ErrorKind, Manifest, Result, Series, Sha, State, destination::Destination,
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// A manifest larger than this is none of ours.
pub(super) const LARGEST_MANIFEST: u64 = 64 << 20;
const LARGEST_STATE: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestCopy<'a> {
    /// Length of the archive that it describes.
    archive_bytes: u64,
    /// Of the text of the manifest, as it stands here.
    manifest_sha256: String,
    #[serde(borrow)]
    manifest: &'a RawValue,
}

/// All that is said outside of an encrypted backup: enough to list, to remove and to count it, and no name of what is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outside {
    archive_bytes: u64,
    /// Of the encrypted file.
    archive_sha256: String,
    id: BackupId,
    module: String,
    series: Series,
    created: Timestamp,
    finished: Timestamp,
    state: State,
}

impl Outside {
    pub(super) fn of(manifest: &Manifest, archive_bytes: u64, archive_sha256: Sha) -> Self {
        let h = &manifest.header;
        Outside {
            archive_bytes,
            archive_sha256: hex::encode(archive_sha256),
            id: h.id.clone(),
            module: h.module.clone(),
            series: h.series.clone(),
            created: h.created,
            finished: manifest.finished,
            state: manifest.state,
        }
    }

    /// Length of the encrypted file when it was written.
    pub(super) fn archive_bytes(&self) -> u64 {
        self.archive_bytes
    }

    pub(super) fn sha256(&self) -> Option<Sha> {
        hex::decode(&self.archive_sha256).ok()?.try_into().ok()
    }

    pub(super) fn summary(&self, location: String, bytes: u64) -> BackupSummary {
        BackupSummary {
            id: self.id.clone(),
            module: self.module.clone(),
            series: self.series.clone(),
            created: self.created,
            state: self.state,
            location,
            stored_bytes: bytes,
            data_bytes: 0,
            entries: 0,
            components: Vec::new(),
            verified: None,
            damaged: None,
            tags: Vec::new(),
            note: None,
            encrypted: true,
            was: None,
        }
    }
}

/// What came after a backup was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Later {
    /// When every byte was last read and compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) verified: Option<Timestamp>,
    /// When damage was found that no later reading took back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) damaged: Option<Timestamp>,
}

pub(super) async fn write_manifest(
    destination: &dyn Destination,
    archive: &str,
    bytes: u64,
    manifest: &Manifest,
) -> Result<()> {
    let text = String::from_utf8_lossy(&manifest.to_json()).into_owned();
    let raw = RawValue::from_string(text).map_err(|e| Error::contract(e).on("manifest"))?;
    let manifest_sha256 = hex::encode(Sha256::digest(raw.get()));
    let copy = serde_json::to_vec(&ManifestCopy { archive_bytes: bytes, manifest_sha256, manifest: &raw });
    let copy = copy.map_err(|e| Error::contract(e).on("manifest"))?;
    destination.write_small(&name::manifest_sidecar(archive), &copy).await
}

/// The copy beside an archive of this length (`None`: of any). It is a cache: whatever is wrong with it, the manifest inside is
/// taken instead.
pub(super) async fn read_manifest(
    destination: &dyn Destination,
    archive: &str,
    bytes: Option<u64>,
) -> Option<Manifest> {
    let name = name::manifest_sidecar(archive);
    let stored = destination.read_small(&name, LARGEST_MANIFEST + 1024).await.ok()??;
    let copy: ManifestCopy<'_> = serde_json::from_slice(&stored).ok()?;
    let text = copy.manifest.get();
    let sound = bytes.is_none_or(|bytes| copy.archive_bytes == bytes)
        && copy.manifest_sha256 == hex::encode(Sha256::digest(text));
    sound.then(|| Manifest::from_json(text.as_bytes()).ok())?
}

pub(super) async fn write_outside(
    destination: &dyn Destination,
    archive: &str,
    outside: &Outside,
) -> Result<()> {
    let text = serde_json::to_vec_pretty(outside).map_err(|e| Error::contract(e).on("manifest"))?;
    destination.write_small(&name::manifest_sidecar(archive), &text).await
}

/// What stands in a sidecar, to be written back; `None` if there is none, or one of such a length that it is none of ours.
pub(super) async fn read_as_stored(destination: &dyn Destination, name: &str) -> Result<Option<Bytes>> {
    match destination.read_small(name, LARGEST_MANIFEST + 1024).await {
        Err(e) if e.kind() == ErrorKind::Damaged => Ok(None),
        read => read,
    }
}

/// What is said outside of an encrypted backup of this length (`None`: of any).
pub(super) async fn read_outside(
    destination: &dyn Destination,
    archive: &str,
    bytes: Option<u64>,
) -> Option<Outside> {
    let stored = destination.read_small(&name::manifest_sidecar(archive), LARGEST_STATE).await.ok()??;
    let outside: Outside = serde_json::from_slice(&stored).ok()?;
    (outside.state.is_readable() && bytes.is_none_or(|bytes| outside.archive_bytes == bytes))
        .then_some(outside)
}

/// Whether a file that is named like one of these is one: users have files called so, too.
pub(super) async fn is_ours(destination: &dyn Destination, name: &str, bytes: u64) -> Result<bool> {
    let limit = if name.ends_with(".state.json") { LARGEST_STATE } else { LARGEST_MANIFEST + 1024 };
    if bytes > limit {
        return Ok(false);
    }
    let Some(stored) = destination.read_small(name, limit).await? else { return Ok(false) };
    Ok(match name.ends_with(".state.json") {
        // An empty one says nothing, neither whose it is.
        true => serde_json::from_slice::<Later>(&stored).is_ok_and(|l| l != Later::default()),
        false => says_a_backup(&stored),
    })
}

/// Whether it is what stands beside a backup, of either form. What is right in it is another matter.
pub(super) fn says_a_backup(stored: &[u8]) -> bool {
    serde_json::from_slice::<ManifestCopy<'_>>(stored).is_ok()
        || serde_json::from_slice::<Outside>(stored).is_ok()
}

pub(super) async fn read_later(destination: &dyn Destination, archive: &str) -> Result<Later> {
    let name = name::state_sidecar(archive);
    match destination.read_small(&name, LARGEST_STATE).await? {
        None => Ok(Later::default()),
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
            Error::damaged("read what came after the backup", e)
                .on(&name)
                .hint("remove this file: it only says when the backup was verified, or found damaged")
        }),
    }
}

pub(super) async fn write_later(destination: &dyn Destination, archive: &str, later: &Later) -> Result<()> {
    let bytes = serde_json::to_vec_pretty(later).map_err(|e| Error::contract(e).on("state"))?;
    destination.write_small(&name::state_sidecar(archive), &bytes).await
}
