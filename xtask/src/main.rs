//! `cargo xtask`: what developers and CI run around the workspace.

mod bench;
mod containers;
mod fresh;
mod fuzz;
mod prerequisites;
mod servers;
mod soak;
mod step;
mod tally;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  test [--fast]                 every check, then every test; ends with one line of totals
                                --fast leaves out licences, unused dependencies, Windows, fuzzing and containers
  soak [WHAT]                   the long runs: every tests/soak*.rs with BACKUP_SOAK=1, or those whose
                                name contains WHAT; writes docs/soak/DATE[-WHAT].md
  bench NAME [ARGUMENT…]        one race of backup-bench, built for release
  fuzz [--seconds N] [TARGET…]  coverage-guided fuzzing of the readers, N seconds each (default 60)
  fresh                         the README's two commands in an empty root with only Rust, its linker
                                and a package manager (Debian and Ubuntu, as root)

Exit codes: 0 all good, 1 something failed, 2 usage or a missing prerequisite.
BACKUP_TEST_REQUIRE=root,windows,docker,postgres,minio,azurite,sshd,webdav makes `test` fail where one of these is not to be had.
";

/// Why a command ended without success.
pub(crate) enum Failure {
    /// A check or a test failed: exit code 1.
    Failed(String),
    /// The call is wrong or the machine lacks something: exit code 2.
    Usage(String),
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(why)) => {
            // `test` has said everything, and its closing line must stay the last one.
            if !why.is_empty() {
                eprintln!("error: {why}");
            }
            ExitCode::from(1)
        }
        Err(Failure::Usage(why)) => {
            eprintln!("{}", why.trim_end());
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[&str]) -> Outcome {
    if arguments.iter().any(|argument| matches!(*argument, "--help" | "-h" | "help")) {
        print!("{HELP}");
        return Ok(());
    }
    std::env::set_current_dir(root())
        .map_err(|error| Failure::Failed(format!("cannot enter {}: {error}", root().display())))?;
    match arguments {
        ["test"] => test::run(false),
        ["test", "--fast"] => test::run(true),
        ["soak"] => soak::run(None),
        ["soak", what] if !what.starts_with('-') => soak::run(Some(what)),
        ["bench", name, rest @ ..] if !name.starts_with('-') => bench::run(name, rest),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        ["fresh"] => fresh::run(),
        [] => Err(Failure::Usage(HELP.to_owned())),
        other => Err(Failure::Usage(format!("cargo xtask: not understood: {}\n\n{HELP}", other.join(" ")))),
    }
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    // As cargo says now: a build directory that several checkouts share may give one of them the other's program.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = Path::new(&here);
    here.parent().unwrap_or(here).to_owned()
}

/// Where build output goes that is not cargo's own: beside the target folder's profiles.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Whether CI (or whoever set `BACKUP_TEST_REQUIRE`) refuses to go without `what`.
pub(crate) fn required(what: &str) -> bool {
    std::env::var("BACKUP_TEST_REQUIRE")
        .is_ok_and(|list| list.split(',').any(|required| required.trim() == what))
}
