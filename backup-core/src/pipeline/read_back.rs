//! Looks at a backup again after it was written.

use crate::{Archive, BackupId, Context, Depth, Error, ErrorKind, Result, Severity};
use jiff::Timestamp;
use serde::Serialize;

/// What of a backup is read again after it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadBack {
    /// Nothing.
    #[default]
    None,
    /// Its end, its manifest and its index, all with their digests: what is needed to find everything else. Little is fetched.
    Tail,
    /// Every byte, compared; found right, it is marked as verified.
    Full,
}

/// Whether what was asked for was read and is right. The backup is stored whatever happens here: only damage is an error. Of an
/// encrypted one without an identity the end says nothing, and `Full` compares the bytes that are stored with those that were written.
pub async fn read_back(
    archive: &dyn Archive,
    id: &BackupId,
    location: &str,
    how: ReadBack,
    cx: &Context,
) -> Result<bool> {
    let depth = match how {
        ReadBack::None => return Ok(false),
        ReadBack::Tail => Depth::Quick,
        ReadBack::Full => Depth::Full,
    };
    let verified = async { super::verify(archive.open(id, cx).await?, depth, cx).await };
    let defect = match super::calmly("read the backup back", verified).await {
        Ok(verified) => verified.defects.into_iter().next(),
        Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Cut | ErrorKind::NotFound) => Some(e),
        // Who can only write compares what is there with what was written.
        Err(e) if e.kind() == ErrorKind::Usage && depth == Depth::Full => {
            match super::calmly("read the backup back", archive.compare_stored(id, cx)).await {
                Ok(true) => {
                    let text = "the encrypted file was read back and is what was written; its content was not looked \
                                at, because no identity is given";
                    cx.note(Severity::Note, "", location, text);
                    return Ok(true);
                }
                Ok(false) => return Ok(not_read_back(&e, location, cx)),
                Err(e) if e.kind() == ErrorKind::Damaged => Some(e),
                Err(e) => return Ok(not_read_back(&e, location, cx)),
            }
        }
        Err(e) if e.kind() == ErrorKind::Usage => {
            let text = "its end was not read back: it is encrypted, and no identity is given";
            cx.note(Severity::Note, "", location, text);
            return Ok(false);
        }
        Err(e) => return Ok(not_read_back(&e, location, cx)),
    };
    let (now, calm) = (Timestamp::now(), cx.calm());
    let Some(e) = defect else {
        // It is there and was read: that nobody can see this later does not make it a failure.
        if depth == Depth::Full
            && let Err(e) = archive.mark_verified(id, now, &calm).await
        {
            let text = format!("it could not be marked as verified: {e}");
            cx.note(Severity::Warning, "", location, text);
        }
        return Ok(true);
    };
    if let Err(e) = archive.mark_damaged(id, now, &calm).await {
        cx.note(Severity::Warning, "", location, format!("it could not be marked as damaged: {e}"));
    }
    let message = format!("the backup {id} is stored under {location} and must not be trusted: {e}");
    Err(Error::damaged("read the backup back", message)
        .on(location)
        .hint("make another one, look for what is wrong with the place, and remove this one")
        .caused_by(e))
}

fn not_read_back(e: &Error, location: &str, cx: &Context) -> bool {
    let text = format!("the backup is stored, but was not read back: {e}");
    cx.note(Severity::Warning, "", location, text);
    false
}
