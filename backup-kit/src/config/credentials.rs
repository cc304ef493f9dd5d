//! Credentials of archives: from variables and files, never from the configuration itself.

use super::{ArchiveConfig, from_folder, place::Text};
use backup_core::{
    Error, ErrorKind, Result, Secret,
    destination::{RemotePlace, RemoteSettings},
};
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Keys of an archive whose values are secrets.
const SECRETS: [&str; 2] = ["secret_access_key", "password"];

/// A secret that stands in the file itself is an error that names its line.
pub(super) fn refuse_plain(root: &DeTable<'_>, text: &Text<'_>) -> Result<()> {
    let archives = root.iter().find(|(key, _)| key.get_ref() == "archives");
    let Some(DeValue::Table(archives)) = archives.map(|(_, value)| value.get_ref()) else { return Ok(()) };
    for (_, archive) in archives {
        let DeValue::Table(archive) = archive.get_ref() else { continue };
        for (key, value) in archive {
            let plain = |s: &str| !(s.starts_with("${") && s.ends_with('}') && !s.contains(":-"));
            if SECRETS.contains(&&**key.get_ref())
                && let DeValue::String(s) = value.get_ref()
                && plain(s)
            {
                let message =
                    format!("a secret must not stand in this file: `{}` is \"${{VARIABLE}}\"", key.get_ref());
                return Err(text.error_in(value.span(), message));
            }
        }
    }
    Ok(())
}

/// Fills in what the environment and files say of an archive.
pub(super) fn complete(
    name: &str,
    archive: &mut ArchiveConfig,
    folder: &Path,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<()> {
    let Some(place) = RemotePlace::parse(&archive.url)? else { return Ok(()) };
    let upper = name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let variable = |what: &str| var(&format!("BACKUP_{upper}_{what}")).filter(|value| !value.is_empty());
    let from_file = match &archive.password_file {
        None => None,
        Some(file) => {
            let file = from_folder(folder, &file.to_string_lossy());
            let read = std::fs::read_to_string(&file);
            let read =
                read.map_err(|e| Error::new(ErrorKind::Usage, "read the password", format!("{file}: {e}")))?;
            Some(Secret::new(read.lines().next().unwrap_or_default()))
        }
    };
    if place.is_s3() {
        archive.access_key_id = archive.access_key_id.take().or_else(|| variable("ACCESS_KEY_ID"));
        let secret = archive.secret_access_key.take().or(from_file);
        archive.secret_access_key = secret.or_else(|| variable("SECRET_ACCESS_KEY").map(Secret::new));
    } else if place.has_password() {
        let secret = archive.password.take().or(from_file);
        archive.password = secret.or_else(|| variable("PASSWORD").map(Secret::new));
    }
    Ok(())
}

impl ArchiveConfig {
    /// What it says of a remote place.
    pub(crate) fn remote(&self) -> RemoteSettings {
        let mut settings = RemoteSettings::default();
        settings.endpoint.clone_from(&self.endpoint);
        settings.region.clone_from(&self.region);
        settings.path_style = self.path_style;
        settings.access_key_id.clone_from(&self.access_key_id);
        settings.secret_access_key.clone_from(&self.secret_access_key);
        settings.password.clone_from(&self.password);
        settings
    }
}
