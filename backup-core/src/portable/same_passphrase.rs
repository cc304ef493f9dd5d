//! Whether a passphrase is that of the earlier backups: a mistyped one would be noticed when somebody needs the backup.

use super::{Compression, PortableArchive, name, sidecar};
use crate::{BackupId, Context, ErrorKind, Result, Series, Severity, encryption::opens_with};

/// Encrypted backups of other series that are looked past. Each is a small read, which a server is asked for.
const LOOKED_AT: usize = 50;

impl PortableArchive {
    /// Notes a warning if the newest backup of the series does not open with the passphrase of the next one.
    pub(super) async fn compare_passphrase(&self, series: &Series, cx: &Context) {
        let text = match self.newest_with_another_passphrase(series).await {
            Ok(None) => return,
            Ok(Some(id)) => format!(
                "the newest backup here, {id}, does not open with this passphrase: no single one opens them all"
            ),
            Err(e) => {
                let text = format!("whether the earlier backups open with this passphrase is not known: {e}");
                return cx.note(Severity::Note, "", "", text);
            }
        };
        cx.note(Severity::Warning, "", "", text);
    }

    async fn newest_with_another_passphrase(&self, series: &Series) -> Result<Option<BackupId>> {
        let Some(passphrase) = self.options().recipients.as_identities() else { return Ok(None) };
        if self.exact().is_some() {
            return Ok(None);
        }
        let destination = self.destination();
        let mut all = match destination.list().await {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            all => all?,
        };
        all.retain(|s| {
            name::is_encrypted(&s.name) && Compression::of_name(&s.name).is_some() && !s.name.starts_with('.')
        });
        all.sort_by_key(|s| std::cmp::Reverse(s.modified));
        for stored in all.into_iter().take(LOOKED_AT) {
            let outside = sidecar::read_outside(&*destination, &stored.name, Some(stored.bytes)).await;
            let Some(backup) = outside.map(|outside| outside.summary(stored.name, stored.bytes)) else {
                continue;
            };
            if backup.series == *series {
                let blob = destination.open(&backup.location).await?;
                let opens = opens_with(&*blob, passphrase).await?;
                return Ok((opens == Some(false)).then_some(backup.id));
            }
        }
        Ok(None)
    }
}
