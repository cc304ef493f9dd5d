//! What killed runs have left in a folder of backups is taken away; what says that a backup is missing stays.

use super::{PortableArchive, folder::is_provisional_of, lock, missing, name, sidecar};
use crate::{
    Archive, BackupSummary, Context, ErrorKind, Result, Series, Severity, State,
    destination::is_temporary_name,
};
use jiff::Timestamp;

impl PortableArchive {
    /// See `Archive::heal`.
    pub(super) async fn heal_folder(&self, cx: &Context) -> Result<Vec<String>> {
        let destination = self.destination();
        let mut healed = self.clear(None).await?;
        let all = destination.list().await?;
        let of = |prefix: &str| -> Vec<String> {
            all.iter().filter(|s| s.name.starts_with(prefix)).map(|s| s.name.clone()).collect()
        };
        healed.extend(lock::clear_stale(&*destination, &of(".backup-lock-")).await?);
        // Small files of a run that was killed while it wrote them.
        let now = Timestamp::now();
        for stored in &all {
            let small = stored.name.starts_with(".backup-probe-") || is_temporary_name(&stored.name);
            let old = now.duration_since(stored.modified) > jiff::SignedDuration::from_mins(10);
            if small && old {
                destination.remove(&stored.name).await?;
                healed.push(stored.name.clone());
            }
        }
        // A file that is still to be made is none to be missed: what a killed run has left lay beside it.
        if self.exact().is_some() {
            return Ok(healed);
        }
        let missing: Vec<BackupSummary> =
            self.list(cx).await?.into_iter().filter(|b| b.state == State::Missing).collect();
        for backup in &missing {
            // It is all that is left to say so: only `remove` takes it away.
            let text =
                format!("its file is gone, which no crash does; `backup remove {}` forgets it", backup.id);
            cx.note(Severity::Warning, "", &backup.location, text);
        }
        for stored in &all {
            // What stands beside a file that was given another name, or is left of a removal.
            let Some(archive) = missing::absent_archive(&stored.name, &all) else { continue };
            if missing.iter().any(|b| b.location == archive)
                || !sidecar::is_ours(&*destination, &stored.name, stored.bytes).await?
            {
                continue;
            }
            // A listing shows no links; and a run may have given it its name since.
            if destination.open(archive).await.is_err_and(|e| e.kind() == ErrorKind::NotFound) {
                destination.remove(&stored.name).await?;
                healed.push(stored.name.clone());
            }
        }
        Ok(healed)
    }

    /// Provisional files whose run is over: of this series, or of any.
    pub(super) async fn clear(&self, series: Option<&Series>) -> Result<Vec<String>> {
        let destination = self.destination();
        let wanted = series.map(Series::short);
        let mut cleared = Vec::new();
        let all = match destination.list().await {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(cleared),
            other => other?,
        };
        for stored in all {
            let Some((short, _)) = name::parse_provisional(&stored.name) else { continue };
            if self.exact().is_some_and(|exact| !is_provisional_of(&stored.name, exact)) {
                continue;
            }
            let dead = match &wanted {
                // We hold the lock of this series: nobody else writes.
                Some(wanted) => wanted == short,
                None => !lock::is_held(&*destination, short).await?,
            };
            if dead {
                destination.discard(&stored.name).await?;
                cleared.push(stored.name);
            }
        }
        Ok(cleared)
    }
}
