//! Restore as a transaction: a plan, shadows, proofs, then all are published or all reverted.

mod application;
mod apply;
mod discover;
mod document;
mod draft;
mod files;
mod forget;
mod health;
mod in_place;
mod in_the_way;
mod journal;
mod plan;
mod recover;
mod rehearsal;
mod trust;

pub use apply::{RestoreReport, RestoredComponent, met_damage};
pub use document::{InPlace, JournalTarget, PendingRestore, RestorePhase};
pub use forget::{ForgottenRestore, forget_restore};
pub use health::UrlHealth;
pub use plan::{
    Confirmation, HealthCheck, Plan, PlanId, PlannedBackup, PlannedMember, PlannedRefusal, PreparedRestore,
    RestoreMember, RestoreOptions, plan_restore,
};
pub use recover::{
    Healed, Recover, Recovery, heal_restores, pending, restored_places, settle_restore, undo_restore,
};

use crate::{Error, ErrorKind, Result};

/// Work on files, off the threads of the run.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let panicked = || Error::new(ErrorKind::Panicked, "work on the journal", "the task panicked");
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(panicked()))
}

/// Makes the next phase durable, before its first act.
async fn enter(journal: &mut journal::Journal, phase: RestorePhase) -> Result<()> {
    let mut next = journal.clone();
    *journal = blocking(move || next.enter(phase).map(|()| next)).await?;
    Ok(())
}
