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
    /// Where its number counts; `None` where the system does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbered: Option<Numbering>,
}

/// Where the number of a process counts: hosts of one name and the containers of a host each have their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbering {
    /// Names one start of the system.
    pub boot: String,
    /// The namespace of process numbers.
    pub namespace: String,
}

/// The namespace that every Linux begins with has this name after each start.
const OUTERMOST: &str = "pid:[4026531836]";

impl Numbering {
    fn current() -> Option<Self> {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
        Some(Numbering { boot, namespace })
    }
}

impl ProcessStamp {
    /// This process.
    pub fn current() -> Self {
        let pid = std::process::id();
        let started = start_of(pid).unwrap_or(0);
        ProcessStamp { host: this_host(), pid, started, numbered: Numbering::current() }
    }

    /// Whether this process still runs. A number that was given to another process meanwhile is not taken for it. `None`: it
    /// is of another host, another start of it or another namespace of process numbers, or this system does not say.
    pub fn is_alive_here(&self) -> Option<bool> {
        if self.host != this_host() {
            return None;
        }
        if let (Some(its), Some(ours)) = (&self.numbered, Numbering::current())
            && *its != ours
        {
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

    /// Whether the system on which it began is the one that runs here, in whatever namespace: then locks of the system tell
    /// whether it goes on.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        let here = Numbering::current();
        self.host == this_host()
            && self.numbered.as_ref().zip(here.as_ref()).is_some_and(|(its, ours)| its.boot == ours.boot)
    }

    /// Whether it ran on this host, outside of all containers, before the host was started again: then it has ended. Only as
    /// good as the name of the host: good for files of this host, not for those which several hosts share.
    pub(crate) fn is_of_another_boot(&self) -> bool {
        let here = Numbering::current();
        self.host == this_host()
            && self.numbered.as_ref().zip(here.as_ref()).is_some_and(|(its, ours)| {
                its.boot != ours.boot && [its, ours].iter().all(|n| n.namespace == OUTERMOST)
            })
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

    #[test]
    fn of_a_process_that_is_numbered_elsewhere_nothing_is_known() {
        let me = ProcessStamp::current();
        let Some(ours) = me.numbered.clone() else { return };
        let outermost = Numbering { namespace: OUTERMOST.into(), ..ours.clone() };
        let with = |n: Numbering| ProcessStamp { numbered: Some(n), ..me.clone() };
        let contained = with(Numbering { namespace: "pid:[1]".into(), ..ours.clone() });
        assert_eq!((contained.is_alive_here(), contained.is_of_this_boot()), (None, true));
        assert!(!contained.is_of_another_boot());
        let before = with(Numbering { boot: "another".into(), ..outermost.clone() });
        assert_eq!((before.is_alive_here(), before.is_of_this_boot()), (None, false));
        assert_eq!(before.is_of_another_boot(), ours == outermost);
        assert!(
            !with(Numbering { boot: "another".into(), namespace: "pid:[1]".into() }).is_of_another_boot()
        );
    }

    #[test]
    fn a_stamp_of_an_older_program_is_read() {
        let old = r#"{"host":"h","pid":1,"started":2}"#;
        let stamp: ProcessStamp = serde_json::from_str(old).unwrap();
        assert_eq!(
            (stamp.numbered.is_none(), serde_json::to_string(&stamp).unwrap()),
            (true, old.to_owned())
        );
        assert!(serde_json::from_str::<ProcessStamp>(r#"{"host":"h","pid":1,"started":2,"x":3}"#).is_err());
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
