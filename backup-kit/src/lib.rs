#![doc = include_str!("../README.md")]

pub mod archive;
mod backup;
mod choose;
pub mod config;
mod copy;
mod error;
mod filled;
mod guard;
mod health;
mod import;
mod module;
mod recovery;
mod registry;
mod restore;
mod run;
mod series;
mod source;
mod state_dir;
mod verify;

pub use archive::ArchiveSpec;
pub use backup::{Backup, Preflight, PreflightComponent};
/// The error of the library's own calls; `Error` wraps it.
pub use backup_core::Error as CoreError;
/// Keys for encrypted backups.
pub use backup_core::encryption::{Identities, NewIdentity};
pub use backup_core::{
    Archive, Backend, BackupId, BackupReader, BackupSummary, Component, ComponentReport, Confirmation,
    Content, Context, Depth, Entry, ErrorKind, Event, Fact, ForgottenRestore, Healed, Kind, Listed, Manifest,
    Named, Note, Notes, Observer, Parts, PendingRestore, Phase, PlaceReport, Plan, PlanId, PlannedRefusal,
    Posix, ReadBack, Report, RestoreReport, Secret, Series, Severity, State, VerifyReport, display_path,
    met_damage, path_from_display, without_secrets,
};
pub use choose::{Scope, Which, choose, choose_and_tell};
pub use config::Config;
pub use copy::{Copy, CopyOutcome, CopyReport, CopyResult, copy};
pub use error::{Error, Result};
pub use health::Health;
pub use import::{Import, import};
pub use module::Module;
pub use recovery::{Old, conclude, forget, heal, is_restored_to, journal_homes, kept};
pub use registry::Registry;
pub use restore::{Only, Restore, RestorePlan};
pub use run::Run;
pub use series::only_of;
pub use source::{SourceSpec, files, mysql, postgres};
pub use state_dir::state_dir;
pub use tokio_util::sync::CancellationToken;
pub use verify::{mark_damaged, verify};
