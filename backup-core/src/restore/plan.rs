//! What a restore would do, found out by reading only.

use super::application::running;
use super::draft::{Picked, draft, nothing_accepted_in_vain, pick, survey, wanted, widen, without_holes};
use crate::{
    BackupId, BackupReader, ContainerEngine, Context, Depth, Error, ErrorKind, NoContainers, Refusal,
    RestoreReport, Result, Selection, State, Survey, Target,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

/// One component to be restored, and where to.
pub struct RestoreMember {
    /// Its name in the backup.
    pub component: String,
    /// `Backend::kind` of the target: how it is found again after a crash.
    pub kind: String,
    /// What of it.
    pub selection: Selection,
    /// Where to.
    pub target: Box<dyn Target>,
    /// What is there may be replaced without naming the plan.
    pub disposable: bool,
}

/// How a restore is done.
pub struct RestoreOptions {
    /// Where runs of this user find journals again.
    pub state_dir: PathBuf,
    /// How long the old data is kept for an undo.
    pub keep_previous: Duration,
    /// Lets the old data go at once.
    pub settle: bool,
    /// Consent to restore a backup that is partial.
    pub accept_partial: bool,
    /// Refusals of targets, by their names, that do not keep it from being done.
    pub accept: Vec<String>,
    /// Name of the module, for whoever looks at what is pending.
    pub label: String,
    /// Containers that use what is restored: those that run are stopped before the exchange, and started after it.
    pub app: Vec<String>,
    /// Where these containers are.
    pub containers: Arc<dyn ContainerEngine>,
    /// Asked after all is published and the application is started; an error brings the old data back.
    pub health: Option<Box<dyn HealthCheck>>,
}

impl RestoreOptions {
    /// The old data is kept for 24 hours; a partial backup is refused; no health check.
    pub fn new(state_dir: impl Into<PathBuf>, label: impl Into<String>) -> Self {
        RestoreOptions {
            state_dir: state_dir.into(),
            keep_previous: Duration::from_secs(24 * 60 * 60),
            settle: false,
            accept_partial: false,
            accept: Vec::new(),
            label: label.into(),
            app: Vec::new(),
            containers: Arc::new(NoContainers),
            health: None,
        }
    }
}

/// Says whether the restored application works.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// What is asked, for people, without secrets.
    fn place(&self) -> String {
        "the application".to_owned()
    }

    /// An error means that it does not. Has its own time limit; ends early when `cx` is cancelled.
    async fn check(&self, cx: &Context) -> Result<()>;
}

/// Names a plan: 16 hexadecimal digits of a sha256 over everything that matters in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct PlanId(String);

impl PlanId {
    pub(super) fn of(digest: &[u8]) -> Self {
        PlanId(hex::encode(digest))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PlanId {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let well = s.len() == 16 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        well.then(|| PlanId(s.to_owned())).ok_or_else(|| {
            Error::new(ErrorKind::Usage, "read a plan id", "a plan id has 16 hexadecimal digits").on(s)
        })
    }
}

impl<'de> Deserialize<'de> for PlanId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The backup of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedBackup {
    /// Its id.
    pub id: BackupId,
    /// The application.
    pub module: String,
    /// When it was made.
    pub created: Timestamp,
    /// Complete or partial.
    pub state: State,
}

/// One component of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedMember {
    /// Its name.
    pub component: String,
    /// The kind of its target.
    pub kind: String,
    /// Entries that will be restored.
    pub entries: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Only a part of it was selected.
    pub selective: bool,
    /// What is at the target.
    pub survey: Survey,
    /// What is there may be replaced without naming the plan.
    pub disposable: bool,
}

/// A reason why a plan is not carried out.
#[derive(Clone, Debug, Serialize)]
pub struct PlannedRefusal {
    /// The component.
    pub component: String,
    /// Where to.
    pub place: String,
    /// The reason.
    #[serde(flatten)]
    pub refusal: Refusal,
    /// It was accepted: it does not count.
    pub accepted: bool,
}

/// What a restore would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// Its name, for the confirmation.
    pub id: PlanId,
    /// What is restored.
    pub backup: PlannedBackup,
    /// Where to, in the order in which they are published; what is restored in place comes before all others.
    pub members: Vec<PlannedMember>,
    /// Bytes that all shadows need together.
    pub needs_bytes: u64,
    /// What must be known before: what cannot be restored, what the backup lacks.
    pub notes: Vec<String>,
    /// Why it would not be done, and what of that was accepted.
    pub refusals: Vec<PlannedRefusal>,
    /// Whether anything that exists is replaced.
    pub destructive: bool,
    /// Containers that are stopped before the exchange and started after it, if they run then.
    pub app: Vec<String>,
    /// What is asked whether the application works; if not, the old data is brought back.
    pub health: Option<String>,
    /// The old data is let go at once: it was asked for, or something is restored in place.
    pub settle: bool,
    /// Seconds for which the old data is kept otherwise.
    pub keep_previous_s: u64,
}

impl Plan {
    /// Its name.
    pub fn id(&self) -> &PlanId {
        &self.id
    }

    /// What will be dropped or replaced, one line for each.
    pub fn destructive(&self) -> impl fmt::Display + '_ {
        Destructive(self)
    }

    /// All that keeps it from being carried out, as one error of kind `Refused`.
    pub fn refused(&self) -> Option<Error> {
        let refusals: Vec<&PlannedRefusal> = self.refusals.iter().filter(|r| !r.accepted).collect();
        let place = &refusals.first()?.place;
        let of = |r: &&PlannedRefusal| match refusals.iter().all(|other| other.component == r.component) {
            true => r.refusal.why.clone(),
            false => format!("{}: {}", r.component, r.refusal.why),
        };
        let message = refusals.iter().map(of).collect::<Vec<_>>().join("; ");
        let mut hints: Vec<String> = Vec::new();
        for r in &refusals {
            let accepting =
                r.refusal.accept.as_ref().map(|name| format!("--accept {name} does it nevertheless"));
            for hint in [Some(r.refusal.hint.clone()), accepting].into_iter().flatten() {
                if !hint.is_empty() && !hints.contains(&hint) {
                    hints.push(hint);
                }
            }
        }
        Some(Error::new(ErrorKind::Refused, "restore", message).on(place).hint(hints.join("; ")))
    }

    /// Whether anything of it is restored in place: nothing is kept for an undo then.
    pub(super) fn is_in_place(&self) -> bool {
        self.members.iter().any(|m| m.survey.in_place)
    }

    /// Whether applying it takes a confirmation.
    pub fn needs_consent(&self) -> bool {
        self.destructive
    }

    /// Whether this consent is enough. An id that is not this plan's is refused even where none is needed.
    pub(super) fn check(&self, confirmation: Option<&Confirmation>) -> Result<()> {
        let refused = |message: String| Err(Error::new(ErrorKind::Refused, "restore", message));
        match confirmation.map(|c| &c.0) {
            Some(Consent::Plan(id)) if *id == self.id => Ok(()),
            Some(Consent::Plan(id)) => {
                refused(format!("the plan has changed: {id} was confirmed, it is {}", self.id))
            }
            _ if !self.destructive => Ok(()),
            None => refused(format!("it replaces data, and the plan {} is not confirmed", self.id)),
            Some(Consent::Disposable) => {
                match self.members.iter().find(|m| m.survey.replaces && !m.disposable) {
                    None => Ok(()),
                    Some(m) => Err(Error::new(
                        ErrorKind::Refused,
                        "restore",
                        format!("{} is not marked disposable", m.survey.place),
                    )
                    .hint(format!(
                        "look at the plan (--dry-run), then --confirm {} in place of --yes; --yes is enough only for a source that is configured with `disposable = true`",
                        self.id
                    ))),
                }
            }
        }
    }
}

struct Destructive<'a>(&'a Plan);

impl fmt::Display for Destructive<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let replaced: Vec<_> = self.0.members.iter().filter(|m| m.survey.replaces).collect();
        if replaced.is_empty() {
            return f.write_str("nothing is replaced");
        }
        for (i, m) in replaced.iter().enumerate() {
            let newline = if i > 0 { "\n" } else { "" };
            let fate = match (m.survey.in_place, self.0.settle) {
                (true, _) => "dropped before it is restored: there is no way back",
                (false, true) => "dropped",
                (false, false) => "kept for an undo",
            };
            let what = if m.survey.merges { "gets" } else { "is replaced by" };
            write!(
                f,
                "{newline}{}: {} {what} {}; the old data is {fate}",
                m.survey.place, m.survey.present, m.component
            )?;
        }
        Ok(())
    }
}

/// Consent to replace what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmation(pub(crate) Consent);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    Plan(PlanId),
    Disposable,
}

impl Confirmation {
    /// Consent to exactly this plan.
    pub fn of(plan: PlanId) -> Self {
        Confirmation(Consent::Plan(plan))
    }

    /// Good only if everything that is replaced is marked disposable.
    pub fn disposable() -> Self {
        Confirmation(Consent::Disposable)
    }
}

/// A plan with what is needed to carry it out.
pub struct PreparedRestore {
    pub(super) plan: Plan,
    pub(super) reader: Arc<dyn BackupReader>,
    pub(super) members: Vec<RestoreMember>,
    pub(super) picked: Vec<Picked>,
    pub(super) options: RestoreOptions,
}

impl PreparedRestore {
    /// What would be done.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Does it: all targets are restored, or all are as before.
    ///
    /// The targets are surveyed again first: a plan that has changed is `Refused`, and so are one with refusals that were not
    /// accepted, and a missing or another confirmation; an earlier restore to one of the places that is not over is `AlreadyRunning` or
    /// `NotRolledBack`. Then nothing was touched. A failure or cancellation later is `RolledBack` (its
    /// source is what happened), or `NotRolledBack` if the old state could not be brought back: then `heal_restores` must be
    /// called, unless it is only what is restored in place that is not as it was. A cancellation after the commit point does nothing.
    pub async fn apply(self, confirmation: Option<Confirmation>, cx: &Context) -> Result<RestoreReport> {
        super::apply::apply(self, confirmation, cx).await
    }

    /// Looks at the targets again.
    pub(super) async fn draft(&mut self, cx: &Context) -> Result<Plan> {
        let surveys = survey(&self.reader, &mut self.members, &self.options, cx).await?;
        Ok(draft(&*self.reader, &self.members, &self.picked, surveys, &self.options))
    }
}

/// Finds out what a restore would do. Reads only. What stands in the way is in `Plan::refusals`.
///
/// `Damaged`: the structure of the backup is not sound (headers and contents are compared while they are restored). `Usage`: no
/// member, two with the same place, or something is accepted that is not refused. `Refused`: one place lies inside another. `NotFound`: a component is not in the backup,
/// a selection covers nothing, or a container of the application is not there.
pub async fn plan_restore(
    reader: Arc<dyn BackupReader>,
    mut members: Vec<RestoreMember>,
    options: RestoreOptions,
    cx: &Context,
) -> Result<PreparedRestore> {
    let wrong = |message: String| Error::new(ErrorKind::Usage, "plan a restore", message);
    if members.is_empty() {
        return Err(wrong("there is nothing to restore".to_owned()));
    }
    running(&*options.containers, &options.app).await?;
    sound(&*reader, cx).await?;
    widen(&reader, &mut members, cx).await?;
    let mut picked = pick(&*reader, &wanted(&members), cx).await?;
    let surveys = survey(&reader, &mut members, &options, cx).await?;
    for (i, survey) in surveys.iter().enumerate() {
        if surveys[..i].iter().any(|other| other.place == survey.place) {
            return Err(wrong("two components cannot be restored to one place".to_owned()).on(&survey.place));
        }
    }
    apart(&surveys)?;
    without_holes(&*reader, &wanted(&members), &mut picked, &surveys, cx).await?;
    let plan = draft(&*reader, &members, &picked, surveys, &options);
    nothing_accepted_in_vain(&plan, &options.accept)?;
    Ok(PreparedRestore { plan, reader, members, picked, options })
}

/// The swap of a folder would take along what is inside: another target's shadow and old data.
fn apart(surveys: &[Survey]) -> Result<()> {
    let local: Vec<_> = surveys.iter().filter_map(|s| Some((s, s.local_path.as_ref()?))).collect();
    for (i, (outer, above)) in local.iter().enumerate() {
        let inside = local.iter().enumerate().find(|(j, (_, path))| i != *j && path.starts_with(above));
        if let Some((_, (inner, _))) = inside {
            let message =
                format!("it lies inside {}, and both cannot be replaced in one restore", outer.place);
            return Err(Error::new(ErrorKind::Refused, "plan a restore", message).on(&inner.place).hint(
                "restore one of them elsewhere (--to COMPONENT=PLACE), or one at a time (--only COMPONENT)",
            ));
        }
    }
    Ok(())
}

/// Defects that are told before a person is sent to `verify` for the others.
const TOLD: usize = 3;

/// What a restore relies on, without reading contents: nothing is written of a backup that contradicts itself.
async fn sound(reader: &dyn BackupReader, cx: &Context) -> Result<()> {
    let defects = reader.check_structure(Depth::Quick, cx).await?;
    let told: Vec<String> = defects.iter().take(TOLD).map(Error::to_string).collect();
    let more = match defects.len().saturating_sub(TOLD) {
        0 => String::new(),
        n => format!("; and {n} more defects"),
    };
    match told.is_empty() {
        true => Ok(()),
        false => {
            let message = format!("it is not sound: {}{more}", told.join("; "));
            let e = Error::damaged("plan a restore", message).on(&reader.manifest().header.id);
            Err(e.hint("`verify` tells all defects; restore from another backup"))
        }
    }
}
