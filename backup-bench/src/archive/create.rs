//! Making an archive.

use super::{
    COMPONENT, Check, Contest, Job, Limit, Report, Result, Sample, Spread, Track, WARM_UP, cpu, remove,
    turns, wall,
};
use crate::failure::Doing;
use crate::{archive::memory::Peaks, trees};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the extraction starts from.
pub(super) struct Archives {
    pub(super) ours: PathBuf,
    pub(super) plain: PathBuf,
}

const OURS: &str = "backup create";
const PLAIN: &str = "tar -c | zstd -3 -T2";
const HASHED: &str = "tar -c | tee >(sha256sum) | zstd -3 -T2";
const SYNCED: &str = "tar -c | zstd -3 -T2, then sync FILE (not judged)";

// $1 parent of the tree, $2 name of the tree, $3 archive.
const PLAIN_SCRIPT: &str = r#"tar -C "$1" -cf - "$2" | zstd -3 -T2 -q > "$3""#;
const HASHED_SCRIPT: &str =
    r#"tar -C "$1" -cf - "$2" | tee >(sha256sum > "$3.sha256") | zstd -3 -T2 -q > "$3""#;
const SYNCED_SCRIPT: &str = r#"tar -C "$1" -cf - "$2" | zstd -3 -T2 -q > "$3"; sync "$3""#;

pub(super) fn race(
    track: &mut Track,
    contest: &Contest<'_>,
    report: &mut Report,
    checks: &mut Vec<Check>,
    memory: &mut Peaks,
) -> Result<Archives> {
    let tree = contest.tree.name();
    let names = [OURS, PLAIN, HASHED, SYNCED];
    let outputs: [PathBuf; 4] =
        ["ours", "plain", "hashed", "synced"].map(|n| track.work.join(format!("{tree}-{n}.tar.zst")));
    let mut samples: [Vec<Sample>; 4] = Default::default();
    for round in WARM_UP..=track.rounds {
        for side in turns(round, 4) {
            remove(&outputs[side])?;
            trees::warm(contest.place)?;
            let job = job(track, contest, side, &outputs[side]);
            let what = format!("{tree}, round {round}: {}", names[side]);
            let sample = track.run(&what, &job)?;
            if round != WARM_UP {
                samples[side].push(sample);
            }
        }
    }
    let mut sizes = [None; 4];
    for (size, output) in sizes.iter_mut().zip(&outputs) {
        *size = Some(std::fs::metadata(output).doing(output.display())?.len());
    }
    let facts = contest.facts;
    let title = format!(
        "Create, tree `{tree}`: {} files, {} folders, {} symlinks, {:.1} MB",
        facts.files,
        facts.folders,
        facts.symlinks,
        facts.bytes as f64 / 1e6
    );
    let sides: Vec<(&str, &[Sample])> = names.into_iter().zip(samples.iter().map(Vec::as_slice)).collect();
    report.samples(&title, &sides, &sizes);
    memory.note(format!("create {tree}"), &samples[0]);

    let [ours, plain, hashed, _] = &samples;
    let ratio = |theirs: &[Sample], figure: fn(&Sample) -> f64| Spread::of_ratios(ours, theirs, figure);
    checks.extend([
        Check::bar(format!("create {tree}: wall / plain"), ratio(plain, wall), "", Limit::AtMost(1.05))
            .aim(Limit::AtMost(1.0)),
        Check::bar(format!("create {tree}: CPU / plain"), ratio(plain, cpu), "", Limit::AtMost(1.15))
            .aim(Limit::AtMost(1.1)),
        Check::only_aim(
            format!("create {tree}: wall / with sha256"),
            ratio(hashed, wall),
            "",
            Limit::Below(1.0),
        ),
        Check::only_aim(
            format!("create {tree}: CPU / with sha256"),
            ratio(hashed, cpu),
            "",
            Limit::Below(1.0),
        ),
    ]);
    let [ours, plain, hashed, synced] = outputs;
    remove(&hashed)?;
    remove(&synced)?;
    Ok(Archives { ours, plain })
}

fn job(track: &mut Track, contest: &Contest<'_>, side: usize, output: &std::path::Path) -> Job {
    if side == 0 {
        let mut source = OsString::from(format!("{COMPONENT}="));
        source.push(contest.place);
        return track.ours(&[
            "create".as_ref(),
            &source,
            "--to".as_ref(),
            output.as_os_str(),
            "--quiet".as_ref(),
        ]);
    }
    let script = [PLAIN_SCRIPT, HASHED_SCRIPT, SYNCED_SCRIPT][side - 1];
    let parent = contest.place.parent().unwrap_or(contest.place);
    Job::script(script, &[parent, contest.tree.name().as_ref(), output])
}
