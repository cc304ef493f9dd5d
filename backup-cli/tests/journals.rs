//! What earlier restores have left: where it cannot be seen, whose it is, what it bars, and how it is given up.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

mod support;

use serde_json::Value;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};
use support::{
    Place, Ran,
    trial::{homes_in, is_root, names_in},
};

/// Restores the newest backup, with consent to its plan; the id of the restore.
fn restored(place: &Place, line: &[&str]) -> String {
    let line = [&["restore", "latest"][..], line].concat();
    let plan = place.json(0, &[&line[..], &["--dry-run"]].concat());
    let id = plan["plan"]["id"].as_str().unwrap();
    let done = place.json(0, &[&line[..], &["--confirm", id]].concat());
    done["report"]["id"].as_str().unwrap().to_owned()
}

/// As if that restore had been killed just before it was decided. Where its journal is.
fn interrupted(place: &Place, id: &str) -> PathBuf {
    let pointer = place.read(&format!("state/restores/{id}.json"));
    let pointer: Value = serde_json::from_str(&pointer).unwrap();
    let path = PathBuf::from(pointer["journal"].as_str().unwrap());
    let mut journal: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    journal["phase"] = "publishing".into();
    fs::write(&path, journal.to_string()).unwrap();
    path
}

fn says(ran: &Ran, parts: &[&str]) {
    for part in parts {
        assert!(ran.stderr.contains(part), "{part} is not in: {}", ran.stderr);
    }
}

/// Two components on two disks, with old data where a backup is restored over it.
fn on_two_disks() -> (Place, String) {
    let place = Place::new();
    for disk in ["one", "two"] {
        place.write(&format!("{disk}/data/x"), "backup");
    }
    place.expect(0, &["create", "one=one/data", "two=two/data", "--to", "b"]);
    for disk in ["one", "two"] {
        place.write(&format!("{disk}/data/x"), "old");
    }
    let id = restored(&place, &["--from", "b"]);
    (place, id)
}

fn both(place: &Place) -> [String; 2] {
    [place.read("one/data/x"), place.read("two/data/x")]
}

fn nothing_is_left(place: &Place) {
    for disk in ["one", "two"] {
        assert_eq!(homes_in(&place.path(disk)), [""; 0].map(PathBuf::from));
    }
    assert_eq!(names_in(&place.path("state/restores")), [""; 0]);
}

#[test]
fn what_lies_on_a_disk_that_is_not_mounted_is_never_said_to_be_undone_or_dropped() {
    let (place, id) = on_two_disks();
    let unmount = || fs::rename(place.path("two"), place.path("away")).unwrap();
    let mount = || fs::rename(place.path("away"), place.path("two")).unwrap();
    unmount();
    for line in [&["restore", "--undo", "--yes"][..], &["settle"]] {
        says(&place.expect(1, line), &["two at", "is not there", "mount", &format!("--forget {id}")]);
        assert_eq!(place.read("one/data/x"), "backup", "it was begun");
    }
    let journal = interrupted(&place, &id);
    for _ in 0..2 {
        says(&place.expect(8, &["heal"]), &["two at", "is not there", "mount", &format!("--forget {id}")]);
        assert!(journal.exists() && place.read("one/data/x") == "old");
    }
    mount();
    let healed = place.expect(0, &["heal"]);
    assert!(healed.stdout.contains("was undone"), "{}", healed.stdout);
    assert_eq!(both(&place), ["old", "old"]);
    nothing_is_left(&place);
}

#[test]
fn a_restore_with_a_disk_that_is_gone_for_good_is_forgotten() {
    let (place, id) = on_two_disks();
    // What can be undone is not given up.
    says(&place.expect(6, &["heal", "--forget", &id]), &["within reach", "settle"]);
    fs::remove_dir_all(place.path("two")).unwrap();
    let forgotten = place.json(0, &["heal", "--forget", &id]);
    let given_up = forgotten["forgotten"]["given_up"].as_array().unwrap();
    assert!(given_up.len() == 1 && given_up[0].as_str().unwrap().contains("two at"), "{forgotten}");
    fs::create_dir(place.path("two")).unwrap();
    nothing_is_left(&place);
    assert_eq!(place.read("one/data/x"), "backup");
}

#[test]
fn a_restore_whose_journal_is_gone_bars_only_its_own_place_and_is_forgotten() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("usb/d/x", "old");
    let id = restored(&place, &["--from", "b", "--to", "usb/d"]);
    fs::remove_dir_all(place.path("usb")).unwrap();
    fs::create_dir(place.path("usb")).unwrap();
    let forget = format!("heal --forget {id}");
    let elsewhere = place.expect(0, &["restore", "latest", "--from", "b", "--to", "elsewhere"]);
    says(&elsewhere, &["could not be healed", &forget]);
    says(&place.expect(8, &["restore", "latest", "--from", "b", "--to", "usb/d"]), &["usb/d", &forget]);
    says(&place.expect(8, &["heal"]), &["mounted", &forget]);
    for line in [&["settle", &id][..], &["restore", "--undo", &id, "--yes"]] {
        says(&place.expect(1, line), &[&forget]);
    }
    let forgotten = place.expect(0, &["heal", "--forget", &id]).stdout;
    assert!(forgotten.contains("given up") && forgotten.contains("usb/d"), "{forgotten}");
    place.expect(3, &["heal", "--forget", &id]);
    assert!(place.expect(0, &["heal"]).stdout.contains("nothing to heal"));
    place.expect(0, &["restore", "latest", "--from", "b", "--to", "usb/d"]);
}

#[test]
fn a_restore_that_heal_finds_beside_its_data_is_undone_from_there_on_without_the_state_folder_of_its_run() {
    for lost in [true, false] {
        let (place, id) = on_two_disks();
        if lost {
            fs::remove_dir_all(place.path("state")).unwrap();
        }
        let run = |line: &[&str], new: &str| {
            let ran: Ran =
                place.command(line).env("BACKUP_STATE_DIR", place.path(new)).output().unwrap().into();
            assert_eq!(ran.code, 0, "{}\n{}{}", line.join(" "), ran.stdout, ran.stderr);
            ran.stdout
        };
        let new = if lost { "state" } else { "new-state" };
        let kept = run(&["heal", "two/data"], new);
        assert!(kept.contains(&format!("--undo {id}")), "it does not say how it is undone: {kept}");
        run(&["restore", "--undo", &id, "--yes"], new);
        assert_eq!(both(&place), ["old", "old"]);
        nothing_is_left(&place);
        assert_eq!(names_in(&place.path(new).join("restores")), [""; 0]);
    }
}

#[test]
fn old_data_that_is_kept_is_not_made_useless_by_a_restore_that_drops_its_own_at_once() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "precious");
    let id = restored(&place, &["--from", "b"]);
    for how in ["--dry-run", "--yes"] {
        let ran = place.expect(6, &["restore", "latest", "--from", "b", "--settle", how]);
        let text = format!("{}{}", ran.stdout, ran.stderr);
        assert!(text.contains("could not be brought back any more") && text.contains(&id), "{text}");
    }
    let home = homes_in(&place.path("")).remove(0);
    let shown = home.file_name().unwrap().to_str().unwrap().rsplit_once(".backup-").unwrap().1;
    place.expect(0, &["restore", "--undo", shown, "--yes"]);
    assert_eq!(place.read("tree/a.txt"), "precious");
}

#[test]
fn a_place_of_which_nothing_is_known_keeps_no_other_from_being_healed() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("mnt/data/x", "old");
    let id = restored(&place, &["--from", "b", "--to", "mnt/data"]);
    interrupted(&place, &id);
    fs::rename(place.path("mnt"), place.path("away")).unwrap();
    says(&place.expect(8, &["heal", "mnt/data"]), &["is not there", &format!("--forget {id}")]);
    fs::rename(place.path("away"), place.path("mnt")).unwrap();
    let ran = place.expect(3, &["heal", "mnt/data", "gone"]);
    assert!(
        ran.stdout.contains("was undone") && ran.stderr.contains("no restore to it is known"),
        "{}",
        ran.stderr
    );
    assert_eq!(place.read("mnt/data/x"), "old");
}

#[test]
fn several_components_go_into_a_folder_that_is_made_for_them_and_taken_away_if_that_fails() {
    let place = Place::new();
    place.write("one/x", "1");
    place.write("two/y", "2");
    place.expect(0, &["create", "one=one", "two=two", "--to", "b"]);
    place.expect(0, &["restore", "latest", "--from", "b", "--to", "made", "--dry-run"]);
    assert!(!place.path("made").exists());
    place.expect(0, &["restore", "latest", "--from", "b", "--to", "made"]);
    assert_eq!([place.read("made/one/x"), place.read("made/two/y")], ["1", "2"]);
    says(&place.expect(3, &["restore", "latest", "--from", "b", "--to", "no/such"]), &["mkdir -p"]);
    let large = fs::File::options().write(true).open(place.path("two/y")).unwrap();
    large.set_len(1 << 20).unwrap();
    place.expect(0, &["create", "one=one", "two=two", "--to", "c"]);
    let archive = names_in(&place.path("c")).into_iter().find(|name| name.ends_with(".zst")).unwrap();
    let mut bytes = fs::read(place.path("c").join(&archive)).unwrap();
    for byte in &mut bytes[100..200] {
        *byte ^= 0xff;
    }
    fs::write(place.path("c").join(&archive), bytes).unwrap();
    place.expect(7, &["restore", "latest", "--from", "c", "--to", "failed"]);
    assert!(!place.path("failed").exists(), "the folder is left");
}

#[test]
fn old_data_that_is_kept_is_not_moved_away_with_the_folder_that_it_lies_in() {
    let place = Place::new();
    place.write("outer/inner/x", "backup");
    place.expect(0, &["create", "outer/inner", "--to", "of-inner"]);
    place.expect(0, &["create", "outer", "--to", "of-outer"]);
    place.write("outer/inner/x", "old");
    let inner = restored(&place, &["--from", "of-inner"]);
    for how in [&["--dry-run"][..], &["--settle"], &["--merge"]] {
        let ran = place.expect(6, &[&["restore", "latest", "--from", "of-outer"][..], how].concat());
        let text = format!("{}{}", ran.stdout, ran.stderr);
        assert!(text.contains("lies inside") && text.contains(&inner), "{text}");
    }
    place.expect(0, &["settle", &inner]);
    let outer = restored(&place, &["--from", "of-outer"]);
    let inner = restored(&place, &["--from", "of-inner"]);
    says(&place.expect(6, &["restore", "--undo", &outer, "--yes"]), &[&format!("--undo {inner}")]);
    for id in [&inner, &outer] {
        place.expect(0, &["restore", "--undo", id, "--yes"]);
    }
    assert_eq!(names_in(&place.path("state/restores")), [""; 0]);
}

#[test]
fn the_state_folder_is_not_replaced_and_journals_are_not_backed_up() {
    let place = Place::with_tree();
    let state = place.path("tree/.state");
    let run = |code: i32, line: &[&str]| {
        let ran: Ran = place.command(line).env("BACKUP_STATE_DIR", &state).output().unwrap().into();
        assert_eq!(ran.code, code, "{}\n{}{}", line.join(" "), ran.stdout, ran.stderr);
        format!("{}{}", ran.stdout, ran.stderr)
    };
    run(0, &["create", "tree", "--to", "b"]);
    for (how, says) in [("--dry-run", "state folder"), ("--merge", "BACKUP_STATE_DIR")] {
        let text = run(6, &["restore", "latest", "--from", "b", how]);
        assert!(text.contains("lies inside") && text.contains(says), "{text}");
    }
    // What a restore to elsewhere leaves in it.
    place.write("tree/.state/restores/01j00000000000000000000000.json", "{}");
    run(0, &["create", "tree", "--to", "b"]);
    let shown = run(0, &["show", "latest", "--from", "b", "--json"]);
    assert!(shown.contains(".state/restores") && shown.contains("is left out"), "it is not said: {shown}");
    let names = run(0, &["ls", "latest", "--from", "b"]);
    assert!(names.contains("tree/.state") && !names.contains("restores"), "{names}");
}

#[test]
fn what_others_may_have_written_is_told_and_left_alone() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "old");
    let id = restored(&place, &["--from", "b"]);
    let journal = interrupted(&place, &id);
    let home = journal.parent().unwrap();
    let mode = |of: &Path, mode| fs::set_permissions(of, fs::Permissions::from_mode(mode)).unwrap();
    let refuse = |why: &str| {
        says(&place.expect(8, &["heal"]), &[why]);
        fs::rename(place.path("state"), place.path("not-state")).unwrap();
        says(&place.expect(6, &["heal", "tree"]), &[why]);
        fs::rename(place.path("not-state"), place.path("state")).unwrap();
        assert_eq!(place.read("tree/a.txt"), "alpha");
    };
    mode(&journal, 0o622);
    refuse("others may write");
    mode(&journal, 0o600);
    mode(home, 0o777);
    refuse("others may write");
    mode(home, 0o700);
    if is_root("what_others_may_have_written_is_told_and_left_alone, for other users") {
        let own = |uid| [home, &journal].map(|path| chown(path, Some(uid), None).unwrap());
        own(65534);
        refuse("belongs to the user 65534");
        own(0);
    }
    // A copy of it elsewhere speaks of what is here.
    let copy = place.path("copy");
    fs::create_dir_all(copy.join(home.file_name().unwrap())).unwrap();
    let copied = copy.join(home.file_name().unwrap()).join("journal.json");
    fs::copy(&journal, &copied).unwrap();
    let mut line = place.command(&["heal", "copy/tree"]);
    let ran: Ran = line.env("BACKUP_STATE_DIR", place.path("none")).output().unwrap().into();
    assert_eq!((ran.code, &*place.read("tree/a.txt")), (8, "alpha"), "{}", ran.stderr);
    says(&ran, &["was moved"]);
    place.expect(0, &["heal"]);
    assert_eq!(place.read("tree/a.txt"), "old");
}
