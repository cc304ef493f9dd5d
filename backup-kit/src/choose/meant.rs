//! What `latest` and dates are about: the whole set of one module, and parts of it only where nothing else is wanted or there.

use super::{Scope, names_of, not_found, usage};
use crate::series::{only_of, whole_series};
use backup_core::{BackupSummary, Error, Result, Series, State};
use std::collections::{BTreeMap, BTreeSet};

/// The backups that are meant.
pub(super) struct Meant<'b, 's> {
    /// Series of the whole set.
    whole: &'b str,
    /// Backups that were made with `--only` are meant, too, if they hold all of these. None: no such backup is.
    components: &'s [&'s str],
    /// There are none but those of this series, which were made with `--only`.
    part: Option<&'b Series>,
}

/// Complete, and not known to be damaged.
pub(super) fn is_sound(b: &BackupSummary) -> bool {
    b.state == State::Complete && b.damaged.is_none()
}

impl<'b, 's> Meant<'b, 's> {
    /// Those of the one set that has sound backups. An error of kind `NotFound`, if there is none; of kind `Usage`, if there are several.
    pub(super) fn of(backups: &[&'b BackupSummary], scope: Scope<'s>) -> Result<Self> {
        let mut sets: BTreeMap<&str, Vec<&'b BackupSummary>> = BTreeMap::new();
        for b in backups.iter().copied().filter(|b| is_sound(b)) {
            sets.entry(whole_series(b)).or_default().push(b);
        }
        if sets.len() > 1 {
            let modules: BTreeSet<&str> = sets.values().flatten().map(|b| b.module.as_str()).collect();
            let hint = match modules.len() {
                1 => "name the backup by its id: `backup list`",
                _ => "name the backup by its id, or the module with -m",
            };
            return Err(several(sets.into_values()).hint(hint));
        }
        let Some((whole, sound)) = sets.pop_first() else {
            let of = scope.module.map(|m| format!(" of the module {m}")).unwrap_or_default();
            let unproven = names_of(backups.iter().copied().filter(|b| b.state == State::Unproven));
            return Err(not_found(format!("there is no complete backup{of}{unproven}"))
                .hint("a partial, damaged or imported one can be named by its id: `backup list`"));
        };
        let meant = Meant { whole, components: scope.components, part: None };
        if sound.iter().any(|b| meant.covers(b)) {
            return Ok(meant);
        }
        if backups
            .iter()
            .any(|b| is_of_whole(b, whole) && (b.state.is_readable() || b.state == State::Missing))
        {
            let newest = newest(&sound).map(|b| b.id.as_str()).unwrap_or_default();
            let message = "the only complete backups were made with --only, and hold a part of the module";
            let hint =
                format!("name one by its id ({newest} is the newest), or a partial one: `backup list`");
            return Err(not_found(message).hint(hint));
        }
        if !scope.components.is_empty() {
            let message = format!("no complete backup holds {}", scope.components.join(", "));
            return Err(not_found(message).hint("`backup list` shows what the backups hold"));
        }
        let mut parts: BTreeMap<&Series, Vec<&'b BackupSummary>> = BTreeMap::new();
        for b in sound {
            parts.entry(&b.series).or_default().push(b);
        }
        if parts.len() > 1 {
            let hint = "name the backup by its id: `backup list`; `restore --only COMPONENT` takes the newest that holds it";
            return Err(several(parts.into_values()).hint(hint));
        }
        Ok(Meant { part: parts.into_keys().next(), ..meant })
    }

    /// Whether it would be meant if it were sound.
    pub(super) fn covers(&self, b: &BackupSummary) -> bool {
        if let Some(part) = self.part {
            return b.series == *part;
        }
        let holds = |only: Vec<&str>| self.components.iter().all(|wanted| only.contains(wanted));
        match only_of(b) {
            None => b.series.0 == self.whole,
            Some(only) => whole_series(b) == self.whole && !self.components.is_empty() && holds(only),
        }
    }

    /// The sound ones, oldest first.
    pub(super) fn complete(&self, backups: &[&'b BackupSummary]) -> Vec<&'b BackupSummary> {
        let meant = |b: &&'b BackupSummary| is_sound(b) && self.covers(b);
        let mut list: Vec<&BackupSummary> = backups.iter().copied().filter(meant).collect();
        list.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        list
    }

    /// Whether it is of the same module, and not meant because it is not whole or holds only a part.
    pub(super) fn passes_over(&self, b: &BackupSummary) -> bool {
        match b.state {
            // All that is known of it is its name, in which the series is.
            State::Incomplete => self.is_named_so(&b.location),
            // Imported ones are never meant.
            State::Unproven => false,
            State::Complete if b.damaged.is_none() => {
                whole_series(b) == self.whole && only_of(b).is_some() && !self.covers(b)
            }
            _ => self.covers(b) || b.series == Series::default(),
        }
    }

    fn is_named_so(&self, location: &str) -> bool {
        let has = |series: &Series| location.contains(&format!(".{}.", series.short()));
        has(&Series(self.whole.to_owned())) || self.part.is_some_and(has)
    }
}

fn is_of_whole(b: &BackupSummary, whole: &str) -> bool {
    b.series.0 == whole && only_of(b).is_none()
}

fn newest<'b>(list: &[&'b BackupSummary]) -> Option<&'b BackupSummary> {
    list.iter().copied().max_by_key(|b| b.created)
}

/// Each with the newest of its whole set, or of a part if there is no other.
fn several<'b>(sets: impl Iterator<Item = Vec<&'b BackupSummary>>) -> Error {
    let lines: Vec<String> = sets
        .filter_map(|list| {
            let whole: Vec<_> = list.iter().copied().filter(|b| only_of(b).is_none()).collect();
            newest(&whole).or(newest(&list)).map(|b| format!("{} (newest: {})", b.series, b.id))
        })
        .collect();
    usage(format!("several series are kept here: {}", lines.join("; ")))
}
