//! `backup remove`

use super::session::Session;
use crate::{
    args::Remove,
    exit,
    failure::{Failure, Result},
    render::human,
};
use backup_kit::{BackupSummary, CoreError, ErrorKind, Scope, State, Which, choose};
use jiff::tz::TimeZone;
use serde_json::json;
use std::collections::BTreeSet;

/// Removes what is named, by id or file name only: `latest` would be another backup the next time.
pub(super) async fn run(args: &Remove, session: &Session) -> Result<u8> {
    let cx = session.context();
    let archive = session.settings.archive(args.from.from.as_deref(), "--from")?.open()?;
    let all = archive.list(&cx).await?;
    let mut chosen: Vec<&BackupSummary> = Vec::new();
    for id in &args.ids {
        if !matches!(id.parse(), Ok(Which::Named(_))) {
            return Err(Failure::usage(
                "remove the backup",
                format!("{id} would be another one the next time"),
                "name backups by id or file name: `backup list` shows them",
            ));
        }
        let backup = choose(&all, &Which::Named(id.clone()), Scope::default(), &TimeZone::system())?;
        if !chosen.iter().any(|b| b.id == backup.id) {
            chosen.push(backup);
        }
    }
    if !args.yes
        && let Some(last) = last_of_a_series(&all, &chosen)
    {
        return Err(CoreError::new(
            ErrorKind::Refused,
            "remove the backup",
            format!("it is the last complete one of {}", last.series),
        )
        .on(&last.id)
        .hint("--yes removes it all the same")
        .into());
    }
    let ids: Vec<_> = chosen.iter().map(|b| b.id.clone()).collect();
    archive.remove(&ids, &cx).await?;
    for b in &chosen {
        session.settings.output.result_line(&format!(
            "removed {} ({}, {})",
            b.id,
            b.module,
            human::time(b.created)
        ))?;
    }
    session.settings.output.object(exit::COMPLETE, json!({ "removed": ids }))?;
    Ok(exit::COMPLETE)
}

fn last_of_a_series<'a>(all: &[BackupSummary], chosen: &[&'a BackupSummary]) -> Option<&'a BackupSummary> {
    let stays: BTreeSet<_> = all
        .iter()
        .filter(|b| b.state == State::Complete && !chosen.iter().any(|c| c.id == b.id))
        .map(|b| &b.series)
        .collect();
    chosen.iter().find(|c| c.state == State::Complete && !stays.contains(&c.series)).copied()
}
