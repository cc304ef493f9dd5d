//! A restore of which nothing was named: on a terminal every choice is asked for.

use super::Wanted;
use crate::{
    args::Among,
    commands::session::{Located, Session, read_with},
    failure::{Failure, Result},
    render::{human, printable, terminal},
};
use backup_kit::{ArchiveSpec, BackupSummary, CancellationToken, CoreError, ErrorKind, Only, Which};
use dialoguer::{Input, MultiSelect, Select};
use std::{collections::BTreeMap, io::IsTerminal};

/// Whether there is somebody to ask.
pub(super) fn is_possible(session: &Session) -> bool {
    let (output, controlled) = (session.settings.output, session.settings.controlled);
    let shown = !output.json && !output.events && !controlled;
    shown && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Asks for archive, series, backup, components and place. The plan and its consent come after it, as always.
pub(super) async fn choose(among: &Among, session: &Session) -> Result<Wanted> {
    let spec = read_with(archive(among.from.as_deref(), session).await?, &among.keys);
    let (archive, mut backups) = session.list(&spec).await?;
    session.progress.finish();
    let of_module = |b: &BackupSummary| among.module.as_ref().is_none_or(|m| b.module == *m);
    backups.retain(|b| b.state.is_readable() && of_module(b));
    let mut series: BTreeMap<(String, String), Vec<BackupSummary>> = BTreeMap::new();
    for b in backups {
        series.entry((b.module.clone(), b.series.to_string())).or_default().push(b);
    }
    if series.is_empty() {
        let e = CoreError::new(ErrorKind::NotFound, "choose a backup", "there is no backup to restore");
        return Err(e.on(&archive).into());
    }
    let backup = backup(series, &session.cancel).await?;
    let only = components(&backup, &session.cancel).await?.into_iter().map(Only::component).collect();
    let question = "Where to (empty: where it came from)";
    let ask =
        move || Input::<String>::new().with_prompt(question).allow_empty(true).interact_text().map(Some);
    let to = asked(ask, &session.cancel).await?;
    let which = Which::Named(backup.id.to_string());
    let to = Some(to).filter(|to| !to.trim().is_empty()).into_iter().collect();
    Ok(Wanted { located: Located { spec, archive, backup, which }, only, to })
}

/// The archive that is clear without asking, else one of those configured, else whatever is typed.
async fn archive(from: Option<&str>, session: &Session) -> Result<ArchiveSpec> {
    let clear = session.settings.archive(from, "--from");
    if clear.is_ok() || from.is_some() {
        return clear;
    }
    let names: Vec<String> =
        session.settings.config.iter().flat_map(|c| c.archives()).map(|(n, _)| n.to_owned()).collect();
    let name = if names.is_empty() {
        let ask = || {
            Input::<String>::new()
                .with_prompt("Archive (a folder of backups, or a file)")
                .interact_text()
                .map(Some)
        };
        asked(ask, &session.cancel).await?
    } else {
        let shown = names.clone();
        names[select("Archive", shown, &session.cancel).await?].clone()
    };
    session.settings.archive(Some(&name), "--from")
}

async fn backup(
    series: BTreeMap<(String, String), Vec<BackupSummary>>,
    cancel: &CancellationToken,
) -> Result<BackupSummary> {
    let mut all: Vec<_> = series.into_iter().collect();
    let n = match all.len() {
        1 => 0,
        _ => {
            let newest = |list: &[BackupSummary]| list.iter().map(|b| b.created).max().map(human::age);
            let name = |((module, series), list): &((String, String), Vec<BackupSummary>)| {
                format!("{module}  ({series}; newest {} ago)", newest(list).unwrap_or_default())
            };
            select("Series", all.iter().map(name).collect(), cancel).await?
        }
    };
    let mut list = all.swap_remove(n).1;
    list.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    let name = |b: &BackupSummary| {
        let (size, entries) = (human::bytes(b.data_bytes), human::entries(b.entries));
        format!(
            "{}  {} ago  {}  {size}, {entries}",
            human::time(b.created),
            human::age(b.created),
            human::state(b)
        )
    };
    let n = select("Backup", list.iter().map(name).collect(), cancel).await?;
    Ok(list.swap_remove(n))
}

/// As `--only` has them; none: all.
async fn components(backup: &BackupSummary, cancel: &CancellationToken) -> Result<Vec<String>> {
    let names = backup.components.clone();
    if names.len() < 2 {
        return Ok(Vec::new());
    }
    let shown: Vec<String> = names.iter().map(|name| printable::line(name).into_owned()).collect();
    let ask = move || {
        let all = vec![true; shown.len()];
        let prompt = "Components (space: in or out, enter: go on)";
        MultiSelect::new().with_prompt(prompt).items(&shown).defaults(&all).interact_opt()
    };
    let chosen = asked(ask, cancel).await?;
    if chosen.is_empty() {
        return Err(given_up());
    }
    let all = chosen.len() == names.len();
    let mut chosen: Vec<String> = chosen.into_iter().filter_map(|i| names.get(i).cloned()).collect();
    if all {
        chosen.clear();
    }
    Ok(chosen)
}

async fn select(prompt: &'static str, items: Vec<String>, cancel: &CancellationToken) -> Result<usize> {
    let items: Vec<String> = items.iter().map(|item| printable::line(item).into_owned()).collect();
    let ask = move || Select::new().with_prompt(prompt).items(&items).default(0).interact_opt();
    asked(ask, cancel).await
}

/// The answer. A person who presses Escape has given up; one who presses Ctrl-C, too.
async fn asked<T: Send + 'static>(
    ask: impl FnOnce() -> dialoguer::Result<Option<T>> + Send + 'static,
    cancel: &CancellationToken,
) -> Result<T> {
    let _asking = terminal::question();
    let answer = tokio::select! {
        answer = tokio::task::spawn_blocking(ask) => answer,
        () = cancel.cancelled() => return Err(CoreError::cancelled().into()),
    };
    match answer {
        Ok(Ok(Some(answer))) => Ok(answer),
        Ok(Ok(None)) => Err(given_up()),
        Ok(Err(dialoguer::Error::IO(e))) if e.kind() == std::io::ErrorKind::Interrupted => {
            Err(CoreError::cancelled().into())
        }
        Ok(Err(e)) => Err(CoreError::new(ErrorKind::Usage, "ask on the terminal", e).into()),
        Err(e) => Err(CoreError::new(ErrorKind::Panicked, "ask on the terminal", e).into()),
    }
}

fn given_up() -> Failure {
    CoreError::new(ErrorKind::Refused, "restore", "nothing was chosen").into()
}
