//! The command line.

use crate::failure::{Failure, Result};
use crate::{archive, databases, destinations, supervise};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(name = "backup-bench", about = "Races against the tools people use today", after_help = CODES)]
struct Line {
    #[command(subcommand)]
    race: Race,
}

const CODES: &str = "Exit codes: 0 every bar is met, 1 one is missed or a side failed, 2 usage or a missing \
                     prerequisite, 3 no verdict: the machine was not quiet";

#[derive(Debug, Subcommand)]
enum Race {
    /// Folders into tar.zst and back, against tar and zstd
    Archive(Options),
    /// Databases into archives and back, against their vendors' tools
    Databases(DatabaseOptions),
    /// Archives to a bucket and to a disk, against tar, zstd and mc
    Destinations(Options),
    /// Runs one command and prints its figures
    #[command(hide = true)]
    Supervise {
        #[arg(long)]
        cpus: usize,
        #[arg(long)]
        stdout: Option<PathBuf>,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// How to race.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Where the trees are kept and the archives written [default: backup-bench in the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Rounds, all sides in turn in each
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Measures on a busy machine too, without a verdict
    #[arg(long)]
    pub(crate) loaded: bool,
    /// Also compares the memory with that of ten times the data (needs 35 GB of disk)
    #[arg(long)]
    pub(crate) full: bool,
    /// Also races gzip, xz and encrypted archives (needs pigz, xz and age)
    #[arg(long)]
    pub(crate) formats: bool,
    /// Trees of a twentieth, to try the race itself: without a verdict
    #[arg(long)]
    pub(crate) quick: bool,
    /// Writes the result to docs/bench/DATE-RACE.md
    #[arg(long)]
    pub(crate) save: bool,
    /// Races this program instead of building it
    #[arg(long, value_name = "FILE")]
    pub(crate) program: Option<PathBuf>,
}

/// How to race on databases.
#[derive(Debug, Args)]
pub(crate) struct DatabaseOptions {
    #[command(flatten)]
    pub(crate) common: Options,
    /// Races on this server only
    #[arg(long, value_name = "SERVER")]
    pub(crate) only: Option<DatabaseServer>,
    /// Rows of about so many MB (10⁶ bytes), as text
    #[arg(long, value_name = "MB", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(20..))]
    pub(crate) size: u64,
}

/// The servers that are raced on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DatabaseServer {
    Postgres,
    Mariadb,
}

/// Runs what the command line asks for; returns the exit code.
pub(crate) fn run() -> Result<u8> {
    match Line::parse().race {
        Race::Archive(options) => archive::race(&options),
        Race::Databases(options) => databases::race(&options),
        Race::Destinations(options) => destinations::race(&options),
        Race::Supervise { cpus, stdout, command } => {
            supervise::run(cpus, stdout.as_deref(), &command).map(|()| crate::failure::PASS)
        }
    }
}

impl Options {
    pub(crate) fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| std::env::temp_dir().join("backup-bench"))
    }

    /// Trees are made this many times smaller.
    pub(crate) fn scale(&self) -> u64 {
        if self.quick { 20 } else { 1 }
    }

    pub(crate) fn checked(&self) -> Result<()> {
        if self.quick && self.save {
            return Err(Failure::Usage("--quick is no result to --save".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Line::command().debug_assert();
    }
}
