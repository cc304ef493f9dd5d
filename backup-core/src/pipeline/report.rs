//! What a run that made a backup says of it.

use crate::{
    BackupId, BackupSummary, Difference, EXCLUDED, Error, Fact, Moment, Notes, PATTERNS, Poured, Series,
    State, Stillness,
};
use jiff::Timestamp;
use serde::Serialize;

/// A backup that was made.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its id.
    pub id: BackupId,
    /// The application.
    pub module: String,
    /// Its series.
    pub series: Series,
    /// Complete or partial; partial is no success.
    pub state: State,
    /// Where it is.
    pub location: String,
    /// Bytes that it takes.
    pub stored_bytes: u64,
    /// Bytes of its data.
    pub data_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Its components, in the order of the request; those that are not in it are in `not_included`.
    pub components: Vec<ComponentReport>,
    /// What could not be included, for people.
    pub not_included: Vec<String>,
    /// What happened on the way.
    pub notes: Notes,
    /// When the run began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// Milliseconds between the oldest and the newest moment of all components.
    pub skew_ms: u64,
    /// Whether what was to be read again after the backup was written was read, and is right.
    pub read_back: bool,
    /// Of a backup at several places, each of them; `location` is then that at the first where it stands.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<PlaceReport>,
}

/// What has come of a backup at one of several places.
#[derive(Clone, Debug, Serialize)]
pub struct PlaceReport {
    /// The archive, without secrets.
    pub place: String,
    /// Where it is there; nowhere, if it could not be stored.
    pub location: Option<String>,
    /// Why it could not be stored there, or must not be trusted there.
    pub error: Option<Error>,
}

/// One component of a backup that was made.
#[derive(Clone, Debug, Serialize)]
pub struct ComponentReport {
    /// Its name.
    pub name: String,
    /// Its kind of store.
    pub kind: String,
    /// When its data is from.
    pub moment: Moment,
    /// Entries stored.
    pub entries: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Entries that are missing; each is also a note.
    pub lost: u64,
    /// Paths that match an exclude pattern and are left out, each with all below it; where there are patterns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excluded: Option<u64>,
    /// Entries that the archive had already.
    pub kept: u64,
    /// Where the two counts of the pour differ: a defect.
    pub differences: Vec<Difference>,
    /// What the application had to endure.
    pub stillness: Option<Stillness>,
}

impl ComponentReport {
    pub(crate) fn of(kind: &str, poured: &Poured) -> Self {
        ComponentReport {
            name: poured.component.clone(),
            kind: kind.to_owned(),
            moment: poured.moment,
            entries: poured.proof.count("all", "entries"),
            bytes: poured.proof.count("all", "bytes"),
            lost: poured.lost,
            excluded: match poured.proof.get(PATTERNS, EXCLUDED) {
                Some(Fact::Note(count)) => count.parse().ok(),
                _ => None,
            },
            kept: poured.kept,
            differences: poured.differences.clone(),
            stillness: poured.stillness,
        }
    }
}

impl Report {
    pub(crate) fn of(
        summary: BackupSummary,
        components: Vec<ComponentReport>,
        not_included: Vec<String>,
        skew_ms: u64,
        notes: Notes,
    ) -> Self {
        Report {
            id: summary.id,
            module: summary.module,
            series: summary.series,
            state: summary.state,
            location: summary.location,
            stored_bytes: summary.stored_bytes,
            data_bytes: summary.data_bytes,
            entries: summary.entries,
            components,
            not_included,
            notes,
            started: summary.created,
            finished: Timestamp::now(),
            skew_ms,
            read_back: false,
            places: Vec::new(),
        }
    }
}
