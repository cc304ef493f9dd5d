//! SQLite databases in a folder that is backed up while another process writes to them all the time.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

mod support;

use rusqlite::{Connection, TransactionBehavior};
use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use support::{
    Place,
    trial::{Random, is_soak, names_in, times},
};

const ACCOUNTS: i64 = 1000;
const EACH: i64 = 1_000_000;
/// Tells the test that it is the writer.
const WRITER: &str = "BACKUP_SOAK_WRITER";
/// How long a writer may wait because of a backup: what is promised, and what a loaded machine is given in the tests.
const PROMISED: Duration = Duration::from_millis(50);
const IN_TESTS: Duration = Duration::from_secs(1);

#[test]
fn a_ledger_that_is_written_all_the_time_is_consistent_in_every_backup() {
    if let Some(database) = env::var_os(WRITER) {
        return write(Path::new(&database));
    }
    let place = Place::new();
    fs::create_dir(place.path("app")).unwrap();
    let database = place.path("app/ledger.db");
    open_accounts(&database, times(5_000, 50_000));
    let mut random = Random::new("soak_sqlite");
    let rest = place.path("app/rest.db");
    open_accounts(&rest, 0);
    fs::write(place.path("app/rest-too.bin"), random.bytes(100_000)).unwrap();
    let at_rest = fs::read(&rest).unwrap();

    let mut writer = Writer::start(&database);
    let alone = writer.longest_within(|| std::thread::sleep(Duration::from_secs(times(2, 20) as u64)));
    let names = names_in(&place.path("app"));
    let (mut during, mut commits) = (Duration::ZERO, 0);
    let rounds = times(3, 20);
    for i in 0..rounds {
        let begun = writer.commits();
        let longest = writer.longest_within(|| drop(place.expect(0, &["create", "app", "--to", "b"])));
        commits += writer.commits() - begun;
        during = during.max(longest);
        assert_eq!(names_in(&place.path("app")), names, "the backup left something in the source");
        let to = format!("copy{i}");
        place.expect(0, &["restore", "latest", "--from", "b", "--to", &to]);
        is_sound(&place.path(&to).join("ledger.db"));
        assert_eq!(fs::read(place.path(&to).join("rest.db")).unwrap(), at_rest);
    }
    writer.stop();
    is_sound(&database);
    assert_eq!(fs::read(&rest).unwrap(), at_rest);
    assert!(commits > rounds as u64 * 10, "only {commits} commits while {rounds} backups were made");
    println!(
        "soak: longest commit {:.1} ms during {rounds} backups ({commits} commits), {:.1} ms without; all copies sound",
        during.as_secs_f64() * 1e3,
        alone.as_secs_f64() * 1e3
    );
    let limit = if is_soak() { PROMISED } else { IN_TESTS };
    assert!(during <= limit, "a commit took {during:?} during a backup, {alone:?} without");
}

/// With so many rows that nobody touches: what makes a backup take its time.
fn open_accounts(path: &Path, history: usize) {
    let mut db = Connection::open(path).unwrap();
    db.pragma_update(None, "journal_mode", "wal").unwrap();
    db.execute_batch("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT)")
        .unwrap();
    let t = db.transaction().unwrap();
    for id in 0..ACCOUNTS {
        t.execute("INSERT INTO account VALUES (?1, ?2, ?3)", (id, EACH, "n".repeat(2000))).unwrap();
    }
    t.execute_batch("CREATE TABLE history (text BLOB)").unwrap();
    for _ in 0..history {
        t.execute("INSERT INTO history VALUES (randomblob(2000))", []).unwrap();
    }
    t.commit().unwrap();
    db.close().unwrap();
}

fn is_sound(path: &Path) {
    let db = Connection::open(path).unwrap();
    let checked: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(checked, "ok", "{}", path.display());
    let (sum, count): (i64, i64) = db
        .query_row("SELECT sum(balance), count(*) FROM account", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    assert_eq!((sum, count), (ACCOUNTS * EACH, ACCOUNTS), "{}", path.display());
}

/// Moves money until its input ends; says `end of commit in µs since 1970, duration in µs` of every commit.
fn write(path: &Path) {
    let mut db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(30)).unwrap();
    // What is measured is waiting for a backup, not for the disk.
    db.pragma_update(None, "synchronous", "off").unwrap();
    let mut random = Random::new("writer");
    let mut out = std::io::stdout().lock();
    loop {
        let begun = Instant::now();
        let t = db.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        for _ in 0..5 {
            let amount = random.below(100) as i64;
            let change = "UPDATE account SET balance = balance + ?1 WHERE id = ?2";
            t.execute(change, (amount, random.below(ACCOUNTS as u64) as i64)).unwrap();
            t.execute(change, (-amount, random.below(ACCOUNTS as u64) as i64)).unwrap();
        }
        t.commit().unwrap();
        let (took, now) = (begun.elapsed(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        if writeln!(out, "commit {} {}", now.as_micros(), took.as_micros()).is_err() {
            return; // nobody reads any more
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// The other process.
struct Writer {
    child: Child,
    /// When each commit ended, since 1970, and how long it took.
    seen: std::sync::Arc<std::sync::Mutex<Vec<(Duration, Duration)>>>,
}

impl Writer {
    /// This very test, which then writes.
    fn start(database: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "a_ledger_that_is_written_all_the_time_is_consistent_in_every_backup",
                "--nocapture",
            ])
            .env(WRITER, database)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let to = seen.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut words = line.split_whitespace().skip_while(|w| *w != "commit").skip(1);
                let mut micros = || Some(Duration::from_micros(words.next()?.parse().ok()?));
                if let (Some(end), Some(took)) = (micros(), micros()) {
                    to.lock().unwrap().push((end, took));
                }
            }
        });
        let writer = Writer { child, seen };
        let from = Instant::now();
        while writer.commits() < 10 {
            assert!(from.elapsed() < Duration::from_secs(20), "the writer does not write");
            std::thread::sleep(Duration::from_millis(5));
        }
        writer
    }

    fn commits(&self) -> u64 {
        self.seen.lock().unwrap().len() as u64
    }

    /// The longest commit that went on while something was done.
    fn longest_within(&mut self, what: impl FnOnce()) -> Duration {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let begun = now();
        what();
        let ended = now();
        // One that began in time is told of when it has ended.
        let commits = self.commits();
        while self.commits() < commits + 2 {
            assert!(self.child.try_wait().unwrap().is_none(), "the writer has ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        let seen = self.seen.lock().unwrap();
        let within = seen.iter().filter(|(end, took)| *end >= begun && end.saturating_sub(*took) <= ended);
        within.map(|(_, took)| *took).max().unwrap()
    }

    fn stop(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
