//! `backup restore --salvage`: what is intact of a damaged archive, and what is lost.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::Path};
use support::{
    Place, noise,
    trial::{Fingerprint, fingerprint, names_in},
};

/// Forty files of half a megabyte, small ones, links, a hole: five frames and more.
fn tree(place: &Place) -> Fingerprint {
    fs::create_dir_all(place.path("tree/small/deep")).unwrap();
    let bytes = noise(40 << 19);
    for i in 0..40 {
        fs::write(place.path(&format!("tree/large {i:02}")), &bytes[i << 19..(i + 1) << 19]).unwrap();
    }
    for i in 0..300 {
        fs::write(place.path(&format!("tree/small/deep/{i}")), format!("{i}")).unwrap();
    }
    fs::write(place.path("tree/a long name ".to_owned().as_str()).with_file_name("n".repeat(180)), "long")
        .unwrap();
    fs::hard_link(place.path("tree/large 00"), place.path("tree/same as 00")).unwrap();
    fs::hard_link(place.path("tree/large 39"), place.path("tree/same as 39")).unwrap();
    symlink("nowhere", place.path("tree/link")).unwrap();
    fs::File::create(place.path("tree/hole")).unwrap().set_len(3 << 20).unwrap();
    fingerprint(&place.path("tree"))
}

/// Salvages into `to` and says what is there and what the report calls lost.
fn salvage(place: &Place, file: &str, to: &str) -> (Fingerprint, serde_json::Value) {
    place.expect(7, &["verify", file]);
    let ran = place.json(7, &["restore", file, "--salvage", "--to", to]);
    let report = &ran["report"];
    assert_eq!(report["state"], "partial", "{ran}");
    let lost = report["notes"]["list"].as_array().unwrap().iter().filter(|n| n["severity"] == "lost");
    assert!(lost.count() > 0, "{ran}");
    (fingerprint(&place.path(to)), ran)
}

/// Everything that is there is as it was; folders that could not be told of have attributes of their own.
fn is_a_part_of(there: &Fingerprint, all: &Fingerprint, with_folders: bool) {
    for (path, text) in there {
        if with_folders || !text.starts_with("folder") {
            assert_eq!(Some(text), all.get(path), "{}", path.display());
        }
    }
}

fn lost_paths(ran: &serde_json::Value) -> BTreeSet<String> {
    let list = ran["report"]["notes"]["list"].as_array().unwrap().iter();
    let lost = list.filter(|n| n["severity"] == "lost" && n["path"].is_string());
    lost.map(|n| n["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn of_an_archive_with_a_flipped_byte_everything_else_is_restored() {
    for file in ["x.tar.zst", "x.tar.gz", "x.tar.xz", "x.tar"] {
        let place = Place::new();
        let all = tree(&place);
        place.expect(0, &["create", "tree", "--to", file]);
        let mut bytes = fs::read(place.path(file)).unwrap();
        bytes[9_000_000] ^= 4;
        fs::write(place.path(file), bytes).unwrap();
        let plain = place.expect(7, &["restore", file, "--to", "plain"]);
        assert!(plain.stderr.contains("damaged"), "{}", plain.stderr);
        let (there, ran) = salvage(&place, file, "out");
        is_a_part_of(&there, &all, true);
        let lost = lost_paths(&ran);
        let most = if file == "x.tar" { 1 } else { 11 };
        assert!((1..=most).contains(&lost.len()), "{file}: {lost:?}");
        assert_eq!(missing(&there, &all), lost, "{file}");
    }
}

#[test]
fn a_salvage_marks_the_backup_as_damaged_and_one_of_a_sound_backup_does_not() {
    let place = Place::with_tree();
    fs::write(place.path("tree/noise"), noise(3 << 20)).unwrap();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let damaged = || place.json(0, &["list", "--from", "b"])["backups"][0]["damaged"].is_string();
    place.expect(0, &["restore", "latest", "--from", "b", "--salvage", "--to", "sound"]);
    assert!(!damaged());
    let names = fs::read_dir(place.path("b")).unwrap().map(|e| e.unwrap().path());
    let archive = names.into_iter().find(|p| p.extension().is_some_and(|e| e == "zst")).unwrap();
    let mut bytes = fs::read(&archive).unwrap();
    bytes[1_000_000] ^= 4;
    fs::write(&archive, bytes).unwrap();
    place.expect(7, &["restore", "latest", "--from", "b", "--salvage", "--to", "out"]);
    assert!(damaged());
}

#[test]
fn a_restore_that_meets_damage_is_undone_marks_the_backup_and_names_the_way_out() {
    let place = Place::new();
    tree(&place);
    place.expect(0, &["create", "tree", "--to", "b"]);
    let names = fs::read_dir(place.path("b")).unwrap().map(|e| e.unwrap().path());
    let archive = names.into_iter().find(|p| p.extension().is_some_and(|e| e == "zst")).unwrap();
    let mut bytes = fs::read(&archive).unwrap();
    bytes[9_000_000] ^= 4;
    fs::write(&archive, bytes).unwrap();
    place.expect(0, &["restore", "latest", "--from", "b", "--to", "out", "--dry-run"]);
    let ran = place.expect(7, &["restore", "latest", "--from", "b", "--to", "out"]);
    for part in ["is damaged", "backup verify", "--salvage", "state: everything is as it was before"] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert!(!place.path("out").exists());
    let backups = place.json(0, &["list", "--from", "b"]);
    assert!(backups["backups"][0]["damaged"].is_string(), "{backups}");
    place.expect(7, &["restore", "latest", "--from", "b", "--to", "out"]);
}

#[test]
fn a_dump_that_meets_damage_marks_the_backup() {
    let place = Place::new();
    place.write("tree/x", "y");
    fs::write(place.path("tree/r"), noise(100_000)).unwrap();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let names = fs::read_dir(place.path("b")).unwrap().map(|e| e.unwrap().path());
    let archive = names.into_iter().find(|p| p.extension().is_some_and(|e| e == "zst")).unwrap();
    let mut bytes = fs::read(&archive).unwrap();
    bytes[50_000] ^= 4;
    fs::write(&archive, bytes).unwrap();
    place.expect(7, &["dump", "latest", "r", "--from", "b"]);
    let backups = place.json(0, &["list", "--from", "b"]);
    assert!(backups["backups"][0]["damaged"].is_string(), "{backups}");
}

#[test]
fn of_an_archive_that_was_cut_everything_before_the_cut_is_restored() {
    for file in ["x.tar.zst", "x.tar.gz", "x.tar.xz", "x.tar"] {
        let place = Place::new();
        let all = tree(&place);
        place.expect(0, &["create", "tree", "--to", file]);
        let length = fs::metadata(place.path(file)).unwrap().len();
        fs::OpenOptions::new().write(true).open(place.path(file)).unwrap().set_len(length * 2 / 3).unwrap();
        let (there, ran) = salvage(&place, file, "out");
        is_a_part_of(&there, &all, false);
        assert!(files(&there) > 15, "{file}: only {} files", files(&there));
        let text = ran["report"]["notes"].to_string();
        assert!(text.contains("what else was in the backup is not known"), "{text}");
        assert!(text.contains("known by their headers only"), "{text}");
    }
}

#[test]
fn of_an_archive_that_is_one_frame_and_was_cut_everything_before_the_cut_is_restored() {
    for file in ["x.tar.zst", "x.tar.gz", "x.tar.xz"] {
        let place = Place::new();
        let all = small_tree(&place);
        place.expect(0, &["create", "tree", "--to", file]);
        let whole = fs::read(place.path(file)).unwrap();
        fs::write(place.path(file), &whole[..whole.len() * 2 / 3]).unwrap();
        let (there, ran) = salvage(&place, file, "out");
        is_a_part_of(&there, &all, false);
        assert!((20..70).contains(&files(&there)), "{file}: {} files", files(&there));
        let text = ran["report"]["notes"].to_string();
        assert!(text.contains("what else was in the backup is not known"), "{text}");
        assert!(text.contains("damage before the cut may be unnoticed"), "{text}");
    }
}

/// Forty texts and forty files of noise: all in one frame.
fn small_tree(place: &Place) -> Fingerprint {
    let bytes = noise(40 * 40_000);
    for i in 0..40 {
        place.write(&format!("tree/text {i:02}"), &format!("line {i} of a text\n").repeat(500));
        fs::write(place.path(&format!("tree/noise {i:02}")), &bytes[i * 40_000..][..40_000]).unwrap();
    }
    fingerprint(&place.path("tree"))
}

fn files(there: &Fingerprint) -> usize {
    there.values().filter(|text| text.starts_with("file")).count()
}

fn missing(there: &Fingerprint, all: &Fingerprint) -> BTreeSet<String> {
    all.keys()
        .filter(|path| !there.contains_key(*path))
        .map(|path| path.to_str().unwrap().to_owned())
        .collect()
}

#[test]
fn of_an_archive_that_is_one_frame_and_was_damaged_everything_before_the_damage_is_restored() {
    for file in ["x.tar.zst", "x.tar.gz", "x.tar.xz"] {
        let place = Place::new();
        let all = small_tree(&place);
        place.expect(0, &["create", "tree", "--to", file]);
        let mut archive = fs::read(place.path(file)).unwrap();
        let at = archive.len() * 6 / 10;
        archive[at] ^= 4;
        fs::write(place.path(file), &archive).unwrap();
        let (there, ran) = salvage(&place, file, "out");
        // The index is whole: what is there is proven by its digests, and what is missing is named.
        is_a_part_of(&there, &all, true);
        assert!((20..80).contains(&files(&there)), "{file}: {} files", files(&there));
        assert_eq!(missing(&there, &all), lost_paths(&ran), "{file}");
        // Without an index there are no digests: what may be wrong is said of each.
        let end = archive.len();
        archive[end - 9000..].fill(0);
        fs::write(place.path(file), &archive).unwrap();
        let (there, ran) = salvage(&place, file, "by headers");
        assert!((20..80).contains(&files(&there)), "{file}: {} files", files(&there));
        let list = ran["report"]["notes"]["list"].as_array().unwrap();
        let doubted: BTreeSet<&str> = list
            .iter()
            .filter(|n| n["text"].as_str().unwrap().contains("its contents may be wrong"))
            .map(|n| n["path"].as_str().unwrap())
            .collect();
        let wrong =
            there.iter().filter(|(path, text)| text.starts_with("file") && Some(*text) != all.get(*path));
        for (path, _) in wrong {
            assert!(doubted.contains(path.to_str().unwrap()), "{file}: {}: {doubted:?}", path.display());
        }
        assert!(doubted.len() >= 20, "{file}: {}: {}", doubted.len(), ran["report"]["notes"]);
    }
}

#[test]
fn of_an_encrypted_archive_that_is_one_frame_everything_before_a_damaged_chunk_is_restored() {
    let place = Place::new();
    let all = small_tree(&place);
    let recipient = place.keys("keys");
    place.expect(0, &["create", "tree", "--to", "x.tar.zst.age", "--recipient", &recipient]);
    let mut archive = fs::read(place.path("x.tar.zst.age")).unwrap();
    let at = archive.len() * 6 / 10;
    archive[at] ^= 4;
    fs::write(place.path("x.tar.zst.age"), &archive).unwrap();
    let line = ["restore", "x.tar.zst.age", "--salvage", "--identity", "key.txt", "--to", "out"];
    let ran = place.json(7, &line);
    let there = fingerprint(&place.path("out"));
    is_a_part_of(&there, &all, true);
    assert!((20..80).contains(&files(&there)), "{} files", files(&there));
    assert_eq!(missing(&there, &all), lost_paths(&ran));
}

#[test]
fn a_cut_archive_in_a_folder_is_known_by_the_copy_of_its_manifest() {
    let place = Place::new();
    let all = tree(&place);
    place.expect(0, &["create", "tree", "--to", "b"]);
    let names = fs::read_dir(place.path("b")).unwrap().map(|e| e.unwrap().path());
    let archive = names.into_iter().find(|p| p.extension().is_some_and(|e| e == "zst")).unwrap();
    let length = fs::metadata(&archive).unwrap().len();
    fs::OpenOptions::new().write(true).open(&archive).unwrap().set_len(length - 3_000_000).unwrap();
    place.expect(7, &["verify", "--from", "b"]);
    let id = place.json(0, &["list", "--from", "b"])["backups"][0]["id"].as_str().unwrap().to_owned();
    let ran = place.json(7, &["restore", &id, "--from", "b", "--salvage", "--to", "out"]);
    is_a_part_of(&fingerprint(&place.path("out")), &all, false);
    let lost = ran["report"]["components"][0]["lost"].as_u64().unwrap();
    assert!(lost > 0, "{ran}");
    // Nothing that is there is replaced without consent.
    place.write("out/large 01", "precious");
    place.expect(6, &["restore", &id, "--from", "b", "--salvage", "--to", "out"]);
    assert_eq!(place.read("out/large 01"), "precious");
}

#[test]
fn of_an_encrypted_archive_that_was_cut_everything_before_the_cut_is_restored() {
    let place = Place::new();
    let all = tree(&place);
    let recipient = place.keys("keys");
    place.expect(0, &["create", "tree", "--to", "x.tar.zst.age", "--recipient", &recipient]);
    let whole = fs::read(place.path("x.tar.zst.age")).unwrap();
    // In the middle of a chunk, and where one ends: the header is as long as it is.
    let header = whole.windows(5).position(|w| w == b"\n--- ").unwrap();
    let start = header + 1 + whole[header + 1..].iter().position(|b| *b == b'\n').unwrap() + 1 + 16;
    for (i, length) in [whole.len() * 2 / 3, start + 200 * (65_536 + 16)].into_iter().enumerate() {
        fs::write(place.path("x.tar.zst.age"), &whole[..length]).unwrap();
        let to = format!("out{i}");
        place.expect(7, &["verify", "x.tar.zst.age", "--identity", "key.txt"]);
        let line = ["restore", "x.tar.zst.age", "--salvage", "--identity", "key.txt", "--to", &to];
        let ran = place.json(7, &line);
        let there = fingerprint(&place.path(&to));
        is_a_part_of(&there, &all, false);
        assert!(files(&there) > 15, "only {} files", files(&there));
        assert!(ran["report"]["notes"].to_string().contains("lost its end"), "{ran}");
    }
}

#[test]
fn an_encrypted_archive_is_said_to_be_damaged_or_cut_by_the_length_it_had() {
    let place = Place::with_tree();
    fs::write(place.path("tree/noise"), support::noise(300_000)).unwrap();
    place.write("pass", "correct horse\n");
    place.expect(0, &["create", "tree", "--to", "b", "--passphrase-file", "pass"]);
    let id = place.json(0, &["list", "--from", "b"])["backups"][0]["id"].as_str().unwrap().to_owned();
    let names = names_in(&place.path("b"));
    let archive = place.path("b").join(names.iter().find(|n| n.ends_with(".age")).unwrap());
    let whole = fs::read(&archive).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() - 9] ^= 1;
    let told = |from: &[&str], bytes: &[u8], to: &str| {
        fs::write(&archive, bytes).unwrap();
        let line = [from, &["--salvage", "--passphrase-file", "pass", "--to", to]].concat();
        place.json(7, &line)["report"]["notes"].to_string()
    };
    let of_folder = ["restore", &id, "--from", "b"];
    let notes = told(&of_folder, &damaged, "out-1");
    assert!(
        notes.contains("the end of the encrypted file is damaged") && !notes.contains("lost its end"),
        "{notes}"
    );
    let notes = told(&of_folder, &whole[..whole.len() - 9], "out-2");
    assert!(notes.contains("has lost its end, and what was in it"), "{notes}");
    // Of a single file nobody knows how long it was.
    let notes = told(&["restore", archive.to_str().unwrap()], &damaged, "out-3");
    assert!(notes.contains("has lost its end, or is damaged there"), "{notes}");
}

#[test]
fn what_is_intact_of_an_archive_that_comes_through_a_pipe_is_restored() {
    let place = Place::new();
    let all = tree(&place);
    place.expect(0, &["create", "tree", "--to", "x.tar.zst"]);
    let whole = fs::read(place.path("x.tar.zst")).unwrap();
    fs::write(place.path("cut"), &whole[..whole.len() / 2]).unwrap();
    for salvages in [false, true] {
        let mut line = vec!["restore", "-", "--to", "out"];
        line.extend(salvages.then_some("--salvage"));
        let mut command = place.command(&line);
        let ran = command.stdin(fs::File::open(place.path("cut")).unwrap()).output().unwrap();
        assert_eq!(ran.status.code(), Some(7), "{line:?}: {}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(place.path("out").exists(), salvages);
    }
    let there = fingerprint(&place.path("out"));
    is_a_part_of(&there, &all, false);
    assert!(there.values().filter(|t| t.starts_with("file")).count() > 10);
}

#[test]
fn of_a_sound_archive_salvage_is_a_restore() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "x.tar.zst"]);
    place.expect(0, &["restore", "x.tar.zst", "--salvage", "--to", "out"]);
    assert_eq!(fingerprint(&place.path("out")), fingerprint(&place.path("tree")));
}

#[test]
fn an_archive_that_is_damaged_anywhere_gives_what_is_intact_and_never_anything_else() {
    let place = Place::new();
    let all = tree(&place);
    place.expect(0, &["create", "tree", "--to", "x.tar.zst"]);
    let bytes = fs::read(place.path("x.tar.zst")).unwrap();
    // Head, frames, index, manifest, locator, seek table; one byte and many.
    let end = bytes.len();
    let places =
        [0, 3, 200, 5000, 4_200_000, end - 5000, end - 2000, end - 400, end - 100, end - 20, end - 3];
    let mut unharmed = 0;
    for (i, at) in places.into_iter().enumerate() {
        let mut damaged = bytes.clone();
        let many = if i % 2 == 0 { 1 } else { 40.min(end - at) };
        damaged[at..at + many].iter_mut().for_each(|b| *b ^= 0x55);
        fs::write(place.path("d.tar.zst"), damaged).unwrap();
        let to = format!("out{i}");
        let ran = place.run(&["restore", "d.tar.zst", "--salvage", "--to", &to]);
        assert_eq!(ran.code, 7, "byte {at}: {}{}", ran.stdout, ran.stderr);
        if ran.stderr.contains("all that was asked for is restored") {
            assert!(!ran.stderr.contains("NOT complete"), "byte {at}: {}", ran.stderr);
            assert_eq!(fingerprint(&place.path(&to)), all, "byte {at}");
            unharmed += 1;
        }
        if place.path(&to).exists() {
            let there = fingerprint(&place.path(&to));
            is_a_part_of(&there, &all, false);
            assert!(there.contains_key(Path::new("large 30")), "byte {at}");
            fs::remove_dir_all(place.path(&to)).unwrap();
        } else {
            assert!(at < 5000, "byte {at}: {}", ran.stderr);
        }
    }
    assert!(unharmed > 0, "damage where no entry is was not met");
}
