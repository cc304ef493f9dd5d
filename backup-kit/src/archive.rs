//! Places where backups are kept, named but not yet opened.

mod encryption;

use crate::config::{ArchiveConfig, EncryptConfig, Format};
use backup_core::{
    Archive, Error, ErrorKind, MemoryArchive, Result, Secret,
    destination::{RemotePlace, RemoteSettings},
    portable::{Compression, PipeIn, PipeOut, PipeWriter, PortableArchive, PortableOptions},
    spool_folder, without_secrets,
};
use encryption::Encryption;
use std::{
    collections::HashSet,
    fmt,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Where backups are kept, and how they are written. A clone is the same place.
#[derive(Clone)]
pub struct ArchiveSpec {
    place: Place,
    format: Format,
    level: Option<i32>,
    name: Option<String>,
    remote: RemoteSettings,
    limit_rate: Option<u64>,
    /// Why no backup may be made there now.
    pub(crate) refused: Option<Error>,
    encryption: Encryption,
}

#[derive(Clone)]
enum Place {
    Text(String),
    File(PathBuf),
    Folder(PathBuf),
    Open(Arc<dyn Archive>),
    Pipe(PipeWriter),
    PipeFrom(Arc<PipeIn>),
    Unusable(String, Error),
}

/// Exactly this file: `x.tar.zst`, `x.tar.gz`, `x.tar.xz` or `x.tar`.
pub fn file(path: impl Into<PathBuf>) -> ArchiveSpec {
    ArchiveSpec::new(Place::File(path.into()))
}

/// A folder of backups.
pub fn folder(path: impl Into<PathBuf>) -> ArchiveSpec {
    ArchiveSpec::new(Place::Folder(path.into()))
}

/// In memory, for tests: gone when the last clone is.
pub fn memory() -> ArchiveSpec {
    Arc::new(MemoryArchive::new()).into()
}

/// A place as it is named on the command line: a path, or the URL of a bucket or server (`s3://bucket/prefix?endpoint=…`,
/// `az://container/prefix?account=…`, `sftp://user@host/path`, `webdavs://user@host/path`); a folder of backups, or exactly one
/// file if it ends like one.
pub fn at(text: impl Into<String>) -> ArchiveSpec {
    ArchiveSpec::new(Place::Text(text.into()))
}

/// One backup, written into a pipe as it comes: `archive::pipe_to(std::io::stdout())`. A pipe that closes fails the run, and
/// what is out by then is no backup.
pub fn pipe_to(writer: impl Write + Send + 'static) -> ArchiveSpec {
    ArchiveSpec::new(Place::Pipe(PipeWriter::new(writer)))
}

/// The backup that comes out of a pipe: `archive::pipe_from(std::io::stdin())`. It is read when it is needed, into a temporary
/// file without a name in `$TMPDIR`, else in the system's folder for large temporary files.
pub fn pipe_from(reader: impl Read + Send + 'static) -> ArchiveSpec {
    ArchiveSpec::new(Place::PipeFrom(Arc::new(PipeIn::new(reader, spool_folder()))))
}

/// One that cannot be used as it is configured, by its name: whatever is done with it fails with this error, and among several it
/// fails only itself.
pub fn unusable(name: impl Into<String>, why: Error) -> ArchiveSpec {
    ArchiveSpec::new(Place::Unusable(name.into(), why))
}

pub(crate) fn configured(archive: &ArchiveConfig) -> ArchiveSpec {
    let spec = ArchiveSpec {
        format: archive.format,
        level: archive.level,
        name: archive.name.clone(),
        remote: archive.remote(),
        ..at(&archive.url)
    };
    let spec = match &archive.identity {
        Some(file) => spec.identity(file),
        None => spec,
    };
    match &archive.encrypt {
        None => spec,
        Some(EncryptConfig::Recipients(recipients)) => spec.recipients(recipients.clone()),
        Some(EncryptConfig::PassphraseFile(file)) => spec.passphrase_file(file),
    }
}

impl<A: Archive + 'static> From<Arc<A>> for ArchiveSpec {
    /// An archive of one's own.
    fn from(archive: Arc<A>) -> Self {
        ArchiveSpec::new(Place::Open(archive))
    }
}

impl ArchiveSpec {
    fn new(place: Place) -> Self {
        ArchiveSpec {
            place,
            format: Format::default(),
            level: None,
            name: None,
            refused: None,
            remote: RemoteSettings::default(),
            limit_rate: None,
            encryption: Encryption::default(),
        }
    }

    /// S3: URL of a server that is not AWS. Azure: that of the account, where it is not in the public cloud.
    #[must_use]
    pub fn endpoint(mut self, url: impl Into<String>) -> Self {
        self.remote.endpoint = Some(url.into());
        self
    }

    /// S3: the region.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.remote.region = Some(region.into());
        self
    }

    /// S3: the access key and its secret; without them the standard chain of AWS is asked (environment, profile, role).
    #[must_use]
    pub fn credentials(mut self, access_key_id: impl Into<String>, secret_access_key: Secret) -> Self {
        self.remote.access_key_id = Some(access_key_id.into());
        self.remote.secret_access_key = Some(secret_access_key);
        self
    }

    /// Azure: the storage account; that of the endpoint or of the environment, if not given.
    #[must_use]
    pub fn account(mut self, name: impl Into<String>) -> Self {
        self.remote.account = Some(name.into());
        self
    }

    /// Azure: a key of the account. With neither key nor token those of the environment are taken.
    #[must_use]
    pub fn account_key(mut self, key: Secret) -> Self {
        self.remote.account_key = Some(key);
        self
    }

    /// Azure: a token (SAS) that allows to read, write, delete and list, instead of a key.
    #[must_use]
    pub fn sas_token(mut self, token: Secret) -> Self {
        self.remote.sas_token = Some(token);
        self
    }

    /// WebDAV: the password of the user in the URL.
    #[must_use]
    pub fn password(mut self, password: Secret) -> Self {
        self.remote.password = Some(password);
        self
    }

    /// Servers: bytes a second that may pass to and from it. On this machine nothing is held up.
    #[must_use]
    pub fn limit_rate(mut self, bytes_per_second: u64) -> Self {
        self.limit_rate = Some(bytes_per_second);
        self
    }

    /// S3, Azure and WebDAV: a file of certificates (PEM) that are trusted instead of those of this system.
    #[must_use]
    pub fn ca_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.remote.ca_file = Some(file.into());
        self
    }

    /// Whether it is on a server.
    pub fn is_remote(&self) -> bool {
        matches!(&self.place, Place::Text(text) if RemotePlace::parse(text).is_ok_and(|place| place.is_some()))
    }

    /// Level of compression; zstd: 1 to 19, gzip: 1 to 9, xz: 0 to 9.
    #[must_use]
    pub fn level(mut self, level: i32) -> Self {
        self.level = Some(level);
        self
    }

    /// How backups in a folder are written; a file's name says it itself.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Whether it is a pipe that is written to: it takes one backup, and nothing can be looked at afterwards.
    pub fn is_pipe(&self) -> bool {
        matches!(self.place, Place::Pipe(_))
    }

    /// Why it cannot be used at all, if it was made by `unusable`.
    pub fn why_unusable(&self) -> Option<&Error> {
        match &self.place {
            Place::Unusable(_, why) => Some(why),
            _ => None,
        }
    }

    /// Makes the archive. Nothing is read or written.
    pub fn open(&self) -> Result<Arc<dyn Archive>> {
        Ok(match &self.place {
            Place::Open(archive) => archive.clone(),
            Place::PipeFrom(pipe) => {
                pipe.read_with(self.encryption.identities());
                pipe.clone()
            }
            Place::Pipe(writer) => Arc::new(PipeOut::new(writer.clone(), self.options()?)?),
            Place::Unusable(_, why) => return Err(why.clone()),
            _ => Arc::new(self.open_portable()?),
        })
    }

    /// The same of one that can be written beside others.
    pub(crate) fn open_portable(&self) -> Result<PortableArchive> {
        let options = self.options()?;
        match &self.place {
            Place::Text(text) => match self.remote_place()? {
                Some(place) => PortableArchive::remote(place, options),
                None => PortableArchive::from_place(text, options),
            },
            Place::File(path) => PortableArchive::file(path, options),
            Place::Folder(path) => PortableArchive::folder(path, options),
            Place::Unusable(_, why) => Err(why.clone()),
            Place::Open(_) | Place::Pipe(_) | Place::PipeFrom(_) => {
                let message = "it cannot be written together with other archives";
                let hint = "make the backup at one of them, and `backup copy` it to the other";
                Err(Error::new(ErrorKind::Usage, "write to several archives", message).on(self).hint(hint))
            }
        }
    }

    fn options(&self) -> Result<PortableOptions> {
        let mut options = PortableOptions::default();
        options.compression = match self.format {
            Format::TarZst => Compression::Zstd,
            Format::TarGz => Compression::Gzip,
            Format::TarXz => Compression::Xz,
            Format::Tar => Compression::None,
        };
        options.level = self.level;
        options.refused.clone_from(&self.refused);
        self.encryption.apply(&mut options).map_err(|e| e.on(self))?;
        if let Some(name) = &self.name {
            options.name_template.clone_from(name);
        }
        Ok(options)
    }

    /// The place, if it is a remote one.
    pub(crate) fn remote_place(&self) -> Result<Option<RemotePlace>> {
        let Place::Text(text) = &self.place else { return Ok(None) };
        match RemotePlace::parse(text)? {
            Some(place) => {
                let mut settings = self.remote.clone();
                settings.limit_rate = self.limit_rate.or(settings.limit_rate);
                place.configured(settings).map(Some)
            }
            None if self.remote == RemoteSettings::default() => Ok(None),
            None => {
                let message = "it is on this machine, and has no endpoint, region or credentials";
                Err(Error::new(ErrorKind::Usage, "use the archive", message).on(self))
            }
        }
    }

    /// The kind of store, if the environment has credentials for it.
    pub(crate) fn kind_of_store(&self) -> Option<&'static str> {
        let place = self.remote_place().ok().flatten()?;
        place.server_of_environment().map(|(kind, _)| kind)
    }

    /// The file or folder, if it is on this machine.
    pub(crate) fn local_path(&self) -> Option<&Path> {
        match &self.place {
            Place::Text(text) if text.contains("://") => None,
            Place::Text(text) => Some(Path::new(text)),
            Place::File(path) | Place::Folder(path) => Some(path),
            Place::Open(_) | Place::Pipe(_) | Place::PipeFrom(_) | Place::Unusable(..) => None,
        }
    }
}

impl ArchiveSpec {
    /// The folder on this machine in which files are made.
    pub(crate) fn local_folder(&self) -> Option<PathBuf> {
        let path = self.local_path()?;
        let is_file = matches!(self.place, Place::File(_))
            || path.file_name().and_then(|n| n.to_str()).and_then(Compression::of_name).is_some()
                && !path.is_dir();
        let folder = if is_file { path.parent()? } else { path };
        Some(folder.to_owned()).filter(|f| !f.as_os_str().is_empty())
    }
}

/// The credentials of the environment open one server of a kind. Where several are in play, each needs its own.
pub(crate) fn check_credentials<'a>(specs: impl IntoIterator<Item = &'a ArchiveSpec>) -> Result<()> {
    let mut places = Vec::new();
    for spec in specs {
        places.extend(spec.remote_place()?);
    }
    let servers: HashSet<_> = places.iter().filter_map(RemotePlace::server_of_environment).collect();
    let several = |place: &&RemotePlace| {
        let kind = place.server_of_environment().map(|(kind, _)| kind);
        kind.is_some_and(|kind| servers.iter().filter(|(other, _)| *other == kind).count() > 1)
    };
    match places.iter().filter(several).find(|place| !place.has_own_credentials()) {
        Some(place) => {
            let message = "it would get the credentials of the environment, and several servers are in play";
            let secrets =
                if place.is_azure() { "_ACCOUNT_KEY" } else { "_ACCESS_KEY_ID and _SECRET_ACCESS_KEY" };
            let hint = format!("give each archive its own: [archives.NAME] with BACKUP_<NAME>{secrets}");
            Err(Error::new(ErrorKind::Usage, "use the archive", message).on(place).hint(hint))
        }
        None => Ok(()),
    }
}

impl fmt::Display for ArchiveSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Text(text) => match RemotePlace::parse(text) {
                Ok(Some(place)) => place.fmt(f),
                _ => f.write_str(&without_secrets(text)),
            },
            Place::File(path) | Place::Folder(path) => path.display().fmt(f),
            Place::Open(archive) => archive.fmt(f),
            Place::Pipe(_) | Place::PipeFrom(_) => f.write_str("-"),
            Place::Unusable(name, _) => f.write_str(name),
        }
    }
}

impl fmt::Debug for ArchiveSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchiveSpec({self})")
    }
}
