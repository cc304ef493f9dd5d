//! `backup remove`

use super::session::{Session, is_file};
use crate::{
    args::Remove,
    exit,
    failure::{Failure, Result},
    render::human,
    settings::is_named,
};
use backup_kit::{
    Archive, BackupSummary, Context, CoreError, ErrorKind, Scope, State, Which, archive, choose,
};
use jiff::tz::TimeZone;
use serde_json::json;
use std::{collections::BTreeSet, path::Path, sync::Arc};

/// An archive, and what is removed of it.
type Chosen = (Arc<dyn Archive>, Vec<BackupSummary>);

/// Removes what is named, by id or file name only: `latest` would be another backup the next time.
pub(super) async fn run(args: &Remove, session: &Session) -> Result<u8> {
    let cx = session.context();
    let (files, ids): (BTreeSet<&String>, BTreeSet<&String>) =
        args.ids.iter().partition(|id| is_path(id, args, session));
    let mut removed = Vec::new();
    for file in files {
        removed.push(of_file(file, args.yes, &cx).await?);
    }
    if !ids.is_empty() {
        removed.push(of_archive(ids, args, session, &cx).await?);
    }
    let mut all = Vec::new();
    for (archive, chosen) in removed {
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
        all.extend(ids);
    }
    session.settings.output.object(exit::COMPLETE, json!({ "removed": all }))?;
    Ok(exit::COMPLETE)
}

/// A path names a file; a bare name does where there is no archive that it could be a backup of.
fn is_path(text: &str, args: &Remove, session: &Session) -> bool {
    let has_archive = || {
        let config = session.settings.config.as_ref();
        is_named(None) || config.is_some_and(|config| config.archives().next().is_some())
    };
    args.from.from.is_none() && is_file(text) && (text.contains('/') || !has_archive())
}

/// The backup in a file. What else is kept is not looked at, so it is never removed without consent.
async fn of_file(file: &str, yes: bool, cx: &Context) -> Result<Chosen> {
    let archive = archive::at(file).open()?;
    let all = archive.list(cx).await?;
    let path = Path::new(file);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let backup = choose(&all, &Which::Named(name.clone()), Scope::default(), &TimeZone::system())?.clone();
    if !yes {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Err(CoreError::new(
            ErrorKind::Refused,
            "remove the backup",
            "it may be the last one: of a file that is named by its path nothing else is looked at",
        )
        .on(file)
        .hint(format!(
            "--yes removes it, with what we keep beside it; `backup remove {name} --from {}` looks at the others there",
            folder.display()
        ))
        .into());
    }
    Ok((archive, vec![backup]))
}

/// Backups of the archive.
async fn of_archive(
    ids: BTreeSet<&String>,
    args: &Remove,
    session: &Session,
    cx: &Context,
) -> Result<Chosen> {
    let archive = session.settings.archive(args.from.from.as_deref(), "--from")?.open()?;
    let all = archive.list(cx).await?;
    let mut chosen: Vec<&BackupSummary> = Vec::new();
    for id in ids {
        if !matches!(id.parse(), Ok(Which::Named(_))) {
            return Err(Failure::usage(
                "remove the backup",
                format!("{id} would be another one the next time"),
                "name backups by id or file name: `backup list` shows them",
            ));
        }
        let backup = choose(&all, &Which::Named(id.to_string()), Scope::default(), &TimeZone::system())?;
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
    Ok((archive, chosen.into_iter().cloned().collect()))
}

fn last_of_a_series<'a>(all: &[BackupSummary], chosen: &[&'a BackupSummary]) -> Option<&'a BackupSummary> {
    let stays: BTreeSet<_> = all
        .iter()
        .filter(|b| b.state == State::Complete && !chosen.iter().any(|c| c.id == b.id))
        .map(|b| &b.series)
        .collect();
    chosen.iter().find(|c| c.state == State::Complete && !stays.contains(&c.series)).copied()
}
