//! Targets that fail, or are killed, at a step.

use crate::Must;
use async_trait::async_trait;
use backup_core::{
    Content, Context, Entry, Error, ErrorKind, Incoming, Proof, Put, Result, Selection, Sink, Survey, Target,
};
use std::{
    fmt,
    future::{Future, poll_fn},
    path::PathBuf,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};
use tokio::runtime::{Handle, Runtime};

/// A disk that takes longer for what one call asks of it is broken.
const THREADS: Duration = Duration::from_secs(60);

/// A call of a target or of its sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `survey`.
    Survey,
    /// `prepare`.
    Prepare,
    /// `clear`.
    Clear,
    /// A put.
    Put,
    /// `finish` of the sink.
    Finish,
    /// `publish`.
    Publish,
    /// `revert`.
    Revert,
    /// `settle`.
    Settle,
}

/// What happens at the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An error; the call is not made.
    Fails,
    /// The call is made and succeeds, its answer is lost: an error.
    FailsAfter,
    /// The process is killed before the call.
    Killed,
    /// The process is killed when the call has been made.
    KilledAfter,
    /// The process is killed when the call has been polled so often: somewhere in its middle.
    KilledAtPoll(u32),
}

/// A target with a fault. After a kill nothing reaches the store any more: every call is an error, `revert` too, as if the
/// process were gone. The store itself is found again with `Backend::recover`.
pub struct FaultyTarget {
    inner: Box<dyn Target>,
    switch: Arc<Switch>,
}

struct Switch {
    step: Step,
    fault: Fault,
    /// Calls of the step that pass before the fault.
    passing: AtomicU64,
    killed: AtomicBool,
    happened: AtomicBool,
    /// Where a call runs that may be killed in its middle: what it still does in threads can be waited for there.
    apart: Mutex<Option<Runtime>>,
}

impl Drop for Switch {
    fn drop(&mut self) {
        // Anything else waits, which a drop must not do here.
        if let Some(apart) = self.apart.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            apart.shutdown_background();
        }
    }
}

impl FaultyTarget {
    /// The first call of `step` has this fault, and every later one of it succeeds if it was not a kill.
    pub fn new(inner: Box<dyn Target>, step: Step, fault: Fault) -> Self {
        Self::at_call(inner, step, 0, fault)
    }

    /// The call number `n`, counted from 0, has it: the n-th put.
    pub fn at_call(inner: Box<dyn Target>, step: Step, n: u64, fault: Fault) -> Self {
        let switch = Switch {
            step,
            fault,
            passing: AtomicU64::new(n + 1),
            killed: AtomicBool::new(false),
            happened: AtomicBool::new(false),
            apart: Mutex::new(matches!(fault, Fault::KilledAtPoll(_)).then(apart)),
        };
        FaultyTarget { inner, switch: Arc::new(switch) }
    }

    /// Tells, also when the target was given away, whether the fault has happened.
    pub fn happened(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let switch = self.switch.clone();
        move || switch.happened.load(SeqCst)
    }
}

fn apart() -> Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.must("a runtime for a call")
}

fn killed() -> Error {
    Error::new(ErrorKind::Target, "restore", "the process was killed here")
}

impl Switch {
    async fn at<T>(&self, step: Step, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.killed.load(SeqCst) {
            return Err(killed());
        }
        let turn = step == self.step
            && self.passing.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok_and(|left| left == 1);
        if !turn {
            return call.await;
        }
        if !matches!(self.fault, Fault::KilledAtPoll(_)) {
            self.happened.store(true, SeqCst);
        }
        match self.fault {
            Fault::Fails | Fault::FailsAfter => {
                if self.fault == Fault::FailsAfter {
                    call.await?;
                }
                Err(Error::new(ErrorKind::Target, "restore", format!("{step:?} fails as it was told to")))
            }
            Fault::Killed => self.kill(),
            Fault::KilledAfter => {
                call.await?;
                self.kill()
            }
            Fault::KilledAtPoll(polls) => match at_most(call, polls, &self.handle()).await {
                Some(done) => done,
                None => {
                    self.happened.store(true, SeqCst);
                    let killed = self.kill();
                    self.wait_for_threads().await;
                    killed
                }
            },
        }
    }

    fn handle(&self) -> Handle {
        let apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        apart.as_ref().map_or_else(Handle::current, |runtime| runtime.handle().clone())
    }

    /// A killed process has no threads: whoever looks afterwards must not meet one that still writes.
    async fn wait_for_threads(&self) {
        let apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner).take();
        let ended =
            tokio::task::spawn_blocking(move || apart.map(|runtime| runtime.shutdown_timeout(THREADS)));
        ended.await.must("wait for what an abandoned call still does");
    }

    fn kill<T>(&self) -> Result<T> {
        self.killed.store(true, SeqCst);
        Err(killed())
    }
}

/// `None` if it was not ready after so many polls; it is dropped then. What it starts is started in this runtime.
async fn at_most<T>(call: impl Future<Output = T>, polls: u32, runtime: &Handle) -> Option<T> {
    let mut call = pin!(call);
    let mut left = polls;
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        let _in_it = runtime.enter();
        match call.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

impl fmt::Display for FaultyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl Target for FaultyTarget {
    async fn widened(&mut self, incoming: &Incoming, cx: &Context) -> Result<Selection> {
        self.inner.widened(incoming, cx).await
    }

    async fn survey(&mut self, incoming: &Incoming, cx: &Context) -> Result<Survey> {
        self.switch.at(Step::Survey, self.inner.survey(incoming, cx)).await
    }

    fn undo(&self) -> serde_json::Value {
        self.inner.undo()
    }

    fn journal_home(&self) -> Option<PathBuf> {
        self.inner.journal_home()
    }

    async fn prepare(&mut self, cx: &Context) -> Result<Arc<dyn Sink>> {
        let inner = self.switch.at(Step::Prepare, self.inner.prepare(cx)).await?;
        Ok(Arc::new(FaultySink { inner, switch: self.switch.clone() }))
    }

    async fn rehearse(&mut self, cx: &Context) -> Result<Option<Arc<dyn Sink>>> {
        self.inner.rehearse(cx).await
    }

    async fn clear(&mut self, cx: &Context) -> Result<()> {
        self.switch.at(Step::Clear, self.inner.clear(cx)).await
    }

    async fn publish(&mut self, cx: &Context) -> Result<()> {
        self.switch.at(Step::Publish, self.inner.publish(cx)).await
    }

    async fn revert(&mut self, cx: &Context) -> Result<()> {
        self.switch.at(Step::Revert, self.inner.revert(cx)).await
    }

    async fn settle(&mut self, cx: &Context) -> Result<()> {
        self.switch.at(Step::Settle, self.inner.settle(cx)).await
    }
}

struct FaultySink {
    inner: Arc<dyn Sink>,
    switch: Arc<Switch>,
}

impl fmt::Display for FaultySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl Sink for FaultySink {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        self.switch.at(Step::Put, self.inner.put(entry, content)).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.switch.at(Step::Finish, self.inner.finish(cx)).await
    }
}
