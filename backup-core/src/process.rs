//! Who holds something: a process, told apart from a later one with the same number.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A running process as a lock or journal names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessStamp {
    /// Host it runs on.
    pub host: String,
    /// Its number there.
    pub pid: u32,
    /// When it started, in clock ticks since the host started; 0 where the system does not say.
    pub started: u64,
}

impl ProcessStamp {
    /// This process.
    pub fn current() -> Self {
        let pid = std::process::id();
        ProcessStamp { host: this_host(), pid, started: start_of(pid).unwrap_or(0) }
    }

    /// Whether this process still runs. A number that was given to another process meanwhile is not taken for it. `None`: it
    /// is of another host, or this system does not say.
    pub fn is_alive_here(&self) -> Option<bool> {
        if self.host != this_host() {
            return None;
        }
        if *self == Self::current() {
            return Some(true);
        }
        if !exists(self.pid)? {
            return Some(false);
        }
        match (self.started, start_of(self.pid)) {
            (0, _) | (_, None) => Some(true),
            (then, Some(now)) => Some(then == now),
        }
    }
}

impl fmt::Display for ProcessStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

fn this_host() -> String {
    hostname::get().map(|h| h.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(unix)]
fn exists(pid: u32) -> Option<bool> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)?;
    match rustix::process::test_kill_process(pid) {
        Ok(()) | Err(rustix::io::Errno::PERM) => Some(true),
        Err(rustix::io::Errno::SRCH) => Some(false),
        Err(_) => None,
    }
}

#[cfg(not(unix))]
fn exists(_pid: u32) -> Option<bool> {
    None
}

/// Field 22 of `/proc/<pid>/stat`. The name in field 2 may hold blanks and brackets: counted from the last bracket.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let after = stat.iter().rposition(|b| *b == b')')? + 1;
    let fields = std::str::from_utf8(stat.get(after..)?).ok()?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_reused_number_is_not_taken_for_it() {
        let me = ProcessStamp::current();
        assert_eq!(me.is_alive_here(), Some(true));
        if me.started > 0 {
            let other = ProcessStamp { started: me.started + 1, ..me.clone() };
            assert_eq!(other.is_alive_here(), Some(false));
        }
        assert_eq!(ProcessStamp { host: "elsewhere.invalid".into(), ..me }.is_alive_here(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_process_that_has_ended_is_not_alive() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let gone = ProcessStamp { pid, ..ProcessStamp::current() };
        assert_eq!(gone.is_alive_here(), Some(false));
    }
}
