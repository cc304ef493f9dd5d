//! The program that races: built for release from this workspace.

use crate::failure::{Doing, Failure, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The workspace's folder.
pub(crate) fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Builds `backup` and says where it lies, as cargo reports it: target folders can be configured in several ways.
pub(crate) fn build() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--release", "--locked", "--package", "backup-cli", "--bin", "backup"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .doing("start cargo")?;
    if !output.status.success() {
        return Err(Failure::Failed("backup-cli does not build".to_owned()));
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|m| m["reason"] == "compiler-artifact" && m["target"]["name"] == "backup")
        .find_map(|m| m["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| Failure::Failed("cargo names no program `backup`".to_owned()))
}

/// The commit raced, marked if the checkout differs from it.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(workspace()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match (git(&["rev-parse", "--short=12", "HEAD"]), git(&["status", "--porcelain"])) {
        (Some(id), Some(changes)) if changes.is_empty() => id,
        (Some(id), _) => format!("{id} with uncommitted changes"),
        (None, _) => "unknown".to_owned(),
    }
}
