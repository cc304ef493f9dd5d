//! Servers that come neither with Rust nor from packages: built from their sources by Go, or installed by npm, once.

use std::path::PathBuf;

use crate::prerequisites::is_there;
use crate::step::{Step, succeeds};
use crate::{Failure, Outcome, required};

/// (program, Go module at the version that the tests know).
const MINIO: (&str, &str) = ("minio", "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c");
/// MinIO's client: a rival in a race.
const MC: (&str, &str) = ("mc", "github.com/minio/mc@v0.0.0-20250313080218-cf909e1063a9");

/// Microsoft's emulator of Azure Storage: a package of npm, at the version that the tests know.
const AZURITE: (&str, &str) = ("azurite-blob", "azurite@3.37.0");

/// Where what is built here is kept: where backup-testkit looks for it.
fn tools() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from).join("backup/tools")
}

/// Builds it if it is not here; takes some minutes.
fn built((program, module): (&str, &str)) -> Outcome {
    if is_there(program) || tools().join(program).is_file() {
        return Ok(());
    }
    if !is_there("go") {
        return Err(Failure::Usage(format!(
            "{program} is not here, and neither is Go (1.24 or newer) to build it"
        )));
    }
    Step::new(format!("{program}, from {module}"), "go")
        .args(["install", "-trimpath", "-ldflags=-s -w", module])
        .env("GOBIN", tools())
        .env("CGO_ENABLED", "0")
        .run()
}

/// Installs it if it is not here, and looks whether it runs: each version asks for a younger Node.
fn installed((program, package): (&str, &str)) -> Outcome {
    let here = tools().join("bin").join(program);
    if is_there(program) || succeeds(&here.display().to_string(), &["--version"]) {
        return Ok(());
    }
    if !is_there("npm") {
        return Err(Failure::Usage(format!(
            "{program} is not here, and neither is npm (with Node 22 or newer) to install it"
        )));
    }
    Step::new(format!("{program}, from {package}"), "npm")
        .args(["install", "--global", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"])
        .args([tools()])
        .args([package])
        .run()?;
    match succeeds(&here.display().to_string(), &["--version"]) {
        true => Ok(()),
        false => Err(Failure::Usage(format!(
            "{package} is installed and does not run: it asks for Node 22 or newer"
        ))),
    }
}

/// Servers that are not to be had for the tests, each with the reason; an error where one may not be missing.
pub(crate) fn for_tests() -> Outcome<Vec<(&'static str, String)>> {
    let mut missing = Vec::new();
    for (name, outcome) in [("minio", built(MINIO)), ("azurite", installed(AZURITE))] {
        match outcome {
            Ok(()) => {}
            Err(failure) if required(name) => return Err(failure),
            Err(Failure::Failed(why) | Failure::Usage(why)) => missing.push((name, why)),
        }
    }
    Ok(missing)
}

/// What the race of destinations needs.
pub(crate) fn for_races() -> Outcome {
    built(MINIO)?;
    built(MC)
}
