//! Makes a backup: many stores, one moment, one manifest.

use super::{ComponentReport, Pouring, ReadBack, Report, give_up, read_back, still_wanted};
use crate::{
    Archive, BackupHeader, BackupId, BackupWriter, ComponentHeader, Conclusion, Context, Error, ErrorKind,
    Event, Moment, Phase, Poured, ProcessStamp, Ready, Result, Series, Severity, Source, State, Stillness,
    View, is_component_name,
};
use jiff::Timestamp;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// A component to be backed up.
pub struct CreateComponent {
    /// Name, kind, folder, origin.
    pub header: ComponentHeader,
    /// What is read.
    pub source: Box<dyn Source>,
}

/// A backup to be made.
#[derive(Default)]
pub struct CreateRequest {
    /// The application.
    pub module: String,
    /// Its series.
    pub series: Series,
    /// Its components, at least one.
    pub components: Vec<CreateComponent>,
    /// What the embedder adds to the manifest.
    pub metadata: BTreeMap<String, Value>,
    /// Labels.
    pub tags: Vec<String>,
    /// A remark.
    pub note: Option<String>,
    /// A warning makes the backup partial.
    pub strict: bool,
    /// A source that cannot be opened is left out and the backup is partial; otherwise nothing is stored.
    pub allow_partial: bool,
    /// How long to wait for another run of the series.
    pub wait: Duration,
    /// What is read again after the backup is written.
    pub read_back: ReadBack,
    /// What is read was made at this time by somebody else, and nobody counted anything then: the backup is unproven.
    pub made: Option<Timestamp>,
}

/// Moments further apart than this are worth a note.
const SKEW_WORTH_A_NOTE_MS: u64 = 10_000;

/// Makes a backup. `Ok` is a complete **or partial** one: see `Report::state`. After an `Err` nothing is stored, except when
/// what was written was read back and found damaged: then the error is of kind `ErrorKind::Damaged` and names the backup, which is
/// there and marked as damaged. A backup that could not be read back, or not to its end because the run was cancelled, is `Ok` with
/// a warning and `Report::read_back` false.
pub async fn create(request: CreateRequest, archive: &dyn Archive, cx: &Context) -> Result<Report> {
    check(&request)?;
    let (request, mut run) = Run::open(request, archive, cx).await?;
    let lock = archive.lock(&request.series, request.wait, cx).await?;
    let made = run.make(&request, archive).await;
    if let Err(e) = lock.release().await {
        cx.note(Severity::Warning, "", "", format!("the run lock could not be given back: {e}"));
    }
    made.map(|report| Report { notes: cx.notes(), finished: Timestamp::now(), ..report })
}

fn check(request: &CreateRequest) -> Result<()> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Usage, "create a backup", message));
    if !is_component_name(&request.module) {
        return wrong(format!("{:?} is no name of a module", request.module));
    }
    if request.series.0.is_empty() {
        return wrong("the series has no name".to_owned());
    }
    if request.components.is_empty() {
        return wrong("there is nothing to back up".to_owned());
    }
    let mut names = HashSet::new();
    for ComponentHeader { name, folder, .. } in request.components.iter().map(|c| &c.header) {
        if !is_component_name(name) || !is_component_name(folder) {
            return wrong(format!("{name:?} in {folder:?} is no name of a component"));
        }
        if !names.insert(name) {
            return wrong(format!("there are two components {name}"));
        }
    }
    Ok(())
}

/// A component whose source is connected. The source lives as long as the run: it may hold what its view needs.
struct Open {
    header: ComponentHeader,
    _source: Arc<dyn Source>,
    estimate: Option<u64>,
    stillness: Stillness,
}

struct Run<'a> {
    header: BackupHeader,
    open: Vec<Open>,
    ready: Vec<Box<dyn Ready>>,
    not_included: Vec<String>,
    started: Timestamp,
    cx: &'a Context,
}

impl<'a> Run<'a> {
    /// Connects everything and tries the destination; nothing is touched.
    async fn open(
        mut request: CreateRequest,
        archive: &dyn Archive,
        cx: &'a Context,
    ) -> Result<(CreateRequest, Run<'a>)> {
        cx.emit(&Event::Phase { phase: Phase::Preflight });
        let components: Vec<(ComponentHeader, Arc<dyn Source>)> = std::mem::take(&mut request.components)
            .into_iter()
            .map(|c| (c.header, Arc::from(c.source)))
            .collect();
        let connecting = components.iter().map(|(_, source)| super::connect(source.clone(), cx.clone()));
        let connected = super::side_by_side("connect", connecting).await;
        let header = BackupHeader {
            id: BackupId::generate(),
            module: request.module.clone(),
            series: request.series.clone(),
            created: request.made.unwrap_or_else(Timestamp::now),
            host: ProcessStamp::current().host,
            components: Vec::new(),
            metadata: request.metadata.clone(),
            tags: request.tags.clone(),
            note: request.note.clone(),
        };
        let mut run = Run {
            header,
            open: Vec::new(),
            ready: Vec::new(),
            not_included: Vec::new(),
            started: Timestamp::now(),
            cx,
        };
        let mut first = None;
        for ((header, source), ready) in components.into_iter().zip(connected) {
            match ready {
                Ok(ready) => {
                    let (estimate, stillness) = (ready.estimate(), ready.stillness());
                    run.open.push(Open { header, _source: source, estimate, stillness });
                    run.ready.push(ready);
                }
                Err(e) => {
                    let e = e.for_component(&header.name);
                    run.leave_out(&header.name, e, request.allow_partial, &mut first)?;
                }
            }
        }
        if let (true, Some(e)) = (run.open.is_empty(), first) {
            return Err(e);
        }
        let known: Vec<u64> = run.open.iter().filter_map(|o| o.estimate).collect();
        let estimate = (!known.is_empty()).then(|| known.iter().fold(0, |a: u64, b| a.saturating_add(*b)));
        for warning in archive.preflight(estimate, cx).await? {
            cx.note(Severity::Note, "", "", warning);
        }
        still_wanted(cx)?;
        Ok((request, run))
    }

    /// A component that cannot be opened: an error, unless the request allows to go on without it.
    fn leave_out(&mut self, name: &str, e: Error, allowed: bool, first: &mut Option<Error>) -> Result<()> {
        let e = e.on(name);
        if !allowed || e.kind() == ErrorKind::Cancelled {
            return Err(e);
        }
        self.cx.note(Severity::Lost, name, "", format!("not included: {e}"));
        self.not_included.push(format!("{name}: {e}"));
        first.get_or_insert(e);
        Ok(())
    }

    async fn make(&mut self, request: &CreateRequest, archive: &dyn Archive) -> Result<Report> {
        let cx = self.cx;
        still_wanted(cx)?;
        self.header.components = self.open.iter().map(|o| o.header.clone()).collect();
        let mut writer = archive.begin(self.header.clone(), cx).await?;
        let views = match self.fix(request.allow_partial).await {
            Ok(views) => views,
            Err(e) => return give_up(writer, e, cx).await,
        };
        if self.open.len() < self.header.components.len() {
            // A component that could not be fixed must not be in the backup as an empty one: begun again without it.
            writer.abort(&cx.calm()).await?;
            self.header.components = self.open.iter().map(|o| o.header.clone()).collect();
            writer = archive.begin(self.header.clone(), cx).await?;
        }
        let skew_ms = skew(views.iter().map(|v| v.moment()));
        if skew_ms > SKEW_WORTH_A_NOTE_MS {
            cx.note(Severity::Note, "", "", format!("the moments of the components are {skew_ms} ms apart"));
        }
        let poured = match self.pour(views, &*writer).await.and_then(|p| still_wanted(cx).map(|()| p)) {
            Ok(poured) => poured,
            Err(e) => return give_up(writer, e, cx).await,
        };
        let components: Vec<_> =
            self.open.iter().zip(&poured).map(|(o, p)| ComponentReport::of(&o.header.kind, p)).collect();
        cx.emit(&Event::Phase { phase: Phase::Commit });
        let notes = cx.notes();
        let state = match request.made {
            Some(_) => State::Unproven,
            None => self.state(&poured, notes.worst(), request.strict),
        };
        let not_included = self.not_included.clone();
        let conclusion = Conclusion {
            poured,
            notes: notes.clone(),
            state,
            not_included: not_included.clone(),
            finished: Timestamp::now(),
        };
        let summary = super::calmly("commit", writer.commit(conclusion, cx)).await?;
        let mut report = Report::of(summary, components, not_included, skew_ms, notes);
        report.started = self.started;
        if request.read_back != ReadBack::None {
            report.read_back =
                read_back(archive, &report.id, &report.location, request.read_back, cx).await?;
        }
        Ok(report)
    }

    /// The barrier: all moments at once.
    async fn fix(&mut self, allow_partial: bool) -> Result<Vec<Box<dyn View>>> {
        let cx = self.cx;
        still_wanted(cx)?;
        cx.emit(&Event::Phase { phase: Phase::Fix });
        let fixing = std::mem::take(&mut self.ready).into_iter().map(|ready| {
            let cx = cx.clone();
            async move { ready.fix(&cx).await }
        });
        let fixed = super::side_by_side("fix the moment", fixing).await;
        let (mut views, mut first) = (Vec::new(), None);
        for (open, view) in std::mem::take(&mut self.open).into_iter().zip(fixed) {
            match view {
                Ok(view) => {
                    views.push(view);
                    self.open.push(open);
                }
                Err(e) => self.leave_out(&open.header.name, e, allow_partial, &mut first)?,
            }
        }
        match (views.is_empty(), first) {
            (true, Some(e)) => Err(e),
            _ => Ok(views),
        }
    }

    /// All data. A component that fails is in the backup as far as it came, and lost.
    async fn pour(&mut self, views: Vec<Box<dyn View>>, writer: &dyn BackupWriter) -> Result<Vec<Poured>> {
        let cx = self.cx;
        cx.emit(&Event::Phase { phase: Phase::Pour });
        let mut list = Vec::new();
        for (open, view) in self.open.iter().zip(views) {
            let component = open.header.name.clone();
            let sink = writer.component(&component)?;
            list.push((Pouring { component, view, sink, stillness: Some(open.stillness) }, open.estimate));
        }
        let outcomes = super::pour_each(list, false, cx).await;
        if let Some(e) = super::what_ended(&outcomes) {
            return Err(e);
        }
        let failures = || outcomes.iter().filter_map(|o| Some((o, o.view.as_ref().err()?)));
        if failures().count() == outcomes.len()
            && let Some((o, e)) = failures().next()
        {
            return Err(e.clone().on(&o.component));
        }
        for (o, e) in failures() {
            cx.note(Severity::Lost, &o.component, "", format!("it is not whole: {e}"));
        }
        let mut poured = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let p = outcome.into_poured()?;
            for difference in &p.differences {
                cx.note(
                    Severity::Lost,
                    &p.component,
                    "",
                    format!("the counts of one pour differ: {difference}"),
                );
            }
            poured.push(p);
        }
        Ok(poured)
    }

    fn state(&self, poured: &[Poured], worst: Option<Severity>, strict: bool) -> State {
        let lacks = poured.iter().any(|p| p.lost > 0 || !p.differences.is_empty());
        let limit = if strict { Severity::Warning } else { Severity::Lost };
        match lacks || !self.not_included.is_empty() || worst >= Some(limit) {
            true => State::Partial,
            false => State::Complete,
        }
    }
}

fn skew(moments: impl Iterator<Item = Moment>) -> u64 {
    let (first, last) = moments
        .fold((Timestamp::MAX, Timestamp::MIN), |(first, last), m| (first.min(m.first), last.max(m.last)));
    u64::try_from(last.duration_since(first).as_millis()).unwrap_or(0)
}
