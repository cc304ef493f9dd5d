//! The reading side of a store, in three steps: connect, fix the moment, pour.

use crate::{Context, Facts, Result, Sink};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt::Display, sync::Arc};

/// When the data of a component is from: between `first` and `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The oldest of it.
    pub first: Timestamp,
    /// The newest of it.
    pub last: Timestamp,
}

impl Moment {
    /// One point in time: now.
    pub fn now() -> Self {
        let now = Timestamp::now();
        Moment { first: now, last: now }
    }
}

/// What the application must endure so that a view is right. Asked before anything is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stillness {
    /// Nothing: the store has snapshots.
    None,
    /// It should stand still while the moment is fixed (milliseconds).
    UntilFixed,
    /// It should stand still until all is read: files without a snapshot.
    UntilPoured,
}

/// Something that can be read: a store, or a component of an archive. `Display` is its name for people, without secrets.
#[async_trait]
pub trait Source: Display + Send + Sync {
    /// Slow and harmless: connects, authenticates, probes versions and privileges. The application still runs, and failing
    /// here costs nothing.
    async fn connect(&self, cx: &Context) -> Result<Box<dyn Ready>>;

    /// What a restore needs to find the same place again, as the configuration of the backend's target. No secrets: it goes
    /// into the manifest.
    fn origin(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
}

/// A connected source, before its moment.
#[async_trait]
pub trait Ready: Send {
    /// What the application must endure.
    fn stillness(&self) -> Stillness;

    /// Bytes that will flow, as far as is known: for the preflight and the progress bar.
    fn estimate(&self) -> Option<u64> {
        None
    }

    /// Fixes the moment: locks, snapshots, points in time. Milliseconds; no listing.
    async fn fix(self: Box<Self>, cx: &Context) -> Result<Box<dyn View>>;
}

/// A store at one moment. Dropping it gives back what was taken.
#[async_trait]
pub trait View: Send {
    /// The moment. What changes while it is read (`UntilPoured`) is of the time up to the end of the pour, which the pipeline adds.
    fn moment(&self) -> Moment;

    /// Puts every entry, stage by stage, and returns the store's own facts; entries, bytes and losses are counted by the
    /// ledger. What cannot be read is put with a content that errs. Awaited to its end, never dropped: cancellation comes
    /// through `cx`.
    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts>;
}
