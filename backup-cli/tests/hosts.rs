//! Who runs the program: a person on a terminal, and a program that gives orders on stdin.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};
use support::{Place, trial::names_in};

/// A run on a terminal of its own (`script` makes one), of which all is read that it shows.
struct Terminal {
    child: Child,
    shown: mpsc::Receiver<u8>,
    text: String,
}

impl Terminal {
    fn run(place: &Place, line: &str) -> Self {
        let mut command = Command::new("script");
        command.args(["-qec", &format!("'{}' {line}", env!("CARGO_BIN_EXE_backup")), "/dev/null"]);
        command.current_dir(place.path("")).env("BACKUP_STATE_DIR", place.path("state")).env("TERM", "xterm");
        command.env_remove("BACKUP_ARCHIVE").env("TZ", "UTC");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, shown) = mpsc::channel();
        let mut out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut byte = [0];
            while out.read(&mut byte).is_ok_and(|n| n == 1) && to.send(byte[0]).is_ok() {}
        });
        Terminal { child, shown, text: String::new() }
    }

    /// Waits until this is shown (after what was waited for before), then types.
    fn when(&mut self, shows: &str, keys: &str) {
        let until = Instant::now() + Duration::from_secs(30);
        let mut bytes = Vec::new();
        while !String::from_utf8_lossy(&bytes).contains(shows) {
            let left = until.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(byte) => bytes.push(byte),
                Err(_) => panic!("{shows:?} is not shown: {}{}", self.text, String::from_utf8_lossy(&bytes)),
            }
        }
        self.text.push_str(&String::from_utf8_lossy(&bytes));
        // A program reads keys only after it has shown what they are for.
        std::thread::sleep(Duration::from_millis(150));
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// What is shown for so long from now on.
    fn shown_within(&mut self, time: Duration) -> String {
        while self.shown.try_recv().is_ok() {}
        let until = Instant::now() + time;
        let mut bytes = Vec::new();
        while let Ok(byte) = self.shown.recv_timeout(until.saturating_duration_since(Instant::now())) {
            bytes.push(byte);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn code(mut self) -> (i32, String) {
        let mut rest: Vec<u8> = Vec::new();
        while let Ok(byte) = self.shown.recv_timeout(Duration::from_secs(30)) {
            rest.push(byte);
        }
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        (code, self.text + &String::from_utf8_lossy(&rest))
    }
}

const DOWN: &str = "\x1b[B";

#[test]
fn on_a_terminal_a_restore_of_nothing_named_is_guided() {
    let place = Place::with_tree();
    place.write("other/x", "x");
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.expect(0, &["create", "one=tree", "two=other", "-m", "app", "--to", "b"]);
    place.write("tree/a.txt", "changed since");
    // Series are in the order of their names: app, tree. The place stays empty: where it came from.
    let mut terminal = Terminal::run(&place, "restore --from b");
    terminal.when("Series", &format!("{DOWN}\r"));
    terminal.when("Backup", "\r");
    terminal.when("Where to", "\r");
    terminal.when("Type the name of the module", "tree\n");
    let (code, text) = terminal.code();
    assert_eq!(code, 0, "{text}");
    assert_eq!(place.read("tree/a.txt"), "alpha");
    // One of two components, elsewhere.
    let mut terminal = Terminal::run(&place, "restore --from b -m app");
    terminal.when("Backup", "\r");
    terminal.when("Components", " \r");
    terminal.when("Where to", "elsewhere\r");
    let (code, text) = terminal.code();
    assert_eq!(code, 0, "{text}");
    assert_eq!(names_in(&place.path("elsewhere")), ["x"]);
    // Escape gives up.
    let mut terminal = Terminal::run(&place, "restore --from b");
    terminal.when("Series", "\x1b");
    let (code, text) = terminal.code();
    assert_eq!(code, 6, "{text}");
}

/// Long enough for every bar to be drawn over what was shown.
const REDRAWN: Duration = Duration::from_millis(700);

#[test]
fn no_bar_is_drawn_over_a_question_or_the_recovery_sheet() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "changed since");
    let confirmed = |line: &str, question: &str, answer: &str| {
        let mut terminal = Terminal::run(&place, line);
        terminal.when(question, "");
        let after = terminal.shown_within(REDRAWN);
        assert_eq!(after, "", "{line}: drawn while it is asked: {after:?}");
        terminal.when("", answer);
        terminal
    };
    let mut plain = confirmed("restore", "Archive (a folder of backups, or a file): ", "b\r");
    plain.when("Backup", "\r");
    plain.when("Where to", "\r");
    plain.when("to go on: ", "tree\n");
    assert_eq!(plain.code().0, 0);
    assert_eq!(place.read("tree/a.txt"), "alpha");
    let (code, text) = confirmed("restore --undo", "(tree) to go on: ", "tree\n").code();
    assert_eq!((code, place.read("tree/a.txt").as_str()), (0, "changed since"), "{text}");
    // What is printed stands below the place of the bar, whole.
    let (code, sheet) = Terminal::run(&place, "init c --encrypt").code();
    assert_eq!(code, 0, "{sheet}");
    let from = sheet.rfind("# Recovery sheet").unwrap();
    let secret = sheet[from..].find("AGE-SECRET-KEY-1").unwrap();
    assert!(!sheet[from..].contains('\x1b') && secret > 0, "{sheet:?}");
}

#[test]
fn without_a_terminal_nothing_is_asked() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.expect(2, &["restore", "--from", "b"]);
}

#[test]
fn man_pages_are_printed_and_written() {
    let place = Place::new();
    assert!(place.expect(0, &["man"]).stdout.contains(".TH backup 1"));
    place.expect(0, &["man", "pages/man1"]);
    let pages = names_in(&place.path("pages/man1"));
    for page in ["backup.1", "backup-restore.1", "backup-copy.1", "backup-config-check.1"] {
        assert!(pages.iter().any(|p| p == page), "{pages:?}");
    }
    assert!(place.read("pages/man1/backup-restore.1").contains("merge"));
}

/// A run that takes orders, met in the middle of its work.
fn ordered(place: &Place) -> (Child, BufReader<std::process::ChildStderr>) {
    let line = ["create", "tree", "--to", "b", "--json", "--progress", "json", "--control", "stdin"];
    let mut command = place.command(&line);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(child.stderr.take().unwrap());
    let mut event = String::new();
    while !event.contains("\"pour\"") {
        event.clear();
        assert!(events.read_line(&mut event).unwrap() > 0, "it ended before it poured");
    }
    (child, events)
}

fn ended(child: Child) -> (i32, serde_json::Value) {
    let out = child.wait_with_output().unwrap();
    (out.status.code().unwrap_or(-1), serde_json::from_slice(&out.stdout).unwrap())
}

#[test]
fn a_run_is_cancelled_by_a_line_and_by_the_end_of_orders() {
    let place = Place::with_tree();
    place.write_large("tree/large");
    for order in ["what?\ncancel\n", ""] {
        let (mut child, mut events) = ordered(&place);
        let mut orders = child.stdin.take().unwrap();
        orders.write_all(order.as_bytes()).unwrap();
        drop(orders);
        let mut all = String::new();
        events.read_to_string(&mut all).unwrap();
        let (code, object) = ended(child);
        assert_eq!(
            (code, &object["exit_code"], &object["error"]["kind"]),
            (130, &130.into(), &"cancelled".into())
        );
        for line in all.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        }
        assert_eq!(all.contains("what?"), order.starts_with("what?"), "{all}");
        assert_eq!(names_in(&place.path("b")), [""; 0], "something is left");
    }
}

#[test]
fn a_run_that_gets_no_orders_goes_to_its_end() {
    let place = Place::with_tree();
    place.write_large("tree/large");
    let (mut child, _events) = ordered(&place);
    let orders = child.stdin.take().unwrap();
    let (code, object) = ended(child);
    drop(orders);
    assert_eq!((code, &object["exit_code"]), (0, &0.into()), "{object}");
    let mut command = place.command(&["verify", "-", "--control", "stdin"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let orders = child.stdin.take().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
    drop(orders);
}
