//! A backup of a module, step by step to `run`.

use crate::{
    ArchiveSpec, Error, Module, Result, Run, SourceSpec, archive::check_credentials, guard,
    series::SeriesParts, state_dir,
};
use backup_core::{
    ComponentHeader, CreateComponent, CreateRequest, ErrorKind, Event, ProcessStamp, ReadBack, Report,
    Series, State, portable::Together,
};
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// A backup that is being described; `run` makes it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Backup {
    module: Module,
    to: Vec<ArchiveSpec>,
    only: Vec<String>,
    metadata: BTreeMap<String, Value>,
    tags: Vec<String>,
    note: Option<String>,
    strict: bool,
    allow_partial: bool,
    wait: Duration,
    read_back: ReadBack,
    run: Run,
}

/// What a backup would do, after every source was connected and the destination was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Preflight {
    /// The module.
    pub module: String,
    /// Its series.
    pub series: Series,
    /// Where the backup would be kept.
    pub archive: String,
    /// What would be read.
    pub components: Vec<PreflightComponent>,
    /// What the destination says, for people.
    pub warnings: Vec<String>,
}

/// A component of a preflight.
#[derive(Clone, Debug, Serialize)]
pub struct PreflightComponent {
    /// Its name.
    pub name: String,
    /// Kind of its store.
    pub kind: String,
    /// The source, for people.
    pub source: String,
    /// Bytes that would flow, as far as is known.
    pub estimate: Option<u64>,
}

impl Backup {
    pub(crate) fn new(module: Module) -> Self {
        Backup {
            module,
            to: Vec::new(),
            only: Vec::new(),
            metadata: BTreeMap::new(),
            tags: Vec::new(),
            note: None,
            strict: false,
            allow_partial: false,
            wait: Duration::ZERO,
            read_back: ReadBack::None,
            run: Run::default(),
        }
    }

    /// Where the backup is kept. Called again it is kept there, too: read and compressed once, written to each. One place that
    /// fails is `Err(Error::NotEverywhere)`; the backup stands at the others.
    pub fn to(mut self, archive: ArchiveSpec) -> Self {
        self.to.push(archive);
        self
    }

    /// Only this component; may be called again. Such a run is a series of its own.
    pub fn only(mut self, component: impl Into<String>) -> Self {
        self.only.push(component.into());
        self
    }

    /// Adds a field to the metadata of the backup.
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Adds a label.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Adds a remark.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// A warning (a file that changed while it was read) makes the backup partial.
    pub fn strict(mut self, yes: bool) -> Self {
        self.strict = yes;
        self
    }

    /// Goes on, to a partial backup, when a source cannot be opened.
    pub fn allow_partial(mut self, yes: bool) -> Self {
        self.allow_partial = yes;
        self
    }

    /// Waits at most so long for another run of the same series; zero: fails at once.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// What is read again after the backup is written.
    pub fn read_back(mut self, how: ReadBack) -> Self {
        self.read_back = how;
        self
    }

    /// Receives the events of the run. Called from its tasks: must be quick and must not block.
    pub fn on_event(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.run.observer = Some(Arc::new(observer));
        self
    }

    /// Ends the run in order when `token` is cancelled; nothing stays behind.
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.run.cancel = token;
        self
    }

    /// Bounds the bytes that are held at once of what is read for a backup; 24 MiB and 4 MiB for each core (of 2 to 16) if not
    /// given.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.run.memory_limit = Some(bytes);
        self
    }

    /// Makes the backup. `Ok` is a complete one, at every place; a partial one is `Err(Error::Partial)` with its report.
    pub async fn run(self) -> Result<Report> {
        let request = self.prepare()?;
        let report = match self.to.as_slice() {
            [one] => backup_core::create(request, &*one.open()?, &self.run.context()).await?,
            several => {
                let usable = several.iter().filter(|spec| spec.why_unusable().is_none());
                let places = usable.map(ArchiveSpec::open_portable).collect::<Result<_, _>>()?;
                let unusable =
                    several.iter().filter_map(|s| Some((s.to_string(), s.why_unusable()?.clone())));
                Together::new(places, unusable.collect())?.create(request, &self.run.context()).await?
            }
        };
        match report.state {
            _ if report.places.iter().any(|p| p.error.is_some()) => {
                Err(Error::NotEverywhere(Box::new(report)))
            }
            State::Complete => Ok(report),
            _ => Err(Error::Partial(Box::new(report))),
        }
    }

    /// Connects every source and tries the destination; stores nothing. A folder that trying has made is removed again.
    pub async fn preflight(self) -> Result<Preflight> {
        let request = self.prepare()?;
        let cx = self.run.context();
        let mut components = Vec::new();
        for c in &request.components {
            let ready = c.source.connect(&cx).await.map_err(|e| e.on(&c.header.name))?;
            components.push(PreflightComponent {
                name: c.header.name.clone(),
                kind: c.header.kind.clone(),
                source: c.source.to_string(),
                estimate: ready.estimate(),
            });
        }
        let estimate = components.iter().map(|c| c.estimate).sum();
        let mut warnings = Vec::new();
        let mut failed = Vec::new();
        for spec in &self.to {
            let absent = guard::absent(spec.local_folder()).await;
            let tried = match spec.open() {
                Ok(archive) => archive.preflight(estimate, &cx).await,
                Err(e) => Err(e),
            };
            guard::remove_empty(absent).await;
            match tried {
                Ok(said) => warnings.extend(said),
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e.into()),
                Err(e) => failed.push((spec.to_string(), e)),
            }
        }
        if !failed.is_empty() {
            return Err(not_all(failed, self.to.len()).into());
        }
        let archives: Vec<String> = self.to.iter().map(ToString::to_string).collect();
        Ok(Preflight {
            warnings,
            module: request.module,
            series: request.series,
            archive: archives.join(", "),
            components,
        })
    }

    fn prepare(&self) -> Result<CreateRequest> {
        self.module.check()?;
        if self.to.is_empty() {
            return Err(usage("no archive is given to keep it in").into());
        }
        check_credentials(&self.to)?;
        for name in &self.only {
            if !self.module.sources.iter().any(|(c, _)| c == name) {
                let known: Vec<&str> = self.module.components().map(|(c, _)| c).collect();
                return Err(usage(format!("it has no component `{name}`; there are: {}", known.join(", ")))
                    .on(&self.module.name)
                    .into());
            }
        }
        let chosen = |name: &String| self.only.is_empty() || self.only.contains(name);
        let mut components = Vec::new();
        for (name, source) in self.module.sources.iter().filter(|(c, _)| chosen(c)) {
            components.push(self.component(name, source)?);
        }
        let parts = SeriesParts {
            module: &self.module.name,
            host: &ProcessStamp::current().host,
            places: self.module.places.clone(),
            only: self.only.clone(),
        };
        let request = CreateRequest {
            module: self.module.name.clone(),
            series: parts.series(),
            components,
            metadata: self.metadata.clone(),
            tags: self.tags.clone(),
            note: self.note.clone(),
            strict: self.strict,
            allow_partial: self.allow_partial,
            wait: self.wait,
            read_back: self.read_back,
            made: None,
        };
        Ok(request)
    }

    fn component(&self, name: &str, source: &SourceSpec) -> Result<CreateComponent> {
        let backend = self.module.registry.get(&source.kind)?;
        let config = guard::without_journals(&source.kind, &source.config, state_dir().ok());
        let made = backend.source(name, config).map_err(|e| e.on(name))?;
        let origin = made.origin();
        for archive in &self.to {
            guard::destination_outside(archive.local_path(), &source.kind, &source.config)?;
        }
        let header = ComponentHeader {
            name: name.to_owned(),
            kind: source.kind.clone(),
            folder: backend.folder().to_owned(),
            origin,
        };
        Ok(CreateComponent { header, source: made })
    }
}

/// One error of the places that cannot be used, of so many. What would fail only some of them is a failure of the destination, as it is
/// when the backup is made.
fn not_all(mut failed: Vec<(String, backup_core::Error)>, places: usize) -> backup_core::Error {
    if places == 1
        && let Some((_, e)) = failed.pop()
    {
        return e;
    }
    let kind = failed[0].1.kind();
    let same = failed.len() == places && failed.iter().all(|(_, e)| e.kind() == kind);
    let kind = if same { kind } else { ErrorKind::Destination };
    let each: Vec<_> = failed.iter().map(|(place, e)| e.clone().within(place).to_string()).collect();
    let text = format!("{} of the {places} places cannot be used: {}", failed.len(), each.join("; "));
    let mut hints: Vec<_> = failed.iter().filter_map(|(_, e)| e.hint_text()).collect();
    hints.dedup();
    let e = backup_core::Error::new(kind, "try the destinations", text);
    if hints.is_empty() { e } else { e.hint(hints.join("; ")) }
}

fn usage(message: impl std::fmt::Display) -> backup_core::Error {
    backup_core::Error::new(ErrorKind::Usage, "begin the backup", message)
}
