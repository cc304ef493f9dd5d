//! The nouns, rules and pipelines of backup: sources, sinks, targets, the portable archive, restore as a transaction.
//!
//! One data path serves everything: a [`Source`] is connected, its moment is fixed, and the resulting [`View`] is poured
//! through a [`Ledger`] into a [`Sink`]. An [`Archive`]'s writer gives sinks and its reader gives sources; a [`Target`] is a
//! store being restored. The crate knows no store, no container engine and no command line, and prints nothing.

mod archive;
mod backend;
mod budget;
mod buffers;
mod command;
mod container;
mod content;
mod context;
pub mod destination;
pub mod encryption;
mod entry;
mod error;
mod event;
mod http_client;
mod import;
mod incoming;
mod ledger;
mod manifest;
mod memory;
mod pipeline;
pub mod portable;
mod process;
mod proof;
mod real_path;
mod restore;
mod retry;
mod secret;
mod server_trust;
mod sink;
mod source;
mod spool;
pub mod tar;
mod target;

pub use archive::{
    Archive, BackupReader, BackupWriter, Conclusion, Depth, Listed, PathMatcher, RunLock, Selection,
};
pub use backend::{Backend, Named, Parts};
pub use budget::{Budget, Reservation};
pub use command::{CommandRunner, HostRunner, OutputWatch, ToolCommand, feed_input, not_found, output_of};
pub use container::{ContainerEngine, ContainerFacts, ContainerMount, NoContainers};
pub use content::{Content, Feed, Part};
pub use context::{Context, Notes};
pub use entry::{Entry, Extent, Kind, Posix, Stage, display_path, is_entry_path, path_from_display};
pub use error::{Error, ErrorKind, Result};
pub use event::{Event, Note, Observer, Phase, Severity};
pub use import::ForeignFile;
pub use incoming::Incoming;
pub use ledger::Ledger;
pub use manifest::{
    BackupHeader, BackupId, BackupSummary, Component, ComponentHeader, FORMAT_VERSION, Manifest,
    ManifestError, Poured, Series, State, is_component_name,
};
pub use memory::MemoryArchive;
pub use pipeline::{
    ComponentReport, Copied, CreateComponent, CreateRequest, DigestSink, PlaceReport, Pouring, ReadBack,
    Report, VerifiedComponent, VerifyReport, copy, create, pour_all, put_stage, read_back, verify,
};
pub use process::{Numbering, ProcessStamp};
pub use proof::{Difference, EXCLUDED, Fact, Facts, PATTERNS, Proof, Sha, Tally, compare};
pub use real_path::real_path;
pub use restore::{
    Confirmation, ForgottenRestore, Healed, HealthCheck, InPlace, JournalTarget, PendingRestore, Plan,
    PlanId, PlannedBackup, PlannedMember, PlannedRefusal, PreparedRestore, Recover, Recovery, RestoreMember,
    RestoreOptions, RestorePhase, RestoreReport, RestoredComponent, UrlHealth, forget_restore, heal_restores,
    met_damage, pending, plan_restore, restored_places, settle_restore, undo_restore,
};
pub use retry::RetryPolicy;
pub use secret::{Secret, without_secrets};
pub use server_trust::ServerTrust;
pub use sink::{Put, Sink};
pub use source::{Moment, Ready, Source, Stillness, View};
pub use spool::spool_folder;
pub use target::{Refusal, Survey, Target};

/// The example in the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
