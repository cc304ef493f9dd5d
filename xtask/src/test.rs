//! `cargo xtask test`: every check that CI makes, in CI's order, then the tests.

use std::time::Instant;

use crate::prerequisites::{self, WINDOWS_TARGET};
use crate::step::Step;
use crate::tally::Tally;
use crate::{Failure, Outcome, containers, fuzz, servers};

/// For each target: enough to meet the seeds and their neighbours. Longer runs are `cargo xtask fuzz`.
const FUZZ_SECONDS: u64 = 5;

/// Runs everything even when something has failed, so that one run shows all there is to mend. The tests come
/// last and the totals after them, because readers and scripts look at the end.
pub(crate) fn run(fast: bool) -> Outcome {
    let started = Instant::now();
    let windows = prerequisites::for_tests(fast)?;
    let without_containers = if fast { Some("--fast".to_owned()) } else { containers::ready()? };
    // What takes minutes to build is left out, unless it was built before.
    let without = if fast { Vec::new() } else { servers::for_tests()? };
    let mut failures = Vec::new();
    for check in checks(fast) {
        failures.extend(why(check.run()));
    }
    if !fast {
        if windows {
            failures.extend(why(windows_check().run()));
        } else {
            println!("\n── Windows: NOT CHECKED, because the target {WINDOWS_TARGET} is not to be had here");
        }
        failures.extend(why(fuzz::all(FUZZ_SECONDS, &[])));
    }
    let mut tally = Tally::default();
    let mut tests =
        Step::cargo("tests", "test --workspace --locked --no-fail-fast --features backup-testkit/services");
    if without_containers.is_some() {
        tests = tests.env("BACKUP_TEST_LEAVE_OUT", "containers");
    }
    let outcome = tests.run_watching(|line| tally.see(line));
    if let Some(why) = why(outcome) {
        failures.push(why);
        // A test program that was killed, or did not compile, prints no summary.
        tally.failed = tally.failed.max(1);
    }
    println!();
    match without_containers {
        _ if fast => {
            println!("--fast left out: cargo deny, cargo machete, Windows, fuzzing, tests with containers")
        }
        Some(why) => println!("NOT TESTED, because there are no containers here: {why}"),
        None => containers::sweep(),
    }
    for (server, why) in without {
        println!("NOT TESTED with {server}: {why}");
    }
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    println!("{} s in all", started.elapsed().as_secs());
    println!("{tally}");
    if failures.is_empty() { Ok(()) } else { Err(Failure::Failed(String::new())) }
}

fn checks(fast: bool) -> Vec<Step> {
    let mut steps = vec![
        Step::cargo("formatting", "fmt --all --check"),
        Step::cargo("formatting of the fuzz targets", "fmt --manifest-path fuzz/Cargo.toml --check"),
        Step::cargo(
            "lints",
            "clippy --workspace --all-targets --locked --features backup-testkit/services -- -D warnings",
        ),
        Step::cargo("documentation", "doc --workspace --no-deps --locked --features backup-testkit/services")
            .env("RUSTDOCFLAGS", "-D warnings"),
    ];
    if !fast {
        // Advisories change without any change of ours: CI asks for them in a job of their own.
        steps.push(Step::cargo("dependencies: bans, licences, sources", "deny check bans licenses sources"));
        steps.push(Step::cargo("unused dependencies", "machete"));
    }
    steps
}

fn windows_check() -> Step {
    let packages = "-p backup-core -p backup-files -p backup-kit -p backup-cli";
    Step::cargo("Windows", &format!("check --target {WINDOWS_TARGET} --locked {packages}"))
}

fn why(outcome: Outcome) -> Option<String> {
    match outcome {
        Ok(()) => None,
        Err(Failure::Failed(why) | Failure::Usage(why)) => Some(why),
    }
}
