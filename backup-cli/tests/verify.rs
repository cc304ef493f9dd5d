//! What `verify` says of a whole archive, whatever is wrong with some of it.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::{fs, process::Command};
use support::{Place, trial::names_in};

/// Files of the backups in `b`, oldest first.
fn files(place: &Place) -> Vec<(String, String)> {
    let listed = place.json(0, &["list", "--from", "b"]);
    let text = |b: &serde_json::Value, key: &str| b[key].as_str().unwrap().to_owned();
    listed["backups"].as_array().unwrap().iter().map(|b| (text(b, "id"), text(b, "location"))).collect()
}

/// With a pair of keys in `key.txt`, whose public key it returns.
fn recipient(place: &Place) -> String {
    let run = |program: &str, args: &[&str]| {
        let out = Command::new(program).args(args).current_dir(place.path("")).output().unwrap();
        assert!(out.status.success(), "{program} {args:?}");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    run("age-keygen", &["-o", "key.txt"]);
    run("age-keygen", &["-y", "key.txt"])
}

fn flip(place: &Place, file: &str, from_end: usize) {
    let path = place.path("b").join(file);
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn every_backup_is_verified_whatever_is_wrong_with_those_before_it() {
    let place = Place::with_tree();
    let recipient = recipient(&place);
    for i in 0..4 {
        place.write("tree/a.txt", &format!("day {i}"));
        match i {
            2 => place.expect(0, &["create", "tree", "--to", "b", "--recipient", &recipient]),
            _ => place.expect(0, &["create", "tree", "--to", "b"]),
        };
    }
    let all = files(&place);
    // One is cut, one is flipped in the frame of its manifest, one needs a key and has lost its digest.
    let cut = place.path("b").join(&all[0].1);
    let whole = fs::read(&cut).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    flip(&place, &all[1].1, 150);
    fs::remove_file(place.path("b").join(format!("{}.manifest.json", all[2].1))).unwrap();

    let ran = place.expect(7, &["verify", "--from", "b"]);
    for (id, file) in &all[..2] {
        let line = format!("{id} tree: DAMAGED: {file}");
        assert!(ran.stdout.contains(&line), "{line}\n{}", ran.stdout);
        let reason = ran.stdout.lines().find(|l| l.starts_with("  ") && l.contains(file.as_str()));
        assert!(reason.is_some_and(|l| l.contains("cannot")), "{}", ran.stdout);
    }
    assert!(ran.stdout.contains(&format!("NOT VERIFIED: {}", all[2].1)), "{}", ran.stdout);
    assert!(ran.stdout.contains("no digest") && ran.stdout.contains("--identity FILE"), "{}", ran.stdout);
    assert!(ran.stdout.contains(&format!("{} tree: sound", all[3].0)), "{}", ran.stdout);

    let told = place.json(7, &["verify", "--from", "b"]);
    let told = told["backups"].as_array().unwrap();
    assert_eq!(told.len(), 4, "{told:?}");
    let of = |file: &str| told.iter().find(|b| b["location"] == file).unwrap();
    for (id, file) in &all[..2] {
        assert_eq!((&of(file)["id"], &of(file)["error"]["kind"]), (&id.as_str().into(), &"damaged".into()));
        assert_eq!(of(file)["defects"].as_array().unwrap().len(), 1);
        assert!(of(file)["error"]["subject"].as_str().unwrap().contains(file.as_str()), "{told:?}");
    }
    assert_eq!(of(&all[2].1)["error"]["kind"], "usage");
    assert!(of(&all[3].1)["opened"] == true && of(&all[3].1)["error"].is_null(), "{told:?}");

    // Without damage what is left is that a key is needed.
    for (_, file) in &all[..2] {
        place.expect(0, &["remove", file, "--from", "b", "--yes"]);
    }
    place.expect(2, &["verify", "--from", "b"]);
    place.expect(0, &["verify", "--from", "b", "--identity", "key.txt"]);
}

#[test]
fn what_is_wrong_with_one_frame_is_told_of_three_entries_and_counted() {
    let place = Place::new();
    (0..300).for_each(|n| place.write(&format!("tree/{n:03}"), &format!("number {n}")));
    fs::write(place.path("tree/zzz"), support::noise(9 << 20)).unwrap();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let (id, file) = files(&place).remove(0);
    let length = fs::metadata(place.path("b").join(&file)).unwrap().len() as usize;
    flip(&place, &file, length - 2000);
    let few_warnings = |ran: &support::Ran, least| {
        let warnings = ran.stderr.matches("[WARNING]").count();
        assert!((least..10).contains(&warnings), "{warnings} warnings: {}", ran.stderr);
    };
    let ran = place.expect(7, &["verify", &id, "--from", "b"]);
    few_warnings(&ran, 4);
    assert!(ran.stderr.contains("[WARNING] and 29"), "{}", ran.stderr);
    // A salvage loses what the damage has hit, and that may be little, or nothing.
    let ran = place.expect(7, &["restore", &id, "--salvage", "--to", "out", "-q", "--from", "b"]);
    few_warnings(&ran, 2);
    let all = place.expect(7, &["verify", &id, "-v", "--from", "b"]).stderr;
    assert!(all.matches("[WARNING]").count() >= 300, "{all}");
}

#[test]
fn the_error_of_a_damaged_end_names_the_file_and_the_part_of_it() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let (id, file) = files(&place).remove(0);
    flip(&place, &file, 150);
    for line in [&["verify", &id][..], &["restore", &id, "--to", "c"]] {
        let ran = place.expect(7, &[line, &["--from", "b"]].concat());
        assert!(ran.stderr.contains(&file) && ran.stderr.contains("frame"), "{}", ran.stderr);
    }
}

#[test]
fn who_has_no_key_compares_the_encrypted_bytes_with_what_was_written() {
    let place = Place::with_tree();
    let recipient = recipient(&place);
    for _ in 0..2 {
        place.expect(0, &["create", "tree", "--to", "b", "--recipient", &recipient]);
    }
    for line in [&["verify"][..], &["verify", "latest"], &["verify", "--quick"]] {
        let ran = place.expect(0, &[line, &["--from", "b"]].concat());
        assert!(
            ran.stdout.contains("as encrypted bytes") && ran.stdout.contains("not opened"),
            "{}",
            ran.stdout
        );
        let told = place.json(0, &[line, &["--from", "b"]].concat());
        assert!(told["backups"].as_array().unwrap().iter().all(|b| b["opened"] == false), "{told}");
    }
    // Nobody has looked at the contents.
    assert!(place.json(0, &["list", "--from", "b"])["backups"][0]["verified"].is_null());

    // Of the same length, and cut.
    let all = files(&place);
    let sound = fs::read(place.path("b").join(&all[0].1)).unwrap();
    flip(&place, &all[0].1, sound.len() / 2);
    let cut = place.path("b").join(&all[1].1);
    fs::write(&cut, &fs::read(&cut).unwrap()[..2000]).unwrap();
    for line in [&["verify"][..], &["verify", "--quick"]] {
        let ran = place.expect(7, &[line, &["--from", "b"]].concat());
        for (id, file) in &all {
            assert!(ran.stdout.contains(&format!("{id} tree: DAMAGED: {file}")), "{}", ran.stdout);
        }
    }
    let listed = place.expect(0, &["list", "--from", "b"]).stdout;
    assert_eq!(listed.matches("damaged 20").count(), 2, "{listed}");

    // The bytes are those that were written again; only the key says more, and takes the mark away.
    fs::write(place.path("b").join(&all[0].1), sound).unwrap();
    let ran = place.expect(0, &["verify", &all[0].0, "--from", "b"]);
    assert!(ran.stdout.contains("stays marked as damaged"), "{}", ran.stdout);
    place.expect(0, &["verify", &all[0].0, "--from", "b", "--identity", "key.txt"]);
    let listed = place.expect(0, &["list", "--from", "b"]).stdout;
    assert!(listed.matches("damaged 20").count() == 1 && listed.contains("verified"), "{listed}");
    // A single file has no digest beside it.
    place.expect(0, &["create", "tree", "--to", "x.tar.zst.age", "--recipient", &recipient]);
    place.expect(2, &["verify", "x.tar.zst.age"]);
}

#[test]
fn a_backup_whose_file_is_gone_is_missing_until_it_is_removed_by_its_id() {
    for encrypted in [false, true] {
        let place = Place::with_tree();
        let recipient = encrypted.then(|| recipient(&place));
        let to: Vec<&str> = match &recipient {
            None => vec!["--to", "b"],
            Some(recipient) => vec!["--to", "b", "--recipient", recipient],
        };
        for _ in 0..2 {
            place.expect(0, &[&["create", "tree"][..], &to].concat());
        }
        let all = files(&place);
        let (old, (id, file)) = (&all[0].0, &all[1]);
        fs::rename(place.path("b").join(file), place.path("elsewhere")).unwrap();

        let listed = place.json(0, &["list", "--from", "b"]);
        assert_eq!(listed["backups"][1]["state"], "missing", "{listed}");
        assert_eq!(listed["backups"][1]["id"], **id, "{listed}");
        assert!(place.expect(0, &["list", "--from", "b"]).stdout.contains("missing"));
        let ran = place.expect(7, &["verify", "--from", "b"]);
        assert!(ran.stdout.contains(&format!("{id} tree: MISSING: {file}")), "{}", ran.stdout);
        assert!(ran.stdout.contains(&format!("{old} tree: sound")), "{}", ran.stdout);
        let ran = place.expect(7, &["restore", "latest", "--from", "b", "--to", "c"]);
        assert!(ran.stderr.contains(file) && ran.stderr.contains(old), "{}", ran.stderr);
        place.expect(7, &["restore", id, "--from", "b", "--to", "c"]);
        place.expect(7, &["restore", id, "--from", "b", "--to", "c", "--salvage"]);

        // The evidence stays, and nothing is made of it.
        let before = fs::read_dir(place.path("b")).unwrap().count();
        let ran = place.expect(0, &["heal", "--from", "b"]);
        assert!(ran.stderr.contains(file) && ran.stderr.contains("backup remove"), "{}", ran.stderr);
        assert_eq!(fs::read_dir(place.path("b")).unwrap().count(), before);

        // Under another name it is the same backup, and what stood beside the old one is nothing.
        let other = format!("other-{file}");
        if recipient.is_none() {
            fs::rename(place.path("elsewhere"), place.path("b").join(&other)).unwrap();
            assert_eq!(files(&place).len(), 2);
            place.expect(0, &["verify", "--from", "b"]);
            let healed = place.expect(0, &["heal", "--from", "b"]).stdout;
            assert!(healed.contains(&format!("removed {file}.manifest.json")), "{healed}");
            for name in [other.clone(), format!("{other}.manifest.json")] {
                fs::remove_file(place.path("b").join(name)).unwrap();
            }
            assert_eq!(files(&place).len(), 1);
            continue;
        }
        place.expect(0, &["remove", id, "--from", "b"]);
        assert_eq!(files(&place).len(), 1);
        place.expect(0, &["verify", "--from", "b"]);
        assert!(place.expect(0, &["heal", "--from", "b"]).stdout.contains("nothing to heal"));
    }
}

#[test]
fn damage_is_found_and_named() {
    let place = Place::with_tree();
    fs::write(place.path("tree/large"), support::noise(1 << 20)).unwrap();
    place.expect(0, &["create", "tree", "--to", "x.tar"]);
    let mut bytes = fs::read(place.path("x.tar")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(place.path("x.tar"), bytes).unwrap();
    let ran = place.expect(7, &["verify", "x.tar"]);
    assert!(ran.stdout.contains("tree/large"), "{}", ran.stdout);
    place.expect(7, &["restore", "x.tar", "--to", "c"]);
    assert!(!place.path("c").exists(), "a damaged backup leaves nothing behind");
    let whole = fs::read(place.path("x.tar")).unwrap();
    fs::write(place.path("x.tar"), &whole[..whole.len() - 3000]).unwrap();
    for line in [&["verify", "x.tar"][..], &["ls", "x.tar"], &["restore", "x.tar", "--to", "c"]] {
        place.expect(7, line);
    }
    assert!(!place.path("c").exists());
}

#[test]
fn a_check_that_compared_nothing_is_no_success() {
    let place = Place::with_tree();
    fs::create_dir(place.path("empty")).unwrap();
    place.expect(3, &["--quiet", "verify", "--from", "empty"]);
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.expect(3, &["verify", "-m", "typo", "--from", "b"]);
}

#[test]
fn an_archive_that_was_cut_is_damaged_and_latest_is_not_silently_the_one_before() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let first =
        place.json(0, &["list", "--from", "b"])["backups"][0]["location"].as_str().unwrap().to_owned();
    place.write("tree/a.txt", "tuesday");
    place.expect(0, &["create", "tree", "--to", "b"]);
    let all = place.json(0, &["list", "--from", "b"]);
    let mut names = all["backups"].as_array().unwrap().iter().map(|b| b["location"].as_str().unwrap());
    let second = names.find(|name| *name != first).unwrap().to_owned();
    let file = place.path("b").join(&second);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    for args in [&["verify", "--from", "b"][..], &["restore", "latest", "--from", "b", "--to", "c"]] {
        let ran = place.expect(7, args);
        assert!(ran.stderr.contains(&second) || ran.stdout.contains(&second), "{}{}", ran.stdout, ran.stderr);
    }
    place.expect(0, &["restore", &first, "--from", "b", "--to", "c"]);
}

#[test]
fn what_stands_beside_a_backup_is_made_anew_by_who_has_the_key() {
    let place = Place::with_tree();
    let recipient = place.keys("b");
    place.expect(0, &["create", "tree", "--to", "b", "--recipient", &recipient]);
    place.expect(0, &["create", "tree", "--to", "plain"]);
    let beside = |folder: &str| {
        let mut all = names_in(&place.path(folder)).into_iter();
        all.find(|n| n.ends_with(".manifest.json")).map(|n| place.path(folder).join(n))
    };
    for (folder, keys) in [("b", &["--identity", "key.txt"][..]), ("plain", &[])] {
        let file = beside(folder).unwrap();
        let before = fs::read(&file).unwrap();
        fs::remove_file(&file).unwrap();
        place.expect(0, &[&["verify", "--quick", "--from", folder][..], keys].concat());
        assert_eq!(beside(folder), None, "not all of it was read");
        if folder == "b" {
            place.expect(2, &["verify", "--from", folder]);
        }
        let ran = place.expect(0, &[&["verify", "--from", folder][..], keys].concat());
        assert!(ran.stderr.contains("is made anew"), "{}", ran.stderr);
        assert_eq!(fs::read(&file).unwrap(), before, "{folder}");
        let ran = place.expect(0, &["verify", "--from", folder]);
        assert!(!ran.stderr.contains("made anew"), "{}", ran.stderr);
        // Empty or cut, as after a loss of power.
        for length in [0, before.len() / 2] {
            fs::write(&file, &before[..length]).unwrap();
            place.expect(0, &[&["verify", "--from", folder][..], keys].concat());
            assert_eq!(fs::read(&file).unwrap(), before, "{folder}");
        }
    }
}
