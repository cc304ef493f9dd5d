//! Which backup is meant: `latest`, `latest~1`, a date, an id or the beginning of one, a file name.

mod meant;
#[cfg(test)]
mod tests;

use crate::series::only_of;
use backup_core::{BackupSummary, Context, Error, ErrorKind, Result, Series, Severity, State};
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use meant::{Meant, is_sound};
use std::{convert::Infallible, str::FromStr};

/// Fewer characters of an id name no backup: an empty variable in a script must not be the beginning of the only one.
const SHORTEST: usize = 4;

/// A way to name a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// The newest complete one of its series that is not known to be damaged (0), or the one so many before it.
    Latest(usize),
    /// The newest such one up to the end of this day in local time.
    Before(Date),
    /// An id, the beginning of one that is unique, or the name of its file. The only way to a partial or damaged one.
    Named(String),
}

impl FromStr for Which {
    type Err = Infallible;

    /// Every text is a way to name a backup: what is no date and not `latest` is an id.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        if text == "latest" {
            return Ok(Which::Latest(0));
        }
        if let Some(back) = text.strip_prefix("latest~").and_then(|n| n.parse().ok()) {
            return Ok(Which::Latest(back));
        }
        // Exactly a date: jiff would also read the date of a longer text.
        if text.len() == 10
            && let Ok(date) = text.parse::<Date>()
        {
            return Ok(Which::Before(date));
        }
        Ok(Which::Named(text.to_owned()))
    }
}

/// Among which backups one is chosen: all, if nothing is said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scope<'a> {
    /// Those of this module.
    pub module: Option<&'a str>,
    /// What is wanted of the backup: `latest` and dates then also mean those made with `Backup::only` that hold all of these components.
    pub components: &'a [&'a str],
}

impl<'a> Scope<'a> {
    /// All backups of a module, if one is given.
    pub fn of_module(module: Option<&'a str>) -> Self {
        Scope { module, components: &[] }
    }
}

/// The backup that is meant. `latest` and dates never mix series and never give a partial, incomplete or damaged one. They mean the whole set
/// of a module: a backup made with `Backup::only` is meant where `scope` wants no more than it holds, and where there are none but such.
pub fn choose<'a>(
    backups: &'a [BackupSummary],
    which: &Which,
    scope: Scope<'_>,
    zone: &TimeZone,
) -> Result<&'a BackupSummary> {
    Ok(look(backups, which, scope, zone)?.chosen)
}

/// The same, and what is newer and was passed over, because it is not whole or holds only a part, is noted in `cx`: a warning.
pub fn choose_and_tell<'a>(
    backups: &'a [BackupSummary],
    which: &Which,
    scope: Scope<'_>,
    zone: &TimeZone,
    cx: &Context,
) -> Result<&'a BackupSummary> {
    let found = look(backups, which, scope, zone)?;
    for newer in passed_over(backups, &found) {
        let time = newer.created.to_zoned(zone.clone()).strftime("%F %T");
        let (id, what, chosen) = (&newer.id, described(newer), &found.chosen.id);
        let text = format!("a newer one, {id} of {time}, {what} and was passed over; chosen is {chosen}");
        cx.note(Severity::Warning, "", "", text);
    }
    Ok(found.chosen)
}

struct Found<'b, 's> {
    chosen: &'b BackupSummary,
    /// What `latest` or the date was about; nothing, if the backup was named.
    among: Option<Meant<'b, 's>>,
    /// Of a date, the end of that day.
    end: Option<Timestamp>,
}

fn look<'b, 's>(
    backups: &'b [BackupSummary],
    which: &Which,
    scope: Scope<'s>,
    zone: &TimeZone,
) -> Result<Found<'b, 's>> {
    let of_module: Vec<&BackupSummary> =
        backups.iter().filter(|b| scope.module.is_none_or(|m| b.module == m)).collect();
    match which {
        Which::Named(name) => Ok(Found { chosen: by_name(&of_module, name)?, among: None, end: None }),
        Which::Latest(back) => {
            let meant = match Meant::of(&of_module, scope) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    return Err(only_lost_ones(&of_module).unwrap_or_else(|| or_locked(e, backups)));
                }
                meant => meant?,
            };
            let complete = meant.complete(&of_module);
            // A missing one of which nothing else is known may have been of this module, too.
            let lost = backups.iter().filter(|b| b.state == State::Missing && b.series == Series::default());
            refuse_damaged_latest(of_module.iter().copied().chain(lost), &meant, &complete)?;
            let chosen = complete.len().checked_sub(back + 1).and_then(|i| complete.get(i));
            let Some(chosen) = chosen.copied() else {
                return Err(too_few(&complete, &meant, backups).on(format!("latest~{back}")));
            };
            Ok(Found { chosen, among: Some(meant), end: None })
        }
        Which::Before(date) => {
            let end = end_of(*date, zone)?;
            let meant = Meant::of(&of_module, scope).map_err(|e| or_locked(e, backups))?;
            let chosen = meant.complete(&of_module).into_iter().rfind(|b| b.created < end);
            let chosen = chosen.ok_or_else(|| {
                let until = backups.iter().filter(|b| b.created < end);
                let others = names_of(until.filter(|b| meant.passes_over(b)));
                not_found(format!("no complete backup was made up to the end of that day{others}")).on(date)
            })?;
            Ok(Found { chosen, among: Some(meant), end: Some(end) })
        }
    }
}

/// The newest ones that would be meant if they were whole, and are not; or if they held all, and do not.
fn passed_over<'b>(backups: &'b [BackupSummary], found: &Found<'b, '_>) -> Vec<&'b BackupSummary> {
    let Some(meant) = &found.among else { return Vec::new() };
    let newer =
        |b: &&BackupSummary| b.created > found.chosen.created && found.end.is_none_or(|end| b.created < end);
    let (parts, not_whole): (Vec<_>, Vec<_>) =
        backups.iter().filter(newer).filter(|b| meant.passes_over(b)).partition(|b| is_sound(b));
    let newest = |list: Vec<&'b BackupSummary>| list.into_iter().max_by_key(|b| b.created);
    newest(not_whole).into_iter().chain(newest(parts)).collect()
}

/// Why one was passed over.
fn described(b: &BackupSummary) -> String {
    match b.damaged {
        Some(_) if b.state != State::Missing => "is damaged".to_owned(),
        _ if is_sound(b) => format!("holds only {}", only_of(b).unwrap_or_default().join(", ")),
        _ => format!("is {}", b.state),
    }
}

fn too_few(complete: &[&BackupSummary], meant: &Meant<'_, '_>, backups: &[BackupSummary]) -> Error {
    let there = match complete.len() {
        1 => "there is only one complete backup".to_owned(),
        n => format!("there are only {n} complete backups"),
    };
    let others = names_of(backups.iter().filter(|b| meant.passes_over(b)));
    not_found(format!("{there}{others}")).hint("`backup list` shows those that there are")
}

/// What else there is, newest first: `; passed over: ID, which is damaged`. Empty, if there is nothing.
fn names_of<'a>(passed_over: impl Iterator<Item = &'a BackupSummary>) -> String {
    const SHOWN: usize = 3;
    let mut all: Vec<&BackupSummary> = passed_over.collect();
    all.sort_by_key(|b| std::cmp::Reverse(b.created));
    let shown = all.iter().take(SHOWN).map(|b| format!("{}, which {}", b.id, described(b)));
    let mut text = shown.collect::<Vec<_>>().join("; ");
    if all.len() > SHOWN {
        text.push_str(&format!("; and {} more", all.len() - SHOWN));
    }
    if text.is_empty() { text } else { format!("; passed over: {text}") }
}

fn end_of(date: Date, zone: &TimeZone) -> Result<Timestamp> {
    let next = date.checked_add(1.day()).and_then(|next| next.to_zoned(zone.clone()));
    Ok(next.map_err(|e| usage(e).on(date))?.timestamp())
}

/// `latest` must not silently become the one of the day before. What never was one that it means is not in the way.
fn refuse_damaged_latest<'a>(
    all: impl Iterator<Item = &'a BackupSummary>,
    meant: &Meant<'_, '_>,
    complete: &[&BackupSummary],
) -> Result<()> {
    let Some(newest) = complete.last() else { return Ok(()) };
    let concerns =
        |b: &BackupSummary| meant.covers(b) || (b.state == State::Missing && b.series == Series::default());
    let newer = |b: &&BackupSummary| lost(b) && concerns(b) && b.created > newest.created;
    match all.filter(newer).max_by_key(|b| b.created) {
        None => Ok(()),
        Some(gone) if gone.state == State::Missing => {
            let message = "the newest one is missing: its file is gone";
            Err(Error::damaged("choose the latest backup", message).on(&gone.location).hint(format!(
                "the newest that is there is {}: name it by this id, or forget the missing one: `backup remove {}`",
                newest.id, gone.id
            )))
        }
        Some(damaged) => Err(Error::damaged("choose the latest backup", "the newest one is damaged")
            .on(&damaged.location)
            .hint(format!("the newest that is not known to be is {}: name it by this id", newest.id))),
    }
}

/// It would be one that `latest` means, were it sound and there.
fn lost(b: &BackupSummary) -> bool {
    match b.state {
        State::Missing => b.was.is_none_or(|was| was == State::Complete),
        state => state == State::Complete && b.damaged.is_some(),
    }
}

/// That there is none to choose is a matter of damage, if there were some.
fn only_lost_ones(backups: &[&BackupSummary]) -> Option<Error> {
    let newest = backups.iter().filter(|b| lost(b)).max_by_key(|b| b.created)?;
    let (what, hint) = match newest.state {
        State::Missing => {
            ("its file is gone", "`backup copy` brings it back from another archive".to_owned())
        }
        _ => (
            "it is damaged",
            format!("`backup restore {} --salvage --to ELSEWHERE` restores what is intact", newest.id),
        ),
    };
    let message = format!("there is no other complete one than this, and {what}");
    Some(Error::damaged("choose the latest backup", message).on(&newest.location).hint(hint))
}

/// That there is none to choose is a matter of the key, if nothing else is known of what there is.
fn or_locked(e: Error, backups: &[BackupSummary]) -> Error {
    let mut locked =
        backups.iter().filter(|b| b.encrypted && b.state == State::Unknown && b.damaged.is_none());
    match locked.next() {
        Some(one) if e.kind() == ErrorKind::NotFound => usage(
            "it is encrypted, and what it is cannot be known without its key",
        )
        .on(&one.location)
        .hint(
            "--identity FILE with the secret key (or --passphrase-file FILE), or `identity` of the archive",
        ),
        _ => e,
    }
}

fn by_name<'a>(backups: &[&'a BackupSummary], name: &str) -> Result<&'a BackupSummary> {
    let file = |b: &BackupSummary| b.location.rsplit('/').next().unwrap_or_default().to_owned();
    let exact = |b: &&&BackupSummary| b.id.as_str() == name || b.location == name || file(b) == name;
    let found: Vec<&BackupSummary> = match backups.iter().find(exact) {
        Some(b) => vec![b],
        None if name.chars().count() < SHORTEST => {
            let message =
                format!("{name:?} is too short: at least {SHORTEST} characters of an id are needed");
            return Err(usage(message).on(format!("{name:?}")).hint("`backup list` shows the ids"));
        }
        None => backups.iter().filter(|b| b.id.as_str().starts_with(name)).copied().collect(),
    };
    match found.as_slice() {
        [one] if one.state == State::Incomplete => Err(Error::new(
            ErrorKind::Refused,
            "choose a backup",
            "it is incomplete: its run goes on, or has crashed",
        )
        .on(name)
        .hint("`backup heal` clears what crashed runs left")),
        [one] => Ok(one),
        [] => Err(not_found("there is no such backup")
            .on(name)
            .hint("`backup list` shows those that there are")),
        several => {
            let ids: Vec<&str> = several.iter().map(|b| b.id.as_str()).collect();
            Err(usage(format!("several backups begin with it: {}", ids.join(", "))).on(name))
        }
    }
}

fn not_found(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, "choose a backup", message)
}

fn usage(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, "choose a backup", message)
}
