//! `backup settle`

use super::session::Session;
use crate::{args::Settle, exit, failure::Result};
use backup_kit::{Old, conclude, state_dir};
use serde_json::json;

pub(super) async fn run(args: &Settle, session: &Session) -> Result<u8> {
    let settings = &session.settings;
    let (id, module) = (args.id.as_deref(), args.module.as_deref());
    let cx = session.context();
    let settled = conclude(Old::LetGo, id, module, &state_dir()?, &settings.registry, &cx).await?;
    settings.output.result_line(&format!(
        "{}: the data from before the restore {} is gone",
        settled.label, settled.id
    ))?;
    settings.output.object(exit::COMPLETE, json!({ "settled": settled }))?;
    Ok(exit::COMPLETE)
}
