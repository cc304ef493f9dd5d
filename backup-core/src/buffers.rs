//! Large buffers that are used again. Megabytes that come and go between threads leave the allocator with a heap for each:
//! a restore took twice the memory that it held.

use bytes::Bytes;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::sync::{Notify, futures::Notified};

/// Buffers that nobody needs at the moment. A clone shares them.
#[derive(Clone)]
pub(crate) struct Buffers(Arc<Idle>);

struct Idle {
    buffers: Mutex<Vec<Vec<u8>>>,
    most: usize,
    /// Bytes that are lent.
    lent: AtomicU64,
    changed: Notify,
}

impl Buffers {
    /// Keeps at most so many; further ones are freed.
    pub(crate) fn new(most: usize) -> Self {
        let (buffers, lent, changed) = (Mutex::default(), AtomicU64::default(), Notify::new());
        Buffers(Arc::new(Idle { buffers, most, lent, changed }))
    }

    /// One of them, or a new one. Length and content are what its last user left.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.0.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// The content as bytes; the buffer comes back when the last of them is dropped.
    pub(crate) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        self.0.lent.fetch_add(bytes.len() as u64, Relaxed);
        Bytes::from_owner(Lent { bytes, home: self.clone() })
    }

    /// Bytes that are lent and not back yet.
    pub(crate) fn lent(&self) -> u64 {
        self.0.lent.load(Relaxed)
    }

    /// Ends when bytes that were lent come back, or somebody wakes all.
    pub(crate) fn changed(&self) -> Notified<'_> {
        self.0.changed.notified()
    }

    /// Whoever waits for a change looks again.
    pub(crate) fn wake(&self) {
        self.0.changed.notify_waiters();
    }

    /// For the next one who takes.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut buffers = self.0.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < self.0.most {
            buffers.push(buffer);
        }
    }
}

struct Lent {
    bytes: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.0.lent.fetch_sub(self.bytes.len() as u64, Relaxed);
        self.home.give_back(std::mem::take(&mut self.bytes));
        self.home.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_bytes_are_dropped() {
        let buffers = Buffers::new(1);
        let lent = buffers.lend(vec![7; 100]);
        let part = lent.slice(10..20);
        drop(lent);
        assert_eq!((buffers.take().capacity(), buffers.lent()), (0, 100));
        drop(part);
        assert_eq!(buffers.lent(), 0);
        assert_eq!(buffers.take(), vec![7; 100]);
    }

    #[test]
    fn no_more_are_kept_than_were_asked_for() {
        let buffers = Buffers::new(1);
        drop((buffers.lend(vec![1]), buffers.lend(vec![2])));
        assert!(buffers.take().capacity() > 0);
        assert_eq!(buffers.take().capacity(), 0);
    }
}
