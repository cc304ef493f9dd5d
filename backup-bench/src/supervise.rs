//! A small process of its own for every measured command.
//!
//! `RUSAGE_CHILDREN` never goes down: its peak is that of the largest child a process has ever had. A fresh
//! supervisor for each run makes it the figure of that run. As subreaper it inherits what outlives its parent
//! (bash does not wait for a process substitution), so that no descendant's time is lost.

use crate::failure::{Doing, Failure, Result};
use nix::sys::resource::{UsageWho, getrusage};
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, set_child_subreaper, wait, waitid};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a supervisor prints on its stdout.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// From before the start until the last descendant has ended.
    pub(crate) wall_ns: u64,
    /// User and system time of all descendants.
    pub(crate) cpu_us: u64,
    /// The user part of it.
    pub(crate) user_us: u64,
    /// Largest resident set that any one descendant ever had, in bytes.
    pub(crate) peak_rss: u64,
    /// Bytes that the command itself (not its children) got from read calls of any kind.
    pub(crate) read_bytes: Option<u64>,
    /// Exit code of the command; `None`: a signal ended it.
    pub(crate) exit: Option<i32>,
}

/// Runs a command on at most so many CPUs and prints its [`Usage`]; the command's stdout goes to `stdout`.
pub(crate) fn run(cpus: usize, stdout: Option<&std::path::Path>, command: &[String]) -> Result<()> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| Failure::Usage("no command to run".to_owned()))?;
    restrict(cpus)?;
    set_child_subreaper(Some(rustix::process::getpid())).doing("become a subreaper")?;
    let stdout = match stdout {
        Some(path) => Stdio::from(std::fs::File::create(path).doing(path.display())?),
        None => Stdio::null(),
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(stdout);
    let start = Instant::now();
    let child = command.spawn().doing(program)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| Failure::Failed("the child has no process id".to_owned()))?;
    let (exit, read_bytes) = reap(pid)?;
    let wall = start.elapsed();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).doing("getrusage")?;
    let micros =
        |t: nix::sys::time::TimeVal| u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap_or(0);
    let user_us = micros(usage.user_time());
    let usage = Usage {
        wall_ns: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
        cpu_us: user_us + micros(usage.system_time()),
        user_us,
        // Linux counts it in units of 1024 bytes.
        peak_rss: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
        read_bytes,
        exit,
    };
    println!("{}", serde_json::to_string(&usage).doing("write the figures")?);
    Ok(())
}

/// The rivals use two threads: on a larger machine nobody gets more.
fn restrict(cpus: usize) -> Result<()> {
    let allowed = sched_getaffinity(None).doing("read the CPU affinity")?;
    let mut set = CpuSet::new();
    (0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).take(cpus).for_each(|cpu| set.set(cpu));
    sched_setaffinity(None, &set).doing("set the CPU affinity")
}

/// Waits for the command, then for everything it has left behind.
fn reap(pid: Pid) -> Result<(Option<i32>, Option<u64>)> {
    // Not reaped yet: the counters of a zombie can still be read.
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    retry(|| waitid(WaitId::Pid(pid), ended)).doing("wait for the command")?;
    let read_bytes = read_bytes(pid);
    let mut exit = None;
    loop {
        match retry(|| wait(WaitOptions::empty())) {
            Ok(Some((ended, status))) if ended == pid => exit = status.exit_status(),
            Ok(_) => {}
            Err(rustix::io::Errno::CHILD) => return Ok((exit, read_bytes)),
            Err(e) => return Err(e).doing("wait for all processes"),
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// `rchar`: every byte that read, pread and their like returned, from the cache or not.
fn read_bytes(pid: Pid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()
}
