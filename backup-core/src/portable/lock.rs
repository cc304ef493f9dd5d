//! The run lock of a series: an exclusive file that says who holds it, renewed while the run goes on.

use super::name;
use crate::{
    Context, Error, ErrorKind, Event, ProcessStamp, Result, RunLock, Series,
    destination::{Destination, Existing},
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio_util::task::AbortOnDropHandle;

/// A lock of another host that was not renewed for this long is of a run that is dead.
const STALE: Duration = Duration::from_secs(600);
const RENEWED_EVERY: Duration = Duration::from_secs(60);
const LARGEST: u64 = 64 << 10;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    process: ProcessStamp,
    since: Timestamp,
    renewed: Timestamp,
    /// Tells this holder from every other: only its own lock is renewed or removed.
    token: String,
}

impl Held {
    fn is_stale(&self) -> bool {
        match self.process.is_alive_here() {
            Some(alive) => !alive,
            None => {
                let age = Timestamp::now().duration_since(self.renewed);
                age.unsigned_abs() > STALE
            }
        }
    }
}

/// Held until it is released or dropped.
pub(super) struct SeriesLock {
    destination: Arc<dyn Destination>,
    name: String,
    released: bool,
    _renewal: AbortOnDropHandle<()>,
}

async fn read(destination: &dyn Destination, name: &str) -> Result<Option<Held>> {
    match destination.read_small(name, LARGEST).await? {
        None => Ok(None),
        // It is written in one step: what cannot be read is none of ours.
        Some(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            Error::damaged("read the run lock", e).on(name).hint("if no run is going on, remove this file")
        }),
    }
}

/// Whether a run of this series (by its short form) goes on.
pub(super) async fn is_held(destination: &dyn Destination, short: &str) -> Result<bool> {
    let name = format!(".backup-lock-{short}");
    Ok(read(destination, &name).await?.is_some_and(|held| !held.is_stale()))
}

/// Removes the lock files of runs that are dead; says their names.
pub(super) async fn clear_stale(destination: &dyn Destination, names: &[String]) -> Result<Vec<String>> {
    let mut cleared = Vec::new();
    for name in names {
        if read(destination, name).await?.is_some_and(|held| held.is_stale()) {
            destination.remove(name).await?;
            cleared.push(name.clone());
        }
    }
    Ok(cleared)
}

/// Takes the lock, waiting at most `wait` for another run.
pub(super) async fn take(
    destination: Arc<dyn Destination>,
    series: &Series,
    wait: Duration,
    cx: &Context,
) -> Result<SeriesLock> {
    let name = name::lock(series);
    let now = Timestamp::now();
    let token = ulid::Ulid::generate().to_string();
    let mut held = Held { process: ProcessStamp::current(), since: now, renewed: now, token };
    let deadline = tokio::time::Instant::now() + wait;
    let mut told = false;
    loop {
        let bytes = serde_json::to_vec(&held).map_err(Error::contract)?;
        match destination.write_small(&name, &bytes, Existing::Refuse).await {
            Ok(()) => break,
            Err(e) if e.kind() == ErrorKind::AlreadyRunning => {}
            Err(e) => return Err(e),
        }
        let Some(other) = read(&*destination, &name).await? else { continue };
        if other.is_stale() {
            // Two runs may find the same dead lock; only one of them creates the next one.
            destination.remove(&name).await?;
            continue;
        }
        let who = format!(
            "a run of the same series is going on: process {} on {}, since {}",
            other.process.pid, other.process.host, other.since
        );
        if tokio::time::Instant::now() >= deadline {
            return Err(Error::new(ErrorKind::AlreadyRunning, "begin a run", who)
                .on(series)
                .hint("wait for it, or let this run wait with --wait 30m"));
        }
        if !told {
            told = true;
            cx.emit(&Event::Waiting { reason: who });
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = cx.cancel.cancelled() => return Err(Error::cancelled()),
        }
        (held.since, held.renewed) = (Timestamp::now(), Timestamp::now());
    }
    let renewal = {
        let (destination, name) = (destination.clone(), name.clone());
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWED_EVERY).await;
                held.renewed = Timestamp::now();
                if let Ok(bytes) = serde_json::to_vec(&held) {
                    // A renewal that fails is tried again; nobody takes the lock before ten minutes of it.
                    let _ = destination.write_small(&name, &bytes, Existing::Replace).await;
                }
            }
        })
    };
    Ok(SeriesLock { destination, name, released: false, _renewal: AbortOnDropHandle::new(renewal) })
}

#[async_trait]
impl RunLock for SeriesLock {
    async fn release(mut self: Box<Self>) -> Result<()> {
        self.released = true;
        self._renewal.abort();
        self.destination.remove(&self.name).await
    }
}

impl Drop for SeriesLock {
    fn drop(&mut self) {
        if !self.released
            && let Some(folder) = self.destination.local_path()
        {
            // As far as a drop can; else it is found stale when this process is gone.
            let _ = std::fs::remove_file(folder.join(&self.name));
        }
    }
}
