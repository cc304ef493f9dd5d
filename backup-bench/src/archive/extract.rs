//! Restoring the whole tree.

use super::create::Archives;
use super::{
    COMPONENT, Check, Contest, Job, Limit, Report, Result, Sample, Spread, Track, WARM_UP, turns, wall,
};
use crate::archive::memory::Peaks;
use crate::failure::{Doing, Failure};
use crate::trees;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAMES: [&str; 3] =
    ["backup restore", "zstd -dc | tar -xp", "zstd -dc | tar -xp, then sync -f FOLDER (not judged)"];

// $1 archive, $2 folder that does not exist.
const PLAIN_SCRIPT: &str = r#"mkdir "$2"; zstd -dcq "$1" | tar -xpf - -C "$2""#;
const SYNCED_SCRIPT: &str = r#"mkdir "$2"; zstd -dcq "$1" | tar -xpf - -C "$2"; sync -f "$2""#;

pub(super) fn race(
    track: &mut Track,
    contest: &Contest<'_>,
    archives: &Archives,
    report: &mut Report,
    checks: &mut Vec<Check>,
    memory: &mut Peaks,
) -> Result<()> {
    let tree = contest.tree.name();
    let mut samples: [Vec<Sample>; 3] = Default::default();
    for round in WARM_UP..=track.rounds {
        for side in turns(round, NAMES.len()) {
            let name = NAMES[side];
            let folder = track.work.join(format!("{tree}-restored-{side}-{round}"));
            trees::warm(if side == 0 { &archives.ours } else { &archives.plain })?;
            let job = match side {
                0 => restore(track, &archives.ours, &folder, None),
                1 => Job::script(PLAIN_SCRIPT, &[&archives.plain, &folder]),
                _ => Job::script(SYNCED_SCRIPT, &[&archives.plain, &folder]),
            };
            let sample = track.run(&format!("{tree}, round {round}: {name}"), &job)?;
            if round != WARM_UP {
                samples[side].push(sample);
            }
            let restored = if side == 0 { folder.clone() } else { folder.join(tree) };
            same_tree(contest, &restored, round == 1)?;
            // Not removed before the end: see the module `inodes`.
        }
    }
    let sides: Vec<(&str, &[Sample])> = NAMES.into_iter().zip(samples.iter().map(Vec::as_slice)).collect();
    report.samples(&format!("Extract, tree `{tree}`"), &sides, &[]);
    memory.note(format!("restore {tree}"), &samples[0]);
    let ratio = Spread::of_ratios(&samples[0], &samples[1], wall);
    checks.push(Check::bar(format!("extract {tree}: wall / plain"), ratio, "", Limit::AtMost(1.15)));
    Ok(())
}

/// Our restore of everything, or of one path.
pub(super) fn restore(track: &mut Track, archive: &Path, folder: &Path, only: Option<&str>) -> Job {
    let mut to = OsString::from(format!("{COMPONENT}="));
    to.push(folder);
    let only = only.map(|path| format!("{COMPONENT}/{path}"));
    let mut arguments: Vec<&std::ffi::OsStr> =
        vec!["restore".as_ref(), archive.as_os_str(), "--to".as_ref(), &to, "--quiet".as_ref()];
    if let Some(only) = &only {
        arguments.extend(["--only".as_ref(), <str as AsRef<std::ffi::OsStr>>::as_ref(only)]);
    }
    track.ours(&arguments)
}

/// A side that is fast because it left something out has not raced.
pub(super) fn same_tree(contest: &Contest<'_>, restored: &Path, contents_too: bool) -> Result<()> {
    let facts = trees::facts(restored)?;
    if facts != contest.facts {
        let why = format!("{}: restored {facts:?} of {:?}", restored.display(), contest.facts);
        return Err(Failure::Failed(why));
    }
    if contents_too {
        let paths: [PathBuf; 2] = [contest.place.to_owned(), restored.to_owned()];
        let output = Command::new("diff")
            .args(["--recursive", "--brief", "--no-dereference"])
            .args(&paths)
            .output()
            .doing("start diff")?;
        if !output.status.success() {
            let first = String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned();
            return Err(Failure::Failed(format!("{} differs: {first}", restored.display())));
        }
    }
    Ok(())
}
