//! Runs the built program as a user does, in a folder of its own, and compares what it says with golden files.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![allow(dead_code, reason = "each test file uses its part")]

#[cfg(unix)]
pub(crate) mod trial;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A folder with a program in it that knows no other configuration, archive or state.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    /// With a small tree in it: `tree/a.txt`, `tree/sub/b.txt`.
    pub(crate) fn with_tree() -> Self {
        let place = Self::new();
        place.write("tree/a.txt", "alpha");
        place.write("tree/sub/b.txt", "beta");
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        // Canonical, because the program prints such paths.
        fs::canonicalize(self.dir.path()).unwrap().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A file that takes a good part of a second to back up or restore: time enough to meet the run in the middle of it.
    pub(crate) fn write_large(&self, name: &str) {
        // The block is larger than the window of the compression, which therefore does not see that it comes again.
        let block = noise(8 << 20);
        let mut file = fs::File::create(self.path(name)).unwrap();
        (0..20).for_each(|_| file.write_all(&block).unwrap());
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Makes `archive` a place for encrypted backups, with the secret key in `key.txt`; returns the public one.
    pub(crate) fn keys(&self, archive: &str) -> String {
        self.expect(0, &["init", archive, "--encrypt", "--identity-file", "key.txt"]);
        let text = self.read("key.txt");
        text.lines().find_map(|line| line.strip_prefix("# public key: ")).unwrap().to_owned()
    }

    pub(crate) fn command(&self, line: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backup"));
        command.args(line).current_dir(self.path("")).stdin(Stdio::null()).env_clear();
        command
            .env("TZ", "UTC")
            .env("BACKUP_STATE_DIR", self.path("state"))
            .env("PATH", std::env::var_os("PATH").unwrap());
        command
    }

    pub(crate) fn run(&self, line: &[&str]) -> Ran {
        self.command(line).output().unwrap().into()
    }

    /// Runs and demands this exit code.
    pub(crate) fn expect(&self, code: i32, line: &[&str]) -> Ran {
        let ran = self.run(line);
        assert_eq!(ran.code, code, "backup {}\n{}{}", line.join(" "), ran.stdout, ran.stderr);
        ran
    }

    /// The final object of a run with `--json`.
    pub(crate) fn json(&self, code: i32, line: &[&str]) -> serde_json::Value {
        let ran = self.expect(code, &[line, &["--json"]].concat());
        let object: serde_json::Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stdout));
        assert_eq!((&object["version"], &object["exit_code"]), (&1.into(), &code.into()), "{object}");
        object
    }

    /// Runs and compares exit code, stdout and stderr with `tests/golden/NAME.txt`. What changes from run to run (times, ids,
    /// this folder) is a placeholder there. `BACKUP_WRITE_GOLDEN=1` writes the files instead.
    pub(crate) fn golden(&self, name: &str, line: &[&str]) {
        let ran = self.run(line);
        self.compare(name, line, &ran);
    }

    pub(crate) fn compare(&self, name: &str, line: &[&str], ran: &Ran) {
        let text = format!(
            "$ backup {}\nexit {}\n--- stdout\n{}--- stderr\n{}",
            line.join(" "),
            ran.code,
            ran.stdout,
            ran.stderr
        );
        let text = self.with_placeholders(&text);
        let file = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
            .join(format!("tests/golden/{name}.txt"));
        if std::env::var_os("BACKUP_WRITE_GOLDEN").is_some() {
            fs::write(&file, &text).unwrap();
        }
        let golden = fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(text, golden, "tests/golden/{name}.txt differs");
    }

    fn with_placeholders(&self, text: &str) -> String {
        let text = text.replace(self.path("").to_str().unwrap().trim_end_matches('/'), "$DIR");
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let text = match host.trim() {
            "" => text,
            host => text.replace(&format!("@{host}"), "@$HOST").replace(&format!("on {host}"), "on $HOST"),
        };
        // A busy machine takes a while.
        let text = (1..60).fold(text, |text, n| text.replace(&format!("({n} s ago)"), "(0 s ago)"));
        let mut out = String::new();
        let mut word = String::new();
        for c in text.chars().chain(['\n']) {
            if c.is_ascii_alphanumeric() || "-:.".contains(c) {
                word.push(c);
            } else {
                let bare = word.trim_end_matches([':', '.']);
                out.push_str(placeholder(bare).unwrap_or(bare));
                out.push_str(&word[bare.len()..]);
                word.clear();
                out.push(c);
            }
        }
        out.pop();
        out
    }
}

/// Words that differ from run to run.
fn placeholder(word: &str) -> Option<&'static str> {
    let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let all = |n: usize, of: fn(char) -> bool| word.len() == n && word.chars().all(of);
    match shape.as_str() {
        "0000-00-00" => Some("$DATE"),
        "00:00:00" => Some("$TIME"),
        "0000-00-00T00:00:00Z" => Some("$TIMESTAMP"),
        _ if shape.starts_with("0000-00-00T00:00:00.") => Some("$TIMESTAMP"),
        _ if all(26, |c| c.is_ascii_digit() || c.is_ascii_lowercase()) => Some("$ID"),
        _ if all(16, |c| c.is_ascii_digit() || ('a'..='f').contains(&c)) => Some("$PLAN"),
        _ => None,
    }
}

impl Ran {
    /// With a text that differs from run to run as a placeholder.
    pub(crate) fn without(&self, text: &str, placeholder: &str) -> Ran {
        let replace = |s: &str| s.replace(text, placeholder);
        Ran { code: self.code, stdout: replace(&self.stdout), stderr: replace(&self.stderr) }
    }
}

/// Says that a test could not run, and fails where `BACKUP_TEST_REQUIRE` names what it needs.
pub(crate) fn could_not_run(needs: &str, why: &str) {
    let required = std::env::var("BACKUP_TEST_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|r| r.trim() == needs), "{needs} is required: {why}");
    eprintln!("could not run ({needs}): {why}");
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Bytes that cannot be compressed.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(length);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out
}
