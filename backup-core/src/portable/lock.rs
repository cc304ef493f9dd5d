//! The run lock of a series: an exclusive file that says who holds it, renewed while the run goes on.

use super::name;
use crate::{
    Context, Error, ErrorKind, Event, ProcessStamp, Result, RunLock, Series,
    destination::{self, Destination},
};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// A lock of another host that was not renewed for this long is of a run that is dead.
const STALE: Duration = Duration::from_secs(600);
const RENEWED_EVERY: Duration = Duration::from_secs(60);
const LARGEST: u64 = 64 << 10;
/// What waits for less is not told.
const TELL_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Held {
    process: ProcessStamp,
    since: Timestamp,
    renewed: Timestamp,
    /// Tells this holder from every other of the same process.
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
    /// What the file holds while it is ours.
    ours: Arc<Mutex<Vec<u8>>>,
    released: bool,
    renewal: AbortOnDropHandle<()>,
}

/// The holder, and the bytes that say so.
async fn read(destination: &dyn Destination, name: &str) -> Result<Option<(Held, Bytes)>> {
    // That it is damaged says nothing of any backup.
    let of_destination = |e: Error| match e.kind() {
        ErrorKind::Damaged => e.with_kind(ErrorKind::Destination),
        _ => e,
    };
    match destination.read_small(name, LARGEST).await.map_err(of_destination)? {
        None => Ok(None),
        // It is written in one step: what cannot be read is none of ours.
        Some(bytes) => serde_json::from_slice(&bytes).map(|held| Some((held, bytes))).map_err(|e| {
            Error::new(ErrorKind::Destination, "read the run lock", e)
                .on(name)
                .hint("if no run is going on, remove this file")
        }),
    }
}

/// Whether a run of this series (by its short form) goes on.
pub(super) async fn is_held(destination: &dyn Destination, short: &str) -> Result<bool> {
    let name = format!(".backup-lock-{short}");
    Ok(read(destination, &name).await?.is_some_and(|(held, _)| !held.is_stale()))
}

/// Removes the lock files of runs that are dead; says their names.
pub(super) async fn clear_stale(destination: &dyn Destination, names: &[String]) -> Result<Vec<String>> {
    let mut cleared = Vec::new();
    for name in names {
        if let Some((held, bytes)) = read(destination, name).await?
            && held.is_stale()
            && destination.swap_small(name, Some(&bytes), None).await?
        {
            cleared.push(name.clone());
        }
    }
    Ok(cleared)
}

/// Says who else has locked the folder if this waits for that for a second: no run of ours holds it for so long.
pub(super) async fn telling<T>(
    destination: &dyn Destination,
    cx: &Context,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = tokio::time::sleep(TELL_AFTER) => {}
    }
    if let Some(folder) = destination.local_path().map(Path::to_owned) {
        let asked = folder.clone();
        let holder = tokio::task::spawn_blocking(move || destination::holder(&asked)).await;
        // This run may be slow itself while it holds it.
        let own = format!("process {} ", std::process::id());
        if let Some(who) = holder.ok().flatten().filter(|who| !who.starts_with(&own)) {
            cx.emit(&Event::Waiting { reason: format!("{who} has locked the folder {}", folder.display()) });
        }
    }
    work.await
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
    let ours = loop {
        let bytes = serde_json::to_vec(&held).map_err(Error::contract)?;
        let found = read(&*destination, &name).await?;
        let other = match found {
            None => {
                if telling(&*destination, cx, destination.swap_small(&name, None, Some(&bytes))).await? {
                    break bytes;
                }
                continue;
            }
            Some((other, theirs)) if other.is_stale() => {
                // Of several that find the same dead lock, one takes it over.
                let swap = destination.swap_small(&name, Some(&theirs), Some(&bytes));
                if telling(&*destination, cx, swap).await? {
                    break bytes;
                }
                continue;
            }
            Some((other, _)) => other,
        };
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
    };
    let ours = Arc::new(Mutex::new(ours));
    let renewal = tokio::spawn(renew(destination.clone(), name.clone(), held, ours.clone()));
    Ok(SeriesLock { destination, name, ours, released: false, renewal: AbortOnDropHandle::new(renewal) })
}

/// Says again and again that the run goes on. A renewal that fails is tried again; nobody takes the lock before ten minutes.
async fn renew(destination: Arc<dyn Destination>, name: String, mut held: Held, ours: Arc<Mutex<Vec<u8>>>) {
    loop {
        tokio::time::sleep(RENEWED_EVERY).await;
        held.renewed = Timestamp::now();
        let Ok(bytes) = serde_json::to_vec(&held) else { return };
        let mut now = ours.lock().await;
        match destination.swap_small(&name, Some(&now), Some(&bytes)).await {
            Ok(true) => *now = bytes,
            Ok(false) => {}
            // It may have been written all the same.
            Err(_) => {
                if let Ok(Some((found, there))) = read(&*destination, &name).await
                    && found.token == held.token
                {
                    *now = there.to_vec();
                }
            }
        }
    }
}

#[async_trait]
impl RunLock for SeriesLock {
    async fn release(mut self: Box<Self>) -> Result<()> {
        self.released = true;
        let ours = self.ours.clone();
        let ours = ours.lock().await;
        self.renewal.abort();
        // If it is not ours any more, it was taken for dead; what is there now is somebody else's.
        self.destination.swap_small(&self.name, Some(&ours), None).await.map(drop)
    }
}

impl Drop for SeriesLock {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        self.renewal.abort();
        if let Some(folder) = self.destination.local_path() {
            if let Ok(ours) = self.ours.try_lock()
                && std::fs::read(folder.join(&self.name)).is_ok_and(|found| found == *ours)
            {
                let _ = std::fs::remove_file(folder.join(&self.name));
            }
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (destination, name, ours) = (self.destination.clone(), self.name.clone(), self.ours.clone());
            // As far as a drop can; else it is found stale when this process is gone.
            runtime
                .spawn(async move { destination.swap_small(&name, Some(&*ours.lock().await), None).await });
        }
    }
}
