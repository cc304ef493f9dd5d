//! `cargo xtask bench NAME`: one race of backup-bench.

use std::time::Duration;

use crate::step::Step;
use crate::{Outcome, containers, servers};

/// Races run on large data; only a hang takes longer than this.
const LIMIT: Duration = Duration::from_secs(4 * 3600);

pub(crate) fn run(name: &str, arguments: &[&str]) -> Outcome {
    match name {
        "destinations" => servers::for_races()?,
        "databases" => containers::for_races()?,
        _ => {}
    }
    Step::cargo(format!("bench {name}"), "run --release --locked --package backup-bench --")
        .args([name])
        .args(arguments)
        .limit(LIMIT)
        .run()
}
