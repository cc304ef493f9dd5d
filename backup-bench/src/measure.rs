//! Runs one side of a race as a whole process tree.

use crate::failure::{Doing, Failure, Result};
use crate::machine::CpuTimes;
use crate::supervise::Usage;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// CPUs that every side may use: as many as the rivals have threads for compression.
pub(crate) const CPUS: usize = 2;

/// CPUs that others' programs kept busy, averaged over a run: above this the run is worthless.
const FOREIGN_USER_LIMIT: f64 = 0.10;
/// The same with the kernel's own work, of which writing back our output is a part.
const FOREIGN_LIMIT: f64 = 0.50;

/// A run shorter than this says nothing about others' work: the kernel counts in ticks of 10 ms.
const JUDGED_FROM: Duration = Duration::from_millis(500);

/// A command to be measured.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    command: Vec<OsString>,
    stdout: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
}

impl Job {
    pub(crate) fn program(program: &Path, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let mut command = vec![program.as_os_str().to_owned()];
        command.extend(arguments.into_iter().map(Into::into));
        Job { command, stdout: None, environment: Vec::new(), folder: None }
    }

    /// A bash script; what follows it are its `$1`, `$2` …
    pub(crate) fn script(script: &str, arguments: &[&Path]) -> Self {
        // A pipeline whose first part fails has failed.
        let script = format!("set -eu -o pipefail; {script}");
        let mut all: Vec<OsString> = vec!["-c".into(), script.into(), "bash".into()];
        all.extend(arguments.iter().map(|a| a.as_os_str().to_owned()));
        Job::program(Path::new("bash"), all)
    }

    pub(crate) fn stdout(mut self, file: &Path) -> Self {
        self.stdout = Some(file.to_owned());
        self
    }

    /// Runs in this folder.
    pub(crate) fn within(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

/// The figures of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Bytes, of the largest single process.
    pub(crate) peak_rss: u64,
    /// Bytes that the first process got from read calls; `None` if the kernel does not count them.
    pub(crate) read_bytes: Option<u64>,
    /// What was not ours meanwhile; `None` for a run too short to tell.
    pub(crate) foreign: Option<Foreign>,
}

/// CPUs kept busy by what is not the side measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Foreign {
    /// By programs.
    pub(crate) user: f64,
    /// By programs and the kernel.
    pub(crate) all: f64,
}

impl Foreign {
    fn of(spent: &CpuTimes, usage: &Usage, took: Duration) -> Self {
        let rest = |all: Duration, ours| {
            all.saturating_sub(Duration::from_micros(ours)).as_secs_f64() / took.as_secs_f64()
        };
        Foreign { user: rest(spent.user, usage.user_us), all: rest(spent.busy, usage.cpu_us) }
    }

    fn disturbs(self) -> bool {
        self.user > FOREIGN_USER_LIMIT || self.all > FOREIGN_LIMIT
    }
}

impl Sample {
    pub(crate) fn disturbed(&self) -> bool {
        self.foreign.is_some_and(Foreign::disturbs)
    }
}

/// Runs a job to its end; exit status other than 0 is an error.
pub(crate) fn measure(job: &Job) -> Result<Sample> {
    measure_beside(job, &|| Ok(CpuTimes::default()))
}

/// The same of a job for which a server works: what `server` has spent meanwhile counts as the job's.
pub(crate) fn measure_beside(job: &Job, server: &dyn Fn() -> Result<CpuTimes>) -> Result<Sample> {
    // The pages that the side before has left dirty are its own affair.
    rustix::fs::sync();
    let this = std::env::current_exe().doing("find this program")?;
    let mut supervisor = Command::new(this);
    supervisor.arg("supervise").args(["--cpus", &CPUS.to_string()]);
    if let Some(stdout) = &job.stdout {
        supervisor.arg("--stdout").arg(stdout);
    }
    supervisor.arg("--").args(&job.command);
    supervisor.envs(job.environment.iter().map(|(n, v)| (n, v)));
    if let Some(folder) = &job.folder {
        supervisor.current_dir(folder);
    }
    // Whose settings these are: not the race's.
    for name in ["BACKUP_CONFIG", "BACKUP_ARCHIVE", "TAR_OPTIONS", "ZSTD_CLEVEL", "ZSTD_NBTHREADS"] {
        supervisor.env_remove(name);
    }
    let (times, of_server, start) = (CpuTimes::now()?, server()?, Instant::now());
    let output = supervisor.stdin(Stdio::null()).output().doing("start a supervisor")?;
    let (spent, took) = (CpuTimes::now()?.since(&times), start.elapsed());
    let of_server = server()?.since(&of_server);
    let failed = |why: String| {
        let errors = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = errors.lines().rev().take(8).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Failure::Failed(format!("{:?} {why}\n{}", job.command, last.join("\n")))
    };
    if !output.status.success() {
        return Err(failed("could not be measured".to_owned()));
    }
    let mut usage: Usage = serde_json::from_slice(&output.stdout).doing("read the supervisor's figures")?;
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    usage.cpu_us += micros(of_server.busy);
    usage.user_us += micros(of_server.user);
    match usage.exit {
        Some(0) => {}
        Some(code) => return Err(failed(format!("ended with exit code {code}"))),
        None => return Err(failed("was ended by a signal".to_owned())),
    }
    let foreign = Foreign::of(&spent, &usage, took);
    Ok(Sample {
        wall: Duration::from_nanos(usage.wall_ns),
        cpu: Duration::from_micros(usage.cpu_us),
        peak_rss: usage.peak_rss,
        read_bytes: usage.read_bytes,
        foreign: (took >= JUDGED_FROM).then_some(foreign),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_back_our_output_is_forgiven_and_another_program_is_not() {
        assert!(!Foreign { user: 0.02, all: 0.30 }.disturbs());
        assert!(Foreign { user: 0.15, all: 0.20 }.disturbs());
        assert!(Foreign { user: 0.0, all: 0.9 }.disturbs());
    }

    #[test]
    fn what_is_ours_is_not_foreign() {
        let spent = CpuTimes { busy: Duration::from_secs(4), user: Duration::from_secs(3) };
        let usage = Usage {
            wall_ns: 0,
            cpu_us: 3_000_000,
            user_us: 2_500_000,
            peak_rss: 0,
            read_bytes: None,
            exit: Some(0),
        };
        let foreign = Foreign::of(&spent, &usage, Duration::from_secs(2));
        assert!((foreign.user - 0.25).abs() < 1e-9 && (foreign.all - 0.5).abs() < 1e-9);
    }
}
