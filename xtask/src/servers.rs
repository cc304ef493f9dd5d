//! Servers that come neither with Rust nor from packages: built from their sources, once, by Go.

use std::path::PathBuf;

use crate::prerequisites::is_there;
use crate::step::Step;
use crate::{Failure, Outcome, required};

/// (program, Go module at the version that the tests know).
const MINIO: (&str, &str) = ("minio", "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c");
/// MinIO's client: a rival in a race.
const MC: (&str, &str) = ("mc", "github.com/minio/mc@v0.0.0-20250313080218-cf909e1063a9");

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

/// Why there is no MinIO for the tests; an error where it may not be missing.
pub(crate) fn for_tests() -> Outcome<Option<String>> {
    match built(MINIO) {
        Ok(()) => Ok(None),
        Err(failure) if required("minio") => Err(failure),
        Err(Failure::Failed(why) | Failure::Usage(why)) => Ok(Some(why)),
    }
}

/// What the race of destinations needs.
pub(crate) fn for_races() -> Outcome {
    built(MINIO)?;
    built(MC)
}
