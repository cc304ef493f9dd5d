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
    /// All must be written alike: what is compressed once is the same everywhere.
    pub fn new(mut places: Vec<PortableArchive>) -> Result<Self> {
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
            return Err(wrong("none is given"));
        }
        let written = Written::default();
        places.iter_mut().for_each(|place| place.remember_in(&written));
        Ok(Together { places, written, state: Mutex::default() })
    }

    /// Makes a backup at all of them. `Ok` if it stands at one at least: see `Report::places`.
    pub async fn create(self, mut request: CreateRequest, cx: &Context) -> Result<Report> {
        let read_back = std::mem::take(&mut request.read_back);
        let mut report = pipeline::create(request, &self, cx).await?;
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
        match report.places.iter().any(|p| p.error.is_none()) {
            true => Ok(report),
            false => Err(self.first_failure(&report)),
        }
    }

    fn first_failure(&self, report: &Report) -> Error {
        let first = report.places.iter().find_map(|p| p.error.clone());
        first.unwrap_or_else(|| Error::contract("no place is left"))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that have not failed so far.
    fn left(&self) -> Vec<usize> {
        let state = self.state();
        (0..self.places.len()).filter(|i| !state.failed.iter().any(|(failed, _)| failed == i)).collect()
    }

    /// Remembers failures; when no place is left, the first is an error of all.
    fn keep<T>(&self, results: Vec<(usize, Result<T>)>, cx: &Context) -> Result<Vec<(usize, T)>> {
        let mut good = Vec::new();
        for (i, result) in results {
            match result {
                Ok(value) => good.push((i, value)),
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => {
                    // What the others have says so, too.
                    cx.note(
                        Severity::Note,
                        "",
                        self.places[i].to_string(),
                        format!("it is not kept there: {e}"),
                    );
                    self.state().failed.push((i, e));
                }
            }
        }
        match good.is_empty() {
            true => Err(self.state().failed.first().map_or_else(Error::cut, |(_, e)| e.clone())),
            false => Ok(good),
        }
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
        self.places.iter().enumerate().map(report).collect()
    }
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
