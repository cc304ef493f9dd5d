//! `backup list`

use super::session::Session;
use crate::{args::List, exit, failure::Result, render::human};
use backup_kit::BackupSummary;
use serde_json::json;

pub(super) async fn run(args: &List, session: &Session) -> Result<u8> {
    let archive = session.settings.archive(args.among.from.as_deref(), "--from")?.open()?;
    let mut backups = archive.list(&session.context()).await?;
    backups.retain(|b| args.among.module.as_ref().is_none_or(|m| b.module == *m));
    session.settings.output.object(exit::COMPLETE, json!({ "backups": backups }))?;
    if session.settings.output.json {
        return Ok(exit::COMPLETE);
    }
    if backups.is_empty() {
        session.settings.output.info(format!("there are no backups in {archive}"));
        return Ok(exit::COMPLETE);
    }
    let head = ["ID", "CREATED", "MODULE", "STATE", "SIZE", "ENTRIES", "COMPONENTS", "TAGS"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(backups.iter().map(row));
    session.settings.output.always(&human::table(&rows))?;
    Ok(exit::COMPLETE)
}

fn row(b: &BackupSummary) -> Vec<String> {
    vec![
        b.id.to_string(),
        human::time(b.created),
        b.module.clone(),
        human::state(b),
        human::bytes(b.stored_bytes),
        b.entries.to_string(),
        b.components.join(","),
        b.tags.join(","),
    ]
}
