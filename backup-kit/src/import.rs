//! Files that other programs made as backups become unproven backups: `import(file, to)`, step by step to `run`.

use crate::{
    ArchiveSpec, Error, Result, Run,
    series::{SeriesParts, slug},
};
use backup_core::{
    ComponentHeader, CreateComponent, CreateRequest, ErrorKind, Event, ForeignFile, ProcessStamp, Report,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Imports a file: the members of a tar (also compressed) as entries, anything else byte for byte as one file. What comes of it is
/// listed as unproven, restored after a warning, and never what `latest` means.
pub fn import(file: impl Into<PathBuf>, to: ArchiveSpec) -> Import {
    Import {
        file: file.into(),
        to,
        module: None,
        tags: Vec::new(),
        note: None,
        wait: Duration::ZERO,
        run: Run::default(),
    }
}

/// An import that is being described; `run` makes it.
#[derive(Clone, Debug)]
#[must_use]
pub struct Import {
    file: PathBuf,
    to: ArchiveSpec,
    module: Option<String>,
    tags: Vec<String>,
    note: Option<String>,
    wait: Duration,
    run: Run,
}

impl Import {
    /// The application that it is a backup of; made from the name of the file if not given.
    pub fn module(mut self, name: impl Into<String>) -> Self {
        self.module = Some(name.into());
        self
    }

    /// Adds a label.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Adds a remark.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// Waits at most so long for another import of the same module; zero: fails at once.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Receives the events of the run. Called from its tasks: must be quick and must not block.
    pub fn on_event(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.run.observer = Some(Arc::new(observer));
        self
    }

    /// Ends the run in order when `token` is cancelled; nothing stays behind.
    pub fn cancel(mut self, token: CancellationToken) -> Self {
        self.run.cancel = token;
        self
    }

    /// Makes the backup. `Ok`: everything of the file is in it. What could not be taken is `Err(Error::Partial)` with the report.
    pub async fn run(self) -> Result<Report> {
        let (archive, cx) = (self.to.open()?, self.run.context());
        let file = std::path::absolute(&self.file).unwrap_or_else(|_| self.file.clone());
        let foreign = ForeignFile::open(&file).await?;
        self.refuse_our_own(&foreign, &cx).await?;
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let module = self.module.clone().unwrap_or_else(|| slug(without_endings(&name)));
        let parts = SeriesParts {
            module: &module,
            host: &ProcessStamp::current().host,
            places: vec!["imported".to_owned()],
            only: Vec::new(),
        };
        let header = ComponentHeader {
            name: if foreign.is_tar() { "files".to_owned() } else { slug(&name) },
            kind: "files".to_owned(),
            folder: "files".to_owned(),
            // Where it came from nobody knows: a restore has to be told where to.
            origin: Value::Null,
        };
        let request = CreateRequest {
            series: parts.series(),
            module,
            made: Some(foreign.modified()),
            components: vec![CreateComponent { header, source: Box::new(foreign) }],
            metadata: [
                ("importedFrom".to_owned(), json!(file.to_string_lossy())),
                ("importedAt".to_owned(), json!(Timestamp::now().to_string())),
            ]
            .into(),
            tags: self.tags,
            note: self.note,
            wait: self.wait,
            ..CreateRequest::default()
        };
        let report = backup_core::create(request, &*archive, &cx).await?;
        match report.components.iter().any(|c| c.lost > 0) {
            false => Ok(report),
            true => Err(Error::Partial(Box::new(report))),
        }
    }

    /// An archive of ours has proofs, which an import would lose.
    async fn refuse_our_own(&self, foreign: &ForeignFile, cx: &backup_core::Context) -> Result<()> {
        let Ok(archive) = crate::archive::file(foreign.path()).open() else { return Ok(()) };
        let Ok(backups) = archive.list(cx).await else { return Ok(()) };
        for b in backups {
            if archive.open(&b.id, cx).await.is_ok() {
                let e =
                    backup_core::Error::new(ErrorKind::Usage, "import", "it is an archive of this program");
                let hint = format!("it keeps its proofs: `backup copy {foreign} --to ARCHIVE`");
                return Err(e.on(foreign).hint(hint).into());
            }
        }
        Ok(())
    }
}

/// `dify-20250811` of `dify-20250811.tar.gz`.
fn without_endings(name: &str) -> &str {
    let mut stem = name;
    for ending in [".gz", ".zst", ".xz", ".tgz", ".txz", ".tar", ".sql", ".dump"] {
        stem = stem.strip_suffix(ending).filter(|rest| !rest.is_empty()).unwrap_or(stem);
    }
    stem
}
