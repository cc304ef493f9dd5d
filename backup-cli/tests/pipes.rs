//! Archives that go through pipes.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::{
    fs,
    io::Read,
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::{
    Place,
    trial::{fingerprint, names_in, tool},
};

/// Runs a line of bash in which `backup` is the program; the state folder and `TMPDIR` are those of the place.
fn bash(place: &Place, line: &str) -> (i32, String, String) {
    fs::create_dir_all(place.path("tmp")).unwrap();
    let script =
        format!("set -o pipefail\nbackup() {{ '{}' \"$@\"; }}\n{line}", env!("CARGO_BIN_EXE_backup"));
    let mut command = Command::new("bash");
    command.args(["-c", &script]).current_dir(place.path("")).stdin(Stdio::null());
    command.env("BACKUP_STATE_DIR", place.path("state")).env("TMPDIR", place.path("tmp")).env("TZ", "UTC");
    let out = command.output().unwrap();
    let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
    assert!(names_in(&place.path("tmp")).is_empty(), "something is left of a spooled pipe");
    (out.status.code().unwrap_or(-1), text(out.stdout), text(out.stderr))
}

fn expect(place: &Place, code: i32, line: &str) -> (String, String) {
    let (got, out, err) = bash(place, line);
    assert_eq!(got, code, "{line}\n{out}\n{err}");
    (out, err)
}

#[test]
fn an_archive_goes_through_a_pipe_and_is_restored_from_one() {
    let place = Place::with_tree();
    place.write_large("tree/large");
    let (_, err) = expect(&place, 0, "backup create ./tree --to - | backup restore - --to ./out");
    assert!(err.contains("temporary file"), "{err}");
    assert_eq!(fingerprint(&place.path("out")), fingerprint(&place.path("tree")));
}

#[test]
fn what_is_on_stdout_is_the_archive_and_nothing_else() {
    let place = Place::with_tree();
    let (_, err) = expect(&place, 0, "backup create tree --to - > x.tar.zst");
    assert!(err.contains("complete"), "{err}");
    tool("zstd", &["-qt", place.path("x.tar.zst").to_str().unwrap()]);
    place.expect(0, &["verify", "x.tar.zst"]);
    expect(&place, 0, "backup create tree --to - --format tar --quiet > x.tar");
    assert!(tool("tar", &["-tf", place.path("x.tar").to_str().unwrap()]).ends_with("locator\n"));
    place.expect(0, &["verify", "x.tar"]);
    expect(&place, 2, "backup create tree --to - --json > nothing");
    assert_eq!(place.read("nothing").lines().count(), 1);
    expect(&place, 2, "backup create tree --to - --format zip");
    expect(&place, 2, "backup create tree --to y.tar --format tar.zst");
    expect(&place, 0, "backup create tree --to - --dry-run > empty && test ! -s empty");
}

#[test]
fn a_terminal_is_no_place_for_an_archive() {
    let place = Place::with_tree();
    let backup = env!("CARGO_BIN_EXE_backup");
    for line in ["create tree --to -", "verify -", "list --from -"] {
        let (code, out, err) = bash(&place, &format!("script -qec \"{backup} {line}\" /dev/null"));
        assert_eq!(code, 2, "{line}: {out}{err}");
        assert!(out.contains("it is a terminal"), "{out}");
    }
}

#[test]
fn every_command_that_reads_takes_a_pipe() {
    let place = Place::with_tree();
    expect(&place, 0, "backup create tree --to - > x.tar.zst");
    let with = |line: &str| expect(&place, 0, &format!("cat x.tar.zst | backup {line}")).0;
    assert!(with("verify -").contains("sound"));
    assert!(with("list --from -").contains("complete"));
    assert!(with("ls -").contains("tree/sub/b.txt"));
    assert!(with("show -").contains("component tree"));
    assert_eq!(with("dump - tree/a.txt"), "alpha");
    assert!(with("copy - --to b").contains("copied"));
    expect(&place, 0, "backup copy latest --from b --to - | backup verify -");
    expect(&place, 0, "backup copy latest --from b --to - | cmp - b/*.tar.zst");
    expect(&place, 2, "cat x.tar.zst | backup heal --from -");
    expect(&place, 6, "cat x.tar.zst | backup restore -");
}

#[test]
fn a_reader_that_goes_away_is_a_failure() {
    let place = Place::with_tree();
    place.write_large("tree/large");
    let (_, err) = expect(&place, 4, "backup create tree --to - | head -c 100000 > /dev/null");
    assert!(err.contains("write into the pipe") && err.contains("is no backup"), "{err}");
    assert!(!err.contains("WARNING"), "nothing is wrong with the sources: {err}");
    place.expect(0, &["create", "tree", "--to", "b"]);
    expect(&place, 4, "backup copy latest --from b --to - | head -c 100000 > /dev/null");
}

#[test]
fn a_pipe_that_ends_early_gives_nothing() {
    let place = Place::with_tree();
    fs::write(place.path("tree/noise"), support::noise(9 << 20)).unwrap();
    expect(&place, 0, "backup create tree --to - > x.tar.zst");
    let length = fs::metadata(place.path("x.tar.zst")).unwrap().len();
    for n in [0, 1000, 5 << 20, length - 1] {
        let (_, err) = expect(&place, 7, &format!("head -c {n} x.tar.zst | backup restore - --to out"));
        assert!(err.contains("no whole archive"), "{err}");
        assert!(!place.path("out").exists());
    }
    let (code, ..) = bash(&place, "head -c 5000000 x.tar.zst | backup verify -");
    assert_eq!(code, 7);
}

/// Before that a signal ends it as it ends any program.
#[cfg(target_os = "linux")]
fn wait_until_it_hears_signals(child: &std::process::Child) {
    let from = Instant::now();
    let caught = || {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() >> (rustix::process::Signal::TERM.as_raw() - 1) & 1 == 1
    };
    while !caught() {
        assert!(from.elapsed() < Duration::from_secs(60), "it does not listen to signals");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_pipe_that_stands_still_does_not_hold_an_interrupted_run() {
    let place = Place::with_tree();
    place.write_large("tree/large");
    // Nobody reads; and nobody writes.
    let writes = place.command(&["create", "tree", "--to", "-"]).stdout(Stdio::piped()).spawn().unwrap();
    let reads = place.command(&["verify", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    for mut child in [writes, reads] {
        wait_until_it_hears_signals(&child);
        // It comes to stand still.
        std::thread::sleep(Duration::from_millis(700));
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let from = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(from.elapsed() < Duration::from_secs(20), "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!((status.code(), status.signal()), (Some(130), None));
        let mut rest = Vec::new();
        child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
    }
}
