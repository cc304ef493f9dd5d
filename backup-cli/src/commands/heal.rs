//! `backup heal`

use super::session::{Session, outcome};
use crate::{args::Heal, exit, failure::Result};
use backup_kit::{ArchiveSpec, Context, CoreError, Healed, heal, journal_homes, state_dir};
use serde_json::json;

/// Restores first: they concern live data. Then what crashed runs left in the archives that are named or
/// configured.
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
    let archives = settings.archives(args.from.from.as_deref())?;
    for spec in &archives {
        // One that cannot be reached does not keep the others from being healed.
        match clear(spec, &cx).await {
            Ok(texts) => {
                for text in texts {
                    settings.output.result(&format!("removed {text}"))?;
                    removed.push(text);
                }
            }
            Err(e) if archives.len() == 1 || session.cancel.is_cancelled() => return Err(e.into()),
            Err(e) => {
                code = exit::worse(code, exit::DESTINATION);
                settings.output.warning(format!("{spec} could not be healed: {e}"));
            }
        }
    }
    if restores.is_empty() && removed.is_empty() && code == exit::COMPLETE {
        settings.output.result("there was nothing to heal")?;
    }
    settings.output.object(code, json!({ "restores": restores, "removed": removed }))?;
    Ok(code)
}

/// Removes what crashed runs left in one archive; says what.
async fn clear(spec: &ArchiveSpec, cx: &Context) -> Result<Vec<String>, CoreError> {
    spec.open()?.heal(cx).await
}
