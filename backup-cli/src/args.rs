//! The command line as it is typed. What it means is `settings`.

use backup_kit::config::Format;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use std::{ffi::OsString, path::PathBuf};

/// Backs up and restores a whole application, as one set, proven complete.
#[derive(Debug, Parser)]
#[command(name = "backup", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// Configuration [default: $BACKUP_CONFIG, else ./backup.toml if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Variables for the ${VAR} of the configuration, NAME=value lines
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) env_file: Option<PathBuf>,
    /// One final object on stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Events as lines of JSON on stderr
    #[arg(long, value_name = "HOW", global = true)]
    pub(crate) progress: Option<ProgressFormat>,
    /// Takes orders: `stdin` takes lines there; `cancel`, or the end of it, ends the run like Ctrl-C
    #[arg(long, value_name = "HOW", global = true)]
    pub(crate) control: Option<Control>,
    /// Bytes a second to and from servers, such as 10M
    #[arg(long, value_name = "RATE", global = true, value_parser = rate)]
    pub(crate) limit_rate: Option<u64>,
    /// Prints nothing unless something is wrong
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Says more
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressFormat {
    Json,
}

/// What is read again after it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReadBack {
    /// Nothing
    None,
    /// End, manifest and index, with their digests
    Tail,
    /// Every byte
    Full,
}

impl std::convert::From<ReadBack> for backup_kit::ReadBack {
    fn from(how: ReadBack) -> Self {
        match how {
            ReadBack::None => backup_kit::ReadBack::None,
            ReadBack::Tail => backup_kit::ReadBack::Tail,
            ReadBack::Full => backup_kit::ReadBack::Full,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Control {
    Stdin,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Makes a backup
    Create(Create),
    /// Copies backups into another archive, whatever the two are written as
    Copy(Copy),
    /// Takes files that other programs made as unproven backups
    Import(Import),
    /// Lists backups
    List(List),
    /// Lists what is in a backup
    Ls(Ls),
    /// Shows what a backup says of itself
    Show(Show),
    /// Writes one file of a backup to stdout
    Dump(Dump),
    /// Reads backups and compares them with what was counted
    Verify(Verify),
    /// Restores a backup, all of it or nothing
    Restore(Restore),
    /// Lets go of the data that a restore has replaced
    Settle(Settle),
    /// Removes backups
    Remove(Remove),
    /// Cleans up after runs that crashed
    Heal(Heal),
    /// Makes a place for backups, and keys to encrypt them; prints the recovery sheet
    Init(Init),
    /// Checks the configuration, or helps to write one
    Config(Config),
    /// Prints completions for a shell
    Completions(Completions),
    /// Prints the man page, or writes those of all commands into a folder
    Man(Man),
}

impl Command {
    /// The keys that backups are to be read with.
    pub(crate) fn keys(&self) -> Option<&Keys> {
        let among = match self {
            Command::Copy(c) => &c.among,
            Command::List(c) => &c.among,
            Command::Ls(c) => &c.among,
            Command::Show(c) => &c.among,
            Command::Dump(c) => &c.among,
            Command::Verify(c) => &c.among,
            Command::Restore(c) => &c.among,
            _ => return None,
        };
        Some(&among.keys)
    }
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Create {
    /// Folders or files, `name=` before one names its component [default: the configured modules]
    #[arg(value_name = "SOURCE")]
    pub(crate) sources: Vec<String>,
    /// A configured module, or the name for the sources given here
    #[arg(short, long, value_name = "MODULE")]
    pub(crate) module: Option<String>,
    /// A folder of backups, exactly one file (x.tar.zst, x.tar.gz, x.tar.xz, x.tar), a URL (s3://, az://, sftp://, webdavs://), or the
    /// name of a configured archive; several are written at once
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) to: Vec<String>,
    /// Only this component: a backup of a part, which `latest` means only for `restore --only` of it
    #[arg(long, value_name = "COMPONENT")]
    pub(crate) only: Vec<String>,
    /// Connects and tries everything, stores nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Goes on when a source cannot be opened: the backup is partial
    #[arg(long)]
    pub(crate) allow_partial: bool,
    /// A label
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// A remark
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// Leaves out what matches, as a line of a .gitignore
    #[arg(long, value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// The same, from the lines of a file
    #[arg(long, value_name = "FILE")]
    pub(crate) exclude_file: Vec<PathBuf>,
    /// Does not descend into other file systems
    #[arg(long)]
    pub(crate) one_file_system: bool,
    /// A warning makes the backup partial
    #[arg(long)]
    pub(crate) strict: bool,
    /// Waits so long for another run of the same series, such as 30m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Option<std::time::Duration>,
    /// What is read again after it is written [default with configured modules: full on this machine, tail on servers; else none]
    #[arg(long, value_name = "HOW")]
    pub(crate) read_back: Option<ReadBack>,
    /// How it is written into a folder or a pipe, such as tar [default: tar.zst, or as configured]
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub(crate) format: Option<Format>,
    /// Level of compression: zstd 1 to 19, gzip 1 to 9, xz 0 to 9
    #[arg(long, value_name = "N")]
    pub(crate) level: Option<i32>,
    #[command(flatten)]
    pub(crate) readers: Readers,
    /// A file with the secret key: with it an encrypted backup is read back, if that is configured
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
}

/// Who can read what is written.
#[derive(Debug, ClapArgs)]
pub(crate) struct Readers {
    /// Encrypts to this public key (age1…, ssh-ed25519 …), or to those that a file lists
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "passphrase_file")]
    pub(crate) recipient: Vec<String>,
    /// Encrypts with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct From {
    /// A folder of backups, one file, or the name of a configured archive
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) from: Option<String>,
}

/// With what encrypted backups are read.
#[derive(Debug, Default, ClapArgs)]
pub(crate) struct Keys {
    /// A file with the secret key of encrypted backups: of age, or of ssh
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,
    /// A file whose first line is the passphrase of encrypted backups
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// Among which backups one is meant.
#[derive(Debug, ClapArgs)]
pub(crate) struct Among {
    /// Only backups of this module
    #[arg(short, long, value_name = "MODULE")]
    pub(crate) module: Option<String>,
    /// A folder of backups, one file, or the name of a configured archive
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) from: Option<String>,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) among: Among,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Ls {
    /// An id or its beginning, a file, latest, latest~1, or a date
    pub(crate) id: String,
    /// Only what is at or below COMPONENT or COMPONENT/PATH
    pub(crate) path: Option<OsString>,
    /// With kind, mode, owner, size and time
    #[arg(short)]
    pub(crate) long: bool,
    #[command(flatten)]
    pub(crate) among: Among,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Show {
    /// An id or its beginning, a file, latest, latest~1, or a date
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) among: Among,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Dump {
    /// An id or its beginning, a file, latest, latest~1, or a date
    pub(crate) id: String,
    /// COMPONENT/PATH; of a backup with one component PATH will do
    pub(crate) path: OsString,
    #[command(flatten)]
    pub(crate) among: Among,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Verify {
    /// Ids or their beginnings, files, latest, latest~1, or dates [default: all that are not incomplete]
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Structure, manifest and index only
    #[arg(long)]
    pub(crate) quick: bool,
    #[command(flatten)]
    pub(crate) among: Among,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Restore {
    /// An id or its beginning, a file, latest, latest~1, or a date (the newest up to the end of that day)
    #[arg(value_name = "ID|FILE|latest|DATE")]
    pub(crate) which: Option<String>,
    #[command(flatten)]
    pub(crate) among: Among,
    /// Only this component, or what matches inside it, as `backup ls` lists it: `data/*.pdf`, `db/public.orders`, `db/shop.orders`; in
    /// names of tables a point, slash or percent sign is %2E, %2F or %25
    #[arg(long, value_name = "COMPONENT[/GLOB]")]
    pub(crate) only: Vec<String>,
    /// Where to [default: where it came from]
    #[arg(long, value_name = "[COMPONENT=]TARGET")]
    pub(crate) to: Vec<String>,
    /// Prints the plan, does nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Consent to exactly this plan
    #[arg(long, value_name = "PLAN", conflicts_with = "yes")]
    pub(crate) confirm: Option<String>,
    /// Consent, if all that is replaced is marked `disposable` in the configuration
    #[arg(long)]
    pub(crate) yes: bool,
    /// Lets the old data go at once; it is kept for 24 hours otherwise
    #[arg(long)]
    pub(crate) settle: bool,
    /// Does not restore owners, nor count them as lost; what needs the same rights (devices, set-user-id bits) is a warning then
    #[arg(long)]
    pub(crate) no_owner: bool,
    /// What the backup lacks stays; of both, the backup's
    #[arg(long)]
    pub(crate) merge: bool,
    /// Where there is no room for both: drops what is there before it is restored (of the component, else of all databases); no undo, and after a failure it is not whole
    #[arg(long, value_name = "COMPONENT", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with_all = ["merge", "schema_only", "data_only", "salvage"])]
    pub(crate) in_place: Vec<String>,
    /// Definitions without data: tables without rows
    #[arg(long, conflicts_with = "data_only")]
    pub(crate) schema_only: bool,
    /// Data without definitions: those that are there stay, their data is replaced
    #[arg(long)]
    pub(crate) data_only: bool,
    /// MySQL and MariaDB: nothing of it goes into the binary log; refused while a replica is attached
    #[arg(long)]
    pub(crate) skip_binary_log: bool,
    /// Also users, roles and their grants, and tablespaces, if the backup has them; those that are there stay as they are
    #[arg(long)]
    pub(crate) globals: bool,
    /// Goes on although the plan refuses this: the name that stands there
    #[arg(long, value_name = "REFUSAL")]
    pub(crate) accept: Vec<String>,
    /// Restores what is intact of a damaged backup, and lists what is lost
    #[arg(long)]
    pub(crate) salvage: bool,
    /// Brings back the data that a restore has replaced; what was written since then is dropped (`--yes` without asking)
    #[arg(long, conflicts_with_all = ["from", "only", "to", "dry_run", "confirm", "settle", "no_owner", "merge", "in_place", "schema_only", "data_only", "skip_binary_log", "globals", "accept", "salvage"])]
    pub(crate) undo: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Copy {
    /// Ids or their beginnings, latest, latest~1, or dates; or one file
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Every backup that is missing at the other place
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) among: Among,
    /// A folder of backups, exactly one file (x.tar.zst, x.tar.gz, x.tar.xz, x.tar), or the name of a configured archive
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) to: String,
    /// Says what would be copied, writes nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Encrypts the copies to this public key (age1…, ssh-ed25519 …), or to those that a file lists
    #[arg(long, value_name = "RECIPIENT", conflicts_with = "to_passphrase_file")]
    pub(crate) recipient: Vec<String>,
    /// Encrypts the copies with the passphrase in the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) to_passphrase_file: Option<PathBuf>,
    /// Copies encrypted backups as plain text; without it that is refused
    #[arg(long, conflicts_with_all = ["recipient", "to_passphrase_file"])]
    pub(crate) decrypt: bool,
    /// What is read again of each copy
    #[arg(long, value_name = "HOW", default_value = "none")]
    pub(crate) read_back: ReadBack,
    /// Waits so long for another run of the same series at the other place, such as 30m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Option<std::time::Duration>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Import {
    /// Tars, also compressed, whose members become entries; anything else (x.sql.gz, x.dump) is kept byte for byte
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The application that they are backups of [default: the name of the file]
    #[arg(short, long, value_name = "MODULE")]
    pub(crate) module: Option<String>,
    /// A folder of backups, exactly one file, or the name of a configured archive
    #[arg(long, value_name = "ARCHIVE")]
    pub(crate) to: Option<String>,
    #[command(flatten)]
    pub(crate) readers: Readers,
    /// A label
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// A remark
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Settle {
    /// The restore, or its backup [default: the only one that there is]
    pub(crate) id: Option<String>,
    /// Only restores of this module
    #[arg(short, long, value_name = "MODULE")]
    pub(crate) module: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Remove {
    /// Ids or their beginnings, or file names; or the path of a file
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    #[command(flatten)]
    pub(crate) from: From,
    /// Also the last complete backup of a series
    #[arg(long)]
    pub(crate) yes: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Heal {
    /// Folders or files that were being restored: their journals are found beside them, also if the state folder is lost
    #[arg(value_name = "PLACE")]
    pub(crate) places: Vec<std::path::PathBuf>,
    /// Ends this restore without what can never be reached again (a disk that is broken, a server that is gone): the data from
    /// before it that lies there is given up
    #[arg(long, value_name = "ID", conflicts_with_all = ["places", "from"])]
    pub(crate) forget: Option<String>,
    #[command(flatten)]
    pub(crate) from: From,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Init {
    /// A folder of backups, exactly one file, or the name of a configured archive
    #[arg(value_name = "ARCHIVE")]
    pub(crate) archive: String,
    /// How backups are written there, such as tar.xz [default: tar.zst, or as configured]
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub(crate) format: Option<Format>,
    /// Makes a new pair of keys; the secret one is printed, once, and kept nowhere
    #[arg(long, conflicts_with = "recipient")]
    pub(crate) encrypt: bool,
    /// Encrypts to these keys, which you have already
    #[arg(long, value_name = "RECIPIENT")]
    pub(crate) recipient: Vec<String>,
    /// Keeps the new secret key in this new file instead of printing it
    #[arg(long, value_name = "FILE", requires = "encrypt")]
    pub(crate) identity_file: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Config {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Reads the configuration and says what is in it
    Check,
    /// Prints its JSON schema, for editors
    Schema,
    /// Prints a commented example
    Example,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Man {
    /// A folder for the pages of all commands; it is made if it is missing
    pub(crate) folder: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Completions {
    pub(crate) shell: clap_complete::Shell,
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let time: jiff::SignedDuration =
        text.parse().map_err(|_| "a time is such as 30m, 90s or 2h".to_owned())?;
    time.try_into().map_err(|_| "a time cannot be negative".to_owned())
}

fn rate(text: &str) -> Result<u64, String> {
    backup_kit::config::rate(text)
        .map_err(|e| format!("{}: bytes a second, such as 500K or 10M", e.message()))
}

fn format(text: &str) -> Result<Format, String> {
    serde_json::from_value(text.into()).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn times_are_written_as_people_write_them() {
        assert_eq!(duration("30m"), Ok(std::time::Duration::from_secs(1800)));
        assert!(duration("soon").is_err() && duration("-5s").is_err());
    }
}
