//! No space, no inodes, no permission: the run says so and leaves nothing, and what was there stays.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

mod support;

use rustix::process::Signal;
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};
use support::{
    Place, Ran,
    trial::{Mount, Random, Run, contents, fingerprint, homes_in, is_root, names_in, times},
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_destination_that_fills_up_keeps_the_earlier_backup_and_nothing_else() {
    if !is_root("a_destination_that_fills_up_keeps_the_earlier_backup_and_nothing_else") {
        return;
    }
    let place = Place::new();
    let mut random = Random::new("soak_full_disk");
    let _mount = Mount::tmpfs(&place.path("destination"), "size=2m");
    place.write("tree/small", "small");
    place.expect(0, &["create", "tree", "--to", "destination"]);
    let earlier = contents(&place.path("destination"));
    for megabytes in [3, 6, 30] {
        fs::write(place.path("tree/large"), random.bytes(megabytes << 20)).unwrap();
        for _ in 0..times(1, 10) {
            let ran = place.run(&["create", "tree", "--to", "destination"]);
            is_four_lines(&ran, 4, "destination");
            assert!(!ran.stderr.contains("WARNING"), "nothing is wrong with the sources: {}", ran.stderr);
            assert_eq!(contents(&place.path("destination")), earlier, "{megabytes} MB");
        }
    }
    fs::remove_file(place.path("tree/large")).unwrap();
    place.expect(0, &["verify", "--from", "destination"]);
    place.expect(0, &["create", "tree", "--to", "destination"]);
}

/// Room for the archive and a little more or less, page by page: there is no amount of space at which a run leaves half of something
/// or says success of what is not there.
#[test]
fn with_any_amount_of_space_a_run_fails_and_leaves_nothing_or_is_complete() {
    if !is_root("with_any_amount_of_space_a_run_fails_and_leaves_nothing_or_is_complete") {
        return;
    }
    let place = Place::new();
    let mut random = Random::new("soak_full_disk");
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/data"), random.bytes(1_500_000)).unwrap();
    place.expect(0, &["create", "tree", "--to", "measure"]);
    let archive = names_in(&place.path("measure")).into_iter().find(|n| n.ends_with(".zst")).unwrap();
    let pages = fs::metadata(place.path("measure").join(archive)).unwrap().len() / 4096;
    let (mut failed, mut made) = (0, 0);
    for extra in 0..times(6, 12) as u64 {
        let mount = Mount::tmpfs(&place.path("destination"), &format!("size={}k", (pages + extra) * 4));
        let ran = place.run(&["create", "tree", "--to", "destination"]);
        match ran.code {
            0 => {
                made += 1;
                let list = place.json(0, &["list", "--from", "destination"]);
                assert_eq!(list["backups"][0]["state"], "complete", "{list}");
                // No room for the mark that it was verified is a warning at most.
                place.expect(0, &["verify", "latest", "--from", "destination"]);
            }
            _ => {
                failed += 1;
                is_four_lines(&ran, 4, "destination");
                assert_eq!(
                    names_in(&place.path("destination")),
                    [""; 0],
                    "{extra} pages more than the archive"
                );
            }
        }
        drop(mount);
    }
    println!(
        "soak: destination with 0 to {} pages more than the archive: {failed} failed, {made} complete",
        failed + made - 1
    );
    assert!(failed > 0 && made > 0, "{failed} failed, {made} complete: the sizes tried are all on one side");
}

/// What makes room again needs none to begin.
#[test]
fn on_a_disk_that_is_full_a_restore_is_undone_settled_and_healed() {
    if !is_root("on_a_disk_that_is_full_a_restore_is_undone_settled_and_healed") {
        return;
    }
    for how in ["undo", "settle", "heal"] {
        let place = Place::with_tree();
        let _mount = Mount::tmpfs(&place.path("disk"), "size=8m");
        place.expect(0, &["create", "tree", "--to", "b"]);
        place.write("disk/tree/old", "old");
        let line = ["restore", "latest", "--from", "b", "--to", "disk/tree"];
        let plan = place.json(0, &[&line[..], &["--dry-run"]].concat());
        let confirmed = [&line[..], &["--confirm", plan["plan"]["id"].as_str().unwrap()]].concat();
        let done = place.json(0, &confirmed);
        let id = done["report"]["id"].as_str().unwrap();
        let home = homes_in(&place.path("disk")).remove(0);
        if how == "heal" {
            let journal = fs::read_to_string(home.join("journal.json")).unwrap();
            let killed = journal.replace("\"phase\": \"published\"", "\"phase\": \"publishing\"");
            assert_ne!(killed, journal);
            fs::write(home.join("journal.json"), killed).unwrap();
        }
        let mut filler = File::create(place.path("disk/filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        match how {
            "undo" => place.expect(0, &["restore", "--undo", id, "--yes"]),
            "settle" => place.expect(0, &["settle", id]),
            _ => place.expect(0, &["heal"]),
        };
        assert_eq!(place.path("disk/tree/old").exists(), how != "settle", "{how}");
        assert_eq!(homes_in(&place.path("disk")), [""; 0].map(PathBuf::from), "{how}");
    }
}

#[test]
fn a_destination_without_inodes_or_permission_is_an_error_that_leaves_nothing() {
    if !is_root("a_destination_without_inodes_or_permission_is_an_error_that_leaves_nothing") {
        return;
    }
    let place = Place::with_tree();
    let mount = Mount::tmpfs(&place.path("destination"), "size=8m,nr_inodes=12");
    place.expect(0, &["create", "tree", "--to", "destination"]);
    let mut fillers = Vec::new();
    // One by one: from no inode at all to one that is missing at the very end.
    while File::create(place.path(&format!("destination/filler{}", fillers.len()))).is_ok() {
        fillers.push(place.path(&format!("destination/filler{}", fillers.len())));
    }
    let mut failed = 0;
    for filler in &fillers {
        let earlier = contents(&place.path("destination"));
        let ran = place.run(&["create", "tree", "--to", "destination"]);
        if ran.code == 0 {
            break;
        }
        failed += 1;
        is_four_lines(&ran, 4, "destination");
        assert_eq!(contents(&place.path("destination")), earlier);
        fs::remove_file(filler).unwrap();
    }
    assert!(failed >= 2, "it worked with {failed} inodes");
    place.expect(0, &["verify", "--from", "destination"]);

    let earlier = contents(&place.path("destination"));
    mount.remount("ro");
    let ran = place.run(&["create", "tree", "--to", "destination"]);
    is_four_lines(&ran, 4, "destination");
    place.expect(0, &["list", "--from", "destination"]);
    place.expect(0, &["verify", "--from", "destination"]);
    place.expect(0, &["restore", "latest", "--from", "destination", "--to", "elsewhere"]);
    assert_eq!(contents(&place.path("destination")), earlier);
}

#[test]
fn a_target_that_is_too_small_is_refused_before_anything_is_written() {
    if !is_root("a_target_that_is_too_small_is_refused_before_anything_is_written") {
        return;
    }
    let place = Place::new();
    let mut random = Random::new("soak_full_disk");
    fs::create_dir(place.path("tree")).unwrap();
    fs::write(place.path("tree/large"), random.bytes(4 << 20)).unwrap();
    for i in 0..50 {
        fs::write(place.path(&format!("tree/{i}")), "small").unwrap();
    }
    place.expect(0, &["create", "tree", "--to", "destination"]);
    for options in ["size=2m", "size=20m,nr_inodes=20"] {
        let _mount = Mount::tmpfs(&place.path("target"), options);
        let ran = place.expect(6, &["restore", "latest", "--from", "destination", "--to", "target/tree"]);
        assert!(ran.stderr.contains("target"), "{options}: {}", ran.stderr);
        assert_eq!(names_in(&place.path("target")), [""; 0], "{options}");
    }
}

#[test]
fn a_disk_that_is_full_during_a_restore_is_told_as_that_and_not_as_damage() {
    if !is_root("a_disk_that_is_full_during_a_restore_is_told_as_that_and_not_as_damage") {
        return;
    }
    let place = Place::new();
    let mut random = Random::new("soak_full_disk");
    fs::create_dir(place.path("tree")).unwrap();
    for i in 0..6 {
        fs::write(place.path(&format!("tree/large {i}")), random.bytes(4 << 20)).unwrap();
    }
    for i in 0..500 {
        fs::write(place.path(&format!("tree/{i}")), random.bytes(2000)).unwrap();
    }
    place.expect(0, &["create", "tree", "--to", "destination"]);
    let _mount = Mount::tmpfs(&place.path("target"), "size=10m");
    for _ in 0..times(5, 50) {
        let to = ["--to", "target/tree", "--accept", "too-little-space"];
        let ran = place.expect(1, &[&["restore", "latest", "--from", "destination"], &to[..]].concat());
        for part in ["No space left", "hint:", "make room", "state: everything is as it was before"] {
            assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("damaged"), "{}", ran.stderr);
        assert_eq!(names_in(&place.path("target")), [""; 0]);
    }
    let backups = place.json(0, &["list", "--from", "destination"]);
    assert!(backups["backups"][0]["damaged"].is_null(), "{backups}");
}

#[test]
fn space_that_vanishes_during_a_restore_leaves_the_old_tree() {
    if !is_root("space_that_vanishes_during_a_restore_leaves_the_old_tree") {
        return;
    }
    let mut random = Random::new("soak_full_disk");
    for options in ["size=24m", "size=64m,nr_inodes=2000"] {
        for mounted_on in [false, true] {
            let place = Place::new();
            let _mount = Mount::tmpfs(&place.path("target"), options);
            let tree = if mounted_on { "target" } else { "target/tree" };
            fs::create_dir_all(place.path(tree)).unwrap();
            fs::write(place.path(tree).join("large"), random.bytes(8 << 20)).unwrap();
            for i in 0..800 {
                fs::write(place.path(tree).join(format!("file {i}")), "small").unwrap();
            }
            place.expect(0, &["create", tree, "--to", "destination"]);
            place.write(&format!("{tree}/file 3"), "changed since");
            let data = |place: &Place| {
                let mut data = fingerprint(&place.path(tree));
                // The folder of the restore comes and goes inside of a mount point.
                data.remove(Path::new(""));
                data
            };
            let (old, mut failed) = (data(&place), 0);
            let (mut i, rounds) = (0, times(1, 10));
            // Every one of them may have written all of it before the space vanishes; not all of many.
            while i < rounds || failed == 0 && i < 30 {
                let plan = place.json(0, &["restore", "latest", "--from", "destination", "--dry-run"]);
                let id = plan["plan"]["id"].as_str().unwrap();
                let run =
                    Run::start(&place, &["restore", "latest", "--from", "destination", "--confirm", id]);
                assert!(run.reaches("pour"), "{options}: it never began to write");
                std::thread::sleep(Duration::from_millis(random.below(3) * (i % rounds) as u64));
                i += 1;
                run.signal(Signal::STOP);
                // Outside of the tree where that can be, else in the folder of the restore.
                let folder =
                    if mounted_on { homes_in(&place.path("target")).remove(0) } else { place.path("target") };
                let ballast = fill(&folder, options.contains("nr_inodes"));
                run.signal(Signal::CONT);
                let code = run.code_within(LIMIT);
                ballast.into_iter().for_each(|b| drop(fs::remove_file(b)));
                if code == 0 {
                    // Everything was written already when the space vanished.
                    place.expect(0, &["restore", "--undo", "--yes"]);
                } else {
                    assert_eq!(code, 1, "{options}, mounted on: {mounted_on}");
                    failed += 1;
                }
                assert_eq!(data(&place), old, "{options}, mounted on: {mounted_on}");
                // Our own files in it have kept it.
                homes_in(&place.path("target")).into_iter().for_each(|home| {
                    fs::remove_dir(&home).unwrap_or_else(|e| panic!("{e}: {:?}", names_in(&home)));
                });
                assert_eq!(names_in(&place.path("state/restores")), [""; 0], "{options}");
            }
            assert!(failed > 0, "{options}, mounted on: {mounted_on}: no restore met the full disk");
        }
    }
}

/// Takes all space, or all inodes; returns the files to be removed.
fn fill(folder: &Path, inodes: bool) -> Vec<PathBuf> {
    let mut files = Vec::new();
    loop {
        let path = folder.join(format!("ballast-{}", files.len()));
        let Ok(mut file) = File::create(&path) else { return files };
        files.push(path);
        if !inodes {
            while file.write_all(&[7; 4096]).is_ok() {}
            return files;
        }
    }
}

/// What failed and where, cause, hint, and how things are; warnings may come before.
fn is_four_lines(ran: &Ran, code: i32, place: &str) {
    assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    let lines: Vec<&str> = ran.stderr.lines().skip_while(|l| !l.contains("[ERROR]")).collect();
    let label = |i: usize, label: &str| lines.get(i).is_some_and(|l| l.trim_start().starts_with(label));
    assert!(
        lines.len() == 4 && label(1, "cause:") && label(2, "hint:") && label(3, "state:"),
        "these are not what, cause, hint, state:\n{}",
        ran.stderr
    );
    assert!(lines[0].contains(place) || lines[1].contains(place), "{place} is not named:\n{}", ran.stderr);
}
