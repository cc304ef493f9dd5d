//! Credentials of archives: from variables and files, never from the configuration itself.

use super::{ArchiveConfig, from_folder, place::Text};
use backup_core::{
    Error, ErrorKind, Result, Secret,
    destination::{RemotePlace, RemoteSettings},
};
use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};
use toml::de::{DeTable, DeValue};

/// A `password_command` may ask a person, or a server.
const ASKED_FOR: Duration = Duration::from_secs(60);
const LONGEST_SECRET: u64 = 64 << 10;

/// Keys of an archive whose values are secrets.
const SECRETS: [&str; 2] = ["secret_access_key", "password"];

/// Complaints about the secrets that stand in the file itself, with their lines.
pub(super) fn plain(root: &DeTable<'_>, text: &Text<'_>) -> Vec<Error> {
    let mut mistakes = Vec::new();
    let archives = root.iter().find(|(key, _)| key.get_ref() == "archives");
    let Some(DeValue::Table(archives)) = archives.map(|(_, value)| value.get_ref()) else { return mistakes };
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
                mistakes.push(text.error_in(value.span(), message));
            }
        }
    }
    mistakes
}

/// Fills in what the environment and files say of an archive.
pub(super) fn complete(
    name: &str,
    archive: &mut ArchiveConfig,
    folder: &Path,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<()> {
    let Some(place) = RemotePlace::parse(&archive.url)? else {
        let set = [
            ("limit_rate", archive.limit_rate.is_some()),
            ("ca_file", archive.ca_file.is_some()),
            ("password_command", archive.password_command.is_some()),
        ];
        return match set.into_iter().find(|(_, set)| *set) {
            Some((key, _)) => {
                let text = format!("`{key}` is for servers, and it is on this machine");
                Err(Error::new(ErrorKind::Usage, "read the configuration", text))
            }
            None => Ok(()),
        };
    };
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
    if let Some(text) = &archive.limit_rate {
        rate(text)?;
    }
    if archive.password_command.is_some() && !place.is_s3() && !place.has_password() {
        let text = "`password_command` is for S3 and WebDAV: ssh has keys and an agent of its own";
        return Err(Error::new(ErrorKind::Usage, "read the configuration", text));
    }
    if archive.password_command.is_some() && archive.password_file.is_some() {
        let text = "of `password_file` and `password_command` one is given, not both";
        return Err(Error::new(ErrorKind::Usage, "read the configuration", text));
    }
    archive.ca_file = archive.ca_file.take().map(|file| from_folder(folder, &file.to_string_lossy()).into());
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

/// The first line that a command prints, which has a minute for it. Blocks the thread.
fn ask(command: &[String]) -> Result<Secret> {
    let [program, arguments @ ..] = command else { return Err(asked("it is empty")) };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| asked(format!("{program}: {e}")))?;
    let mut out = child.stdout.take().ok_or_else(|| asked("it has no output"))?;
    let (said, hearing) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = (&mut out).take(LONGEST_SECRET).read_to_end(&mut text).map(|_| text);
        // Nobody hears it any more if the command was given up.
        drop(said.send(read));
    });
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().map_err(|e| asked(format!("{program}: {e}")))? {
            Some(status) => break status,
            None if begin.elapsed() > ASKED_FOR => {
                // It is given up; that it is gone already is as good.
                let _ = child.kill();
                let _ = child.wait();
                return Err(asked(format!("{program} did not end within {} seconds", ASKED_FOR.as_secs())));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    if !status.success() {
        return Err(asked(format!("{program} ended with {status}")));
    }
    // What it has started may hold its output open for ever.
    let left = ASKED_FOR.saturating_sub(begin.elapsed()).max(Duration::from_secs(1));
    let text =
        hearing.recv_timeout(left).map_err(|_| asked(format!("{program} ended, its output did not")))?;
    let text = String::from_utf8(text.map_err(asked)?).map_err(|_| asked("its output is not text"))?;
    match text.lines().next().filter(|line| !line.is_empty()) {
        Some(line) => Ok(Secret::new(line)),
        None => Err(asked(format!("{program} printed nothing"))),
    }
}

fn asked(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, "run the password_command", why)
        .hint("it prints the password, or the secret of the access key, on its first line")
}

/// Bytes a second, as people write them: 500K, 10M, 1G.
pub fn rate(text: &str) -> Result<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_uppercase().trim_end_matches("IB") {
        "" => 1u64,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => 0,
    };
    let rate = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|n| *n > 0);
    rate.ok_or_else(|| {
        Error::new(ErrorKind::Usage, "limit the rate", format!("{text:?} is no rate"))
            .hint("bytes a second, such as 500K or 10M")
    })
}

impl ArchiveConfig {
    /// Asks its `password_command`, if it has one and no secret is known.
    pub(super) fn asked(&self) -> Result<Self> {
        let mut asked = self.clone();
        if let Some(command) = &self.password_command
            && let Some(place) = RemotePlace::parse(&self.url)?
        {
            let secret = match place.is_s3() {
                true => &mut asked.secret_access_key,
                false => &mut asked.password,
            };
            if secret.is_none() {
                *secret = Some(ask(command)?);
            }
        }
        Ok(asked)
    }

    /// As if its command had been asked: to look whether everything else is right.
    pub(super) fn as_if_asked(&self) -> Self {
        let mut all = self.clone();
        let remote = RemotePlace::parse(&self.url).ok().flatten();
        if let (Some(_), Some(place)) = (&self.password_command, remote) {
            match place.is_s3() {
                true => all.secret_access_key.get_or_insert_with(|| Secret::new("-")),
                false => all.password.get_or_insert_with(|| Secret::new("-")),
            };
        }
        all
    }

    /// What it says of a remote place.
    pub(crate) fn remote(&self) -> RemoteSettings {
        let mut settings = RemoteSettings::default();
        settings.endpoint.clone_from(&self.endpoint);
        settings.region.clone_from(&self.region);
        settings.path_style = self.path_style;
        settings.access_key_id.clone_from(&self.access_key_id);
        settings.secret_access_key.clone_from(&self.secret_access_key);
        settings.password.clone_from(&self.password);
        settings.ca_file.clone_from(&self.ca_file);
        settings.limit_rate = self.limit_rate.as_deref().and_then(|text| rate(text).ok());
        settings
    }
}
