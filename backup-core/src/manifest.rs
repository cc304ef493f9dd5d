//! What a backup says of itself: the working types. What is stored is in `wire`.

mod wire;

pub(crate) use wire::is_reserved_folder;
pub use wire::{FORMAT_VERSION, ManifestError, is_component_name};

use crate::{Difference, Facts, Moment, Notes, Stillness};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Name of a backup, unique everywhere: a ULID in lower case. Sorts by time of creation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct BackupId(String);

impl BackupId {
    /// A new one.
    pub fn generate() -> Self {
        BackupId(ulid::Ulid::generate().to_string().to_lowercase())
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BackupId {
    type Err = crate::Error;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let well = s.len() == 26 && s.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
        well.then(|| BackupId(s.to_owned())).ok_or_else(|| {
            crate::Error::new(crate::ErrorKind::Usage, "read a backup id", "an id has 26 digits and letters")
                .on(s)
        })
    }
}

impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The backups of one module by one job into one archive: what `latest`, the run lock and retention work on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Series(pub String);

impl Series {
    /// Twelve hexadecimal digits of its sha256: fit for a file name.
    pub fn short(&self) -> String {
        use sha2::Digest;
        hex::encode(&sha2::Sha256::digest(self.0.as_bytes())[..6])
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How whole a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Everything that was to be captured is in it.
    Complete,
    /// Something is missing, and it says what. Never success.
    Partial,
    /// It was imported: another program made it, and nobody counted anything then. Never success, never what `latest` means.
    Unproven,
    /// It has no manifest: its run crashed, or goes on.
    Incomplete,
    /// It has the name of an archive and cannot be read as one: damaged, of another program, or of a newer one.
    Unknown,
    /// What stands beside its file says that it was there and whole, and the file is gone.
    Missing,
}

impl State {
    /// Whether there is a backup that can be read: it has a manifest.
    pub fn is_readable(self) -> bool {
        matches!(self, State::Complete | State::Partial | State::Unproven)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Complete => "complete",
            State::Partial => "partial",
            State::Unproven => "unproven",
            State::Incomplete => "incomplete",
            State::Unknown => "unknown",
            State::Missing => "missing",
        })
    }
}

/// A component as it is known before it is poured.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentHeader {
    /// Its name, unique in the backup.
    pub name: String,
    /// `Backend::kind`.
    pub kind: String,
    /// Folder inside the archive: `Backend::folder`.
    pub folder: String,
    /// `Source::origin`.
    pub origin: serde_json::Value,
}

/// What is known of a backup when it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct BackupHeader {
    /// Its id.
    pub id: BackupId,
    /// The application.
    pub module: String,
    /// Its series.
    pub series: Series,
    /// When it began.
    pub created: Timestamp,
    /// Host it was made on.
    pub host: String,
    /// Its components.
    pub components: Vec<ComponentHeader>,
    /// What the embedder adds.
    pub metadata: BTreeMap<String, serde_json::Value>,
    /// Labels.
    pub tags: Vec<String>,
    /// A remark.
    pub note: Option<String>,
}

/// A component as it is in a backup.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// Name, kind, folder, origin.
    pub header: ComponentHeader,
    /// When its data is from.
    pub moment: Moment,
    /// What was counted; a restore must count the same.
    pub proof: Facts,
    /// Entries that are missing.
    pub lost: u64,
}

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// What was known when it began; its components are in `components`.
    pub header: BackupHeader,
    /// When it ended.
    pub finished: Timestamp,
    /// Complete or partial.
    pub state: State,
    /// The components with their proofs.
    pub components: Vec<Component>,
    /// What happened on the way.
    pub notes: Notes,
    /// What was left out on purpose, for people.
    pub not_included: Vec<String>,
    /// Where the archive keeps what; the archive's own affair.
    pub layout: serde_json::Value,
}

impl Manifest {
    /// A component by name.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|c| c.header.name == name)
    }

    /// Bytes of the data of all components.
    pub fn data_bytes(&self) -> u64 {
        self.sum("bytes")
    }

    /// Entries of all components.
    pub fn entries(&self) -> u64 {
        self.sum("entries")
    }

    fn sum(&self, measure: &str) -> u64 {
        self.components.iter().fold(0, |sum, c| sum.saturating_add(c.proof.count("all", measure)))
    }

    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        wire::encode(self)
    }

    /// From what is stored; strict.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        wire::decode(bytes)
    }
}

/// A backup in a listing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackupSummary {
    /// Its id; of an incomplete one, the id that its run gave it.
    pub id: BackupId,
    /// The application; empty if incomplete and not known.
    pub module: String,
    /// Its series; empty if incomplete.
    pub series: Series,
    /// When it began.
    pub created: Timestamp,
    /// How whole it is.
    pub state: State,
    /// Where it is: a file name, a key.
    pub location: String,
    /// Bytes that it takes.
    pub stored_bytes: u64,
    /// Bytes of its data.
    pub data_bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Names of its components.
    pub components: Vec<String>,
    /// When all of it was last read, compared and found right; nothing once it was found damaged.
    pub verified: Option<Timestamp>,
    /// When it was found damaged, if that is the last that is known: it must not be trusted.
    pub damaged: Option<Timestamp>,
    /// Labels.
    pub tags: Vec<String>,
    /// A remark.
    pub note: Option<String>,
    /// It is encrypted. A listing then knows nothing of what is in it: no bytes of data, entries, components, labels and remark.
    pub encrypted: bool,
    /// Of a missing one: how whole it was, if what is left of it still says so.
    pub was: Option<State>,
}

/// What came out of pouring one component.
#[derive(Clone, Debug, PartialEq)]
pub struct Poured {
    /// Its name.
    pub component: String,
    /// When its data is from.
    pub moment: Moment,
    /// What was counted by the store, the ledger and the sink.
    pub proof: Facts,
    /// Entries that are missing; each is also a note.
    pub lost: u64,
    /// Entries that the sink had already.
    pub kept: u64,
    /// Where the two counts of one pour differ: a defect, and never a success.
    pub differences: Vec<Difference>,
    /// What the application had to endure.
    pub stillness: Option<Stillness>,
}
