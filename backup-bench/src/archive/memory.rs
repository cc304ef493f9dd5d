//! Peak memory, and that it does not grow with the data.

use super::extract::{restore, same_tree};
use super::{COMPONENT, Check, Contest, Limit, Report, Result, Sample, Spread, Track};
use crate::trees::{Facts, Tree};
use std::ffi::OsString;
use std::path::Path;

/// MB (10⁶ bytes).
const BAR: f64 = 120.0;

/// "The same" with ten times the data: within the noise of an allocator and of a few threads.
const SAME: f64 = 1.10;

/// Largest resident set of every kind of run, in bytes.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    peaks: Vec<(String, u64)>,
}

impl Peaks {
    pub(super) fn note(&mut self, what: String, samples: &[Sample]) {
        let peak = samples.iter().map(|s| s.peak_rss).max().unwrap_or(0);
        self.peaks.push((what, peak));
    }

    fn of(&self, what: &str) -> Option<f64> {
        self.peaks.iter().find(|(name, _)| name == what).map(|&(_, peak)| peak as f64)
    }

    pub(super) fn judge(&self, report: &mut Report, checks: &mut Vec<Check>) {
        for (what, peak) in &self.peaks {
            let value = Spread::one(*peak as f64 / 1e6);
            checks.push(Check::bar(format!("{what}: peak RSS"), value, " MB", Limit::AtMost(BAR)));
        }
        for act in ["create", "restore"] {
            let peak = |tree: Tree| self.of(&format!("{act} {}", tree.name()));
            if let (Some(one), Some(ten)) = (peak(Tree::Mixed), peak(Tree::TenTimes)) {
                let what = format!("{act}: peak RSS, ten times the data / once");
                checks.push(Check::bar(what, Spread::one(ten / one), "", Limit::AtMost(SAME)));
            }
        }
        if self.of(&format!("create {}", Tree::TenTimes.name())).is_none() {
            report.line("The memory with ten times the data was not measured (`--full`).");
        }
    }
}

/// One run each way.
pub(super) fn ten_times(track: &mut Track, place: &Path, facts: Facts, peaks: &mut Peaks) -> Result<()> {
    let tree = Tree::TenTimes;
    let archive = track.work.join("ten-times.tar.zst");
    let mut source = OsString::from(format!("{COMPONENT}="));
    source.push(place);
    let job =
        track.ours(&["create".as_ref(), &source, "--to".as_ref(), archive.as_os_str(), "--quiet".as_ref()]);
    let sample = track.run("ten-times: backup create", &job)?;
    peaks.note(format!("create {}", tree.name()), &[sample]);

    let folder = track.work.join("ten-times-restored");
    let job = restore(track, &archive, &folder, None);
    let sample = track.run("ten-times: backup restore", &job)?;
    peaks.note(format!("restore {}", tree.name()), &[sample]);
    same_tree(&Contest { tree, place, facts }, &folder, false)
}
