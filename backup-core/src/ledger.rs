//! Stands between every view and every sink, so that no author of a store can forget, hide or miscount anything.

use crate::{Content, Context, Entry, Error, ErrorKind, Event, Proof, Put, Result, Severity, Sink, Stage};
use async_trait::async_trait;
use bytes::Bytes;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Lost entries that are remembered by path, so that a later successful put takes them off again. Beyond this a loss stays a
/// loss: memory must not grow with what goes wrong.
const LOST_REMEMBERED: usize = 10_000;

/// Counts entries and bytes, checks the order of the stages, the paths, the promised sizes and cancellation. What was discarded
/// and not put again is lost, and lost means partial, whatever the author of the view returns.
pub struct Ledger {
    sink: Arc<dyn Sink>,
    component: String,
    cx: Context,
    stage: Mutex<(Stage, usize)>,
    bytes: Arc<AtomicU64>,
    entries: AtomicU64,
    kept: AtomicU64,
    lost: Mutex<Lost>,
    last_progress: Mutex<Instant>,
}

#[derive(Default)]
struct Lost {
    by_path: HashMap<Bytes, Loss>,
    beyond: u64,
}

#[derive(Clone)]
struct Loss {
    why: Arc<str>,
    /// How what was read failed; nothing, if what was to take it did.
    failure: Option<Error>,
}

impl Ledger {
    /// A ledger before `sink`, for the component of this name.
    pub fn new(sink: Arc<dyn Sink>, component: &str, cx: &Context) -> Arc<Self> {
        Arc::new(Ledger {
            sink,
            component: component.to_owned(),
            cx: cx.clone(),
            stage: Mutex::new((Stage::Prepare, 0)),
            bytes: Arc::default(),
            entries: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            lost: Mutex::default(),
            last_progress: Mutex::new(Instant::now()),
        })
    }

    /// Entries that the sink took or had.
    pub fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// Bytes that flowed, those of discarded tries included.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Entries that the sink had already.
    pub fn kept(&self) -> u64 {
        self.kept.load(Relaxed)
    }

    /// Puts that have begun and not ended.
    pub fn open_puts(&self) -> usize {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// What is lost so far and why, by path; beyond ten thousand, only `settle_losses` knows the number.
    pub fn losses(&self) -> Vec<(Bytes, Arc<str>)> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let mut named: Vec<_> = lost.by_path.iter().map(|(p, l)| (p.clone(), l.why.clone())).collect();
        named.sort();
        named
    }

    /// The entries that are lost because their contents failed, by path, with the error of the content: not those that the sink
    /// failed to take, or was kept from taking.
    pub fn unreadable(&self) -> Vec<(Bytes, Error)> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let failed =
            lost.by_path.iter().filter_map(|(path, loss)| Some((path.clone(), loss.failure.clone()?)));
        let mut named: Vec<_> = failed.collect();
        named.sort_by(|(a, _), (b, _)| a.cmp(b));
        named
    }

    /// Notes every loss in the context and returns their number. To be called once, when the pour is over.
    pub fn settle_losses(&self) -> u64 {
        self.settle_losses_after(None, false)
    }

    /// The same after a pour that failed. An entry that is lost by this very error is not noted again. If the error ended everything
    /// (`ended`: what was to take the entries is broken, or the run was cancelled), only those are noted that could not be read: the others
    /// are lost because of it, and nothing is wrong with them.
    pub(crate) fn settle_losses_after(&self, error: Option<&Error>, ended: bool) -> u64 {
        let lost = std::mem::take(&mut *self.lost.lock().unwrap_or_else(PoisonError::into_inner));
        let number = lost.by_path.len() as u64 + lost.beyond;
        let said = error.map(ToString::to_string);
        let is_news = |loss: &Loss| match &loss.failure {
            Some(failure) => said.as_ref().is_none_or(|said| failure.to_string() != *said),
            None => !ended,
        };
        let news = lost.by_path.into_iter().filter(|(_, loss)| is_news(loss));
        let mut named: Vec<_> = news.map(|(path, loss)| (path, loss.why)).collect();
        named.sort();
        for (path, why) in &named {
            self.cx.note(Severity::Lost, &self.component, crate::entry::display_path(path), why);
        }
        if lost.beyond > 0 && !ended {
            self.cx.note(
                Severity::Lost,
                &self.component,
                String::new(),
                format!("{} more entries were lost", lost.beyond),
            );
        }
        number
    }

    fn enter(&self, stage: Stage) -> Result<Leave<'_>> {
        let mut now = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        if stage < now.0 || (stage > now.0 && now.1 > 0) {
            return Err(Error::contract(format!(
                "a put of stage {stage:?} while {} puts of {:?} are open",
                now.1, now.0
            ))
            .on(&self.component));
        }
        *now = (stage, now.1 + 1);
        Ok(Leave(self))
    }

    async fn put_watched<'a>(
        &'a self,
        entry: Entry,
        content: Content,
        leave: &mut Option<Leave<'a>>,
        failure: &Arc<OnceLock<Error>>,
    ) -> Result<Put> {
        if self.cx.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        if !crate::entry::is_entry_path(&entry.path) {
            return Err(Error::contract("this is no path of an entry").on(entry.display_path()));
        }
        *leave = Some(self.enter(entry.stage)?);
        let content = content.watched(&entry, &self.cx.cancel, &self.bytes).telling(failure);
        self.sink.put(entry, content).await
    }

    fn lose(&self, path: Bytes, loss: Loss) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if lost.by_path.len() < LOST_REMEMBERED || lost.by_path.contains_key(&path) {
            lost.by_path.insert(path, loss);
        } else {
            lost.beyond += 1;
        }
    }

    fn find_again(&self, path: &Bytes) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if !lost.by_path.is_empty() {
            lost.by_path.remove(path);
        }
    }

    fn progress(&self) {
        let Ok(mut last) = self.last_progress.try_lock() else { return };
        if last.elapsed() >= Duration::from_millis(100) {
            *last = Instant::now();
            drop(last);
            self.cx.emit(&Event::Progress {
                component: self.component.clone(),
                entries: self.entries(),
                bytes: self.bytes(),
            });
        }
    }
}

const DROPPED: &str = "its put was begun and given up";

/// An entry that is lost unless its put ends well: also when the put is dropped, or its error swallowed.
struct Unless<'a> {
    ledger: &'a Ledger,
    path: Bytes,
    loss: Option<Loss>,
}

impl Drop for Unless<'_> {
    fn drop(&mut self) {
        match self.loss.take() {
            Some(loss) => self.ledger.lose(std::mem::take(&mut self.path), loss),
            None => self.ledger.find_again(&self.path),
        }
    }
}

struct Leave<'a>(&'a Ledger);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.stage.lock().unwrap_or_else(PoisonError::into_inner).1 -= 1;
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.fmt(f)
    }
}

#[async_trait]
impl Sink for Ledger {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        // Goes after the guard: who waits until no put is open then knows all that is lost.
        let mut leave = None;
        let dropped = Loss { why: DROPPED.into(), failure: None };
        let mut unless_ended = Unless { ledger: self, path: entry.path.clone(), loss: Some(dropped) };
        let size = entry.stored_size();
        let failure = Arc::new(OnceLock::new());
        let put = self.put_watched(entry, content, &mut leave, &failure).await;
        // What happened is known from here on, and is what counts.
        let failure = || failure.get().filter(|e| e.kind() != ErrorKind::Cancelled).cloned();
        unless_ended.loss = match &put {
            Ok(Put::Discarded(why)) => Some(Loss { why: why.clone(), failure: failure() }),
            Ok(_) => None,
            Err(e) => Some(Loss { why: e.to_string().into(), failure: failure() }),
        };
        let taken = unless_ended.loss.is_none();
        drop(unless_ended);
        let put = put?;
        if taken {
            self.entries.fetch_add(1, Relaxed);
        }
        if put == Put::Kept {
            self.kept.fetch_add(1, Relaxed);
            self.bytes.fetch_add(size.unwrap_or(0), Relaxed);
        }
        self.progress();
        if self.cx.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        Ok(put)
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        if self.stage.lock().unwrap_or_else(PoisonError::into_inner).1 > 0 {
            return Err(Error::new(ErrorKind::Contract, "finish", "puts are still open").on(&self.component));
        }
        self.sink.finish(cx).await
    }
}
