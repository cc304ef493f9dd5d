//! Credentials of archives: from variables and files, never from the configuration itself.

use super::{ArchiveConfig, from_folder, mistakes::Mistakes};
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
const SECRETS: [&str; 4] = ["secret_access_key", "account_key", "sas_token", "password"];

/// Secrets that stand in the file itself are mistakes, told with their lines.
pub(super) fn plain(root: &DeTable<'_>, mistakes: &mut Mistakes<'_>) {
    let archives = root.iter().find(|(key, _)| key.get_ref() == "archives");
    let Some(DeValue::Table(archives)) = archives.map(|(_, value)| value.get_ref()) else { return };
    for (name, archive) in archives {
        let DeValue::Table(archive) = archive.get_ref() else { continue };
        for (key, value) in archive {
            let plain = |s: &str| !(s.starts_with("${") && s.ends_with('}') && !s.contains(":-"));
            if SECRETS.contains(&&**key.get_ref())
                && let DeValue::String(s) = value.get_ref()
                && plain(s)
            {
                let message =
                    format!("a secret must not stand in this file: `{}` is \"${{VARIABLE}}\"", key.get_ref());
                let path = ["archives", name.get_ref(), key.get_ref()].map(str::to_owned).to_vec();
                mistakes.unknown_value(path, value.span(), &message);
            }
        }
    }
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
    if archive.password_command.is_some() && !takes_secret(&place) {
        let text = "`password_command` is for S3, Azure and WebDAV: ssh has keys and an agent of its own";
        return Err(Error::new(ErrorKind::Usage, "read the configuration", text));
    }
    if archive.password_command.is_some() && archive.password_file.is_some() {
        let text = "of `password_file` and `password_command` one is given, not both";
        return Err(Error::new(ErrorKind::Usage, "read the configuration", text));
    }
    archive.ca_file = archive.ca_file.take().map(|file| from_folder(folder, &file.to_string_lossy()).into());
    if let Some(secret) = from_file
        && !archive.has_secret(&place)
    {
        archive.take_secret(&place, secret);
    }
    let known = archive.has_secret(&place);
    let secret = |what: &str| variable(what).filter(|_| !known).map(Secret::new);
    if place.is_s3() {
        archive.access_key_id = archive.access_key_id.take().or_else(|| variable("ACCESS_KEY_ID"));
        archive.secret_access_key = archive.secret_access_key.take().or_else(|| secret("SECRET_ACCESS_KEY"));
    } else if place.is_azure() {
        archive.account = archive.account.take().or_else(|| variable("ACCOUNT"));
        archive.account_key = archive.account_key.take().or_else(|| secret("ACCOUNT_KEY"));
        archive.sas_token = archive.sas_token.take().or_else(|| secret("SAS_TOKEN"));
    } else if place.has_password() {
        archive.password = archive.password.take().or_else(|| secret("PASSWORD"));
    }
    Ok(())
}

/// Whether a secret of ours opens it: ssh has its own.
fn takes_secret(place: &RemotePlace) -> bool {
    place.is_s3() || place.is_azure() || place.has_password()
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
        .hint("it prints the password, the secret of the access key, the account key or the SAS token on its first line")
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
    fn has_secret(&self, place: &RemotePlace) -> bool {
        match (place.is_s3(), place.is_azure()) {
            (true, _) => self.secret_access_key.is_some(),
            (_, true) => self.account_key.is_some() || self.sas_token.is_some(),
            _ => self.password.is_some(),
        }
    }

    /// The secret that came out of a file or a program.
    fn take_secret(&mut self, place: &RemotePlace, secret: Secret) {
        let goes_to = match (place.is_s3(), place.is_azure()) {
            (true, _) => &mut self.secret_access_key,
            // A token is a list of options; a key is base64.
            (_, true) if secret.expose().contains('&') => &mut self.sas_token,
            (_, true) => &mut self.account_key,
            _ => &mut self.password,
        };
        *goes_to = Some(secret);
    }

    /// Asks its `password_command`, if it has one and no secret is known.
    pub(super) fn asked(&self) -> Result<Self> {
        let mut asked = self.clone();
        if let Some(command) = &self.password_command
            && let Some(place) = RemotePlace::parse(&self.url)?
            && !self.has_secret(&place)
        {
            asked.take_secret(&place, ask(command)?);
        }
        Ok(asked)
    }

    /// As if its command had been asked: to look whether everything else is right.
    pub(super) fn as_if_asked(&self) -> Self {
        let mut all = self.clone();
        let remote = RemotePlace::parse(&self.url).ok().flatten();
        if let (Some(_), Some(place)) = (&self.password_command, remote)
            && !self.has_secret(&place)
        {
            // What a key of Azure could be.
            all.take_secret(&place, Secret::new("AAAA"));
        }
        all
    }

    /// Whether those of the environment are not for it, also while a variable of its own is not set.
    pub(super) fn names_credentials(&self) -> bool {
        self.access_key_id.is_some() || self.account_key.is_some() || self.sas_token.is_some()
    }

    /// What it says of a remote place.
    pub(crate) fn remote(&self) -> RemoteSettings {
        let mut settings = RemoteSettings::default();
        settings.endpoint.clone_from(&self.endpoint);
        settings.region.clone_from(&self.region);
        settings.path_style = self.path_style;
        settings.access_key_id.clone_from(&self.access_key_id);
        settings.secret_access_key.clone_from(&self.secret_access_key);
        settings.account.clone_from(&self.account);
        settings.account_key.clone_from(&self.account_key);
        settings.sas_token.clone_from(&self.sas_token);
        settings.password.clone_from(&self.password);
        settings.ca_file.clone_from(&self.ca_file);
        settings.limit_rate = self.limit_rate.as_deref().and_then(|text| rate(text).ok());
        settings
    }
}
