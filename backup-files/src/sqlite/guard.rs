//! How to know, without stopping anybody, that a file stays as it is, and who has it open.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Cancelled;
use super::error::SqliteError;
use crate::system::{self, RangeLock};

/// Who has a database open, by the byte ranges SQLite locks (<https://sqlite.org/src/file/src/os.h>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    /// At least one connection that reads or may write; in WAL mode every connection looks so.
    Readers,
    /// A writer which keeps readers out, now or in a moment.
    Exclusive,
    /// This system cannot tell.
    Unknown,
}

const PENDING_BYTE: u64 = 0x4000_0000;
const RESERVED_BYTE: u64 = PENDING_BYTE + 1;
const SHARED_FIRST: u64 = PENDING_BYTE + 2;
const SHARED_SIZE: u64 = 510;

/// Asks without locking. Connections of this process are not seen: see [`locked_by_this_process`].
pub(super) fn holder(file: &File) -> Holder {
    let pending = system::range_lock(file, PENDING_BYTE, 1);
    let reserved = system::range_lock(file, RESERVED_BYTE, 1);
    let shared = system::range_lock(file, SHARED_FIRST, SHARED_SIZE);
    match (pending, reserved, shared) {
        (Err(_), _, _) | (_, Err(_), _) | (_, _, Err(_)) => Holder::Unknown,
        (Ok(RangeLock::Write), _, _) | (_, _, Ok(RangeLock::Write)) => Holder::Exclusive,
        (Ok(RangeLock::Free), Ok(RangeLock::Free), Ok(RangeLock::Free)) => Holder::Nobody,
        _ => Holder::Readers,
    }
}

/// Device and inode of every file on which this process holds a POSIX lock, the mark of a SQLite connection of the
/// embedding program. Opening and closing such a file by other means than SQLite would drop those locks.
/// Empty where the system does not say.
#[must_use]
pub fn locked_by_this_process() -> BTreeSet<(u64, u64)> {
    system::locked_by_this_process()
}

/// An open database, closed only when that drops no lock of a connection of this process.
#[derive(Debug)]
pub(super) struct DatabaseFile(Option<Arc<File>>);

impl DatabaseFile {
    pub(super) fn new(file: File) -> DatabaseFile {
        DatabaseFile(Some(Arc::new(file)))
    }

    /// The same descriptor once more.
    pub(super) fn share(&self) -> DatabaseFile {
        DatabaseFile(self.0.clone())
    }
}

impl Deref for DatabaseFile {
    type Target = File;

    #[allow(clippy::expect_used, reason = "only drop takes it")]
    fn deref(&self) -> &File {
        self.0.as_ref().expect("open until dropped")
    }
}

impl Drop for DatabaseFile {
    fn drop(&mut self) {
        if let Some(file) = self.0.take().and_then(Arc::into_inner) {
            system::close_database(file);
        }
    }
}

/// What of a file changes when it is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    identity: (u64, u64),
    size: u64,
    modified: Option<SystemTime>,
    changed: (i64, u32),
}

impl Fingerprint {
    pub(super) fn of(file: &File) -> io::Result<Fingerprint> {
        Ok(Fingerprint::from_metadata(&file.metadata()?))
    }

    pub(super) fn from_metadata(metadata: &Metadata) -> Fingerprint {
        Fingerprint {
            identity: system::identity(metadata),
            size: metadata.len(),
            modified: metadata.modified().ok(),
            changed: system::change_time(metadata),
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Err(Changed) unless the file still has this fingerprint.
    pub(super) fn verify(&self, file: &File) -> Result<(), SqliteError> {
        if Fingerprint::of(file)? == *self { Ok(()) } else { Err(SqliteError::Changed) }
    }

    /// How long until a write would for certain give other times. A file system's clock ticks every 1 to 10 ms, on
    /// some (FAT, ext3) every one or two seconds: two writes within one tick look like one.
    fn unsettled_for(&self, now: SystemTime) -> Duration {
        let (seconds, nanoseconds) = self.changed;
        let tick = Duration::from_millis(if nanoseconds == 0 { 2_100 } else { 50 });
        let Some(changed) =
            u64::try_from(seconds).ok().map(|seconds| UNIX_EPOCH + Duration::new(seconds, nanoseconds))
        else {
            return Duration::ZERO;
        };
        match now.duration_since(changed) {
            Ok(age) => tick.saturating_sub(age),
            // Clocks of a file server may be ahead a little; a change time far ahead differs from that of any write.
            Err(ahead) if ahead.duration() < tick => tick,
            Err(_) => Duration::ZERO,
        }
    }
}

/// The fingerprint of a file which nobody is writing to, after waiting for its clock's tick to pass. What is read of
/// the file, or opened beside it, from then on belongs together if the fingerprint is the same in the end.
pub(super) fn settled(
    file: &File,
    limit: Duration,
    cancelled: &Cancelled,
) -> Result<Fingerprint, SqliteError> {
    let fingerprint = Fingerprint::of(file)?;
    let start = Instant::now();
    loop {
        let wait = fingerprint.unsettled_for(SystemTime::now());
        if wait.is_zero() {
            return Ok(fingerprint);
        }
        if start.elapsed() + wait > limit.max(Duration::from_millis(200)) {
            return Err(SqliteError::Changed);
        }
        if cancelled.asked() {
            return Err(SqliteError::Cancelled);
        }
        std::thread::sleep(wait.min(Duration::from_millis(50)));
        fingerprint.verify(file)?;
    }
}
