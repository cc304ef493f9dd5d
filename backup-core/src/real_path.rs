//! Where a path really leads.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The path without symbolic links, as far as it exists; the rest as it is written.
pub fn real_path(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = whole.ancestors().find_map(|a| Some((a, fs::canonicalize(a).ok()?)));
    match existing {
        Some((there, real)) => match whole.strip_prefix(there) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => whole,
    }
}
