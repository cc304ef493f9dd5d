//! Batches of rows that are read before it is their turn. As many bytes of them wait as those of a few usual batches take, however long a
//! row is: a batch that is longer waits alone.

use super::rows::ROOM;
use backup_core::{Error, Result};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// What bytes are counted in.
const UNIT: usize = 1 << 10;

/// Where they go.
pub(super) struct Ahead {
    out: mpsc::Sender<(Bytes, OwnedSemaphorePermit)>,
    share: Arc<Semaphore>,
    /// Units of the whole share.
    units: usize,
}

/// Where they come from, in their order.
pub(super) struct Batches(mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>);

/// Room for so many usual batches.
pub(super) fn ahead_of(batches: usize) -> (Ahead, Batches) {
    let (out, waiting) = mpsc::channel(batches);
    let units = batches * ROOM / UNIT;
    (Ahead { out, share: Arc::new(Semaphore::new(units)), units }, Batches(waiting))
}

impl Ahead {
    /// Waits for room. An error: nobody takes it any more.
    pub(super) async fn send(&self, batch: Bytes) -> Result<()> {
        let units = batch.len().div_ceil(UNIT).min(self.units);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        let room = self.share.clone().acquire_many_owned(units).await.map_err(|_| Error::cancelled())?;
        self.out.send((batch, room)).await.map_err(|_| Error::cancelled())
    }
}

impl Batches {
    /// `None`: all have come.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.0.recv().await.map(|(batch, _room)| batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        time::Duration,
    };

    /// How many of ten batches of so many bytes wait.
    async fn waiting(bytes: usize) -> usize {
        let (ahead, mut batches) = ahead_of(8);
        let sent = Arc::new(AtomicUsize::new(0));
        let count = sent.clone();
        let sender = tokio::spawn(async move {
            for n in 0..10u8 {
                ahead.send(Bytes::from(vec![n; bytes])).await.unwrap();
                count.fetch_add(1, SeqCst);
            }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let waiting = sent.load(SeqCst);
        for n in 0..10 {
            assert_eq!(batches.next().await.unwrap().first(), Some(&n), "in their order");
        }
        assert!(batches.next().await.is_none());
        sender.await.unwrap();
        waiting
    }

    #[tokio::test]
    async fn bytes_are_bounded_that_wait_and_not_batches_alone() {
        assert_eq!(waiting(ROOM).await, 8);
        assert_eq!(waiting(4 * ROOM).await, 2);
        assert_eq!(waiting(32 * ROOM).await, 1, "one that is longer than the share waits alone");
    }
}
