//! What a journal says, how it is stored, and how it is read again.

use super::{files, trust};
use crate::{BackupId, Error, ErrorKind, ProcessStamp, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Name of the journal, or of a pointer to it, in a home.
pub(super) const JOURNAL: &str = "journal.json";

/// Version of the journal that this program writes.
const FORMAT: u32 = 1;

/// How far a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RestorePhase {
    /// Shadows are being made and filled. Everything that is live is old.
    Preparing,
    /// Shadows are being swapped in. What is live may be old or new.
    Publishing,
    /// Everything that is live is new; the old data is kept.
    Published,
    /// The old state is being brought back.
    Reverting,
    /// The old data is being dropped.
    Settling,
}

/// One target of a restore as the journal keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalTarget {
    /// Name of the component.
    pub component: String,
    /// `Backend::kind`.
    pub kind: String,
    /// Where, for people.
    pub place: String,
    /// `Target::undo`.
    pub undo: Value,
    /// What the phase asks for, reverting or settling, is done with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub done: bool,
    /// How far it is, if it is restored in place; `None` also as long as what was there before is untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_place: Option<InPlace>,
}

/// How far a target is whose old data is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InPlace {
    /// What was there may be gone, and what is restored is not whole.
    Begun,
    /// What was restored is there, proven and effective: it stays, whatever becomes of the rest of the restore.
    Complete,
}

/// A restore whose journal exists: it goes on, was interrupted, or can still be undone.
#[derive(Clone, Debug, Serialize)]
pub struct PendingRestore {
    /// Its id.
    pub id: BackupId,
    /// Name of the module.
    pub label: String,
    /// The backup that was restored.
    pub backup: BackupId,
    /// How far it is.
    pub phase: RestorePhase,
    /// When it began.
    pub started: Timestamp,
    /// When it was published.
    pub published: Option<Timestamp>,
    /// Until when the old data is kept.
    pub keep_until: Option<Timestamp>,
    /// Its targets, in the order in which they are published.
    pub targets: Vec<JournalTarget>,
    /// The folders beside local targets, in which old data is.
    pub homes: Vec<PathBuf>,
    /// Who runs it, or ran it.
    pub process: ProcessStamp,
    /// Where its journal is.
    pub journal: PathBuf,
    /// Whether its run goes on; `None`: it is another host's, and not known.
    pub running: Option<bool>,
}

/// The journal as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    format: u32,
    pub(super) id: BackupId,
    pub(super) label: String,
    pub(super) backup: BackupId,
    pub(super) phase: RestorePhase,
    pub(super) started: Timestamp,
    #[serde(default)]
    pub(super) published: Option<Timestamp>,
    #[serde(default)]
    pub(super) keep_until: Option<Timestamp>,
    pub(super) process: ProcessStamp,
    pub(super) targets: Vec<JournalTarget>,
    /// Containers of the application.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) app: Vec<String>,
    /// Those of them that this restore has stopped, or is about to: they are started again, whatever happens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) stopped: Vec<String>,
    /// Folders beside the local targets, the one with the journal first.
    pub(super) homes: Vec<PathBuf>,
    /// Folders above homes that the restore has made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) made: Vec<PathBuf>,
    /// `restores` in the state folder of the user who began it.
    pub(super) restores: PathBuf,
}

/// What stands where the journal is not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pointer {
    pub(super) id: BackupId,
    pub(super) journal: PathBuf,
    /// Which homes were about to be made: those of a run that crashed before its journal was written.
    pub(super) homes: Vec<PathBuf>,
    /// The journal must be there. Before it is written and before it is removed this is false: then a missing journal means
    /// that there is nothing to do, and otherwise that its place cannot be seen (not mounted).
    pub(super) live: bool,
    /// The journal is being removed: all is done, and what is still found in a home belongs to nobody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) over: bool,
    /// What is restored, for when the journal cannot be read: nothing else is barred then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) places: Vec<Place>,
}

/// Of a target: its kind, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) kind: String,
    pub(super) place: String,
}

impl Place {
    /// Whether a restore to one changes what is at the other: they are one place, or one is inside the other.
    pub(super) fn meets(&self, other: &Place) -> bool {
        let (a, b) = (Path::new(&self.place), Path::new(&other.place));
        let nested = a.is_absolute() && b.is_absolute() && (a.starts_with(b) || b.starts_with(a));
        self.kind == other.kind && (self.place == other.place || nested)
    }
}

/// Either of them.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Found {
    Pointer(Pointer),
    Journal(Box<Document>),
}

impl Found {
    pub(super) fn id(&self) -> &BackupId {
        match self {
            Found::Pointer(pointer) => &pointer.id,
            Found::Journal(document) => &document.id,
        }
    }
}

impl Document {
    pub(super) fn new(
        label: &str,
        backup: BackupId,
        targets: Vec<JournalTarget>,
        homes: Vec<PathBuf>,
        state_dir: &Path,
    ) -> Self {
        Document {
            format: FORMAT,
            id: BackupId::generate(),
            label: label.to_owned(),
            backup,
            phase: RestorePhase::Preparing,
            started: Timestamp::now(),
            published: None,
            keep_until: None,
            process: ProcessStamp::current(),
            targets,
            app: Vec::new(),
            stopped: Vec::new(),
            homes,
            made: Vec::new(),
            restores: state_dir.join("restores"),
        }
    }

    pub(super) fn in_restores(&self, extension: &str) -> PathBuf {
        self.restores.join(format!("{}.{extension}", self.id))
    }

    pub(super) fn places(&self) -> Vec<Place> {
        self.targets.iter().map(|t| Place { kind: t.kind.clone(), place: t.place.clone() }).collect()
    }
}

/// Reads a file of ours; `None`: there is none. `Denied`: it, or the home that it is in, may be somebody else's word.
pub(super) fn read(path: &Path) -> Result<Option<Found>> {
    let home = path.parent().filter(|_| path.ends_with(JOURNAL));
    if let Some(home) = home
        && !trust::folder(home)?
    {
        return Ok(None);
    }
    let found = read_file(path)?;
    if let (Some(home), Some(Found::Journal(document))) = (home, &found) {
        is_where_it_was_made(document, home)?;
    }
    Ok(found)
}

/// What it names is beside the place that it was made at: one that was copied or moved would act there, and not here.
fn is_where_it_was_made(document: &Document, home: &Path) -> Result<()> {
    let made = match document.homes.first() {
        Some(made) if trust::is_same(made, home) => return Ok(()),
        Some(made) => made.display().to_string(),
        None => "the state folder".to_owned(),
    };
    let message = format!("it was made in {made}, and is a copy or was moved");
    Err(Error::new(ErrorKind::Target, "use the journal of a restore", message)
        .on(home.join(JOURNAL).display())
        .hint("give what is above it its old name again (or mount it where it was), then `backup heal`"))
}

fn read_file(path: &Path) -> Result<Option<Found>> {
    let Some(bytes) = files::read(path)? else { return Ok(None) };
    let damaged = |why: &dyn std::fmt::Display| {
        Error::damaged("read the journal of a restore", why).on(path.display()).hint(
            "the folder beside it holds the previous or the restored data: look before removing anything",
        )
    };
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| damaged(&e))?;
    let format = value.get("format").and_then(Value::as_u64);
    if let Some(format) = format.filter(|f| *f != u64::from(FORMAT)) {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "read the journal of a restore",
            format!("it has version {format}, this program knows {FORMAT}"),
        )
        .on(path.display()));
    }
    serde_json::from_value(value).map(Some).map_err(|e| damaged(&e))
}
