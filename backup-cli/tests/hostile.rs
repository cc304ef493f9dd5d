//! Texts and names that an archive of somebody else brings along: what of them is printed, and how they are named.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt};
use support::{Place, trial::names_in};

const EVIL: &str = "\x1b[2J\x1b]0;owned\x07 evil\u{9b}31m\r\nforged: complete";

#[test]
fn no_text_of_an_archive_drives_the_terminal_or_forges_a_line() {
    let place = Place::with_tree();
    place.write("tree/x\x1b[31m\n.txt", "x");
    place.write("tree/y\x1b1.log", "y");
    let exclude = "y\x1b*.log";
    place.expect(0, &["create", "tree", "--to", "b", "--note", EVIL, "--tag", EVIL, "--exclude", exclude]);
    // What stands beside an encrypted backup anybody can write who can write there.
    let recipient = place.keys("c");
    place.expect(0, &["create", "tree", "--to", "c", "--recipient", &recipient]);
    let beside = names_in(&place.path("c")).into_iter().find(|n| n.ends_with(".manifest.json")).unwrap();
    let mut outside: serde_json::Value = serde_json::from_str(&place.read(&format!("c/{beside}"))).unwrap();
    outside["module"] = EVIL.into();
    outside["series"] = EVIL.into();
    place.write(&format!("c/{beside}"), &outside.to_string());
    let lines: [&[&str]; 8] = [
        &["list", "--from", "b"],
        &["show", "latest", "--from", "b"],
        &["ls", "latest", "--from", "b"],
        &["verify", "--from", "b"],
        &["restore", "latest", "--from", "b", "--to", "out", "--dry-run"],
        &["list", "--from", "c"],
        &["verify", "--from", "c"],
        &["restore", "latest", "--from", "c", "--identity", "key.txt", "--to", "out", "--dry-run"],
    ];
    for line in lines {
        for more in [&[][..], &["--json"], &["-v", "--progress", "json"]] {
            let ran = place.expect(0, &[line, more].concat());
            let printed = ran.stdout + &ran.stderr;
            let driving = printed.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(driving, None, "{line:?} {more:?}: {printed:?}");
            assert!(!printed.lines().any(|l| l.starts_with("forged")), "{line:?} {more:?}: {printed}");
        }
    }
    let shown = place.expect(0, &["show", "latest", "--from", "b"]).stdout;
    let note = "  note     \\x1b[2J\\x1b]0;owned\\x07 evil\\xc2\\x9b31m\\x0d\\x0aforged: complete\n";
    assert!(shown.contains(note), "{shown}");
    let listed = place.expect(0, &["list", "--from", "c"]).stdout;
    assert!(listed.contains("owned\\x07 evil"), "{listed}");
    // Programs get it as it is.
    assert_eq!(place.json(0, &["show", "latest", "--from", "b"])["manifest"]["note"], EVIL);
    assert!(!fs::exists(place.path("out")).unwrap());
}

#[test]
fn nothing_is_written_beside_a_file_of_another_program_that_is_taken_for_a_backup() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("b/photos.tar", "none of ours");
    let before = names_in(&place.path("b"));
    let listed = place.json(0, &["list", "--from", "b"]);
    let unknown = listed["backups"].as_array().unwrap().iter().find(|b| b["state"] == "unknown").unwrap();
    let id = unknown["id"].as_str().unwrap();
    for line in
        [&["verify", id][..], &["dump", id, "x"], &["restore", id, "--to", "out"], &["copy", id, "--to", "c"]]
    {
        let ran = place.expect(7, &[line, &["--from", "b"]].concat());
        assert!(!ran.stderr.contains("heal"), "{}", ran.stderr);
    }
    assert_eq!(names_in(&place.path("b")), before);
}

#[test]
fn names_that_look_alike_are_told_apart_and_each_is_reached_as_it_is_listed() {
    let place = Place::new();
    fs::create_dir(place.path("tree")).unwrap();
    let names: [(&[u8], &str); 5] = [
        (b"\x1b", r"tree/\x1b"),
        (br"\x1b", r"tree/\\x1b"),
        (b"\xff", r"tree/\xff"),
        (b"[a]", "tree/[a]"),
        (b"a", "tree/a"),
    ];
    for (name, shown) in names {
        fs::write(place.path("tree").join(OsStr::from_bytes(name)), shown).unwrap();
    }
    place.expect(0, &["create", "tree", "--to", "x.tar"]);
    let listed = place.expect(0, &["ls", "x.tar"]).stdout;
    let objects = place.json(0, &["ls", "x.tar"]);
    for (i, (name, shown)) in names.into_iter().enumerate() {
        assert_eq!(listed.lines().filter(|l| *l == shown).count(), 1, "{shown}: {listed}");
        // What is listed is that file and no other: also where a glob or an escape could be meant.
        assert_eq!(place.expect(0, &["dump", "x.tar", shown]).stdout, shown);
        assert_eq!(place.expect(0, &["ls", "x.tar", shown]).stdout, format!("{shown}\n"));
        let to = format!("to-{i}");
        place.expect(0, &["restore", "x.tar", "--only", shown, "--to", &to]);
        let there: Vec<_> = fs::read_dir(place.path(&to)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(there, [OsStr::from_bytes(name)], "{shown}");
        let object = objects["entries"].as_array().unwrap().iter().find(|e| e["path"] == *shown).unwrap();
        assert_eq!(object["path_base64"].is_string(), shown.contains('\\'), "{object}");
    }
    let object = objects["entries"].as_array().unwrap().iter().find(|e| e["path"] == r"tree/\xff").unwrap();
    assert_eq!(object["path_base64"], "dHJlZS//", "{object}");
    // Where there is no such entry it is a glob.
    place.expect(0, &["restore", "x.tar", "--only", "tree/[ab]", "--to", "glob"]);
    assert_eq!(names_in(&place.path("glob")), ["a"]);
}
