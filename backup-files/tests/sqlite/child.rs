//! Other processes: this test binary, started again to do one thing with a database.

use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::database::ledger_transfer;

const WHAT: &str = "BACKUP_TEST_CHILD";
const DATABASE: &str = "BACKUP_TEST_DATABASE";

/// A process that has the database open; killed when dropped.
pub(crate) struct Other {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Other {
    /// Returns once the process says that it is ready.
    pub(crate) fn start(what: &str, database: &Path) -> Other {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::other_process", "--ignored", "--nocapture"])
            .env(WHAT, what)
            .env(DATABASE, database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        line_with(&mut output, "ready");
        Other { child, output }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and returns what it has to say: commits and the longest one.
    pub(crate) fn finish(mut self) -> (u64, Duration) {
        drop(self.child.stdin.take());
        let line = line_with(&mut self.output, "commits ");
        let mut words = line.split("commits ").nth(1).unwrap().split_whitespace();
        let commits = words.next().unwrap().parse().unwrap();
        let longest = Duration::from_micros(words.next().unwrap().parse().unwrap());
        self.child.wait().unwrap();
        (commits, longest)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line_with(output: &mut impl BufRead, what: &str) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the other process ended without {what:?}");
        if line.contains(what) {
            return line;
        }
    }
}

#[test]
#[ignore = "started by the other tests as a process of its own"]
fn other_process() {
    let path = std::env::var_os(DATABASE).expect("started by another test");
    let what = std::env::var(WHAT).unwrap();
    // What is measured then is waiting for a copy, not for the disk.
    let (what, at_once) = match what.strip_suffix(" at once") {
        Some(what) => (what, true),
        None => (&*what, false),
    };
    let open = |path: &Path| {
        let connection = open(path);
        if at_once {
            connection.pragma_update(None, "synchronous", "off").unwrap();
        }
        connection
    };
    if what == "reopens" {
        return writes(|| {
            let connection = open(path.as_ref());
            ledger_transfer(&connection);
        });
    }
    let connection = open(path.as_ref());
    match what {
        "writes" => writes(|| ledger_transfer(&connection)),
        "reads" => {
            connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").unwrap();
            println!("ready");
        }
        "holds-exclusively" => {
            connection
                .execute_batch("BEGIN EXCLUSIVE; UPDATE ledger SET amount = amount + 1 WHERE id = 1")
                .unwrap();
            println!("ready");
        }
        "keeps-exclusively" => {
            connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE").unwrap();
            ledger_transfer(&connection);
            println!("ready");
        }
        "spills" => {
            connection
                .execute_batch(
                    "PRAGMA cache_size = 5; PRAGMA cache_spill = 1; BEGIN;
                     UPDATE ledger SET amount = amount + 7, note = hex(randomblob(200));
                     DELETE FROM ledger WHERE id % 3 = 0;
                     UPDATE ledger SET amount = amount + 7, note = hex(randomblob(100));",
                )
                .unwrap();
            println!("ready");
        }
        "leaves-wal" => {
            connection.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
            for _ in 0..50 {
                ledger_transfer(&connection);
            }
            connection
                .execute_batch("UPDATE ledger SET note = hex(randomblob(150)) WHERE id % 2 = 0")
                .unwrap();
            println!("ready");
        }
        other => panic!("unknown: {other}"),
    }
    wait_for_end();
}

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(20)).unwrap();
    connection
}

fn wait_for_end() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

fn writes(one: impl Fn()) {
    let (sender, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        wait_for_end();
        let _ = sender.send(());
    });
    // Not ready before it has the database open and has written to it: until then nobody would see that it is in use.
    one();
    println!("ready");
    let (mut commits, mut longest) = (1, Duration::ZERO);
    while ended.try_recv().is_err() {
        let start = Instant::now();
        one();
        longest = longest.max(start.elapsed());
        commits += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("commits {commits} {}", longest.as_micros());
}
