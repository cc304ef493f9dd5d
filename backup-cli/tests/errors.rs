//! Exact texts of errors: people and scripts read them.

#![cfg(unix)]

mod support;

use support::{
    Place,
    trial::{Mount, is_root},
};

#[test]
fn an_unknown_key_names_line_and_nearest_key() {
    let place = Place::new();
    place.write(
        "backup.toml",
        "[modules.a.sources.x]\nkind = \"files\"\npath = \"tree\"\nexlude = [\"*.tmp\"]\n",
    );
    place.golden("config_unknown_key", &["config", "check"]);
}

#[test]
fn a_mistyped_kind_is_named() {
    let place = Place::new();
    place.write("backup.toml", "[modules.a.sources.x]\npath = \"tree\"\nknid = \"files\"\n");
    let ran = place.expect(2, &["config", "check"]);
    assert!(ran.stderr.contains("backup.toml:3") && ran.stderr.contains("has no `kind`"), "{}", ran.stderr);
    assert!(ran.stderr.contains("`knid`: did you mean `kind`?"), "{}", ran.stderr);
}

#[test]
fn a_heal_of_what_does_not_exist_is_no_success() {
    let place = Place::with_tree();
    for line in
        [&["heal", "--from", "nowhere"][..], &["heal", "nowhere"], &["heal", "--from", "nowhere/x.tar"]]
    {
        let ran = place.expect(3, line);
        assert!(ran.stderr.contains("nowhere"), "{}", ran.stderr);
    }
    // What is configured may be still to be made, and what was restored may be gone.
    place.write("backup.toml", "[archives.a]\nurl = \"nowhere\"\n");
    place.expect(0, &["heal"]);
    place.expect(0, &["create", "tree", "--to", "./b"]);
    place.write("out/old", "old");
    let line = ["restore", "latest", "--from", "./b", "--to", "out"];
    let plan = place.json(0, &[&line[..], &["--dry-run"]].concat());
    place.expect(0, &[&line[..], &["--confirm", plan["plan"]["id"].as_str().unwrap()]].concat());
    std::fs::remove_dir_all(place.path("out")).unwrap();
    place.expect(0, &["heal", "out", "tree", "--from", "./b"]);
}

#[test]
fn heal_is_a_hint_only_where_it_does_something() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "x.tar"]);
    let whole = std::fs::read(place.path("x.tar")).unwrap();
    std::fs::write(place.path("x.tar"), &whole[..whole.len() / 2]).unwrap();
    let ran = place.expect(7, &["show", "x.tar"]);
    assert!(ran.stderr.contains("--salvage") && !ran.stderr.contains("heal"), "{}", ran.stderr);
}

#[test]
fn a_pattern_with_the_path_of_its_source_leaves_out_what_it_says_and_the_report_counts() {
    let place = Place::with_tree();
    let absolute = place.path("tree/sub").to_str().unwrap().to_owned();
    let made = place.expect(0, &["create", "tree", "--to", "a.tar", "--exclude", &absolute]);
    assert!(made.stdout.contains("excluded 1 path,"), "{}", made.stdout);
    assert!(!place.expect(0, &["ls", "a.tar"]).stdout.contains("sub"));
    let made = place.expect(0, &["create", "tree", "--to", "b.tar", "--exclude", "/elsewhere/sub"]);
    assert!(made.stdout.contains("excluded nothing"), "{}", made.stdout);
    let made = place.json(0, &["create", "tree", "--to", "c.tar", "--exclude", "*.txt"]);
    assert_eq!(made["results"][0]["report"]["components"][0]["excluded"], 2, "{made}");
    let whole = place.path("tree").to_str().unwrap().to_owned();
    place.expect(2, &["create", "tree", "--to", "d.tar", "--exclude", &whole]);
    assert!(!place.expect(0, &["create", "tree", "--to", "e.tar"]).stdout.contains("excluded"));
}

#[test]
fn an_unknown_kind_is_an_error() {
    let place = Place::new();
    place.write("backup.toml", "[modules.a.sources.x]\nkind = \"mysqll\"\npath = \"tree\"\n");
    place.golden("config_unknown_kind", &["create"]);
}

#[test]
fn a_variable_that_is_not_set_names_its_line() {
    let place = Place::new();
    place.write("backup.toml", "[archives.nas]\nurl = \"${NAS:?the mount point}/b\"\n");
    place.golden("config_variable_unset", &["list"]);
}

#[test]
fn a_variable_that_is_not_set_is_in_the_way_of_what_needs_it_only() {
    let place = Place::with_tree();
    let configured = "[modules.m.sources.tree]\nkind = \"files\"\npath = \"tree\"\n[archives.here]\nurl = \"b\"\n\
                      [archives.nas]\nurl = \"${NAS}/b\"\n";
    place.write("backup.toml", configured);
    place.expect(0, &["create", "--to", "here"]);
    place.expect(0, &["list", "--from", "here"]);
    for line in [&["create", "--to", "nas"][..], &["list", "--from", "nas"], &["config", "check"]] {
        let ran = place.expect(2, line);
        assert!(
            ran.stderr.contains("backup.toml:7") && ran.stderr.contains("NAS is not set"),
            "{}",
            ran.stderr
        );
    }
    let names_it = |code, line: &[&str]| {
        let ran = place.expect(code, line);
        let told = ["nas", "backup.toml:7", "NAS is not set"];
        assert!(told.iter().all(|text| ran.stderr.contains(text)), "{line:?}: {}", ran.stderr);
    };
    // Among several it fails only itself.
    for to in [["nas", "here"], ["here", "nas"]] {
        names_it(4, &["create", "--to", to[0], "--to", to[1]]);
    }
    assert_eq!(place.json(0, &["list", "--from", "here"])["backups"].as_array().unwrap().len(), 3);
    names_it(4, &["create", "--to", "nas", "--to", "here", "--dry-run"]);
    place.write("b/.m-backup-x.tar.zst.0123456789abcdef.01234567890123456789012345.incomplete", "");
    let before = std::fs::read_dir(place.path("b")).unwrap().count();
    names_it(4, &["heal"]);
    assert_eq!(std::fs::read_dir(place.path("b")).unwrap().count(), before - 1, "the others are healed");
    place.write("backup.toml", &configured.replace("\"b\"", "\"${NAS}/c\""));
    place.expect(2, &["create", "--to", "here", "--to", "nas"]);
    place.write("backup.toml", &format!("{configured}levl = 1\n"));
    place.expect(2, &["list", "--from", "here"]);
}

#[test]
fn an_env_file_fills_variables() {
    let place = Place::new();
    place.write("backup.toml", "[archives.nas]\nurl = \"${NAS}/b\"\n");
    place.write(".env", "NAS=/mnt\n");
    let ran = place.expect(0, &["config", "check", "--env-file", ".env"]);
    assert!(ran.stdout.contains("nas: /mnt/b"), "{}", ran.stdout);
    assert!(ran.stderr.contains("chmod 600"), "a file that others can read is a warning: {}", ran.stderr);
}

#[test]
fn an_unknown_scheme_is_an_error() {
    let place = Place::with_tree();
    place.golden("source_unknown_scheme", &["create", "ftp://host/x", "--to", "b"]);
    place.golden("archive_unknown_scheme", &["create", "tree", "--to", "ftp://host/x"]);
    place.golden("archive_unknown_ending", &["create", "tree", "--to", "x.tar.bz2"]);
}

#[test]
fn nothing_named_is_explained() {
    let place = Place::with_tree();
    place.golden("nothing_to_back_up", &["create", "--to", "b"]);
    place.golden("no_archive", &["create", "tree"]);
    place.golden("no_backup_named", &["restore", "--from", "b"]);
    place.write("backup.toml", "[archives.a]\nurl = \"./a\"\n[archives.b]\nurl = \"./b\"\n");
    place.golden("several_archives", &["create", "tree"]);
    place.golden("unknown_archive", &["list", "--from", "c"]);
}

#[test]
fn a_missing_folder_is_not_found() {
    let place = Place::new();
    place.golden("source_missing", &["create", "tree", "--to", "b"]);
    assert!(!place.path("b").exists(), "nothing is made for a backup that cannot be");
}

#[test]
fn a_destination_that_cannot_be_written_is_an_error() {
    let place = Place::with_tree();
    place.write("file", "in the way");
    place.golden("destination_not_writable", &["create", "tree", "--to", "file/b"]);
}

#[test]
fn a_destination_inside_the_source_is_an_error_that_names_both() {
    let place = Place::with_tree();
    place.golden("destination_inside_source", &["create", "tree", "--to", "tree/b"]);
    assert!(!place.path("tree/b").exists());
}

#[test]
fn a_destination_that_is_mounted_inside_the_source_or_from_it_is_refused() {
    if !is_root("a_destination_that_is_mounted_inside_the_source_or_from_it_is_refused") {
        return;
    }
    for (folder, at, archive) in [
        ("tree/sub", "x", "x"),
        ("tree", "x", "x/new"),
        ("kept", "tree/sub/x", "kept/b"),
        ("kept", "tree/y", "kept"),
    ] {
        let place = Place::with_tree();
        place.write("kept/file", "x");
        place.expect(0, &["create", "tree", "--to", "kept/before.tar"]);
        let _mount = Mount::bind(&place.path(folder), &place.path(at));
        let ran = place.expect(2, &["create", "tree", "--to", archive]);
        assert!(ran.stderr.contains("/tree, where it is "), "{}", ran.stderr);
        place.expect(0, &["create", "kept", "--to", "elsewhere"]);
        if at.starts_with("tree") {
            place.expect(6, &["restore", "kept/before.tar", "--to", "tree", "--dry-run"]);
        }
    }
}

#[test]
fn a_newer_backup_that_latest_or_a_date_passes_over_is_told() {
    let place = Place::with_tree();
    place.write("other/x", "x");
    let create = ["create", "one=tree", "two=other", "-m", "app", "--to", "b", "--allow-partial"];
    place.expect(0, &create);
    std::fs::rename(place.path("other"), place.path("gone")).unwrap();
    place.expect(5, &create);
    let partial = place.json(0, &["list", "--from", "b"])["backups"][1]["id"].as_str().unwrap().to_owned();
    let lines: [&[&str]; 6] = [
        &["ls", "latest"],
        &["show", "latest", "--json"],
        &["dump", "latest", "one/a.txt"],
        &["verify", "latest"],
        &["restore", "latest", "--only", "one", "--to", "out", "--dry-run", "--json"],
        &["copy", "latest", "--to", "c"],
    ];
    for line in lines {
        let ran = place.expect(0, &[line, &["--from", "b"]].concat());
        let told = format!("[WARNING] a newer one, {partial} of ");
        assert_eq!(ran.stderr.matches(&told).count(), 1, "{line:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("is partial and was passed over"), "{}", ran.stderr);
    }
    let today =
        place.json(0, &["list", "--from", "b"])["backups"][1]["created"].as_str().unwrap()[..10].to_owned();
    let ran = place.expect(0, &["show", &today, "--from", "b", "--progress", "json"]);
    assert!(
        ran.stderr.contains("\"severity\":\"warning\"") && ran.stderr.contains(&partial),
        "{}",
        ran.stderr
    );
    assert_eq!(place.expect(0, &["show", &partial, "--from", "b"]).stderr, "");
}

#[test]
fn latest_is_the_whole_module_and_a_part_of_it_is_told_and_taken_only_where_no_more_is_wanted() {
    let place = Place::with_tree();
    place.write("app.conf", "x = 1");
    place.write(
        "backup.toml",
        "[modules.app.sources.data]\nkind = \"files\"\npath = \"tree\"\n\
         [modules.app.sources.etc]\nkind = \"files\"\npath = \"app.conf\"\n[archives.local]\nurl = \"b\"\n",
    );
    place.expect(0, &["create"]);
    place.write("tree/a.txt", "changed since");
    place.expect(0, &["create", "--only", "data"]);
    let list = place.json(0, &["list"]);
    let [whole, part] = [0, 1].map(|n| list["backups"][n]["id"].as_str().unwrap().to_owned());
    assert_eq!(list["backups"][1]["only"], serde_json::json!(["data"]), "{list}");
    assert!(list["backups"][0].get("only").is_none(), "{list}");
    assert!(place.expect(0, &["list"]).stdout.contains(" only data\n"));
    let day = &list["backups"][1]["created"].as_str().unwrap()[..10];
    let lines: [&[&str]; 7] = [
        &["ls", "latest"],
        &["show", "latest"],
        &["dump", "latest", "data/a.txt"],
        &["verify", "latest"],
        &["restore", "latest", "--to", "out", "--dry-run"],
        &["restore", day, "--to", "out", "--dry-run"],
        &["copy", "latest", "--to", "./c"],
    ];
    for (line, module) in lines.iter().flat_map(|line| [(*line, &[][..]), (*line, &["-m", "app"][..])]) {
        let ran = place.expect(0, &[line, module].concat());
        let told = format!("[WARNING] a newer one, {part} of ");
        assert_eq!(ran.stderr.matches(&told).count(), 1, "{line:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("holds only data and was passed over"), "{}", ran.stderr);
        assert!(line[0] != "dump" || ran.stdout == "alpha", "{}", ran.stdout);
    }
    let of = |line: &[&str]| {
        let object = place.json(0, &[line, &["--to", "out", "--dry-run"]].concat());
        object["plan"]["backup"]["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(of(&["restore", "latest", "--only", "data"]), part);
    assert_eq!(of(&["restore", "latest", "--only", "data/a.txt", "-m", "app"]), part);
    assert_eq!(of(&["restore", "latest", "--only", "etc"]), whole);
    assert_eq!(of(&["restore", &part]), part);
    let ran = place.expect(3, &["show", "latest~1"]);
    let told = format!("there is only one complete backup; passed over: {part}, which holds only data");
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    // Where there is nothing else, it is the latest.
    place.expect(0, &["remove", &whole, "--yes"]);
    assert_eq!(place.expect(0, &["dump", "latest", "data/a.txt"]).stdout, "changed since");
}

#[test]
fn an_unknown_id_is_not_found() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.golden("unknown_id", &["show", "zzzz", "--from", "b"]);
}

#[test]
fn latest_of_several_series_lists_them() {
    let place = Place::with_tree();
    place.write("other/tree/c.txt", "c");
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.expect(0, &["create", "other/tree", "--to", "b"]);
    place.golden("latest_several_series", &["restore", "latest", "--from", "b", "--dry-run"]);
}

#[test]
fn without_a_terminal_and_consent_nothing_is_replaced() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "changed since");
    place.golden("restore_not_confirmed", &["restore", "latest", "--from", "b"]);
    assert_eq!(place.read("tree/a.txt"), "changed since");
    let yes = place.expect(6, &["restore", "latest", "--from", "b", "--yes"]);
    assert_eq!(place.read("tree/a.txt"), "changed since", "--yes is for disposable targets: {}", yes.stderr);
    let plan = yes.stderr.split("--confirm ").nth(1).unwrap()[..16].to_owned();
    place.expect(0, &["restore", "latest", "--from", "b", "--confirm", &plan]);
}

#[test]
fn a_plan_that_has_changed_is_refused() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let plan = place.json(0, &["restore", "latest", "--from", "b", "--dry-run"]);
    let id = plan["plan"]["id"].as_str().unwrap().to_owned();
    std::fs::rename(place.path("tree"), place.path("moved")).unwrap();
    place.write("tree/other.txt", "somebody else's");
    place.golden("restore_plan_changed", &["restore", "latest", "--from", "b", "--confirm", &id]);
    assert_eq!(place.read("tree/other.txt"), "somebody else's");
}

#[test]
fn a_part_is_not_restored_over_what_is_there() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.golden(
        "restore_part_over_whole",
        &["restore", "latest", "--from", "b", "--only", "tree/sub", "--dry-run"],
    );
    place.golden(
        "restore_only_nothing",
        &["restore", "latest", "--from", "b", "--only", "tree/*.jpg", "--to", "c"],
    );
    place.golden("restore_only_unknown", &["restore", "latest", "--from", "b", "--only", "db", "--to", "c"]);
}

#[test]
fn the_last_complete_backup_is_removed_only_with_yes() {
    let place = Place::with_tree();
    let made = place.json(0, &["create", "tree", "--to", "b"]);
    let id = made["results"][0]["report"]["id"].as_str().unwrap().to_owned();
    place.golden("remove_last", &["remove", &id, "--from", "b"]);
    place.expect(0, &["remove", &id, "--from", "b", "--yes"]);
    assert_eq!(place.json(0, &["list", "--from", "b"])["backups"].as_array().unwrap().len(), 0);
}

#[test]
fn a_file_is_removed_by_its_path_with_yes_and_with_what_is_beside_it() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "x.tar.zst"]);
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.golden("remove_file", &["remove", "x.tar.zst"]);
    place.expect(0, &["remove", "x.tar.zst", "--yes"]);
    assert!(!place.path("x.tar.zst").exists());
    let list = place.json(0, &["list", "--from", "b"]);
    let file = format!("b/{}", list["backups"][0]["location"].as_str().unwrap());
    let ran = place.expect(6, &["remove", &file]);
    assert!(ran.stderr.contains("--from b` looks at the others"), "{}", ran.stderr);
    place.expect(0, &["remove", &file, &file, "--yes"]);
    assert_eq!(std::fs::read_dir(place.path("b")).unwrap().count(), 0);
    // A bare name is that of a backup where there is an archive, not of what happens to lie here.
    place.expect(0, &["create", "tree", "--to", "x.tar"]);
    place.write("backup.toml", "[archives.a]\nurl = \"b\"\n");
    place.expect(3, &["remove", "x.tar", "--yes"]);
    assert!(place.path("x.tar").exists());
    place.expect(0, &["remove", "./x.tar", "--yes"]);
}

#[cfg(target_os = "linux")]
#[test]
fn where_nothing_may_be_written_a_restore_names_its_way_out() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    // Nobody makes folders there, whoever this is.
    let line = ["restore", "latest", "--from", "b", "--to", "/sys/x", "--accept", "too-little-space"];
    let ran = place.run(&line);
    assert!(ran.code != 0 && ran.stderr.contains("or elsewhere: --to FOLDER"), "{}", ran.stderr);
}

#[test]
fn a_variable_of_one_module_is_not_in_the_way_of_the_backups_of_others() {
    let place = Place::with_tree();
    let module = |name: &str, path: &str| {
        format!("[modules.{name}.sources.files]\nkind = \"files\"\npath = \"{path}\"\n")
    };
    let config = module("a", "${NOT_SET_HERE}") + &module("b", "tree") + "[archives.disk]\nurl = \"b\"\n";
    place.write("backup.toml", &config);
    let ran = place.expect(2, &["create"]);
    assert!(
        ran.stderr.contains("NOT_SET_HERE") && ran.stdout.contains("b: complete"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    for told in ["the module a: ", "of the module a nothing is stored", "backed up: b; that are not: a"] {
        assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
    }
    assert_eq!(place.json(0, &["list"])["backups"][0]["module"], "b");
}

#[test]
fn wrong_arguments_are_told_to_programs_too() {
    let place = Place::new();
    let ran = place.json(2, &["create", "--no-such-flag"]);
    assert_eq!(ran["error"]["kind"], "usage", "{ran}");
    assert!(ran["error"]["message"].as_str().is_some_and(|m| m.contains("--no-such-flag")), "{ran}");
    let help = place.expect(0, &["--help", "--json"]);
    assert!(help.stdout.contains("Usage: backup"), "{}", help.stdout);
}

#[test]
fn a_wrong_exclude_pattern_is_an_error_and_stores_nothing() {
    let place = Place::with_tree();
    let ran = place.expect(2, &["create", "tree", "--to", "b", "--exclude", "[a"]);
    assert!(ran.stderr.contains("[a"), "{}", ran.stderr);
    assert!(!place.path("b").exists());
}

#[test]
fn a_secret_in_a_url_is_printed_nowhere() {
    let place = Place::with_tree();
    let s3 = "s3://backups/x?access_key_id=A&secret_access_key=HIDDEN";
    let dav = "webdavs://u@h/x?p%61ssword=HID@DEN";
    let postgres = "db=postgres://u@127.0.0.1:1/x?password=HIDDEN";
    let mysql = "db=mysql://u:HIDDEN@127.0.0.1:1/x?Api-Token=HIDDEN";
    place.write("backup.toml", &format!("[archives.a]\nurl = \"{s3}\"\n"));
    place.expect(0, &["create", "tree", "--to", "b", "--config", "/dev/null"]);
    let lines: [&[&str]; 10] = [
        &["list", "--from", s3],
        &["list", "--from", dav],
        &["verify", "latest", "--from", dav],
        &["create", "tree", "--to", s3],
        &["create", "tree", "--to", "zz", "--to", dav],
        &["create", postgres, "--to", "zz"],
        &["create", mysql, "--to", "zz"],
        &["create", "ftp://h/x?passphrase=HIDDEN", "--to", "zz"],
        &["create", "x=container://no-such/x?token=HIDDEN", "--to", "zz"],
        &[
            "restore",
            "latest",
            "--from",
            "b",
            "--to",
            "tree=postgres://u@127.0.0.1:1/x?secret=HIDDEN",
            "--dry-run",
        ],
    ];
    let elsewhere = lines.iter().map(|line| [*line, &["--config", "/dev/null"]].concat());
    let here = vec!["config", "check", "--config", "backup.toml"];
    for line in elsewhere.chain([here]) {
        for more in [vec![], vec!["--json"], vec!["--progress", "json", "--verbose"]] {
            let ran = place.run(&[line.clone(), more].concat());
            assert_ne!(ran.code, 0, "{line:?}");
            let printed = ran.stdout + &ran.stderr;
            assert!(!printed.contains("HID") && !printed.contains("DEN"), "{line:?} {printed}");
        }
    }
}

#[test]
fn a_single_file_does_not_take_the_place_of_a_folder() {
    let place = Place::with_tree();
    place.expect(0, &["create", "conf=tree/a.txt", "-m", "app", "--to", "b"]);
    std::fs::create_dir(place.path("found")).unwrap();
    for folder in ["found", "tree"] {
        let ran = place.expect(6, &["restore", "latest", "--from", "b", "--to", folder]);
        assert!(ran.stderr.contains(&format!("/{folder}/a.txt")), "{}", ran.stderr);
    }
    place.expect(0, &["restore", "latest", "--from", "b", "--to", "found/a.txt"]);
    assert_eq!(place.read("found/a.txt"), "alpha");
    place.expect(0, &["restore", "latest", "--from", "b", "--to", "found/new.txt"]);
}
