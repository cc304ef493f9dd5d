//! A store that is being restored: a shadow beside the live data, made effective only when all targets are proven.

use crate::{Context, Error, Incoming, Result, Selection, Sink};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::{fmt::Display, path::PathBuf, sync::Arc};

/// What is at the target before a restore. Part of the plan, and of its id: if it changes, the plan has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Where, for people.
    pub place: String,
    /// There is data which will be replaced: consent is needed.
    pub replaces: bool,
    /// What there is, for people ("a folder with 12 entries").
    pub present: String,
    /// Changes whenever what would be replaced is exchanged for something else (device, inode); not on every write.
    pub identity: String,
    /// Free bytes for the shadow, if it can be known.
    pub free_bytes: Option<u64>,
    /// Free entries (inodes) for the shadow, if there is a limit.
    pub free_entries: Option<u64>,
    /// How the swap is done and what can be seen in between.
    pub publish: String,
    /// What the plan must say besides: reduced fidelity, missing privileges.
    pub notes: Vec<String>,
    /// Why it is not restored there, each alone enough. All of them: nobody wants to learn them one after another.
    #[serde(default)]
    pub refusals: Vec<Refusal>,
    /// What is there is taken away before it is restored, and not kept: from `Target::clear` on there is no way back.
    #[serde(default)]
    pub in_place: bool,
    /// What is there and not in the backup stays: the target merges the two.
    #[serde(default)]
    pub merges: bool,
    /// Of a target in the local file system: what is replaced, absolute and without symbolic links above it. No two targets of
    /// a restore may lie inside each other.
    #[serde(default)]
    pub local_path: Option<PathBuf>,
}

/// A reason not to restore: it would fail, destroy what nobody has asked to destroy, or bring something else than was backed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What stands in the way, and what would happen.
    pub why: String,
    /// The way out.
    pub hint: String,
    /// The name by which a person may accept it (`--accept NAME`): lower case with dashes. `None`: there is no way through.
    pub accept: Option<String>,
}

impl Refusal {
    /// One that nobody can accept.
    pub fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal { why: why.into(), hint: hint.into(), accept: None }
    }

    /// A person may accept it by this name.
    #[must_use]
    pub fn acceptable_as(mut self, name: &str) -> Self {
        self.accept = Some(name.to_owned());
        self
    }
}

/// A store being restored.
///
/// Order of calls: `widened` at most once; `survey` any number of times, at least once; `prepare` once; puts and `finish` of the sink; `publish` once all targets of
/// the restore are proven; then `settle` later, or `revert` at any point. After a crash `Backend::recover` makes a target
/// from `undo` on which only `revert` and `settle` are called.
///
/// One whose survey says `in_place` is first asked to `rehearse`, and if it does, there are puts of definitions, `finish`, and `revert`. Then it
/// comes after all others are proven, one such target at a time: `prepare`, `clear`, puts, `finish`, `publish`.
/// After that only `settle` is called; before it `revert` takes away what is half made, and what was there does not come back.
#[async_trait]
pub trait Target: Display + Send {
    /// What is restored of what was selected: more, where something that was named is nothing without it (a table without its partitions).
    /// Reads only. What came with it is for the notes of the survey.
    async fn widened(&mut self, incoming: &Incoming, _cx: &Context) -> Result<Selection> {
        Ok(incoming.selection.clone())
    }

    /// Looks at what is there, and whether what is coming may take its place. Reads only. A refusal is part of the survey, not an
    /// error; what is refused and was accepted is listed, too. An error: it cannot be looked at.
    async fn survey(&mut self, incoming: &Incoming, cx: &Context) -> Result<Survey>;

    /// What `Backend::recover` needs to revert or settle in a later process. No secrets. Constant from before `prepare` to the
    /// end: it is journalled before the shadow is made.
    fn undo(&self) -> serde_json::Value;

    /// A folder beside the data in which the journal of the restore may live, if the target is a local path. Made by the
    /// journal before `prepare`, removed by it after `settle` or `revert`. The same of a target that was made by
    /// `Backend::recover`: while it is not there, nothing is reverted or settled.
    fn journal_home(&self) -> Option<PathBuf> {
        None
    }

    /// Makes the shadow and opens it for puts. Nothing that is there is touched.
    async fn prepare(&mut self, cx: &Context) -> Result<Arc<dyn Sink>>;

    /// Only of a target whose survey says `in_place`: makes a shadow, like `prepare`, in which the definitions are tried without the data, so that
    /// what they lack (roles, extensions, rights) is found while what is there is still there. It is put the entries of the stages `Prepare` and
    /// `Complete` only; what `finish` counts is not compared. `None`: definitions cannot be tried alone.
    async fn rehearse(&mut self, _cx: &Context) -> Result<Option<Arc<dyn Sink>>> {
        Ok(None)
    }

    /// Only of a target whose survey says `in_place`, when the journal tells that it has begun: from now on what is there may be taken away,
    /// here or with the first put. An error or a crash half-way leaves what `revert` can clean up.
    async fn clear(&mut self, _cx: &Context) -> Result<()> {
        Err(Error::contract("it is restored beside what is there, and takes nothing away"))
    }

    /// Swaps the shadow in; the old data stays restorable. Called only with a finished and proven sink. A cancellation ends waits for
    /// others; a swap that has begun comes to its end, for half of it would only be more to revert.
    async fn publish(&mut self, cx: &Context) -> Result<()>;

    /// Whether `revert` would find what was published and what it replaced. Reads only; asked of all targets before a restore
    /// is undone, so that a refusal changes nothing. Of one that is restored in place: whether what was there before still is, or comes back
    /// with `revert`; where that cannot be known it does not.
    async fn check_revert(&mut self, _cx: &Context) -> Result<()> {
        Ok(())
    }

    /// Before publish: drops the shadow. After it: swaps the old data back. Idempotent, at any point, also half-way through
    /// `prepare`, `publish` and itself. An error of the kind `Refused` says that this call has changed nothing: what was published stays
    /// until somebody asks once more.
    async fn revert(&mut self, cx: &Context) -> Result<()>;

    /// Drops the old data: there is no way back. Idempotent.
    async fn settle(&mut self, cx: &Context) -> Result<()>;
}
