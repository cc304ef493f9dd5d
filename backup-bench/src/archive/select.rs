//! One file out of a large archive: how much of the archive is read.

use super::extract::restore;
use super::{COMPONENT, Check, Limit, Report, Result, Sample, Spread, Track};
use crate::failure::{Doing, Failure};
use crate::trees::LONE_FILE;
use std::path::Path;

/// Percent of the archive.
const BAR: f64 = 3.0;

pub(super) fn measure_reads(
    track: &mut Track,
    tree: &Path,
    archive: &Path,
    report: &mut Report,
    checks: &mut Vec<Check>,
) -> Result<()> {
    measure_reads_with(track, tree, archive, None, report, checks)
}

/// The same of an archive that is encrypted to this key.
pub(super) fn measure_reads_with(
    track: &mut Track,
    tree: &Path,
    archive: &Path,
    identity: Option<&Path>,
    report: &mut Report,
    checks: &mut Vec<Check>,
) -> Result<()> {
    let ending = archive.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once('.'));
    let ending = ending.map_or("", |(_, ending)| ending);
    let size = std::fs::metadata(archive).doing(archive.display())?.len();
    let original = std::fs::read(tree.join(LONE_FILE)).doing(LONE_FILE)?;
    report.line(format!(
        "## One file of {:.1} MB out of the `.{ending}` of {:.1} MB",
        original.len() as f64 / 1e6,
        size as f64 / 1e6
    ));

    if identity.is_none() && ending == "tar.zst" {
        let folder = track.work.join("selected");
        let job = restore(track, archive, &folder, Some(LONE_FILE));
        let sample = track.run("restore --only", &job)?;
        same(&original, &folder.join(LONE_FILE))?;
        judge("restore --only", &sample, size, report, checks)?;
    }

    let file = track.work.join("dumped");
    let path = format!("{COMPONENT}/{LONE_FILE}");
    let mut line = vec!["dump".as_ref(), archive.as_os_str(), path.as_ref()];
    if let Some(identity) = identity {
        line.extend(["--identity".as_ref(), identity.as_os_str()]);
    }
    let job = track.ours(&line).stdout(&file);
    let sample = track.run("dump", &job)?;
    same(&original, &file)?;
    judge(&format!("dump from .{ending}"), &sample, size, report, checks)
}

fn judge(what: &str, sample: &Sample, size: u64, report: &mut Report, checks: &mut Vec<Check>) -> Result<()> {
    let read = sample.read_bytes.ok_or_else(|| {
        Failure::Usage("the kernel does not count the bytes a process reads (/proc/PID/io)".to_owned())
    })?;
    let percent = read as f64 * 100.0 / size as f64;
    report.line(format!(
        "`backup {what}`: {:.2} MB read in all (the program's own libraries included), {:.3} s.",
        read as f64 / 1e6,
        sample.wall.as_secs_f64()
    ));
    let figure = format!("{what}: bytes read of the archive's");
    checks.push(Check::bar(figure, Spread::one(percent), " %", Limit::Below(BAR)));
    Ok(())
}

fn same(original: &[u8], file: &Path) -> Result<()> {
    if std::fs::read(file).doing(file.display())? == original {
        return Ok(());
    }
    Err(Failure::Failed(format!("{} is not what was backed up", file.display())))
}
