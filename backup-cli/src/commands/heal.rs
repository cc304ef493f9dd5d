//! `backup heal`

use super::session::{Session, outcome};
use crate::{args::Heal, exit, failure::Result, settings::is_named};
use backup_kit::{
    ArchiveSpec, Context, CoreError, ErrorKind, Healed, forget, heal, is_restored_to, journal_homes,
    state_dir,
};
use serde_json::json;

/// Restores first: they concern live data. Then what crashed runs left in the archives that are named or
/// configured.
pub(super) async fn run(args: &Heal, session: &Session) -> Result<u8> {
    if let Some(id) = &args.forget {
        return forgotten(id, session).await;
    }
    let (settings, cx) = (&session.settings, session.context());
    let state_dir = state_dir()?;
    let (mut homes, mut unknown) = (Vec::new(), Vec::new());
    for place in &args.places {
        let found = journal_homes(place)?;
        if found.is_empty() && place.symlink_metadata().is_err() && !is_restored_to(place, &state_dir)? {
            let text = "it does not exist, and no restore to it is known";
            let e = CoreError::new(ErrorKind::NotFound, "heal", text).on(place.display());
            unknown.push(e.hint("a folder or file that was being restored; an archive is named by --from"));
        }
        homes.extend(found);
    }
    let restores = heal(&state_dir, &homes, &settings.registry, &cx).await?;
    let mut code = exit::COMPLETE;
    // What is known is healed all the same.
    if restores.is_empty()
        && let Some(e) = unknown.first()
    {
        return Err(e.clone().into());
    }
    for e in unknown {
        session.settings.output.warning(format!("{e}"));
        code = exit::NOT_FOUND;
    }
    for healed in &restores {
        let worse = match healed {
            Healed::Failed { .. } | Healed::Gone { .. } | Healed::LeftAlone { unfinished: true, .. } => {
                exit::NOT_UNDONE
            }
            // In a state folder that several users share it is nothing of this one's; at a place that was named it is in the way.
            Healed::NotOurs { journal, .. } if !journal.starts_with(&state_dir) => exit::REFUSED,
            Healed::NotOurs { .. } => exit::COMPLETE,
            _ => {
                settings.output.result_line(&outcome(healed))?;
                continue;
            }
        };
        code = exit::worse(code, worse);
        settings.output.warning(outcome(healed));
    }
    let mut removed = Vec::new();
    let from = args.from.from.as_deref();
    let archives = settings.archives(from)?;
    for spec in &archives {
        // One that cannot be reached does not keep the others from being healed.
        match clear(spec, session, &cx).await {
            Ok(texts) => {
                for text in texts {
                    settings.output.result_line(&format!("removed {text}"))?;
                    removed.push(text);
                }
            }
            // One that is configured may be still to be made.
            Err(e) if e.kind() == ErrorKind::NotFound && !is_named(from) => {}
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

/// Ends a restore without what can never be reached again, and says what that was.
async fn forgotten(id: &str, session: &Session) -> Result<u8> {
    let output = session.settings.output;
    let cx = session.context();
    let restore = forget(id, &state_dir()?, &session.settings.registry, &cx).await?;
    output.result_line(&format!("the restore {} is forgotten", restore.id))?;
    for text in &restore.given_up {
        output.result_line(&format!("given up: {text}"))?;
    }
    for folder in &restore.left {
        let text = format!("{} is left: look at the data in it before removing it", folder.display());
        output.result_line(&text)?;
    }
    output.object(exit::COMPLETE, json!({ "forgotten": restore }))?;
    Ok(exit::COMPLETE)
}

/// Removes what crashed runs left in one archive; says what.
async fn clear(spec: &ArchiveSpec, session: &Session, cx: &Context) -> Result<Vec<String>, CoreError> {
    session.expect_backups(spec)?;
    spec.open()?.heal(cx).await
}
