//! A restore, step by step to its plan; and the plan, to be applied.

mod only;
mod plan;

pub use only::Only;
pub use plan::RestorePlan;

use crate::{
    ArchiveSpec, Health, Module, Registry, Result, Run, Scope, SourceSpec, Which, choose_and_tell, guard,
    module::split_name,
    state_dir,
    verify::{mark_damaged, mark_if_damaged},
};
use backup_core::{
    Archive, BackupId, BackupReader, BackupSummary, Component, Error, ErrorKind, Event, HealthCheck,
    Manifest, ProcessStamp, RestoreMember, RestoreOptions, Severity, without_secrets,
};
use jiff::{civil::Date, tz::TimeZone};
use only::Selections;
use serde_json::Value;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// A restore that is being described; `plan` finds out what it would do.
#[derive(Clone, Debug)]
#[must_use]
pub struct Restore {
    archive: ArchiveSpec,
    registry: Registry,
    module: Option<Module>,
    module_name: Option<String>,
    which: Option<Which>,
    only: Vec<Only>,
    to: Vec<(Option<String>, String)>,
    no_owner: bool,
    merge: bool,
    in_place: bool,
    in_place_of: Vec<String>,
    schema_only: bool,
    data_only: bool,
    skip_binary_log: bool,
    globals: bool,
    accept: Vec<String>,
    salvage: bool,
    settle: bool,
    keep_previous: Option<Duration>,
    state_dir: Option<PathBuf>,
    run: Run,
}

impl Restore {
    /// A restore of a backup that is kept there, of any module.
    pub fn new(archive: ArchiveSpec) -> Self {
        Restore {
            archive,
            registry: Registry::default(),
            module: None,
            module_name: None,
            which: None,
            only: Vec::new(),
            to: Vec::new(),
            no_owner: false,
            merge: false,
            in_place: false,
            in_place_of: Vec::new(),
            schema_only: false,
            data_only: false,
            skip_binary_log: false,
            globals: false,
            accept: Vec::new(),
            salvage: false,
            settle: false,
            keep_previous: None,
            state_dir: None,
            run: Run::default(),
        }
    }

    /// Only backups of this module; its configuration says what is disposable and which stores there are.
    pub fn of(mut self, module: Module) -> Self {
        self.registry = module.registry.clone();
        self.module_name = Some(module.name.clone());
        self.module = Some(module);
        self
    }

    /// Only backups of the module of this name.
    pub fn of_name(mut self, module: impl Into<String>) -> Self {
        self.module_name = Some(module.into());
        self
    }

    /// Uses these stores instead of those of this build.
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// The newest complete backup.
    pub fn latest(self) -> Self {
        self.which(Which::Latest(0))
    }

    /// The newest complete backup up to the end of this day in local time.
    pub fn latest_before(self, date: Date) -> Self {
        self.which(Which::Before(date))
    }

    /// The backup of this id, of an id that begins so, or of this file. The only way to a partial one.
    pub fn id(self, id: impl Into<String>) -> Self {
        self.which(Which::Named(id.into()))
    }

    /// The backup that is meant.
    pub fn which(mut self, which: Which) -> Self {
        self.which = Some(which);
        self
    }

    /// Only this component, and of it only what matches the glob if one is given; may be called again.
    pub fn only(mut self, only: Only) -> Self {
        self.only.push(only);
        self
    }

    /// Where a component goes. Without a call each goes where it came from.
    pub fn to(mut self, component: impl Into<String>, target: impl Into<String>) -> Self {
        self.to.push((Some(component.into()), target.into()));
        self
    }

    /// Where everything goes: one component to this place, several each to a folder of its name in it. `component=place`
    /// is the same as `to`.
    pub fn to_place(mut self, text: &str) -> Self {
        let (component, place) = split_name(text);
        self.to.push((component.map(str::to_owned), place.to_owned()));
        self
    }

    /// Does not restore owners, and does not count them as lost.
    pub fn no_owner(mut self, yes: bool) -> Self {
        self.no_owner = yes;
        self
    }

    /// Restores what is intact of a damaged backup, after reading all of it: `apply` ends with `Error::Salvaged`, whose report
    /// names what is lost, or like any other restore if nothing is.
    pub fn salvage(mut self, yes: bool) -> Self {
        self.salvage = yes;
        self
    }

    /// What the backup lacks stays; of both, the backup's. Without it everything that is there is replaced.
    pub fn merge(mut self, yes: bool) -> Self {
        self.merge = yes;
        self
    }

    /// Drops what is there before it is restored, where there is no room for both: there is no way back then, and after a failure it is not whole.
    /// This concerns every component whose store can do that; all others are restored beside what is there, as ever. `plan` ends with
    /// `Usage` if there is none.
    pub fn in_place(mut self, yes: bool) -> Self {
        self.in_place = yes;
        self
    }

    /// The same for this component alone; may be called again. `plan` ends with `Usage` if its store is always restored beside what is there.
    pub fn in_place_of(mut self, component: impl Into<String>) -> Self {
        self.in_place_of.push(component.into());
        self
    }

    /// Definitions without data: tables without rows.
    pub fn schema_only(mut self, yes: bool) -> Self {
        self.schema_only = yes;
        self
    }

    /// Data without definitions: those that are there stay, and the data that is there is replaced by the backup's.
    pub fn data_only(mut self, yes: bool) -> Self {
        self.data_only = yes;
        self
    }

    /// Nothing of the restore goes into the binary log of a MySQL or MariaDB server. Refused by the plan while a replica is attached.
    pub fn skip_binary_log(mut self, yes: bool) -> Self {
        self.skip_binary_log = yes;
        self
    }

    /// Also what belongs to a whole server and not to a database, where the backup has it: users, roles and their grants. Those that
    /// are there already stay as they are.
    pub fn globals(mut self, yes: bool) -> Self {
        self.globals = yes;
        self
    }

    /// Goes on although the plan refuses this, by the name that the refusal has (`Plan::refusals`). May be called again; a name that is
    /// not among the refusals is an error.
    pub fn accept(mut self, refusal: impl Into<String>) -> Self {
        self.accept.push(refusal.into());
        self
    }

    /// Lets the old data go at once.
    pub fn settle(mut self, yes: bool) -> Self {
        self.settle = yes;
        self
    }

    /// How long the old data is kept for an undo; 24 hours if not given.
    pub fn keep_previous(mut self, time: Duration) -> Self {
        self.keep_previous = Some(time);
        self
    }

    /// Where journals are kept; see `state_dir` for what is taken otherwise.
    pub fn state_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(dir.into());
        self
    }

    /// Receives the events of the run. Called from its tasks: must be quick and must not block.
    pub fn on_event(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.run.observer = Some(Arc::new(observer));
        self
    }

    /// Ends the run in order when `token` is cancelled; everything is as before.
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.run.cancel = token;
        self
    }

    /// Bytes of data that may be in flight at once; 24 MiB and 4 MiB for each core if not given.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.run.memory_limit = Some(bytes);
        self
    }

    /// Finds out what the restore would do. Reads only; a backup that turns out to be damaged is marked as `verify` marks it.
    pub async fn plan(self) -> Result<RestorePlan> {
        let cx = self.run.context();
        let archive = self.archive.open()?;
        let backups = archive.list(&cx).await?;
        let which = self.which.clone().ok_or_else(|| {
            usage("no backup is named")
                .hint("latest, an id, a date or a file: `backup list` shows those that there are")
        })?;
        let wanted: Vec<&str> = self.only.iter().map(Only::of).collect();
        let scope = Scope { module: self.module_name.as_deref(), components: &wanted };
        let chosen = choose_and_tell(&backups, &which, scope, &TimeZone::system(), &cx)?.clone();
        let (found_in, id) = (archive.clone(), chosen.id.clone());
        let planned = async {
            let (reader, salvage) = match self.salvage {
                true => salvage(&*archive, &id, &cx).await?,
                false => (archive.open(&id, &cx).await?, Salvage::No),
            };
            self.plan_of((chosen, archive, salvage), reader, &which, cx.clone()).await
        };
        let planned = planned.await;
        if let Err(crate::Error::Failed(e)) = &planned {
            mark_if_damaged(&*found_in, &id, e, &cx).await;
        }
        planned
    }

    async fn plan_of(
        self,
        (chosen, archive, salvage): (BackupSummary, Arc<dyn Archive>, Salvage),
        reader: Arc<dyn BackupReader>,
        which: &Which,
        cx: backup_core::Context,
    ) -> Result<RestorePlan> {
        if self.schema_only && self.data_only {
            return Err(usage("definitions alone and data alone exclude each other").into());
        }
        self.in_place_alone()?;
        let manifest = reader.manifest().clone();
        let parts = |component: &str| {
            let kind = &manifest.component(component)?.header.kind;
            self.registry.get(kind).ok()?.parts()
        };
        let selections = Selections::of(&self.only, &*reader, parts, &cx).await?;
        let mut members = Vec::new();
        let (mut takes_no_owner, mut has_globals, mut has_log, mut at_home) = (false, false, false, false);
        let mut beside = Vec::new();
        for component in manifest.components.iter().filter(|c| selections.has(&c.header.name)) {
            let several = selections.count(&manifest) > 1;
            let made = self.member(component, &manifest, &selections, several).await?;
            takes_no_owner |= made.knows_owners;
            has_globals |= made.knows_globals;
            has_log |= made.knows_log;
            at_home |= made.at_home;
            beside.extend((!made.in_place).then(|| made.member.component.clone()));
            members.push(made.member);
        }
        if let Some((name, _)) = self
            .to
            .iter()
            .find(|(c, _)| c.as_ref().is_some_and(|c| manifest.component(c).is_none() || !selections.has(c)))
        {
            let name = name.clone().unwrap_or_default();
            return Err(usage("--to names a component that is not restored").on(name).into());
        }
        if let Some(name) = self.in_place_of.iter().find(|c| members.iter().all(|m| m.component != **c)) {
            return Err(usage("--in-place names a component that is not restored").on(name).into());
        }
        if self.in_place && beside.len() == members.len() {
            return Err(always_beside().on(beside.join(", ")).into());
        }
        if self.no_owner && !takes_no_owner {
            return Err(usage("no component of this backup has owners that could be left out").into());
        }
        if self.skip_binary_log && !has_log {
            return Err(usage("no component of this backup is of a server with a binary log").into());
        }
        if self.globals && !has_globals {
            return Err(usage("no component of this backup is of a server with users and grants").into());
        }
        let state_dir = self.state_dir.map_or_else(state_dir, Ok)?;
        let mut options = RestoreOptions::new(state_dir, &manifest.header.module);
        // An application is none of the business of a restore to elsewhere.
        if let Some(module) = self.module.as_ref().filter(|_| at_home) {
            options.app.clone_from(&module.app);
            options.containers = self.registry.containers();
            let health = module.health.as_ref().map(Health::check).transpose()?;
            options.health = health.map(|health| Box::new(health) as Box<dyn HealthCheck>);
        }
        options.settle = self.settle;
        options.accept = self.accept;
        // A partial backup is restored only when it was named; the confirmation is asked for by the plan.
        options.accept_partial = self.salvage || matches!(which, Which::Named(_));
        if let Some(time) = self.keep_previous {
            options.keep_previous = time;
        }
        let prepared = backup_core::plan_restore(reader, members, options, &cx).await;
        if prepared.as_ref().err().is_none_or(|e| e.kind() == ErrorKind::NotFound) {
            // Says which of several globs it was.
            selections.all_matched()?;
        }
        let prepared = prepared?;
        RestorePlan::new(prepared, (archive, chosen), salvage, cx)
    }

    async fn member(
        &self,
        component: &Component,
        manifest: &Manifest,
        selections: &Selections,
        several: bool,
    ) -> Result<Made> {
        let name = &component.header.name;
        let backend = self.registry.get(&component.header.kind).map_err(|e| e.on(name))?;
        let (mut config, origin) = match self.place_for(name, several) {
            Some(place) => {
                let (found, named) = self.registry.parse(&place).await?;
                if found.kind() != component.header.kind {
                    let shown = without_secrets(&place);
                    let message =
                        format!("it holds {}, and {shown} is {}", component.header.kind, found.kind());
                    return Err(usage(message).on(name).into());
                }
                (named.config, false)
            }
            None => (self.origin(component, manifest)?, true),
        };
        let configured = self.configured(name, &config);
        let disposable = origin && configured.is_some_and(|source| source.disposable);
        let at_home = origin || configured.is_some();
        let schema = backend.schema();
        let knows = |key: &str| schema["properties"].get(key).is_some();
        let named = self.in_place_of.contains(name);
        let in_place = (named || self.in_place) && knows("in_place");
        if named && !in_place {
            return Err(always_beside().on(name).into());
        }
        if in_place && !selections.selection(name).is_all() {
            let e = usage("a part of it is always restored beside what is there").on(name);
            return Err(e.hint("leave --in-place or the part (--only) out").into());
        }
        let (knows_owners, knows_globals, knows_log) =
            (knows("no_owner"), knows("globals"), knows("skip_binary_log"));
        for (key, wanted) in [
            ("no_owner", self.no_owner && knows_owners),
            ("globals", self.globals && knows_globals),
            ("skip_binary_log", self.skip_binary_log && knows_log),
            ("in_place", in_place),
        ] {
            if let Some(config) = config.as_object_mut().filter(|_| wanted) {
                config.insert(key.into(), Value::Bool(true));
            }
        }
        if several
            && self.is_inside_common(name)
            && let Some(config) = config.as_object_mut().filter(|_| knows("make_parent"))
        {
            config.insert("make_parent".into(), Value::Bool(true));
        }
        let apart = "has no definitions apart from its data";
        for (key, wanted, cannot) in [
            ("merge", self.merge, "cannot be merged"),
            ("schema_only", self.schema_only, apart),
            ("data_only", self.data_only, apart),
        ] {
            if !wanted {
                continue;
            }
            match config.as_object_mut().filter(|_| knows(key)) {
                Some(config) => drop(config.insert(key.into(), Value::Bool(true))),
                None => {
                    let message = format!("a store of the kind {} {cannot}", component.header.kind);
                    let option = key.replace('_', "-");
                    let hint = format!("leave --{option} out, or this component (--only)");
                    return Err(usage(message).on(name).hint(hint).into());
                }
            }
        }
        guard::archive_not_replaced(self.archive.local_path(), backend.kind(), &config)
            .map_err(|e| e.on(name))?;
        let target = backend.target(name, config).map_err(|e| e.on(name))?;
        let selection = only::completed(selections.selection(name), backend.parts(), self.schema_only);
        let member = RestoreMember {
            component: name.clone(),
            kind: component.header.kind.clone(),
            selection,
            target,
            disposable,
        };
        Ok(Made { member, knows_owners, knows_globals, knows_log, at_home, in_place })
    }

    /// What is kept of what is there would be dropped with it; and what is intact of a damaged backup is no reason to give up what is whole.
    fn in_place_alone(&self) -> Result<()> {
        if !self.in_place && self.in_place_of.is_empty() {
            return Ok(());
        }
        let others = [
            ("merge", self.merge),
            ("schema-only", self.schema_only),
            ("data-only", self.data_only),
            ("salvage", self.salvage),
        ];
        match others.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => {
                let e = usage(format!("--in-place and --{option} exclude each other"));
                Err(e.hint(format!("leave --in-place or --{option} out")).into())
            }
        }
    }

    /// Whether it goes into the folder that was named for all.
    fn is_inside_common(&self, component: &str) -> bool {
        let own = self.to.iter().any(|(c, _)| c.as_deref() == Some(component));
        !own && self.to.iter().any(|(c, _)| c.is_none())
    }

    fn place_for(&self, component: &str, several: bool) -> Option<String> {
        let own = self.to.iter().rev().find(|(c, _)| c.as_deref() == Some(component));
        if let Some((_, place)) = own {
            return Some(place.clone());
        }
        let (_, place) = self.to.iter().rev().find(|(c, _)| c.is_none())?;
        Some(match several {
            true => format!("{}/{component}", place.trim_end_matches('/')),
            false => place.clone(),
        })
    }

    /// Where it came from, if that was this host.
    fn origin(&self, component: &Component, manifest: &Manifest) -> Result<Value> {
        let (host, name) = (&manifest.header.host, &component.header.name);
        if *host != ProcessStamp::current().host {
            return Err(usage(format!("the backup was made on another host ({host})"))
                .on(name)
                .hint("say where it goes: --to TARGET")
                .into());
        }
        if component.header.origin.is_null() {
            let e = usage("the backup does not say where it came from").on(name);
            return Err(e.hint("say where it goes: --to TARGET").into());
        }
        Ok(component.header.origin.clone())
    }

    /// The source of the module that is configured as this component, if this is really its place.
    fn configured(&self, component: &str, target: &Value) -> Option<&SourceSpec> {
        let mut sources = self.module.iter().flat_map(|m| &m.sources).filter(|(c, _)| c == component);
        let is_it = |s: &SourceSpec| {
            let made = self.registry.get(&s.kind).and_then(|b| b.source(component, s.config.clone()));
            made.is_ok_and(|source| source.origin() == *target)
        };
        sources.find(|(_, s)| is_it(s)).map(|(_, s)| s)
    }
}

/// What is intact of a backup. If something is not, the backup is marked as damaged.
async fn salvage(
    archive: &dyn Archive,
    id: &BackupId,
    cx: &backup_core::Context,
) -> backup_core::Result<(Arc<dyn BackupReader>, Salvage)> {
    let before = told(cx);
    let reader = archive.salvage(id, cx).await?;
    if told(cx) == before {
        return Ok((reader, Salvage::Sound));
    }
    mark_damaged(archive, id, &cx.calm()).await;
    Ok((reader, Salvage::Damaged))
}

/// Whether what is intact of a damaged backup is to be restored, and what came of reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Salvage {
    No,
    /// It is not damaged.
    Sound,
    /// It is, also if nothing is missing.
    Damaged,
}

/// How much was noted that is more than worth knowing.
fn told(cx: &backup_core::Context) -> u64 {
    let notes = cx.notes();
    let kept = notes.list.iter().filter(|n| n.severity > Severity::Note).count() as u64;
    kept + notes.more[Severity::Warning as usize] + notes.more[Severity::Lost as usize]
}

/// A member, and what its place says of the whole restore.
struct Made {
    member: RestoreMember,
    knows_owners: bool,
    knows_globals: bool,
    knows_log: bool,
    /// It goes where the application has its data.
    at_home: bool,
    in_place: bool,
}

fn always_beside() -> Error {
    usage("its store is always restored beside what is there, which is replaced when all is proven")
        .hint("leave --in-place out, or name the component that is meant (--in-place=COMPONENT)")
}

fn usage(message: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, "plan the restore", message)
}
