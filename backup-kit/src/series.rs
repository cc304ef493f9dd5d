//! Which backups belong together: the series of a run, and the names that modules take from paths.

use backup_core::{BackupSummary, Series, is_component_name};

/// Stands before the components that a run was restricted to.
const ONLY: &str = "#only=";

/// What makes a series: two runs with the same parts share `latest`, the run lock and retention; any other do not.
#[derive(Clone, Debug, Default)]
pub(crate) struct SeriesParts<'a> {
    /// The module.
    pub(crate) module: &'a str,
    /// The host on which its sources are.
    pub(crate) host: &'a str,
    /// Canonical places of sources that were named on the command line; empty for a configured module, whose name is enough.
    pub(crate) places: Vec<String>,
    /// Components that the run was restricted to: such a run is a series of its own.
    pub(crate) only: Vec<String>,
}

impl SeriesParts<'_> {
    /// Readable, because lists show it: `data@host:/srv/data#only=db`.
    pub(crate) fn series(&self) -> Series {
        let mut text = format!("{}@{}", self.module, self.host);
        let sorted = |list: &[String]| {
            let mut list = list.to_vec();
            list.sort();
            list.dedup();
            list
        };
        if !self.places.is_empty() {
            text.push(':');
            text.push_str(&sorted(&self.places).join("+"));
        }
        if !self.only.is_empty() {
            text.push_str(ONLY);
            text.push_str(&sorted(&self.only).join("+"));
        }
        Series(text)
    }
}

/// The components that the run of this backup was restricted to (`Backup::only`); `None`: to none, it holds the whole set.
pub fn only_of(backup: &BackupSummary) -> Option<Vec<&str>> {
    let (_, names) = backup.series.0.rsplit_once(ONLY)?;
    let names: Vec<&str> = names.split('+').collect();
    // A path may end like it.
    let is_so = names.iter().all(|name| is_component_name(name))
        && backup.components.iter().all(|held| names.contains(&held.as_str()));
    is_so.then_some(names)
}

/// The series of the whole set that this backup is of, or is a part of.
pub(crate) fn whole_series(backup: &BackupSummary) -> &str {
    let series = backup.series.0.as_str();
    match (only_of(backup), series.rsplit_once(ONLY)) {
        (Some(_), Some((whole, _))) => whole,
        _ => series,
    }
}

/// A name for a module or component out of any text: characters that a name cannot have become `-`. Never empty.
pub(crate) fn slug(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        let fits = c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match (fits, out.ends_with('-')) {
            (true, _) => out.push(c),
            (false, false) => out.push('-'),
            (false, true) => {}
        }
    }
    let out: String = out.trim_matches(['-', '.']).chars().take(60).collect();
    if is_component_name(&out) { out } else { "data".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_one_name_in_two_places_never_share_a_series() {
        let of = |place: &str, only: &[&str]| {
            SeriesParts {
                module: "data",
                host: "h",
                places: vec![place.into()],
                only: only.iter().map(|s| s.to_string()).collect(),
            }
            .series()
        };
        assert_ne!(of("/x/data", &[]), of("/y/data", &[]));
        assert_ne!(of("/x/data", &[]), of("/x/data", &["db"]));
        assert_eq!(of("/x/data", &["db", "es"]), of("/x/data", &["es", "db"]));
        assert_eq!(of("/x/data", &[]).to_string(), "data@h:/x/data");
    }

    #[test]
    fn every_text_gives_a_name() {
        for (text, name) in [
            ("data", "data"),
            ("My Photos (1)", "My-Photos-1"),
            ("", "data"),
            (".ssh", "ssh"),
            ("ä/ö", "data"),
            ("-a-", "a"),
        ] {
            assert_eq!(slug(text), name, "{text:?}");
        }
        assert!(is_component_name(&slug(&"x".repeat(500))));
    }
}
