//! Which folders on this machine have held backups, so that a disk which is not mounted is noticed: its folder would be made anew,
//! and be a complete archive with one backup in it.

use crate::ArchiveSpec;
use backup_core::{Error, ErrorKind, Result, portable::Compression};
use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

/// Where it is kept, in the state folder.
const ARCHIVES: &str = "archives";

impl ArchiveSpec {
    /// Before a backup is made: what `missing_backups` says; if that is an error, it is one of making a backup here, until there is one or
    /// `remember_filled` is called. Blocks on files.
    pub fn expect_filled(&mut self, state_dir: &Path) -> Option<String> {
        match self.missing_backups(state_dir) {
            Ok(warning) => warning,
            Err(e) => {
                self.refused = Some(e);
                None
            }
        }
    }

    /// Backups were made here before (`remember_filled`), and there is nothing now: a warning. If the folder is in another file system
    /// than it was, and has no backup, it is an error instead. Only of folders on this machine. Blocks on files.
    pub fn missing_backups(&self, state_dir: &Path) -> Result<Option<String>> {
        let Some((folder, mark)) = self.mark(state_dir) else { return Ok(None) };
        let Ok(then) = fs::read_to_string(mark) else { return Ok(None) };
        let names: Vec<_> =
            fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
        if names.iter().any(|name| is_of_a_backup(name)) {
            return Ok(None);
        }
        let moved = file_system(&folder).is_some_and(|now| !then.is_empty() && now != then);
        if !moved {
            let warning =
                format!("{self} has held backups before, and nothing is there now: is its disk mounted?");
            return Ok(names.is_empty().then_some(warning));
        }
        let text = "it is a place for backups on another disk, and none is there now";
        let hint = format!("mount its disk; `backup init {self}` if backups are to begin anew there");
        Err(Error::new(ErrorKind::Destination, "use the destination", text).on(self).hint(hint))
    }

    /// Keeps in mind that backups are made here, and on which disk. What cannot be written is not known later. Blocks on files.
    pub fn remember_filled(&self, state_dir: &Path) {
        let Some((folder, mark)) = self.mark(state_dir) else { return };
        let now = file_system(&folder).unwrap_or_default();
        if fs::read_to_string(&mark).ok().is_none_or(|then| then != now)
            && let Some(above) = mark.parent()
            && make_private(above).is_ok()
        {
            let _ = fs::write(mark, now);
        }
    }

    /// The folder, and the file that says that it held backups. Not of exactly one file: its folder may be emptied by others.
    fn mark(&self, state_dir: &Path) -> Option<(PathBuf, PathBuf)> {
        let folder = self.local_folder().filter(|folder| Some(&**folder) == self.local_path())?;
        let folder = std::path::absolute(folder).ok()?;
        let name = escaped(folder.as_os_str());
        // Names have at most 255 bytes.
        (name.len() <= 255).then(|| (folder, state_dir.join(ARCHIVES).join(name)))
    }
}

/// Whether a file is called like a backup; what is hidden is none yet.
fn is_of_a_backup(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    !name.starts_with('.') && Compression::of_name(&name).is_some()
}

/// That of the folder, or of what there is above it; `None` where the system does not tell them apart.
fn file_system(folder: &Path) -> Option<String> {
    #[cfg(unix)]
    {
        let there = folder.ancestors().find(|path| path.exists())?;
        let id = rustix::fs::statvfs(there).ok()?.f_fsid;
        // Of network file systems it is 0, which tells them from what is below when they are not mounted.
        Some(format!("{id:016x}"))
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
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
        let mut archive = crate::archive::at(disk.join("backups").to_str().unwrap());
        assert!(archive.expect_filled(&state).is_none(), "nothing is known of it");
        fs::create_dir_all(disk.join("backups")).unwrap();
        fs::write(disk.join("backups/x"), "").unwrap();
        archive.remember_filled(&state);
        assert!(archive.expect_filled(&state).is_none());
        fs::rename(disk.join("backups/x"), disk.join("x")).unwrap();
        assert!(archive.expect_filled(&state).is_some());
        fs::remove_dir(disk.join("backups")).unwrap();
        assert!(archive.expect_filled(&state).is_some() && archive.refused.is_none());
        // As if it had been on a disk that is not mounted now.
        let (_, mark) = archive.mark(&state).unwrap();
        fs::write(&mark, "0123").unwrap();
        assert!(archive.expect_filled(&state).is_none() && archive.refused.is_some());
        // What marks a mount point is no backup.
        fs::create_dir(disk.join("backups")).unwrap();
        for (name, refused) in
            [("NOT_MOUNTED", true), (".x.tar.zst.1.incomplete", true), ("x.tar.zst.age", false)]
        {
            fs::write(disk.join("backups").join(name), "").unwrap();
            archive.refused = None;
            assert!(
                archive.expect_filled(&state).is_none() && archive.refused.is_some() == refused,
                "{name}"
            );
        }
        archive.remember_filled(&state);
        assert_ne!(fs::read_to_string(&mark).unwrap(), "0123");
        for other in ["s3://bucket/prefix", disk.join("x.tar.zst").to_str().unwrap()] {
            crate::archive::at(other).remember_filled(&state);
        }
        assert_eq!(fs::read_dir(state.join(ARCHIVES)).unwrap().count(), 1);
    }
}
