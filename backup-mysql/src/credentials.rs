//! Where user and password come from.

use crate::address::{Ssl, SslMode};
use backup_core::{Error, ErrorKind, Result, Secret};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// What `~/.my.cnf` says for clients.
#[derive(Default)]
pub(crate) struct OptionFile(BTreeMap<String, Secret>);

impl OptionFile {
    /// That of this user; empty, if there is none.
    pub(crate) fn of_this_user() -> Result<Self> {
        let Some(home) = std::env::var_os("HOME") else { return Ok(Self::default()) };
        let file: PathBuf = Path::new(&home).join(".my.cnf");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Error::io(ErrorKind::Usage, "read the option file", e).on(file.display())),
        };
        let read = Self::parse(&text);
        if read.0.contains_key("password") {
            refuse_readable_by_others(&file)?;
        }
        Ok(read)
    }

    /// The groups that clients of both vendors read.
    fn parse(text: &str) -> Self {
        let mut options = BTreeMap::new();
        let mut ours = false;
        for line in text.lines().map(str::trim) {
            if let Some(group) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                ours = ["client", "client-server", "client-mariadb"].contains(&group);
            } else if ours && !line.starts_with(['#', ';', '!']) && !line.is_empty() {
                let (name, value) = line.split_once('=').unwrap_or((line, ""));
                options.insert(name.trim().replace('_', "-"), Secret::new(unquoted(value.trim())));
            }
        }
        OptionFile(options)
    }

    /// How connections are protected: the words of both vendors' clients.
    pub(crate) fn ssl(&self) -> Result<Ssl> {
        let wrong = |message: String| Error::new(ErrorKind::Usage, "read ~/.my.cnf", message);
        let mut ssl = Ssl::default();
        let on = |name: &str| {
            let value = self.0.get(name).map(Secret::expose);
            value.is_some_and(|v| !["0", "off", "false"].contains(&v.to_ascii_lowercase().as_str()))
        };
        if let Some(mode) = self.get("ssl-mode") {
            ssl.mode = mode.parse().map_err(|()| wrong(format!("ssl-mode={mode} is unknown")))?;
        } else if on("skip-ssl") || self.0.contains_key("ssl") && !on("ssl") {
            ssl.mode = SslMode::Disabled;
        } else if on("ssl-verify-server-cert") {
            ssl.mode = SslMode::VerifyIdentity;
        } else if on("ssl") {
            ssl.mode = SslMode::Required;
        }
        ssl.ca = self.get("ssl-ca").map(PathBuf::from);
        ssl.identity = match (self.get("ssl-cert"), self.get("ssl-key")) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            _ => return Err(wrong("ssl-cert and ssl-key go together".to_owned())),
        };
        Ok(ssl)
    }

    /// An option that is no secret.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::expose).filter(|v| !v.is_empty())
    }
}

/// The first of: `BACKUP_<NAME>_PASSWORD`, `password_file`, the container's own, `MYSQL_PWD`, the option file.
pub(crate) fn password(
    component: &str,
    file: Option<&Path>,
    of_container: Option<Secret>,
    options: &OptionFile,
) -> Result<Option<Secret>> {
    // One that is set and empty is none: scripts set them so.
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty()).map(Secret::new);
    if let Some(secret) = var(&variable(component)) {
        return Ok(Some(secret));
    }
    if let Some(file) = file {
        let text = fs::read_to_string(file)
            .map_err(|e| Error::io(ErrorKind::Usage, "read the password file", e).on(file.display()))?;
        return Ok(Some(Secret::new(text.lines().next().unwrap_or_default())));
    }
    Ok(of_container.or_else(|| var("MYSQL_PWD")).or_else(|| options.0.get("password").cloned()))
}

/// `BACKUP_AI_SERVER_DB_PASSWORD` for `ai-server.db`.
fn variable(component: &str) -> String {
    let name: String = component
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect();
    format!("BACKUP_{name}_PASSWORD")
}

/// As in option files: quotes around, `\s` for a blank, and so on.
fn unquoted(value: &str) -> String {
    let inner = ['"', '\'']
        .iter()
        .find_map(|q| value.strip_prefix(*q).and_then(|v| v.strip_suffix(*q)))
        .unwrap_or(value);
    let mut out = String::new();
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        match (c, c == '\\') {
            (_, true) => match characters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('s') => out.push(' '),
                Some(other @ ('\\' | '"' | '\'')) => out.push(other),
                Some(other) => out.extend(['\\', other]),
                None => out.push('\\'),
            },
            (c, false) => out.push(c),
        }
    }
    out
}

#[cfg(unix)]
fn refuse_readable_by_others(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(file).map(|m| m.permissions().mode()).unwrap_or(0);
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, "use the option file", "it holds a password, and others may read it")
        .on(file.display())
        .hint(format!("chmod 600 {}", file.display())))
}

#[cfg(not(unix))]
fn refuse_readable_by_others(_file: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_files_are_read_as_the_vendors_do() {
        let read = OptionFile::parse(
            "[mysqld]\npassword=no\n[client]\n# password=no\nuser = u\npassword = \"p'a\\\\s\\s#x\"\nssl_ca=/ca\n[other]\nuser=no",
        );
        assert_eq!(read.get("user"), Some("u"));
        assert_eq!(read.get("password"), Some("p'a\\s #x"));
        assert_eq!(read.get("ssl-ca"), Some("/ca"));
        assert_eq!(variable("ai-server.db"), "BACKUP_AI_SERVER_DB_PASSWORD");
    }
    #[test]
    fn ssl_options_of_both_vendors_are_understood() {
        let ssl = |text: &str| OptionFile::parse(&format!("[client]\n{text}")).ssl();
        for (text, mode) in [
            ("", SslMode::Preferred),
            ("ssl-mode=VERIFY_CA", SslMode::VerifyCa),
            ("ssl", SslMode::Required),
            ("ssl=1\nssl-verify-server-cert", SslMode::VerifyIdentity),
            ("ssl\nssl_verify_server_cert=0", SslMode::Required),
            ("skip-ssl", SslMode::Disabled),
            ("ssl=0", SslMode::Disabled),
        ] {
            assert_eq!(ssl(text).unwrap().mode, mode, "{text}");
        }
        let all = ssl("ssl-ca=/ca\nssl-cert=/c\nssl-key=/k").unwrap();
        assert_eq!((all.ca, all.identity), (Some("/ca".into()), Some(("/c".into(), "/k".into()))));
        assert!(ssl("ssl-cert=/c").is_err() && ssl("ssl-mode=maybe").is_err());
    }
}
