//! Disks that are not mounted, of archives and of what is backed up.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

mod support;

use std::fs;
use support::{
    Place,
    trial::{Mount, is_root},
};

#[test]
fn a_disk_that_is_not_mounted_gets_no_backups_and_the_other_places_do() {
    if !is_root("a_disk_that_is_not_mounted_gets_no_backups_and_the_other_places_do") {
        return;
    }
    let place = Place::with_tree();
    let disk = Mount::tmpfs(&place.path("disk"), "size=20m");
    let create =
        |code, line: &[&str]| place.expect(code, &[&["create", "tree", "--to"], line].concat()).stderr;
    create(0, &["disk/b"]);
    place.expect(0, &["init", "disk"]);
    drop(disk);
    place.write("disk/NOT_MOUNTED", "");
    create(4, &["disk"]);
    // Not only in the first night.
    for _ in 0..2 {
        let told = create(4, &["disk/b"]);
        assert!(told.contains("on another disk") && told.contains("mount its disk"), "{told}");
        let told = create(4, &["disk/b", "--to", "other"]);
        assert!(told.contains("the other places have it"), "{told}");
        assert!(!place.path("disk/b").exists());
    }
    place.write("backup.toml", "[archives.disk]\nurl = \"disk/b\"\n[archives.other]\nurl = \"other\"\n");
    for line in [
        &["list", "--from", "disk/b"][..],
        &["verify", "--from", "disk"],
        &["restore", "latest", "--from", "disk/b", "--to", "out"],
        &["copy", "--all", "--from", "disk", "--to", "other"],
        &["heal", "--from", "disk"],
        &["heal"],
    ] {
        let told = place.expect(4, line).stderr;
        assert!(told.contains("on another disk") && !told.contains("other could not"), "{line:?}: {told}");
    }
    fs::remove_file(place.path("backup.toml")).unwrap();
    assert_eq!(place.json(0, &["list", "--from", "other"])["backups"].as_array().unwrap().len(), 2);
    place.expect(4, &["copy", "--all", "--from", "other", "--to", "disk/b"]);
    place.expect(0, &["init", "disk/b"]);
    create(0, &["disk/b"]);
}

#[test]
fn a_folder_of_backups_that_is_gone_or_empty_is_told_and_so_is_a_source_that_is_empty() {
    let place = Place::with_tree();
    place.write("disk/mounted", "");
    let create = |code| place.expect(code, &["create", "tree", "--to", "disk/b", "--quiet"]).stderr;
    assert_eq!(create(0), "");
    assert_eq!(create(0), "");
    fs::rename(place.path("disk/b"), place.path("away")).unwrap();
    for (code, command) in [(3, "list"), (3, "verify")] {
        let told = place.expect(code, &[command, "--from", "disk/b"]).stderr;
        assert!(told.contains("disk/b has held backups before"), "{command}: {told}");
    }
    // Where a person chooses, too.
    let line = format!("{} restore --from disk/b", env!("CARGO_BIN_EXE_backup"));
    let guided = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .current_dir(place.path(""))
        .env("BACKUP_STATE_DIR", place.path("state"))
        .stdin(std::process::Stdio::null())
        .output();
    match guided {
        Ok(ran) => {
            let told = String::from_utf8_lossy(&ran.stdout).replace("\r\n", " ");
            assert!(told.contains("has held backups before"), "{told}");
        }
        Err(_) => support::could_not_run("script", "the program `script` makes the terminal of this test"),
    }
    let told = create(0);
    assert!(told.contains("disk/b has held backups before") && told.contains("mounted"), "{told}");
    assert_eq!(create(0), "", "it holds one now");
    fs::create_dir(place.path("empty")).unwrap();
    let ran = place.expect(0, &["create", "empty", "--to", "b", "--quiet"]);
    assert!(ran.stderr.contains("is empty") && ran.stderr.contains("mounted"), "{}", ran.stderr);
}

#[test]
fn a_disk_that_is_read_only_or_full_is_told_as_that() {
    if !is_root("a_disk_that_is_read_only_or_full_is_told_as_that") {
        return;
    }
    let place = Place::with_tree();
    let disk = Mount::tmpfs(&place.path("disk"), "size=512k");
    let ran = place.expect(4, &["create", "tree", "--to", "disk/b"]);
    assert!(ran.stderr.contains("bytes are free") && !ran.stderr.contains("about 0 bytes"), "{}", ran.stderr);
    disk.remount("ro");
    for to in ["disk/new", "disk"] {
        let ran = place.expect(4, &["create", "tree", "--to", to]);
        let told = ran.stderr.contains("mount it for writing") && !ran.stderr.contains("folder above");
        assert!(told, "{to}: {}", ran.stderr);
    }
}
