//! The plan of a restore: to be shown, confirmed and applied.

use super::Salvage;
use crate::{Error, Result, mark_damaged};
use backup_core::{
    Archive, BackupSummary, Confirmation, Context, ErrorKind, Plan, PlanId, PreparedRestore, RestoreReport,
    State, met_damage,
};
use std::{fmt, sync::Arc};

/// What a restore would do, found out by reading only. Nothing has been touched.
#[must_use]
pub struct RestorePlan {
    prepared: PreparedRestore,
    archive: Arc<dyn Archive>,
    chosen: BackupSummary,
    salvage: Salvage,
    cx: Context,
}

impl RestorePlan {
    pub(super) fn new(
        prepared: PreparedRestore,
        (archive, chosen): (Arc<dyn Archive>, BackupSummary),
        salvage: Salvage,
        cx: Context,
    ) -> Result<Self> {
        // A selection would take the place of all that is there: what was not selected would be gone.
        // What its store refuses in any case, the plan refuses with the store's own reason.
        let unmerged = prepared.plan().members.iter().find(|m| {
            m.selective
                && m.survey.replaces
                && !m.survey.merges
                && m.survey.refusals.iter().all(|r| r.accept.is_some())
        });
        if let Some(m) = unmerged {
            return Err(backup_core::Error::new(
                ErrorKind::Refused,
                "restore a part",
                format!("{} is not empty, and what was not selected would be gone from it", m.survey.place),
            )
            .on(&m.component)
            .hint("restore it elsewhere (--to ELSEWHERE), or keep what is there (--merge)")
            .into());
        }
        Ok(RestorePlan { prepared, archive, chosen, salvage, cx })
    }

    /// Its name: what a confirmation is made from. Changes whenever anything that matters in the plan does.
    pub fn id(&self) -> PlanId {
        self.plan().id.clone()
    }

    /// All of it.
    pub fn plan(&self) -> &Plan {
        self.prepared.plan()
    }

    /// The backup that was chosen.
    pub fn backup(&self) -> &BackupSummary {
        &self.chosen
    }

    /// What will be dropped or replaced, one line for each.
    pub fn destructive(&self) -> impl fmt::Display + '_ {
        self.plan().destructive()
    }

    /// Whether `apply` takes a confirmation: something is replaced, or the backup is partial.
    pub fn needs_consent(&self) -> bool {
        self.plan().needs_consent() || self.is_partial()
    }

    /// Whether it takes consent that the backup is partial; whoever salvages has said so.
    fn is_partial(&self) -> bool {
        self.salvage == Salvage::No && self.plan().backup.state == State::Partial
    }

    /// Why it would not be done, although it were confirmed: all refusals that were not accepted, as one error.
    pub fn refused(&self) -> Option<backup_core::Error> {
        self.plan().refused()
    }

    /// Does it: everything is restored, or everything is as it was (`RolledBack`). `None` will do where nothing is replaced.
    /// What took effect, but not as it was in the backup, is `Err(Error::RestoredPartly)` with the report; what was salvaged of a damaged backup, `Err(Error::Salvaged)`, also if nothing of it is missing. A backup that turns out
    /// to be damaged is marked as `verify` marks it.
    pub async fn apply(self, confirmation: impl Into<Option<Confirmation>>) -> Result<RestoreReport> {
        let confirmation = confirmation.into();
        if self.is_partial() && confirmation != Some(Confirmation::of(self.id())) {
            return Err(backup_core::Error::new(
                ErrorKind::Refused,
                "restore a partial backup",
                "it takes a confirmation of exactly this plan",
            )
            .hint(format!("--confirm {}", self.id()))
            .into());
        }
        let (id, cx) = (self.chosen.id, self.cx);
        let report = match self.prepared.apply(confirmation, &cx).await {
            Ok(report) => report,
            Err(e) => {
                if met_damage(&e) {
                    mark_damaged(&*self.archive, &id, &cx.calm()).await;
                }
                return Err(e.into());
            }
        };
        if self.salvage == Salvage::Damaged {
            return Err(Error::Salvaged(Box::new(report)));
        }
        match report.state {
            State::Complete => Ok(report),
            _ => Err(Error::RestoredPartly(Box::new(report))),
        }
    }
}

impl fmt::Debug for RestorePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestorePlan").field("plan", self.plan()).finish_non_exhaustive()
    }
}
