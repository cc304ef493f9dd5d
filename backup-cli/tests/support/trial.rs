//! What soaks share: counts, seeded chance, runs that are killed, trees and how to compare them, mounts.

use super::Place;
use std::{
    collections::BTreeMap,
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io::{BufRead, BufReader},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

/// How often: `few` times in the tests, `many` times in a soak.
pub(crate) fn times(few: usize, many: usize) -> usize {
    if is_soak() { many } else { few }
}

pub(crate) fn is_soak() -> bool {
    env::var_os("BACKUP_SOAK").is_some_and(|v| v == "1")
}

/// False, and said, where a test that must mount, own devices or change its user cannot do so; a failure where
/// `BACKUP_TEST_REQUIRE` names root.
pub(crate) fn is_root(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    let required = env::var("BACKUP_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|r| r == "root"), "{test} needs root, and BACKUP_TEST_REQUIRE names it");
    eprintln!("SKIPPED: {test}: needs root");
    false
}

/// Chance that can be had again: `BACKUP_SEED` names the seed that a run has printed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(test: &str) -> Self {
        let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
        let seed = env::var("BACKUP_SEED").map_or_else(|_| now() as u64, |text| text.parse().unwrap());
        println!("{test}: BACKUP_SEED={seed}");
        Random(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// Bytes that cannot be compressed.
    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length + 8);
        while out.len() < length {
            out.extend_from_slice(&self.next().to_le_bytes());
        }
        out.truncate(length);
        out
    }

    /// The `i`-th of `n` points spread over a duration, each at random in its part.
    pub(crate) fn point(&mut self, i: usize, n: usize, over: Duration) -> Duration {
        let part = over.as_micros() as u64 / n as u64;
        Duration::from_micros(part * i as u64 + self.below(part))
    }
}

/// A run that will be killed, in a process group of its own. Its output is read and thrown away.
pub(crate) struct Run {
    child: Child,
    pub(crate) begun: Instant,
    phases: mpsc::Receiver<String>,
}

impl Run {
    /// `line` without `--progress`.
    pub(crate) fn start(place: &Place, line: &[&str]) -> Self {
        let mut command = place.command(&[line, &["--progress", "json"]].concat());
        Self::of(&mut command)
    }

    pub(crate) fn of(command: &mut Command) -> Self {
        let begun = Instant::now();
        let mut child =
            command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (to, phases) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let event: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                // Nobody may be listening any more; the pipe is emptied all the same.
                let _ = to.send(event["phase"].as_str().unwrap_or_default().to_owned());
            }
        });
        Run { child, begun, phases }
    }

    /// Waits for the beginning of a phase; false if the run ends without it.
    pub(crate) fn reaches(&self, phase: &str) -> bool {
        self.phases.iter().any(|p| p == phase)
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        // A run that has ended is still there: nobody has waited for it.
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills all of it; true if it was still going on.
    pub(crate) fn kill(mut self) -> bool {
        let group = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
        self.child.wait().unwrap().code().is_none()
    }

    pub(crate) fn kill_after(self, delay: Duration) -> bool {
        std::thread::sleep(delay.saturating_sub(self.begun.elapsed()));
        self.kill()
    }

    /// Its exit code, at the latest after `limit`.
    pub(crate) fn code_within(mut self, limit: Duration) -> i32 {
        let from = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            if from.elapsed() > limit {
                self.kill();
                panic!("it did not end within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// How long a run takes that nobody disturbs.
pub(crate) fn duration_of(place: &Place, line: &[&str]) -> Duration {
    let run = Run::start(place, line);
    let begun = run.begun;
    assert_eq!(run.code_within(Duration::from_secs(120)), 0, "backup {}", line.join(" "));
    begun.elapsed()
}

/// Everything that a restore must bring back, by path: kind, mode, owner, time, size, content or link.
pub(crate) type Fingerprint = BTreeMap<PathBuf, String>;

/// Of a whole tree, its top folder included; folders in which a restore keeps what it needs are left out at the top.
pub(crate) fn fingerprint(root: &Path) -> Fingerprint {
    let mut out = Fingerprint::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(&path) };
        let meta = fs::symlink_metadata(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()));
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            let names = fs::read_dir(&full).unwrap().map(|e| e.unwrap().file_name());
            let ours = |n: &std::ffi::OsString| path.as_os_str().is_empty() && is_home(n.as_bytes());
            todo.extend(names.filter(|n| !ours(n)).map(|n| path.join(n)));
            "folder".to_owned()
        } else if kind.is_symlink() {
            format!("link to {:?}", fs::read_link(&full).unwrap())
        } else if kind.is_file() {
            format!("file {}", digest(&fs::read(&full).unwrap()))
        } else {
            format!("fifo {} socket {} device {}", kind.is_fifo(), kind.is_socket(), meta.rdev())
        };
        let text = format!(
            "{what} {:o} {}:{} {}.{:09}",
            meta.permissions().mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        out.insert(path, text);
    }
    out
}

/// What two trees differ in, for a message: the first few.
pub(crate) fn difference(one: &Fingerprint, other: &Fingerprint) -> String {
    let paths: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differ = paths.into_iter().filter(|p| one.get(*p) != other.get(*p));
    let lines = differ.take(5).map(|p| format!("  {p:?}: {:?} / {:?}\n", one.get(p), other.get(p)));
    lines.collect()
}

fn is_home(name: &[u8]) -> bool {
    name.starts_with(b".") && name.windows(8).any(|w| w == b".backup-")
}

/// The folders of restores in a folder.
pub(crate) fn homes_in(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    paths.filter(|p| p.file_name().is_some_and(|n| is_home(n.as_bytes()))).collect()
}

/// All names in a folder, sorted.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Names, lengths and digests of the files in a folder.
pub(crate) fn contents(folder: &Path) -> Vec<String> {
    let names = names_in(folder).into_iter();
    names.map(|name| format!("{name} {}", digest(&fs::read(folder.join(&name)).unwrap()))).collect()
}

fn digest(content: &[u8]) -> String {
    let mut hash = DefaultHasher::new();
    content.hash(&mut hash);
    format!("of {} bytes {:016x}", content.len(), hash.finish())
}

/// Runs a program that must succeed.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(
        out.status.success(),
        "{program} {}: {text}{}",
        arguments.join(" "),
        String::from_utf8_lossy(&out.stderr)
    );
    text
}

/// Makes `to` exactly what `from` is.
pub(crate) fn mirror(from: &Path, to: &Path) {
    let (from, to) = (format!("{}/", from.display()), format!("{}/", to.display()));
    // Times are compared to the nanosecond.
    tool("rsync", &["-aHAX", "--modify-window=-1", "--checksum", "--delete", &from, &to]);
}

/// Unmounts when it is dropped.
pub(crate) struct Mount(PathBuf);

impl Mount {
    pub(crate) fn tmpfs(at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        tool("mount", &["-t", "tmpfs", "-o", options, "tmpfs", at.to_str().unwrap()]);
        Mount(at.to_owned())
    }

    /// A folder at a second place.
    pub(crate) fn bind(folder: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        tool("mount", &["--bind", folder.to_str().unwrap(), at.to_str().unwrap()]);
        Mount(at.to_owned())
    }

    pub(crate) fn overlay(lower: &Path, upper: &Path, work: &Path, at: &Path) -> Self {
        for folder in [lower, upper, work, at] {
            fs::create_dir_all(folder).unwrap();
        }
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        tool("mount", &["-t", "overlay", "-o", &options, "overlay", at.to_str().unwrap()]);
        Mount(at.to_owned())
    }

    pub(crate) fn remount(&self, options: &str) {
        tool("mount", &["-o", &format!("remount,{options}"), self.0.to_str().unwrap()]);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: a failing test may still have something open in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
