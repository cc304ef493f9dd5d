//! How soon the program answers.

use super::{Check, Limit, Report, Result, Spread, Track};
use crate::measure::measure;

const RUNS: usize = 20;
/// Milliseconds.
const BAR: f64 = 20.0;

pub(super) fn measure_version(track: &mut Track, report: &mut Report, checks: &mut Vec<Check>) -> Result<()> {
    let job = track.ours(&["--version".as_ref()]);
    let mut times = Vec::new();
    for _ in 0..RUNS {
        times.push(measure(&job)?.wall.as_secs_f64() * 1e3);
    }
    report.line(format!("`backup --version` was started {RUNS} times."));
    checks.push(Check::bar("backup --version", Spread::of(times), " ms", Limit::Below(BAR)));
    Ok(())
}
