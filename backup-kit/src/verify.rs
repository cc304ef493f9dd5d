//! Reads a backup and compares it with what was counted when it was made.

use crate::Result;
use backup_core::{Archive, BackupId, Context, Depth, ErrorKind, Severity, VerifyReport};
use jiff::Timestamp;

/// Verifies one backup. `Ok` also when something is wrong: see `VerifyReport::defects`. A backup of which every byte was read
/// and found right is marked as verified where its archive has a place for that; a mark that cannot be written (the place is
/// full, or read-only) is a warning. One that is damaged is marked as such, also if it cannot even be opened.
pub async fn verify(
    archive: &dyn Archive,
    id: &BackupId,
    depth: Depth,
    cx: &Context,
) -> Result<VerifyReport> {
    let verified = async { backup_core::verify(archive.open(id, cx).await?, depth, cx).await }.await;
    let damaged = match &verified {
        Ok(report) => !report.defects.is_empty(),
        Err(e) => matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Cut),
    };
    let now = Timestamp::now();
    if damaged {
        if let Err(e) = archive.mark_damaged(id, now, cx).await {
            let text = format!("it could not be marked as damaged: {e}");
            cx.note(Severity::Warning, "", id.as_str(), text);
        }
    } else if verified.is_ok()
        && depth == Depth::Full
        && let Err(e) = archive.mark_verified(id, now, cx).await
    {
        let text = format!("it is sound, and could not be marked as verified: {e}");
        cx.note(Severity::Warning, "", id.as_str(), text);
    }
    Ok(verified?)
}
