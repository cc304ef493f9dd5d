//! What people do with the program, from the beginning to the end.

#![cfg(unix)]

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
};
use support::{Place, Ran};

#[test]
fn a_folder_is_backed_up_verified_lost_and_restored() {
    let place = Place::with_tree();
    let made = place.expect(0, &["create", "./tree", "--to", "./b"]);
    assert!(made.stdout.starts_with("tree: complete\n"), "{}", made.stdout);
    place.expect(0, &["verify", "--from", "./b"]);
    let list = place.json(0, &["list", "--from", "b"]);
    assert_eq!(list["backups"][0]["state"], "complete");
    assert!(list["backups"][0]["verified"].is_string(), "{list}");
    fs::remove_dir_all(place.path("tree")).unwrap();
    place.expect(0, &["restore", "latest", "--from", "./b"]);
    assert_eq!((place.read("tree/a.txt"), place.read("tree/sub/b.txt")), ("alpha".into(), "beta".into()));
}

#[test]
fn a_single_file_archive_is_restored_by_its_name() {
    let place = Place::with_tree();
    for file in ["x.tar.zst", "x.tar.gz", "x.txz", "x.tar"] {
        place.expect(0, &["create", "tree", "--to", file]);
        place.expect(0, &["verify", file]);
        let to = format!("from-{file}");
        place.expect(0, &["restore", file, "--to", &to]);
        assert_eq!(place.read(&format!("{to}/sub/b.txt")), "beta");
        place.expect(6, &["create", "tree", "--to", file]);
    }
}

#[test]
fn what_is_in_a_backup_is_listed_and_dumped() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b", "--tag", "daily", "--note", "before the upgrade"]);
    let names = place.expect(0, &["ls", "latest", "--from", "b"]).stdout;
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["tree", "tree/a.txt", "tree/sub", "tree/sub/b.txt"]);
    assert_eq!(
        place.expect(0, &["ls", "latest", "tree/sub/b.txt", "--from", "b"]).stdout,
        "tree/sub/b.txt\n"
    );
    place.expect(3, &["ls", "latest", "tree/nothing", "--from", "b"]);
    let long = place.expect(0, &["ls", "latest", "-l", "--from", "b"]).stdout;
    assert!(long.lines().any(|l| l.starts_with("-rw") && l.ends_with(" tree/a.txt")), "{long}");
    let entries = place.json(0, &["ls", "latest", "--from", "b"]);
    assert_eq!(entries["entries"].as_array().unwrap().len(), 4);
    assert_eq!(place.expect(0, &["dump", "latest", "tree/a.txt", "--from", "b"]).stdout, "alpha");
    assert_eq!(place.expect(0, &["dump", "latest", "sub/b.txt", "--from", "b"]).stdout, "beta");
    place.expect(3, &["dump", "latest", "sub/c.txt", "--from", "b"]);
    place.expect(3, &["dump", "latest", "tree/a.txt", "-m", "other", "--from", "b"]);
    let shown = place.expect(0, &["show", "latest", "--from", "b"]).stdout;
    assert!(shown.contains("before the upgrade") && shown.contains("daily"), "{shown}");
    assert_eq!(place.json(0, &["show", "latest", "--from", "b"])["manifest"]["module"], "tree");
}

#[test]
fn a_restore_is_confirmed_by_its_plan_undone_and_settled() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let restore = || {
        let plan = place.json(0, &["restore", "latest", "--from", "b", "--dry-run"]);
        let id = plan["plan"]["id"].as_str().unwrap().to_owned();
        place.expect(0, &["restore", "latest", "--from", "b", "--confirm", &id]);
    };
    place.write("tree/a.txt", "changed since");
    restore();
    assert_eq!(place.read("tree/a.txt"), "alpha");
    place.expect(0, &["restore", "--undo", "--yes"]);
    assert_eq!(place.read("tree/a.txt"), "changed since");
    place.expect(3, &["restore", "--undo", "--yes"]);
    restore();
    place.expect(0, &["settle"]);
    place.expect(3, &["settle"]);
    assert_eq!(place.read("tree/a.txt"), "alpha");
    let left: Vec<_> = fs::read_dir(place.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with(".tree")), "{left:?}");
    place.expect(0, &["heal", "--from", "b"]);
}

#[test]
fn a_disposable_target_is_replaced_with_yes() {
    let place = Place::with_tree();
    let config = |extra: &str| {
        let text = format!(
            "[modules.app.sources.data]\nkind = \"files\"\npath = \"tree\"\n{extra}\n[archives.local]\nurl = \"b\"\n"
        );
        place.write("backup.toml", &text);
    };
    config("");
    place.expect(0, &["create"]);
    place.write("tree/a.txt", "changed since");
    place.expect(6, &["restore", "latest", "--yes"]);
    config("disposable = true");
    place.expect(6, &["restore", "latest"]);
    place.expect(0, &["restore", "latest", "--yes", "--settle"]);
    assert_eq!(place.read("tree/a.txt"), "alpha");
}

#[test]
fn configured_modules_go_to_the_only_archive() {
    let place = Place::with_tree();
    place.write("etc/app.conf", "x = 1");
    place.write(
        "backup.toml",
        "[modules.app.sources.data]\nkind = \"files\"\npath = \"tree\"\nexclude = [\"*.txt\"]\n\
         [modules.app.sources.config]\nkind = \"files\"\npath = \"etc/app.conf\"\n\
         [modules.other.sources.data]\nkind = \"files\"\npath = \"tree\"\n\
         [archives.local]\nurl = \"b\"\nformat = \"tar\"\n",
    );
    let made = place.json(0, &["create"]);
    assert_eq!(made["results"].as_array().unwrap().len(), 2);
    let list = place.json(0, &["list", "-m", "app"]);
    assert_eq!(list["backups"].as_array().unwrap().len(), 1);
    assert!(list["backups"][0]["location"].as_str().unwrap().ends_with(".tar"), "{list}");
    assert!(list["backups"][0]["verified"].is_string(), "what is configured is read back: {list}");
    let id = list["backups"][0]["id"].as_str().unwrap();
    let names = place.expect(0, &["ls", id, "--from", "local"]).stdout;
    assert!(names.contains("config") && !names.contains("a.txt"), "{names}");
}

#[test]
fn from_another_host_a_target_must_be_named() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let elsewhere = |line: &[&str]| -> Option<Ran> {
        let program = env!("CARGO_BIN_EXE_backup");
        let script = format!("hostname elsewhere && exec {program} {}", line.join(" "));
        let mut command = std::process::Command::new("unshare");
        command
            .args(["--uts", "sh", "-c", &script])
            .current_dir(place.path(""))
            .env("BACKUP_STATE_DIR", place.path("state"));
        let ran: Ran = command.output().ok()?.into();
        (!ran.stderr.contains("unshare failed") && !ran.stderr.contains("hostname:")).then_some(ran)
    };
    let Some(ran) = elsewhere(&["restore", "latest", "--from", "b"]) else {
        return support::could_not_run("uts", "no namespace of one's own for the name of the host");
    };
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("another host") && ran.stderr.contains("--to"), "{}", ran.stderr);
    let ran = elsewhere(&["restore", "latest", "--from", "b", "--to", "c"]).unwrap();
    assert_eq!((ran.code, place.read("c/a.txt").as_str()), (0, "alpha"), "{}", ran.stderr);
}

#[test]
fn two_runs_of_one_series_at_once_are_refused_and_name_the_other() {
    let place = Place::with_tree();
    place.write_large("tree/large");
    let mut first = place
        .command(&["create", "tree", "--to", "b", "--progress", "json"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = rustix::process::Pid::from_child(&first);
    let mut lines = BufReader::new(first.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|l| l.contains("\"pour\"")), "it never began to pour");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let second = place.run(&["create", "tree", "--to", "b"]);
    let mut waiting = place
        .command(&["create", "tree", "--to", "b", "--wait", "5m"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(waiting.stderr.take().unwrap());
    said.read_line(&mut line).unwrap();
    let told = format!("waiting: a run of the same series is going on: process {} on ", first.id());
    assert!(line.contains(&told), "{line}");
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    assert_eq!(second.code, 6, "{}", second.stderr);
    assert!(second.stderr.contains(&format!("process {}", first.id())), "{}", second.stderr);
    place.compare(
        "two_runs_at_once",
        &["create", "tree", "--to", "b"],
        &second.without(&first.id().to_string(), "$PID"),
    );
    assert_eq!(first.wait().unwrap().code(), Some(0));
    std::io::copy(&mut said, &mut std::io::sink()).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(0), "--wait takes its turn");
}

#[cfg(target_os = "linux")]
#[test]
fn who_has_locked_the_folder_is_told_while_it_is_waited_for() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let folder = std::fs::File::open(place.path("b")).unwrap();
    folder.lock().unwrap();
    let mut waiting = place
        .command(&["create", "tree", "--to", "b"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(waiting.stderr.take().unwrap());
    said.read_line(&mut line).unwrap();
    let who = format!("waiting: process {} (", std::process::id());
    assert!(line.contains(&who) && line.contains("has locked the folder b"), "{line}");
    folder.unlock().unwrap();
    std::io::copy(&mut said, &mut std::io::sink()).unwrap();
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
}

#[test]
fn a_restore_that_was_killed_is_healed() {
    let place = Place::with_tree();
    place.write_large("tree/large");
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "changed since");
    let plan = place.json(0, &["restore", "latest", "--from", "b", "--dry-run"]);
    let id = plan["plan"]["id"].as_str().unwrap();
    let mut restore = place
        .command(&["restore", "latest", "--from", "b", "--confirm", id, "--progress", "json"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(restore.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|l| l.contains("\"pour\"")), "it never began to pour");
    restore.kill().unwrap();
    restore.wait().unwrap();
    let healed = place.expect(0, &["heal", "--from", "b"]);
    assert!(healed.stdout.contains("was undone"), "{}", healed.stdout);
    assert_eq!(place.read("tree/a.txt"), "changed since");
    let left: Vec<_> = fs::read_dir(place.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|n| n.to_string_lossy().starts_with(".tree")), "{left:?}");
}

#[test]
fn a_partial_backup_is_exit_5_never_latest_and_restored_only_when_confirmed() {
    let place = Place::with_tree();
    let made = place.json(5, &["create", "tree", "missing", "--to", "b", "--allow-partial"]);
    let id = made["results"][0]["report"]["id"].as_str().unwrap();
    assert_eq!(place.json(0, &["list", "--from", "b"])["backups"][0]["state"], "partial");
    let verified = place.expect(0, &["verify", "--from", "b"]).stdout;
    assert!(verified.contains("sound, but partial") && verified.contains("backup show"), "{verified}");
    assert_eq!(place.json(0, &["verify", "--from", "b"])["backups"][0]["state"], "partial");
    place.expect(3, &["restore", "latest", "--from", "b", "--to", "c"]);
    place.expect(6, &["restore", id, "--from", "b", "--to", "c"]);
    assert!(!place.path("c").exists());
    let plan = place.json(0, &["restore", id, "--from", "b", "--to", "c", "--dry-run"]);
    assert_eq!(plan["needs_consent"], true);
    let confirm = plan["plan"]["id"].as_str().unwrap();
    place.expect(0, &["restore", id, "--from", "b", "--to", "c", "--confirm", confirm]);
    assert_eq!(place.read("c/a.txt"), "alpha");
}

#[test]
fn on_a_terminal_the_name_of_the_module_is_consent() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "changed since");
    let type_in = |answer: &str| -> Option<i32> {
        let line = format!("{} restore latest --from b", env!("CARGO_BIN_EXE_backup"));
        let mut script = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(place.path(""))
            .env("BACKUP_STATE_DIR", place.path("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        script.stdin.take().unwrap().write_all(format!("{answer}\n").as_bytes()).unwrap();
        script.wait().unwrap().code()
    };
    let Some(code) = type_in("yes") else {
        return support::could_not_run("script", "the program `script` makes the terminal of this test");
    };
    assert_eq!((code, place.read("tree/a.txt").as_str()), (6, "changed since"));
    assert_eq!((type_in("tree"), place.read("tree/a.txt").as_str()), (Some(0), "alpha"));
}

#[test]
fn the_archive_is_the_flag_else_the_environment_else_the_only_one() {
    let place = Place::with_tree();
    place.write("backup.toml", "[archives.only]\nurl = \"configured\"\n");
    place.expect(0, &["create", "tree"]);
    let mut command = place.command(&["create", "tree"]);
    let ran: Ran = command.env("BACKUP_ARCHIVE", "./environment").output().unwrap().into();
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    place.expect(0, &["create", "tree", "--to", "./flag"]);
    for folder in ["configured", "environment", "flag"] {
        assert_eq!(
            place.json(0, &["list", "--from", folder])["backups"].as_array().unwrap().len(),
            1,
            "{folder}"
        );
    }
}

#[test]
fn progress_as_json_is_nothing_but_json_lines() {
    let place = Place::with_tree();
    for (code, line) in [(0, ["create", "tree", "--to", "b"]), (3, ["create", "gone", "--to", "b"])] {
        let ran = place.expect(code, &[&line[..], &["--progress", "json", "--json"]].concat());
        for line in ran.stderr.lines() {
            let event: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(event["event"].is_string(), "{line}");
        }
        assert!(ran.stderr.contains("\"phase\":\"preflight\""), "{}", ran.stderr);
    }
}

#[test]
fn a_signal_ends_a_run_in_order() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM, rustix::process::Signal::HUP]
    {
        let place = Place::with_tree();
        place.write_large("tree/large");
        let mut run = place
            .command(&["create", "tree", "--to", "b", "--progress", "json", "--json"])
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
        assert!(
            lines.by_ref().map_while(Result::ok).any(|l| l.contains("\"pour\"")),
            "it never began to pour"
        );
        rustix::process::kill_process(rustix::process::Pid::from_child(&run), signal).unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        assert_eq!(run.wait().unwrap().code(), Some(130));
        let mut object = String::new();
        run.stdout.take().unwrap().read_to_string(&mut object).unwrap();
        let object: serde_json::Value = serde_json::from_str(&object).unwrap();
        assert_eq!(object["error"]["kind"], "cancelled");
        assert!(place.json(0, &["list", "--from", "b"])["backups"].as_array().unwrap().is_empty());
    }
}

#[test]
fn a_signal_that_is_to_be_ignored_stays_ignored() {
    let place = Place::with_tree();
    place.write_large("tree/large");
    let line =
        format!("trap '' HUP; exec {} create tree --to b --progress json", env!("CARGO_BIN_EXE_backup"));
    let mut run = std::process::Command::new("sh")
        .args(["-c", &line])
        .current_dir(place.path(""))
        .env("BACKUP_STATE_DIR", place.path("state"))
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stderr.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|l| l.contains("\"pour\"")), "it never began to pour");
    rustix::process::kill_process(rustix::process::Pid::from_child(&run), rustix::process::Signal::HUP)
        .unwrap();
    std::thread::spawn(move || lines.for_each(drop));
    assert_eq!(run.wait().unwrap().code(), Some(0), "nohup");
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let place = Place::with_tree();
    for i in 0..3000 {
        place.write(&format!("tree/many/{i}-{}", "x".repeat(60)), "");
    }
    place.expect(0, &["create", "tree", "--to", "b"]);
    let mut ls = place
        .command(&["ls", "latest", "--from", "b"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 10];
    ls.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let out = ls.wait_with_output().unwrap();
    assert_eq!((out.status.code(), String::from_utf8_lossy(&out.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_dry_run_stores_nothing() {
    let place = Place::with_tree();
    let ran = place.expect(0, &["create", "tree", "--to", "b", "--dry-run"]);
    assert!(ran.stdout.contains("would be backed up"), "{}", ran.stdout);
    assert!(!place.path("b").exists());
}

#[test]
fn several_sources_make_one_backup() {
    let place = Place::with_tree();
    place.write("etc/app.conf", "x = 1");
    let made = place.json(0, &["create", "data=tree", "etc/app.conf", "--to", "b"]);
    assert_eq!(made["results"][0]["module"], "data-app.conf");
    place.expect(0, &["restore", "latest", "--from", "b", "--to", "c"]);
    assert_eq!((place.read("c/data/a.txt"), place.read("c/app.conf")), ("alpha".into(), "x = 1".into()));
    place.expect(2, &["create", "tree", "./tree", "--to", "b"]);
}

#[test]
fn exclusions_leave_out_what_they_say() {
    let place = Place::with_tree();
    place.write("ignore", "sub/\n");
    place.expect(0, &["create", "tree", "--to", "b", "--exclude", "a.txt", "--exclude-file", "ignore"]);
    assert_eq!(place.expect(0, &["ls", "latest", "--from", "b"]).stdout, "tree\n");
}

#[test]
fn quiet_says_nothing_when_all_is_well() {
    let place = Place::with_tree();
    let ran = place.expect(0, &["create", "tree", "--to", "b", "-q"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("", ""));
}

#[test]
fn the_version_comes_at_once() {
    let place = Place::new();
    let at_once = std::time::Duration::from_millis(20);
    let mut took = (0..300).map(|_| {
        let begun = std::time::Instant::now();
        place.expect(0, &["--version"]);
        begun.elapsed()
    });
    // One of many: others may use the machine.
    assert!(took.any(|took| took < at_once), "it never took less than {at_once:?}");
}

#[test]
fn help_and_completions_are_printed() {
    let place = Place::new();
    assert!(place.expect(0, &["completions", "bash"]).stdout.contains("_backup"));
    place.expect(0, &["config", "example"]);
    let schema = place.expect(0, &["config", "schema"]).stdout;
    let published = fs::read_to_string(
        std::path::Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
            .join("../docs/backup.schema.json"),
    )
    .unwrap();
    assert_eq!(schema, published);
}

/// The journal lies beside the data, too: `heal` with the place finds it when the state folder is gone.
#[test]
fn an_interrupted_restore_is_healed_without_the_state_folder() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "newer than the backup");
    let plan = place.expect(0, &["restore", "latest", "--from", "b", "--dry-run", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let id = plan["plan"]["id"].as_str().unwrap().to_owned();
    place.expect(0, &["restore", "latest", "--from", "b", "--confirm", &id]);
    assert_eq!(place.read("tree/a.txt"), "alpha");

    // As if it had been killed just before it was decided: the journal says that the swap was under way.
    let home = fs::read_dir(place.path(""))
        .unwrap()
        .map(|item| item.unwrap().path())
        .find(|path| path.join("journal.json").is_file())
        .unwrap();
    let journal = fs::read_to_string(home.join("journal.json")).unwrap();
    let mut journal: serde_json::Value = serde_json::from_str(&journal).unwrap();
    assert_eq!(journal["phase"], "published");
    journal["phase"] = "publishing".into();
    fs::write(home.join("journal.json"), journal.to_string()).unwrap();
    fs::remove_dir_all(place.path("state")).unwrap();

    let blind = place.expect(0, &["heal"]);
    assert!(blind.stdout.contains("nothing to heal"), "{}", blind.stdout);
    place.expect(0, &["heal", "tree"]);
    assert_eq!(place.read("tree/a.txt"), "newer than the backup");
    assert!(!home.exists());
}

#[test]
fn a_backup_that_verify_found_damaged_is_never_the_latest_and_is_restored_with_a_warning_until_it_is_sound() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let list = place.json(0, &["list", "--from", "b"]);
    let (id, file) =
        (list["backups"][0]["id"].as_str().unwrap(), list["backups"][0]["location"].as_str().unwrap());
    let file = place.path("b").join(file);
    let sound = fs::read(&file).unwrap();
    let mut damaged = sound.clone();
    damaged[30] ^= 1;
    fs::write(&file, damaged).unwrap();
    place.expect(7, &["verify", id, "--from", "b"]);
    let list = place.json(0, &["list", "--from", "b"]);
    assert!(list["backups"][0]["damaged"].is_string() && list["backups"][0]["verified"].is_null(), "{list}");
    let list = place.expect(0, &["list", "--from", "b"]).stdout;
    assert!(list.contains("damaged 20"), "{list}");
    let ran = place.expect(7, &["restore", "latest", "--from", "b", "--to", "c"]);
    assert!(
        ran.stderr.contains("no other complete one") && ran.stderr.contains("--salvage"),
        "{}",
        ran.stderr
    );
    fs::write(&file, sound).unwrap();
    let ran = place.expect(0, &["restore", id, "--from", "b", "--to", "c"]);
    assert!(ran.stderr.contains("must not be trusted"), "{}", ran.stderr);
    place.expect(0, &["verify", id, "--from", "b"]);
    place.expect(0, &["restore", "latest", "--from", "b", "--to", "d"]);
}

#[test]
fn no_name_at_all_names_no_backup() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    for args in [&["restore", "", "--from", "b", "--to", "c"][..], &["remove", "", "--from", "b", "--yes"]] {
        let ran = place.expect(2, args);
        assert!(ran.stderr.contains("too short"), "{}", ran.stderr);
    }
}

/// As if it had been killed just before it was decided, in a run of another host.
#[allow(clippy::unwrap_used, reason = "a test fails by it")]
fn interrupted_by_another_host(place: &Place) -> (std::path::PathBuf, String) {
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "newer than the backup");
    let plan = place.json(0, &["restore", "latest", "--from", "b", "--dry-run"]);
    place.expect(0, &["restore", "latest", "--from", "b", "--confirm", plan["plan"]["id"].as_str().unwrap()]);
    let mut items = fs::read_dir(place.path("")).unwrap().map(|item| item.unwrap().path());
    let path = items.find(|path| path.join("journal.json").is_file()).unwrap().join("journal.json");
    let mut journal: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    journal["phase"] = "publishing".into();
    journal["process"]["host"] = "elsewhere.invalid".into();
    fs::write(&path, journal.to_string()).unwrap();
    (path, journal["id"].as_str().unwrap().to_owned())
}

#[test]
fn a_restore_that_another_host_has_left_is_exit_8_bars_its_place_and_is_undone_by_its_id() {
    let place = Place::with_tree();
    let (_, id) = interrupted_by_another_host(&place);
    let healed = place.expect(8, &["heal"]);
    assert!(healed.stderr.contains(&format!("--undo {id}")), "{}", healed.stderr);
    let plan = place.json(0, &["restore", "latest", "--from", "b", "--dry-run"]);
    place.expect(8, &["restore", "latest", "--from", "b", "--confirm", plan["plan"]["id"].as_str().unwrap()]);
    place.expect(0, &["restore", "latest", "--from", "b", "--to", "elsewhere"]);
    place.expect(3, &["restore", "--undo", "--yes"]);
    place.expect(0, &["restore", "--undo", &id, "--yes"]);
    assert_eq!(place.read("tree/a.txt"), "newer than the backup");
    place.expect(0, &["heal"]);
}

#[test]
fn a_restore_that_cannot_be_healed_bars_its_own_place_and_nothing_else() {
    let place = Place::with_tree();
    let (journal, _) = interrupted_by_another_host(&place);
    fs::write(journal, "{").unwrap();
    let plan = place.json(0, &["restore", "latest", "--from", "b", "--dry-run"]);
    let line = ["restore", "latest", "--from", "b", "--confirm", plan["plan"]["id"].as_str().unwrap()];
    let refused = place.expect(8, &line);
    assert!(refused.stderr.contains("backup heal"), "{}", refused.stderr);
    for line in
        [&["restore", "latest", "--from", "b", "--to", "elsewhere"][..], &["create", "tree", "--to", "b"]]
    {
        let made = place.expect(0, line);
        assert!(made.stderr.contains("could not be healed"), "{}", made.stderr);
    }
}

#[test]
fn a_place_inside_another_is_refused_before_anything_is_touched() {
    let place = Place::with_tree();
    place.write("more/x", "x");
    place.expect(0, &["create", "app=tree", "data=more", "--to", "b"]);
    for (app, data) in [("app=n", "data=n/data"), ("app=n/app", "data=n")] {
        place.write("n/old", "old");
        let refused = place.expect(6, &["restore", "latest", "--from", "b", "--to", app, "--to", data]);
        assert!(refused.stderr.contains("inside"), "{}", refused.stderr);
        assert_eq!(
            (place.read("n/old").as_str(), fs::read_dir(place.path("n")).unwrap().count()),
            ("old", 1)
        );
    }
}

/// What follows was found by somebody who used the program for the first time.
#[test]
fn what_was_written_since_a_restore_is_dropped_only_with_consent() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "newer than the backup");
    let plan = place.json(0, &["restore", "latest", "--from", "b", "--dry-run"]);
    place.expect(0, &["restore", "latest", "--from", "b", "--confirm", plan["plan"]["id"].as_str().unwrap()]);
    place.write("tree/since.txt", "precious");
    place.expect(6, &["restore", "--undo"]);
    assert_eq!(place.read("tree/since.txt"), "precious");
    place.expect(0, &["restore", "--undo", "--yes"]);
    assert_eq!(place.read("tree/a.txt"), "newer than the backup");
}

#[test]
fn of_two_restores_of_one_place_the_later_is_undone_first() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    let mut ids = Vec::new();
    for before in ["first", "second"] {
        place.write("tree/a.txt", before);
        let plan = place.json(0, &["restore", "latest", "--from", "b", "--dry-run"]);
        let done = place.json(
            0,
            &["restore", "latest", "--from", "b", "--confirm", plan["plan"]["id"].as_str().unwrap()],
        );
        ids.push(done["report"]["id"].as_str().unwrap().to_owned());
    }
    let ran = place.expect(6, &["restore", "--undo", &ids[0], "--yes"]);
    assert!(ran.stderr.contains(&format!("--undo {}", ids[1])), "{}", ran.stderr);
    place.expect(0, &["restore", "--undo", &ids[1], "--yes"]);
    assert_eq!(place.read("tree/a.txt"), "second");
    place.expect(0, &["restore", "--undo", &ids[0], "--yes"]);
    assert_eq!(place.read("tree/a.txt"), "first");
    // What is removed is named by what stays the same.
    let ran = place.expect(2, &["remove", "latest", "--from", "b", "--yes"]);
    assert!(ran.stderr.contains("by id or file name"), "{}", ran.stderr);
}

#[test]
fn an_undo_that_was_refused_is_not_carried_out_later() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("tree/a.txt", "newer than the backup");
    let plan = place.json(0, &["restore", "latest", "--from", "b", "--dry-run"]);
    place.expect(0, &["restore", "latest", "--from", "b", "--confirm", plan["plan"]["id"].as_str().unwrap()]);
    // Somebody puts something else in place of what was restored.
    fs::rename(place.path("tree"), place.path("aside")).unwrap();
    place.write("tree/today.txt", "precious");
    place.expect(1, &["restore", "--undo", "--yes"]);
    fs::rename(place.path("tree"), place.path("other")).unwrap();
    fs::rename(place.path("aside"), place.path("tree")).unwrap();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.expect(0, &["heal"]);
    assert_eq!(place.read("tree/a.txt"), "alpha", "the next run undid it");
    place.expect(0, &["restore", "--undo", "--yes"]);
    assert_eq!(place.read("tree/a.txt"), "newer than the backup");
}

#[test]
fn what_was_left_out_is_said_by_the_backup_and_by_the_plan() {
    let place = Place::with_tree();
    place.write("tree/cache/x", "x");
    place.expect(0, &["create", "tree", "--to", "b", "--exclude", "cache"]);
    let shown = place.expect(0, &["show", "latest", "--from", "b"]).stdout;
    assert!(shown.contains("paths that match cache: 1"), "{shown}");
    let plan = place.expect(0, &["restore", "latest", "--from", "b", "--dry-run"]).stdout;
    let said =
        "left out of the backup: paths that match cache: 1: what is there of it now goes with the old data";
    assert!(plan.contains(said), "{plan}");
    let part = place.expect(0, &["restore", "latest", "--from", "b", "--dry-run", "--to", "other"]).stdout;
    assert!(part.contains("left out of the backup") && !part.contains("goes with"), "{part}");
}

#[test]
fn every_configured_archive_is_healed_and_one_that_cannot_be_does_not_keep_the_others_from_it() {
    let place = Place::with_tree();
    place.write("backup.toml", "[archives.a]\nurl = \"./a\"\n[archives.b]\nurl = \"./b\"\n");
    for archive in ["a", "b"] {
        place.expect(0, &["create", "tree", "--to", archive]);
    }
    let debris = "b/.tree-backup-20250101-000000.tar.zst.0123456789ab.01jgfjjze0qhnmb8m5rn6vmsvp.incomplete";
    place.write(debris, "cut");
    fs::remove_dir_all(place.path("a")).unwrap();
    place.write("a", "not a folder");
    let ran = place.expect(4, &["heal"]);
    assert!(ran.stderr.contains("could not be healed"), "{}", ran.stderr);
    assert!(!place.path(debris).exists(), "{}{}", ran.stdout, ran.stderr);
}
