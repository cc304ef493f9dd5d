//! Readers that go through the same frames keep together: what was decompressed for one is there for the others.
//!
//! The components of a backup lie between each other in the archive. Read each on its own, every frame would be decompressed once
//! for each of them, as soon as the first is further ahead than the frames that are kept. A party is what reads for one component:
//! one who goes through its small files, and others for each of its large ones. Within a party nobody waits: no frame is read twice.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// So many frames may one be ahead of the last.
const APART: usize = 1;
/// Who has not come to another frame for so long is not waited for: its store is slow, or waits for another.
const PATIENCE: Duration = Duration::from_millis(100);
/// No frame is waited for longer than this: at worst one is decompressed again.
const MOST_PATIENCE: Duration = Duration::from_secs(2);

/// All who are on the way.
#[derive(Default)]
pub(super) struct Convoy {
    seats: Mutex<HashMap<u64, Place>>,
    next: AtomicU64,
    moved: Notify,
}

#[derive(Clone, Copy)]
struct Place {
    party: u64,
    frame: usize,
    since: Instant,
}

/// One who reads from a frame to later ones. Leaves the convoy when it is dropped.
pub(super) struct Seat {
    convoy: Arc<Convoy>,
    number: u64,
    party: u64,
}

impl Convoy {
    /// The first of a new party.
    pub(super) fn join(self: &Arc<Self>) -> Seat {
        let party = self.next.fetch_add(1, Relaxed);
        self.sit_down(party, 0)
    }

    fn sit_down(self: &Arc<Self>, party: u64, frame: usize) -> Seat {
        let number = self.next.fetch_add(1, Relaxed);
        self.seats().insert(number, Place { party, frame, since: Instant::now() });
        Seat { convoy: self.clone(), number, party }
    }

    /// How many read, of all parties.
    pub(super) fn count(&self) -> usize {
        self.seats().len()
    }

    fn seats(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Place>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// One who has nobody to wait for.
    pub(super) fn alone() -> Seat {
        Arc::new(Convoy::default()).join()
    }

    /// Another of the party reads from frame `from` to `to`; this one goes on behind that.
    pub(super) fn hand_over(&self, from: usize, to: usize) -> Seat {
        let other = self.convoy.sit_down(self.party, from);
        self.stand_at(to);
        other
    }

    fn stand_at(&self, frame: usize) {
        if let Some(mine) = self.convoy.seats().get_mut(&self.number)
            && mine.frame != frame
        {
            *mine = Place { frame, since: Instant::now(), ..*mine };
            self.convoy.moved.notify_waiters();
        }
    }

    /// Comes to this frame, and waits there for those behind. Never longer than `PATIENCE` while none of them moves, nor than
    /// `MOST_PATIENCE` in all: who holds a connection open must not be kept from it while others go a long way.
    pub(super) async fn come_to(&self, frame: usize) {
        self.stand_at(frame);
        let until = Instant::now() + MOST_PATIENCE;
        loop {
            let moved = self.convoy.moved.notified();
            tokio::pin!(moved);
            // Whoever moves from here on is noticed.
            moved.as_mut().enable();
            let Some(left) = self.left_to_wait(frame) else { return };
            let in_all = until.saturating_duration_since(Instant::now());
            if in_all.is_zero() {
                return;
            }
            let _ = tokio::time::timeout(left.min(in_all), moved).await;
        }
    }

    /// How long the one who is furthest behind may still take; `None` if this one may go on.
    fn left_to_wait(&self, frame: usize) -> Option<Duration> {
        let now = Instant::now();
        let seats = self.convoy.seats();
        let behind = seats.values().filter(|p| p.party != self.party && p.frame + APART < frame);
        let waits = behind.filter_map(|p| PATIENCE.checked_sub(now.duration_since(p.since)));
        waits.filter(|left| !left.is_zero()).max()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.convoy.seats().remove(&self.number);
        self.convoy.moved.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The clock stands still while anybody works: a machine that is slow would use the patience up.
    #[tokio::test(start_paused = true)]
    async fn who_is_ahead_waits_for_who_moves_and_not_for_who_stands() {
        let convoy = Arc::new(Convoy::default());
        let (slow, fast) = (convoy.join(), convoy.join());
        fast.come_to(1).await;
        let began = Instant::now();
        // The other stands still.
        fast.come_to(2).await;
        assert!(began.elapsed() >= PATIENCE / 2);
        slow.come_to(1).await;
        let going = async {
            tokio::time::sleep(PATIENCE / 4).await;
            slow.come_to(2).await;
        };
        let waiting = async {
            fast.come_to(3).await;
            convoy.seats().get(&slow.number).map(|p| p.frame)
        };
        let (_, seen) = tokio::join!(going, waiting);
        assert_eq!(seen, Some(2));
        drop(slow);
        let _large = fast.hand_over(3, 50);
        let began = Instant::now();
        fast.come_to(100).await;
        assert!(began.elapsed() < PATIENCE);
    }
}
