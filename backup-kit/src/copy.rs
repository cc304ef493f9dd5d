//! Copies backups from one archive into another: `copy(from, to)`, step by step to `run`.

use crate::{ArchiveSpec, Error, Result, Run, Scope, Which, choose_and_tell, verify::mark_if_damaged};
use backup_core::{Archive, BackupId, BackupSummary, Context, ErrorKind, Event, ReadBack, State};
use jiff::tz::TimeZone;
use serde::Serialize;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Copies backups that are kept in `from` into `to`, whatever the two write them as.
///
/// ```no_run
/// # async fn offsite() -> backup_kit::Result<()> {
/// use backup_kit::{archive, copy};
///
/// let report = copy(archive::folder("/srv/backups"), archive::folder("/mnt/usb")).all().run().await?;
/// println!("{} were missing", report.copied());
/// # Ok(())
/// # }
/// ```
pub fn copy(from: ArchiveSpec, to: ArchiveSpec) -> Copy {
    Copy {
        from,
        to,
        which: Vec::new(),
        all: false,
        module: None,
        decrypt: false,
        wait: Duration::ZERO,
        read_back: ReadBack::None,
        run: Run::default(),
    }
}

/// A copy that is being described; `run` makes it. What is there already is not written again, so a run that was interrupted
/// goes on with the first backup that is missing.
#[derive(Clone, Debug)]
#[must_use]
pub struct Copy {
    from: ArchiveSpec,
    to: ArchiveSpec,
    which: Vec<Which>,
    all: bool,
    module: Option<String>,
    decrypt: bool,
    wait: Duration,
    read_back: ReadBack,
    run: Run,
}

/// What came of a copy.
#[derive(Clone, Debug, Serialize)]
pub struct CopyReport {
    /// Where the backups were read.
    pub from: String,
    /// Where they were written.
    pub to: String,
    /// One for each backup that was meant, oldest first.
    pub backups: Vec<CopyOutcome>,
}

/// What came of one backup.
#[derive(Clone, Debug, Serialize)]
pub struct CopyOutcome {
    /// The backup as it was found.
    pub backup: BackupSummary,
    /// What was done with it.
    #[serde(flatten)]
    pub result: CopyResult,
}

/// What was done with a backup.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum CopyResult {
    /// It was written.
    Copied {
        /// The backup at its new place.
        copy: Box<BackupSummary>,
    },
    /// It was there already; nothing was written.
    AlreadyThere {
        /// The backup at the other place.
        copy: Box<BackupSummary>,
    },
    /// It is missing; the run was a dry one.
    Missing,
    /// It is incomplete: its run goes on, or has crashed. There is nothing to copy.
    Incomplete,
    /// It could not be copied, and nothing of it was written.
    Failed {
        /// Why.
        error: backup_core::Error,
    },
}

impl CopyReport {
    /// Backups that were written.
    pub fn copied(&self) -> usize {
        self.backups.iter().filter(|b| matches!(b.result, CopyResult::Copied { .. })).count()
    }

    /// What could not be copied, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&BackupSummary, &backup_core::Error)> {
        self.backups.iter().filter_map(|b| match &b.result {
            CopyResult::Failed { error } => Some((&b.backup, error)),
            _ => None,
        })
    }
}

impl Copy {
    /// Every backup, complete or partial; incomplete ones are said and left out.
    pub fn all(mut self) -> Self {
        self.all = true;
        self
    }

    /// The backup that is meant; may be called again.
    pub fn which(mut self, which: Which) -> Self {
        self.which.push(which);
        self
    }

    /// The backup of this id, or of an id that begins so; may be called again.
    pub fn id(self, id: impl Into<String>) -> Self {
        self.which(Which::Named(id.into()))
    }

    /// Only backups of the module of this name.
    pub fn of_name(mut self, module: impl Into<String>) -> Self {
        self.module = Some(module.into());
        self
    }

    /// Encrypted backups may be written in plain text: without it a copy of one to a place that encrypts to nobody is refused.
    pub fn decrypt(mut self, yes: bool) -> Self {
        self.decrypt = yes;
        self
    }

    /// Waits at most so long for another run of the same series at the other place; zero: fails at once.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// What is read again of each copy. One that is not what was written is a failure, and marked as damaged.
    pub fn read_back(mut self, how: ReadBack) -> Self {
        self.read_back = how;
        self
    }

    /// Receives the events of the run. Called from its tasks: must be quick and must not block.
    pub fn on_event(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.run.observer = Some(Arc::new(observer));
        self
    }

    /// Ends the run in order when `token` is cancelled: what was copied stays, of the rest nothing.
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.run.cancel = token;
        self
    }

    /// Bounds the bytes that are in flight at once; 24 MiB and 4 MiB for each core (of 2 to 16) if not given.
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.run.memory_limit = Some(bytes);
        self
    }

    /// Says what `run` would do; writes nothing.
    pub async fn dry_run(&self) -> Result<CopyReport> {
        Ok(self.look().await?.report)
    }

    /// Copies one backup after another. `Ok`: all that were meant are at the other place now. Where some could not be copied
    /// the others are, and it is `Err(Error::CopiedPartly)` with the report; a cancelled run is an error of kind `Cancelled`.
    pub async fn run(self) -> Result<CopyReport> {
        let Look { from, to, mut report } = self.look().await?;
        let of = report.backups.iter().filter(|b| matches!(b.result, CopyResult::Missing)).count();
        let mut number = 0;
        for outcome in &mut report.backups {
            if !matches!(outcome.result, CopyResult::Missing) {
                continue;
            }
            number += 1;
            outcome.result = match self.one(&outcome.backup.id, (number, of), &*from, &*to).await {
                Ok(copied) if copied.was_there => CopyResult::AlreadyThere { copy: Box::new(copied.backup) },
                Ok(copied) => CopyResult::Copied { copy: Box::new(copied.backup) },
                Err(_) if self.run.cancel.is_cancelled() => {
                    return Err(backup_core::Error::cancelled().into());
                }
                Err(error) => CopyResult::Failed { error: error.within(&outcome.backup.id) },
            };
        }
        let first = report.failures().next().map(|(_, e)| e.clone());
        match first {
            None => Ok(report),
            Some(e) if report.backups.len() == 1 => Err(e.into()),
            Some(_) => Err(Error::CopiedPartly(Box::new(report))),
        }
    }

    async fn one(
        &self,
        id: &BackupId,
        (number, of): (usize, usize),
        from: &dyn Archive,
        to: &dyn Archive,
    ) -> backup_core::Result<backup_core::Copied> {
        let cx = self.run.context();
        cx.emit(&Event::CopyStarted { id: id.clone(), number, of });
        let copied = async { backup_core::copy(from.open(id, &cx).await?, to, self.wait, &cx).await }.await;
        let copied = match copied {
            Ok(copied) => copied,
            Err(e) => {
                mark_if_damaged(from, id, &e, &cx).await;
                return Err(e);
            }
        };
        if !copied.was_there {
            backup_core::read_back(to, &copied.backup.id, &copied.backup.location, self.read_back, &cx)
                .await?;
        }
        Ok(copied)
    }

    /// What is meant, and what of it is missing.
    async fn look(&self) -> Result<Look> {
        let cx = self.run.context();
        let (from, to) = (self.from.open()?, self.to.open()?);
        let all = from.list(&cx).await?;
        // A copy of which nothing is known without a key is perhaps encrypted to the one that the original is read with.
        let there = match self.to.clone().also_read_with(&self.from).open()?.list(&cx).await {
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            there => there?,
        };
        let chosen = self.chosen(&all, &cx)?;
        let outcome = |backup: BackupSummary| {
            let whole =
                |b: &&BackupSummary| b.id == backup.id && b.damaged.is_none() && b.state.is_readable();
            let result = match there.iter().find(whole) {
                Some(copy) => CopyResult::AlreadyThere { copy: Box::new(copy.clone()) },
                None if backup.state == State::Incomplete => CopyResult::Incomplete,
                None => {
                    let unknown = |b: &&BackupSummary| b.state == State::Unknown && b.encrypted;
                    match there.iter().filter(unknown).find(|b| to.may_be(&b.location, &backup)) {
                        Some(doubtful) => CopyResult::Failed { error: may_be_there(&backup, doubtful, &*to) },
                        None => CopyResult::Missing,
                    }
                }
            };
            CopyOutcome { backup, result }
        };
        let backups: Vec<CopyOutcome> = chosen.into_iter().map(outcome).collect();
        self.refuse_plain(&backups)?;
        let missing = backups.iter().filter(|b| matches!(b.result, CopyResult::Missing)).count();
        if missing > 1 && to.holds_one() {
            let e = usage(format!("{to} holds one backup, and {missing} are to be copied"));
            return Err(e.hint("copy into a folder, or name one backup").into());
        }
        let report = CopyReport { from: self.from.to_string(), to: self.to.to_string(), backups };
        Ok(Look { from, to, report })
    }

    /// What somebody has encrypted does not become plain text because nobody was named to whom the copy is encrypted.
    fn refuse_plain(&self, backups: &[CopyOutcome]) -> Result<()> {
        let mut written = backups.iter().filter(|b| matches!(b.result, CopyResult::Missing));
        match written.find(|b| b.backup.encrypted) {
            Some(bare) if !self.decrypt && !self.to.is_encrypting() => {
                let text = format!("it is encrypted, and its copy in {} would not be", self.to);
                Err(usage(text).on(&bare.backup.id).hint(
                    "--recipient age1… (or --to-passphrase-file FILE) encrypts the copy; --decrypt says that it is to be plain text",
                ).into())
            }
            _ => Ok(()),
        }
    }

    fn chosen(&self, all: &[BackupSummary], cx: &Context) -> Result<Vec<BackupSummary>> {
        let module = self.module.as_deref();
        match (self.all, self.which.is_empty()) {
            (true, true) => {
                let of_module = all.iter().filter(|b| module.is_none_or(|m| b.module == m));
                return Ok(of_module.cloned().collect());
            }
            (true, false) => return Err(usage("all backups are meant, and some are named").into()),
            (false, true) => {
                return Err(usage("no backup is named")
                    .hint("name backups, or say that all are meant")
                    .into());
            }
            (false, false) => {}
        }
        let mut chosen: Vec<BackupSummary> = Vec::new();
        for which in &self.which {
            let one = choose_and_tell(all, which, Scope::of_module(module), &TimeZone::system(), cx)?;
            if !chosen.iter().any(|b| b.id == one.id) {
                chosen.push(one.clone());
            }
        }
        chosen.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(chosen)
    }
}

struct Look {
    from: Arc<dyn Archive>,
    to: Arc<dyn Archive>,
    report: CopyReport,
}

/// Neither said to be there nor written once more, each time that copies are made.
fn may_be_there(backup: &BackupSummary, doubtful: &BackupSummary, to: &dyn Archive) -> backup_core::Error {
    let (text, hint) = match doubtful.damaged {
        Some(_) => (
            "a file that is called like it is there, is damaged, and what stood beside it is lost",
            format!("remove the damaged one first: `backup remove {} --from {to}`", doubtful.id),
        ),
        None => (
            "it may be there already: a file that is called like it is encrypted, what stood beside that file is lost, and no key \
             that is given opens it",
            "--identity FILE with its key (or `identity` of the archive) says what it is; or bring its .manifest.json back"
                .to_owned(),
        ),
    };
    backup_core::Error::new(ErrorKind::Refused, "copy the backup", text)
        .on(format!("{}: {to}/{}", backup.id, doubtful.location))
        .hint(hint)
}

fn usage(message: impl std::fmt::Display) -> backup_core::Error {
    backup_core::Error::new(ErrorKind::Usage, "copy backups", message)
}
