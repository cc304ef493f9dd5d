//! Portable archives in a folder of backups, or as exactly one file.

use super::{
    Compression, PortableOptions, lock, missing, name,
    reader::PortableReader,
    salvage::Beside,
    sidecar::{self, Later, Outside},
    writer::PortableWriter,
    written::Written,
};
use crate::{
    Archive, BackupHeader, BackupId, BackupReader, BackupSummary, BackupWriter, Context, Error, ErrorKind,
    Manifest, Result, RunLock, Series, Severity, Sha, State,
    destination::{Destination, LocalFolder, RemoteFolder, RemotePlace, Stored},
    without_secrets,
};
use async_trait::async_trait;
use jiff::Timestamp;
use sha2::Digest;
use std::{
    collections::HashSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Bytes that are hashed at a time.
const PIECE: u64 = 4 << 20;

/// Portable archives at one place. A clone is the same place.
#[derive(Clone)]
pub struct PortableArchive {
    destination: Arc<dyn Destination>,
    /// The one file, if it was named.
    exact: Option<String>,
    options: PortableOptions,
    written: Written,
}

impl fmt::Debug for PortableArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PortableArchive").field(&self.to_string()).finish()
    }
}

impl fmt::Display for PortableArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exact {
            Some(file) => write!(f, "{}/{file}", self.destination),
            None => self.destination.fmt(f),
        }
    }
}

impl PortableArchive {
    /// A folder of backups; it is made when the first one begins, if the folder above it is there.
    pub fn folder(path: impl Into<PathBuf>, options: PortableOptions) -> Result<Self> {
        options.check()?;
        let path = path.into();
        let path = if path.as_os_str().is_empty() { PathBuf::from(".") } else { path };
        Ok(PortableArchive {
            destination: Arc::new(LocalFolder::new(path)),
            exact: None,
            options,
            written: Written::default(),
        })
    }

    /// Exactly this file. The ending of its name tells the compression. It is never overwritten.
    pub fn file(path: impl AsRef<Path>, mut options: PortableOptions) -> Result<Self> {
        let path = path.as_ref();
        let file = path.file_name().and_then(|n| n.to_str());
        let (Some(file), Some(compression)) = (file, file.and_then(Compression::of_name)) else {
            return Err(Error::new(
                ErrorKind::Usage,
                "use the archive",
                "its name does not end in .tar.zst, .tar.gz, .tar.xz or .tar (and .age after it, if it is encrypted)",
            )
            .on(path.display()));
        };
        options.compression = compression;
        options.check()?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let destination = Arc::new(LocalFolder::new(folder));
        Ok(PortableArchive {
            destination,
            exact: Some(file.to_owned()),
            options,
            written: Written::default(),
        })
    }

    /// A folder of a server or a prefix of a bucket; or exactly one file, if the place ends like one. Nothing is read or written.
    pub fn remote(mut place: RemotePlace, mut options: PortableOptions) -> Result<Self> {
        let exact = place.split_file(|name| Compression::of_name(name).is_some());
        if let Some(compression) = exact.as_deref().and_then(Compression::of_name) {
            options.compression = compression;
        }
        options.check()?;
        Ok(PortableArchive {
            destination: Arc::new(RemoteFolder::new(&place)?),
            exact,
            options,
            written: Written::default(),
        })
    }

    /// As named on a command line or in a configuration: a folder, or a file by its ending. What this version cannot reach or
    /// write is an error that says so.
    pub fn from_place(place: &str, options: PortableOptions) -> Result<Self> {
        Self::check_place(place)?;
        if let Some(place) = RemotePlace::parse(place)? {
            return Self::remote(place, options);
        }
        match Compression::of_name(place) {
            // A folder may be called so, too.
            Some(_) if !Path::new(place).is_dir() => Self::file(place, options),
            _ => Self::folder(place, options),
        }
    }

    /// Whether `from_place` would try it; asked of a relative path before it is joined with anything. An error says why not.
    pub fn check_place(place: &str) -> Result<()> {
        let refuse = |text: String| {
            Err(Error::new(ErrorKind::Usage, "use the archive", text).on(without_secrets(place)))
        };
        if RemotePlace::parse(place)?.is_some() {
            return Ok(());
        }
        if let Some((scheme, _)) = place.split_once("://") {
            return refuse(format!("this version has no destinations of the scheme {scheme:?}; give a path"));
        }
        if place.trim().is_empty() {
            return refuse("it is empty; give a path (`.` for the current folder)".into());
        }
        // `host:folder` and `remote:bucket` are other programs' ways to name what is far away. `C:\\x` is a path.
        let before_colon = place.split_once(':').map(|(word, _)| word);
        if before_colon.is_some_and(|word| word.len() > 1 && !word.contains(['/', '\\', '.'])) {
            return refuse(format!(
                "this version has no destinations like it; a folder of this name is ./{place}"
            ));
        }
        if place == "-" {
            return refuse("this version cannot write to or read from a pipe; give a path".into());
        }
        let lower = place.to_ascii_lowercase();
        let known = Compression::of_name(place).is_some();
        for ending in [".age", ".zip", ".tar.bz2", ".tar.lz4"] {
            if lower.ends_with(ending) && !known {
                return refuse(format!(
                    "this version does not know archives that end in {ending}; use .tar.zst, .tar.gz, .tar.xz or .tar"
                ));
            }
        }
        Ok(())
    }

    /// The folder on this machine, if it is one: what a source must not contain.
    pub fn local_folder(&self) -> Option<&Path> {
        self.destination.local_path()
    }

    /// The one file, if it is one and not a folder of backups.
    pub fn local_file(&self) -> Option<PathBuf> {
        Some(self.destination.local_path()?.join(self.exact.as_ref()?))
    }

    pub(super) fn destination(&self) -> Arc<dyn Destination> {
        self.destination.clone()
    }

    pub(super) fn exact(&self) -> Option<&str> {
        self.exact.as_deref()
    }

    pub(super) fn options(&self) -> &PortableOptions {
        &self.options
    }

    /// Whether something stands at the place of the one file that no listing shows: a link, a folder.
    fn is_taken(&self) -> bool {
        self.local_file().is_some_and(|file| file.symlink_metadata().is_ok())
    }

    /// Names of archives here, with what stands beside them.
    async fn stored(&self) -> Result<Vec<Stored>> {
        let mut all = self.destination.list().await?;
        if let Some(exact) = &self.exact {
            all.retain(|s| s.name == *exact || is_provisional_of(&s.name, exact));
            // A listing shows no links; this one was named.
            if !all.iter().any(|s| s.name == *exact)
                && let Ok(blob) = self.destination.open(exact).await
            {
                let (name, bytes) = (exact.clone(), blob.bytes());
                all.push(Stored { name, bytes, modified: Timestamp::UNIX_EPOCH });
            }
        }
        Ok(all)
    }

    async fn summarize(&self, stored: &Stored) -> Result<BackupSummary> {
        let later = match self.exact {
            Some(_) => Later::default(),
            // What came later must not hide what is there: it says only how the backup was found.
            None => sidecar::read_later(&*self.destination, &stored.name).await.unwrap_or_default(),
        };
        let marked = |summary: BackupSummary| BackupSummary {
            damaged: later.damaged,
            verified: later.verified,
            ..summary
        };
        let as_found = |manifest: &Manifest| {
            marked(super::summary(manifest, stored.name.clone(), stored.bytes, later.verified))
        };
        let as_said = |outside: Outside| marked(outside.summary(stored.name.clone(), stored.bytes));
        if self.exact.is_none()
            && let Some(manifest) =
                sidecar::read_manifest(&*self.destination, &stored.name, Some(stored.bytes)).await
        {
            return Ok(as_found(&manifest));
        }
        let encrypted = name::is_encrypted(&stored.name);
        if self.exact.is_none()
            && encrypted
            && let Some(outside) =
                sidecar::read_outside(&*self.destination, &stored.name, Some(stored.bytes)).await
        {
            return Ok(as_said(outside));
        }
        match self.read(&stored.name).await {
            Ok(reader) => Ok(marked(reader.summary(stored.name.clone(), stored.bytes))),
            // Who only writes has no key. That it cannot be read is said to whoever opens it; that it has not the length any more
            // with which it was written is known without.
            Err(e) if encrypted && e.kind() == ErrorKind::Usage => {
                let outside = match self.exact {
                    None => sidecar::read_outside(&*self.destination, &stored.name, None).await,
                    Some(_) => None,
                };
                let damaged = Some(later.damaged.unwrap_or(stored.modified));
                Ok(outside
                    .map_or_else(|| unknown(stored), |outside| BackupSummary { damaged, ..as_said(outside) }))
            }
            // It got its name when it was whole, so it is damaged, or none of ours, or of a newer program. What it was, the copy
            // of its manifest still says.
            Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                let copy = match self.exact {
                    None => sidecar::read_manifest(&*self.destination, &stored.name, None).await,
                    Some(_) => None,
                };
                let outside = match self.exact {
                    None if encrypted => sidecar::read_outside(&*self.destination, &stored.name, None).await,
                    _ => None,
                };
                let damaged = Some(later.damaged.unwrap_or(stored.modified));
                if let Some(outside) = outside {
                    return Ok(BackupSummary { damaged, ..as_said(outside) });
                }
                Ok(match copy {
                    Some(manifest) => BackupSummary { damaged, ..as_found(&manifest) },
                    // Only what a key that was given opens can be damaged.
                    None if encrypted && e.kind() == ErrorKind::Damaged => {
                        BackupSummary { damaged, ..unknown(stored) }
                    }
                    None => unknown(stored),
                })
            }
            Err(e) => Err(e),
        }
    }

    async fn read(&self, name: &str) -> Result<PortableReader> {
        let blob = self.destination.open(name).await?;
        let place =
            if self.exact.is_some() { self.to_string() } else { format!("{}/{name}", self.destination) };
        PortableReader::open(blob, place, &self.options.identities).await
    }

    /// What is intact of a damaged archive.
    async fn salvage_named(&self, name: &str, cx: &Context) -> Result<PortableReader> {
        let copy = match self.exact {
            None => sidecar::read_manifest(&*self.destination, name, None).await,
            Some(_) => None,
        };
        let outside = match self.exact {
            None if name::is_encrypted(name) => sidecar::read_outside(&*self.destination, name, None).await,
            _ => None,
        };
        let beside = Beside { manifest: copy, bytes: outside.map(|outside| outside.archive_bytes()) };
        let blob = self.destination.open(name).await?;
        let place = format!("{}/{name}", self.destination);
        super::salvage::open(blob, place, &self.options.identities, beside, cx).await
    }

    async fn find(&self, id: &BackupId) -> Result<BackupSummary> {
        let all = self.list(&Context::default()).await?;
        self.only(&all, id, "find the backup").cloned()
    }

    /// The one of this id. A copy beside it has the same, and which of them is meant nobody can know.
    fn only<'a>(
        &self,
        all: &'a [BackupSummary],
        id: &BackupId,
        operation: &'static str,
    ) -> Result<&'a BackupSummary> {
        let mut of_id = all.iter().filter(|b| b.id == *id);
        match (of_id.next(), of_id.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => {
                let message = format!("{self} has none of this id");
                Err(Error::new(ErrorKind::NotFound, operation, message).on(id))
            }
            (Some(one), Some(other)) => {
                let message = format!("the backup is there twice: {} and {}", one.location, other.location);
                Err(Error::new(ErrorKind::Refused, operation, message)
                    .on(id)
                    .hint("move one of the two files to another folder"))
            }
        }
    }

    /// The sidecar first: without its archive it would say that a backup is missing; an archive without its sidecar is a backup
    /// that is still there. Of an encrypted one it is all that is known without the key: if the archive cannot be removed, it is
    /// written back. That the backup was found damaged is said as long as it is there.
    async fn remove_named(&self, name: &str, cx: &Context) -> Result<()> {
        let beside = name::manifest_sidecar(name);
        let said = sidecar::read_as_stored(&*self.destination, &beside).await?;
        self.destination.remove(&beside).await?;
        if let Err(e) = self.destination.remove(name).await {
            let gone = self.destination.open(name).await.is_err_and(|e| e.kind() == ErrorKind::NotFound);
            if let Some(said) = said.filter(|_| !gone)
                && let Err(e) = self.destination.write_small(&beside, &said).await
            {
                let text =
                    format!("it is still there, and what said so beside it could not be written back: {e}");
                cx.note(Severity::Warning, "", name, text);
            }
            return Err(e);
        }
        self.destination.remove(&name::state_sidecar(name)).await
    }

    /// The backup, if there is a place beside it.
    async fn keep_later(&self, id: &BackupId, later: Later) -> Result<Option<BackupSummary>> {
        if self.exact.is_some() {
            return Ok(None);
        }
        let found = self.find(id).await?;
        // What is gone, and what is perhaps none of ours, is listed as that.
        if matches!(found.state, State::Missing | State::Unknown) {
            return Ok(None);
        }
        sidecar::write_later(&*self.destination, &found.location, &later).await?;
        Ok(Some(found))
    }

    /// What stands beside a backup, if it was lost, or cut as by a loss of power: all of the backup was read and found right.
    async fn make_sidecar_again(&self, found: &BackupSummary, cx: &Context) -> Result<()> {
        let (destination, name) = (&*self.destination, &found.location);
        let stored = sidecar::read_as_stored(destination, &name::manifest_sidecar(name)).await?;
        if stored.is_some_and(|stored| sidecar::says_a_backup(&stored)) {
            return Ok(());
        }
        let reader = self.read(name).await?;
        let manifest = BackupReader::manifest(&reader);
        match name::is_encrypted(name) {
            true => {
                let sha256 = self.sha256_of(name, cx).await?;
                let outside = Outside::of(manifest, found.stored_bytes, sha256);
                sidecar::write_outside(destination, name, &outside).await?;
            }
            false => sidecar::write_manifest(destination, name, found.stored_bytes, manifest).await?,
        }
        cx.note(Severity::Warning, "", name, "what stood beside it was lost, and is made anew");
        Ok(())
    }

    /// Of the file as it is stored.
    async fn sha256_of(&self, name: &str, cx: &Context) -> Result<Sha> {
        let blob = self.destination.open(name).await?;
        let (mut sha256, mut at) = (sha2::Sha256::new(), 0);
        while at < blob.bytes() {
            if cx.cancel.is_cancelled() {
                return Err(Error::cancelled());
            }
            let piece = blob.read_at(at, (blob.bytes() - at).min(PIECE) as usize).await?;
            at += piece.len() as u64;
            sha256 = tokio::task::spawn_blocking(move || sha256.chain_update(&piece))
                .await
                .map_err(|e| Error::new(ErrorKind::Panicked, "compare the backup", e))?;
        }
        Ok(sha256.finalize().into())
    }

    /// Keeps what is known of its backups where others do, too.
    pub(super) fn remember_in(&mut self, written: &Written) {
        self.written = written.clone();
    }

    /// Whoever is to read what is written now can: recipients are there, where they must be, and can be used.
    async fn check_recipients(&self) -> Result<()> {
        let recipients = self.options.recipients.clone();
        if !recipients.is_empty() {
            if self.exact.as_ref().is_some_and(|exact| !name::is_encrypted(exact)) {
                let text = "it is to be encrypted, and its name does not end in .age";
                return Err(Error::new(ErrorKind::Usage, "write the archive", text).on(self));
            }
            return tokio::task::spawn_blocking(move || recipients.check())
                .await
                .unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, "read the recipients", e)));
        }
        match &self.exact {
            Some(exact) if name::is_encrypted(exact) => {
                let text = "its name ends in .age, and nobody is named to whom it is encrypted";
                Err(Error::new(ErrorKind::Usage, "write the archive", text)
                    .on(self)
                    .hint("--recipient age1… (or a file of recipients), or --passphrase-file FILE"))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn is_provisional_of(name: &str, exact: &str) -> bool {
    name::parse_provisional(name).is_some() && name.starts_with(&format!(".{exact}."))
}

/// A file of which nothing can be told.
pub(super) fn unknown(stored: &Stored) -> BackupSummary {
    BackupSummary { state: State::Unknown, ..incomplete(stored, None) }
}

fn incomplete(stored: &Stored, id: Option<BackupId>) -> BackupSummary {
    BackupSummary {
        id: id.unwrap_or_else(|| unknown_id(stored)),
        module: String::new(),
        series: Series::default(),
        created: stored.modified,
        state: State::Incomplete,
        location: stored.name.clone(),
        stored_bytes: stored.bytes,
        data_bytes: 0,
        entries: 0,
        components: Vec::new(),
        verified: None,
        damaged: None,
        tags: Vec::new(),
        note: None,
        encrypted: name::is_encrypted(&stored.name),
        was: None,
    }
}

/// A run that was killed between giving a backup its name and removing the provisional one has left both: it is one backup.
fn drop_second_names(all: &mut Vec<BackupSummary>) {
    let is_provisional = |b: &BackupSummary| name::parse_provisional(&b.location).is_some();
    let named: HashSet<BackupId> = all.iter().filter(|b| !is_provisional(b)).map(|b| b.id.clone()).collect();
    all.retain(|b| !is_provisional(b) || !named.contains(&b.id));
}

/// An id for a file that has none: always the same for the same name, so that it can be removed by it.
fn unknown_id(stored: &Stored) -> BackupId {
    let digest = sha2::Sha256::digest(stored.name.as_bytes());
    let text: String = digest.iter().take(13).map(|b| format!("{b:02x}")).collect();
    // 26 hexadecimal digits are a well-formed id.
    text.parse().unwrap_or_else(|_| BackupId::generate())
}

#[async_trait]
impl Archive for PortableArchive {
    async fn preflight(&self, estimate: Option<u64>, cx: &Context) -> Result<Vec<String>> {
        if let Some(e) = &self.options().refused {
            return Err(e.clone());
        }
        self.check_recipients().await?;
        lock::telling(&*self.destination, cx, self.destination.prepare()).await?;
        self.refuse_plain().await?;
        if let Some(text) = self.not_for_its_keys().await? {
            cx.note(Severity::Warning, "", "", text);
        }
        if let Some(exact) = &self.exact
            && (self.destination.list().await?.iter().any(|s| s.name == *exact) || self.is_taken())
        {
            return Err(Error::new(ErrorKind::Refused, "write the archive", "it is there already")
                .on(self)
                .hint("a backup is never overwritten: choose another name, or remove it first"));
        }
        let mut warnings = Vec::new();
        let Some((free, all)) = self.destination.space().await? else { return Ok(warnings) };
        let needs = estimate.unwrap_or(0);
        // What compression saves is not known yet: only what cannot fit in any case is refused.
        if free < needs / 20 || free < 1 << 20 {
            let about = match estimate {
                Some(needs) => format!(", about {needs} bytes are to be backed up"),
                None => String::new(),
            };
            let text = format!("{free} bytes are free{about}");
            return Err(Error::new(ErrorKind::Destination, "write the archive", text)
                .on(self)
                .hint("free some space there, or choose another destination"));
        }
        if free < needs {
            warnings.push(format!(
                "{free} bytes are free at {self}, {needs} bytes are to be backed up: it may not fit"
            ));
        }
        let used = all.saturating_sub(free).saturating_add(needs.min(free));
        if all > 0 && used / (all / 100).max(1) > 80 {
            warnings.push(format!("{self} will be more than 80 % full"));
        }
        Ok(warnings)
    }

    fn holds_one(&self) -> bool {
        self.exact.is_some()
    }

    async fn lock(&self, series: &Series, wait: Duration, cx: &Context) -> Result<Box<dyn RunLock>> {
        let lock = lock::take(self.destination.clone(), series, wait, cx).await?;
        self.clear(Some(series)).await?;
        self.compare_passphrase(series, cx).await;
        Ok(Box::new(lock))
    }

    async fn begin(&self, header: BackupHeader, cx: &Context) -> Result<Box<dyn BackupWriter>> {
        self.check_recipients().await?;
        let (destination, written) = (self.destination.clone(), self.written.clone());
        let writer =
            PortableWriter::begin(destination, self.exact.clone(), &self.options, written, header, cx)
                .await?;
        Ok(Box::new(writer))
    }

    async fn open(&self, id: &BackupId, _cx: &Context) -> Result<Arc<dyn BackupReader>> {
        if let Some(exact) = self.exact.as_ref().filter(|exact| name::is_encrypted(exact)) {
            // Without the key nothing is known of it, not even its id; and with a passphrase every opening takes its time.
            let reader = self.read(exact).await?;
            if BackupReader::manifest(&reader).header.id != *id {
                let message = format!("{self} has none of this id");
                return Err(Error::new(ErrorKind::NotFound, "find the backup", message).on(id));
            }
            return Ok(Arc::new(reader));
        }
        let found = self.find(id).await?;
        if found.state == State::Missing {
            return Err(missing::error(&found, &*self.destination));
        }
        if found.state == State::Incomplete {
            if name::parse_provisional(&found.location).is_none() {
                self.read(&found.location).await?; // says why
            }
            return Err(Error::damaged("open the backup", "it is incomplete: it has no manifest")
                .on(&found.location)
                .hint("if its run was killed, `heal` clears it"));
        }
        let reader = self.read(&found.location).await?;
        if BackupReader::manifest(&reader).header.id != *id {
            return Err(Error::damaged("open the backup", "the copy of its manifest is of another backup")
                .on(&found.location)
                .hint("remove the .manifest.json beside it: it is made again from the archive"));
        }
        Ok(Arc::new(reader))
    }

    async fn list(&self, _cx: &Context) -> Result<Vec<BackupSummary>> {
        let mut out = Vec::new();
        let all = self.stored().await?;
        for stored in &all {
            if let Some((_, id)) = name::parse_provisional(&stored.name) {
                out.push(incomplete(stored, Some(id)));
            } else if Compression::of_name(&stored.name).is_some() && !stored.name.starts_with('.') {
                match self.summarize(stored).await {
                    // Removed meanwhile, by another run.
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    summary => out.push(summary?),
                }
            }
        }
        drop_second_names(&mut out);
        if self.exact.is_none() {
            let missing = missing::find(&*self.destination, &all, &out).await?;
            out.extend(missing);
        }
        out.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(out)
    }

    async fn salvage(&self, id: &BackupId, cx: &Context) -> Result<Arc<dyn BackupReader>> {
        let found = self.find(id).await?;
        if found.state == State::Missing {
            return Err(missing::error(&found, &*self.destination));
        }
        Ok(Arc::new(self.salvage_named(&found.location, cx).await?))
    }

    async fn remove(&self, ids: &[BackupId], cx: &Context) -> Result<()> {
        let all = self.list(cx).await?;
        let mut named = Vec::with_capacity(ids.len());
        for id in ids {
            let found = self.only(&all, id, "remove the backup")?;
            named.extend(Some(&found.location).filter(|name| name::parse_provisional(name).is_none()));
        }
        let mut provisional = Vec::new();
        for stored in self.stored().await? {
            let Some((short, id)) = name::parse_provisional(&stored.name) else { continue };
            if !ids.contains(&id) {
                continue;
            }
            if lock::is_held(&*self.destination, short).await? {
                let text = "it is being written";
                return Err(Error::new(ErrorKind::AlreadyRunning, "remove the backup", text).on(id));
            }
            provisional.push(stored.name);
        }
        for name in named {
            self.remove_named(name, cx).await?;
        }
        for name in provisional {
            self.destination.discard(&name).await?;
        }
        Ok(())
    }

    async fn mark_verified(&self, id: &BackupId, at: Timestamp, cx: &Context) -> Result<()> {
        match self.keep_later(id, Later { verified: Some(at), damaged: None }).await? {
            Some(found) => self.make_sidecar_again(&found, cx).await,
            None => Ok(()),
        }
    }

    async fn mark_damaged(&self, id: &BackupId, at: Timestamp, _cx: &Context) -> Result<()> {
        self.keep_later(id, Later { verified: None, damaged: Some(at) }).await.map(drop)
    }

    async fn compare_stored(&self, id: &BackupId, cx: &Context) -> Result<bool> {
        let is_it =
            |b: &BackupSummary| b.id == *id || self.exact.as_ref().is_some_and(|exact| b.location == *exact);
        let Some(found) = self.list(cx).await?.into_iter().find(is_it) else {
            return Ok(false);
        };
        let outside = async {
            let outside = sidecar::read_outside(&*self.destination, &found.location, None).await;
            outside.and_then(|outside| outside.sha256())
        };
        let expected = match self.written.of(id) {
            Some(sha256) => sha256,
            None if self.exact.is_some() => return Ok(false),
            None => match outside.await {
                Some(sha256) => sha256,
                None => return Ok(false),
            },
        };
        match self.sha256_of(&found.location, cx).await? == expected {
            true => Ok(true),
            false => {
                Err(Error::damaged("compare the backup", "it is not what was written").on(&found.location))
            }
        }
    }

    fn may_be(&self, location: &str, backup: &BackupSummary) -> bool {
        let stem = name::stem(&self.options.name_template, &backup.module, backup.created, &backup.id);
        self.exact.is_none() && name::is_encrypted_with(location, &stem)
    }

    fn has_identities(&self) -> bool {
        !self.options.identities.is_empty()
    }

    async fn heal(&self, cx: &Context) -> Result<Vec<String>> {
        self.heal_folder(cx).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_this_version_cannot_reach_is_never_taken_for_a_folder() {
        for place in ["", " ", "-", "ftp://host/x", "host:backups", "rclone:remote/x", "b.tar.bz2", "x.age"] {
            let refused = PortableArchive::from_place(place, PortableOptions::default());
            assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::Usage), "{place:?}");
        }
        for place in ["b", "./b", "./host:b", "/srv/a:b", "C:\\backups", "x.tar", "a/b.tar.zst", "b.tgz"] {
            assert!(PortableArchive::from_place(place, PortableOptions::default()).is_ok(), "{place:?}");
        }
    }
}
