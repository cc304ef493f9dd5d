//! The bytes of an archive at rest.

use crate::Must;
use std::path::{Path, PathBuf};

/// What an archive keeps, piece by piece: files, objects.
pub trait Raw: Send + Sync {
    /// Names and lengths of all pieces.
    fn pieces(&self) -> Vec<(String, u64)>;

    /// All of a piece.
    fn read(&self, name: &str) -> Vec<u8>;

    /// Replaces a piece; `None` removes it.
    fn write(&self, name: &str, bytes: Option<&[u8]>);
}

/// The files below a folder.
pub struct RawFolder(PathBuf);

impl RawFolder {
    /// All below `folder`, except symbolic links.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        RawFolder(folder.into())
    }
}

impl Raw for RawFolder {
    fn pieces(&self) -> Vec<(String, u64)> {
        let mut out = Vec::new();
        walk(&self.0, "", &mut out);
        out.sort();
        out
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).must("read a piece of the archive")
    }

    fn write(&self, name: &str, bytes: Option<&[u8]>) {
        let path = self.0.join(name);
        match bytes {
            Some(bytes) => std::fs::write(path, bytes).must("write a piece of the archive"),
            None => std::fs::remove_file(path).must("remove a piece of the archive"),
        }
    }
}

fn walk(folder: &Path, above: &str, out: &mut Vec<(String, u64)>) {
    let Ok(list) = std::fs::read_dir(folder) else { return };
    for entry in list.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        let name = format!("{above}{}", entry.file_name().to_string_lossy());
        if kind.is_dir() {
            walk(&entry.path(), &format!("{name}/"), out);
        } else if kind.is_file() {
            out.push((name, entry.metadata().map_or(0, |m| m.len())));
        }
    }
}
