//! Writing out what is restored while the rest is being made, so that the end waits for little.

use crate::system;
use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Relaxed, Release},
        },
    },
    thread,
};

/// Each time, the file system writes its journal: less is not worth it.
const EVERY: u64 = 64 << 20;

/// What is written on one file system.
pub(crate) struct WriteOut {
    folder: Arc<OwnedFd>,
    written: AtomicU64,
    running: Arc<AtomicBool>,
}

impl WriteOut {
    /// On the file system of this folder. It must be opened for this alone: an error of the disk is told once to each that has
    /// opened something there, and whoever makes all durable at the end must hear of it.
    pub(crate) fn new(folder: OwnedFd) -> Self {
        WriteOut { folder: Arc::new(folder), written: AtomicU64::new(0), running: Arc::default() }
    }

    /// So many bytes more were written. Never waits.
    pub(crate) fn wrote(&self, bytes: u64) {
        let before = self.written.fetch_add(bytes, Relaxed);
        if before / EVERY == (before + bytes) / EVERY || self.running.swap(true, AcqRel) {
            return;
        }
        let (folder, running) = (self.folder.clone(), self.running.clone());
        let begun = thread::Builder::new().name("restore-sync".into()).spawn(move || {
            // What fails here fails at the end, too, and is told there.
            let _ = system::sync_filesystem(folder.as_fd());
            running.store(false, Release);
        });
        if begun.is_err() {
            self.running.store(false, Release);
        }
    }
}
