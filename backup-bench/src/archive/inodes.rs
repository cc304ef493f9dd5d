//! Inodes that were freed a short time ago make ext4 slow.
//!
//! It does not give out an inode again for up to six minutes after it was freed (`recently_deleted` in
//! fs/ext4/ialloc.c: 60 s, and 300 s more while its table is dirty) and looks at them one by one meanwhile: extracting
//! 2,500 files has been seen to take 0.05 s and, after a removal, 4 s. So nothing large is removed while a
//! race runs, and a race that follows another one waits.

use super::{Result, remove};
use crate::failure::Doing;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

const REMEMBERED: Duration = Duration::from_secs(360);

/// Empties the folder for archives and restored trees, and notes when.
pub(super) fn free(work: &Path) -> Result<()> {
    if work.exists() {
        remove(work)?;
        let note = work.with_extension("removed");
        fs::write(&note, "").doing(note.display())?;
    }
    Ok(())
}

/// Waits until the file system has forgotten what the last race removed.
pub(super) fn wait_until_forgotten(work: &Path) {
    let removed = fs::metadata(work.with_extension("removed")).and_then(|m| m.modified());
    let left = removed.map_or(Duration::ZERO, |at| left(at, SystemTime::now()));
    if !left.is_zero() {
        eprintln!("waiting {} s: a race has removed its files a short time ago", left.as_secs());
        std::thread::sleep(left);
    }
}

fn left(removed: SystemTime, now: SystemTime) -> Duration {
    // A clock that was set back is no reason to wait for long.
    now.duration_since(removed).map_or(REMEMBERED, |ago| REMEMBERED.saturating_sub(ago))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_race_soon_after_another_waits_and_a_late_one_does_not() {
        let at = SystemTime::UNIX_EPOCH;
        assert_eq!(left(at, at + Duration::from_secs(60)), Duration::from_secs(300));
        assert_eq!(left(at, at + Duration::from_secs(400)), Duration::ZERO);
    }

    #[test]
    fn what_is_removed_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let work = dir.path().join("work");
        free(&work).unwrap();
        assert!(!dir.path().join("work.removed").exists());
        fs::create_dir_all(work.join("x")).unwrap();
        free(&work).unwrap();
        assert!(!work.exists() && dir.path().join("work.removed").exists());
    }
}
