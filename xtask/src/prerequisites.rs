//! What the checks and tests need beyond Rust and its linker, installed where that is possible.

use std::path::Path;

use crate::step::{Step, output, succeeds};
use crate::{Failure, Outcome, required};

/// The Windows target that can be checked from Linux with packaged tools.
pub(crate) const WINDOWS_TARGET: &str = "x86_64-pc-windows-gnu";

/// (program, its Debian packages). What users restore with is what the tests use as oracles.
const FOR_TESTS: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("git", "git"),
    ("tar", "tar"),
    ("zstd", "zstd"),
    ("age", "age"),
    ("gzip", "gzip"),
    ("pigz", "pigz"),
    ("xz", "xz-utils"),
    ("rsync", "rsync"),
    ("sqlite3", "sqlite3"),
    ("getfattr", "attr"),
    ("getfacl", "acl"),
    ("psql", "postgresql-client"),
    // Servers that archives are kept on.
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("lighttpd", "lighttpd lighttpd-mod-webdav"),
];
/// For the C code (SQLite, zstd) of a Windows build.
const FOR_WINDOWS: (&str, &str) = ("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64");
/// For libFuzzer, which is C++.
const FOR_FUZZING: (&str, &str) = ("c++", "g++");

/// (cargo subcommand, version installed if there is none).
const CARGO_TOOLS: &[(&str, &str)] = &[("deny", "0.20.2"), ("machete", "0.9.2")];

/// Installs what `cargo xtask test` needs; says whether the Windows check can be made.
pub(crate) fn for_tests(fast: bool) -> Outcome<bool> {
    let mut programs = FOR_TESTS.to_vec();
    if !fast {
        programs.extend([FOR_WINDOWS, FOR_FUZZING]);
    }
    system_programs(&programs)?;
    component("clippy", &["clippy", "--version"])?;
    component("rustfmt", &["fmt", "--version"])?;
    if fast {
        return Ok(false);
    }
    for (tool, version) in CARGO_TOOLS {
        cargo_tool(tool, version)?;
    }
    windows_target()
}

/// Installs what `cargo xtask fuzz` needs.
pub(crate) fn for_fuzzing() -> Outcome {
    system_programs(&[("cc", "gcc"), FOR_FUZZING])
}

/// Installs what of `programs` is missing, with apt-get when root, else says how.
pub(crate) fn system_programs(programs: &[(&str, &str)]) -> Outcome {
    let missing: Vec<(&str, &str)> =
        programs.iter().copied().filter(|(program, _)| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|(_, packages)| packages.split(' ')).collect();
    if !is_there("apt-get") {
        let programs: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
        return Err(Failure::Usage(format!("these programs are missing: {}", programs.join(" "))));
    }
    if output("id", &["-u"]).as_deref() != Some("0") {
        let install = "sudo apt-get install --no-install-recommends -y";
        return Err(Failure::Usage(format!("{install} {}", packages.join(" "))));
    }
    apt_get("package lists", &["update"])?;
    let install = [&["install", "-y", "--no-install-recommends"], packages.as_slice()].concat();
    apt_get(&format!("packages: {}", packages.join(" ")), &install)?;
    match missing.iter().find(|(program, _)| !is_there(program)) {
        Some((program, package)) => {
            Err(Failure::Failed(format!("package {package} is installed but {program} is not in PATH")))
        }
        None => Ok(()),
    }
}

fn apt_get(heading: &str, arguments: &[&str]) -> Outcome {
    Step::new(heading, "apt-get").args(["-q"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive").run()
}

fn component(name: &str, proof: &[&str]) -> Outcome {
    if succeeds("cargo", proof) {
        return Ok(());
    }
    if !is_there("rustup") {
        return Err(Failure::Usage(format!("cargo {} is missing: install your Rust's {name}", proof[0])));
    }
    Step::new(name, "rustup").args(["component", "add", name]).run()
}

fn cargo_tool(tool: &str, version: &str) -> Outcome {
    if succeeds("cargo", &[tool, "--version"]) {
        return Ok(());
    }
    let package = format!("cargo-{tool}");
    Step::cargo(format!("{package} {version}"), "install --locked")
        .args([&package, "--version", version])
        // Built once, run for a second: what is saved is the minutes that optimising takes.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .run()
}

/// Whether the target is here now. Where nobody can be asked for it, it may be missing, unless CI insists.
fn windows_target() -> Outcome<bool> {
    if has_target() {
        return Ok(true);
    }
    if is_there("rustup") {
        // Its failure is judged by what is there afterwards.
        let _ = Step::new("Windows target", "rustup").args(["target", "add", WINDOWS_TARGET]).run();
    }
    match has_target() {
        true => Ok(true),
        false if required("windows") => Err(Failure::Usage(format!(
            "BACKUP_TEST_REQUIRE names windows, and the Rust target {WINDOWS_TARGET} could not be installed"
        ))),
        false => Ok(false),
    }
}

fn has_target() -> bool {
    output("rustc", &["--print", "target-libdir", "--target", WINDOWS_TARGET])
        .is_some_and(|folder| Path::new(&folder).is_dir())
}

/// Whether a program of this name is in PATH.
pub(crate) fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_path_only() {
        assert!(is_there("sh"));
        assert!(!is_there("no-such-program-here"));
    }
}
