//! Where the password comes from.

use backup_core::{Error, ErrorKind, Result, Secret};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What a password is looked up by.
pub(crate) struct Whose<'a> {
    /// Name of the component: `BACKUP_DB_PASSWORD` for `db`.
    pub(crate) component: &'a str,
    pub(crate) password_file: Option<&'a Path>,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) database: &'a str,
    pub(crate) user: &'a str,
    /// From the environment of the container it runs in.
    pub(crate) of_container: Option<Secret>,
}

/// The first of: `BACKUP_<NAME>_PASSWORD`, `password_file`, the container's own, `PGPASSWORD`, `PGPASSFILE` or `~/.pgpass`.
pub(crate) fn password(whose: &Whose<'_>) -> Result<Option<Secret>> {
    // One that is set and empty is none: scripts set them so.
    let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty()).map(Secret::new);
    if let Some(secret) = var(&variable(whose.component)) {
        return Ok(Some(secret));
    }
    if let Some(file) = whose.password_file {
        let text = fs::read_to_string(file)
            .map_err(|e| Error::io(ErrorKind::Usage, "read the password file", e).on(file.display()))?;
        return Ok(Some(Secret::new(text.lines().next().unwrap_or_default())));
    }
    if let Some(secret) = &whose.of_container {
        return Ok(Some(secret.clone()));
    }
    if let Some(secret) = var("PGPASSWORD") {
        return Ok(Some(secret));
    }
    let file = match std::env::var_os("PGPASSFILE") {
        Some(file) => PathBuf::from(file),
        None => match std::env::var_os("HOME") {
            Some(home) => Path::new(&home).join(".pgpass"),
            None => return Ok(None),
        },
    };
    match fs::read_to_string(&file) {
        Ok(text) => {
            refuse_readable_by_others(&file)?;
            Ok(of_password_file(&text, whose).map(Secret::new))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(ErrorKind::Usage, "read the password file", e).on(file.display())),
    }
}

/// `BACKUP_AI_SERVER_DB_PASSWORD` for `ai-server.db`.
fn variable(component: &str) -> String {
    let name: String = component
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .collect();
    format!("BACKUP_{name}_PASSWORD")
}

/// libpq ignores such a file; that is found out only by the failed login.
#[cfg(unix)]
fn refuse_readable_by_others(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(file).map(|m| m.permissions().mode()).unwrap_or(0);
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, "use the password file", "others may read it")
        .on(file.display())
        .hint(format!("chmod 600 {}", file.display())))
}

#[cfg(not(unix))]
fn refuse_readable_by_others(_file: &Path) -> Result<()> {
    Ok(())
}

/// Lines of `host:port:database:user:password`; `*` stands for anything, `\` makes the next character itself.
fn of_password_file(text: &str, whose: &Whose<'_>) -> Option<String> {
    let port = whose.port.to_string();
    let host = if whose.host.starts_with('/') { "localhost" } else { whose.host };
    let wanted = [host, &port, whose.database, whose.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = vec![String::new()];
        let mut characters = line.chars();
        while let Some(c) = characters.next() {
            match (c, fields.len()) {
                (':', 1..=4) => fields.push(String::new()),
                ('\\', _) => fields.last_mut()?.extend(characters.next()),
                (c, _) => fields.last_mut()?.push(c),
            }
        }
        let password = (fields.len() == 5).then(|| fields.pop()).flatten()?;
        fields.iter().zip(wanted).all(|(f, w)| f == "*" || f == w).then_some(password)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let whose = Whose {
            component: "db",
            password_file: None,
            host: "h",
            port: 5432,
            database: "app",
            user: "u",
            of_container: None,
        };
        for (text, found) in [
            ("h:5432:app:u:a\\:b\\\\c:d", Some("a:b\\c:d")),
            ("# h:5432:app:u:no\nx:5432:app:u:no\n*:*:*:u:yes\nh:5432:app:u:late", Some("yes")),
            ("h:5433:app:u:no\nh:5432:app", None),
        ] {
            assert_eq!(of_password_file(text, &whose).as_deref(), found, "{text}");
        }
        assert_eq!(variable("ai-server.db"), "BACKUP_AI_SERVER_DB_PASSWORD");
    }
}
