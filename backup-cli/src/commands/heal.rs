//! `backup heal`

use super::session::{Session, outcome};
use crate::{args::Heal, exit, failure::Result};
use backup_kit::{Healed, heal, journal_homes, state_dir};
use serde_json::json;

/// Restores first: they concern live data. Then what crashed runs left in the archive, if one is known.
pub(super) async fn run(args: &Heal, session: &Session) -> Result<u8> {
    let (settings, cx) = (&session.settings, session.context());
    let mut homes = Vec::new();
    for place in &args.places {
        homes.extend(journal_homes(place)?);
    }
    let restores = heal(&state_dir()?, &homes, &settings.registry, &cx).await?;
    let mut code = exit::COMPLETE;
    for healed in &restores {
        if let Healed::Failed { .. } | Healed::LeftAlone { unfinished: true, .. } = healed {
            code = exit::worse(code, exit::NOT_UNDONE);
            settings.output.warning(outcome(healed));
        } else {
            settings.output.result(&outcome(healed))?;
        }
    }
    let mut removed = Vec::new();
    if settings.has_archive(args.from.from.as_deref()) {
        let archive = settings.archive(args.from.from.as_deref(), "--from")?.open()?;
        removed = archive.heal(&cx).await?;
        for text in &removed {
            settings.output.result(&format!("removed {text}"))?;
        }
    }
    if restores.is_empty() && removed.is_empty() {
        settings.output.result("there was nothing to heal")?;
    }
    settings.output.object(code, json!({ "restores": restores, "removed": removed }))?;
    Ok(code)
}
