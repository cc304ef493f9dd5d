//! Pours components side by side.

use crate::{
    Context, Difference, Entry, Error, ErrorKind, Event, Fact, Facts, Ledger, Moment, Poured, Proof, Put,
    Result, Sink, Stillness, View, content::Content,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use std::{
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::task::AbortOnDropHandle;

/// A view and the sink that it is to be poured into.
pub struct Pouring {
    /// Name of the component.
    pub component: String,
    /// What is read.
    pub view: Box<dyn View>,
    /// Where it goes. Not behind a ledger: the pour sets one before it.
    pub sink: Arc<dyn Sink>,
    /// What the application had to endure: for the report.
    pub stillness: Option<Stillness>,
}

/// Pours all of them at the same time, each in a task of its own and behind a ledger, finishes their sinks and returns what
/// came of each, in the order of the list.
///
/// All are awaited to their end; panics are errors of kind `Panicked`. With `fail_fast` the first error cancels the others;
/// without it only an error that ends everything does (the sink is broken, a rule was broken). `Poured::differences` holds
/// where the counts of view, ledger and sink differ. What was lost is noted in the context.
pub async fn pour_all(list: Vec<Pouring>, fail_fast: bool, cx: &Context) -> Vec<(String, Result<Poured>)> {
    let list = list.into_iter().map(|p| (p, None)).collect();
    pour_each(list, fail_fast, cx).await.into_iter().map(|o| (o.component.clone(), o.into_result())).collect()
}

/// What came of pouring one component.
pub(crate) struct Outcome {
    pub(crate) component: String,
    pub(crate) moment: Moment,
    pub(crate) stillness: Option<Stillness>,
    /// Entries that the ledger saw taken.
    pub(crate) entries: u64,
    pub(crate) kept: u64,
    pub(crate) lost: u64,
    /// The first of them, with the reason.
    pub(crate) losses: Vec<(Bytes, Arc<str>)>,
    /// Those of them that are lost because they could not be read.
    pub(crate) unreadable: Vec<(Bytes, Error)>,
    /// What the view says; its error concerns this component only.
    pub(crate) view: Result<Facts>,
    /// What the sink counted. An error ends the whole run.
    pub(crate) there: Result<Proof>,
    /// That error is the sink's own.
    pub(crate) sink_failed: bool,
}

impl Outcome {
    fn ended(component: String, stillness: Option<Stillness>, e: Error) -> Self {
        Outcome {
            component,
            moment: Moment::now(),
            stillness,
            entries: 0,
            kept: 0,
            lost: 0,
            losses: Vec::new(),
            unreadable: Vec::new(),
            view: Err(e.clone()),
            there: Err(e),
            sink_failed: false,
        }
    }

    pub(crate) fn into_result(self) -> Result<Poured> {
        let component = self.component.clone();
        self.there.as_ref().map_err(|e| e.clone().on(&component))?;
        self.view.as_ref().map_err(|e| e.clone().on(&component))?;
        self.into_poured()
    }

    /// What the archive is told; of a view that failed, what it put before.
    pub(crate) fn into_poured(self) -> Result<Poured> {
        let there = self.there?;
        let failed = self.view.is_err();
        let said = self.view.unwrap_or_default();
        let mut differences = Vec::new();
        let mut differ = |s: &str, m: &str, expected: &Fact, found: &Fact| {
            let counted = |f: &Fact| matches!(f, Fact::Count(_) | Fact::Digest(_));
            if counted(expected) && counted(found) && expected != found {
                differences.push(Difference::Unequal(s.into(), m.into(), expected.clone(), found.clone()));
            }
        };
        if let Some(found) = there.get("all", "entries") {
            differ("all", "entries", &Fact::Count(self.entries), found);
        }
        // The view cannot know what the sink discarded: a loss says itself.
        if self.lost == 0 && !failed {
            for (s, m, expected) in said.iter() {
                if let Some(found) = there.get(s, m) {
                    differ(s, m, expected, found);
                }
            }
        }
        let mut proof = there;
        proof.add_missing(said);
        proof.add_missing(Facts::new().with("all", "entries", Fact::Count(self.entries)));
        Ok(Poured {
            component: self.component,
            moment: self.moment,
            proof,
            lost: self.lost + u64::from(failed),
            kept: self.kept,
            differences,
            stillness: self.stillness,
        })
    }
}

/// The error that ended everything, if there is one: what was cancelled because of it comes second.
pub(crate) fn what_ended(outcomes: &[Outcome]) -> Option<Error> {
    what_ended_and_where(outcomes).map(|(e, _)| e)
}

/// The same, with whether it is an error of the sink.
pub(crate) fn what_ended_and_where(outcomes: &[Outcome]) -> Option<(Error, bool)> {
    let ends = || {
        outcomes
            .iter()
            .filter_map(|o| Some((o.there.as_ref().err()?.clone().on(&o.component), o.sink_failed)))
    };
    let first = ends().find(|(e, _)| e.kind() != ErrorKind::Cancelled);
    first.or_else(|| ends().next().map(|_| (Error::cancelled(), false)))
}

/// Like `pour_all`, with estimates for the observer and everything that was found out.
pub(crate) async fn pour_each(
    list: Vec<(Pouring, Option<u64>)>,
    fail_fast: bool,
    cx: &Context,
) -> Vec<Outcome> {
    let cx = cx.child();
    let tasks: Vec<_> = list
        .into_iter()
        .map(|(pouring, estimate)| {
            let (cx, name, stillness) = (cx.clone(), pouring.component.clone(), pouring.stillness);
            // An abort is only for a caller that is dropped itself: then nobody is left to wait.
            let task = AbortOnDropHandle::new(tokio::spawn(async move {
                let outcome = pour_one(pouring, estimate, fail_fast, &cx).await;
                if outcome.there.is_err() || (fail_fast && outcome.view.is_err()) {
                    cx.cancel.cancel();
                }
                outcome
            }));
            (name, stillness, task)
        })
        .collect();
    let mut outcomes = Vec::with_capacity(tasks.len());
    for (name, stillness, task) in tasks {
        outcomes.push(task.await.unwrap_or_else(|_| Outcome::ended(name, stillness, panicked("pour"))));
    }
    outcomes
}

async fn pour_one(pouring: Pouring, estimate: Option<u64>, fail_fast: bool, cx: &Context) -> Outcome {
    let Pouring { component, view, sink, stillness } = pouring;
    cx.emit(&Event::ComponentStarted { component: component.clone(), estimate });
    let mut moment = view.moment();
    let guarded = Arc::new(Guarded { sink, broken: Mutex::default() });
    let ledger = Ledger::new(guarded.clone(), &component, cx);
    let mut view = calmly("pour", view.pour(ledger.clone(), cx)).await;
    if view.is_err() {
        // A view that failed must have awaited its puts; one that panicked has dropped them, and a dropped task takes a moment.
        for _ in 0..200 {
            if ledger.open_puts() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    if view.is_ok() && cx.cancel.is_cancelled() {
        view = Err(Error::cancelled());
    }
    if stillness == Some(Stillness::UntilPoured) {
        // Without a snapshot the data is as new as the end of reading it.
        moment.last = Moment::now().last;
    }
    let broken = guarded.broken();
    let mut sink_failed = broken.is_some();
    let ended = broken.or_else(|| view.as_ref().err().filter(|e| ends_all(e.kind())).cloned());
    let there = match (ended, &view) {
        (Some(e), _) => Err(e),
        (None, Err(e)) if fail_fast => Err(e.clone()),
        (None, _) => {
            let finished = calmly("finish", crate::Sink::finish(&*ledger, cx)).await;
            sink_failed = finished.is_err();
            finished
        }
    };
    let (losses, unreadable) = (ledger.losses(), ledger.unreadable());
    let error = there.as_ref().err().or(view.as_ref().err());
    let lost = ledger.settle_losses_after(error, there.is_err());
    cx.emit(&Event::ComponentFinished {
        component: component.clone(),
        entries: ledger.entries(),
        bytes: ledger.bytes(),
        lost,
    });
    let (entries, kept) = (ledger.entries(), ledger.kept());
    Outcome {
        component,
        moment,
        stillness,
        entries,
        kept,
        lost,
        losses,
        unreadable,
        view,
        there,
        sink_failed,
    }
}

/// Errors after which no component can go on, whoever says them.
fn ends_all(kind: ErrorKind) -> bool {
    use ErrorKind::{Budget, Cancelled, Contract, Destination};
    matches!(kind, Cancelled | Destination | Budget | Contract)
}

fn panicked(what: &'static str) -> Error {
    Error::new(ErrorKind::Panicked, what, "the code of the store panicked")
}

/// Runs a store's code; its panic is an error.
pub(crate) async fn calmly<T>(what: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
    AssertUnwindSafe(call).catch_unwind().await.unwrap_or_else(|_| Err(panicked(what)))
}

/// Remembers that the sink itself is broken: a view's own failure concerns one component, a sink's all of them.
struct Guarded {
    sink: Arc<dyn Sink>,
    broken: Mutex<Option<Error>>,
}

impl Guarded {
    fn broken(&self) -> Option<Error> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_broken(&self, e: Error) {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
    }
}

struct PanicWatch<'a>(&'a Guarded);

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set_broken(panicked("put an entry"));
        }
    }
}

impl fmt::Display for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.fmt(f)
    }
}

#[async_trait]
impl Sink for Guarded {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let _watch = PanicWatch(self);
        let put = self.sink.put(entry, content).await;
        if let Err(e) = &put
            && e.kind() != ErrorKind::Cancelled
        {
            self.set_broken(e.clone());
        }
        put
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.sink.finish(cx).await
    }
}
