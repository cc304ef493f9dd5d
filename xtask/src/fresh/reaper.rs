//! Removes a folder when its owner is done or gone.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::{Failure, Outcome};

/// A shell that waits for the end of its input and then removes the folder. The input ends when this process
/// does, also by Ctrl-C or kill -9, where a destructor would not run.
pub(super) struct Reaper(Child);

/// A second try, because a command that is being killed may still be writing.
const WAIT_AND_REMOVE: &str = r#"
trap '' INT TERM HUP
read -r _
rm -rf --one-file-system "$1" || { sleep 5; rm -rf --one-file-system "$1"; }
"#;

impl Reaper {
    pub(super) fn new(folder: &Path) -> Outcome<Self> {
        let shell = Command::new("sh")
            .args(["-c", WAIT_AND_REMOVE, "sh"])
            .arg(folder)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::Failed(format!("sh: {error}")))?;
        Ok(Self(shell))
    }

    pub(super) fn remove(mut self) -> Outcome {
        // wait() closes the shell's input first.
        match self.0.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failure::Failed(format!("removing the fresh root: {status}"))),
            Err(error) => Err(Failure::Failed(format!("removing the fresh root: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_gone_afterwards() {
        let folder = std::env::temp_dir().join(format!("backup-reaper-{}", std::process::id()));
        assert!(std::fs::create_dir_all(folder.join("inside")).is_ok());
        let reaper = Reaper::new(&folder);
        assert!(folder.exists());
        assert!(reaper.is_ok_and(|reaper| reaper.remove().is_ok()));
        assert!(!folder.exists());
    }
}
