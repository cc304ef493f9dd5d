//! `backup.toml`: one serde struct per kind, strict, with line numbers in every complaint.

mod credentials;
mod env_file;
mod interpolate;
mod mistakes;
mod place;
mod schema;

pub use credentials::rate;
pub use env_file::EnvFile;
pub use schema::schema;

use crate::{ArchiveSpec, Health, Module, Registry, SourceSpec};
use backup_core::{
    Error, ErrorKind, Result, Secret, encryption::Recipients, is_component_name, portable::PortableArchive,
};
use jiff::SignedDuration;
use mistakes::{Mistakes, NotSet, one_of_all};
use place::{Text, nearest};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

/// A commented example of everything that can be configured.
pub const EXAMPLE: &str = include_str!("config/example.toml");

/// What `backup.toml` says. Relative paths in it are taken from the folder that it is in.
#[derive(Clone, Debug, Default)]
pub struct Config {
    file: PathBuf,
    modules: BTreeMap<String, Module>,
    archives: BTreeMap<String, ArchiveConfig>,
    not_set: NotSet,
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "backup.toml")]
pub(crate) struct ConfigFile {
    /// The applications, by name.
    modules: BTreeMap<String, ModuleConfig>,
    /// The places where backups are kept, by name.
    archives: BTreeMap<String, ArchiveConfig>,
}

/// An application: what of it is backed up.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ModuleConfig {
    /// Its components, by name.
    #[schemars(with = "BTreeMap<String, schema::Source>")]
    sources: BTreeMap<String, Map<String, Value>>,
    /// Containers that use its stores: those that run are stopped when a restore takes effect, and started after it.
    app: Vec<String>,
    /// Asked when a restore has taken effect: if the application does not work, the old data is brought back.
    health: Option<HealthConfig>,
}

/// What says whether an application works.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HealthConfig {
    /// An address that answers with a status of 2xx when it works.
    url: String,
    /// How long it is asked again and again, such as `90s` or `5m`; 60s if not given.
    timeout: Option<String>,
}

/// A place and a format where backups are kept.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveConfig {
    /// A folder of backups, or exactly one file (`x.tar.zst`, `x.tar.gz`, `x.tar.xz`, `x.tar`): a path, `s3://bucket/prefix`,
    /// `az://container/prefix`, `sftp://user@host/path`, `webdavs://user@host/path`.
    pub url: String,
    /// How a backup is written.
    #[serde(default)]
    pub format: Format,
    /// Level of compression; zstd: 1 to 19, 3 if not given; gzip: 1 to 9, xz: 0 to 9, 6 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<i32>,
    /// Template of the files' names, of {module}, {date}, {time} (UTC) and {id}; `{module}-backup-{date}-{time}` if not given. The
    /// ending is added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Encrypts new backups, so that their names end in `.age`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<EncryptConfig>,
    /// A file with the secret key that encrypted backups are read with. A host that only makes backups needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// S3: URL of a server that is not AWS. Azure: that of the account, where it is not in the public cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// S3: the region; `us-east-1` with an endpoint, else $AWS_REGION, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// S3: the bucket in the path of requests instead of the host name; true with an endpoint, else false, if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// S3: the access key; `$BACKUP_<NAME>_ACCESS_KEY_ID` if not given, else the standard chain of AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// S3: the secret of the access key, only as "${VARIABLE}"; `$BACKUP_<NAME>_SECRET_ACCESS_KEY` if not given.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub secret_access_key: Option<Secret>,
    /// Azure: the storage account; `$BACKUP_<NAME>_ACCOUNT` if not given, else that in the endpoint, else
    /// `$AZURE_STORAGE_ACCOUNT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Azure: a key of the account, only as "${VARIABLE}"; `$BACKUP_<NAME>_ACCOUNT_KEY` if not given. With neither key nor token:
    /// `$AZURE_STORAGE_KEY`, else `$AZURE_STORAGE_SAS_TOKEN`.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub account_key: Option<Secret>,
    /// Azure: a token (SAS) that allows to read, write, delete and list, instead of a key, only as "${VARIABLE}";
    /// `$BACKUP_<NAME>_SAS_TOKEN` if not given.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub sas_token: Option<Secret>,
    /// WebDAV: the password of the user in the URL, only as "${VARIABLE}"; `$BACKUP_<NAME>_PASSWORD` if not given.
    #[serde(default, skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub password: Option<Secret>,
    /// A file whose first line is the password, the secret of the access key, the account key or the SAS token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A program and its arguments, whose first line of output is what could be in a `password_file`. It is run when the archive is
    /// used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_command: Option<Vec<String>>,
    /// S3, Azure and WebDAV: a file of certificates (PEM) that are trusted instead of those of this system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Servers: bytes a second that may pass to and from it, such as "10M"; 10K is the least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit_rate: Option<String>,
}

/// To whom new backups are encrypted: `{ recipients = [...] }` or `{ passphrase_file = "..." }`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncryptConfig {
    /// Public keys (`age1…`, `ssh-ed25519 …`, `ssh-rsa …`), or files that list some.
    Recipients(Vec<String>),
    /// A file whose first line is a passphrase, with which backups are read, too.
    PassphraseFile(PathBuf),
}

/// How a backup is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Format {
    /// A tar file in zstd frames.
    #[default]
    #[serde(rename = "tar.zst")]
    TarZst,
    /// A tar file in gzip members.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// A tar file in blocks of xz: smallest, and slow.
    #[serde(rename = "tar.xz")]
    TarXz,
    /// A tar file, not compressed.
    #[serde(rename = "tar")]
    Tar,
}

impl Config {
    /// Reads and checks the file: keys, kinds, values. `var` gives the environment variables for `${…}`. One that is not set is an error
    /// of `module` or `archive`, if that is what needs it, and of `check`.
    pub fn load(file: &Path, registry: &Registry, var: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| Error::io(ErrorKind::Usage, "read the configuration", e).on(file.display()))?;
        Self::parse(file, &text, registry, var)
    }

    /// The same of a text; `file` is its name in complaints and the place that relative paths are taken from.
    pub fn parse(
        file: &Path,
        text: &str,
        registry: &Registry,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let text = Text { file, text };
        let mut table = toml::de::DeTable::parse(text.text).map_err(|e| text.toml_error(&e))?;
        let mut mistakes = Mistakes::new(&text);
        credentials::plain(table.get_ref(), &mut mistakes);
        interpolate::table(table.get_mut(), &[], var, &mut mistakes);
        let raw: ConfigFile = mistakes.read(table);
        let folder = file.parent().unwrap_or(Path::new(""));
        let mut modules = BTreeMap::new();
        for (name, module) in raw.modules {
            if let Some(read) = read_module(&name, module, folder, &text, registry, &mut mistakes) {
                modules.insert(name, read);
            }
        }
        let mut archives = raw.archives;
        for (name, archive) in &mut archives {
            if !mistakes.knows(&["archives", name]) {
                // Of what is not known nothing can be tried; whether it has credentials matters for others.
                let _ = credentials::complete(name, archive, folder, var);
            } else if let Err(e) = complete_archive(name, archive, folder, &text, var) {
                mistakes.push(e);
            }
        }
        let not_set = mistakes.conclude(file)?;
        Ok(Config { file: file.to_owned(), modules, archives, not_set })
    }

    /// Whether all variables are set, also of what is not used.
    pub fn check(&self) -> Result<()> {
        self.is_set(&[])
    }

    /// Whether the variables at and below this path are.
    fn is_set(&self, path: &[&str]) -> Result<()> {
        let here = self.not_set.iter().filter(|(at, _)| at.iter().zip(path).all(|(a, b)| a == b));
        one_of_all(here.map(|(_, e)| e.clone()).collect(), &self.file).map_or(Ok(()), Err)
    }

    /// The file that was read.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Names of the modules.
    pub fn module_names(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// Names and places of the archives.
    pub fn archives(&self) -> impl Iterator<Item = (&str, &ArchiveConfig)> {
        self.archives.iter().map(|(name, a)| (name.as_str(), a))
    }

    /// A module as it is configured, with the stores that the configuration was read with.
    pub fn module(&self, name: &str) -> Result<Module> {
        self.is_set(&["modules", name])?;
        self.modules.get(name).cloned().ok_or_else(|| self.unknown("module", name, self.modules.keys()))
    }

    /// An archive as it is configured. Its `password_command` is run and waited for.
    pub fn archive(&self, name: &str) -> Result<ArchiveSpec> {
        self.is_set(&["archives", name])?;
        let archive =
            self.archives.get(name).ok_or_else(|| self.unknown("archive", name, self.archives.keys()))?;
        let asked =
            archive.asked().map_err(|e| e.on(format!("{}: [archives.{name}]", self.file.display())))?;
        let chosen = crate::archive::configured(&asked);
        if chosen.remote_place()?.is_some_and(|place| !place.has_own_credentials()) {
            crate::archive::check_credentials(&self.of_its_kind(&chosen)?)?;
        }
        Ok(chosen)
    }

    /// The archives that would take the same credentials of the environment. Which servers are in play must be known: a variable that
    /// tells the server of another one must be set, unless that one has credentials of its own.
    fn of_its_kind(&self, chosen: &ArchiveSpec) -> Result<Vec<ArchiveSpec>> {
        let mut all = Vec::new();
        for (name, archive) in &self.archives {
            if archive.names_credentials() || !may_be_of_kind(&archive.url, chosen.kind_of_store()) {
                continue;
            }
            self.is_set(&["archives", name, "url"])?;
            let spec = crate::archive::configured(archive);
            if spec.kind_of_store() == chosen.kind_of_store() {
                self.is_set(&["archives", name, "endpoint"])?;
                self.is_set(&["archives", name, "account"])?;
                all.push(spec);
            }
        }
        Ok(all)
    }

    fn unknown<'a>(&self, what: &str, name: &str, known: impl Iterator<Item = &'a String>) -> Error {
        let known: Vec<&str> = known.map(String::as_str).collect();
        let message = match known.is_empty() {
            true => format!("no {what} is configured"),
            false => format!("`{name}` is no {what} of it; there are: {}", known.join(", ")),
        };
        Error::new(ErrorKind::Usage, "use the configuration", message).on(self.file.display())
    }
}

/// Whether a place may be of this kind of store, as far as its text says it while variables in it are not set.
fn may_be_of_kind(url: &str, kind: Option<&str>) -> bool {
    match url.split_once("://") {
        Some(("s3", _)) => kind == Some("S3"),
        Some(("az", _)) => kind == Some("Azure"),
        Some((scheme, _)) => scheme.contains('$'),
        None => !url.starts_with(['/', '.']),
    }
}

/// A module with all its sources; `None` if it cannot be one.
fn read_module(
    name: &str,
    module: ModuleConfig,
    folder: &Path,
    text: &Text<'_>,
    registry: &Registry,
    mistakes: &mut Mistakes<'_>,
) -> Option<Module> {
    let before = mistakes.count();
    if !is_component_name(name) {
        mistakes.push(text.error_at(&["modules", name], bad_name(name)));
    }
    if module.sources.is_empty() {
        mistakes.push(text.error_at(&["modules", name], format!("the module `{name}` has no sources")));
    }
    let mut read = Module::new(name).registry(registry.clone()).app(module.app);
    for (component, source) in module.sources {
        let path = ["modules", name, "sources", &component];
        if !is_component_name(&component) {
            mistakes.push(text.error_at(&path, bad_name(&component)));
        }
        if let Some(spec) = source_spec(&path, source, folder, text, registry, mistakes) {
            read = read.source(component, spec);
        }
    }
    let path = ["modules", name, "health"];
    match module.health.as_ref().filter(|_| mistakes.knows(&path)).map(health_check) {
        Some(Ok(health)) => read = read.health(health),
        Some(Err(e)) => mistakes.push(text.error_at(&path, e.message())),
        None => {}
    }
    (mistakes.count() == before).then_some(read)
}

/// Completes an archive by what the environment and the folder of the file say, and tries whether it could be used.
fn complete_archive(
    name: &str,
    archive: &mut ArchiveConfig,
    folder: &Path,
    text: &Text<'_>,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<()> {
    PortableArchive::check_place(&archive.url).map_err(|e| {
        text.error_at(&["archives", name, "url"], format!("{}: {}", archive.url, e.message()))
    })?;
    archive.url = from_folder(folder, &archive.url);
    credentials::complete(name, archive, folder, var)
        .map_err(|e| text.error_at(&["archives", name], e.message()))?;
    let own_path = |path: &Path| PathBuf::from(from_folder(folder, &path.to_string_lossy()));
    archive.identity = archive.identity.as_deref().map(own_path);
    match &mut archive.encrypt {
        Some(EncryptConfig::Recipients(keys)) if keys.is_empty() => {
            let path = ["archives", name, "encrypt"];
            return Err(text.error_at(&path, "`recipients` is empty: nobody could read the backups"));
        }
        Some(EncryptConfig::Recipients(keys)) => {
            for key in keys.iter_mut().filter(|key| !Recipients::is_key(key)) {
                *key = from_folder(folder, key);
            }
        }
        Some(EncryptConfig::PassphraseFile(file)) => *file = own_path(file),
        None => {}
    }
    crate::archive::configured(&archive.as_if_asked())
        .open()
        .map_err(|e| text.error_at(&["archives", name], format!("{}: {}", archive.url, e.message())))?;
    Ok(())
}

fn health_check(config: &HealthConfig) -> Result<Health> {
    let mut health = Health::url(&config.url);
    if let Some(text) = &config.timeout {
        let limit = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
        health = health.timeout(limit.ok_or_else(|| {
            Error::new(ErrorKind::Usage, "read the time limit", "a time is such as 90s or 5m").on(text)
        })?);
    }
    health.check()?;
    Ok(health)
}

fn bad_name(name: &str) -> String {
    format!("{name:?} cannot be a name: letters, digits, `.`, `_` and `-`, not leading with a dot or dash")
}

/// Takes the keys that every kind has (`kind`, `disposable`), checks the others against the store's own. All that is wrong is told;
/// `None`: it cannot be a source.
fn source_spec(
    path: &[&str],
    mut source: Map<String, Value>,
    folder: &Path,
    text: &Text<'_>,
    registry: &Registry,
    mistakes: &mut Mistakes<'_>,
) -> Option<SourceSpec> {
    let component = path.last().copied().unwrap_or_default();
    let kind = match source.remove("kind") {
        Some(Value::String(kind)) => kind,
        Some(_) => {
            mistakes.push(text.error_at(&below(path, "kind"), "`kind` must be a text"));
            return None;
        }
        None => {
            let message = format!("the source `{component}` has no `kind`");
            let meant = |key: &&String| nearest(key, std::iter::once("kind")).is_some();
            mistakes.push(match source.keys().find(meant) {
                Some(key) => text.error_at(
                    &below(path, key),
                    format!("{message}; unknown key `{key}`: did you mean `kind`?"),
                ),
                None => text.error_at(path, message),
            });
            return None;
        }
    };
    let backend = match registry.get(&kind) {
        Ok(backend) => backend,
        Err(e) => {
            let close = nearest(&kind, registry.kinds()).map(|k| format!("; did you mean `{k}`?"));
            let message = format!("{}{}", e.message(), close.unwrap_or_default());
            if mistakes.knows(&below(path, "kind")) {
                mistakes.push(text.error_at(&below(path, "kind"), message));
            }
            return None;
        }
    };
    let disposable = match source.remove("disposable") {
        Some(Value::Bool(b)) => b,
        None => false,
        Some(_) => {
            mistakes.push(text.error_at(&below(path, "disposable"), "`disposable` must be true or false"));
            false
        }
    };
    let schema = backend.schema();
    let properties = schema["properties"].as_object();
    let known: Vec<&str> = properties.into_iter().flat_map(Map::keys).map(String::as_str).collect();
    let unknown: Vec<String> =
        source.keys().filter(|name| !known.contains(&name.as_str())).cloned().collect();
    for name in unknown {
        let all = known.iter().copied().chain(["kind", "disposable"]);
        mistakes.push(text.unknown_key(&below(path, &name), &name, &path.join("."), all));
        source.remove(&name);
    }
    // The store does not know where the file is from which its paths are read.
    for name in ["path", "exclude_files", "exclude_paths"] {
        match source.get_mut(name).filter(|_| kind == "files") {
            Some(Value::String(p)) => *p = from_folder(folder, p),
            Some(Value::Array(list)) => list.iter_mut().for_each(|p| {
                if let Value::String(p) = p {
                    *p = from_folder(folder, p);
                }
            }),
            _ => {}
        }
    }
    if mistakes.knows(path) {
        mistakes.try_source(path, backend, source.clone());
    }
    Some(SourceSpec::new(kind, Value::Object(source)).disposable(disposable))
}

fn below<'a>(path: &[&'a str], name: &'a str) -> Vec<&'a str> {
    [path, &[name]].concat()
}

fn from_folder(folder: &Path, place: &str) -> String {
    if place.contains("://") || Path::new(place).is_absolute() || folder.as_os_str().is_empty() {
        return place.to_owned();
    }
    folder.join(place).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
