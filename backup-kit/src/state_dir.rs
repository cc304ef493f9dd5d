//! Where the journals of restores are kept on this machine.

use backup_core::{Error, ErrorKind, Result};
use std::{env, path::PathBuf};

/// `$BACKUP_STATE_DIR`, else `$XDG_STATE_HOME/backup`, else `$HOME/.local/state/backup`, else `/var/lib/backup`. It is not
/// made here. A relative path is an error: journals must be found again from any folder.
pub fn state_dir() -> Result<PathBuf> {
    choose(|name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from))
}

fn choose(var: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf> {
    let (from, dir) = if let Some(dir) = var("BACKUP_STATE_DIR") {
        ("BACKUP_STATE_DIR", dir)
    } else if let Some(dir) = var("XDG_STATE_HOME") {
        ("XDG_STATE_HOME", dir.join("backup"))
    } else if let Some(home) = var("HOME") {
        ("HOME", home.join(".local/state/backup"))
    } else {
        ("", PathBuf::from("/var/lib/backup"))
    };
    if dir.is_absolute() {
        return Ok(dir);
    }
    Err(Error::new(ErrorKind::Usage, "find the state folder", "it must be an absolute path")
        .on(format!("{from}={}", dir.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(vars: &[(&str, &str)]) -> Result<PathBuf> {
        choose(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| PathBuf::from(v)))
    }

    #[test]
    fn the_most_specific_variable_wins() {
        let all = [("BACKUP_STATE_DIR", "/s"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(with(&all).unwrap(), PathBuf::from("/s"));
        assert_eq!(with(&all[1..]).unwrap(), PathBuf::from("/x/backup"));
        assert_eq!(with(&all[2..]).unwrap(), PathBuf::from("/h/.local/state/backup"));
        assert_eq!(with(&[]).unwrap(), PathBuf::from("/var/lib/backup"));
    }

    #[test]
    fn a_relative_state_folder_is_refused() {
        assert_eq!(with(&[("BACKUP_STATE_DIR", "state")]).unwrap_err().kind(), ErrorKind::Usage);
    }
}
