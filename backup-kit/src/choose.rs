//! Which backup is meant: `latest`, `latest~1`, a date, an id or the beginning of one, a file name.

use backup_core::{BackupSummary, Context, Error, ErrorKind, Result, Series, Severity, State};
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    str::FromStr,
};

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

/// The backup that is meant among `backups`, those of one module if one is given. `latest` and dates never mix series and
/// never give a partial, incomplete or damaged one.
pub fn choose<'a>(
    backups: &'a [BackupSummary],
    which: &Which,
    module: Option<&str>,
    zone: &TimeZone,
) -> Result<&'a BackupSummary> {
    let of_module: Vec<&BackupSummary> =
        backups.iter().filter(|b| module.is_none_or(|m| b.module == m)).collect();
    match which {
        Which::Named(name) => by_name(&of_module, name),
        Which::Latest(back) => {
            let complete = match complete_of_one_series(&of_module, None, module) {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    return Err(only_lost_ones(&of_module).unwrap_or(e));
                }
                other => other?,
            };
            // A missing one of which nothing else is known may have been of this module, too.
            let lost = backups.iter().filter(|b| b.state == State::Missing && b.series == Series::default());
            refuse_damaged_latest(of_module.iter().copied().chain(lost), &complete)?;
            complete.len().checked_sub(back + 1).and_then(|i| complete.get(i)).copied().ok_or_else(|| {
                not_found(format!("there are only {} complete backups", complete.len()))
                    .on(format!("latest~{back}"))
            })
        }
        Which::Before(date) => {
            let end = end_of(*date, zone)?;
            complete_of_one_series(&of_module, Some(end), module)?
                .last()
                .copied()
                .ok_or_else(|| not_found("no complete backup was made up to the end of that day").on(date))
        }
    }
}

/// The same, and if a newer one was passed over because it is not whole, that is noted in `cx`: a warning.
pub fn choose_and_tell<'a>(
    backups: &'a [BackupSummary],
    which: &Which,
    module: Option<&str>,
    zone: &TimeZone,
    cx: &Context,
) -> Result<&'a BackupSummary> {
    let chosen = choose(backups, which, module, zone)?;
    if let Some(newer) = passed_over(backups, chosen, which, zone) {
        cx.note(Severity::Warning, "", "", told(newer, chosen, zone));
    }
    Ok(chosen)
}

/// The newest one that `which` would mean if it were whole, and is not.
fn passed_over<'a>(
    backups: &'a [BackupSummary],
    chosen: &BackupSummary,
    which: &Which,
    zone: &TimeZone,
) -> Option<&'a BackupSummary> {
    let end = match which {
        Which::Named(_) => return None,
        Which::Latest(_) => None,
        Which::Before(date) => end_of(*date, zone).ok(),
    };
    let of_series = |b: &&BackupSummary| match b.state {
        // All that is known of it is its name, in which the series is.
        State::Incomplete => b.location.contains(&format!(".{}.", chosen.series.short())),
        _ => b.series == chosen.series || b.series == Series::default(),
    };
    let not_whole = |b: &&BackupSummary| match b.state {
        State::Complete => b.damaged.is_some(),
        // Imported ones are never meant.
        State::Unproven => false,
        _ => true,
    };
    let newer = |b: &&BackupSummary| b.created > chosen.created && end.is_none_or(|end| b.created < end);
    backups.iter().filter(newer).filter(of_series).filter(not_whole).max_by_key(|b| b.created)
}

fn told(newer: &BackupSummary, chosen: &BackupSummary, zone: &TimeZone) -> String {
    let state = match newer.damaged {
        Some(_) if newer.state != State::Missing => "damaged".to_owned(),
        _ => newer.state.to_string(),
    };
    let time = newer.created.to_zoned(zone.clone()).strftime("%F %T");
    format!("a newer one, {} of {time}, is {state} and was passed over; chosen is {}", newer.id, chosen.id)
}

fn end_of(date: Date, zone: &TimeZone) -> Result<Timestamp> {
    let next = date.checked_add(1.day()).and_then(|next| next.to_zoned(zone.clone()));
    Ok(next.map_err(|e| usage(e).on(date))?.timestamp())
}

/// `latest` must not silently become the one of the day before. What never was one that it means is not in the way.
fn refuse_damaged_latest<'a>(
    all: impl Iterator<Item = &'a BackupSummary>,
    complete: &[&BackupSummary],
) -> Result<()> {
    let Some(newest) = complete.last() else { return Ok(()) };
    let of_series = |b: &BackupSummary| {
        b.series == newest.series || (b.state == State::Missing && b.series == Series::default())
    };
    let newer = |b: &&BackupSummary| lost(b) && of_series(b) && b.created > newest.created;
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

fn complete_of_one_series<'a>(
    backups: &[&'a BackupSummary],
    before: Option<Timestamp>,
    module: Option<&str>,
) -> Result<Vec<&'a BackupSummary>> {
    let mut series: BTreeMap<&Series, Vec<&BackupSummary>> = BTreeMap::new();
    for b in backups.iter().filter(|b| b.state == State::Complete && b.damaged.is_none()) {
        series.entry(&b.series).or_default().push(b);
    }
    if series.len() > 1 {
        let modules: BTreeSet<&str> = series.values().flatten().map(|b| b.module.as_str()).collect();
        let lines: Vec<String> = series
            .iter()
            .filter_map(|(name, list)| {
                Some(format!("{name} (newest: {})", list.iter().max_by_key(|b| b.created)?.id))
            })
            .collect();
        return Err(usage(format!("several series are kept here: {}", lines.join("; "))).hint(match modules
            .len()
        {
            1 => "name the backup by its id: `backup list`",
            _ => "name the backup by its id, or the module with -m",
        }));
    }
    let mut list: Vec<&BackupSummary> = series.into_values().next().unwrap_or_default();
    if list.is_empty() {
        let of = module.map(|m| format!(" of the module {m}")).unwrap_or_default();
        return Err(not_found(format!("there is no complete backup{of}"))
            .hint("a partial or damaged one can be named by its id: `backup list`"));
    }
    list.retain(|b| before.is_none_or(|end| b.created < end));
    list.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    Ok(list)
}

fn not_found(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, "choose a backup", message)
}

fn usage(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, "choose a backup", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup(id: &str, series: &str, created: &str, state: State) -> BackupSummary {
        BackupSummary {
            id: format!("{id:0<26}").parse().unwrap(),
            module: series.split('@').next().unwrap().to_owned(),
            series: Series(series.to_owned()),
            created: created.parse().unwrap(),
            state,
            location: format!("{id}.tar.zst"),
            stored_bytes: 0,
            data_bytes: 0,
            entries: 0,
            components: vec![],
            verified: None,
            damaged: None,
            tags: vec![],
            note: None,
            encrypted: false,
            was: None,
        }
    }

    fn pick(list: &[BackupSummary], which: &str, module: Option<&str>) -> Result<String> {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        choose(list, &which.parse().unwrap(), module, &zone).map(|b| b.location.replace(".tar.zst", ""))
    }

    fn three() -> Vec<BackupSummary> {
        vec![
            backup("a1", "app@h", "2025-07-16T10:00:00Z", State::Complete),
            backup("a2", "app@h", "2025-07-17T21:59:59Z", State::Complete),
            backup("b3", "app@h", "2025-07-17T22:00:00Z", State::Complete),
            backup("c4", "app@h", "2025-07-19T10:00:00Z", State::Partial),
            backup("d5", "app@h", "2025-07-20T10:00:00Z", State::Incomplete),
        ]
    }

    #[test]
    fn latest_is_the_newest_complete_one_never_a_partial_one() {
        let list = three();
        assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
        assert_eq!(pick(&list, "latest~1", None).unwrap(), "a2");
        assert_eq!(pick(&list, "latest~3", None).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(pick(&list[3..], "latest", None).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_newer_one_that_is_not_whole_is_passed_over_and_told() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let told = |list: &[BackupSummary], which: &str| {
            let cx = Context::default();
            choose_and_tell(list, &which.parse().unwrap(), None, &zone, &cx).unwrap();
            cx.notes().list.into_iter().map(|n| n.text).collect::<Vec<_>>().join(" ")
        };
        let mut list = three();
        // The last one is incomplete, and of a run of another series.
        let text = told(&list, "latest");
        assert!(
            text.contains(&format!("a newer one, c4{} of 2025-07-19 12:00:00, is partial", "0".repeat(24))),
            "{text}"
        );
        list[4].location = format!(".app.tar.zst.{}.{}.incomplete", list[0].series.short(), list[4].id);
        assert!(told(&list, "latest").contains("is incomplete"));
        list[4] = BackupSummary { series: Series::default(), state: State::Unknown, ..list[4].clone() };
        assert!(told(&list, "2025-07-20").contains("is unknown"));
        assert!(told(&list, "2025-07-19").contains("is partial"));
        for silent in ["2025-07-18", "c4.tar.zst"] {
            assert_eq!(told(&list, silent), "", "{silent}");
        }
        list[2].damaged = Some(Timestamp::UNIX_EPOCH);
        assert!(told(&list, "2025-07-18").contains("is damaged"));
        list.truncate(4);
        list[3].series = Series("other@h".to_owned());
        list[2].damaged = None;
        list[1].state = State::Unproven;
        assert_eq!(told(&list, "latest"), "");
    }

    #[test]
    fn what_was_found_damaged_is_chosen_only_by_its_name() {
        let mut list = three();
        list[2].damaged = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(pick(&list, "latest", None).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(pick(&list, "a200", None).unwrap(), "a2");
        assert_eq!(pick(&list, "2025-07-18", None).unwrap(), "a2");
        assert_eq!(pick(&list, "b3.tar.zst", None).unwrap(), "b3");
        // Where there is no other, that is what is told.
        let e = pick(&list[2..], "latest", None).unwrap_err();
        assert!(e.kind() == ErrorKind::Damaged && e.to_string().contains("b3.tar.zst"), "{e}");
    }

    #[test]
    fn what_is_missing_is_never_the_latest_and_the_one_before_it_is_not_silently_either() {
        let mut list = three();
        list[2].state = State::Missing;
        let e = pick(&list, "latest", None).unwrap_err();
        assert!(e.kind() == ErrorKind::Damaged && e.to_string().contains("b3.tar.zst"), "{e}");
        assert_eq!(pick(&list, "2025-07-18", None).unwrap(), "a2");
        // Whoever removes it names it.
        assert_eq!(pick(&list, "b300", None).unwrap(), "b3");
        list[2].state = State::Complete;
        list[0].state = State::Missing;
        assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
    }

    #[test]
    fn a_missing_one_of_which_nothing_is_known_may_have_been_the_latest_of_any_series() {
        let mut list = three();
        // Without its sidecar neither its module nor its series is known.
        list[3] = BackupSummary {
            module: String::new(),
            ..backup("c4", "", "2025-07-19T10:00:00Z", State::Missing)
        };
        list[3].series = Series::default();
        for module in [None, Some("app")] {
            let e = pick(&list, "latest", module).unwrap_err();
            assert!(e.kind() == ErrorKind::Damaged && e.to_string().contains("c4.tar.zst"), "{e}");
        }
        list[3].created = list[1].created;
        assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
    }

    #[test]
    fn what_was_never_the_latest_is_not_in_its_way_when_it_is_missing_or_damaged() {
        for was in [State::Partial, State::Unproven] {
            let mut list = three();
            list[3].damaged = Some(Timestamp::UNIX_EPOCH);
            assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
            list[3] =
                BackupSummary { state: State::Missing, was: Some(was), damaged: None, ..list[3].clone() };
            assert_eq!(pick(&list, "latest", None).unwrap(), "b3");
            list[3].was = Some(State::Complete);
            assert_eq!(pick(&list, "latest", None).unwrap_err().kind(), ErrorKind::Damaged);
        }
    }

    #[test]
    fn a_date_reaches_to_the_end_of_its_local_day() {
        let list = three();
        assert_eq!(pick(&list, "2025-07-17", None).unwrap(), "a2");
        assert_eq!(pick(&list, "2025-07-18", None).unwrap(), "b3");
        assert_eq!(pick(&list, "2025-07-15", None).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_name_is_an_id_its_unique_beginning_or_a_file() {
        let list = three();
        assert_eq!(pick(&list, "b300", None).unwrap(), "b3");
        assert_eq!(pick(&list, "c4.tar.zst", None).unwrap(), "c4");
        assert_eq!(pick(&list, "d500", None).unwrap_err().kind(), ErrorKind::Refused);
        assert_eq!(pick(&list, "zzzz", None).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_beginning_that_is_not_unique_or_too_short_is_an_error_even_if_there_is_only_one_backup() {
        let mut list = three();
        for b in &mut list[..2] {
            b.id = format!("abcd{}", b.id)[..26].parse().unwrap();
        }
        let e = pick(&list, "abcd", None).unwrap_err();
        assert!(e.kind() == ErrorKind::Usage && e.message().contains("several"), "{e}");
        for short in ["", "b", "b30"] {
            let e = pick(&list[2..3], short, None).unwrap_err();
            assert!(e.kind() == ErrorKind::Usage && e.message().contains("too short"), "{e}");
        }
    }

    #[test]
    fn several_series_and_latest_is_an_error_that_lists_them() {
        let mut list = three();
        list.push(backup("e6", "other@h:/y", "2025-07-20T10:00:00Z", State::Complete));
        let e = pick(&list, "latest", None).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(e.message().contains("app@h (newest: b3") && e.message().contains("other@h:/y"), "{e}");
        assert_eq!(pick(&list, "latest", Some("other")).unwrap(), "e6");
        assert_eq!(pick(&list, "a100", None).unwrap(), "a1");
    }
}
