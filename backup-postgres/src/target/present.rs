//! A restore of rows alone: the definitions are those of the database that is there.

use super::{
    Choice,
    coming::Coming,
    put::{MOST_STATEMENTS, Received},
};
use crate::{
    catalog::{self, Sizes},
    error,
    properties::Properties,
    server::Server,
    tools::Tools,
};
use backup_core::{Error, ErrorKind, Refusal, Result};
use std::{collections::BTreeSet, io::Write, sync::Arc};

/// So many names are told; of the others how many there are.
const TOLD: usize = 10;

/// All tables of the database, as `schema.table`; `None`: there is no database.
pub(super) async fn tables(server: &Server, there: bool) -> Result<Option<BTreeSet<String>>> {
    if !there {
        return Ok(None);
    }
    let failed = || error::target("list the tables", server);
    let mut session = server.session().await.map_err(failed())?;
    let tables = catalog::tables(&mut session, Sizes::Estimated).await.map_err(failed())?;
    session.close().await;
    Ok(Some(tables.iter().map(|table| table.display()).collect()))
}

pub(super) fn nothing_there() -> Refusal {
    let why = "rows alone are asked for, and there is no database that has the definitions";
    Refusal::new(why, "leave --data-only out, or make the database with its tables first")
}

/// What stands in the way of rows alone, and what the plan says of them.
pub(super) fn compared(
    coming: &Coming<'_>,
    choice: &Choice,
    there: &BTreeSet<String>,
) -> (Vec<Refusal>, Vec<String>) {
    let mut refusals = Vec::new();
    if choice.selective {
        let why = "rows alone are restored of a whole database: those of all other tables would be gone";
        let hint = "leave --only or --data-only out";
        refusals.push(Refusal::new(why, hint));
    }
    let of_backup = coming.tables();
    let missing: Vec<&String> = of_backup.difference(there).collect();
    if !missing.is_empty() {
        let why = format!("tables of the backup are not there: {}", listed(&missing));
        let hint = "make them first, or restore with their definitions (without --data-only)";
        refusals.push(Refusal::new(why, hint));
    }
    let mut notes = vec![
        "database: properties stay as they are, and so do all definitions; rows are replaced".to_owned(),
    ];
    let empty: Vec<&String> = there.difference(&of_backup).collect();
    if !empty.is_empty() {
        notes.push(format!("these tables are not in the backup, and will be empty: {}", listed(&empty)));
    }
    (refusals, notes)
}

fn listed(names: &[&String]) -> String {
    let told: Vec<&str> = names.iter().take(TOLD).map(|name| name.as_str()).collect();
    match names.len().checked_sub(TOLD).filter(|more| *more > 0) {
        Some(more) => format!("{} and {more} more", told.join(", ")),
        None => told.join(", "),
    }
}

/// Statements that fill all views that were filled here or in the backup, in the order of those that are here.
pub(super) fn to_fill(views: &str, here: &str, backup: &str) -> String {
    let filled: BTreeSet<&str> = here.lines().chain(backup.lines()).collect();
    views.lines().filter(|line| filled.contains(line)).map(|line| format!("{line}\n")).collect()
}

/// The definitions of the database, as if they had come from a backup.
pub(super) async fn definitions(server: &Server, tools: &Tools, major: u32) -> Result<Received> {
    let failed = || error::target("read the definitions that are there", server);
    let mut session = server.session().await.map_err(failed())?;
    session.query(&catalog::settings(major, 30)).await.map_err(failed())?;
    let properties = Properties::read(&mut session, &server.database, major).await.map_err(failed())?;
    let refresh = catalog::refreshes(&mut session, true).await.map_err(failed())?;
    let views = catalog::refreshes(&mut session, false).await.map_err(failed())?;
    session.close().await;
    let arguments = ["--format=custom", "--compress=0", "--schema-only", "--lock-wait-timeout=30s"];
    let mut dump = tools.dump(&server.database, &arguments);
    let mut schema = Vec::new();
    while let Some(bytes) = dump.next().await? {
        if schema.len() + bytes.len() > MOST_STATEMENTS {
            let message = "there are more than 256 MiB of them";
            return Err(Error::new(ErrorKind::Unsupported, "read the definitions that are there", message));
        }
        schema.extend_from_slice(&bytes);
    }
    let write = move || {
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&schema)?;
        Ok(file)
    };
    let written = tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other).and_then(|w| w);
    let schema =
        written.map_err(|e| Error::io(ErrorKind::Target, "keep the definitions in a temporary file", e))?;
    Ok(Received {
        properties,
        schema: Some(Arc::new(schema)),
        sequences: None,
        refresh: Some(refresh),
        views,
    })
}
