//! The other ways to write an archive: gzip, xz, encrypted. Each against the pipe that people use for it.

use super::{
    COMPONENT, Check, Contest, Job, Limit, Report, Result, Sample, Spread, Track, cpu, remove, turns, wall,
};
use crate::archive::select;
use crate::failure::{Doing, Failure};
use crate::trees;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

struct Format {
    ending: &'static str,
    theirs: &'static str,
    // $1 parent of the tree, $2 name of the tree, $3 archive, $4 public key.
    script: &'static str,
    bar: f64,
    /// Raced on the smaller tree: a run on the other one takes minutes, and tells no more.
    slow: bool,
}

const FORMATS: [Format; 3] = [
    Format {
        ending: "tar.gz",
        theirs: "tar -c | pigz -p2",
        script: r#"tar -C "$1" -cf - "$2" | pigz -p2 > "$3""#,
        bar: 1.1,
        slow: false,
    },
    Format {
        ending: "tar.xz",
        theirs: "tar -c | xz -T2",
        script: r#"tar -C "$1" -cf - "$2" | xz -T2 > "$3""#,
        bar: 1.1,
        slow: true,
    },
    Format {
        ending: "tar.zst.age",
        theirs: "tar -c | zstd -3 -T2 | age -r",
        script: r#"tar -C "$1" -cf - "$2" | zstd -3 -T2 -q | age -r "$4" > "$3""#,
        bar: 1.2,
        slow: false,
    },
];

/// Megabytes: an encoder of xz holds 26 MB for each core.
const MEMORY: f64 = 150.0;

/// What the race needs beside the others' tools.
pub(super) const TOOLS: [&str; 4] = ["pigz", "xz", "age", "age-keygen"];

/// On the tree `mixed`, out of whose archives one file is read, and on the tree `small`.
pub(super) fn race(
    track: &mut Track,
    mixed: &Contest<'_>,
    small: &Contest<'_>,
    report: &mut Report,
    checks: &mut Vec<Check>,
) -> Result<()> {
    let identity = track.work.join("identity");
    let recipient = new_identity(&identity)?;
    for format in FORMATS {
        let contest = if format.slow { small } else { mixed };
        let outputs = ["ours", "theirs"].map(|side| track.work.join(format!("{side}.{}", format.ending)));
        let encrypted = format.ending.ends_with(".age");
        let mut samples: [Vec<Sample>; 2] = Default::default();
        for round in 1..=track.rounds {
            for side in turns(round, 2) {
                remove(&outputs[side])?;
                trees::warm(contest.place)?;
                let job = match side {
                    0 => ours(track, contest, &outputs[0], encrypted.then_some(&recipient)),
                    _ => {
                        let parent = contest.place.parent().unwrap_or(contest.place);
                        let tree = contest.tree.name();
                        Job::script(format.script, &[parent, tree.as_ref(), &outputs[1], recipient.as_ref()])
                    }
                };
                let name = if side == 0 { "backup create" } else { format.theirs };
                samples[side].push(track.run(&format!("{}, round {round}: {name}", format.ending), &job)?);
            }
        }
        let mut sizes = [None; 2];
        for (size, output) in sizes.iter_mut().zip(&outputs) {
            *size = Some(std::fs::metadata(output).doing(output.display())?.len());
        }
        let [mine, theirs] = &samples;
        report.samples(
            &format!("Create, `{}`, tree `{}`", format.ending, contest.tree.name()),
            &[("backup create", mine), (format.theirs, theirs)],
            &sizes,
        );
        let peak = mine.iter().map(|s| s.peak_rss).max().unwrap_or(0) as f64 / 1e6;
        let figure = format!("create {}: peak RSS", format.ending);
        checks.push(Check::bar(figure, Spread::one(peak), " MB", Limit::AtMost(MEMORY)));
        checks.push(Check::bar(
            format!("create {}: wall / {}", format.ending, format.theirs),
            Spread::of_ratios(mine, theirs, wall),
            "",
            Limit::AtMost(format.bar),
        ));
        checks.push(Check::only_aim(
            format!("create {}: CPU / {}", format.ending, format.theirs),
            Spread::of_ratios(mine, theirs, cpu),
            "",
            Limit::AtMost(format.bar),
        ));
        let key = encrypted.then_some(identity.as_path());
        if format.slow {
            remove(&outputs[0])?;
            let job = ours(track, mixed, &outputs[0], encrypted.then_some(&recipient));
            track.run(&format!("{}, tree `{}`, not raced", format.ending, mixed.tree.name()), &job)?;
        }
        select::measure_reads_with(track, mixed.place, &outputs[0], key, report, checks)?;
        outputs.iter().try_for_each(|output| remove(output))?;
    }
    Ok(())
}

fn ours(track: &mut Track, contest: &Contest<'_>, output: &Path, recipient: Option<&String>) -> Job {
    let mut source = OsString::from(format!("{COMPONENT}="));
    source.push(contest.place);
    let mut line = vec!["create".into(), source, "--to".into(), output.into(), "--quiet".into()];
    if let Some(recipient) = recipient {
        line.extend([OsString::from("--recipient"), recipient.into()]);
    }
    let line: Vec<&std::ffi::OsStr> = line.iter().map(OsString::as_os_str).collect();
    track.ours(&line)
}

/// A new pair of keys in a file; the public one.
fn new_identity(file: &Path) -> Result<String> {
    remove(file)?;
    let made = Command::new("age-keygen").arg("-o").arg(file).output().doing("age-keygen")?;
    let shown = Command::new("age-keygen").arg("-y").arg(file).output().doing("age-keygen")?;
    if !made.status.success() || !shown.status.success() {
        return Err(Failure::Failed("age-keygen makes no key".to_owned()));
    }
    Ok(String::from_utf8_lossy(&shown.stdout).trim().to_owned())
}
