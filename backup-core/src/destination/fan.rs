//! One stream of bytes to several destinations. One that fails is given up and remembered with its error; the others go on.

use super::{Blob, Destination, Stored, Upload};
use crate::{Error, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Giving one up must not hold up the others.
const GIVE_UP: Duration = Duration::from_secs(60);

/// A destination among several, and what it is to call what it is sent.
pub(crate) struct Lane {
    pub(crate) destination: Arc<dyn Destination>,
    pub(crate) provisional: String,
    pub(crate) names: Vec<String>,
    /// Whether small files go beside what it keeps.
    pub(crate) beside: bool,
}

/// What has come of a lane.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Going,
    /// Under this name.
    Stored(String),
    Failed(Error),
}

/// Several destinations, for one upload.
pub(crate) struct Fan {
    lanes: Vec<Lane>,
    outcomes: Outcomes,
}

/// One for each lane. A clone is the same.
#[derive(Clone)]
pub(crate) struct Outcomes(Arc<Mutex<Vec<Outcome>>>);

impl Outcomes {
    fn set(&self, lane: usize, outcome: Outcome) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[lane] = outcome;
    }

    pub(crate) fn all(&self) -> Vec<Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is told when nothing is left.
    fn first_failure(&self) -> Error {
        let failed = |o| if let Outcome::Failed(e) = o { Some(e) } else { None };
        self.all().into_iter().find_map(failed).unwrap_or_else(|| Error::contract("no destination is left"))
    }
}

impl Fan {
    pub(crate) fn new(lanes: Vec<Lane>) -> (Self, Outcomes) {
        let outcomes = Outcomes(Arc::new(Mutex::new(lanes.iter().map(|_| Outcome::Going).collect())));
        (Fan { lanes, outcomes: outcomes.clone() }, outcomes)
    }
}

impl fmt::Display for Fan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.lanes.iter().map(|lane| lane.destination.to_string()).collect();
        f.write_str(&names.join(", "))
    }
}

fn unused() -> Error {
    Error::contract("several destinations are only written to")
}

#[async_trait]
impl Destination for Fan {
    async fn prepare(&self) -> Result<()> {
        Err(unused())
    }

    async fn space(&self) -> Result<Option<(u64, u64)>> {
        Err(unused())
    }

    /// Each lane has names of its own.
    async fn create(&self, _provisional: &str, _names: &[String]) -> Result<Box<dyn Upload>> {
        let begun =
            join_all(self.lanes.iter().map(|lane| lane.destination.create(&lane.provisional, &lane.names)));
        let mut tee = Tee { lanes: Vec::new(), outcomes: self.outcomes.clone() };
        for (lane, upload) in begun.await.into_iter().enumerate() {
            match upload {
                Ok(upload) => tee.lanes.push((lane, upload)),
                Err(e) => self.outcomes.set(lane, Outcome::Failed(e)),
            }
        }
        if tee.lanes.is_empty() { Err(self.outcomes.first_failure()) } else { Ok(Box::new(tee)) }
    }

    async fn open(&self, _name: &str) -> Result<Arc<dyn Blob>> {
        Err(unused())
    }

    async fn list(&self) -> Result<Vec<Stored>> {
        Err(unused())
    }

    /// Beside what each lane keeps: a name that begins with that of the first begins there with its own.
    async fn write_small(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let outcomes = self.outcomes.all();
        let stored = |o: &Outcome| if let Outcome::Stored(name) = o { Some(name.clone()) } else { None };
        let first = outcomes.iter().find_map(stored).unwrap_or_default();
        let rest = name.strip_prefix(&first).unwrap_or(name);
        let writes = self.lanes.iter().zip(&outcomes).filter_map(|(lane, outcome)| {
            let own = format!("{}{rest}", stored(outcome)?);
            lane.beside.then_some(async move { lane.destination.write_small(&own, bytes).await })
        });
        join_all(writes).await.into_iter().collect()
    }

    async fn swap_small(&self, _: &str, _: Option<&[u8]>, _: Option<&[u8]>) -> Result<bool> {
        Err(unused())
    }

    async fn read_small(&self, _name: &str, _limit: u64) -> Result<Option<Bytes>> {
        Err(unused())
    }

    async fn remove(&self, _name: &str) -> Result<()> {
        Err(unused())
    }
}

/// The uploads that still go on.
struct Tee {
    lanes: Vec<(usize, Box<dyn Upload>)>,
    outcomes: Outcomes,
}

#[async_trait]
impl Upload for Tee {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let writes = self.lanes.iter_mut().map(|(_, upload)| upload.write(bytes.clone()));
        let written = join_all(writes).await;
        if written.iter().all(Result::is_ok) {
            return Ok(());
        }
        let mut given_up = Vec::new();
        for ((lane, upload), written) in std::mem::take(&mut self.lanes).into_iter().zip(written) {
            match written {
                Ok(()) => self.lanes.push((lane, upload)),
                Err(e) => {
                    self.outcomes.set(lane, Outcome::Failed(e));
                    given_up.push(tokio::time::timeout(GIVE_UP, upload.abort()));
                }
            }
        }
        // Their errors are known already; what they leave, the next run clears.
        let _ = join_all(given_up).await;
        if self.lanes.is_empty() { Err(self.outcomes.first_failure()) } else { Ok(()) }
    }

    async fn commit(mut self: Box<Self>) -> Result<String> {
        let (numbers, uploads): (Vec<_>, Vec<_>) = std::mem::take(&mut self.lanes).into_iter().unzip();
        let committed = join_all(uploads.into_iter().map(Upload::commit)).await;
        let mut first = None;
        for (lane, committed) in numbers.into_iter().zip(committed) {
            match committed {
                Ok(name) => {
                    first.get_or_insert_with(|| name.clone());
                    self.outcomes.set(lane, Outcome::Stored(name));
                }
                Err(e) => self.outcomes.set(lane, Outcome::Failed(e)),
            }
        }
        first.ok_or_else(|| self.outcomes.first_failure())
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        let lanes = std::mem::take(&mut self.lanes);
        join_all(lanes.into_iter().map(|(_, upload)| upload.abort())).await.into_iter().collect()
    }
}
