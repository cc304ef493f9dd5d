//! Reads a backup and compares it with what was counted when it was made.

use crate::Result;
use backup_core::{Archive, BackupId, Context, Depth, VerifyReport};
use jiff::Timestamp;

/// Verifies one backup. `Ok` also when something is wrong: see `VerifyReport::defects`. A backup of which every byte was read
/// and found right is marked as verified where its archive has a place for that.
pub async fn verify(
    archive: &dyn Archive,
    id: &BackupId,
    depth: Depth,
    cx: &Context,
) -> Result<VerifyReport> {
    let reader = archive.open(id, cx).await?;
    let report = backup_core::verify(reader, depth, cx).await?;
    if report.defects.is_empty() && depth == Depth::Full {
        archive.mark_verified(id, Timestamp::now(), cx).await?;
    }
    Ok(report)
}
