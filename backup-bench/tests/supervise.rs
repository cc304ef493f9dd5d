//! The figures of a supervised command are those of its whole process tree.
#![cfg(target_os = "linux")]
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail by panicking")]

use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn supervise(stdout: Option<&Path>, command: &[&str]) -> Value {
    let mut supervisor = Command::new(env!("CARGO_BIN_EXE_backup-bench"));
    supervisor.args(["supervise", "--cpus", "2"]);
    if let Some(file) = stdout {
        supervisor.arg("--stdout").arg(file);
    }
    let output = supervisor.arg("--").args(command).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_outlives_its_parent_is_waited_for_and_its_time_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let done = dir.path().join("done");
    let script = r#"{ for ((i = 0; i < 300000; i++)); do :; done; times > "$1"; } > /dev/null & exit 0"#;
    let usage = supervise(None, &["bash", "-c", script, "bash", done.to_str().unwrap()]);

    // `times` of bash: user and system time of the shell that did the work, as 0m0.123s 0m0.004s.
    let times = std::fs::read_to_string(&done).unwrap();
    let own = times.lines().next().unwrap().split_whitespace();
    let own: f64 =
        own.map(|t| t.trim_start_matches("0m").trim_end_matches('s').parse::<f64>().unwrap()).sum();
    assert!(own > 0.05, "{times}");
    assert!(usage["cpu_us"].as_f64().unwrap() / 1e6 > own * 0.9, "{usage} {times}");
    assert!(usage["wall_ns"].as_f64().unwrap() / 1e9 > own * 0.9, "{usage} {times}");
}

#[test]
fn the_peak_is_that_of_the_largest_process_of_this_run_alone() {
    let large = supervise(None, &["bash", "-c", r"x=$(head -c 40000000 /dev/zero | tr '\0' a); : ${#x}"]);
    assert!(large["peak_rss"].as_u64().unwrap() >= 40_000_000, "{large}");
    let small = supervise(None, &["true"]);
    assert!(small["peak_rss"].as_u64().unwrap() < 20_000_000, "{small}");
}

#[test]
fn the_bytes_that_the_command_reads_are_counted_and_its_output_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (file, copy) = (dir.path().join("file"), dir.path().join("copy"));
    std::fs::write(&file, vec![7; 10_000_000]).unwrap();
    let usage = supervise(Some(&copy), &["dd", &format!("if={}", file.display()), "bs=64K", "status=none"]);
    let read = usage["read_bytes"].as_u64().unwrap();
    assert!((10_000_000..10_200_000).contains(&read), "{usage}");
    assert_eq!(std::fs::read(&copy).unwrap().len(), 10_000_000);
}

#[test]
fn a_failure_keeps_its_exit_code_and_a_signal_has_none() {
    assert_eq!(supervise(None, &["bash", "-c", "exit 7"])["exit"], 7);
    assert_eq!(supervise(None, &["bash", "-c", "kill -9 $$"])["exit"], Value::Null);
}
