//! One command of a run: a heading, a time limit, and a failure that names the command.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Failure, Outcome};

/// Longer than any step takes on a slow machine; a hang ends here instead of at the CI's own limit.
const LIMIT: Duration = Duration::from_secs(45 * 60);

/// A command with its heading; built up, then run once.
pub(crate) struct Step {
    heading: String,
    command: Command,
    limit: Duration,
}

impl Step {
    pub(crate) fn new(heading: impl Into<String>, program: &str) -> Self {
        let mut command = Command::new(program);
        // No step may wait for an answer: CI has nobody to give one.
        command.stdin(Stdio::null());
        // `cargo run` describes this package to us; a cargo below must not take it for its own caller
        // (cargo-machete does).
        for (name, _) in std::env::vars_os() {
            let of_this_package =
                |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
            if name.to_str().is_some_and(of_this_package) {
                command.env_remove(&name);
            }
        }
        Self { heading: heading.into(), command, limit: LIMIT }
    }

    /// A cargo command with its arguments separated by spaces.
    pub(crate) fn cargo(heading: impl Into<String>, arguments: &str) -> Self {
        Self::new(heading, "cargo").args(arguments.split_whitespace())
    }

    pub(crate) fn args<I: IntoIterator<Item = S>, S: AsRef<std::ffi::OsStr>>(mut self, arguments: I) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Both outputs go to `file`: for programs whose chatter matters only when they fail.
    pub(crate) fn output_to(mut self, file: &std::fs::File) -> Outcome<Self> {
        let copy = || file.try_clone().map_err(|error| Failure::Failed(format!("log file: {error}")));
        self.command.stdout(copy()?).stderr(copy()?);
        Ok(self)
    }

    /// Runs it and says how long it took.
    pub(crate) fn run(mut self) -> Outcome {
        println!("\n── {}", self.heading);
        let started = Instant::now();
        let child = self.command.spawn();
        let result = self.end(child, started);
        self.report(started, result)
    }

    /// Runs it, passing its standard output on line by line, each shown to `see`.
    pub(crate) fn run_watching(mut self, mut see: impl FnMut(&str) + Send) -> Outcome {
        println!("\n── {}", self.heading);
        let started = Instant::now();
        let mut child = self.command.stdout(Stdio::piped()).spawn();
        let output = child.as_mut().ok().and_then(|child| child.stdout.take());
        let result = std::thread::scope(|scope| {
            if let Some(output) = output {
                scope.spawn(move || {
                    let mut reader = BufReader::new(output);
                    let mut line = Vec::new();
                    while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                        if !line.ends_with(b"\n") {
                            line.push(b'\n');
                        }
                        let mut out = std::io::stdout().lock();
                        // A closed stdout must not stop the counting: the exit code depends on it.
                        let _ = out.write_all(&line).and_then(|()| out.flush());
                        see(String::from_utf8_lossy(&line).trim_end());
                        line.clear();
                    }
                });
            }
            self.end(child, started)
        });
        self.report(started, result)
    }

    fn end(&self, child: std::io::Result<Child>, started: Instant) -> Result<(), String> {
        let mut child = child.map_err(|error| format!("could not start: {error}"))?;
        loop {
            match child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(status.to_string()),
                Ok(None) if started.elapsed() < self.limit => std::thread::sleep(Duration::from_millis(30)),
                Ok(None) => {
                    end_tree(&mut child);
                    return Err(format!("stopped after its limit of {} s", self.limit.as_secs()));
                }
                Err(error) => return Err(format!("could not be waited for: {error}")),
            }
        }
    }

    fn report(&self, started: Instant, result: Result<(), String>) -> Outcome {
        let seconds = started.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                println!("   ok, {seconds:.1} s");
                Ok(())
            }
            Err(why) => {
                let message = format!("`{}`: {why}", line(&self.command));
                println!("   FAILED after {seconds:.1} s: {message}");
                Err(Failure::Failed(message))
            }
        }
    }
}

/// Whether the command can be started and succeeds; its output is dropped.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    output(program, arguments).is_some()
}

/// Its trimmed standard output, if it can be started and succeeds.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Ends the child and all it has started. Not by process group: the children share ours so that Ctrl-C
/// reaches them.
fn end_tree(child: &mut Child) {
    let mut tree = vec![child.id().to_string()];
    let mut next = 0;
    while let Some(parent) = tree.get(next).cloned() {
        tree.extend(children(&parent));
        next += 1;
    }
    let _ = Command::new("sh").args(["-c", "kill -KILL \"$@\"", "sh"]).args(&tree).status();
    let _ = child.kill();
    let _ = child.wait();
}

fn children(parent: &str) -> Vec<String> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| {
            let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
            // "pid (name) state ppid …": the name may hold spaces and brackets.
            let (head, tail) = stat.rsplit_once(')')?;
            let of_parent = tail.split_whitespace().nth(1)? == parent;
            of_parent.then(|| head.split(' ').next().unwrap_or_default().to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(outcome: Outcome) -> String {
        match outcome {
            Err(Failure::Failed(why) | Failure::Usage(why)) => why,
            Ok(()) => String::new(),
        }
    }

    #[test]
    fn a_failure_names_the_command() {
        let why = why(Step::new("fails", "sh").args(["-c", "exit 3"]).run());
        assert!(why.contains("sh -c exit 3") && why.contains('3'), "{why}");
    }

    #[test]
    fn a_program_that_is_not_there_is_a_failure() {
        assert!(why(Step::new("absent", "no-such-program-here").run()).contains("could not start"));
    }

    #[test]
    fn a_hanging_command_is_ended_with_everything_it_started() {
        let started = Instant::now();
        let step = Step::new("hangs", "sh").args(["-c", "sleep 60 & wait"]);
        // Watched: a grandchild that survived would hold the pipe open for its minute.
        let outcome = step.limit(Duration::from_millis(300)).run_watching(|_| {});
        assert!(why(outcome).contains("limit"));
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn every_line_of_output_is_seen_even_one_without_an_end() {
        let mut seen = Vec::new();
        let step = Step::new("prints", "printf").args(["one\ntwo"]);
        assert!(step.run_watching(|line| seen.push(line.to_owned())).is_ok());
        assert_eq!(seen, ["one", "two"]);
    }
}
