//! Reads a backup and compares it with what was counted when it was made.

use crate::Result;
use backup_core::{Archive, BackupId, Context, Depth, Error, ErrorKind, Severity, VerifyReport, met_damage};
use jiff::Timestamp;

/// Verifies one backup. `Ok` also when something is wrong: see `VerifyReport::defects`. A backup of which every byte was read
/// and found right is marked as verified where its archive has a place for that; a mark that cannot be written (the place is
/// full, or read-only) is a warning. One that is damaged is marked as such, also if it cannot even be opened.
///
/// Of an encrypted backup of an archive without identities the stored bytes are compared with those that were written, at any
/// depth, and nothing is marked but damage: see `VerifyReport::opened`.
pub async fn verify(
    archive: &dyn Archive,
    id: &BackupId,
    depth: Depth,
    cx: &Context,
) -> Result<VerifyReport> {
    let verified = async { backup_core::verify(archive.open(id, cx).await?, depth, cx).await }.await;
    let verified = match verified {
        Err(e) if e.kind() == ErrorKind::Usage && !archive.has_identities() => {
            as_stored(archive, id, e, cx).await
        }
        verified => verified,
    };
    let damaged = match &verified {
        Ok(report) => !report.defects.is_empty(),
        Err(e) => matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Cut),
    };
    if damaged {
        mark_damaged(archive, id, cx).await;
    } else if verified.as_ref().is_ok_and(|report| report.opened)
        && depth == Depth::Full
        && let Err(e) = archive.mark_verified(id, Timestamp::now(), cx).await
    {
        let text = format!("it is sound, and could not be marked as verified: {e}");
        cx.note(Severity::Warning, "", id.as_str(), text);
    }
    Ok(verified?)
}

/// What can be said of a backup without its key: that all its bytes are those that were written.
async fn as_stored(
    archive: &dyn Archive,
    id: &BackupId,
    locked: Error,
    cx: &Context,
) -> backup_core::Result<VerifyReport> {
    let all = archive.list(cx).await?;
    let Some(backup) = all.into_iter().find(|b| b.id == *id) else { return Err(locked) };
    if !archive.compare_stored(id, cx).await? {
        if archive.holds_one() {
            return Err(locked);
        }
        let text = format!("{}, and no digest of the encrypted file stands beside it", locked.message());
        let e = Error::new(locked.kind(), locked.operation().to_owned(), text).on(&backup.location);
        return Err(match locked.hint_text() {
            Some(hint) => e.hint(hint),
            None => e,
        });
    }
    Ok(VerifyReport {
        id: backup.id,
        module: backup.module,
        created: backup.created,
        depth: Depth::Full,
        opened: false,
        components: Vec::new(),
        entries: 0,
        bytes: 0,
        defects: Vec::new(),
    })
}

/// The same after an error that says that the backup is damaged, and after no other.
pub(crate) async fn mark_if_damaged(archive: &dyn Archive, id: &BackupId, e: &Error, cx: &Context) {
    if met_damage(e) {
        mark_damaged(archive, id, &cx.calm()).await;
    }
}

/// Marks a backup in which damage was found where its archive has a place for that: then it is never `latest`. A mark that cannot be
/// written is a warning.
pub async fn mark_damaged(archive: &dyn Archive, id: &BackupId, cx: &Context) {
    if let Err(e) = archive.mark_damaged(id, Timestamp::now(), cx).await {
        let text = format!("it could not be marked as damaged: {e}");
        cx.note(Severity::Warning, "", id.as_str(), text);
    }
}
