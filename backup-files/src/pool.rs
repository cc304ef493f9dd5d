//! Threads that make small things, so that a put of one need not wait for the disk.

use crate::make::{Job, Maker, Parents};
use backup_core::{Error, ErrorKind, Result};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Kibibytes of data that may wait: eight mebibytes, or 1024 small files.
const ROOM: u32 = 8192;
const LEAST: u32 = 8;
/// So many jobs in a row go to one thread: they are mostly in one folder, and a thread is woken for many of them.
const RUN: usize = 32;

/// Jobs are done in any order; the first failure ends all.
pub(crate) struct Pool {
    queues: Vec<mpsc::Sender<(Job, OwnedSemaphorePermit)>>,
    next: AtomicUsize,
    room: Arc<Semaphore>,
    failure: Arc<OnceLock<Error>>,
}

impl Pool {
    /// So many threads; they end when the pool is dropped.
    pub(crate) fn new(threads: usize, maker: &Arc<Maker>) -> Result<Self> {
        let (room, failure) = (Arc::new(Semaphore::new(ROOM as usize)), Arc::new(OnceLock::new()));
        let mut queues = Vec::new();
        for _ in 0..threads.clamp(1, 8) {
            let (queue, jobs) = mpsc::channel();
            let (maker, failure) = (maker.clone(), failure.clone());
            let work = move || work(&jobs, &maker, &failure);
            thread::Builder::new()
                .name("restore-files".into())
                .spawn(work)
                .map_err(|e| Error::io(ErrorKind::Target, "start a thread", e))?;
            queues.push(queue);
        }
        Ok(Pool { queues, next: AtomicUsize::new(0), room, failure })
    }

    /// Takes a job when there is room for it. An error is that of any earlier job.
    pub(crate) async fn push(&self, job: Job) -> Result<()> {
        let bytes = match &job {
            Job::File(_, data) => data.len(),
            Job::Node(_) | Job::Folder(_) => 0,
        };
        let kibibytes = u32::try_from(bytes / 1024).unwrap_or(ROOM).clamp(LEAST, ROOM);
        let room = self.room.clone().acquire_many_owned(kibibytes).await.map_err(|_| Error::cancelled())?;
        self.check()?;
        let turn = self.next.fetch_add(1, Relaxed) / RUN % self.queues.len();
        self.queues[turn].send((job, room)).map_err(|_| panicked())
    }

    /// For something that is made outside of the pool: held until it is made, so that `stop` waits for it.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit> {
        let room = self.room.clone().acquire_many_owned(LEAST).await.map_err(|_| Error::cancelled())?;
        self.check()?;
        Ok(room)
    }

    /// Makes nothing more; nothing is being made any more when this returns.
    pub(crate) async fn stop(&self) {
        self.fail(Error::cancelled());
        let _ = self.drain().await; // says only that it was stopped
    }

    /// Waits until every job is done.
    pub(crate) async fn drain(&self) -> Result<()> {
        let all = self.room.acquire_many(ROOM).await.map_err(|_| Error::cancelled())?;
        drop(all);
        self.check()
    }

    /// Lets every later job fail with this.
    pub(crate) fn fail(&self, e: Error) {
        let _ = self.failure.set(e); // an earlier one tells as much
    }

    /// The failure of any job so far.
    pub(crate) fn check(&self) -> Result<()> {
        match self.failure.get() {
            Some(e) => Err(e.clone()),
            None => Ok(()),
        }
    }
}

fn work(jobs: &mpsc::Receiver<(Job, OwnedSemaphorePermit)>, maker: &Maker, failure: &OnceLock<Error>) {
    let mut parents = Parents::default();
    for (job, room) in jobs {
        if failure.get().is_none() {
            let run = std::panic::AssertUnwindSafe(|| maker.run(&mut parents, &job));
            if let Err(e) = std::panic::catch_unwind(run).unwrap_or_else(|_| Err(panicked())) {
                let _ = failure.set(e); // an earlier one tells as much
            }
        }
        drop(room);
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::Panicked, "restore", "a restoring thread panicked")
}
