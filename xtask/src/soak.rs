//! `cargo xtask soak`: the counts that are too long for every change.
//!
//! A soak is an integration test in a file `tests/soak*.rs`. Without `BACKUP_SOAK` (that is, in `cargo xtask
//! test`) it does everything once; with `BACKUP_SOAK=1` it does the full count, and prints its result as lines
//! that begin with `soak: `, which become the committed summary.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::step::{Step, output};
use crate::tally::Tally;
use crate::{Failure, Outcome, containers};

const LIMIT: Duration = Duration::from_secs(12 * 3600);

pub(crate) fn run(what: Option<&str>) -> Outcome {
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut results = Vec::new();
    let without_containers = containers::ready()?;
    // One at a time: several soaks side by side would measure each other.
    let mut soak = Step::cargo("soak", "test --workspace --release --locked --no-fail-fast --test soak*")
        .args(what)
        .args(["--", "--nocapture", "--test-threads=1"])
        .env("BACKUP_SOAK", "1")
        .limit(LIMIT);
    if without_containers.is_some() {
        soak = soak.env("BACKUP_TEST_LEAVE_OUT", "containers");
    }
    soak.run_watching(|line| {
        tally.see(line);
        if let Some((_, result)) = line.split_once("soak: ") {
            results.push(result.to_owned());
        }
    })?;
    match without_containers {
        Some(why) => {
            results.push(format!("NOT RUN, because there are no containers here: databases ({why})"))
        }
        None => containers::sweep(),
    }
    if tally.passed == 0 {
        return Err(Failure::Failed(format!("no soak's name contains `{}`", what.unwrap_or_default())));
    }
    let file = write_summary(what, &results, tally, started.elapsed())?;
    println!("\nsummary written to {}\n{tally}", file.display());
    Ok(())
}

fn write_summary(what: Option<&str>, results: &[String], tally: Tally, took: Duration) -> Outcome<PathBuf> {
    let date = output("date", &["-u", "+%F"]).unwrap_or_else(|| "undated".to_owned());
    let mut text = format!("# Soak of {date}: {}\n\n", what.unwrap_or("all"));
    text += &format!("{}\n\n{tally} in {} s.\n\n", machine(), took.as_secs());
    for result in results {
        text += &format!("- {result}\n");
    }
    let name = what.map_or_else(|| format!("{date}.md"), |what| format!("{date}-{}.md", file_name(what)));
    let folder = crate::root().join("docs").join("soak");
    let file = folder.join(name);
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&file, text))
        .map_err(|error| Failure::Failed(format!("{}: {error}", file.display())))?;
    Ok(file)
}

/// Commit, processor, memory, kernel and compiler: what a number means nothing without.
fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, |cores| cores.get());
    let parts = [
        output("git", &["describe", "--always", "--dirty"]).map(|commit| format!("commit {commit}")),
        field("/proc/cpuinfo", "model name"),
        Some(format!("{cores} cores")),
        field("/proc/meminfo", "MemTotal"),
        output("uname", &["-sr"]),
        output("rustc", &["--version"]),
    ];
    format!("{}.", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

fn file_name(what: &str) -> String {
    what.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}
