//! A database server in a container that lasts as long as its race.

use crate::failure::{Doing, Failure, Result};
use crate::machine::CpuTimes;
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(120);

/// A running container; removed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    name: String,
    times: Times,
}

/// Where the kernel says what the processes of a container have spent.
#[derive(Debug)]
enum Times {
    /// Of cgroups of version 1.
    Accounts(PathBuf),
    /// `cpu.stat` of version 2.
    Stat(PathBuf),
}

impl Server {
    /// Starts `image` (such as `postgres:17`, else what `cargo xtask test` builds in its place) on as many CPUs as every side has.
    /// `work` is seen in the container under the same name. `environment` and `arguments` are those of the image.
    pub(super) fn start(image: &str, work: &Path, environment: &[&str], arguments: &[&str]) -> Result<Self> {
        let name = format!("backup-bench-{}-{}", image.replace(':', "-"), std::process::id());
        let image = match docker(["image", "inspect", image]) {
            Ok(_) => image.to_owned(),
            Err(_) => format!("backup-test/{image}"),
        };
        // Tests sweep what has the label of a process that is gone.
        let label = format!("backup-test.pid={}", std::process::id());
        let cpus = format!("0-{}", crate::measure::CPUS - 1);
        let mount = format!("{0}:{0}", work.display());
        let mut line = vec!["run", "--detach", "--name", &name, "--label", &label, "--cpuset-cpus", &cpus];
        line.extend(["--volume", &mount, "--shm-size", "1g"]);
        line.extend(environment.iter().flat_map(|pair| ["--env", pair]));
        line.push(&image);
        line.extend(arguments);
        docker(line)?;
        let mut server = Server { name, times: Times::Stat(PathBuf::new()) };
        let pid = docker(["inspect", "--format", "{{.State.Pid}}", &server.name])?;
        let file = format!("/proc/{}/cgroup", pid.trim());
        let text = std::fs::read_to_string(&file).doing(&file)?;
        server.times = Times::of(&text)
            .ok_or_else(|| Failure::Usage(format!("{file}: no group that counts CPU time: {text}")))?;
        Ok(server)
    }

    /// Good wherever docker takes a container.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What its processes have spent, those of `docker exec` among them.
    pub(super) fn times(&self) -> Result<CpuTimes> {
        self.times.read()
    }

    /// Runs a command in it; its output.
    pub(super) fn exec(&self, command: &[&str]) -> Result<String> {
        docker(["exec", &self.name].iter().chain(command))
    }

    /// Waits until a command in it succeeds.
    pub(super) fn wait_until(&self, command: &[&str]) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.exec(command) {
                Ok(_) => return Ok(()),
                Err(e) if start.elapsed() >= START_LIMIT => return Err(e),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Runs a command in it that reads what `write` writes.
    pub(super) fn feed(
        &self,
        command: &[&str],
        write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> Result<()> {
        let mut child = Command::new("docker")
            .args(["exec", "--interactive", &self.name])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .doing("start docker")?;
        let written = match child.stdin.take() {
            Some(stdin) => {
                let mut stdin = std::io::BufWriter::with_capacity(1 << 20, stdin);
                write(&mut stdin).and_then(|()| stdin.flush())
            }
            None => Ok(()),
        };
        let output = child.wait_with_output().doing("docker")?;
        if !output.status.success() {
            return Err(failed(command, &output.stderr));
        }
        written.doing("feed the server")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(e) = docker(["rm", "--force", "--volumes", &self.name]) {
            eprintln!("{}: {e}", self.name);
        }
    }
}

impl Times {
    fn of(cgroup: &str) -> Option<Self> {
        let lines = || cgroup.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let mounted = Path::new("/sys/fs/cgroup");
        let below = |path: &str| path.trim_start_matches('/').to_owned();
        let first = lines()
            .find(|(names, _)| names.split(',').any(|name| name == "cpuacct"))
            .map(|(_, path)| Times::Accounts(mounted.join("cpuacct").join(below(path))));
        let second = || {
            lines()
                .find(|(names, _)| names.is_empty())
                .map(|(_, path)| Times::Stat(mounted.join(below(path)).join("cpu.stat")))
        };
        first.or_else(second)
    }

    fn read(&self) -> Result<CpuTimes> {
        let read = |file: &Path| std::fs::read_to_string(file).doing(file.display());
        let number = |text: &str| text.trim().parse::<u64>().doing("read the CPU time of the server");
        match self {
            Times::Accounts(folder) => Ok(CpuTimes {
                busy: Duration::from_nanos(number(&read(&folder.join("cpuacct.usage"))?)?),
                user: Duration::from_nanos(number(&read(&folder.join("cpuacct.usage_user"))?)?),
            }),
            Times::Stat(file) => {
                let text = read(file)?;
                let field = |name: &str| {
                    let line = text.lines().find_map(|line| line.strip_prefix(name));
                    Ok(Duration::from_micros(number(line.unwrap_or_default())?))
                };
                Ok(CpuTimes { busy: field("usage_usec ")?, user: field("user_usec ")? })
            }
        }
    }
}

fn docker(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
    let arguments: Vec<_> = arguments.into_iter().map(|a| a.as_ref().to_owned()).collect();
    let output =
        Command::new("docker").args(&arguments).stdin(Stdio::null()).output().doing("start docker")?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(failed(&arguments, &output.stderr)),
    }
}

fn failed(command: &(impl std::fmt::Debug + ?Sized), said: &[u8]) -> Failure {
    Failure::Failed(format!("{command:?}: {}", String::from_utf8_lossy(said).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_container_is_found_in_both_kinds_of_groups() {
        let one = "3:cpuset:/docker/a\n2:cpu,cpuacct:/docker/a\n0::/docker/a\n";
        let found = Times::of(one).map(|t| format!("{t:?}"));
        assert_eq!(found.as_deref(), Some(r#"Accounts("/sys/fs/cgroup/cpuacct/docker/a")"#));
        let found = Times::of("0::/system.slice/docker-a.scope\n").map(|t| format!("{t:?}"));
        assert_eq!(found.as_deref(), Some(r#"Stat("/sys/fs/cgroup/system.slice/docker-a.scope/cpu.stat")"#));
        assert!(Times::of("").is_none());
    }
}
