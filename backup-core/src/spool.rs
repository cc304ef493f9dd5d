//! Where files go that are large and of the moment.

use std::path::PathBuf;

/// The folder for large temporary files: `$TMPDIR`, else `/var/tmp`, which is on a disk where `/tmp` may be in memory.
pub fn spool_folder() -> PathBuf {
    let large = PathBuf::from("/var/tmp");
    match std::env::var_os("TMPDIR").is_none_or(|v| v.is_empty()) && large.is_dir() {
        true => large,
        false => std::env::temp_dir(),
    }
}
