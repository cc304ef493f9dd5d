//! What a reviewer would otherwise say again and again.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

#[path = "tidy/tree.rs"]
mod tree;

use tree::{Crate, SourceFile, crates, files, root};

const MOST_LINES: usize = 700;

/// A crate below this size is not begun yet; it owes no README.
const BEGUN: usize = 20;

/// Crates that may depend on several of ours: they put things together.
const PUTS_TOGETHER: &[&str] = &["backup-kit", "backup-cli", "backup-bench", "backup-testkit", "xtask"];

/// Crates whose job is to talk on a terminal.
const MAY_PRINT: &[&str] = &["backup-cli/", "backup-bench/", "backup-testkit/", "xtask/", "fuzz/"];

#[test]
fn no_rust_file_is_longer_than_its_name_can_say() {
    none(
        files().iter().filter(|file| file.is_rust() && file.text.lines().count() > MOST_LINES),
        "is too long",
    );
}

#[test]
fn every_crate_has_a_readme() {
    let without =
        |krate: &&Crate| krate.source_lines >= BEGUN && !root().join(&krate.name).join("README.md").is_file();
    none(crates().iter().filter(without), "has no README.md");
}

#[test]
fn only_the_program_prints() {
    let problems: Vec<_> = files().iter().flat_map(prints).collect();
    none(problems.iter(), "prints: return or emit it instead");
}

#[test]
fn the_core_knows_no_other_crate_and_a_store_only_the_core() {
    let problems: Vec<_> = crates().iter().flat_map(forbidden_dependencies).collect();
    none(problems.iter(), "is a dependency against the architecture");
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let problems: Vec<_> = files().iter().flat_map(machine_paths).collect();
    none(problems.iter(), "is a path that exists on one machine only");
}

#[test]
fn the_architecture_page_lists_every_crate() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap_or_default();
    if !root().join("ARCHITECTURE.md").exists() {
        eprintln!("ARCHITECTURE.md is not written yet: nothing to compare");
        return;
    }
    none(crates().iter().filter(|krate| !page.contains(&krate.name)), "is not in ARCHITECTURE.md");
}

#[test]
fn every_check_can_fail() {
    let file = |name: &str, text: &str| SourceFile { name: name.to_owned(), text: text.to_owned() };
    let print = "fn f() {\n    println!(\"x\");\n}\n#[cfg(test)]\nmod tests { fn g() { println!() } }\n";
    assert_eq!(prints(&file("backup-core/src/a.rs", print)), ["backup-core/src/a.rs:2"]);
    assert!(prints(&file("backup-cli/src/a.rs", print)).is_empty());
    assert!(prints(&file("backup-core/tests/a.rs", print)).is_empty());
    assert!(prints(&file("backup-core/src/a.rs", "/// println!(\"example\");\n")).is_empty());

    let krate = |name: &str, manifest: &str| Crate {
        name: name.to_owned(),
        manifest: manifest.to_owned(),
        source_lines: 0,
    };
    let on_core =
        "[dependencies]\nbackup-core.workspace = true\n[dev-dependencies]\nbackup-testkit.workspace = true\n";
    assert_eq!(forbidden_dependencies(&krate("backup-core", on_core)), ["backup-core → backup-core"]);
    assert!(forbidden_dependencies(&krate("backup-mysql", on_core)).is_empty());
    let on_kit = "[target.'cfg(unix)'.dependencies.backup-kit]\nworkspace = true\n";
    assert_eq!(forbidden_dependencies(&krate("backup-mysql", on_kit)), ["backup-mysql → backup-kit"]);
    assert!(forbidden_dependencies(&krate("backup-cli", on_kit)).is_empty());
    let on_testkit = "[dependencies]\nbackup-testkit = { path = \"../backup-testkit\" }\n";
    assert_eq!(forbidden_dependencies(&krate("backup-mysql", on_testkit)), ["backup-mysql → backup-testkit"]);

    for folder in tree::machine_folders() {
        let text = format!("see {folder}x\nnot docs{folder}x\n");
        assert_eq!(machine_paths(&file("a.md", &text)), ["a.md:1"]);
    }
}

fn prints(file: &SourceFile) -> Vec<String> {
    let allowed = MAY_PRINT.iter().any(|start| file.name.starts_with(start))
        || ["/tests/", "/examples/", "/benches/"].iter().any(|part| file.name.contains(part))
        || ["build.rs", "tests.rs"].iter().any(|end| file.name.ends_with(end));
    if !file.is_rust() || allowed {
        return Vec::new();
    }
    let lines = file.text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
    let prints = |line: &str| ["print!(", "println!(", "dbg!("].iter().any(|call| line.contains(call));
    lines
        .filter(|(_, line)| !line.trim_start().starts_with("//") && prints(line))
        .map(|(number, _)| format!("{}:{}", file.name, number + 1))
        .collect()
}

fn forbidden_dependencies(krate: &Crate) -> Vec<String> {
    if !krate.name.starts_with("backup-") || PUTS_TOGETHER.contains(&krate.name.as_str()) {
        return Vec::new();
    }
    let allowed = |dependency: &tree::Dependency| match dependency.name.as_str() {
        "backup-core" => krate.name != "backup-core",
        "backup-testkit" => dependency.only_for_tests,
        other => !other.starts_with("backup-"),
    };
    let dependencies = krate.dependencies().into_iter().filter(|dependency| !allowed(dependency));
    dependencies.map(|dependency| format!("{} → {}", krate.name, dependency.name)).collect()
}

fn machine_paths(file: &SourceFile) -> Vec<String> {
    let found = |line: &str| {
        tree::machine_folders().iter().any(|folder| {
            line.match_indices(folder).any(|(at, _)| {
                // A folder of that name inside another one is nobody's machine.
                let before = line[..at].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-}*)/".contains(c))
            })
        })
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| found(line));
    lines.map(|(number, _)| format!("{}:{}", file.name, number + 1)).collect()
}

/// Fails with the list of all offenders.
fn none<T: std::fmt::Display>(offenders: impl Iterator<Item = T>, what: &str) {
    let offenders: Vec<String> = offenders.map(|offender| format!("{offender} {what}")).collect();
    assert!(offenders.is_empty(), "\n{}", offenders.join("\n"));
}
