//! Folders into tar.zst and back, against tar and zstd.

mod create;
mod extract;
mod formats;
mod inodes;
mod memory;
mod select;
mod startup;

use crate::args::Options;
use crate::failure::{Doing, FAIL, Failure, NO_VERDICT, PASS, Result};
use crate::machine::{self, CpuTimes, Machine};
use crate::measure::{Job, Sample, measure, measure_beside};
use crate::program;
use crate::report::Report;
use crate::trees::{self, Facts, Tree};
use crate::verdict::{Check, Limit, Spread};
use std::fs;
use std::path::{Path, PathBuf};

/// Name that the tree's component gets.
pub(crate) const COMPONENT: &str = "data";

const TOOLS: [&str; 6] = ["tar", "zstd", "bash", "sha256sum", "tee", "diff"];

/// Runs the whole race; returns the exit code.
pub(crate) fn race(options: &Options) -> Result<u8> {
    options.checked()?;
    let tools = machine::tools(&TOOLS)?;
    if options.formats {
        machine::tools(&formats::TOOLS)?;
    }
    let must_be_quiet = !options.loaded && !options.quick;
    if must_be_quiet {
        machine::refuse_if_busy()?;
    }
    let program = match &options.program {
        Some(file) => file.canonicalize().doing(file.display())?,
        None => program::build()?,
    };
    let data = std::path::absolute(options.data()).doing("the data folder")?;
    let mut track = Track::prepare(options.rounds, program, &data, needs(options))?;
    let mut contests = Vec::new();
    for tree in [Tree::Mixed, Tree::Small] {
        let (place, facts) = trees::ready(tree, &data, options.scale())?;
        contests.push((tree, place, facts));
    }
    let large = options.full.then(|| trees::ready(Tree::TenTimes, &data, options.scale())).transpose()?;

    if must_be_quiet {
        inodes::wait_until_forgotten(&track.work);
        machine::wait_until_quiet()?;
    }
    let mut report = Report::heading("archive", &Machine::look(&data)?, &tools[..2], &machine::load()?);
    let mut checks = Vec::new();
    let mut memory = memory::Peaks::default();
    let contests: Vec<Contest<'_>> =
        contests.iter().map(|(tree, place, facts)| Contest { tree: *tree, place, facts: *facts }).collect();
    for contest in &contests {
        let archives = create::race(&mut track, contest, &mut report, &mut checks, &mut memory)?;
        extract::race(&mut track, contest, &archives, &mut report, &mut checks, &mut memory)?;
        if contest.tree == Tree::Mixed {
            select::measure_reads(&mut track, contest.place, &archives.ours, &mut report, &mut checks)?;
        }
    }
    if let [mixed, small] = &contests[..]
        && options.formats
    {
        formats::race(&mut track, mixed, small, &mut report, &mut checks)?;
    }
    if let Some((place, facts)) = &large {
        track.clear()?;
        memory::ten_times(&mut track, place, *facts, &mut memory)?;
    }
    memory.judge(&mut report, &mut checks);
    startup::measure_version(&mut track, &mut report, &mut checks)?;
    inodes::free(&track.work)?;
    conclude("archive", options, &track, report, &checks)
}

pub(crate) fn conclude(
    race: &str,
    options: &Options,
    track: &Track,
    mut report: Report,
    checks: &[Check],
) -> Result<u8> {
    let asked = options.loaded || options.quick;
    let (judged, code, words) = outcome(asked, track.disturbed, track.runs, checks);
    report.verdicts(checks, judged);
    report.line(words);
    println!("{}", report.text());
    if options.save {
        eprintln!("written: {}", report.save(race)?.display());
    }
    Ok(code)
}

/// Whether there is a verdict, the exit code, and the last line.
fn outcome(no_verdict_asked: bool, disturbed: u32, runs: u32, checks: &[Check]) -> (bool, u8, String) {
    let failed = checks.iter().filter(|c| c.failed()).count();
    if no_verdict_asked {
        // Asked for without a verdict, having none is no failure.
        return (false, PASS, "No verdict: --loaded or --quick.".to_owned());
    }
    if disturbed > 0 {
        let words = format!("No verdict: others were at work during {disturbed} of {runs} runs.");
        return (false, NO_VERDICT, words);
    }
    if failed > 0 {
        return (true, FAIL, format!("FAIL: {failed} of {} figures miss their bar.", checks.len()));
    }
    (true, PASS, "PASS: every bar is met.".to_owned())
}

/// Bytes on the disk: the trees, four archives, and what three sides restore in every round.
pub(crate) fn needs(options: &Options) -> u64 {
    let scale = options.scale();
    let once = Tree::Mixed.bytes(scale) + Tree::Small.bytes(scale);
    let contests = (1 + 4 + 3 * u64::from(1 + options.rounds)) * once;
    let large = if options.full { 3 * Tree::TenTimes.bytes(scale) } else { 0 };
    contests.max(once + large)
}

/// A tree to race on.
struct Contest<'a> {
    tree: Tree,
    place: &'a Path,
    facts: Facts,
}

/// What all parts of the race share.
pub(crate) struct Track {
    program: PathBuf,
    /// For archives and restored folders.
    pub(crate) work: PathBuf,
    pub(crate) rounds: u32,
    runs: u32,
    disturbed: u32,
    states: u32,
}

impl Track {
    /// `needs`: bytes that must be free where `data` is.
    pub(crate) fn prepare(rounds: u32, program: PathBuf, data: &Path, needs: u64) -> Result<Self> {
        fs::create_dir_all(data).doing(data.display())?;
        let disk = rustix::fs::statvfs(data).doing(data.display())?;
        let free = disk.f_bavail * disk.f_frsize;
        if free < needs {
            let (place, needs, free) = (data.display(), needs as f64 / 1e9, free as f64 / 1e9);
            return Err(Failure::Usage(format!("{place}: {needs:.1} GB are needed, {free:.1} GB are free")));
        }
        let track = Track { program, work: data.join("work"), rounds, runs: 0, disturbed: 0, states: 0 };
        track.clear()?;
        Ok(track)
    }

    fn clear(&self) -> Result<()> {
        inodes::free(&self.work)?;
        fs::create_dir_all(&self.work).doing(self.work.display())
    }

    /// Our program, away from any configuration and with a fresh state folder.
    pub(crate) fn ours(&mut self, arguments: &[&std::ffi::OsStr]) -> Job {
        self.states += 1;
        let state = self.work.join(format!("state-{}", self.states));
        Job::program(&self.program, arguments).env("BACKUP_STATE_DIR", &state).within(&self.work)
    }

    pub(crate) fn run(&mut self, what: &str, job: &Job) -> Result<Sample> {
        let sample = self.run_with_server(what, job)?;
        self.disturbed += u32::from(sample.disturbed());
        Ok(sample)
    }

    /// Of a run for which a server works, whose time can be told and counts as the run's.
    pub(crate) fn run_beside(
        &mut self,
        what: &str,
        job: &Job,
        server: &dyn Fn() -> Result<CpuTimes>,
    ) -> Result<Sample> {
        let sample = measure_beside(job, server)?;
        self.disturbed += u32::from(sample.disturbed());
        self.told(what, &sample);
        Ok(sample)
    }

    /// Of a run that has a server at work beside it, which counts among the others: whether it was disturbed cannot be told.
    pub(crate) fn run_with_server(&mut self, what: &str, job: &Job) -> Result<Sample> {
        let sample = measure(job)?;
        self.told(what, &sample);
        Ok(sample)
    }

    fn told(&mut self, what: &str, sample: &Sample) {
        self.runs += 1;
        let others = sample
            .foreign
            .map(|f| format!(", others {:.2} CPUs, {:.2} with the kernel", f.user, f.all))
            .unwrap_or_default();
        let (wall, cpu) = (sample.wall.as_secs_f64(), sample.cpu.as_secs_f64());
        eprintln!("{what}: {wall:.3} s, CPU {cpu:.3} s{others}");
    }
}

/// The round that does not count: what runs first gets memory that the machine has given back, and pays for that.
pub(crate) const WARM_UP: u32 = 0;

/// Who runs when in a round: all sides in turn, another one first each time, since what ran before leaves memory, caches and
/// writes behind, which the first side would always meet alone.
pub(crate) fn turns(round: u32, sides: usize) -> impl Iterator<Item = usize> {
    (0..sides).map(move |i| (i + round as usize) % sides)
}

/// Removes a file or folder that may be there.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).doing(path.display()),
        _ => Ok(()),
    }
}

pub(crate) fn wall(sample: &Sample) -> f64 {
    sample.wall.as_secs_f64()
}

pub(crate) fn cpu(sample: &Sample) -> f64 {
    sample.cpu.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_is_first_in_its_turn() {
        let first: Vec<_> = (0..3).map(|round| turns(round, 3).collect::<Vec<_>>()).collect();
        assert_eq!(first, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
    }

    #[test]
    fn a_missed_bar_fails_unless_nothing_can_be_judged() {
        let check = |value| Check::bar("x", Spread::one(value), "", Limit::AtMost(1.0));
        let code = |asked, disturbed, value| {
            let (judged, code, _) = outcome(asked, disturbed, 9, &[check(0.5), check(value)]);
            (judged, code)
        };
        assert_eq!(code(false, 0, 1.0), (true, PASS));
        assert_eq!(code(false, 0, 1.1), (true, FAIL));
        assert_eq!(code(false, 1, 1.0), (false, NO_VERDICT));
        assert_eq!(code(false, 1, 1.1), (false, NO_VERDICT));
        assert_eq!(code(true, 5, 1.1), (false, PASS));
    }
}
