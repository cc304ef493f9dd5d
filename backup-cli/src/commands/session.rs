//! What every command needs: settings, cancellation, progress; and how a backup is named.

use crate::{
    args::{Among, Keys},
    failure::Result,
    render::{human, progress::Progress},
    settings::Settings,
};
use backup_kit::{
    Archive, ArchiveSpec, BackupSummary, CancellationToken, Context, CoreError, ErrorKind, Healed,
    Identities, Run, Scope, State, Which, archive, choose, choose_and_tell, heal, state_dir,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub(super) struct Session {
    pub(super) settings: Settings,
    pub(super) cancel: CancellationToken,
    pub(super) progress: Progress,
}

/// A backup that was named, and the archive that it is in.
pub(super) struct Located {
    pub(super) spec: ArchiveSpec,
    pub(super) archive: Arc<dyn Archive>,
    pub(super) backup: BackupSummary,
    pub(super) which: Which,
}

impl Session {
    pub(super) fn new(settings: Settings, cancel: CancellationToken) -> Self {
        let progress = Progress::new(settings.output, cancel.clone());
        Session { settings, cancel, progress }
    }

    /// For calls of the library: cancelled by signals, observed by the progress.
    pub(super) fn context(&self) -> Context {
        let progress = self.progress.clone();
        Run {
            cancel: self.cancel.clone(),
            observer: Some(Arc::new(move |event| progress.show(event))),
            memory_limit: None,
        }
        .context()
    }

    /// The backup meant by an id, `latest`, a date; or a file, which is an archive by itself. Says so if a newer one was passed over.
    pub(super) async fn locate(&self, text: &str, among: &Among) -> Result<Located> {
        let (spec, archive, backups, which) = self.look(text, among).await?;
        let (scope, zone) = (Scope::of_module(among.module.as_deref()), jiff::tz::TimeZone::system());
        let backup = choose_and_tell(&backups, &which, scope, &zone, &self.context())?.clone();
        Ok(Located { spec, archive, backup, which })
    }

    /// The same of which only some components are wanted, if any are named; for what chooses again, and says it then.
    pub(super) async fn locate_silently(
        &self,
        text: &str,
        among: &Among,
        components: &[&str],
    ) -> Result<Located> {
        let (spec, archive, backups, which) = self.look(text, among).await?;
        let scope = Scope { module: among.module.as_deref(), components };
        let backup = choose(&backups, &which, scope, &jiff::tz::TimeZone::system())?.clone();
        Ok(Located { spec, archive, backup, which })
    }

    async fn look(
        &self,
        text: &str,
        among: &Among,
    ) -> Result<(ArchiveSpec, Arc<dyn Archive>, Vec<BackupSummary>, Which)> {
        let itself = self.archive_by_itself(text, among)?;
        let file = itself.is_some();
        let spec = itself.map_or_else(|| self.archive(among), Ok)?;
        let (archive, backups) = self.list(&spec).await?;
        let which = match (file, backups.as_slice()) {
            // No run goes on in a file that is named: what is wrong with it is said by opening it.
            (true, [only]) if only.state == State::Incomplete => {
                archive.open(&only.id, &self.context()).await?;
                Which::Named(only.id.to_string())
            }
            (true, [only]) => Which::Named(only.id.to_string()),
            _ => text.parse().unwrap_or_else(|never| match never {}),
        };
        Ok((spec, archive, backups, which))
    }

    /// The backups that are there. Where none are, and some were, it is said that the disk may not be mounted.
    pub(super) async fn list(&self, spec: &ArchiveSpec) -> Result<(Arc<dyn Archive>, Vec<BackupSummary>)> {
        let archive = spec.open()?;
        let listed = archive.list(&self.context()).await;
        if listed.as_ref().map_or_else(|e| e.kind() == ErrorKind::NotFound, Vec::is_empty) {
            self.expect_backups(spec)?;
        }
        Ok((archive, listed?))
    }

    /// An error, or a warning, if the place has held backups and holds none now.
    pub(super) fn expect_backups(&self, spec: &ArchiveSpec) -> Result<(), CoreError> {
        if let Some(warning) = spec.missing_backups(&state_dir()?)? {
            self.settings.output.warning(warning);
        }
        Ok(())
    }

    /// The archive that is named where a backup may be: a file, or `-`.
    pub(super) fn archive_by_itself(&self, text: &str, among: &Among) -> Result<Option<ArchiveSpec>> {
        Ok(match among.from {
            None if text == "-" => Some(read_with(self.settings.stdin()?, &among.keys)),
            None if is_file(text) => Some(read_with(archive::at(text), &among.keys)),
            _ => None,
        })
    }

    /// The archive that backups are read from, with the keys that were given.
    pub(super) fn archive(&self, among: &Among) -> Result<ArchiveSpec> {
        let spec = self.settings.archive(among.from.as_deref(), "--from")?;
        Ok(read_with(spec, &among.keys))
    }

    /// Brings interrupted restores to their end before anything new begins, and says so. One that cannot be healed bars only its
    /// own places: that is for the restore to say. The answer are modules of which something is not whole.
    pub(super) async fn heal_first(&self) -> Result<Vec<(String, CoreError)>> {
        let (dir, mut gone) = (state_dir()?, Vec::new());
        if !dir.exists() {
            return Ok(gone);
        }
        for healed in heal(&dir, &[], &self.settings.registry, &self.context()).await? {
            if !matches!(healed, Healed::Kept { .. } | Healed::LeftAlone { unfinished: false, .. }) {
                self.settings.output.warning(outcome(&healed));
            }
            if let Healed::Gone { label, error, .. } = healed {
                gone.push((label, error));
            }
        }
        Ok(gone)
    }
}

/// What was done with a restore, for people.
pub(super) fn outcome(healed: &Healed) -> String {
    match healed {
        Healed::Reverted { id, label } => {
            format!("{label}: the interrupted restore {id} was undone: everything is as it was before it")
        }
        Healed::Gone { id, label, error } => {
            let hint = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
            let said = error.message();
            format!(
                "{label}: the interrupted restore {id} is over, and not all is as it was before it: {said}{hint}"
            )
        }
        Healed::Settled { id, label } => format!("{label}: the old data of the restore {id} was dropped"),
        Healed::Kept { id, label, until } => format!(
            "{label}: the old data of the restore {id} is kept until {}: `backup restore --undo {id}` brings it back, \
             `backup settle {id}` drops it",
            human::time(*until)
        ),
        Healed::LeftAlone { id, label, reason, unfinished } => {
            let hint = match unfinished {
                true => format!("; once it has ended: `backup restore --undo {id}`"),
                false => String::new(),
            };
            format!("{label}: the restore {id} was left alone: {reason}{hint}")
        }
        Healed::Cleared { trace } => format!("removed {}, left by a restore that is over", trace.display()),
        Healed::Failed { journal, error } => {
            let hint = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
            format!("a restore could not be healed: {error}{hint} (its journal: {})", journal.display())
        }
        Healed::NotOurs { error, .. } => {
            let hint = error.hint_text().map(|hint| format!("; {hint}")).unwrap_or_default();
            format!("{error}{hint}")
        }
        _ => format!("{healed:?}"),
    }
}

/// What is given on the command line counts instead of what is configured.
pub(super) fn read_with(spec: ArchiveSpec, keys: &Keys) -> ArchiveSpec {
    let identities = identities(keys);
    if identities.is_empty() { spec } else { spec.identities(identities) }
}

/// The keys that were given on the command line.
pub(super) fn identities(keys: &Keys) -> Identities {
    let identities = of_files(&keys.identity);
    match &keys.passphrase_file {
        Some(file) => identities.passphrase_file(file),
        None => identities,
    }
}

/// The keys in these files.
pub(super) fn of_files(files: &[PathBuf]) -> Identities {
    files.iter().fold(Identities::default(), |all, file| all.file(file))
}

/// A path of a file that is there, and that is written like a path or like a backup file.
pub(super) fn is_file(text: &str) -> bool {
    let is_backup = |ending: &&str| text.ends_with(ending) || text.contains(&format!("{ending}."));
    let named = text.contains('/') || [".tar", ".tgz", ".txz"].iter().any(is_backup);
    named && Path::new(text).is_file()
}
