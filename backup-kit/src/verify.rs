//! Reads a backup and compares it with what was counted when it was made.

use crate::Result;
use backup_core::{Archive, BackupId, Context, Depth, Severity, VerifyReport};
use jiff::Timestamp;

/// Verifies one backup. `Ok` also when something is wrong: see `VerifyReport::defects`. A backup of which every byte was read
/// and found right is marked as verified where its archive has a place for that; a mark that cannot be written (the place is
/// full, or read-only) is a warning.
pub async fn verify(
    archive: &dyn Archive,
    id: &BackupId,
    depth: Depth,
    cx: &Context,
) -> Result<VerifyReport> {
    let reader = archive.open(id, cx).await?;
    let report = backup_core::verify(reader, depth, cx).await?;
    if report.defects.is_empty()
        && depth == Depth::Full
        && let Err(e) = archive.mark_verified(id, Timestamp::now(), cx).await
    {
        let text = format!("it is sound, and could not be marked as verified: {e}");
        cx.note(Severity::Warning, "", id.as_str(), text);
    }
    Ok(report)
}
