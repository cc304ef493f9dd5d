//! Backups of what is being changed, runs without root, and runs that are interrupted.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

mod support;

use rustix::process::Signal;
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};
use support::{
    Place, Ran,
    trial::{Random, Run, fingerprint, homes_in, is_root, names_in},
};

const NOBODY: u32 = 65534;
/// An interrupted run is over within this time, also where others keep the disk busy.
const OVER: Duration = Duration::from_secs(20);

#[test]
fn a_folder_that_changes_all_the_time_is_backed_up_and_the_rest_of_it_is_equal() {
    let place = Place::new();
    let mut random = Random::new("live");
    for i in 0..200 {
        place.write(&format!("tree/live/{i}"), &"x".repeat(i * 100));
        place.write(&format!("tree/still/{}/{i}", i % 5), &format!("{i} ").repeat(i));
    }
    // One that is streamed, and takes longer to read.
    fs::write(place.path("tree/live/large"), random.bytes(24 << 20)).unwrap();
    let still = fingerprint(&place.path("tree/still"));
    let over = AtomicBool::new(false);
    let code = thread::scope(|scope| {
        scope.spawn(|| change(&place, &mut random, &over));
        let codes: Vec<i32> = (0..3).map(|_| place.run(&["create", "tree", "--to", "b"]).code).collect();
        over.store(true, Relaxed);
        codes
    });
    assert!(code.iter().all(|c| [0, 5].contains(c)), "{code:?}");
    place.expect(0, &["verify", "--from", "b"]);
    let list = place.json(0, &["list", "--from", "b"]);
    for (i, backup) in list["backups"].as_array().unwrap().iter().enumerate() {
        let to = format!("copy{i}");
        place.expect(0, &["restore", backup["id"].as_str().unwrap(), "--from", "b", "--to", &to]);
        assert_eq!(fingerprint(&place.path(&to).join("still")), still);
    }
}

/// Appends, truncates, rewrites, renames, removes and creates, until it is told that it is over.
fn change(place: &Place, random: &mut Random, over: &AtomicBool) {
    let live = place.path("tree/live");
    while !over.load(Relaxed) {
        let name = match random.below(50) {
            0 => "large".to_owned(),
            _ => random.below(200).to_string(),
        };
        let path = live.join(&name);
        // What one of these needs may have been renamed or removed by another: that is the point.
        let _ = match random.below(6) {
            0 => OpenOptions::new().append(true).open(&path).and_then(|mut f| f.write_all(b"appended")),
            1 => OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(random.below(2000))),
            2 => fs::write(&path, random.bytes(if name == "large" { 8 << 20 } else { 3000 })),
            3 => fs::rename(&path, live.join(format!("{}", random.below(200)))),
            4 if name != "large" => fs::remove_file(&path),
            _ => fs::write(live.join(format!("{}", random.below(200))), "created"),
        };
    }
}

#[test]
fn the_moment_of_files_ends_when_the_last_of_them_is_read() {
    let place = Place::new();
    fs::create_dir(place.path("tree")).unwrap();
    let db = rusqlite::Connection::open(place.path("tree/app.db")).unwrap();
    db.execute_batch("CREATE TABLE t (x); BEGIN EXCLUSIVE; INSERT INTO t VALUES (1)").unwrap();
    let run = Run::start(&place, &["create", "tree", "--to", "b"]);
    // The first moment is before that.
    assert!(run.reaches("pour"));
    thread::sleep(Duration::from_millis(1500));
    db.execute_batch("COMMIT").unwrap();
    drop(db);
    assert_eq!(run.code_within(Duration::from_secs(60)), 0);
    let shown = place.json(0, &["show", "latest", "--from", "b"]);
    let moment = &shown["manifest"]["components"][0]["moment"];
    let time = |which: &str| moment[which].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("last").duration_since(time("first")).as_millis() > 1000, "{moment}");
}

#[test]
fn a_file_that_vanishes_after_it_was_listed_is_a_note_and_the_backup_is_complete() {
    let place = Place::new();
    // The names are listed at once and the files opened one by one; the first is large, so that there is time.
    for attempt in 0..20 {
        fs::create_dir_all(place.path("tree")).unwrap();
        for i in 0..4000 {
            fs::write(place.path(&format!("tree/{i:05}")), "x".repeat(2000)).unwrap();
        }
        let run = Run::start(&place, &["create", "tree", "--to", "b"]);
        assert!(run.reaches("pour"));
        thread::sleep(Duration::from_millis(2 * attempt));
        run.signal(Signal::STOP);
        (2000..4000).for_each(|i| fs::remove_file(place.path(&format!("tree/{i:05}"))).unwrap());
        run.signal(Signal::CONT);
        assert_eq!(run.code_within(Duration::from_secs(60)), 0);
        let shown = place.json(0, &["show", "latest", "--from", "b"]).to_string();
        place.expect(0, &["verify", "latest", "--from", "b"]);
        if shown.contains("vanished after it was listed") {
            return;
        }
    }
    panic!("in 20 runs no file vanished between its listing and its opening");
}

/// Runs the program as a user who owns nothing.
fn as_nobody(place: &Place, line: &[&str]) -> Ran {
    let program = place.path("program");
    if !program.exists() {
        fs::set_permissions(place.path(""), Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_backup"), &program).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(place.path("own")).unwrap();
        std::os::unix::fs::chown(place.path("own"), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mut command = Command::new(program);
    command.args(line).current_dir(place.path("")).uid(NOBODY).gid(NOBODY).env_clear();
    command.env("TZ", "UTC").env("BACKUP_STATE_DIR", place.path("own/state")).output().unwrap().into()
}

#[test]
fn a_file_that_this_user_may_not_read_makes_the_backup_partial_and_is_named() {
    if !is_root("a_file_that_this_user_may_not_read_makes_the_backup_partial_and_is_named") {
        return;
    }
    let place = Place::with_tree();
    place.write("tree/private", "secret");
    place.write("tree/closed/inside", "unseen");
    for (path, mode) in [("tree/private", 0o600), ("tree/closed", 0o700)] {
        fs::set_permissions(place.path(path), Permissions::from_mode(mode)).unwrap();
    }
    let ran = as_nobody(&place, &["create", "tree", "--to", "own/b"]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, 5, "{said}");
    assert!(said.contains("private") && said.contains("closed"), "{said}");
    let list = place.json(0, &["list", "--from", "own/b"]);
    assert_eq!(list["backups"][0]["state"], "partial");
    place.expect(0, &["verify", "--from", "own/b"]);
}

#[test]
fn without_root_owners_that_cannot_be_restored_are_a_partial_restore_unless_not_wanted() {
    if !is_root("without_root_owners_that_cannot_be_restored_are_a_partial_restore_unless_not_wanted") {
        return;
    }
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b.tar.zst"]);
    fs::set_permissions(place.path("b.tar.zst"), Permissions::from_mode(0o644)).unwrap();
    let ran = as_nobody(&place, &["restore", "b.tar.zst", "--to", "own/x"]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.code, 5, "{said}");
    assert!(said.contains("owner"), "{said}");
    assert_eq!(place.read("own/x/sub/b.txt"), "beta");
    let ran = as_nobody(&place, &["restore", "b.tar.zst", "--to", "own/y", "--no-owner"]);
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(place.read("own/y/sub/b.txt"), "beta");
    // What needs the same rights as owners is not lost then, and not passed over in silence.
    fs::set_permissions(place.path("tree/a.txt"), Permissions::from_mode(0o4755)).unwrap();
    place.expect(0, &["create", "tree", "--to", "s.tar.zst"]);
    fs::set_permissions(place.path("s.tar.zst"), Permissions::from_mode(0o644)).unwrap();
    let ran = as_nobody(&place, &["restore", "s.tar.zst", "--to", "own/z", "--no-owner"]);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    let told = said.contains("[WARNING]") && said.contains("permissions could not be set: 1 times");
    assert!(ran.code == 0 && told, "{} {said}", ran.code);
    assert!(homes_in(&place.path("own")).is_empty());
}

#[test]
fn an_interrupted_create_or_restore_is_over_soon_and_leaves_nothing() {
    let place = Place::with_tree();
    place.write_large("tree/large");
    for i in 0..500 {
        place.write(&format!("tree/many/{i}"), "x");
    }
    place.expect(0, &["create", "tree", "--to", "b"]);
    File::create(place.path("tree/added since")).unwrap();
    let (folder, tree) = (names_in(&place.path("b")), fingerprint(&place.path("tree")));
    for signal in [Signal::INT, Signal::TERM] {
        let run = Run::start(&place, &["create", "tree", "--to", "b"]);
        assert!(run.reaches("pour"));
        run.signal(signal);
        assert_eq!(run.code_within(OVER), 130);
        assert_eq!(names_in(&place.path("b")), folder, "create, {signal:?}");

        let plan = place.json(0, &["restore", "latest", "--from", "b", "--dry-run"]);
        let id = plan["plan"]["id"].as_str().unwrap();
        let run = Run::start(&place, &["restore", "latest", "--from", "b", "--confirm", id]);
        assert!(run.reaches("pour"));
        run.signal(signal);
        assert_eq!(run.code_within(OVER), 130);
        assert_eq!(fingerprint(&place.path("tree")), tree, "restore, {signal:?}");
        assert!(homes_in(&place.path("")).is_empty(), "restore, {signal:?}");
        assert_eq!(names_in(&place.path("state/restores")), [""; 0], "restore, {signal:?}");
    }
}
