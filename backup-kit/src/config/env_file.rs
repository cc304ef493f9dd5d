//! Variables from a file: `NAME=value` lines, as `docker compose` reads them.

use backup_core::{Error, ErrorKind, Result};
use std::{collections::BTreeMap, fmt, path::Path};

/// Variables of an env file. What the process's own environment says wins over them. Values may be secrets: they are not shown.
#[derive(Clone, Default)]
pub struct EnvFile {
    values: BTreeMap<String, String>,
    warning: Option<String>,
}

impl EnvFile {
    /// Reads the file. A line that is neither empty, a comment (`#`) nor `NAME=value` is an error that names it.
    pub fn load(file: &Path) -> Result<Self> {
        let error = |e| Error::io(ErrorKind::Usage, "read the env file", e).on(file.display());
        let text = std::fs::read_to_string(file).map_err(error)?;
        let mut values = BTreeMap::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) =
                line.strip_prefix("export ").unwrap_or(line).split_once('=').ok_or_else(|| {
                    Error::new(ErrorKind::Usage, "read the env file", "a line must be NAME=value")
                        .on(format!("{}:{}", file.display(), i + 1))
                })?;
            values.insert(name.trim().to_owned(), unquote(value.trim()).to_owned());
        }
        Ok(EnvFile { values, warning: open_to_others(file).map_err(error)? })
    }

    /// The value of a variable: of the process's environment, else of the file.
    pub fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().or_else(|| self.values.get(name).cloned())
    }

    /// What a person should know: others can read the file.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }
}

fn unquote(value: &str) -> &str {
    ['"', '\''].iter().find_map(|q| value.strip_prefix(*q)?.strip_suffix(*q)).unwrap_or(value)
}

#[cfg(unix)]
fn open_to_others(file: &Path) -> std::io::Result<Option<String>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file)?.permissions().mode() & 0o777;
    Ok((mode & 0o044 != 0)
        .then(|| format!("{} can be read by others (mode {mode:04o}): chmod 600", file.display())))
}

#[cfg(not(unix))]
fn open_to_others(_: &Path) -> std::io::Result<Option<String>> {
    Ok(None)
}

impl fmt::Debug for EnvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_quotes_and_comments() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".env");
        std::fs::write(&file, "# note\n\nBACKUP_T_A=1\nexport BACKUP_T_B=\"x = y\"\nBACKUP_T_C='#'\n")
            .unwrap();
        let env = EnvFile::load(&file).unwrap();
        assert_eq!(env.get("BACKUP_T_B").as_deref(), Some("x = y"));
        assert_eq!(env.get("BACKUP_T_C").as_deref(), Some("#"));
        assert!(!format!("{env:?}").contains("x = y"), "values may be secrets");
        std::fs::write(&file, "A=1\nnonsense\n").unwrap();
        assert!(EnvFile::load(&file).unwrap_err().to_string().contains(".env:2"));
    }
}
