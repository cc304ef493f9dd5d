//! Backups that are gone: the file was deleted by somebody else than `remove`, and what stands beside it is still there.

use super::{Compression, folder, sidecar};
use crate::{
    BackupSummary, Error, ErrorKind, Result, State,
    destination::{Destination, Stored},
};

const MANIFEST: &str = ".manifest.json";
const STATE: &str = ".state.json";

/// The archive that this file stands beside, if it does and the archive is not among `all`.
pub(super) fn absent_archive<'a>(name: &'a str, all: &[Stored]) -> Option<&'a str> {
    let archive = name.strip_suffix(MANIFEST).or_else(|| name.strip_suffix(STATE))?;
    let named_so = Compression::of_name(archive).is_some() && !archive.starts_with('.');
    (named_so && !all.iter().any(|s| s.name == archive)).then_some(archive)
}

/// The backups that are missing among `all` files, of which `there` are the backups. A sidecar is written after its archive and
/// removed before it, so no run that was killed leaves one alone.
pub(super) async fn find(
    destination: &dyn Destination,
    all: &[Stored],
    there: &[BackupSummary],
) -> Result<Vec<BackupSummary>> {
    let mut missing = Vec::new();
    for stored in all.iter().filter(|s| s.name.ends_with(MANIFEST)) {
        let Some(archive) = absent_archive(&stored.name, all) else { continue };
        match destination.open(archive).await {
            // A listing shows no links; or a run has just given it its name.
            Ok(_) => continue,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        let Some(summary) = described(destination, stored, archive).await? else { continue };
        // Somebody has given the file another name, or it is being copied here again.
        if !there.iter().any(|b| b.id == summary.id) {
            let was = Some(summary.state).filter(|was| was.is_readable());
            missing.push(BackupSummary { state: State::Missing, was, ..summary });
        }
    }
    Ok(missing)
}

/// What the sidecar says of it; `None` if it is none, or was removed meanwhile with its archive.
async fn described(
    destination: &dyn Destination,
    stored: &Stored,
    archive: &str,
) -> Result<Option<BackupSummary>> {
    if let Some(manifest) = sidecar::read_manifest(destination, archive, None).await {
        return Ok(Some(super::summary(&manifest, archive.to_owned(), 0, None)));
    }
    if let Some(outside) = sidecar::read_outside(destination, archive, None).await {
        return Ok(Some(outside.summary(archive.to_owned(), 0)));
    }
    let ours = sidecar::is_ours(destination, &stored.name, stored.bytes).await?;
    let archive = Stored { name: archive.to_owned(), bytes: 0, modified: stored.modified };
    Ok(ours.then(|| folder::unknown(&archive)))
}

/// What is said to whoever wants to read it.
pub(super) fn error(backup: &BackupSummary, place: &dyn Destination) -> Error {
    let hint = format!(
        "bring the file back from where it went, or from a copy; `backup remove {}` forgets the backup",
        backup.id
    );
    Error::damaged("open the backup", "its file is gone: only what stood beside it is left")
        .on(format!("{place}/{}", backup.location))
        .hint(hint)
}
