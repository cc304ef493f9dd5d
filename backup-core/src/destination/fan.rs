//! One stream of bytes to several destinations. One that fails, or stands still while others wait for it, is given up and
//! remembered with its error; the others go on.

use super::{Blob, Destination, Pulse, Stored, Upload};
use crate::{Context, Error, ErrorKind, Result, Severity};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use std::{
    fmt,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// What is left of one that is given up is cleared within this time, or by the next run.
const GIVE_UP: Duration = Duration::from_secs(60);
/// So long others wait for a call of one that does not tell how far it is.
const STILL: Duration = Duration::from_secs(60);
/// For the end they wait so many times longer: a server has work to do then, and all others have ended.
const AT_THE_END: u32 = 3;

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
pub(crate) struct Outcomes {
    all: Arc<Mutex<Vec<Outcome>>>,
    cx: Context,
}

impl Outcomes {
    fn set(&self, lane: usize, outcome: Outcome) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)[lane] = outcome;
    }

    /// What the others have says so, too, if their manifest is still to be written.
    fn fail(&self, lane: usize, place: impl fmt::Display, e: Error) {
        self.cx.note(Severity::Note, "", place.to_string(), format!("it is not kept there: {e}"));
        self.set(lane, Outcome::Failed(e));
    }

    pub(crate) fn all(&self) -> Vec<Outcome> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is told when nothing is left.
    fn first_failure(&self) -> Error {
        let failed = |o| if let Outcome::Failed(e) = o { Some(e) } else { None };
        self.all().into_iter().find_map(failed).unwrap_or_else(|| Error::contract("no destination is left"))
    }
}

impl Fan {
    pub(crate) fn new(lanes: Vec<Lane>, cx: &Context) -> (Self, Outcomes) {
        let all = Arc::new(Mutex::new(lanes.iter().map(|_| Outcome::Going).collect()));
        let outcomes = Outcomes { all, cx: cx.clone() };
        (Fan { lanes, outcomes: outcomes.clone() }, outcomes)
    }

    /// Where small files go beside what each lane keeps: a name that begins with that of the first begins there with its own.
    fn beside(&self, name: &str) -> Vec<(&dyn Destination, String)> {
        let outcomes = self.outcomes.all();
        let stored = |o: &Outcome| if let Outcome::Stored(name) = o { Some(name.clone()) } else { None };
        let first = outcomes.iter().find_map(stored).unwrap_or_default();
        let rest = name.strip_prefix(&first).unwrap_or(name);
        let lanes = self.lanes.iter().zip(&outcomes).filter(|(lane, _)| lane.beside);
        lanes.filter_map(|(lane, o)| Some((&*lane.destination, format!("{}{rest}", stored(o)?)))).collect()
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
        let (first, still) = (watch::Sender::new(None), Pulse::new(STILL));
        let begun = join_all(self.lanes.iter().map(|lane| {
            in_time(
                lane.destination.create(&lane.provisional, &lane.names),
                &lane.destination,
                &still,
                1,
                &first,
            )
        }));
        let mut tee = Tee { lanes: Vec::new(), outcomes: self.outcomes.clone(), given_up: JoinSet::new() };
        for (lane, upload) in begun.await.into_iter().enumerate() {
            match upload {
                Ok(upload) => tee.lanes.push(Going {
                    number: lane,
                    place: self.lanes[lane].destination.to_string(),
                    pulse: upload.pulse().unwrap_or_else(|| Pulse::new(STILL)),
                    upload,
                }),
                Err(e) => self.outcomes.fail(lane, &self.lanes[lane].destination, e),
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

    /// Beside what each lane keeps.
    async fn write_small(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let writes = self.beside(name).into_iter();
        let writes = writes.map(|(place, own)| async move { place.write_small(&own, bytes).await });
        join_all(writes).await.into_iter().collect()
    }

    async fn swap_small(&self, _: &str, _: Option<&[u8]>, _: Option<&[u8]>) -> Result<bool> {
        Err(unused())
    }

    async fn read_small(&self, _name: &str, _limit: u64) -> Result<Option<Bytes>> {
        Err(unused())
    }

    /// Beside what each lane keeps.
    async fn remove(&self, name: &str) -> Result<()> {
        let removals = self.beside(name).into_iter();
        let removals = removals.map(|(place, own)| async move { place.remove(&own).await });
        join_all(removals).await.into_iter().collect()
    }
}

/// What `doing` comes to. `first` is when the first of several was done: from then on the others wait, and this one may stand
/// still no longer than its pulse allows, times `patience`.
async fn in_time<T>(
    doing: impl Future<Output = Result<T>>,
    place: impl fmt::Display,
    pulse: &Pulse,
    patience: u32,
    first: &watch::Sender<Option<Instant>>,
) -> Result<T> {
    let mut doing = pin!(doing);
    let mut others = first.subscribe();
    let limit = patience * pulse.limit();
    loop {
        let done_first = *others.borrow_and_update();
        let until = done_first.map(|at| at.max(pulse.last()) + limit);
        let expired = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = &mut doing => {
                if done.is_ok() {
                    first.send_if_modified(|at| at.is_none() && at.replace(Instant::now()).is_none());
                }
                return done;
            }
            // The sender is borrowed here.
            _ = others.changed() => {}
            () = expired => {
                let last = done_first.map(|at| at.max(pulse.last()) + limit);
                if last.is_some_and(|last| last <= Instant::now()) {
                    let text = format!("nothing moved for {} seconds, and others waited for it", limit.as_secs());
                    return Err(Error::new(ErrorKind::Destination, "write", text)
                        .on(place)
                        .hint("look whether it can be reached, and whether it works; `backup copy` brings it what it lacks"));
                }
            }
        }
    }
}

/// An upload that still goes on.
struct Going {
    number: usize,
    place: String,
    upload: Box<dyn Upload>,
    pulse: Pulse,
}

struct Tee {
    lanes: Vec<Going>,
    outcomes: Outcomes,
    /// What clears up behind those that failed.
    given_up: JoinSet<()>,
}

impl Tee {
    /// The same call of all. One that fails is given up; an error is that none is left.
    async fn each(
        &mut self,
        patience: u32,
        call: impl for<'a> Fn(&'a mut dyn Upload) -> BoxFuture<'a, Result<()>>,
    ) -> Result<()> {
        let first = watch::Sender::new(None);
        let calls = self
            .lanes
            .iter_mut()
            .map(|lane| in_time(call(&mut *lane.upload), &lane.place, &lane.pulse, patience, &first));
        let done = join_all(calls).await;
        if done.iter().all(Result::is_ok) {
            return Ok(());
        }
        for (lane, done) in std::mem::take(&mut self.lanes).into_iter().zip(done) {
            match done {
                Ok(()) => self.lanes.push(lane),
                Err(e) => {
                    self.outcomes.fail(lane.number, &lane.place, e);
                    // Its error is known already; what it leaves, the next run clears.
                    self.given_up.spawn(async move { drop(timeout(GIVE_UP, lane.upload.abort()).await) });
                }
            }
        }
        match self.lanes.is_empty() {
            true => {
                while self.given_up.join_next().await.is_some() {}
                Err(self.outcomes.first_failure())
            }
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Upload for Tee {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.each(1, |upload| upload.write(bytes.clone())).await
    }

    async fn finish(&mut self) -> Result<()> {
        self.each(AT_THE_END, |upload| upload.finish()).await
    }

    fn keeps_bytes(&self) -> bool {
        self.lanes.iter().any(|lane| lane.upload.keeps_bytes())
    }

    async fn commit(mut self: Box<Self>) -> Result<String> {
        let first_done = watch::Sender::new(None);
        let commits = std::mem::take(&mut self.lanes).into_iter().map(|lane| {
            let first_done = &first_done;
            async move {
                let Going { number, place, upload, pulse } = lane;
                (number, in_time(upload.commit(), place, &pulse, AT_THE_END, first_done).await)
            }
        });
        let mut first = None;
        for (lane, committed) in join_all(commits).await {
            match committed {
                Ok(name) => {
                    first.get_or_insert_with(|| name.clone());
                    self.outcomes.set(lane, Outcome::Stored(name));
                }
                Err(e) => self.outcomes.set(lane, Outcome::Failed(e)),
            }
        }
        while self.given_up.join_next().await.is_some() {}
        first.ok_or_else(|| self.outcomes.first_failure())
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        let lanes = std::mem::take(&mut self.lanes);
        let aborted: Result<()> =
            join_all(lanes.into_iter().map(|lane| lane.upload.abort())).await.into_iter().collect();
        while self.given_up.join_next().await.is_some() {}
        aborted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::destination::LocalFolder;

    /// Takes the first write and then nothing more.
    struct Stalls {
        taken: bool,
    }

    #[async_trait]
    impl Upload for Stalls {
        async fn write(&mut self, _: Bytes) -> Result<()> {
            if std::mem::replace(&mut self.taken, true) {
                std::future::pending::<()>().await;
            }
            Ok(())
        }

        async fn finish(&mut self) -> Result<()> {
            Ok(())
        }

        async fn commit(self: Box<Self>) -> Result<String> {
            Ok("stalled".into())
        }

        async fn abort(self: Box<Self>) -> Result<()> {
            std::future::pending().await
        }

        fn pulse(&self) -> Option<Pulse> {
            Some(Pulse::new(Duration::from_millis(300)))
        }
    }

    #[tokio::test]
    async fn a_place_that_stands_still_is_given_up_and_said_and_the_others_stand() {
        let dir = tempfile::tempdir().unwrap();
        let folder: Arc<dyn Destination> = Arc::new(LocalFolder::new(dir.path()));
        let lane = |name: &str| Lane {
            destination: folder.clone(),
            provisional: format!(".{name}"),
            names: vec![name.to_owned()],
            beside: false,
        };
        let (fan, outcomes) = Fan::new(vec![lane("a"), lane("b")], &Context::default());
        let upload = fan.create("", &[]).await.unwrap();
        drop(upload);
        let good = folder.create(".a", &["a".to_owned()]).await.unwrap();
        let going = |number, upload: Box<dyn Upload>| Going {
            number,
            place: format!("place {number}"),
            pulse: upload.pulse().unwrap_or_else(|| Pulse::new(STILL)),
            upload,
        };
        let lanes = vec![going(0, good), going(1, Box::new(Stalls { taken: false }))];
        let mut tee = Box::new(Tee { lanes, outcomes: outcomes.clone(), given_up: JoinSet::new() });
        let begin = Instant::now();
        for _ in 0..3 {
            tee.write("bytes".into()).await.unwrap();
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "the other was held up");
        // It is not waited for to clear up behind it, either: that has a limit of its own.
        tee.given_up.abort_all();
        tee.finish().await.unwrap();
        assert_eq!(tee.commit().await.unwrap(), "a");
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"bytesbytesbytes");
        let said = outcomes.all();
        assert!(matches!(&said[0], Outcome::Stored(name) if name == "a"), "{said:?}");
        assert!(
            matches!(&said[1], Outcome::Failed(e) if e.to_string().contains("nothing moved")),
            "{said:?}"
        );
    }
}
