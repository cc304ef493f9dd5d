//! Whose word is taken: what a journal says is done with the rights of whoever heals, so only what nobody else can have written
//! counts.

use crate::Result;
use std::{fs::File, path::Path};

/// Opens a file that belongs to this user, may be written by nobody else, and is no link. `None`: there is none. `Denied`: it is
/// not like that.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    system::file(path)
}

/// Whether this folder is there. `Denied`: it is not this user's alone, or a link.
pub(super) fn folder(path: &Path) -> Result<bool> {
    system::folder(path)
}

/// Whether both are one folder, by whatever paths it is reached.
pub(super) fn is_same(a: &Path, b: &Path) -> bool {
    system::is_same(a, b).unwrap_or(false)
}

/// Where it was opened is what is asked about, so that nobody can exchange it in between.
#[cfg(unix)]
mod system {
    use crate::{Error, ErrorKind, Result};
    use rustix::fs::{Mode, OFlags, open};
    use std::{
        fs::{self, File, Metadata},
        io,
        os::unix::fs::MetadataExt,
        path::Path,
    };

    pub(super) fn file(path: &Path) -> Result<Option<File>> {
        ours(path, false)
    }

    pub(super) fn folder(path: &Path) -> Result<bool> {
        ours(path, true).map(|folder| folder.is_some())
    }

    fn ours(path: &Path, folder: bool) -> Result<Option<File>> {
        // Not to wait for the other end of a pipe that somebody has put there.
        let mut flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        flags.set(OFlags::DIRECTORY, folder);
        let failed =
            |e: io::Error| Error::io(ErrorKind::Target, "read what a restore has left", e).on(path.display());
        match open(path, flags, Mode::empty()) {
            Ok(fd) => {
                let file = File::from(fd);
                judge(path, &file.metadata().map_err(failed)?, folder)?;
                Ok(Some(file))
            }
            Err(e) => match fs::symlink_metadata(path) {
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    Ok(None)
                }
                Err(e) => Err(failed(e)),
                // It may be a link, or be closed because it is somebody else's.
                Ok(found) => judge(path, &found, folder).and(Err(failed(e.into()))),
            },
        }
    }

    fn judge(path: &Path, found: &Metadata, folder: bool) -> Result<()> {
        let me = rustix::process::geteuid().as_raw();
        let why = if found.is_symlink() {
            "it is a symbolic link".to_owned()
        } else if found.is_dir() != folder || !(folder || found.is_file()) {
            format!("it is no {}", if folder { "folder" } else { "file" })
        } else if found.uid() != me {
            format!("it belongs to the user {}, and this is run by the user {me}", found.uid())
        } else if found.mode() & 0o022 != 0 {
            format!("others may write to it (its mode is {:o})", found.mode() & 0o7777)
        } else {
            return Ok(());
        };
        let message = format!("{why}: it may be anybody's word, and is left alone");
        Err(Error::new(ErrorKind::Denied, "trust the journal of a restore", message).on(path.display()).hint(
            "whose restore it was heals it, as that user; was it nobody's, look at it before removing it",
        ))
    }

    pub(super) fn is_same(a: &Path, b: &Path) -> io::Result<bool> {
        let (a, b) = (fs::metadata(a)?, fs::metadata(b)?);
        Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
    }
}

/// Other systems have no owners that could be asked for here.
#[cfg(not(unix))]
mod system {
    use crate::{Error, ErrorKind, Result};
    use std::{
        fs::{self, File},
        io,
        path::Path,
    };

    pub(super) fn file(path: &Path) -> Result<Option<File>> {
        there(path, File::open(path))
    }

    pub(super) fn folder(path: &Path) -> Result<bool> {
        there(path, fs::metadata(path)).map(|found| found.is_some())
    }

    fn there<T>(path: &Path, found: io::Result<T>) -> Result<Option<T>> {
        match found {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            found => found.map(Some).map_err(|e| {
                Error::io(ErrorKind::Target, "read what a restore has left", e).on(path.display())
            }),
        }
    }

    pub(super) fn is_same(a: &Path, b: &Path) -> io::Result<bool> {
        Ok(fs::canonicalize(a)? == fs::canonicalize(b)?)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn what_others_may_write_a_link_and_a_pipe_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").unwrap();
        fs::create_dir(at("folder")).unwrap();
        for name in ["file", "folder"] {
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::symlink(name, at(&format!("link to {name}"))).unwrap();
        }
        let made = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
        assert!(made.success());
        assert!(open(&at("file")).unwrap().is_some() && folder(&at("folder")).unwrap());
        assert!(open(&at("none")).unwrap().is_none() && !folder(&at("file/none")).unwrap());
        for name in ["folder", "link to file", "pipe"] {
            assert_eq!(open(&at(name)).unwrap_err().kind(), ErrorKind::Denied, "{name}");
        }
        for name in ["file", "link to folder"] {
            assert_eq!(folder(&at(name)).unwrap_err().kind(), ErrorKind::Denied, "{name}");
        }
        for mode in [0o720, 0o702] {
            for name in ["file", "folder"] {
                fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
            }
            assert_eq!(open(&at("file")).unwrap_err().kind(), ErrorKind::Denied);
            assert_eq!(folder(&at("folder")).unwrap_err().kind(), ErrorKind::Denied);
        }
    }
}
