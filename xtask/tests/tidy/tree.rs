//! The tree that the checks look at: files known to git, crates, their dependencies.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct SourceFile {
    /// Relative to the root, with `/`.
    pub(crate) name: String,
    pub(crate) text: String,
}

pub(crate) struct Crate {
    /// Also its folder's name.
    pub(crate) name: String,
    pub(crate) manifest: String,
    /// Lines of `src/lib.rs` or `src/main.rs`.
    pub(crate) source_lines: usize,
}

#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) only_for_tests: bool,
}

pub(crate) fn root() -> PathBuf {
    // Of this run: another checkout may share the build directory.
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

/// Every text file that git tracks or would add.
pub(crate) fn files() -> Vec<SourceFile> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(list).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let names = names.split_terminator('\0');
    // What is deleted and not yet committed, and what is not text, cannot be read.
    let files: Vec<_> = names
        .filter_map(|name| {
            Some(SourceFile { text: std::fs::read_to_string(root().join(name)).ok()?, name: name.to_owned() })
        })
        .collect();
    assert!(files.iter().any(|file| file.name == "xtask/tests/tidy.rs"), "git lists another tree");
    files
}

/// The workspace's members.
pub(crate) fn crates() -> Vec<Crate> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    let names = members.split('"').skip(1).step_by(2);
    names
        .map(|name| {
            let folder = root().join(name);
            let source = ["src/lib.rs", "src/main.rs"].map(|file| std::fs::read_to_string(folder.join(file)));
            Crate {
                name: name.to_owned(),
                manifest: std::fs::read_to_string(folder.join("Cargo.toml")).unwrap(),
                source_lines: source.into_iter().flatten().map(|text| text.lines().count()).max().unwrap(),
            }
        })
        .collect()
}

/// Where only a developer's or a build machine has anything. Put together here, so that this file has none.
pub(crate) fn machine_folders() -> [String; 2] {
    ["root", "work"].map(|name| format!("/{name}/"))
}

impl SourceFile {
    pub(crate) fn is_rust(&self) -> bool {
        self.name.ends_with(".rs")
    }
}

impl Crate {
    /// All `[…dependencies]` and `[…dependencies.NAME]`, also those of one target.
    pub(crate) fn dependencies(&self) -> Vec<Dependency> {
        let mut section = "";
        let mut dependencies = Vec::new();
        for line in self.manifest.lines().map(str::trim) {
            if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = header;
                if let Some((kind, name)) = header.rsplit_once("dependencies.") {
                    dependencies.push(Dependency::new(name, kind));
                }
            } else if let Some(kind) = section.strip_suffix("dependencies")
                && let Some((name, _)) = line.split_once(['=', '.'])
            {
                dependencies.push(Dependency::new(name, kind));
            }
        }
        dependencies
    }
}

impl Dependency {
    fn new(name: &str, kind: &str) -> Self {
        Self { name: name.trim().trim_matches('"').to_owned(), only_for_tests: kind.ends_with("dev-") }
    }
}

impl fmt::Display for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Display for Crate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
