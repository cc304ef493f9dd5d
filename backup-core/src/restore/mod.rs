//! Restore as a transaction: a plan, shadows, proofs, then all are published or all reverted.

mod apply;
mod journal;
mod plan;
mod recover;

pub use apply::{RestoreReport, RestoredComponent};
pub use journal::{JournalTarget, PendingRestore, RestorePhase};
pub use plan::{
    Confirmation, HealthCheck, Plan, PlanId, PlannedBackup, PlannedMember, PreparedRestore, RestoreMember,
    RestoreOptions, plan_restore,
};
pub use recover::{Healed, Recover, heal_restores, pending, settle_restore, undo_restore};
