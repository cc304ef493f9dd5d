//! `backup list`

use super::session::Session;
use crate::{args::List, exit, failure::Result, render::human};
use backup_kit::{Archive, BackupSummary, State, only_of};
use serde_json::{Value, json};

pub(super) async fn run(args: &List, session: &Session) -> Result<u8> {
    let (archive, mut backups) = session.list(&session.archive(&args.among)?).await?;
    backups.retain(|b| args.among.module.as_ref().is_none_or(|m| b.module == *m));
    let imported: Vec<_> =
        backups.iter_mut().filter(|b| is_hidden(b) && b.state == State::Unproven).collect();
    if !imported.is_empty() && !archive.has_identities() {
        session
            .settings
            .output
            .info("what the encrypted imports hold is shown with their key: --identity FILE");
    }
    if archive.has_identities() {
        look_inside(imported, &*archive, session).await;
    }
    let objects: Vec<Value> = backups.iter().map(object).collect();
    session.settings.output.object(exit::COMPLETE, json!({ "backups": objects }))?;
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

/// An encrypted backup says outside neither how much nor what is in it.
fn is_hidden(b: &BackupSummary) -> bool {
    b.encrypted && b.components.is_empty()
}

/// Several imports of a module differ in what they hold, and one day in nothing else. One whose key is another stays as it is.
async fn look_inside(imported: Vec<&mut BackupSummary>, archive: &dyn Archive, session: &Session) {
    for b in imported {
        let Ok(reader) = archive.open(&b.id, &session.context()).await else { continue };
        let manifest = reader.manifest();
        b.components = manifest.components.iter().map(|c| c.header.name.clone()).collect();
        b.entries = manifest.entries();
    }
}

/// With the components that its run was restricted to, if it was.
fn object(b: &BackupSummary) -> Value {
    let mut object = json!(b);
    if let Some(only) = only_of(b) {
        object["only"] = json!(only);
    }
    object
}

fn components(b: &BackupSummary) -> String {
    match (is_hidden(b), only_of(b)) {
        (true, Some(_)) => "a part".to_owned(),
        (true, None) => "-".to_owned(),
        (false, Some(_)) => format!("only {}", b.components.join(",")),
        (false, None) => b.components.join(","),
    }
}

fn row(b: &BackupSummary) -> Vec<String> {
    vec![
        b.id.to_string(),
        human::time(b.created),
        b.module.clone(),
        human::state(b),
        human::bytes(b.stored_bytes),
        if is_hidden(b) { "-".to_owned() } else { b.entries.to_string() },
        components(b),
        b.tags.join(","),
    ]
}
