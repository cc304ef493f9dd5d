//! Encrypted backups as a user makes them and gets them back, with the program `age` as the other side.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod support;

use std::{fs, os::unix::fs::PermissionsExt, process::Command};
use support::{Place, noise};

fn shell(place: &Place, script: &str) -> String {
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(place.path(""))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned();
    assert!(out.status.success(), "{script}: {text}");
    text
}

/// With a pair of keys in `key.txt`, whose public key it returns.
fn with_keys(place: &Place) -> String {
    shell(place, "age-keygen -o key.txt 2>/dev/null; age-keygen -o other.txt 2>/dev/null");
    shell(place, "age-keygen -y key.txt").trim().to_owned()
}

fn restored(place: &Place, folder: &str) {
    assert_eq!(place.read(&format!("{folder}/a.txt")), "alpha");
    assert_eq!(place.read(&format!("{folder}/sub/b.txt")), "beta");
}

#[test]
fn a_key_that_cannot_be_read_is_an_error_before_anything_else_even_where_none_is_needed() {
    let place = Place::with_tree();
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.write("empty", "");
    let lines: [&[&str]; 7] = [
        &["list"],
        &["ls", "latest"],
        &["show", "latest"],
        &["dump", "latest", "a.txt"],
        &["verify"],
        &["restore", "latest", "--to", "out"],
        &["copy", "--all", "--to", "c"],
    ];
    for line in lines {
        for option in ["--identity", "--passphrase-file"] {
            for file in ["missing", "empty", "tree"] {
                let ran = place.expect(2, &[line, &["--from", "b", option, file]].concat());
                assert!(ran.stderr.contains(&format!("{file}: cannot ")), "{line:?}: {}", ran.stderr);
            }
        }
    }
    assert!(!place.path("out").exists() && !place.path("c").exists());
    // A pipe can be read once only.
    let recipient = with_keys(&place);
    place.expect(0, &["create", "tree", "--to", "x.tar.age", "--recipient", &recipient]);
    let backup = env!("CARGO_BIN_EXE_backup");
    let listed = shell(&place, &format!("'{backup}' list --from x.tar.age --identity <(cat key.txt)"));
    assert!(listed.contains("complete, encrypted"), "{listed}");
}

#[test]
fn latest_of_what_is_encrypted_asks_for_the_key() {
    let place = Place::with_tree();
    let recipient = with_keys(&place);
    place.expect(0, &["create", "tree", "--to", "x.tar.age", "--recipient", &recipient]);
    for line in
        [&["show", "latest"][..], &["verify", "latest"], &["show", "2020-01-01"], &["restore", "latest"]]
    {
        let ran = place.expect(2, &[line, &["--from", "x.tar.age"]].concat());
        let says = ["x.tar.age: cannot", "it is encrypted", "--identity FILE"];
        assert!(says.iter().all(|part| ran.stderr.contains(part)), "{line:?}: {}", ran.stderr);
    }
    place.expect(0, &["show", "latest", "--from", "x.tar.age", "--identity", "key.txt"]);
}

#[test]
fn who_has_only_the_public_key_makes_lists_and_removes_and_who_has_the_secret_one_reads() {
    let place = Place::with_tree();
    let recipient = with_keys(&place);
    for _ in 0..2 {
        place.expect(0, &["create", "tree", "--to", "b", "--recipient", &recipient, "--tag", "hidden-tag"]);
    }
    let listed = place.json(0, &["list", "--from", "b"]);
    let backups = listed["backups"].as_array().unwrap();
    assert_eq!(backups.len(), 2);
    for backup in backups {
        assert_eq!((&backup["state"], &backup["encrypted"]), (&"complete".into(), &true.into()), "{listed}");
        assert!(backup["location"].as_str().unwrap().ends_with(".tar.zst.age"));
    }
    assert!(place.expect(0, &["list", "--from", "b"]).stdout.contains("complete, encrypted"));
    // Outside of the encrypted file nothing of what is in it is said.
    for file in fs::read_dir(place.path("b")).unwrap() {
        let bytes = fs::read(file.unwrap().path()).unwrap();
        let has = |word: &str| bytes.windows(word.len()).any(|w| w == word.as_bytes());
        assert!(!has("a.txt") && !has("alpha") && !has("hidden-tag") && !has("components"));
    }
    let first = backups[0]["id"].as_str().unwrap();
    place.expect(0, &["remove", first, "--from", "b"]);
    assert_eq!(place.json(0, &["list", "--from", "b"])["backups"].as_array().unwrap().len(), 1);

    // Only that its bytes are those that were written can be seen without the key.
    place.expect(0, &["verify", "latest", "--from", "b"]);
    let reading: [&[&str]; 4] = [
        &["show", "latest"],
        &["ls", "latest"],
        &["dump", "latest", "a.txt"],
        &["restore", "latest", "--to", "out"],
    ];
    for line in reading {
        let ran = place.expect(2, &[line, &["--from", "b"]].concat());
        assert!(ran.stderr.contains("--identity FILE"), "{line:?}: {}", ran.stderr);
        let ran = place.run(&[line, &["--from", "b", "--identity", "other.txt"]].concat());
        assert!(
            ran.code == 2 && ran.stderr.contains("not encrypted to any of the identities"),
            "{}",
            ran.stderr
        );
        let read = place.expect(0, &[line, &["--from", "b", "--identity", "key.txt"]].concat());
        // The sidecar does not know it, the manifest does.
        assert!(line[0] != "show" || !read.stdout.contains(" of 0 B"), "{}", read.stdout);
    }
    restored(&place, "out");
    place.expect(2, &["verify", "latest", "--from", "b", "--identity", "other.txt"]);
    place.expect(0, &["verify", "latest", "--from", "b", "--identity", "key.txt"]);
    let verified = place.json(0, &["list", "--from", "b"]);
    assert!(verified["backups"][0]["verified"].is_string(), "{verified}");
}

#[test]
fn age_reads_what_is_written_and_what_age_has_encrypted_is_read() {
    let place = Place::with_tree();
    fs::write(place.path("tree/noise"), noise(3_000_000)).unwrap();
    let recipient = with_keys(&place);
    for (ending, decompress) in
        [("tar.zst", "zstd -dc"), ("tar.gz", "gzip -dc"), ("tar.xz", "xz -dc"), ("tar", "cat")]
    {
        let file = format!("x.{ending}.age");
        place.expect(0, &["create", "data=tree", "--to", &file, "--recipient", &recipient]);
        let guide = shell(&place, &format!("age -d -i key.txt {file} | {decompress} | tar -xO RESTORE.md"));
        // Its commands, literally: the name is that of the file, the identity that of the key.
        let commands: Vec<String> = guide
            .lines()
            .filter(|line| line.starts_with("       "))
            .map(|line| {
                line.trim().replace(&format!("BACKUP.{ending}.age"), &file).replace("IDENTITY", "key.txt")
            })
            .collect();
        assert!(commands.len() == 3 && commands[1].starts_with("age -d -i ../key.txt ../x."), "{guide}");
        assert_eq!(shell(&place, &commands.join("\n")), "");
        shell(&place, "diff -r tree restored/files/data && rm -r restored");

        let plain = format!("plain.{ending}");
        place.expect(0, &["create", "data=tree", "--to", &plain]);
        shell(&place, &format!("age -r {recipient} -o theirs.{ending}.age {plain}"));
        let theirs = format!("theirs.{ending}.age");
        place.expect(0, &["verify", &theirs, "--identity", "key.txt"]);
        place.expect(0, &["restore", &theirs, "--identity", "key.txt", "--to", "out"]);
        shell(&place, "diff -r tree out && rm -r out");
        // The name may have been lost.
        shell(&place, &format!("mv {theirs} renamed.{ending}"));
        place.expect(0, &["verify", &format!("renamed.{ending}"), "--identity", "key.txt"]);
    }
}

#[test]
fn keys_of_ssh_and_lists_of_recipients_are_taken() {
    let place = Place::with_tree();
    let recipient = with_keys(&place);
    shell(&place, "ssh-keygen -q -t ed25519 -N '' -f ed && ssh-keygen -q -t rsa -b 2048 -N '' -f rsa");
    let list = format!("# who may read\n{recipient}\n{}", place.read("rsa.pub"));
    place.write("readers", &list);
    place.expect(
        0,
        &["create", "tree", "--to", "x.tar.zst.age", "--recipient", "readers", "--recipient", "ed.pub"],
    );
    for key in ["key.txt", "rsa", "ed"] {
        place.expect(0, &["verify", "x.tar.zst.age", "--identity", key]);
        shell(&place, &format!("age -d -i {key} x.tar.zst.age | zstd -dc | tar -t > /dev/null"));
    }
    // Several identities: one that fits is enough.
    place.expect(0, &["verify", "x.tar.zst.age", "--identity", "other.txt", "--identity", "ed"]);
    shell(&place, "ssh-keygen -q -t ed25519 -N secret -f locked");
    let ran = place.expect(2, &["verify", "x.tar.zst.age", "--identity", "locked"]);
    assert!(ran.stderr.contains("protected by a passphrase"), "{}", ran.stderr);
}

#[test]
fn a_passphrase_from_a_file_encrypts_and_reads() {
    let place = Place::with_tree();
    place.write("pass", "correct horse\n");
    place.write("wrong", "incorrect horse\n");
    place.expect(0, &["create", "tree", "--to", "x.tar.zst.age", "--passphrase-file", "pass"]);
    place.expect(0, &["restore", "x.tar.zst.age", "--passphrase-file", "pass", "--to", "out"]);
    restored(&place, "out");
    let ran = place.expect(2, &["verify", "x.tar.zst.age"]);
    assert!(ran.stderr.contains("--passphrase-file FILE"), "{}", ran.stderr);
    let ran = place.expect(2, &["verify", "x.tar.zst.age", "--passphrase-file", "wrong"]);
    assert!(ran.stderr.contains("another passphrase"), "{}", ran.stderr);
}

#[test]
fn a_passphrase_that_does_not_open_the_newest_backup_of_the_series_is_told() {
    let place = Place::with_tree();
    place.write("pass", "correct horse\n");
    place.write("wrong", "incorrect horse\n");
    place.write("other/x", "x");
    let create = |source: &str, pass: &str| {
        let ran = place.expect(0, &["create", source, "--to", "b", "--passphrase-file", pass]);
        ran.stderr.matches("does not open with this passphrase").count()
    };
    assert_eq!(create("tree", "pass"), 0);
    // Another series may have another passphrase.
    assert_eq!(create("other", "wrong"), 0);
    let first = place.json(0, &["list", "--from", "b", "-m", "tree"]);
    let first = first["backups"][0]["id"].as_str().unwrap();
    let ran = place.expect(0, &["create", "tree", "--to", "b", "--passphrase-file", "wrong"]);
    let told = format!("the newest backup here, {first}, does not open with this passphrase");
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    assert_eq!(create("tree", "wrong"), 0);
}

#[test]
fn copies_and_pipes_are_encrypted_and_decrypted_on_the_way() {
    let place = Place::with_tree();
    let recipient = with_keys(&place);
    place.expect(0, &["create", "tree", "--to", "b"]);
    place.expect(0, &["copy", "latest", "--from", "b", "--to", "c", "--recipient", &recipient]);
    place.expect(0, &["verify", "--from", "c"]);
    place.expect(0, &["verify", "--from", "c", "--identity", "key.txt"]);
    // It does not become plain text because nobody was named.
    let plain = ["copy", "--all", "--from", "c", "--identity", "key.txt", "--to", "x.tar.xz"];
    for more in [&[][..], &["--dry-run"]] {
        let ran = place.expect(2, &[&plain[..], more].concat());
        assert!(ran.stderr.contains("--decrypt") && ran.stderr.contains("--recipient"), "{}", ran.stderr);
        assert!(!place.path("x.tar.xz").exists());
    }
    place.expect(0, &[&plain[..], &["--decrypt"]].concat());
    place.expect(0, &["restore", "x.tar.xz", "--to", "out"]);
    restored(&place, "out");
    let backup = env!("CARGO_BIN_EXE_backup");
    shell(
        &place,
        &format!(
            "export BACKUP_STATE_DIR=$PWD/state\n\
             '{backup}' create tree --to - --recipient {recipient} > piped\n\
             '{backup}' restore - --identity key.txt --to ./piped-out < piped\n\
             age -d -i key.txt piped | zstd -t"
        ),
    );
    restored(&place, "piped-out");
}

#[test]
fn several_places_get_the_same_encrypted_backup() {
    let place = Place::with_tree();
    let recipient = with_keys(&place);
    place.expect(0, &["create", "tree", "--to", "b", "--to", "x.tar.zst.age", "--recipient", &recipient]);
    place.expect(0, &["verify", "--from", "b", "--identity", "key.txt"]);
    place.expect(0, &["verify", "x.tar.zst.age", "--identity", "key.txt"]);
    shell(&place, "cmp b/*.tar.zst.age x.tar.zst.age");
    assert_eq!(place.json(0, &["list", "--from", "b"])["backups"][0]["encrypted"], true);
}

#[test]
fn the_recovery_sheet_has_the_secret_key_once_and_a_file_of_it_is_never_overwritten() {
    let place = Place::with_tree();
    let sheet = place.expect(0, &["init", "b", "--encrypt"]).stdout;
    let secrets: Vec<&str> = sheet.lines().filter(|l| l.trim().starts_with("AGE-SECRET-KEY-1")).collect();
    assert_eq!(secrets.len(), 1, "{sheet}");
    assert_eq!(shell(&place, "grep -r AGE-SECRET-KEY . || true"), "");
    // What the sheet says is done literally.
    place.write("key.txt", secrets[0].trim());
    let line = sheet.lines().find(|l| l.trim().starts_with("backup create")).unwrap().replace('\'', "");
    let words: Vec<&str> =
        line.split_whitespace().skip(1).map(|w| if w == "SOURCE" { "tree" } else { w }).collect();
    place.expect(0, &words);
    place.expect(0, &["restore", "latest", "--from", "b", "--identity", "key.txt", "--to", "./restored"]);
    restored(&place, "restored");
    let by_hand: Vec<&str> = sheet.lines().skip_while(|l| !l.contains("mkdir")).take(4).collect();
    let before = shell(&place, "ls");
    shell(&place, &format!("set -e; cp b/*.age BACKUP.tar.zst.age; {}", by_hand.join("\n")));
    assert_eq!(shell(&place, "rm BACKUP.tar.zst.age; ls"), format!("{before}unpacked\n"));

    let sheet = place.expect(0, &["init", "c", "--encrypt", "--identity-file", "kept"]).stdout;
    assert!(!sheet.contains("AGE-SECRET-KEY"), "{sheet}");
    assert_eq!(fs::metadata(place.path("kept")).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = place.read("kept");
    place.expect(1, &["init", "e", "--encrypt", "--identity-file", "kept"]);
    place.expect(0, &["init", "e", "--encrypt", "--identity-file", "kept-of-e"]);
    assert_eq!(place.read("kept"), kept);
    assert!(sheet.contains(shell(&place, "age-keygen -y kept").trim()), "{sheet}");
    // Nobody could read what is printed there.
    place.expect(2, &["init", "d", "--encrypt", "--json"]);
    place.expect(2, &["init", "d", "--encrypt", "--quiet"]);
    let plain = place.expect(0, &["init", "d", "--format", "tar.gz"]).stdout;
    assert!(plain.contains("not encrypted"), "{plain}");
}

#[test]
fn where_backups_are_encrypted_none_is_written_in_plain_text_by_mistake_and_no_second_pair_of_keys_is_made() {
    let place = Place::with_tree();
    let recipient = with_keys(&place);
    // Before the first backup `init` has said so, ...
    place.expect(0, &["init", "b", "--encrypt", "--identity-file", "key-of-b"]);
    let key_of_b = shell(&place, "age-keygen -y key-of-b").trim().to_owned();
    let refused = |to: &str, hint: &str| {
        for line in [&["create", "tree"][..], &["create", "tree", "--dry-run"], &["init", to]] {
            let to: &[&str] = if line[0] == "init" { &[] } else { &["--to", to] };
            let ran = place.expect(2, &[line, to].concat());
            assert!(
                ran.stderr.contains("only encrypted backups") && ran.stderr.contains(hint),
                "{}",
                ran.stderr
            );
        }
    };
    refused("b", &key_of_b);
    let ran = place.expect(6, &["init", "b", "--encrypt"]);
    assert!(ran.stderr.contains(&key_of_b) && !ran.stdout.contains("SECRET"), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(shell(&place, "ls b"), "");
    place.expect(0, &["create", "tree", "--to", "b", "--recipient", &key_of_b]);
    place.expect(0, &["verify", "--from", "b", "--identity", "key-of-b"]);
    place.expect(6, &["init", "b", "--encrypt"]);
    // Whoever encrypts to another key is told that the sheet is not enough.
    place.write("both", &format!("{recipient}\n{key_of_b}\n"));
    place.write("pass", "a passphrase\n");
    let told = |keys: &[&str]| {
        let ran = place.expect(0, &[&["create", "tree", "--dry-run", "--to", "b"], keys].concat());
        ran.stderr.contains("recovery sheet") && ran.stderr.contains(&key_of_b)
    };
    assert!(told(&["--recipient", &recipient]) && told(&["--passphrase-file", "pass"]));
    assert!(!told(&["--recipient", &recipient, "--recipient", &key_of_b]) && !told(&["--recipient", "both"]));
    assert_eq!(place.json(0, &["list", "--from", "b"])["backups"].as_array().unwrap().len(), 1);

    // ... and without it the backups that are there.
    place.expect(0, &["create", "tree", "--to", "c", "--recipient", &recipient]);
    refused("c", "--recipient age1");
    let ran = place.expect(6, &["init", "c", "--encrypt"]);
    assert!(ran.stderr.contains("1 encrypted backup"), "{}", ran.stderr);
    place.expect(0, &["create", "tree", "--to", "plain"]);
    place.expect(2, &["copy", "latest", "--from", "plain", "--to", "c"]);
    let ran = place.expect(4, &["create", "tree", "--to", "c", "--to", "plain"]);
    assert!(ran.stderr.contains("only encrypted backups"), "{}", ran.stderr);
    assert_eq!(place.json(0, &["list", "--from", "c"])["backups"].as_array().unwrap().len(), 1);

    // Where both are kept somebody has chosen so.
    place.expect(0, &["create", "tree", "--to", "plain", "--recipient", &recipient]);
    place.expect(0, &["create", "tree", "--to", "plain"]);
}

#[test]
fn wrong_names_and_keys_are_told_before_anything_is_stored() {
    let place = Place::with_tree();
    let recipient = with_keys(&place);
    let ran = place.expect(2, &["create", "tree", "--to", "x.tar.zst", "--recipient", &recipient]);
    assert!(ran.stderr.contains("does not end in .age"), "{}", ran.stderr);
    let ran = place.expect(2, &["create", "tree", "--to", "x.tar.zst.age"]);
    assert!(ran.stderr.contains("--recipient"), "{}", ran.stderr);
    let secret = place.read("key.txt").lines().last().unwrap().to_owned();
    let ran = place.expect(2, &["create", "tree", "--to", "b", "--recipient", &secret]);
    assert!(!ran.stderr.contains(&secret) && ran.stderr.contains("secret key"), "{}", ran.stderr);
    place.expect(2, &["create", "tree", "--to", "b", "--recipient", "age1nonsense"]);
    place.expect(2, &["create", "tree", "--to", "b", "--recipient", "no-such-file"]);
    place.expect(2, &["create", "tree", "--to", "b", "--passphrase-file", "no-such-file"]);
    assert!(!place.path("b").exists() && !place.path("x.tar.zst.age").exists());
}

#[test]
fn a_configured_archive_is_encrypted_and_a_host_without_the_key_reads_its_bytes_back() {
    let place = Place::with_tree();
    let recipient = with_keys(&place);
    let config = |identity: &str| {
        format!(
            "[modules.m.sources.data]\nkind = \"files\"\npath = \"tree\"\n\
             [archives.a]\nurl = \"b\"\nformat = \"tar.gz\"\nencrypt = {{ recipients = [\"{recipient}\"] }}\n{identity}"
        )
    };
    place.write("backup.toml", &config(""));
    let made = place.json(0, &["create"]);
    let report = &made["results"][0]["report"];
    assert_eq!(report["read_back"], true, "{made}");
    assert!(report["notes"].to_string().contains("no identity is given"), "{made}");
    place.expect(0, &["verify"]);
    place.write("backup.toml", &config("identity = \"key.txt\"\n"));
    place.expect(0, &["verify"]);
    let made = place.json(0, &["create"]);
    let report = &made["results"][0]["report"];
    assert!(report["read_back"] == true && !report["notes"].to_string().contains("identity"), "{made}");
    place.write("backup.toml", &config("identify = \"key.txt\"\n"));
    let ran = place.expect(2, &["create"]);
    assert!(ran.stderr.contains("identity"), "{}", ran.stderr);
    place.write("backup.toml", &config("").replace("recipients", "recipient"));
    assert!(place.expect(2, &["create"]).stderr.contains("recipient"));
}
