//! Threads that make small things, so that a put of one need not wait for the disk.

use crate::make::{Job, Maker, Parents};
use backup_core::{Error, ErrorKind, Result};
use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc,
    },
    thread,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Kibibytes of data that may wait: eight mebibytes, or 1024 small files.
const ROOM: u32 = 8192;
const LEAST: u32 = 8;
/// So many jobs, or kibibytes of data, go to a thread at once: they are mostly in one folder, and waking a thread, or the
/// task that waits for room, costs as much as making a small file.
const RUN: usize = 32;
const RUN_ROOM: usize = 256;

/// Jobs that go to one thread, and the room that they take.
struct Run {
    jobs: Vec<Job>,
    room: OwnedSemaphorePermit,
}

/// Jobs are done in any order; the first failure ends all.
pub(crate) struct Pool {
    queues: Vec<mpsc::Sender<Run>>,
    next: AtomicUsize,
    /// Jobs that are not with a thread yet.
    open: Mutex<Option<Run>>,
    /// Pushes that wait for room: while there are any, no job may stay in `open`.
    waiting: AtomicUsize,
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
        Ok(Pool {
            queues,
            next: AtomicUsize::new(0),
            open: Mutex::default(),
            waiting: AtomicUsize::new(0),
            room,
            failure,
        })
    }

    /// Takes a job when there is room for it. An error is that of any earlier job.
    pub(crate) async fn push(&self, job: Job) -> Result<()> {
        let bytes = match &job {
            Job::File(_, data) => data.len(),
            Job::Node(_) | Job::Folder(_) => 0,
        };
        let kibibytes = u32::try_from(bytes / 1024).unwrap_or(ROOM).clamp(LEAST, ROOM);
        let room = self.acquire(kibibytes).await?;
        self.check()?;
        let full = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *open {
                Some(run) => {
                    run.jobs.push(job);
                    run.room.merge(room);
                }
                None => *open = Some(Run { jobs: vec![job], room }),
            }
            let full = |run: &Run| run.jobs.len() >= RUN || run.room.num_permits() >= RUN_ROOM;
            if self.waiting.load(SeqCst) > 0 || open.as_ref().is_some_and(full) { open.take() } else { None }
        };
        self.send(full)
    }

    /// Room for so many kibibytes. What is in `open` goes to a thread before this waits: its room would never come back.
    async fn acquire(&self, kibibytes: u32) -> Result<OwnedSemaphorePermit> {
        if let Ok(room) = self.room.clone().try_acquire_many_owned(kibibytes) {
            return Ok(room);
        }
        self.waiting.fetch_add(1, SeqCst);
        let _waits = Waits(&self.waiting);
        self.flush()?;
        self.room.clone().acquire_many_owned(kibibytes).await.map_err(|_| Error::cancelled())
    }

    fn flush(&self) -> Result<()> {
        let run = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.send(run)
    }

    fn send(&self, run: Option<Run>) -> Result<()> {
        let Some(run) = run else { return Ok(()) };
        let turn = self.next.fetch_add(1, Relaxed) % self.queues.len();
        self.queues[turn].send(run).map_err(|_| panicked())
    }

    /// For something that is made outside of the pool: held until it is made, so that `stop` waits for it.
    pub(crate) async fn enter(&self) -> Result<OwnedSemaphorePermit> {
        let room = self.acquire(LEAST).await?;
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
        drop(self.acquire(ROOM).await?);
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

struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn work(runs: &mpsc::Receiver<Run>, maker: &Maker, failure: &OnceLock<Error>) {
    let mut parents = Parents::default();
    for Run { jobs, room } in runs {
        for job in jobs {
            if failure.get().is_some() {
                break;
            }
            let make = std::panic::AssertUnwindSafe(|| maker.run(&mut parents, &job));
            if let Err(e) = std::panic::catch_unwind(make).unwrap_or_else(|_| Err(panicked())) {
                let _ = failure.set(e); // an earlier one tells as much
            }
        }
        drop(room);
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::Panicked, "restore", "a restoring thread panicked")
}
