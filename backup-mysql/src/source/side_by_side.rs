//! The rows of one table, read by several sessions and passed on in the order of its primary key.
//!
//! Its own session alone reads longer and longer ranges one after another. As soon as sessions have nothing else to do, ranges are
//! short, and each session reads one into memory while those before it are passed on.

use super::{
    ahead::{Batches, ahead_of},
    ranges::Ranges,
    readers::{Lease, Readers},
    rows::{ROOM, RowsOf, Way},
};
use backup_core::{Error, ErrorKind, Feed, Reservation, Result};
use std::{collections::VecDeque, sync::Arc};
use tokio::{sync::mpsc, task::JoinHandle};

/// Bytes of a range that is read ahead of others.
const SHORT: u64 = 2 << 20;
/// Bytes of a range while nobody helps: no more than this.
const LONG: u64 = 32 * SHORT;
/// Batches of a range that is read ahead, one of which is being filled: about half of a short one. While the rest of one range is passed
/// on as it is read, the beginning of the next one is read; then it stands still until its turn comes. Two sessions have three of
/// them in the memory that a run has on two cores.
const BATCHES_AHEAD: usize = 5;
/// Of a range that is first: as many as of a table that is read as a whole.
const BATCHES_OF_FIRST: usize = 2;

/// A range that is being read.
struct Reading {
    batches: Batches,
    reading: JoinHandle<Result<u64>>,
    /// Memory for what is read before its turn.
    _room: Option<Reservation>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Sessions of a table and the ranges that they read.
struct SideBySide<'a> {
    rows: Arc<RowsOf>,
    ranges: Ranges,
    readers: &'a Arc<Readers>,
    /// In the order of the ranges.
    queue: VecDeque<Reading>,
    idle: Vec<Lease>,
    sessions: usize,
    /// Bytes of the next range while nobody helps.
    alone: u64,
    done: mpsc::UnboundedSender<Lease>,
    all_begun: bool,
}

/// Feeds all rows of the table; returns how many.
pub(super) async fn read_side_by_side(
    rows: Arc<RowsOf>,
    ranges: Ranges,
    own: Lease,
    readers: &Arc<Readers>,
    feed: &Feed,
) -> Result<u64> {
    let (done, mut given_back) = mpsc::unbounded_channel();
    let (queue, idle) = (VecDeque::new(), vec![own]);
    let (sessions, alone, all_begun) = (1, SHORT, false);
    let mut table = SideBySide { rows, ranges, readers, queue, idle, sessions, alone, done, all_begun };
    let mut count = 0;
    loop {
        table.begin_ranges(true).await?;
        let Some(mut first) = table.queue.pop_front() else { return table.ended(count) };
        loop {
            tokio::select! {
                biased;
                batch = first.batches.next() => match batch {
                    Some(batch) => feed.send(batch).await?,
                    None => break,
                },
                Some(lease) = given_back.recv() => {
                    table.idle.push(lease);
                    table.begin_ranges(false).await?;
                }
            }
        }
        count += ended((&mut first.reading).await)?;
        while let Ok(lease) = given_back.try_recv() {
            table.idle.push(lease);
        }
    }
}

fn ended(read: std::result::Result<Result<u64>, tokio::task::JoinError>) -> Result<u64> {
    read.unwrap_or_else(|e| match e.is_panic() {
        true => Err(Error::new(ErrorKind::Panicked, "read the rows", "the reader panicked")),
        false => Err(Error::cancelled()),
    })
}

impl SideBySide<'_> {
    /// Nothing is read any more: because all is.
    fn ended(&self, count: u64) -> Result<u64> {
        match self.all_begun {
            true => Ok(count),
            false => {
                Err(Error::new(ErrorKind::Source, "read the rows", "every session of the table is lost"))
            }
        }
    }

    /// Gives each session that has nothing to do the next range. `nobody_reads`: unless one waits, the next one is first, and is let
    /// begin whatever memory there is.
    async fn begin_ranges(&mut self, nobody_reads: bool) -> Result<()> {
        while !self.all_begun && self.queue.len() <= self.sessions {
            let alone = self.sessions == 1 && !self.readers.has_spare();
            let room = if alone { None } else { self.readers.room_ahead(BATCHES_AHEAD * ROOM) };
            if !alone && room.is_none() && !(nobody_reads && self.queue.is_empty()) {
                return Ok(());
            }
            let lease = match self.idle.pop() {
                Some(lease) => Some(lease),
                None => self.readers.spare().inspect(|_| self.sessions += 1),
            };
            let Some(mut lease) = lease else { return Ok(()) };
            let bytes = if alone { self.alone } else { SHORT };
            if alone {
                self.alone = LONG.min(2 * bytes);
            }
            let next = self.ranges.next(lease.session()?, bytes).await;
            match next.map_err(|e| self.rows.failed(e))? {
                Some(range) => self.queue.push_back(self.begin(lease, self.ranges.of_range(range), room)),
                // The other sessions end with their ranges.
                None => self.all_begun = true,
            }
        }
        Ok(())
    }

    fn begin(&self, mut lease: Lease, only: String, room: Option<Reservation>) -> Reading {
        let (out, batches) = ahead_of(if room.is_some() { BATCHES_AHEAD - 1 } else { BATCHES_OF_FIRST });
        let (rows, done) = (self.rows.clone(), self.done.clone());
        let reading = tokio::spawn(async move {
            let read = rows.read(&mut lease, &only, Way::Ahead(out)).await;
            if read.is_ok() {
                // Where nobody takes it any more it goes back to all.
                let _ = done.send(lease);
            }
            read
        });
        Reading { batches, reading, _room: room }
    }
}
