//! What the command line, the environment and the configuration mean together.

use crate::{
    args::{Global, ProgressFormat},
    failure::{Failure, Result},
    render::Output,
};
use backup_kit::{ArchiveSpec, Config, Error, Registry, archive, config::EnvFile};
use std::{
    env,
    io::IsTerminal,
    path::{Path, PathBuf},
};

/// Resolved settings of one run.
pub(crate) struct Settings {
    pub(crate) config: Option<Config>,
    pub(crate) registry: Registry,
    pub(crate) output: Output,
    /// stdin is for orders.
    pub(crate) controlled: bool,
    /// Bytes a second to and from servers.
    limit_rate: Option<u64>,
}

impl Settings {
    pub(crate) fn output_of(global: &Global) -> Output {
        let terminal = std::io::stderr().is_terminal();
        Output {
            json: global.json,
            events: global.progress == Some(ProgressFormat::Json),
            quiet: global.quiet,
            verbose: global.verbose,
            terminal,
            colour: terminal && env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        }
    }

    pub(crate) fn resolve(global: &Global, output: Output) -> Result<Self> {
        let registry = Registry::default();
        let env_file = match &global.env_file {
            Some(file) => EnvFile::load(file)?,
            None => EnvFile::default(),
        };
        if let Some(warning) = env_file.warning() {
            output.warning(warning);
        }
        let config = match config_file(global) {
            Some(file) => Some(Config::load(&file, &registry, &|name| env_file.get(name))?),
            None => None,
        };
        Ok(Settings {
            config,
            registry,
            output,
            controlled: global.control.is_some(),
            limit_rate: global.limit_rate,
        })
    }

    /// The configuration, or an explanation of how to have one.
    pub(crate) fn config(&self) -> Result<&Config> {
        self.config.as_ref().ok_or_else(|| {
            Failure::usage(
                "use the configuration",
                "there is no backup.toml in this folder",
                "`backup config example > backup.toml`, or --config FILE",
            )
        })
    }

    /// Which archive: the flag, else `BACKUP_ARCHIVE`, else the only one that is configured.
    pub(crate) fn archive(&self, flag: Option<&str>, name_of_flag: &str) -> Result<ArchiveSpec> {
        self.chosen(flag, name_of_flag).map(|archive| self.limited(archive))
    }

    fn limited(&self, archive: ArchiveSpec) -> ArchiveSpec {
        match self.limit_rate {
            Some(rate) => archive.limit_rate(rate),
            None => archive,
        }
    }

    fn chosen(&self, flag: Option<&str>, name_of_flag: &str) -> Result<ArchiveSpec> {
        let variable = || env::var_os("BACKUP_ARCHIVE").filter(|t| !t.is_empty());
        let named = flag.map(str::to_owned).or_else(|| Some(variable()?.to_string_lossy().into_owned()));
        if let Some(text) = named {
            return match (text.as_str(), name_of_flag) {
                ("-", "--to") => self.stdout(),
                ("-", _) => self.stdin(),
                (text, _) => self.named_archive(text),
            };
        }
        let configured: Vec<&str> =
            self.config.iter().flat_map(|c| c.archives()).map(|(name, _)| name).collect();
        match (configured.as_slice(), &self.config) {
            ([only], Some(config)) => Ok(config.archive(only)?),
            ([], _) => Err(Failure::usage(
                "choose the archive",
                "no archive is named",
                format!("{name_of_flag} ./FOLDER, or BACKUP_ARCHIVE, or [archives.NAME] in backup.toml"),
            )),
            (several, _) => {
                let or_all = match name_of_flag {
                    "--to" => {
                        format!("; `create` writes to several at once: --to {}", several.join(" --to "))
                    }
                    _ => String::new(),
                };
                Err(Failure::usage(
                    "choose the archive",
                    format!("several are configured: {}", several.join(", ")),
                    format!("name one: {name_of_flag} {}{or_all}", several[0]),
                ))
            }
        }
    }

    /// The archive that goes to stdout, where nothing else may go.
    fn stdout(&self) -> Result<ArchiveSpec> {
        let refuse = |text: &str, hint: &str| Err(Failure::usage("write the archive to stdout", text, hint));
        if self.output.json {
            return refuse("the object of --json goes there, too", "--progress json tells events on stderr");
        }
        if std::io::stdout().is_terminal() {
            return refuse(
                "it is a terminal",
                "`backup create … --to - | ssh host 'cat > x.tar.zst'`, or --to FILE",
            );
        }
        Ok(archive::pipe_to(std::io::stdout()))
    }

    /// The archive that comes from stdin.
    pub(crate) fn stdin(&self) -> Result<ArchiveSpec> {
        let refuse = |text: &str, hint: &str| Err(Failure::usage("read an archive from stdin", text, hint));
        if self.controlled {
            return refuse("--control stdin takes orders there", "leave it out, or name the file");
        }
        if std::io::stdin().is_terminal() {
            return refuse(
                "it is a terminal",
                "`ssh host 'cat x.tar.zst' | backup restore - --to ./elsewhere`, or name the file",
            );
        }
        Ok(archive::pipe_from(std::io::stdin()))
    }

    /// One of several archives. What is wrong with one that is configured, as a variable that is not set, is not in the way of the
    /// others: it fails when it is used.
    pub(crate) fn one_of_several(&self, name: &str, name_of_flag: &str) -> Result<ArchiveSpec> {
        let configured = self.config.iter().flat_map(Config::archives).any(|(known, _)| known == name);
        match self.archive(Some(name), name_of_flag) {
            Err(Failure::Error { error: Error::Failed(e), .. }) if configured => {
                Ok(archive::unusable(name, e))
            }
            other => other,
        }
    }

    /// The archive that a flag or `BACKUP_ARCHIVE` names, else all that are configured.
    pub(crate) fn archives(&self, flag: Option<&str>) -> Result<Vec<ArchiveSpec>> {
        match &self.config {
            _ if is_named(flag) => Ok(vec![self.archive(flag, "--from")?]),
            Some(config) => config.archives().map(|(name, _)| self.one_of_several(name, "--from")).collect(),
            None => Ok(Vec::new()),
        }
    }

    fn named_archive(&self, text: &str) -> Result<ArchiveSpec> {
        let Some(config) = &self.config else { return Ok(archive::at(text)) };
        let configured = config.archives().any(|(name, _)| name == text);
        // A plain word beside configured archives is a name; a mistyped one must not become a folder.
        let is_word = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        if configured || (is_word && config.archives().next().is_some() && !Path::new(text).exists()) {
            return Ok(config.archive(text)?);
        }
        Ok(archive::at(text))
    }
}

/// The archive, encrypted to those whom flags name; to whom it is configured if they name nobody.
pub(crate) fn encrypted(
    archive: ArchiveSpec,
    recipients: &[String],
    passphrase_file: Option<&Path>,
) -> ArchiveSpec {
    match (recipients, passphrase_file) {
        (_, Some(file)) => archive.passphrase_file(file),
        ([], None) => archive,
        (recipients, None) => archive.recipients(recipients),
    }
}

/// Whether a flag or `BACKUP_ARCHIVE` names an archive.
pub(crate) fn is_named(flag: Option<&str>) -> bool {
    flag.is_some() || env::var_os("BACKUP_ARCHIVE").is_some_and(|t| !t.is_empty())
}

fn config_file(global: &Global) -> Option<PathBuf> {
    let named = global
        .config
        .clone()
        .or_else(|| env::var_os("BACKUP_CONFIG").filter(|v| !v.is_empty()).map(PathBuf::from));
    named.or_else(|| Some(PathBuf::from("backup.toml")).filter(|f| f.exists()))
}
