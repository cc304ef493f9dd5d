//! `backup import`: what other programs made becomes an unproven backup.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::{fs, os::unix::fs::MetadataExt, path::Path};
use support::{
    Place,
    trial::{fingerprint, tool},
};

fn sh(place: &Place, script: &str) {
    tool("sh", &["-ec", &format!("cd '{}'; {script}", place.path("").display())]);
}

/// The id of the only backup in `b`, which must be unproven.
fn unproven(place: &Place) -> String {
    let list = place.json(0, &["list", "--from", "b"]);
    assert_eq!(list["backups"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["backups"][0]["state"], "unproven", "{list}");
    list["backups"][0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_tar_of_another_program_is_imported_listed_and_restored_and_is_never_the_latest() {
    for (file, how) in [("x.tar", ""), ("x.tar.gz", "-z"), ("x.tar.zst", "--zstd"), ("x.tar.xz", "-J")] {
        let place = Place::with_tree();
        let long = "n".repeat(180);
        place.write(&format!("tree/{long}/caf\u{e9} \n x"), "a name");
        fs::write(place.path("tree/large"), support::noise(3 << 20)).unwrap();
        sh(
            &place,
            "truncate -s 3M tree/hole; printf data | dd of=tree/hole bs=1M seek=1 conv=notrunc status=none",
        );
        sh(&place, "ln tree/a.txt tree/same; ln -s nowhere tree/link; mkfifo tree/pipe; chmod 750 tree/sub");
        sh(&place, "setfattr -n user.x -v 1 tree/a.txt; touch -d '2001-02-03 04:05:06' tree/sub/b.txt");
        sh(
            &place,
            &format!("tar --format=pax -S --xattrs {how} -cf {file} -C tree . && touch -d 2020-01-02 {file}"),
        );
        place.expect(0, &["import", file, "--to", "b", "-m", "old"]);
        let id = unproven(&place);
        place.expect(3, &["restore", "latest", "--from", "b", "--to", "out"]);
        place.expect(2, &["restore", &id, "--from", "b"]);
        let plan = place.expect(0, &["restore", &id, "--from", "b", "--to", "out", "--dry-run"]).stdout;
        assert!(plan.contains("UNPROVEN: it was imported") && plan.contains("2020-01-0"), "{plan}");
        place.expect(0, &["verify", "--from", "b"]);
        place.expect(0, &["restore", &id, "--from", "b", "--to", "out"]);
        assert_eq!(fingerprint(&place.path("out")), fingerprint(&place.path("tree")), "{file}");
        assert_eq!(place.path("out/same").metadata().unwrap().nlink(), 2);
        assert!(place.path("out/hole").metadata().unwrap().blocks() < 100);
        place.expect(0, &["copy", "--all", "--from", "b", "--to", "c.tar"]);
        let copied = place.json(0, &["show", "c.tar"]);
        assert_eq!(copied["manifest"]["state"], "unproven");
        assert!(copied["manifest"]["metadata"]["importedFrom"].as_str().unwrap().ends_with(file));
    }
}

#[test]
fn an_encrypted_unproven_backup_is_known_without_its_key() {
    let place = Place::new();
    place.write("dump.sql", "SELECT 1;");
    place.expect(0, &["import", "dump.sql", "--to", "plain", "-m", "old"]);
    let recipient = place.keys("b");
    for _ in 0..2 {
        place.expect(0, &["copy", "--all", "--from", "plain", "--to", "b", "--recipient", &recipient]);
        let list = place.json(0, &["list", "--from", "b", "-m", "old"]);
        assert_eq!(list["backups"][0]["encrypted"], true, "{list}");
        assert_eq!(unproven(&place), list["backups"][0]["id"].as_str().unwrap());
    }
    place.expect(0, &["verify", "--from", "b"]);
    let id = unproven(&place);
    place.expect(0, &["restore", &id, "--from", "b", "--identity", "key.txt", "--to", "out"]);
    place.expect(0, &["remove", &id, "--from", "b"]);
}

#[test]
fn an_import_is_encrypted_to_whom_the_line_names() {
    let place = Place::new();
    place.write("dump.sql", "SELECT 1;");
    place.write("pass", "correct horse\n");
    place.expect(0, &["init", "b", "--encrypt", "--identity-file", "key.txt"]);
    let text = place.read("key.txt");
    let recipient = text.lines().find_map(|l| l.strip_prefix("# public key: ")).unwrap();
    let ran = place.expect(2, &["import", "dump.sql", "--to", "b"]);
    assert!(ran.stderr.contains(&format!("--recipient '{recipient}'")), "{}", ran.stderr);
    place.expect(2, &["import", "dump.sql", "--to", "b", "--recipient", "x", "--passphrase-file", "pass"]);
    place.expect(0, &["import", "dump.sql", "--to", "b", "--recipient", recipient]);
    let id = unproven(&place);
    // What it holds is seen with the key; `latest` says why it is not this one.
    let ran = place.expect(0, &["list", "--from", "b"]);
    assert!(!ran.stdout.contains("dump.sql") && ran.stderr.contains("--identity FILE"), "{}", ran.stderr);
    let ran = place.expect(0, &["list", "--from", "b", "--identity", "key.txt"]);
    assert!(ran.stdout.contains("dump.sql"), "{}", ran.stdout);
    let ran = place.expect(3, &["restore", "latest", "--from", "b", "--to", "out"]);
    assert!(ran.stderr.contains(&format!("{id}, which is unproven")), "{}", ran.stderr);
    place.expect(2, &["restore", &id, "--from", "b", "--to", "out"]);
    let restore = ["--quiet", "restore", &id, "--from", "b", "--identity", "key.txt", "--to", "out"];
    let ran = place.expect(0, &restore);
    assert!(ran.stderr.contains("nothing says that it is what there was"), "{}", ran.stderr);
    place.expect(0, &["import", "dump.sql", "--to", "x.tar.zst.age", "--passphrase-file", "pass"]);
    place.expect(0, &["restore", "x.tar.zst.age", "--passphrase-file", "pass", "--to", "out-x"]);
    sh(&place, "cmp dump.sql out && cmp dump.sql out-x");
}

#[test]
fn a_dump_is_kept_byte_for_byte() {
    let place = Place::new();
    place.write("dify-db.sql", "CREATE TABLE t (x int);\n");
    sh(&place, "gzip dify-db.sql; head -c 2000000 /dev/urandom > big.dump");
    for file in ["dify-db.sql.gz", "big.dump"] {
        let _ = fs::remove_dir_all(place.path("b"));
        place.expect(0, &["import", file, "--to", "b"]);
        let id = unproven(&place);
        place.expect(0, &["restore", &id, "--from", "b", "--to", &format!("back-{file}")]);
        sh(&place, &format!("cmp {file} back-{file}"));
        place.expect(0, &["verify", "--from", "b"]);
    }
    let list = place.json(0, &["list", "--from", "b"]);
    assert_eq!(
        (&list["backups"][0]["module"], &list["backups"][0]["components"][0]),
        (&"big".into(), &"big.dump".into())
    );
}

#[test]
fn of_two_members_of_one_name_the_later_one_counts() {
    let place = Place::with_tree();
    sh(&place, "tar -cf x.tar tree; echo later > tree/a.txt; tar -rf x.tar tree/a.txt");
    place.expect(0, &["import", "x.tar", "--to", "b"]);
    let id = unproven(&place);
    place.expect(0, &["verify", "--from", "b"]);
    place.expect(0, &["restore", &id, "--from", "b", "--to", "out"]);
    assert_eq!(place.read("out/tree/a.txt"), "later\n");
}

#[test]
fn a_hostile_or_damaged_tar_is_refused_and_nothing_is_stored() {
    let place = Place::with_tree();
    sh(&place, "mkdir w; tar -cPf up.tar --transform 's,^tree,../tree,' tree");
    sh(&place, "ln -s /etc l; tar -cf below.tar l; rm l; mkdir l; echo x > l/x; tar -rf below.tar l/x");
    sh(&place, "cd tree; ln a.txt b; tar -cPf ../hard.tar --transform 's,a.txt,../../a,h' a.txt b; rm b");
    sh(
        &place,
        "head -c 5000000 /dev/urandom > tree/noise; tar -czf whole.tar.gz tree; head -c 3000000 whole.tar.gz > cut.tar.gz",
    );
    sh(
        &place,
        "cp whole.tar.gz flipped.tar.gz; printf x | dd of=flipped.tar.gz bs=1 seek=2500000 conv=notrunc status=none",
    );
    place.write("not.tar.gz", "this is no tar");
    for file in ["up.tar", "below.tar", "hard.tar", "cut.tar.gz", "flipped.tar.gz", "not.tar.gz"] {
        let ran = place.expect(7, &["import", file, "--to", "b"]);
        assert!(ran.stderr.contains("nothing of it was imported"), "{file}: {}", ran.stderr);
        let there = fs::read_dir(place.path("b")).map(|names| names.count()).unwrap_or(0);
        assert_eq!(there, 0, "{file}");
    }
    place.expect(3, &["import", "nowhere.tar", "--to", "b"]);
    place.expect(2, &["import", "tree", "--to", "b"]);
    assert_eq!(refused_dumps(&place), 0);
    // Absolute paths stay inside, as tar has them.
    sh(&place, "tar -cPf absolute.tar \"$PWD/tree/a.txt\"");
    let ran = place.expect(0, &["import", "absolute.tar", "--to", "b"]);
    assert!(ran.stderr.contains("lose their first slash"), "{}", ran.stderr);
    let id = unproven(&place);
    place.expect(0, &["restore", &id, "--from", "b", "--to", "out"]);
    let inside = place.path("tree/a.txt");
    assert!(place.path("out").join(inside.strip_prefix(Path::new("/")).unwrap()).is_file());
}

/// Dumps that are no tars, cut or damaged in each compression; returns what of them is stored.
fn refused_dumps(place: &Place) -> usize {
    let whole = "seq 1 400000 > db.sql; for p in gzip zstd xz; do $p -qkf db.sql; done; : > empty.sql.gz";
    sh(place, whole);
    let cut = "for e in gz zst xz; do head -c 30 db.sql.$e > short.sql.$e; head -c 20000 db.sql.$e > cut.sql.$e; cp db.sql.$e flipped.$e; \
               printf abc | dd of=flipped.$e bs=1 seek=15000 conv=notrunc status=none; cp cut.sql.$e cut-$e.dump; done";
    sh(place, cut);
    for ending in ["gz", "zst", "xz"] {
        for file in ["short.sql.E", "cut.sql.E", "flipped.E", "cut-E.dump"] {
            let file = file.replace('E', ending);
            let ran = place.expect(7, &["import", &file, "--to", "b"]);
            assert!(ran.stderr.contains("it is cut or damaged: "), "{file}: {}", ran.stderr);
            assert!(ran.stderr.contains("nothing of it was imported"), "{file}: {}", ran.stderr);
            assert!(!ran.stderr.contains("WARNING"), "{file}: {}", ran.stderr);
        }
        // In several pieces, as some programs write it, and each of them whole.
        sh(place, &format!("cat db.sql.{ending} db.sql.{ending} > twice.sql.{ending}"));
        for file in ["db.sql.E", "twice.sql.E"] {
            let (file, archive) = (file.replace('E', ending), format!("{}.tar", file.replace('E', ending)));
            place.expect(0, &["import", &file, "--to", &archive]);
            place.expect(0, &["restore", &archive, "--to", &format!("back-{file}")]);
            sh(place, &format!("cmp {file} back-{file}"));
        }
    }
    let ran = place.expect(7, &["import", "empty.sql.gz", "--to", "b"]);
    assert!(ran.stderr.contains("its name says that it is of gzip"), "{}", ran.stderr);
    fs::read_dir(place.path("b")).map(|names| names.count()).unwrap_or(0)
}

#[test]
fn several_files_are_imported_and_one_that_fails_is_said() {
    let place = Place::with_tree();
    sh(&place, "tar -cf one.tar tree; tar -cf two.tar tree");
    place.write("bad.tar", "no tar");
    let ran = place.json(7, &["import", "one.tar", "bad.tar", "two.tar", "--to", "b", "--tag", "old"]);
    let kinds: Vec<bool> =
        ran["results"].as_array().unwrap().iter().map(|r| r["report"].is_object()).collect();
    assert_eq!(kinds, [true, false, true], "{ran}");
    let list = place.json(0, &["list", "--from", "b"]);
    assert_eq!(list["backups"].as_array().unwrap().len(), 2);
    place.expect(2, &["import", "one.tar", "two.tar", "--to", "x.tar"]);
}

#[test]
fn an_archive_of_our_own_is_copied_instead() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "x.tar.zst"]);
    let ran = place.expect(2, &["import", "x.tar.zst", "--to", "b"]);
    assert!(ran.stderr.contains("backup copy"), "{}", ran.stderr);
}
