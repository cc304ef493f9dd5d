//! Carries a plan out: shadows, proofs, then all are published or all reverted.

use super::{
    Confirmation, Plan, PreparedRestore, RestorePhase, application, blocking,
    document::{Document, JournalTarget},
    draft::wanted,
    enter,
    in_place::{gone, is_torn, take_back},
    in_the_way::not_in_the_way,
    journal::Journal,
    plan::{HealthCheck, RestoreMember},
    recover::{take_away, within_reach},
};
use crate::{
    BackupId, BackupReader, ContainerEngine, Context, Difference, Error, ErrorKind, Event, Fact, Facts,
    Notes, Phase, Proof, Result, Severity, State, View, compare, display_path,
    pipeline::{Pouring, calmly, open_components, pour_each, what_ended_and_where},
};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::{
    collections::HashSet,
    error::Error as _,
    sync::Arc,
    time::{Duration, Instant},
};

/// A restore that was done.
#[derive(Clone, Debug, Serialize)]
pub struct RestoreReport {
    /// Its id, for an undo.
    pub id: BackupId,
    /// The backup that was restored.
    pub backup: BackupId,
    /// The application.
    pub module: String,
    /// What was restored, and where to.
    pub components: Vec<RestoredComponent>,
    /// What happened on the way.
    pub notes: Notes,
    /// Partial if anything was not restored as it was.
    pub state: State,
    /// Whether there is nothing to undo: the old data was let go, or there was none.
    pub settled: bool,
    /// Until when the old data is kept at least; `None`: there is none.
    pub undo_until: Option<Timestamp>,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// One component that was restored.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredComponent {
    /// Its name.
    pub name: String,
    /// Where to.
    pub place: String,
    /// Entries restored.
    pub entries: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Entries that the backup itself lacks.
    pub lost: u64,
}

pub(super) async fn apply(
    mut prepared: PreparedRestore,
    confirmation: Option<Confirmation>,
    cx: &Context,
) -> Result<RestoreReport> {
    let started = Timestamp::now();
    cx.emit(&Event::Phase { phase: Phase::Preflight });
    let plan = prepared.draft(cx).await?;
    if plan.id != prepared.plan.id {
        let message = format!("the plan has changed: it was {}, it is {}", prepared.plan.id, plan.id);
        return Err(Error::new(ErrorKind::Refused, "restore", message));
    }
    if let Some(e) = plan.refused() {
        return Err(e);
    }
    plan.check(confirmation.as_ref())?;
    if plan.backup.state != State::Complete && !prepared.options.accept_partial {
        let e = Error::new(
            ErrorKind::Refused,
            "restore",
            format!("the backup is {}, and that was not accepted", plan.backup.state),
        );
        return Err(e.on(&plan.backup.id));
    }
    let beside = wanted(&prepared.members).into_iter().zip(&plan.members).filter(|(_, p)| !p.survey.in_place);
    let beside = beside.map(|(wanted, _)| wanted).collect();
    let views = open_components(&prepared.reader, beside, cx).await?;
    still_wanted(cx)?;

    let document = document(&plan, &prepared);
    let wanted = document.places();
    let state_dir = prepared.options.state_dir.clone();
    blocking(move || not_in_the_way(&state_dir, &wanted)).await?;
    let journal = blocking(move || Journal::begin(document)).await?;
    let options = prepared.options;
    let containers = options.containers.clone();
    let (members, reader) = (prepared.members, prepared.reader);
    let mut restore = Restore { plan, members, reader, journal, containers, commit_in_doubt: false, cx };
    let done = match restore.shadows(views).await {
        Ok(done) => restore.publish(done, options.health.as_deref(), options.keep_previous).await,
        Err(e) => Err(e),
    };
    match done {
        Ok(components) => restore.conclude(components, options.settle, started).await,
        Err(e) => Err(restore.roll_back(e).await),
    }
}

pub(super) fn still_wanted(cx: &Context) -> Result<()> {
    if cx.cancel.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
}

fn document(plan: &Plan, prepared: &PreparedRestore) -> Document {
    let describe = |(m, p): (&RestoreMember, &super::PlannedMember)| JournalTarget {
        component: m.component.clone(),
        kind: m.kind.clone(),
        place: p.survey.place.clone(),
        undo: m.target.undo(),
        done: false,
        in_place: None,
    };
    let targets = prepared.members.iter().zip(&plan.members).map(describe).collect();
    let mut homes: Vec<_> = prepared.members.iter().filter_map(|m| m.target.journal_home()).collect();
    let mut seen = HashSet::new();
    homes.retain(|home| seen.insert(home.clone()));
    let options = &prepared.options;
    let mut document =
        Document::new(&options.label, plan.backup.id.clone(), targets, homes, &options.state_dir);
    document.app.clone_from(&options.app);
    document
}

pub(super) struct Restore<'a> {
    pub(super) plan: Plan,
    pub(super) members: Vec<RestoreMember>,
    pub(super) reader: Arc<dyn BackupReader>,
    pub(super) journal: Journal,
    containers: Arc<dyn ContainerEngine>,
    /// The commit point could not be made durable: the disk may hold it or not.
    commit_in_doubt: bool,
    pub(super) cx: &'a Context,
}

/// What is to be poured, and how much that is about.
pub(super) type Prepared = (Pouring, Option<u64>);

/// What came of pouring a component.
pub(super) struct Unproven {
    component: String,
    entries: u64,
    /// What the archive says of it.
    pub(super) said: Facts,
    /// What the sink has counted.
    pub(super) there: Proof,
}

impl Restore<'_> {
    /// Those that are restored in place, or all others.
    pub(super) fn which(&self, in_place: bool) -> Vec<usize> {
        let such = self.plan.members.iter().enumerate().filter(|(_, p)| p.survey.in_place == in_place);
        such.map(|(at, _)| at).collect()
    }

    /// Rehearses what is restored in place; makes, fills and proves all shadows of the others. Nothing takes effect.
    async fn shadows(&mut self, views: Vec<(Box<dyn View>, Option<u64>)>) -> Result<Vec<RestoredComponent>> {
        self.rehearse().await?;
        let mut list = Vec::new();
        for (at, view) in self.which(false).into_iter().zip(views) {
            still_wanted(self.cx)?;
            list.push((at, self.prepare(at, view).await?));
        }
        match list.is_empty() {
            true => Ok(Vec::new()),
            false => self.pour(list).await,
        }
    }

    pub(super) async fn prepare(
        &mut self,
        at: usize,
        (view, estimate): (Box<dyn View>, Option<u64>),
    ) -> Result<Prepared> {
        let m = &mut self.members[at];
        let prepared = calmly("prepare the target", m.target.prepare(self.cx)).await;
        let sink = prepared.map_err(|e| of_target(e).on(&m.component))?;
        Ok((Pouring { component: m.component.clone(), view, sink, stillness: None }, estimate))
    }

    /// Fills these members and compares them with what was backed up.
    pub(super) async fn pour(&mut self, list: Vec<(usize, Prepared)>) -> Result<Vec<RestoredComponent>> {
        let cx = self.cx;
        let (which, list): (Vec<usize>, Vec<Prepared>) = list.into_iter().unzip();
        cx.emit(&Event::Phase { phase: Phase::Pour });
        let poured = self.pour_unproven(list, cx).await?;
        cx.emit(&Event::Phase { phase: Phase::Prove });
        let mut done = Vec::new();
        for (Unproven { component: name, entries, said, there }, at) in poured.into_iter().zip(which) {
            let (name, planned) = (&name, &self.plan.members[at]);
            let component = self.reader.manifest().component(name);
            let expected = match component {
                Some(component) if !planned.selective => &component.proof,
                _ => &said,
            };
            prove(name, expected, &there, &planned.survey.notes)?;
            done.push(RestoredComponent {
                name: name.clone(),
                place: planned.survey.place.clone(),
                entries,
                bytes: there.count("all", "bytes"),
                lost: component.map_or(0, |c| c.lost),
            });
        }
        Ok(done)
    }

    /// Pours these, and compares nothing.
    pub(super) async fn pour_unproven(&mut self, list: Vec<Prepared>, cx: &Context) -> Result<Vec<Unproven>> {
        let outcomes = pour_each(list, true, cx).await;
        // A damaged entry explains what came after it; it is told first.
        if let Some((o, (path, e))) = outcomes.iter().find_map(|o| Some((o, o.unreadable.first()?))) {
            let id = &self.plan.backup.id;
            let subject = format!("{}/{}", o.component, display_path(path));
            if !e.is_damage() {
                // The place did not answer: that says nothing of what is stored there.
                return Err(e.clone().on(subject));
            }
            let message = format!("its content in the backup {id} is damaged: {e}");
            return Err(Error::damaged("restore the entry", message).on(subject).hint(way_out(id)));
        }
        match what_ended_and_where(&outcomes) {
            Some((e, true)) => return Err(of_target(e)),
            Some((e, _)) if e.kind() == ErrorKind::Damaged && e.hint_text().is_none() => {
                return Err(e.hint(way_out(&self.plan.backup.id)));
            }
            Some((e, _)) => return Err(e),
            None => {}
        }
        let poured = outcomes.into_iter().map(|outcome| {
            let said = outcome.view.map_err(|e| e.on(&outcome.component))?;
            let there = outcome.there.map_err(|e| e.on(&outcome.component))?;
            Ok(Unproven { component: outcome.component, entries: outcome.entries, said, there })
        });
        poured.collect()
    }

    /// Restores what is restored in place, swaps all shadows in, asks the application, and passes the commit point.
    async fn publish(
        &mut self,
        mut done: Vec<RestoredComponent>,
        health: Option<&dyn HealthCheck>,
        keep: Duration,
    ) -> Result<Vec<RestoredComponent>> {
        let cx = self.cx;
        still_wanted(cx)?;
        self.journal.document.stopped =
            application::running(&*self.containers, &self.journal.document.app).await?;
        let stopped = self.journal.document.stopped.clone();
        enter(&mut self.journal, RestorePhase::Publishing).await?;
        cx.emit(&Event::Phase { phase: Phase::Publish });
        let since = Instant::now();
        application::stop(&*self.containers, &stopped).await?;
        if self.plan.is_in_place() {
            done.extend(self.replace().await?);
            let order = |c: &RestoredComponent| self.members.iter().position(|m| m.component == c.name);
            done.sort_by_key(order);
            cx.emit(&Event::Phase { phase: Phase::Publish });
        }
        for at in self.which(false) {
            still_wanted(cx)?;
            let m = &mut self.members[at];
            let published = calmly("publish the target", m.target.publish(cx)).await;
            published.map_err(|e| of_target(e).on(&m.component))?;
        }
        if !stopped.is_empty() {
            application::start(&*self.containers, &stopped).await?;
            let text = format!("stopped for {:.1} s: {}", since.elapsed().as_secs_f32(), stopped.join(", "));
            cx.note(Severity::Note, "", "the application", text);
        }
        if let Some(health) = health {
            let checked = tokio::select! {
                biased;
                () = cx.cancel.cancelled() => Err(Error::cancelled()),
                checked = calmly("check the health", health.check(cx)) => checked,
            };
            checked.map_err(|e| e.on("the health check"))?;
        }
        still_wanted(cx)?;
        let now = Timestamp::now();
        // Of a part of it there is nothing to keep: the rest is dropped as soon as it took effect, by `heal` if by nobody else.
        let keep = if self.plan.is_in_place() { Duration::ZERO } else { keep };
        let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
        let before = self.journal.clone();
        self.journal.document.stopped.clear();
        self.journal.document.published = Some(now);
        self.journal.document.keep_until = Some(now.saturating_add(keep).unwrap_or(Timestamp::MAX));
        match enter(&mut self.journal, RestorePhase::Published).await {
            Ok(()) => Ok(done),
            Err(e) => {
                self.journal = before;
                self.commit_in_doubt = true;
                Err(e)
            }
        }
    }

    /// After the commit point: whatever happens here, the restore is done.
    async fn conclude(
        mut self,
        components: Vec<RestoredComponent>,
        settle: bool,
        started: Timestamp,
    ) -> Result<RestoreReport> {
        let cx = self.cx;
        let id = self.journal.document.id.clone();
        let mut undo_until = self.journal.document.keep_until;
        let mut settled = false;
        // What is not whole may not be what was wanted: the old data stays until somebody says so.
        let in_place = self.plan.is_in_place();
        let lost = cx.notes().worst() == Some(Severity::Lost)
            || self.plan.backup.state != State::Complete
            || components.iter().any(|component| component.lost > 0);
        if settle && lost && self.plan.destructive && !in_place {
            let text = "not everything was restored: the previous data is kept, as it would be without settling at once";
            cx.note(Severity::Warning, "", "", text);
        }
        // Where nothing was replaced there is nothing to keep.
        if settle && !lost || !self.plan.destructive || in_place {
            match self.settle().await {
                Ok(()) => settled = true,
                Err(e) => {
                    cx.note(Severity::Warning, "", "", format!("the previous data is not let go yet: {e}"));
                }
            }
            undo_until = None;
        }
        let notes = cx.notes();
        let state = match notes.worst() {
            Some(Severity::Lost) => State::Partial,
            _ => State::Complete,
        };
        Ok(RestoreReport {
            id,
            backup: self.plan.backup.id.clone(),
            module: self.plan.backup.module.clone(),
            components,
            notes,
            state,
            settled,
            undo_until,
            started,
            finished: Timestamp::now(),
        })
    }

    async fn settle(&mut self) -> Result<()> {
        enter(&mut self.journal, RestorePhase::Settling).await?;
        let calm = self.cx.calm();
        for m in &mut self.members {
            let settled = async {
                within_reach(&self.journal, m.target.journal_home()).await?;
                m.target.settle(&calm).await
            };
            calmly("let the previous data go", settled).await.map_err(|e| e.on(&m.component))?;
        }
        take_away(self.journal.clone(), self.cx).await
    }

    /// Reverts all in reverse order, and says what came of it together with what made it necessary.
    async fn roll_back(mut self, cause: Error) -> Error {
        let cx = self.cx;
        cx.emit(&Event::Phase { phase: Phase::Revert });
        let calm = cx.calm();
        // If this cannot be written, the journal that is there asks for the same, unless it may have passed the commit point.
        if let Err(e) = enter(&mut self.journal, RestorePhase::Reverting).await
            && self.commit_in_doubt
        {
            return not_rolled_back(&self, cause, &e);
        }
        // Started for the health check, or never stopped: data is not exchanged under its hands.
        let stopped = self.journal.document.stopped.clone();
        if let Err(e) = application::stop(&*self.containers, &stopped).await {
            cx.note(
                Severity::Warning,
                "",
                "",
                format!("the old data is brought back under a running application: {e}"),
            );
        }
        let mut first = None;
        for at in (0..self.members.len()).rev() {
            let state = self.journal.document.targets[at].in_place;
            let m = &mut self.members[at];
            let reverted = async {
                within_reach(&self.journal, m.target.journal_home()).await?;
                take_back(&mut *m.target, state, &calm).await
            };
            match calmly("revert the target", reverted).await {
                Ok(state) => {
                    // Should another one fail, nobody asks this one again: it has forgotten what it was.
                    let mut next = self.journal.clone();
                    next.document.targets[at].in_place = state;
                    let marked = blocking(move || {
                        next.mark_done(at, state);
                        Ok(next)
                    });
                    if let Ok(next) = marked.await {
                        self.journal = next;
                    }
                }
                Err(e) => {
                    cx.note(Severity::Lost, &m.component, "", format!("it could not be undone: {e}"));
                    first.get_or_insert(e.on(&m.component));
                }
            }
        }
        let starting: &[String] = if is_torn(&self.journal.document) { &[] } else { &stopped };
        if let Err(e) = application::start(&*self.containers, starting).await {
            cx.note(Severity::Lost, "", "", format!("the application is not started again: {e}"));
            first.get_or_insert(e);
        }
        if let Some(e) = &first {
            return not_rolled_back(&self, cause, e);
        }
        let gone = gone(&self.journal.document);
        if let Err(e) = take_away(self.journal, &calm).await {
            cx.note(Severity::Warning, "", "", format!("the journal of the restore is left behind: {e}"));
        }
        let hint = |of: &Error| of.hint_text().map(str::to_owned);
        let (kind, operation, state, hints) = match gone {
            None => (ErrorKind::RolledBack, "restore", AS_BEFORE.to_owned(), vec![hint(&cause)]),
            Some(gone) => {
                let hints = vec![hint(&cause), hint(&gone)];
                (ErrorKind::NotRolledBack, "restore in place", gone.message().to_owned(), hints)
            }
        };
        let mut e = Error::new(kind, operation, format!("{cause}; {state}")).on(&self.plan.backup.module);
        let hints: Vec<String> = hints.into_iter().flatten().collect();
        if !hints.is_empty() {
            e = e.hint(hints.join("; "));
        }
        e.caused_by(cause)
    }
}

const AS_BEFORE: &str = "everything is as it was before";

/// What a target finds wrong with what it holds, it or somebody else has done there: it says nothing of the backup.
pub(super) fn of_target(e: Error) -> Error {
    if e.kind() == ErrorKind::Damaged { e.with_kind(ErrorKind::Target) } else { e }
}

pub(super) fn way_out(id: &BackupId) -> String {
    format!(
        "restore another backup; `backup verify {id}` tells what is damaged, and \
         `backup restore {id} --salvage --to ELSEWHERE` restores what is intact"
    )
}

/// What proves a shadow: a difference there is none between the backup and what was written into it.
const PROVE: &str = "prove the restore";

/// Whether a restore failed because what is stored in the backup is not what was written, and nothing else.
pub fn met_damage(e: &Error) -> bool {
    let cause = e.source().and_then(|cause| cause.downcast_ref::<Error>()).unwrap_or(e);
    cause.kind() == ErrorKind::Damaged && cause.operation() != PROVE
}

fn not_rolled_back(restore: &Restore<'_>, cause: Error, e: &Error) -> Error {
    let gone = gone(&restore.journal.document).map(|gone| format!("; {}", gone.message()));
    let message = format!("{cause}; and it could not be undone: {e}{}", gone.unwrap_or_default());
    Error::new(ErrorKind::NotRolledBack, "restore", message)
        .on(&restore.plan.backup.module)
        .hint(format!("heal must be run; the journal is {}", restore.journal.path.display()))
        .caused_by(cause)
}

/// What was restored must be what was counted at the time of the backup, but for what the plan has announced: a note of the
/// survey that begins with the subject and the measure ("table x: grants …").
fn prove(name: &str, expected: &Facts, there: &Proof, announced: &[String]) -> Result<()> {
    let accepted = |subject: &str, measure: &str| {
        let begins = format!("{subject}: {measure}");
        announced.iter().any(|note| {
            note.strip_prefix(&*begins).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
        })
    };
    let differences = compare(expected, there, &accepted);
    // A count says more to a person than a digest.
    let count = |d: &&Difference| !matches!(d, Difference::Unequal(_, _, Fact::Digest(_), _));
    let Some(first) = differences.iter().find(count).or(differences.first()) else { return Ok(()) };
    let more = match differences.len() - 1 {
        0 => String::new(),
        n => format!(", and {n} more differences"),
    };
    let message = format!("what was restored is not what was backed up: {first}{more}");
    Err(Error::damaged(PROVE, message).on(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_target_cannot_keep_passes_only_if_the_plan_has_announced_it() {
        let expected = Facts::new().with("table x", "grants", Fact::Count(1));
        let there = Facts::new().with("table x", "grants", Fact::Unsupported("no roles".into()));
        let notes = |text: &str| [text.to_owned()];
        prove("db", &expected, &there, &notes("table x: grants cannot be kept: no roles")).unwrap();
        for other in ["table x: grantsmanship", "table y: grants cannot be kept", "owners cannot be set"] {
            let e = prove("db", &expected, &there, &notes(other)).unwrap_err();
            assert_eq!((e.kind(), e.subject()), (ErrorKind::Damaged, Some("db")));
        }
    }
}
