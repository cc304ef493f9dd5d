//! The machine a race was run on, and whether it has nothing else to do.

use crate::failure::{Doing, Failure, Result};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// CPUs kept busy by others while nothing of ours runs.
const IDLE_LIMIT: f64 = 0.10;
/// Load average of one minute. Higher than the sample's: it remembers our own compilation.
const LOAD_LIMIT: f64 = 0.50;
/// So long a machine may take to come to rest, the average's memory of our own compilation included.
const PATIENCE: Duration = Duration::from_secs(240);
const SAMPLE: Duration = Duration::from_secs(3);

/// What a reader must know to compare figures.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory: u64,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
}

impl Machine {
    /// `data` is the folder whose file system is meant.
    pub(crate) fn look(data: &Path) -> Result<Self> {
        let model = field(&read("/proc/cpuinfo")?, "model name");
        let memory = field(&read("/proc/meminfo")?, "MemTotal").unwrap_or_default();
        let kib: u64 = memory.trim_end_matches("kB").trim().parse().doing("read MemTotal")?;
        let uname = rustix::system::uname();
        Ok(Machine {
            cpu: model.unwrap_or_else(|| uname.machine().to_string_lossy().into_owned()),
            cores: std::thread::available_parallelism().doing("count the CPUs")?.get(),
            memory: kib * 1024,
            kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
            file_system: file_system(&read("/proc/self/mountinfo")?, data),
        })
    }
}

/// Waits until the machine is quiet; refuses if it does not become so.
pub(crate) fn wait_until_quiet() -> Result<()> {
    let start = Instant::now();
    loop {
        let (load, busy) = (load_average()?, busy_cpus(SAMPLE)?);
        let Some(why) = too_busy(load, busy) else { return Ok(()) };
        if start.elapsed() >= PATIENCE {
            return Err(Failure::Loaded(why));
        }
        // Waiting helps only against what is over already.
        if busy > IDLE_LIMIT && start.elapsed() > PATIENCE / 8 {
            return Err(Failure::Loaded(why));
        }
        eprintln!("waiting for a quiet machine: {why}");
        std::thread::sleep(Duration::from_secs(7));
    }
}

/// Refuses at once what waiting will not better, before anything is built or made.
pub(crate) fn refuse_if_busy() -> Result<()> {
    // The load average is not asked: it still remembers the compilation of this program.
    too_busy(0.0, busy_cpus(SAMPLE)?).map_or(Ok(()), |why| Err(Failure::Loaded(why)))
}

/// One line on how busy the machine is now, with nothing of ours running.
pub(crate) fn load() -> Result<String> {
    let (load, busy) = (load_average()?, busy_cpus(SAMPLE)?);
    Ok(format!("load average {load:.2}, {busy:.2} CPUs busy while idle"))
}

fn too_busy(load: f64, busy: f64) -> Option<String> {
    if busy > IDLE_LIMIT {
        return Some(format!("others keep {busy:.2} CPUs busy (limit {IDLE_LIMIT:.2})"));
    }
    (load > LOAD_LIMIT).then(|| format!("the load average is {load:.2} (limit {LOAD_LIMIT:.2})"))
}

fn load_average() -> Result<f64> {
    let text = read("/proc/loadavg")?;
    text.split_whitespace().next().unwrap_or_default().parse().doing("read the load average")
}

fn busy_cpus(sample: Duration) -> Result<f64> {
    let (before, start) = (CpuTimes::now()?, Instant::now());
    std::thread::sleep(sample);
    Ok(CpuTimes::now()?.since(&before).busy.as_secs_f64() / start.elapsed().as_secs_f64())
}

/// Time all CPUs together have been busy since the start of the machine; stolen time is busy, waiting for disks is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTimes {
    pub(crate) busy: Duration,
    /// The part of it that was no kernel's: programs, and what the hypervisor took away.
    pub(crate) user: Duration,
}

impl CpuTimes {
    pub(crate) fn now() -> Result<Self> {
        let ticks = rustix::param::clock_ticks_per_second().max(1);
        let text = read("/proc/stat")?;
        parse_cpu(&text, ticks).ok_or_else(|| Failure::Failed("/proc/stat is not understood".to_owned()))
    }

    pub(crate) fn since(&self, earlier: &Self) -> Self {
        CpuTimes {
            busy: self.busy.saturating_sub(earlier.busy),
            user: self.user.saturating_sub(earlier.user),
        }
    }
}

/// The line `cpu user nice system idle iowait irq softirq steal guest guest_nice`; guest is part of user.
fn parse_cpu(text: &str, ticks: u64) -> Option<CpuTimes> {
    let line = text.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let fields: Vec<u64> =
        line.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>().ok()?;
    let sum = |columns: &[usize]| {
        let sum: u64 = columns.iter().filter_map(|&i| fields.get(i)).sum();
        Duration::from_secs_f64(sum as f64 / ticks as f64)
    };
    (fields.len() >= 5).then(|| CpuTimes { busy: sum(&[0, 1, 2, 5, 6, 7]), user: sum(&[0, 1, 7]) })
}

/// Versions of the tools that race, as they name themselves; missing ones are an error that lists them.
pub(crate) fn tools(names: &[&str]) -> Result<Vec<String>> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match Command::new(name).arg("--version").output() {
            Ok(o) if o.status.success() => {
                let text = String::from_utf8_lossy(&o.stdout).into_owned();
                let line = text.lines().next().unwrap_or_default();
                found.push(line.trim_matches(|c: char| c == '*' || c.is_whitespace()).to_owned());
            }
            _ => missing.push(*name),
        }
    }
    if missing.is_empty() {
        Ok(found)
    } else {
        Err(Failure::Usage(format!("missing: {}", missing.join(", "))))
    }
}

fn field(text: &str, name: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// Type of the deepest mount at or above the folder.
fn file_system(mountinfo: &str, folder: &Path) -> String {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let place = Path::new(left.split_whitespace().nth(4)?);
        folder.starts_with(place).then(|| (place.as_os_str().len(), right.split_whitespace().next()))
    });
    // Of two mounts on one place the later one is seen.
    mounts.max_by_key(|m| m.0).and_then(|m| m.1).unwrap_or("unknown").to_owned()
}

fn read(file: &str) -> Result<String> {
    std::fs::read_to_string(file).doing(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_time_is_busy_and_waiting_is_not() {
        let times = parse_cpu("cpu  100 10 40 9000 500 3 7 40 60 0\ncpu0 1 1 1 1\n", 100);
        assert_eq!(times, Some(CpuTimes { busy: Duration::from_secs(2), user: Duration::from_millis(1500) }));
        assert_eq!(parse_cpu("cpu x", 100), None);
    }

    #[test]
    fn a_busy_machine_is_refused_and_told_why() {
        assert_eq!(too_busy(0.2, 0.02), None);
        assert!(too_busy(0.2, 0.8).is_some_and(|why| why.contains("0.80")));
        assert!(too_busy(3.0, 0.02).is_some_and(|why| why.contains("3.00")));
    }

    #[test]
    fn the_deepest_mount_counts() {
        let info = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:3 / /x rw shared:1 - tmpfs none rw\n";
        assert_eq!(file_system(info, Path::new("/x/y")), "tmpfs");
        assert_eq!(file_system(info, Path::new("/xy")), "ext4");
    }
}
