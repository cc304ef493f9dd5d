//! Backups that are copied from one archive into another.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::{fs, os::unix::fs::MetadataExt};
use support::{
    Place,
    trial::{Run, fingerprint, names_in, tool},
};

/// What `tar` and the archive's own sums say of all contents.
fn sums(place: &Place, archive: &str, to: &str) -> Vec<String> {
    let out = place.path(to);
    fs::create_dir(&out).unwrap();
    tool("tar", &["-xpf", place.path(archive).to_str().unwrap(), "-C", out.to_str().unwrap()]);
    let script =
        format!("cd {} && cat SHA256SUMS/* > sums && sha256sum --quiet -c sums && sort sums", out.display());
    tool("sh", &["-c", &script]).lines().map(str::to_owned).collect()
}

#[test]
fn a_copy_is_the_same_backup_whatever_it_is_written_as() {
    let place = Place::with_tree();
    place.write("tree/caf\u{e9} \n x", "a name");
    fs::hard_link(place.path("tree/a.txt"), place.path("tree/sub/same")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.path("tree/link")).unwrap();
    tool("truncate", &["-s", "3M", place.path("tree/hole").to_str().unwrap()]);
    tool("setfattr", &["-n", "user.x", "-v", "1", place.path("tree/a.txt").to_str().unwrap()]);
    place.write_large("tree/large");
    place.expect(0, &["create", "tree", "--to", "a.tar.zst", "--tag", "t", "--note", "n"]);
    place.expect(0, &["copy", "a.tar.zst", "--to", "b.tar"]);
    place.expect(0, &["copy", "b.tar", "--to", "c"]);
    let c =
        format!("c/{}", names_in(&place.path("c")).into_iter().find(|n| n.ends_with(".tar.zst")).unwrap());
    for file in ["b.tar", &c] {
        place.expect(0, &["verify", file]);
        let ls = |file: &str| {
            let listed = place.json(0, &["ls", file, "tree"])["entries"].clone();
            let mut lines: Vec<_> = listed.as_array().unwrap().iter().map(ToString::to_string).collect();
            lines.sort();
            lines
        };
        assert_eq!(ls("a.tar.zst"), ls(file));
        let mut manifests = ["a.tar.zst", file].map(|f| place.json(0, &["show", f])["manifest"].clone());
        manifests.iter_mut().for_each(|m| drop(m.as_object_mut().unwrap().remove("layout")));
        assert_eq!(manifests[0], manifests[1]);
    }
    let first = sums(&place, "a.tar.zst", "from-a");
    assert!(!first.is_empty());
    assert_eq!(first, sums(&place, "b.tar", "from-b"));
    assert_eq!(first, sums(&place, &c, "from-c"));
    place.expect(0, &["restore", &c, "--to", "restored"]);
    assert_eq!(fingerprint(&place.path("restored")), fingerprint(&place.path("tree")));
    assert_eq!(place.path("restored/hole").metadata().unwrap().blocks(), 0);
    assert_eq!(place.path("restored/a.txt").metadata().unwrap().nlink(), 2);
}

#[test]
fn only_what_is_missing_is_copied_and_said() {
    let place = Place::with_tree();
    place.write("other/x", "x");
    place.expect(0, &["create", "tree", "--to", "a"]);
    place.expect(0, &["create", "other", "--to", "a"]);
    place.expect(2, &["copy", "--from", "a", "--to", "b"]);
    place.expect(2, &["copy", "--all", "--from", "a", "--to", "one.tar"]);
    let dry = place.json(0, &["copy", "--all", "--from", "a", "--to", "b", "--dry-run"]);
    assert_eq!(dry["report"]["backups"][0]["result"], "missing", "{dry}");
    assert!(!place.path("b").exists());
    let one = place.json(0, &["copy", "latest", "-m", "tree", "--from", "a", "--to", "b"]);
    assert_eq!(one["report"]["backups"][0]["result"], "copied", "{one}");
    let all = place.json(0, &["copy", "--all", "--from", "a", "--to", "b"]);
    let results: Vec<_> = all["report"]["backups"].as_array().unwrap().iter().map(|b| &b["result"]).collect();
    assert_eq!(results, ["already-there", "copied"], "{all}");
    let again = place.expect(0, &["copy", "--all", "--from", "a", "--to", "b"]);
    assert_eq!(again.stdout.matches("already there").count(), 2, "{}", again.stdout);
    place.expect(3, &["copy", "--all", "--from", "nowhere", "--to", "b"]);
    place.expect(3, &["copy", "--all", "-m", "nothing", "--from", "a", "--to", "b"]);
    place.expect(4, &["copy", "--all", "--from", "a", "--to", "no/such/folder"]);
}

/// What copying all into `to` comes to, oldest first, and the archives that are there then.
fn copied(place: &Place, code: i32, to: &str, keys: &[&str]) -> (Vec<String>, usize) {
    let ran = place.json(code, &[&["copy", "--all", "--from", "a", "--to", to], keys].concat());
    let backups = ran["report"]["backups"].as_array().unwrap();
    let results = backups.iter().map(|b| b["result"].as_str().unwrap().to_owned()).collect();
    let archives = names_in(&place.path(to)).iter().filter(|n| n.ends_with(".age")).count();
    (results, archives)
}

fn public_key(place: &Place, file: &str) -> String {
    let text = place.read(file);
    text.lines().find_map(|l| l.strip_prefix("# public key: ")).unwrap().to_owned()
}

#[test]
fn an_encrypted_backup_that_lost_what_stands_beside_it_is_not_copied_twice() {
    let place = Place::with_tree();
    place.write("other/x", "x");
    for (archive, key) in [("a", "key.txt"), ("b", "key-b.txt")] {
        place.expect(0, &["init", archive, "--encrypt", "--identity-file", key]);
    }
    let (key, key_b) = (public_key(&place, "key.txt"), public_key(&place, "key-b.txt"));
    for source in ["tree", "other"] {
        place.expect(0, &["create", source, "--to", "a", "--recipient", &key]);
    }
    let lose = |archive: &str| {
        let all = names_in(&place.path(archive)).into_iter().filter(|n| n.ends_with(".manifest.json"));
        all.for_each(|n| fs::remove_file(place.path(archive).join(n)).unwrap());
    };
    let there = (vec!["already-there".to_owned(); 2], 2);
    let keys = ["--recipient", &key, "--identity", "key.txt"];
    assert_eq!(copied(&place, 0, "c", &keys).0, ["copied", "copied"]);
    // Lost at both sides, one after the other.
    for archive in ["c", "a"] {
        lose(archive);
        assert_eq!(copied(&place, 0, "c", &keys), there, "lost in {archive}");
    }
    // Without the key nothing is known of it, and nothing is written.
    assert_eq!(copied(&place, 2, "c", &["--recipient", &key]), (vec!["failed".to_owned(); 2], 2));

    // Encrypted to another key, what is there cannot be known: it is said, each time, and another that lacks is copied.
    let keys = ["--recipient", &key_b, "--identity", "key.txt"];
    assert_eq!(copied(&place, 0, "b", &keys).0, ["copied", "copied"]);
    lose("b");
    let gone = names_in(&place.path("b")).into_iter().find(|n| n.starts_with("other")).unwrap();
    fs::rename(place.path("b").join(&gone), place.path("kept")).unwrap();
    for results in [["failed", "copied"], ["failed", "already-there"]] {
        let (found, archives) = copied(&place, 6, "b", &keys);
        assert_eq!((found.as_slice(), archives), (&results.map(str::to_owned)[..], 2));
    }
    let ran =
        place.expect(6, &[&["copy", "--all", "--from", "a", "--to", "b", "--dry-run"][..], &keys].concat());
    assert!(
        ran.stderr.contains("may be there already") && ran.stderr.contains("--identity FILE"),
        "{}",
        ran.stderr
    );
    assert_eq!(copied(&place, 0, "b", &[&keys[..], &["--identity", "key-b.txt"]].concat()), there);

    // One that its key opens, and that was cut, is damaged, and not called doubtful.
    let cut = names_in(&place.path("b")).into_iter().find(|n| n.starts_with("tree")).unwrap();
    let whole = fs::read(place.path("b").join(&cut)).unwrap();
    fs::write(place.path("b").join(&cut), &whole[..whole.len() - 1000]).unwrap();
    let both = [&keys[..], &["--identity", "key-b.txt"]].concat();
    let list = [&["list", "--from", "b"][..], &both[2..]].concat();
    assert!(place.expect(0, &list).stdout.contains("damaged"));
    let ran = place.expect(6, &[&["copy", "--all", "--from", "a", "--to", "b"][..], &both].concat());
    assert!(ran.stderr.contains("is damaged") && ran.stderr.contains("backup remove"), "{}", ran.stderr);
    fs::write(place.path("b").join(&cut), whole).unwrap();

    // A file of that name that opens and is another backup is not taken for it.
    let tree = names_in(&place.path("b")).into_iter().find(|n| n.starts_with("tree")).unwrap();
    fs::rename(place.path("kept"), place.path("b").join(tree)).unwrap();
    let (found, archives) = copied(&place, 0, "b", &[&keys[..], &["--identity", "key-b.txt"]].concat());
    assert_eq!((found[0].as_str(), archives), ("copied", 3));
}

#[test]
fn a_partial_backup_stays_partial() {
    let place = Place::with_tree();
    place.expect(5, &["create", "x=tree", "y=nothing", "-m", "app", "--to", "a", "--allow-partial"]);
    let made = place.json(0, &["list", "--from", "a"]);
    let copied = place.expect(0, &["copy", "--all", "--from", "a", "--to", "b"]);
    assert!(copied.stderr.contains("is partial, and so is its copy"), "{}", copied.stderr);
    let there = place.json(0, &["list", "--from", "b"]);
    assert_eq!(
        (&there["backups"][0]["state"], &there["backups"][0]["id"]),
        (&"partial".into(), &made["backups"][0]["id"])
    );
    place.expect(3, &["restore", "latest", "--from", "b", "--to", "out"]);
}

#[test]
fn of_a_damaged_backup_nothing_is_copied_and_the_others_are() {
    let place = Place::with_tree();
    fs::write(place.path("tree/noise"), support::noise(12 << 20)).unwrap();
    place.write("other/x", "x");
    place.expect(0, &["create", "tree", "--to", "a"]);
    place.expect(0, &["create", "other", "--to", "a"]);
    let name = names_in(&place.path("a"))
        .into_iter()
        .find(|n| n.starts_with("tree") && n.ends_with(".zst"))
        .unwrap();
    let mut bytes = fs::read(place.path("a").join(&name)).unwrap();
    bytes[5_000_000] ^= 1;
    fs::write(place.path("a").join(&name), bytes).unwrap();
    let ran = place.json(7, &["copy", "--all", "--from", "a", "--to", "b"]);
    let results: Vec<_> = ran["report"]["backups"].as_array().unwrap().iter().map(|b| &b["result"]).collect();
    assert_eq!(results, ["failed", "copied"], "{ran}");
    let names = names_in(&place.path("b"));
    assert!(names.iter().all(|n| n.starts_with("other")), "{names:?}");
    let listed = place.json(0, &["list", "--from", "a"]);
    let marked: Vec<_> =
        listed["backups"].as_array().unwrap().iter().map(|b| b["damaged"].is_string()).collect();
    assert_eq!(marked, [true, false], "{listed}");
    let alone = place.expect(7, &["copy", &format!("a/{name}"), "--to", "c"]);
    assert!(alone.stderr.contains("hint") || alone.stderr.contains("cause"), "{}", alone.stderr);
    let damaged = listed["backups"][0]["id"].as_str().unwrap();
    assert!(alone.stderr.contains(&format!("[ERROR] {damaged}: ")), "{}", alone.stderr);
    let failed = &ran["report"]["backups"][0]["error"];
    assert!(failed["subject"].as_str().unwrap().starts_with(damaged), "{failed}");
    assert!(names_in(&place.path("c")).is_empty());
}

#[test]
fn a_copy_that_is_killed_or_interrupted_is_begun_again_and_what_was_done_stays() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "a"]);
    fs::create_dir(place.path("large")).unwrap();
    place.write_large("large/x");
    place.expect(0, &["create", "large", "--to", "a"]);
    let line = ["copy", "--all", "--from", "a", "--to", "b"];
    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::TERM] {
        let run = Run::start(&place, &line);
        // The first backup is small; what is met in the middle is the second.
        assert!(signal == rustix::process::Signal::TERM || run.reaches("commit"));
        assert!(run.reaches("pour"));
        run.signal(signal);
        let code = run.code_within(std::time::Duration::from_secs(30));
        assert!([-1, 130].contains(&code), "{code}");
        let listed = place.json(0, &["list", "--from", "b"]);
        let complete = |b: &&serde_json::Value| b["state"] == "complete";
        let done: Vec<_> = listed["backups"].as_array().unwrap().iter().filter(complete).collect();
        assert_eq!((done.len(), &done[0]["module"]), (1, &"tree".into()), "{listed}");
    }
    place.expect(0, &line);
    let names = names_in(&place.path("b"));
    assert!(names.iter().all(|n| !n.starts_with('.')), "{names:?}");
    place.expect(0, &["verify", "--from", "b"]);
}

#[test]
fn what_is_damaged_where_a_copy_goes_is_not_said_of_the_backup_that_is_copied() {
    let place = Place::with_tree();
    place.write_large("tree/large");
    place.expect(0, &["create", "tree", "--to", "a"]);
    let run = Run::start(&place, &["create", "tree", "--to", "b"]);
    // Not what it is called while it is being made.
    let is_lock = |name: &String| name.strip_prefix(".backup-lock-").is_some_and(|of| of.len() == 12);
    let lock = loop {
        if place.path("b").exists()
            && let Some(lock) = names_in(&place.path("b")).into_iter().find(is_lock)
        {
            break place.path("b").join(lock);
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(run.kill(), "it was over before it was killed");
    // As a crash on a full disk leaves it.
    fs::write(&lock, "").unwrap();
    let ran = place.expect(4, &["copy", "latest", "--from", "a", "--to", "b"]);
    assert!(ran.stderr.contains("run lock") && ran.stderr.contains("remove this file"), "{}", ran.stderr);
    let list = place.json(0, &["list", "--from", "a"]);
    assert!(list["backups"][0]["damaged"].is_null(), "{list}");
    place.expect(0, &["ls", "latest", "--from", "a"]);
}
