//! `cargo xtask fuzz`: coverage-guided fuzzing of everything that reads what others wrote.
//!
//! libFuzzer wants the compiler's coverage instrumentation, which `-Zsanitizer` gives on a nightly compiler.
//! The LLVM pass behind it is also in the stable one, reachable through `-Cpasses` and `-Cllvm-args`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::step::{Step, output};
use crate::{Failure, Outcome};

const INSTRUMENTATION: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// Memory that no reader may need, whatever its input says: lengths are not to be believed.
const MEMORY_LIMIT_MB: u32 = 512;

const DEFAULT_SECONDS: u64 = 60;

pub(crate) fn run(arguments: &[&str]) -> Outcome {
    let (seconds, names) = parse(arguments)?;
    crate::prerequisites::for_fuzzing()?;
    all(seconds, &names)
}

/// Builds the targets and runs each of `names` (all, if none is named) for `seconds`. All run, even when one
/// has failed.
pub(crate) fn all(seconds: u64, names: &[&str]) -> Outcome {
    let known = targets()?;
    if let Some(unknown) = names.iter().find(|name| !known.iter().any(|known| known == *name)) {
        return Err(Failure::Usage(format!("no fuzz target `{unknown}`; there are: {}", known.join(", "))));
    }
    let output = crate::target_dir().join("fuzz");
    let programs = build(&output)?;
    let mut failures = Vec::new();
    for name in known.iter().filter(|name| names.is_empty() || names.contains(&name.as_str())) {
        if let Err(Failure::Failed(why) | Failure::Usage(why)) = one(name, seconds, &programs, &output) {
            failures.push(why);
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure::Failed(failures.join("; "))) }
}

fn parse<'a>(arguments: &[&'a str]) -> Outcome<(u64, Vec<&'a str>)> {
    let usage = |why: &str| Failure::Usage(format!("cargo xtask fuzz [--seconds N] [TARGET…]: {why}"));
    let (mut seconds, mut names) = (DEFAULT_SECONDS, Vec::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--seconds" => {
                let number = rest.next().and_then(|number| number.parse().ok()).filter(|n| *n > 0);
                seconds = number.ok_or_else(|| usage("--seconds takes a number above 0"))?;
            }
            flag if flag.starts_with('-') => return Err(usage(&format!("unknown option {flag}"))),
            name => names.push(name),
        }
    }
    Ok((seconds, names))
}

/// The names of the files in `fuzz/src/bin`.
fn targets() -> Outcome<Vec<String>> {
    let folder = crate::root().join("fuzz/src/bin");
    let entries =
        std::fs::read_dir(&folder).map_err(|e| Failure::Failed(format!("{}: {e}", folder.display())))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    if names.is_empty() { Err(Failure::Failed("no fuzz targets".to_owned())) } else { Ok(names) }
}

/// Returns the folder with the programs.
fn build(output_dir: &Path) -> Outcome<PathBuf> {
    let host = output("rustc", &["--print", "host-tuple"])
        .ok_or_else(|| Failure::Failed("rustc --print host-tuple failed".to_owned()))?;
    // --target, although it is the host: without it the flags would reach build scripts too, which are not
    // linked with libFuzzer.
    Step::cargo("fuzz: build with coverage", "build --release --locked --manifest-path fuzz/Cargo.toml")
        .args(["--target", &host, "--target-dir"])
        .args([output_dir])
        .env("RUSTFLAGS", INSTRUMENTATION)
        .run()?;
    Ok(output_dir.join(host).join("release"))
}

fn one(name: &str, seconds: u64, programs: &Path, output_dir: &Path) -> Outcome {
    let found = output_dir.join("found").join(name);
    let artifacts = output_dir.join("artifacts").join(name);
    let log = output_dir.join(format!("{name}.log"));
    let failed = |error: std::io::Error| Failure::Failed(format!("fuzz {name}: {error}"));
    std::fs::create_dir_all(&found).map_err(failed)?;
    std::fs::create_dir_all(&artifacts).map_err(failed)?;
    let file = std::fs::File::create(&log).map_err(failed)?;
    let program = programs.join(name);
    let outcome = Step::new(format!("fuzz {name} for {seconds} s"), "sh")
        // libFuzzer measures memory that is in use. A length that was believed reserves it without using it:
        // that fails at the limit of addresses.
        .args(["-c", &format!("ulimit -v {} && exec \"$0\" \"$@\"", 2 * MEMORY_LIMIT_MB * 1024)])
        .args([&program])
        .args([
            format!("-max_total_time={seconds}"),
            format!("-rss_limit_mb={MEMORY_LIMIT_MB}"),
            "-timeout=10".to_owned(),
            format!("-artifact_prefix={}/", artifacts.display()),
        ])
        // libFuzzer writes what it finds into the first folder: not into the committed seeds.
        .args([&found, &crate::root().join("fuzz/corpus").join(name)])
        .limit(Duration::from_secs(seconds + 60))
        .output_to(&file)?
        .run();
    let text = std::fs::read(&log).map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    if outcome.is_err() {
        println!("{}", lines.get(lines.len().saturating_sub(40)..).unwrap_or_default().join("\n"));
        println!("the input is in {}; the whole output in {}", artifacts.display(), log.display());
    } else {
        // "INFO: Seed: …" makes a run repeatable, "Done … runs" shows that it was one.
        let kept = lines.iter().filter(|line| line.starts_with("INFO: Seed") || line.starts_with("Done "));
        kept.for_each(|line| println!("   {line}"));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_targets_are_read_in_any_order() {
        assert!(matches!(parse(&[]), Ok((DEFAULT_SECONDS, names)) if names.is_empty()));
        assert!(matches!(parse(&["tar", "--seconds", "3"]), Ok((3, names)) if names == ["tar"]));
    }

    #[test]
    fn a_wrong_option_is_refused() {
        for wrong in [&["--seconds"][..], &["--seconds", "x"], &["--seconds", "0"], &["--fast"]] {
            assert!(matches!(parse(wrong), Err(Failure::Usage(_))), "{wrong:?}");
        }
    }
}
