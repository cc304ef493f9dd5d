//! File names of backups in a folder: a template, and the names that belong to a backup.

use crate::{BackupId, Error, ErrorKind, Result, Series};
use jiff::{Timestamp, tz::TimeZone};

/// The ending of an encrypted backup, after that of its compression.
pub(super) const ENCRYPTED: &str = ".age";

/// What a name is made from when nothing else is configured. UTC.
pub const DEFAULT_TEMPLATE: &str = "{module}-backup-{date}-{time}";

/// Checks a template: `{module}`, `{date}`, `{time}`, `{id}`, and characters that are safe in a file name everywhere.
pub(super) fn check_template(template: &str) -> Result<()> {
    let bad = |text: String| {
        Err(Error::new(ErrorKind::Usage, "use the name template", text)
            .on(template)
            .hint("placeholders are {module}, {date}, {time} and {id}; letters, digits, '.', '_', '-' may stand between"))
    };
    let mut rest = template.to_owned();
    for placeholder in ["{module}", "{date}", "{time}", "{id}"] {
        rest = rest.replace(placeholder, "");
    }
    if let Some(c) = rest.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c)) {
        return bad(format!("{c:?} may not be in it"));
    }
    if template.starts_with(['.', '-']) {
        return bad("it may not begin with a dot or dash".into());
    }
    let unique = template.contains("{id}") || (template.contains("{date}") && template.contains("{time}"));
    if !unique {
        return bad("it needs {id}, or {date} and {time}, to tell backups apart".into());
    }
    Ok(())
}

/// The name without its ending.
pub(super) fn stem(template: &str, module: &str, created: Timestamp, id: &BackupId) -> String {
    let utc = created.to_zoned(TimeZone::UTC);
    template
        .replace("{module}", module)
        .replace("{date}", &utc.strftime("%Y%m%d").to_string())
        .replace("{time}", &utc.strftime("%H%M%S").to_string())
        .replace("{id}", id.as_str())
}

/// Under what a backup is written before it is one: it lists as incomplete, and says whose it is.
pub(super) fn provisional(stem: &str, extension: &str, series: &Series, id: &BackupId) -> String {
    format!(".{stem}.{extension}.{}.{id}.incomplete", series.short())
}

/// Series (its short form) and id of a provisional name.
pub(super) fn parse_provisional(name: &str) -> Option<(&str, BackupId)> {
    let rest = name.strip_prefix('.')?.strip_suffix(".incomplete")?;
    let (rest, id) = rest.rsplit_once('.')?;
    let (_, series) = rest.rsplit_once('.')?;
    Some((series, id.parse().ok()?))
}

/// Whether a file of this name, or what is written under this provisional name, is encrypted.
pub(super) fn is_encrypted(name: &str) -> bool {
    let provisional = name.strip_suffix(".incomplete").and_then(|rest| rest.rsplitn(3, '.').nth(2));
    provisional.unwrap_or(name).ends_with(ENCRYPTED)
}

/// Whether an encrypted backup of this stem may have this name, whatever its compression, and also beside others of the same stem.
pub(super) fn is_encrypted_with(name: &str, stem: &str) -> bool {
    let Some(rest) = name.strip_prefix(stem).filter(|_| is_encrypted(name)) else { return false };
    match rest.strip_prefix('-').and_then(|rest| rest.split_once('.')) {
        Some((number, _)) => number.parse::<u8>().is_ok(),
        None => rest.starts_with('.'),
    }
}

/// The run lock of a series.
pub(super) fn lock(series: &Series) -> String {
    format!(".backup-lock-{}", series.short())
}

/// The copy of the manifest beside an archive.
pub(super) fn manifest_sidecar(archive: &str) -> String {
    format!("{archive}.manifest.json")
}

/// What came later.
pub(super) fn state_sidecar(archive: &str) -> String {
    format!("{archive}.state.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_from_module_and_utc_time() {
        check_template(DEFAULT_TEMPLATE).unwrap();
        let at: Timestamp = "2025-08-11T11:16:28+02:00".parse().unwrap();
        let stem = stem(DEFAULT_TEMPLATE, "dify", at, &BackupId::generate());
        assert_eq!(stem, "dify-backup-20250811-091628");
        for bad in ["a/b-{id}", "{module}", "{nope}{id}", ".{id}", "{date}"] {
            assert!(check_template(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_encrypted_backup_is_called_so_in_every_compression_and_with_a_number() {
        for name in ["a-1.tar.zst.age", "a-1-2.tar.age", "a-1-99.tar.xz.age"] {
            assert!(is_encrypted_with(name, "a-1"), "{name}");
        }
        for name in ["a-1.tar.zst", "a-11.tar.age", "a-1-x.tar.age", "a-1-2-3.tar.age", "b.tar.age"] {
            assert!(!is_encrypted_with(name, "a-1"), "{name}");
        }
    }

    #[test]
    fn a_provisional_name_says_whose_it_is() {
        let (series, id) = (Series("x".into()), BackupId::generate());
        let name = provisional("dify-backup-1", "tar.zst", &series, &id);
        assert_eq!(parse_provisional(&name), Some((series.short().as_str(), id)));
        assert_eq!(parse_provisional(".other.incomplete"), None);
    }
}
