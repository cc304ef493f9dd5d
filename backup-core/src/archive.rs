//! A place and a format where backups are kept.

use crate::{
    BackupHeader, BackupId, BackupSummary, Content, Context, Entry, Error, ErrorKind, Manifest, Notes,
    Poured, Result, Series, Sink, Source, State,
};
use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;
use serde::Serialize;
use std::{fmt, sync::Arc, time::Duration};

/// Where backups are kept, and how. `Display` is the place, without secrets.
#[async_trait]
pub trait Archive: fmt::Display + Send + Sync {
    /// Before anything is read: is the place there, may we write, is there room for about `estimate` bytes? Returns warnings.
    async fn preflight(&self, estimate: Option<u64>, cx: &Context) -> Result<Vec<String>>;

    /// Whether there is room for one backup only: a place that is exactly one file.
    fn holds_one(&self) -> bool {
        false
    }

    /// Takes the run lock of the series, waiting at most `wait` for another run; then clears what crashed runs of the series
    /// left. Held until dropped or released.
    async fn lock(&self, series: &Series, wait: Duration, cx: &Context) -> Result<Box<dyn RunLock>>;

    /// Begins a backup. Until `commit` it lists as incomplete.
    async fn begin(&self, header: BackupHeader, cx: &Context) -> Result<Box<dyn BackupWriter>>;

    /// Opens a complete or partial backup for reading.
    async fn open(&self, id: &BackupId, cx: &Context) -> Result<Arc<dyn BackupReader>>;

    /// Opens what is intact of a backup that may be damaged, after reading all of it: what is lost is noted in `cx` and in the
    /// manifest, which is partial then. Archives that cannot do that say so.
    async fn salvage(&self, id: &BackupId, _cx: &Context) -> Result<Arc<dyn BackupReader>> {
        let message = "an archive of this kind can only be read as a whole";
        Err(Error::new(ErrorKind::Unsupported, "salvage the backup", message).on(id))
    }

    /// All backups, oldest first, incomplete and missing ones included. A listing that failed is an error, never an empty list.
    async fn list(&self, cx: &Context) -> Result<Vec<BackupSummary>>;

    /// Removes these and nothing else; an unknown id is an error before anything is removed.
    async fn remove(&self, ids: &[BackupId], cx: &Context) -> Result<()>;

    /// Keeps beside a backup that every byte of it was read and found right, where the archive has a place for it (a single
    /// file has none). Takes an earlier `mark_damaged` off.
    async fn mark_verified(&self, id: &BackupId, at: Timestamp, cx: &Context) -> Result<()>;

    /// Keeps beside a backup that it was found damaged, and no longer that it was verified; where the archive has no place for
    /// it, nothing happens.
    async fn mark_damaged(&self, _id: &BackupId, _at: Timestamp, _cx: &Context) -> Result<()> {
        Ok(())
    }

    /// Reads all that is stored of a backup and compares it with the digest that was taken when it was written: what can be checked of an
    /// encrypted backup without its key. `false` if there is no such digest; a difference is an error of kind `Damaged`.
    async fn compare_stored(&self, _id: &BackupId, _cx: &Context) -> Result<bool> {
        Ok(false)
    }

    /// Whether what stands here as `location` may be this backup, where nothing can be known of it: it is encrypted, and what says whose
    /// it is was lost.
    fn may_be(&self, _location: &str, _backup: &BackupSummary) -> bool {
        false
    }

    /// Whether it was given anything to read encrypted backups with. Without it only `compare_stored` says something of them.
    fn has_identities(&self) -> bool {
        true
    }

    /// Clears what crashed runs left, of any series whose run is over. Returns what was removed, for people. A place that is not there,
    /// of which nothing is left, is an error of kind `NotFound`.
    async fn heal(&self, cx: &Context) -> Result<Vec<String>>;
}

/// The run lock of a series.
#[async_trait]
pub trait RunLock: Send + Sync {
    /// Gives it back; dropping it does the same as far as a drop can.
    async fn release(self: Box<Self>) -> Result<()>;
}

/// A backup that is being written.
#[async_trait]
pub trait BackupWriter: Send + Sync {
    /// The sink of a component named in the header. Each may be asked for once.
    fn component(&self, name: &str) -> Result<Arc<dyn Sink>>;

    /// Writes the manifest, last, and makes the backup durable and visible. Refuses (`Contract`) while a component is not
    /// finished, or if `poured` does not name every component of the header exactly once. An error leaves no backup.
    async fn commit(self: Box<Self>, conclusion: Conclusion, cx: &Context) -> Result<BackupSummary>;

    /// Gives it up: nothing stays behind.
    async fn abort(self: Box<Self>, cx: &Context) -> Result<()>;
}

/// What is known of a backup when its data has flowed: all that its manifest says beside the header.
#[derive(Clone, Debug, PartialEq)]
pub struct Conclusion {
    /// One for each component of the header.
    pub poured: Vec<Poured>,
    /// What happened on the way.
    pub notes: Notes,
    /// Complete or partial. Decided by the pipeline: also `strict` and what was left out make a backup partial.
    pub state: State,
    /// What was left out on purpose, for people.
    pub not_included: Vec<String>,
    /// When its run ended; of a copy, when the run ended that made the original.
    pub finished: Timestamp,
}

/// Says of a path whether it matches.
pub type PathMatcher = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Which entries of a component.
#[derive(Clone, Default)]
pub enum Selection {
    /// All.
    #[default]
    All,
    /// Those whose path, or one of whose parents, matches; with the directories above them. The argument is the path
    /// inside the component.
    Matching(PathMatcher),
    /// Those whose path matches, whatever their parents are; with the directories above them.
    Exactly(PathMatcher),
}

impl Selection {
    /// Whether this path is selected.
    pub fn covers(&self, path: &[u8]) -> bool {
        match self {
            Selection::All => true,
            Selection::Exactly(matches) => matches(path),
            Selection::Matching(matches) => {
                matches(path)
                    || path
                        .iter()
                        .enumerate()
                        .rev()
                        .filter(|(_, b)| **b == b'/')
                        .any(|(i, _)| matches(&path[..i]))
            }
        }
    }

    /// Whether it is everything.
    pub fn is_all(&self) -> bool {
        matches!(self, Selection::All)
    }
}

impl fmt::Debug for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Selection::All => "All",
            Selection::Matching(_) => "Matching",
            Selection::Exactly(_) => "Exactly",
        })
    }
}

/// An entry as the index knows it: for listings.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Component it belongs to.
    pub component: String,
    /// Path, kind, size, attributes.
    pub entry: Entry,
    /// Lower-case hexadecimal sha256 of the content of a file.
    pub sha256: Option<String>,
}

/// How much a verification reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// Structure, manifest and index.
    Quick,
    /// Every byte.
    Full,
}

/// A backup that is being read.
#[async_trait]
pub trait BackupReader: Send + Sync {
    /// What the backup says of itself.
    fn manifest(&self) -> &Manifest;

    /// A source that pours the selected entries of a component; its facts are those expected after a restore of exactly
    /// this selection.
    fn component(&self, name: &str, selection: Selection) -> Result<Box<dyn Source>>;

    /// The live entries of the backup, in the order of the index.
    fn entries(&self) -> BoxStream<'_, Result<Listed>>;

    /// The expanded content of one entry of a component.
    async fn content(&self, component: &str, path: &[u8], cx: &Context) -> Result<(Entry, Content)>;

    /// Checks what a pour does not read: structure, manifest, members that the index does not know. Returns every defect that
    /// was found, each naming what it is about.
    async fn check_structure(&self, depth: Depth, cx: &Context) -> Result<Vec<Error>>;

    /// Bytes fetched from the place so far: what a ranged restore costs.
    fn bytes_fetched(&self) -> u64;
}
