//! What the README tells people to copy.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::process::Command;
use support::Place;

const README: &str = include_str!("../../README.md");

/// What stands below this heading.
fn section(heading: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n### {heading}\n")).unwrap();
    rest.split("\n### ").next().unwrap()
}

/// Its code of this language.
fn code(section: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    section.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// As cron runs it, with the paths of this place, and what would go to the log in a file.
fn cron(place: &Place, line: &str) {
    let command = line.splitn(6, ' ').nth(5).unwrap();
    let folder = place.path("").display().to_string();
    let command = command
        .replace("/usr/local/bin/backup", env!("CARGO_BIN_EXE_backup"))
        .replace("/etc/", &folder)
        .replace("logger -p user.err", &format!("echo >> '{folder}log'"));
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", &command])
        .current_dir("/")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", &folder);
    shell.env("WIKI_HOME", place.path("wiki")).env("BACKUP_STATE_DIR", place.path("state"));
    let out = shell.output().unwrap();
    let text = String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned();
    assert!(out.status.success() && text.is_empty() && !place.path("log").exists(), "{command}\n{text}");
}

#[test]
fn the_lines_for_cron_are_right_for_one_archive_and_for_two_that_are_encrypted() {
    let place = Place::new();
    place.write("wiki/pages/today.txt", "today");
    place.write("wiki.conf", "a = 1");
    std::fs::create_dir(place.path("share")).unwrap();
    let lines = code(section("From cron"), "sh");
    let [one, two] = &lines[..] else { panic!("{lines:?}") };
    let configured = &code(section("Configuration"), "toml")[0];
    let own = |text: &str| {
        let folder = place.path("").display().to_string();
        text.replace("\"/etc/", &format!("\"{folder}"))
            .replace("/share/backups", &format!("{folder}share/backups"))
            .replace("s3://backups/wiki", &format!("{folder}share/bucket"))
            .replace("endpoint = \"https://s3.example.org\"\n", "")
    };
    let in_all = |name: &str| {
        let listed = place.json(0, &["--config", "/dev/null", "list", "--from", &format!("share/{name}")]);
        listed["backups"].as_array().unwrap().clone()
    };

    place.write("backup.toml", &own(configured));
    one.lines().for_each(|line| cron(&place, line));
    let made = in_all("backups");
    assert!(made.len() == 1 && made[0]["verified"].is_string(), "{made:?}");

    std::fs::remove_dir_all(place.path("share/backups")).unwrap();
    let sheet = place.expect(0, &["init", "share/backups", "--encrypt"]).stdout;
    let recipient = sheet.lines().find(|l| l.trim().starts_with("age1")).unwrap().trim();
    let (modules, _) = configured.split_once("[archives.").unwrap();
    let archives = code(section("From cron"), "toml").remove(0);
    assert!(archives.contains("age1…"), "{archives}");
    place.write("backup.toml", &own(&format!("{modules}{}", archives.replace("age1…", recipient))));
    place.write("backup.env", "BACKUP_OFFSITE_ACCESS_KEY_ID=a\nBACKUP_OFFSITE_SECRET_ACCESS_KEY=s\n");
    let env = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(place.path("backup.env"), env).unwrap();
    assert!(two.lines().count() >= 3, "{two}");
    two.lines().for_each(|line| cron(&place, line));
    for name in ["backups", "bucket"] {
        let made = in_all(name);
        assert!(
            made.len() == 1 && made[0]["encrypted"] == true && made[0]["state"] == "complete",
            "{made:?}"
        );
    }
}
