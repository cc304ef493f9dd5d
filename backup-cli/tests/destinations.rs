//! The built program and archives on servers: MinIO, Azurite, OpenSSH's SFTP, lighttpd's WebDAV.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

mod support;

use backup_testkit::servers::{Azurite, Minio, ObjectServer, Sshd, Webdav};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};
use support::{Place, Ran, could_not_run, noise, trial::Random};

/// A place whose program has what it needs to reach a server.
struct Client {
    place: Place,
    variables: Vec<(&'static str, std::ffi::OsString)>,
}

impl Client {
    fn new(variables: Vec<(&'static str, std::ffi::OsString)>) -> Self {
        Client { place: Place::with_tree(), variables }
    }

    fn of(server: &dyn ObjectServer) -> Self {
        Self::new(server.credentials().map(|(name, value)| (name, value.into())).into())
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = self.place.command(line);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn run(&self, line: &[&str]) -> Ran {
        self.command(line).output().unwrap().into()
    }

    fn expect(&self, code: i32, line: &[&str]) -> Ran {
        let ran = self.run(line);
        assert_eq!(ran.code, code, "backup {}\n{}{}", line.join(" "), ran.stdout, ran.stderr);
        ran
    }

    fn json(&self, line: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.expect(0, &[line, &["--json"]].concat()).stdout).unwrap()
    }

    /// Id and state of all backups, oldest first.
    fn list(&self, from: &str) -> Vec<(String, String)> {
        let list = self.json(&["list", "--from", from]);
        let text = |b: &serde_json::Value, key: &str| b[key].as_str().unwrap().to_owned();
        list["backups"].as_array().unwrap().iter().map(|b| (text(b, "id"), text(b, "state"))).collect()
    }
}

/// The server, shared by the tests of this program; `None` after it was said that there is none.
fn minio() -> Option<&'static Minio> {
    static SERVER: OnceLock<Result<Minio, String>> = OnceLock::new();
    let server = SERVER.get_or_init(Minio::start);
    server.as_ref().map_err(|why| could_not_run("minio", why)).ok()
}

/// The same of Azurite.
fn azurite() -> Option<&'static Azurite> {
    static SERVER: OnceLock<Result<Azurite, String>> = OnceLock::new();
    let server = SERVER.get_or_init(Azurite::start);
    server.as_ref().map_err(|why| could_not_run("azurite", why)).ok()
}

/// What one does with a place, from the first backup to its removal.
fn a_life(client: &Client, to: &str) {
    a_life_with(client, to, &[], &[]);
}

/// The same with these options where it is written to, and these where it is read.
fn a_life_with(client: &Client, to: &str, writing: &[&str], reading: &[&str]) {
    let create = |line: &[&str]| client.expect(0, &[&["create", "tree", "--to", to], writing, line].concat());
    let read = |line: &[&str]| client.expect(0, &[line, &["--from", to], reading].concat());
    client.place.write("tree/large", &"0123456789abcdef".repeat(70_000));
    create(&[]);
    client.place.write("tree/a.txt", "second");
    create(&["--tag", "t"]);
    let made = client.list(to);
    assert_eq!(made.iter().map(|(_, state)| state.as_str()).collect::<Vec<_>>(), ["complete", "complete"]);
    read(&["verify"]);
    read(&["restore", "latest", "--only", "tree/sub", "--to", "part"]);
    assert_eq!(client.place.read("part/sub/b.txt"), "beta");
    assert!(!client.place.path("part/a.txt").exists());
    read(&["restore", "latest~1", "--to", "whole"]);
    assert_eq!(client.place.read("whole/a.txt"), "alpha");
    assert_eq!(read(&["dump", "latest", "a.txt"]).stdout, "second");
    client.expect(0, &["remove", &made[0].0, "--from", to]);
    assert_eq!(client.list(to), made[1..]);
    client.expect(0, &["heal", "--from", to]);
}

/// A life of each compression, encrypted and not.
fn lives_of_every_format(server: &dyn ObjectServer) {
    for format in ["tar.zst", "tar.gz", "tar.xz", "tar"] {
        let folder = |kind: &str| format!("{kind} lives/{}", format.replace('.', "-"));
        let client = Client::of(server);
        a_life_with(&client, &server.url(&folder("plain")), &["--format", format], &[]);
        let client = Client::of(server);
        let keys =
            Command::new("age-keygen").args(["-o", "key.txt"]).current_dir(client.place.path("")).output();
        let said = String::from_utf8(keys.unwrap().stderr).unwrap();
        let recipient = said.split_whitespace().find(|word| word.starts_with("age1")).unwrap();
        let writing = ["--format", format, "--recipient", recipient];
        a_life_with(&client, &server.url(&folder("encrypted")), &writing, &["--identity", "key.txt"]);
        let names = server.names(&folder("encrypted"));
        assert!(names.iter().any(|name| name.ends_with(&format!(".{format}.age"))), "{names:?}");
    }
}

#[test]
fn a_bucket_keeps_backups_from_the_first_to_the_last() {
    let Some(minio) = minio() else { return };
    lives_of_every_format(minio);
    one_file(minio);
}

#[test]
fn a_container_of_azure_keeps_backups_from_the_first_to_the_last() {
    let Some(azurite) = azurite() else { return };
    lives_of_every_format(azurite);
    one_file(azurite);
    // By a token, and at the root of the container.
    let own: &dyn ObjectServer = &match Azurite::start() {
        Ok(azurite) => azurite,
        Err(why) => return could_not_run("azurite", &why),
    };
    a_life(&Client::new(vec![("AZURE_STORAGE_SAS_TOKEN", Azurite::SAS_TOKEN.into())]), &own.url(""));
}

/// An object that a backup is to be exactly.
fn one_file(server: &dyn ObjectServer) {
    let client = Client::of(server);
    let one = server.url("life/one.tar.zst");
    client.expect(0, &["create", "tree", "--to", &one]);
    client.expect(6, &["create", "tree", "--to", &one]);
    client.expect(0, &["verify", "--from", &one]);
}

#[test]
fn a_configured_container_has_an_account_and_a_key_or_token_of_its_own() {
    let Some(azurite) = azurite() else { return };
    let with = |what: &'static str, secret: &str, more: &str| {
        let client = Client::new(vec![(what, secret.into())]);
        let endpoint = format!("http://{}/{}", azurite.address(), Azurite::ACCOUNT);
        let url = format!("az://{}/configured", Azurite::CONTAINER);
        client.place.write(
            "backup.toml",
            &format!(
                "[modules.m.sources.files]\nkind = \"files\"\npath = \"tree\"\n\
                 [archives.offsite]\nurl = \"{url}\"\nendpoint = \"{endpoint}\"\n{more}"
            ),
        );
        client
    };
    let account = format!("account = \"{}\"\n", Azurite::ACCOUNT);
    for client in [
        with("BACKUP_OFFSITE_ACCOUNT_KEY", Azurite::ACCOUNT_KEY, ""),
        with("BACKUP_OFFSITE_SAS_TOKEN", Azurite::SAS_TOKEN, ""),
        with("AZURE_STORAGE_KEY", Azurite::ACCOUNT_KEY, &account),
        with("KEY", Azurite::ACCOUNT_KEY, "account_key = \"${KEY}\"\n"),
        with("TOKEN", Azurite::SAS_TOKEN, "password_command = [\"sh\", \"-c\", \"echo \\\"$$TOKEN\\\"\"]\n"),
    ] {
        let ran = client.expect(0, &["create"]);
        assert!(ran.stdout.contains("az://container/configured/m-backup-"), "{}", ran.stdout);
        client.expect(0, &["verify"]);
    }
    // What goes wrong says what to do, and no secret.
    let cut = &Azurite::SAS_TOKEN[..Azurite::SAS_TOKEN.len() - 12];
    let refused = "does not accept the account key or SAS token";
    let other = "b3RoZXI=";
    for (client, code, says) in [
        (with("BACKUP_OFFSITE_ACCOUNT_KEY", other, ""), 4, refused),
        (with("BACKUP_OFFSITE_SAS_TOKEN", cut, ""), 4, refused),
        (with("NONE", "", ""), 4, "there are no credentials for it"),
        (with("BACKUP_OFFSITE_ACCOUNT_KEY", "no base64!", ""), 2, "account key"),
        (with("BACKUP_OFFSITE_SAS_TOKEN", "nonsense", ""), 2, "SAS token"),
    ] {
        for line in [&["create"][..], &["list"], &["create", "--verbose", "--progress", "json"]] {
            let ran = client.run(line);
            let printed = format!("{}{}", ran.stdout, ran.stderr);
            assert!(ran.code == code && printed.contains(says), "{line:?}: {} {printed}", ran.code);
            assert!(
                ![other, &cut[cut.len() - 20..], "no base64!", "nonsense"]
                    .iter()
                    .any(|s| printed.contains(s))
            );
        }
    }
    let missing = azurite.url("p").replace("az://container", "az://missing");
    let ran = Client::of(azurite).expect(4, &["create", "tree", "--to", &missing]);
    assert!(
        ran.stderr.contains("the container does not exist") && ran.stderr.contains("hint:"),
        "{}",
        ran.stderr
    );
    assert!(Client::of(azurite).expect(4, &["list", "--from", &missing]).stderr.contains("does not exist"));
    let ran = Client::of(azurite).expect(2, &["list", "--from", "az://container/p?sig=HIDDEN"]);
    assert!(!ran.stderr.contains("HIDDEN") && ran.stderr.contains("account, endpoint"), "{}", ran.stderr);
}

#[test]
fn a_configured_bucket_has_credentials_of_its_own() {
    let Some(minio) = minio() else { return };
    let client = Client::new(vec![
        ("BACKUP_OFFSITE_ACCESS_KEY_ID", Minio::KEY.into()),
        ("BACKUP_OFFSITE_SECRET_ACCESS_KEY", Minio::SECRET.into()),
    ]);
    let text = format!(
        "[modules.m.sources.files]\nkind = \"files\"\npath = \"tree\"\n\
         [archives.offsite]\nurl = \"s3://{}/configured\"\nendpoint = \"{}\"\n",
        Minio::BUCKET,
        minio.endpoint()
    );
    client.place.write("backup.toml", &text);
    let ran = client.expect(0, &["create"]);
    assert!(ran.stdout.contains("s3://bucket/configured/m-backup-"), "{}", ran.stdout);
    client.expect(0, &["verify"]);
    // A wrong key, a missing bucket, nobody there: errors of the destination, with a way out.
    let wrong =
        Client::new(vec![("AWS_ACCESS_KEY_ID", Minio::KEY.into()), ("AWS_SECRET_ACCESS_KEY", "no".into())]);
    for (who, to, says) in [
        (&wrong, minio.url("p"), "does not accept the access key"),
        (&Client::of(minio), minio.url("p").replace("bucket/p", "missing/p"), "the bucket does not exist"),
    ] {
        let ran = who.expect(4, &["create", "tree", "--to", &to]);
        assert!(ran.stderr.contains(says) && ran.stderr.contains("hint:"), "{}", ran.stderr);
        assert!(who.expect(4, &["list", "--from", &to]).stderr.contains(says));
    }
}

#[test]
fn a_certificate_that_is_the_servers_own_is_trusted_if_its_file_is_named_and_not_otherwise() {
    let servers = [false, true].map(Minio::start_tls);
    let [minio, authority] = match servers {
        [Ok(minio), Ok(authority)] => [minio, authority],
        [Err(why), _] | [_, Err(why)] => return could_not_run("minio", &why),
    };
    let client = Client::of(&minio);
    let archive = |address: &str, more: &str| {
        let url = format!("url = \"s3://{}/tls\"\nendpoint = \"https://{address}\"\n", Minio::BUCKET);
        client.place.write("backup.toml", &format!("[archives.own]\n{url}{more}"));
    };
    let named = |minio: &Minio| format!("ca_file = \"{}\"\n", minio.ca_file().display());
    let refused = || {
        let begun = Instant::now();
        let ran = client.expect(4, &["create", "tree", "--to", "own"]);
        // Trying again took fifteen seconds.
        assert!(begun.elapsed() < Duration::from_secs(10), "it was tried again: {}", ran.stderr);
        assert!(ran.stderr.contains("certificate") && ran.stderr.contains("ca_file"), "{}", ran.stderr);
    };
    for (this, other) in [(&minio, &authority), (&authority, &minio)] {
        archive(&this.address(), "");
        refused();
        archive(&this.address(), &named(other));
        refused();
        archive(&this.address(), &named(this));
        client.expect(0, &["create", "tree", "--to", "own"]);
        client.expect(0, &["verify", "--from", "own"]);
        // It is of the address, not of the name.
        archive(&this.address().replace("127.0.0.1", "localhost"), &named(this));
        let ran = client.expect(4, &["create", "tree", "--to", "own"]);
        assert!(ran.stderr.contains("not valid for"), "{}", ran.stderr);
    }
    let plain = minio.url_at(&format!("http://{}", minio.address()), "tls");
    let ran = client.expect(4, &["list", "--from", &plain, "--config", "/dev/null"]);
    assert!(ran.stderr.contains("no plain HTTP is spoken there: is it https://"), "{}", ran.stderr);
    archive(&minio.address(), "ca_file = \"backup.toml\"\n");
    let ran = client.expect(2, &["list", "--from", "own"]);
    assert!(ran.stderr.contains("ca_file"), "{}", ran.stderr);
}

#[test]
fn a_rate_is_kept_to_and_from_a_server() {
    let Some(minio) = minio() else { return };
    let client = Client::of(minio);
    fs::write(client.place.path("tree/large"), noise(3 << 20)).unwrap();
    let to = minio.url("rate");
    for line in [&["create", "tree", "--to", &to][..], &["verify", "--from", &to]] {
        let begin = std::time::Instant::now();
        client.expect(0, &[line, &["--limit-rate", "1M"]].concat());
        let took = begin.elapsed();
        assert!(took > Duration::from_millis(2500), "{line:?} took {took:?}");
    }
    client.expect(2, &["create", "tree", "--to", &to, "--limit-rate", "fast"]);
    client.expect(2, &["create", "tree", "--to", &to, "--limit-rate", "1"]);
}

#[test]
fn what_is_read_back_of_a_bucket_is_the_tail_or_if_it_is_said_everything() {
    let Some(minio) = minio() else { return };
    let client = Client::of(minio);
    fs::write(client.place.path("tree/large"), noise(20 << 20)).unwrap();
    let to = minio.url("readback");
    let verified = |line: &[&str]| {
        let made = client.json(line);
        assert_eq!(made["results"][0]["report"]["read_back"], !line.contains(&"none"), "{made}");
        let id = made["results"][0]["report"]["id"].as_str().unwrap();
        let list = client.json(&["list", "--from", &to]);
        let backups = list["backups"].as_array().unwrap();
        let this = backups.iter().find(|b| b["id"] == id).unwrap();
        this["verified"].is_string()
    };
    assert!(!verified(&["create", "tree", "--to", &to, "--read-back", "none"]));
    assert!(!verified(&["create", "tree", "--to", &to, "--read-back", "tail"]));
    assert!(verified(&["create", "tree", "--to", &to, "--read-back", "full"]));
    client.expect(0, &["copy", "latest", "--from", &to, "--to", "copies", "--read-back", "full"]);
    let copied = client.json(&["list", "--from", "copies"]);
    assert!(copied["backups"][0]["verified"].is_string(), "{copied}");
    client.expect(2, &["create", "tree", "--to", "-", "--read-back", "full"]);
}

#[test]
fn a_server_with_sftp_keeps_backups_from_the_first_to_the_last() {
    let server = match Sshd::start() {
        Ok(server) => server,
        Err(why) => return could_not_run("sshd", &why),
    };
    let state = Place::new();
    let folder = state.path("").into_os_string();
    let client = Client::new(vec![("PATH", server.path()), ("XDG_STATE_HOME", folder)]);
    a_life(&client, &server.url("backups"));
    // No connection outlives the program that has made it.
    let left: Vec<_> = fs::read_dir(state.path("")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("ssh")), "{left:?}");
    let ran = Client::new(vec![]).expect(4, &["create", "tree", "--to", &server.url("backups")]);
    assert!(ran.stderr.contains("known_hosts"), "{}", ran.stderr);
}

#[test]
fn what_ssh_refuses_is_said_with_its_way_out() {
    let server = match Sshd::start() {
        Ok(server) => server,
        Err(why) => return could_not_run("sshd", &why),
    };
    let to = server.url("backups");
    let client = Client::new(vec![]);
    let make = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f", "other"])
        .current_dir(client.place.path(""))
        .status();
    assert!(make.unwrap().success());
    let host = to.split('/').nth(2).unwrap().replace("127.0.0.1", "[127.0.0.1]");
    client.place.write("known", &format!("{host} {}", client.place.read("other.pub")));
    let known = client.place.path("known");
    for (option, cause, hint) in [
        (
            format!("UserKnownHostsFile={}", known.display()),
            "another host key than known_hosts says: the ED25519",
            "ssh-keygen -R",
        ),
        ("UserKnownHostsFile=/dev/null".to_owned(), "is not in known_hosts", "ssh-keyscan"),
        ("PubkeyAuthentication=no".to_owned(), "none of the keys", "ssh -v USER@HOST"),
    ] {
        let script = format!("#!/bin/sh\nPATH='{}' exec ssh -o {option} \"$@\"\n", server.path().display());
        client.place.write("bin/ssh", &script);
        fs::set_permissions(client.place.path("bin/ssh"), fs::Permissions::from_mode(0o700)).unwrap();
        let path = format!("{}:{}", client.place.path("bin").display(), server.path().display());
        let ran: Ran = client.command(&["list", "--from", &to]).env("PATH", path).output().unwrap().into();
        assert_eq!(ran.code, 4, "{}", ran.stderr);
        assert!(ran.stderr.contains(cause) && ran.stderr.contains(hint), "{option}: {}", ran.stderr);
        assert!(!ran.stderr.contains("@@@") && !ran.stderr.contains("check the address"), "{}", ran.stderr);
    }
    let ran: Ran = client.command(&["list", "--from", &to]).env("PATH", "/nowhere").output().unwrap().into();
    assert!(ran.stderr.contains("the program ssh cannot be run"), "{}", ran.stderr);
}

#[test]
fn tls_where_there_is_none_is_named_at_once() {
    let Some(minio) = minio() else { return };
    let client = Client::of(minio);
    let begun = Instant::now();
    let from = minio.url("tls").replace("=http:", "=https:");
    let ran = client.expect(4, &["list", "--from", &from]);
    assert!(ran.stderr.contains("no TLS is spoken there: is it http://"), "{}", ran.stderr);
    assert!(begun.elapsed() < Duration::from_secs(5), "it was tried again and again");
}

#[test]
fn a_server_with_webdav_keeps_backups_from_the_first_to_the_last() {
    let server = match Webdav::start() {
        Ok(server) => server,
        Err(why) => return could_not_run("webdav", &why),
    };
    let client = Client::new(vec![("BACKUP_NAS_PASSWORD", Webdav::PASSWORD.into())]);
    let configured = format!("[archives.nas]\nurl = \"{}\"\n", server.url("backups"));
    client.place.write("backup.toml", &configured);
    a_life(&client, "nas");
    // The password may come from a program, which is run only when the archive is used.
    let asks = |command: &str| {
        let client = Client::new(vec![]);
        client.place.write("backup.toml", &format!("{configured}password_command = {command}\n"));
        client
    };
    asks("[\"printf\", \"%s\\\\nmore\", \"p'a\\\\s\\\"s $$x\"]").expect(0, &["list", "--from", "nas"]);
    let fails = asks("[\"false\"]");
    fails.expect(0, &["config", "check"]);
    let ran = fails.expect(2, &["list", "--from", "nas"]);
    assert!(ran.stderr.contains("password_command") && ran.stderr.contains("false"), "{}", ran.stderr);
    let wrong = Client::new(vec![("BACKUP_NAS_PASSWORD", "no".into())]);
    wrong.place.write("backup.toml", &configured);
    let ran = wrong.expect(4, &["create", "tree", "--to", "nas"]);
    assert!(ran.stderr.contains("user and password") && !ran.stderr.contains("'a\\s"), "{}", ran.stderr);
}

#[test]
fn a_killed_upload_is_never_a_backup_and_heal_leaves_nothing_of_it_on_the_server() {
    // Of its own: what lies on its disk is of this test.
    match Minio::start() {
        Ok(minio) => killed_uploads(&minio),
        Err(why) => could_not_run("minio", &why),
    }
}

#[test]
fn a_killed_upload_to_azure_is_never_a_backup_and_heal_leaves_none_of_its_blocks() {
    match Azurite::start() {
        Ok(azurite) => killed_uploads(&azurite),
        Err(why) => could_not_run("azurite", &why),
    }
}

/// Until the server has come to the end of each connection that others have closed. It must be this test's own.
fn wait_until_all_is_read(server: &dyn ObjectServer) {
    let begun = Instant::now();
    let port: u16 = server.address().rsplit(':').next().unwrap().parse().unwrap();
    let ours = format!(":{port:04X}");
    let is_open = |line: &str| {
        let mut words = line.split_whitespace();
        let (local, state) = (words.nth(1).unwrap_or_default(), words.nth(1).unwrap_or_default());
        // Neither the one that listens nor those that only wait for packets that are late.
        local.ends_with(&ours) && !["0A", "06"].contains(&state)
    };
    let tables = || {
        let read =
            ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
        read.concat()
    };
    while tables().lines().any(is_open) {
        assert!(begun.elapsed() < Duration::from_secs(60), "the server reads and reads");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn killed_uploads(server: &dyn ObjectServer) {
    let client = Client::of(server);
    let to = server.url("killed");
    client.expect(0, &["create", "tree", "--to", &to]);
    let first = client.list(&to);
    // More than one part, and long enough to be met in the middle.
    fs::write(client.place.path("tree/large"), noise(100 << 20)).unwrap();
    let mut random = Random::new("killed uploads");
    for round in 0..8 {
        // Half of them at any time, half while an upload is certain to go on: at that rate it takes ten seconds.
        let in_the_middle = round % 4 >= 2;
        let mut command = client.command(&["create", "tree", "--to", &to]);
        if in_the_middle {
            command.args(["--limit-rate", "10M"]);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while in_the_middle && server.uploads().is_empty() {
            assert!(child.try_wait().unwrap().is_none(), "round {round}: it ended and no upload was seen");
            assert!(begun.elapsed() < Duration::from_secs(60), "round {round}: no upload begins");
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(random.point(round, 8, Duration::from_millis(1200)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            !in_the_middle || !server.uploads().is_empty(),
            "round {round}: it was over before it was killed"
        );
        // A server that is loaded makes a part of what had reached it when the sender was killed a good while later.
        wait_until_all_is_read(server);
        std::thread::sleep(Duration::from_secs(1));
        for (id, state) in client.list(&to) {
            match state.as_str() {
                "complete" => drop(client.expect(0, &["verify", &id, "--from", &to])),
                other => assert_eq!(other, "incomplete"),
            }
        }
        // By heal, or by the next run of the series.
        if round % 2 == 0 {
            client.expect(0, &["heal", "--from", &to]);
        } else {
            client.expect(0, &["create", "tree", "--to", &to, "--exclude", "large"]);
        }
        assert_eq!(server.uploads(), [""; 0], "round {round}: uploads that were not completed");
        let list = client.list(&to);
        assert!(list.iter().all(|(_, state)| state == "complete"), "round {round}: {list:?}");
        assert_eq!(list[0], first[0], "round {round}: the earlier backup has changed");
    }
    client.expect(0, &["verify", "--from", &to]);
    let mut names = server.names("killed");
    // A probe may be of a run that goes on: it stays for ten minutes.
    names.retain(|name| !name.starts_with(".backup-probe-"));
    assert!(names.len() >= 2 && names.iter().all(|name| !name.starts_with('.')), "{names:?}");
}

#[test]
fn an_upload_that_is_interrupted_while_only_its_last_bytes_are_sent_is_no_backup() {
    // Of its own: no other test's uploads are looked at.
    let minio = &match Minio::start() {
        Ok(minio) => minio,
        Err(why) => return could_not_run("minio", &why),
    };
    let sshd = Sshd::start().map_err(|why| could_not_run("sshd", &why)).ok();
    let dav = Webdav::start().map_err(|why| could_not_run("webdav", &why)).ok();
    for megabytes in [3, 30] {
        let mut all = vec![(Client::of(minio), minio.url("interrupted"))];
        all.extend(sshd.iter().map(|server| {
            (Client::new(vec![("PATH", server.path())]), server.url(&format!("interrupted-{megabytes}")))
        }));
        all.extend(dav.iter().map(|server| {
            let client = Client::new(vec![("BACKUP_NAS_PASSWORD", Webdav::PASSWORD.into())]);
            let url = server.url(&format!("interrupted-{megabytes}"));
            client.place.write("backup.toml", &format!("[archives.nas]\nurl = \"{url}\"\n"));
            (client, "nas".to_owned())
        }));
        for (client, to) in all {
            client.expect(0, &["create", "tree", "--to", &to]);
            let first = client.list(&to);
            fs::write(client.place.path("tree/large"), noise(megabytes << 20)).unwrap();
            // All of it is read at once, and would take longer to send than a clean-up may.
            let mut run = client.command(&["create", "tree", "--to", &to, "--limit-rate", "40K"]);
            let run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(Duration::from_secs(4));
            let pid = rustix::process::Pid::from_child(&run);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            let ran: Ran = run.wait_with_output().unwrap().into();
            assert_eq!(ran.code, 130, "{to}, {megabytes} MB: {}", ran.stderr);
            assert!(!ran.stderr.contains("ended before it was cleaned up"), "{to}: {}", ran.stderr);
            assert_eq!(client.list(&to), first, "{to}, {megabytes} MB");
            if to.starts_with("s3") {
                assert_eq!(minio.uploads(), [""; 0], "{megabytes} MB");
            }
        }
    }
}

#[test]
fn where_no_place_can_be_written_each_is_named_with_its_cause() {
    let place = Place::with_tree();
    let ran = place.expect(4, &["create", "tree", "--to", "no/such", "--to", "nor/this"]);
    let told = |text: &str| assert!(ran.stderr.contains(text), "{text}: {}", ran.stderr);
    told("none of the 2 places has it: no/such: cannot create the destination folder");
    told("; nor/this: cannot create the destination folder");
    assert_eq!(ran.stderr.matches("create the folder above it first").count(), 1, "{}", ran.stderr);
    let ran = place
        .expect(4, &["create", "tree", "--to", "no/such", "--to", "fine", "--to", "nor/this", "--dry-run"]);
    let both = ["2 of the 3 places cannot be used: no/such: cannot", "; nor/this: cannot"];
    assert!(both.iter().all(|text| ran.stderr.contains(text)), "{}", ran.stderr);
    // Of several kinds it is that the places cannot be written.
    place.expect(0, &["init", "b", "--encrypt", "--identity-file", "key.txt"]);
    place.expect(0, &["init", "c", "--encrypt", "--identity-file", "key-c.txt"]);
    place.expect(2, &["create", "tree", "--to", "b", "--to", "c"]);
    let ran = place.expect(4, &["create", "tree", "--to", "b", "--to", "no/such"]);
    let both =
        ["b: cannot write the archive: only encrypted", "no/such: cannot create", "--recipient", "above it"];
    assert!(both.iter().all(|text| ran.stderr.contains(text)), "{}", ran.stderr);
}

#[test]
fn several_places_get_one_backup_and_one_that_fails_fails_only_itself() {
    let Some(minio) = minio() else { return };
    let client = Client::of(minio);
    client.place.write("tree/large", &"0123456789abcdef".repeat(700_000));
    let bucket = minio.url("several");
    client.expect(0, &["create", "tree", "--to", &bucket, "--to", "b", "--to", "c.tar.zst"]);
    let ids = [client.list(&bucket), client.list("b"), client.list("c.tar.zst")];
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    for place in [bucket.as_str(), "b", "c.tar.zst"] {
        client.expect(0, &["verify", "--from", place]);
    }
    let ran = client.expect(4, &["create", "tree", "--to", &bucket.replace("bucket/", "No_Bucket/")]);
    assert!(ran.stderr.contains("3 to 63 lower-case letters"), "{}", ran.stderr);
    let gone = bucket.replace("bucket/", "missing/");
    let ran = client.run(&["create", "tree", "--to", &gone, "--to", "b", "--json"]);
    assert_eq!(ran.code, 4, "{}", ran.stderr);
    assert!(ran.stderr.contains("the bucket does not exist"), "{}", ran.stderr);
    let object: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let report = &object["results"][0]["report"];
    assert_eq!(report["state"], "complete");
    assert!(report["places"][0]["error"]["message"].as_str().unwrap().contains("bucket"), "{object}");
    assert!(report["places"][1]["location"].is_string(), "{object}");
    assert_eq!(client.list("b").len(), 2);
    client.expect(0, &["verify", "--from", "b"]);
    let ran = client.expect(4, &["create", "tree", "--to", &gone, "--to", "no/such/folder"]);
    let all = ["nothing is stored", "the bucket does not exist", "no/such/folder: cannot create"];
    assert!(all.iter().all(|text| ran.stderr.contains(text)), "{}", ran.stderr);
    let ran = client.expect(2, &["create", "tree", "--to", &bucket, "--to", "d.tar"]);
    assert!(ran.stderr.contains("backup copy"), "{}", ran.stderr);
    client.expect(2, &["create", "tree", "--to", "b", "--to", "b"]);
    let elsewhere = bucket.replace("127.0.0.1", "localhost");
    let ran = client.expect(2, &["create", "tree", "--to", &bucket, "--to", &elsewhere]);
    assert!(ran.stderr.contains("several servers are in play"), "{}", ran.stderr);
}
