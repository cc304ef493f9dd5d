//! One backup at several places: read and compressed once, written to all. A place that fails fails only itself.

use super::{
    PortableArchive, PortableOptions, name,
    writer::{self, PortableWriter},
    written::Written,
};
use crate::{
    Archive, BackupHeader, BackupId, BackupReader, BackupSummary, BackupWriter, Context, CreateRequest,
    Error, ErrorKind, PlaceReport, ReadBack, Report, Result, RunLock, Series, Severity,
    destination::{Fan, Lane, Outcome, Outcomes},
    pipeline,
};
use async_trait::async_trait;
use futures::future::join_all;
use jiff::Timestamp;
use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Several places for one backup.
pub struct Together {
    places: Vec<PortableArchive>,
    /// What could not even be made a place, and why.
    unusable: Vec<(String, Error)>,
    written: Written,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Places that were given up before anything was sent to them.
    failed: Vec<(usize, Error)>,
    /// The places of the lanes, and what has come of these.
    lanes: Option<(Vec<usize>, Outcomes)>,
}

impl Together {
    /// All must be written alike: what is compressed once is the same everywhere. `unusable` are others, by name, that have failed
    /// already.
    pub fn new(mut places: Vec<PortableArchive>, unusable: Vec<(String, Error)>) -> Result<Self> {
        let wrong = |text: &str| Error::new(ErrorKind::Usage, "write to several archives", text);
        let mut seen = HashSet::new();
        for place in &places {
            if !seen.insert((place.destination().identity(), place.to_string())) {
                return Err(wrong("it is named twice").on(place));
            }
            if !place.options().writes_as(places[0].options()) {
                return Err(wrong("they are to be written in different ways, and are written once for all")
                    .on(place)
                    .hint("make the backup at one of them, and `backup copy` it to the other"));
            }
        }
        if places.is_empty() {
            return Err(match unusable.first() {
                Some((_, first)) => of_all(&unusable, first),
                None => wrong("none is given"),
            });
        }
        let written = Written::default();
        places.iter_mut().for_each(|place| place.remember_in(&written));
        Ok(Together { places, unusable, written, state: Mutex::default() })
    }

    /// Makes a backup at all of them. `Ok` if it stands at one at least: see `Report::places`.
    pub async fn create(self, mut request: CreateRequest, cx: &Context) -> Result<Report> {
        let read_back = std::mem::take(&mut request.read_back);
        let mut report = pipeline::create(request, &self, cx).await.map_err(|e| self.nowhere(e))?;
        report.places = self.reports();
        if read_back != ReadBack::None {
            report.read_back = true;
            for (place, archive) in report.places.clone().into_iter().zip(&self.places) {
                let Some(location) = place.location else { continue };
                let at = report.places.iter_mut().find(|p| p.place == place.place);
                match (pipeline::read_back(archive, &report.id, &location, read_back, cx).await, at) {
                    (Ok(done), _) => report.read_back &= done,
                    (Err(e), Some(at)) => at.error = Some(e),
                    (Err(e), None) => return Err(e),
                }
            }
            report.notes = cx.notes();
        }
        let failed = report.places.iter().map(|p| Some((p.place.clone(), p.error.clone()?)));
        match failed.collect::<Option<Vec<_>>>() {
            None => Ok(report),
            // That a place has it, and it must not be trusted there, comes before what others lack.
            Some(failed) => {
                let told = failed.iter().map(|(_, e)| e).find(|e| e.kind() == ErrorKind::Damaged);
                let told = told.cloned().unwrap_or_else(|| failed[0].1.clone());
                Err(of_all(&failed, &told).with_kind(told.kind()))
            }
        }
    }

    /// The error that ended the run; if it is that no place is left, each place with what went wrong there.
    fn nowhere(&self, e: Error) -> Error {
        let state = self.state();
        let mut failed = state.failed.clone();
        if let Some((lanes, outcomes)) = &state.lanes {
            let of = |(place, outcome): (&usize, Outcome)| match outcome {
                Outcome::Failed(e) => Some((*place, e)),
                Outcome::Going | Outcome::Stored(_) => None,
            };
            failed.extend(lanes.iter().zip(outcomes.all()).filter_map(of));
        }
        failed.sort_by_key(|(place, _)| *place);
        if failed.len() < self.places.len() || e.kind() == ErrorKind::Cancelled {
            return e;
        }
        let mut failed: Vec<_> =
            failed.into_iter().map(|(place, e)| (self.places[place].to_string(), e)).collect();
        failed.extend(self.unusable.clone());
        of_all(&failed, &e)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that have not failed so far.
    fn left(&self) -> Vec<usize> {
        let state = self.state();
        (0..self.places.len()).filter(|i| !state.failed.iter().any(|(failed, _)| failed == i)).collect()
    }

    /// Remembers failures; when no place is left, they are an error of all.
    fn keep<T>(&self, results: Vec<(usize, Result<T>)>, cx: &Context) -> Result<Vec<(usize, T)>> {
        let mut good = Vec::new();
        for (i, result) in results {
            match result {
                Ok(value) => good.push((i, value)),
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => {
                    note_not_kept(&self.places[i].to_string(), &e, cx);
                    self.state().failed.push((i, e));
                }
            }
        }
        if good.is_empty() {
            let first = self.state().failed.first().map_or_else(Error::cut, |(_, e)| e.clone());
            return Err(self.nowhere(first));
        }
        Ok(good)
    }

    fn reports(&self) -> Vec<PlaceReport> {
        let state = self.state();
        let outcomes = state.lanes.as_ref().map(|(_, outcomes)| outcomes.all()).unwrap_or_default();
        let lanes = state.lanes.as_ref().map(|(lanes, _)| lanes.clone()).unwrap_or_default();
        let of = |i: usize| {
            let lane = lanes.iter().position(|lane| *lane == i)?;
            outcomes.get(lane).cloned()
        };
        let report = |(i, place): (usize, &PortableArchive)| {
            let failed = state.failed.iter().find(|(failed, _)| *failed == i).map(|(_, e)| e.clone());
            let (location, error) = match (failed, of(i)) {
                (Some(e), _) | (None, Some(Outcome::Failed(e))) => (None, Some(e)),
                (None, Some(Outcome::Stored(name))) => (Some(name), None),
                (None, Some(Outcome::Going) | None) => (None, Some(Error::cut())),
            };
            PlaceReport { place: place.to_string(), location, error }
        };
        let unusable = self.unusable.iter().cloned();
        let unusable = unusable.map(|(place, e)| PlaceReport { place, location: None, error: Some(e) });
        self.places.iter().enumerate().map(report).chain(unusable).collect()
    }
}

/// What the others have says so, too.
fn note_not_kept(place: &str, e: &Error, cx: &Context) {
    cx.note(Severity::Note, "", place, format!("it is not kept there: {e}"));
}

/// One error of all places. What is of several kinds is of none of them: the places could not be written.
fn of_all(failed: &[(String, Error)], told: &Error) -> Error {
    if let [_] = failed {
        return told.clone();
    }
    let kind = match failed.iter().all(|(_, e)| e.kind() == told.kind()) {
        true => told.kind(),
        false => ErrorKind::Destination,
    };
    let each = |(place, e): &(String, Error)| e.clone().within(place).to_string();
    let causes: Vec<_> = failed.iter().map(each).collect();
    let has = match failed.iter().any(|(_, e)| e.kind() == ErrorKind::Damaged) {
        true => "has it undamaged",
        false => "has it",
    };
    let text = format!("none of the {} places {has}: {}", failed.len(), causes.join("; "));
    let error =
        Error::new(kind, told.operation().to_owned(), text).retry(failed.iter().all(|(_, e)| e.may_retry()));
    let mut hints: Vec<_> = failed.iter().filter_map(|(_, e)| e.hint_text()).collect();
    let mut seen = HashSet::new();
    hints.retain(|hint| seen.insert(*hint));
    if hints.is_empty() { error } else { error.hint(hints.join("; ")) }
}

impl PortableOptions {
    /// Whether the bytes of an archive are the same with both.
    fn writes_as(&self, other: &PortableOptions) -> bool {
        let level = |o: &PortableOptions| o.level.unwrap_or(o.compression.default_level());
        self.compression == other.compression
            && level(self) == level(other)
            && self.recipients == other.recipients
    }
}

impl fmt::Display for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places: Vec<String> = self.places.iter().map(ToString::to_string).collect();
        f.write_str(&places.join(", "))
    }
}

/// The lock of the series at each place.
struct Locks(Vec<Box<dyn RunLock>>);

#[async_trait]
impl RunLock for Locks {
    async fn release(self: Box<Self>) -> Result<()> {
        join_all(self.0.into_iter().map(RunLock::release)).await.into_iter().collect()
    }
}

#[async_trait]
impl Archive for Together {
    async fn preflight(&self, estimate: Option<u64>, cx: &Context) -> Result<Vec<String>> {
        let trials = self.places.iter().enumerate();
        let trials =
            join_all(trials.map(|(i, place)| async move { (i, place.preflight(estimate, cx).await) }));
        let good = self.keep(trials.await, cx)?;
        self.unusable.iter().for_each(|(place, e)| note_not_kept(place, e, cx));
        Ok(good.into_iter().flat_map(|(_, warnings)| warnings).collect())
    }

    /// In the order of their names, so that two runs never wait for each other. A run that goes on at one is an error for all.
    async fn lock(&self, series: &Series, wait: Duration, cx: &Context) -> Result<Box<dyn RunLock>> {
        let (mut taken, mut left) = (Vec::new(), self.left());
        left.sort_by_key(|i| self.places[*i].to_string());
        for i in left {
            match self.places[i].lock(series, wait, cx).await {
                Err(e) if e.kind() == ErrorKind::AlreadyRunning => {
                    let (_, locks): (Vec<_>, Vec<_>) =
                        taken.into_iter().filter_map(|(i, lock)| Some((i, Result::ok(lock)?))).unzip();
                    // That another run goes on is what is told.
                    let _ = Box::new(Locks(locks)).release().await;
                    return Err(e.on(&self.places[i]));
                }
                other => taken.push((i, other)),
            }
        }
        let locks = self.keep(taken, cx)?;
        Ok(Box::new(Locks(locks.into_iter().map(|(_, lock)| lock).collect())))
    }

    async fn begin(&self, header: BackupHeader, cx: &Context) -> Result<Box<dyn BackupWriter>> {
        let left = self.left();
        let lanes = left.iter().map(|i| self.places[*i].lane(&header)).collect();
        let (fan, outcomes) = Fan::new(lanes, cx);
        self.state().lanes = Some((left, outcomes));
        let options = self.places[0].options();
        Ok(Box::new(
            PortableWriter::begin(Arc::new(fan), None, options, self.written.clone(), header, cx).await?,
        ))
    }

    async fn open(&self, id: &BackupId, cx: &Context) -> Result<Arc<dyn BackupReader>> {
        let stored = self.reports().iter().position(|p| p.location.is_some()).unwrap_or(0);
        self.places[stored].open(id, cx).await
    }

    async fn list(&self, _cx: &Context) -> Result<Vec<BackupSummary>> {
        Err(Error::contract("several places are only written to"))
    }

    async fn remove(&self, _ids: &[BackupId], _cx: &Context) -> Result<()> {
        Err(Error::contract("several places are only written to"))
    }

    async fn mark_verified(&self, _id: &BackupId, _at: Timestamp, _cx: &Context) -> Result<()> {
        Err(Error::contract("several places are only written to"))
    }

    async fn heal(&self, _cx: &Context) -> Result<Vec<String>> {
        Err(Error::contract("several places are only written to"))
    }
}

impl PortableArchive {
    /// What this place calls a backup, among several places for one.
    fn lane(&self, header: &BackupHeader) -> Lane {
        let (options, exact) = (self.options(), self.exact());
        let stem = name::stem(&options.name_template, &header.module, header.created, &header.id);
        let extension = &options.extension();
        let provisional = name::provisional(exact.unwrap_or(&stem), extension, &header.series, &header.id);
        let names = match exact {
            Some(exact) => vec![exact.to_owned()],
            None => writer::names(&stem, extension),
        };
        Lane { destination: self.destination(), provisional, names, beside: exact.is_none() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_that_fail_at_different_steps_are_all_named() {
        let dir = tempfile::tempdir().unwrap();
        let place =
            |path: &str| PortableArchive::folder(dir.path().join(path), PortableOptions::default()).unwrap();
        let together =
            Together::new(vec![place("no/such"), place("gone"), place("gone-too")], Vec::new()).unwrap();
        let cx = Context::default();
        together.preflight(None, &cx).await.unwrap();
        for path in ["gone", "gone-too"] {
            std::fs::remove_dir(dir.path().join(path)).unwrap();
        }
        let header = BackupHeader {
            id: BackupId::generate(),
            module: "m".into(),
            series: Series("s".into()),
            created: Timestamp::now(),
            host: "h".into(),
            components: Vec::new(),
            metadata: Default::default(),
            tags: Vec::new(),
            note: None,
        };
        let Err(first) = together.begin(header, &cx).await else { panic!("it has begun") };
        let e = together.nowhere(first);
        assert_eq!(e.kind(), ErrorKind::Destination);
        for path in ["no/such: cannot create", "gone/.m-backup", "gone-too/.m-backup"] {
            let named = format!("{}/{path}", dir.path().display());
            assert!(e.message().contains(&named), "{path}: {e}");
        }
    }

    #[test]
    fn of_several_kinds_of_failures_it_is_that_the_places_cannot_be_written() {
        let of = |kinds: [ErrorKind; 2]| {
            let e = |kind| Error::new(kind, "write", "no").hint("try again");
            let failed = kinds.map(|kind| ("place".to_owned(), e(kind)));
            of_all(&failed, &failed[0].1)
        };
        assert_eq!(of([ErrorKind::Refused, ErrorKind::Refused]).kind(), ErrorKind::Refused);
        assert_eq!(of([ErrorKind::Refused, ErrorKind::Usage]).kind(), ErrorKind::Destination);
        assert_eq!(of([ErrorKind::Usage; 2]).hint_text(), Some("try again"));
    }
}
