//! Archives to a bucket: MinIO on this machine, against the same archive to a disk and against `mc pipe`.

use crate::archive::{COMPONENT, Track, conclude, needs, remove, turns, wall};
use crate::args::Options;
use crate::failure::{Doing, Failure, Result};
use crate::machine::{self, Machine};
use crate::measure::{Job, Sample};
use crate::program;
use crate::report::Report;
use crate::trees::{self, LONE_FILE, Tree};
use crate::verdict::{Check, Limit, Spread};
use backup_testkit::servers::{Faulty, Minio, ObjectServer};
use std::ffi::OsString;
use std::path::Path;

const NAMES: [&str; 4] =
    ["backup create --to DISK", "backup create --to S3", "tar | zstd -3 -T2 | mc pipe", "both at once"];

// $1 parent of the tree, $2 name of the tree, $3 object, $4 mc's own folder.
const RIVAL: &str =
    r#"tar -C "$1" -cf - "$2" | zstd -3 -T2 -q | mc --quiet --config-dir "$4" pipe "$3" >/dev/null"#;

/// MB (10⁶ bytes).
const MEMORY: f64 = 150.0;
/// Percent of the archive, for one file out of it.
const FETCHED: f64 = 3.0;

/// Runs the whole race; returns the exit code.
pub(crate) fn race(options: &Options) -> Result<u8> {
    options.checked()?;
    let tools = machine::tools(&["tar", "zstd", "bash"])?;
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
    let (place, facts) = trees::ready(Tree::Mixed, &data, options.scale())?;
    let minio = Minio::start().map_err(Failure::Usage)?;
    if must_be_quiet {
        machine::wait_until_quiet()?;
    }
    let mut report = Report::heading("destinations", &Machine::look(&data)?, &tools, &machine::load()?);
    let mut samples: [Vec<Sample>; 4] = Default::default();
    for round in 1..=track.rounds {
        for side in turns(round, NAMES.len()) {
            let what = format!("round {round}: {}", NAMES[side]);
            let job = job(&mut track, &minio, &place, side, round)?;
            trees::warm(&place)?;
            samples[side].push(match side {
                0 => track.run(&what, &job)?,
                _ => track.run_with_server(&what, &job)?,
            });
        }
    }
    let title =
        format!("Create: {} files, {:.1} MB, MinIO on loopback", facts.files, facts.bytes as f64 / 1e6);
    let sides: Vec<(&str, &[Sample])> = NAMES.into_iter().zip(samples.iter().map(Vec::as_slice)).collect();
    report.samples(&title, &sides, &[None; 4]);
    let [disk, s3, rival, both] = &samples;
    let peak = |samples: &[Sample]| samples.iter().map(|s| s.peak_rss).max().unwrap_or(0) as f64 / 1e6;
    let mut checks = vec![
        Check::bar("S3 / disk: wall", Spread::of_ratios(s3, disk, wall), "", Limit::AtMost(1.15)),
        Check::bar("S3 / mc pipe: wall", Spread::of_ratios(s3, rival, wall), "", Limit::AtMost(1.0)),
        Check::bar("S3: peak RSS", Spread::one(peak(s3)), " MB", Limit::AtMost(MEMORY)),
        Check::bar("both at once: peak RSS", Spread::one(peak(both)), " MB", Limit::AtMost(MEMORY)),
    ];
    one_file(&mut track, &minio, &place, &mut report, &mut checks)?;
    conclude("destinations", options, &track, report, &checks)
}

fn object(endpoint: &str, name: &str) -> String {
    format!("s3://{}/{name}.tar.zst?endpoint={endpoint}", Minio::BUCKET)
}

fn with_keys(job: Job) -> Job {
    job.env("AWS_ACCESS_KEY_ID", Minio::KEY).env("AWS_SECRET_ACCESS_KEY", Minio::SECRET)
}

fn job(track: &mut Track, minio: &Minio, place: &Path, side: usize, round: u32) -> Result<Job> {
    if side == 2 {
        let mc = track.work.join("mc");
        let parent = place.parent().unwrap_or(place);
        let name = place.file_name().unwrap_or_default();
        let to = format!("m/{}/rival-{round}", Minio::BUCKET);
        let host = format!("http://{}:{}@{}", Minio::KEY, Minio::SECRET, minio.address());
        let job = Job::script(RIVAL, &[parent, name.as_ref(), to.as_ref(), &mc]);
        return Ok(job.env("MC_HOST_m", host).env("PATH", mc_path()));
    }
    let file = track.work.join(["ours.tar.zst", "", "", "both.tar.zst"][side]);
    let bucket = object(&minio.endpoint(), &format!("{}-{round}", ["", "ours", "", "both"][side]));
    let mut source = OsString::from(format!("{COMPONENT}="));
    source.push(place);
    let mut line: Vec<OsString> = vec!["create".into(), source, "--quiet".into()];
    if side != 1 {
        remove(&file)?;
        line.extend(["--to".into(), file.into_os_string()]);
    }
    if side != 0 {
        line.extend(["--to".into(), bucket.into()]);
    }
    let line: Vec<_> = line.iter().map(OsString::as_os_str).collect();
    Ok(with_keys(track.ours(&line)))
}

/// `mc` may be where `cargo xtask` puts what it builds.
fn mc_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::path::PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let all = std::env::split_paths(&path).chain([home.join(".cache/backup/tools")]);
    std::env::join_paths(all).unwrap_or(path)
}

fn one_file(
    track: &mut Track,
    minio: &Minio,
    tree: &Path,
    report: &mut Report,
    checks: &mut Vec<Check>,
) -> Result<()> {
    let counting = Faulty::before(minio.address(), |_| None).doing("start the counting proxy")?;
    let size = std::fs::metadata(track.work.join("ours.tar.zst")).doing("ours.tar.zst")?.len();
    let file = track.work.join("dumped");
    let (path, from) = (format!("{COMPONENT}/{LONE_FILE}"), object(&counting.endpoint(), "ours-1"));
    let job =
        track.ours(&["dump".as_ref(), "latest".as_ref(), path.as_ref(), "--from".as_ref(), from.as_ref()]);
    let sample = track.run_with_server("dump of one file", &with_keys(job.stdout(&file)))?;
    if std::fs::read(&file).doing(file.display())? != std::fs::read(tree.join(LONE_FILE)).doing(LONE_FILE)? {
        return Err(Failure::Failed(format!("{LONE_FILE} is not what was backed up")));
    }
    report.line(format!(
        "One file of the archive of {:.1} MB: {:.2} MB fetched in {} requests, {:.3} s.",
        size as f64 / 1e6,
        counting.answered() as f64 / 1e6,
        counting.seen(),
        wall(&sample)
    ));
    let percent = counting.answered() as f64 * 100.0 / size as f64;
    checks.push(Check::bar(
        "one file: fetched of the archive",
        Spread::one(percent),
        " %",
        Limit::Below(FETCHED),
    ));
    Ok(())
}
