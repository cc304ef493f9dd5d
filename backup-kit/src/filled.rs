//! Which folders on this machine have held backups, so that a disk which is not mounted is noticed: its folder would be made anew,
//! and be a complete archive with one backup in it.

use crate::ArchiveSpec;
use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

/// Where it is kept, in the state folder.
const ARCHIVES: &str = "archives";

impl ArchiveSpec {
    /// Whether backups were made here before (`remember_filled`), and there is nothing now. Only of folders on this machine. Blocks
    /// on files.
    pub fn is_emptied(&self, state_dir: &Path) -> bool {
        let Some((folder, mark)) = self.mark(state_dir) else { return false };
        mark.exists() && fs::read_dir(folder).map_or(true, |mut names| names.next().is_none())
    }

    /// Keeps in mind that backups were made here. What cannot be written is not known later: no more than a warning hangs on it.
    /// Blocks on files.
    pub fn remember_filled(&self, state_dir: &Path) {
        if let Some((_, mark)) = self.mark(state_dir)
            && !mark.exists()
            && let Some(folder) = mark.parent()
            && make_private(folder).is_ok()
        {
            let _ = fs::File::create(mark);
        }
    }

    /// The folder, and the file that says that it held backups.
    fn mark(&self, state_dir: &Path) -> Option<(PathBuf, PathBuf)> {
        let folder = std::path::absolute(self.local_folder()?).ok()?;
        let name = escaped(folder.as_os_str());
        // Names have at most 255 bytes.
        (name.len() <= 255).then(|| (folder, state_dir.join(ARCHIVES).join(name)))
    }
}

/// With those above it. The journals of restores will be beside it.
fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// A name of one file for a path: letters, digits and a few others as they are.
fn escaped(path: &OsStr) -> String {
    let keep = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    path.as_encoded_bytes()
        .iter()
        .map(|byte| if keep(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_held_backups_and_is_gone_or_empty_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (state, disk) = (dir.path().join("state"), dir.path().join("disk"));
        let archive = crate::archive::at(disk.join("backups").to_str().unwrap());
        assert!(!archive.is_emptied(&state), "nothing is known of it");
        fs::create_dir_all(disk.join("backups")).unwrap();
        fs::write(disk.join("backups/x"), "").unwrap();
        archive.remember_filled(&state);
        assert!(!archive.is_emptied(&state));
        fs::rename(disk.join("backups/x"), disk.join("x")).unwrap();
        assert!(archive.is_emptied(&state));
        fs::remove_dir(disk.join("backups")).unwrap();
        assert!(archive.is_emptied(&state));
        let remote = crate::archive::at("s3://bucket/prefix");
        remote.remember_filled(&state);
        assert_eq!(fs::read_dir(state.join(ARCHIVES)).unwrap().count(), 1);
    }
}
