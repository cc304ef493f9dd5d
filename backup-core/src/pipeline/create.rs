//! Makes a backup: many stores, one moment, one manifest.

use crate::{Archive, ComponentHeader, Context, Error, ErrorKind, Report, Result, Series, Source};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// A component to be backed up.
pub struct CreateComponent {
    /// Name, kind, folder, origin.
    pub header: ComponentHeader,
    /// What is read.
    pub source: Box<dyn Source>,
}

/// A backup to be made.
#[derive(Default)]
pub struct CreateRequest {
    /// The application.
    pub module: String,
    /// Its series.
    pub series: Series,
    /// Its components, at least one.
    pub components: Vec<CreateComponent>,
    /// What the embedder adds to the manifest.
    pub metadata: BTreeMap<String, Value>,
    /// Labels.
    pub tags: Vec<String>,
    /// A remark.
    pub note: Option<String>,
    /// A warning makes the backup partial.
    pub strict: bool,
    /// A source that cannot be opened is left out and the backup is partial; otherwise nothing is stored.
    pub allow_partial: bool,
    /// How long to wait for another run of the series.
    pub wait: Duration,
    /// Reads every byte again after the backup is written, and marks it verified.
    pub read_back: bool,
}

/// Makes a backup. `Ok` is a complete **or partial** one: see `Report::state`.
pub async fn create(request: CreateRequest, archive: &dyn Archive, cx: &Context) -> Result<Report> {
    let _ = (request, archive, cx);
    Err(Error::new(ErrorKind::Unsupported, "create a backup", "not yet"))
}
