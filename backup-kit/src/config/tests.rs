use super::*;

fn parse(text: &str) -> Result<Config> {
    let var = |name: &str| (name == "BASE").then(|| "/srv".to_owned());
    Config::parse(Path::new("/etc/b/backup.toml"), text, &Registry::default(), &var)
}

fn complaint(text: &str) -> String {
    let e = parse(text).and_then(|config| config.check()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage);
    e.to_string()
}

#[test]
fn the_example_is_a_valid_configuration() {
    let c = parse(EXAMPLE).unwrap();
    assert_eq!(c.module_names().collect::<Vec<_>>(), ["wiki"]);
    let archives: Vec<_> = c.archives().map(|(name, a)| (name, a.url.as_str())).collect();
    assert_eq!(
        archives.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
        ["cloud", "local", "nas", "offsite", "server"]
    );
    assert_eq!(archives[1].1, "/share/backups");
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_key() {
    let source = "[modules.a.sources.x]\nkind = \"files\"\npath = \"/x\"\nexlude = [\"*.tmp\"]\n";
    assert_eq!(
        complaint(source),
        "/etc/b/backup.toml:4: cannot read the configuration: unknown key `exlude` in [modules.a.sources.x]; did you mean `exclude`?"
    );
    let archive = "\n[archives.nas]\nurl = \"/b\"\nlevl = 3\n";
    assert_eq!(
        complaint(archive),
        "/etc/b/backup.toml:4: cannot read the configuration: unknown key `levl`; did you mean `level`?"
    );
    assert!(
        complaint("[module.a]\n")
            .contains(":1: cannot read the configuration: unknown key `module`; did you mean `modules`?")
    );
}

#[test]
fn every_mistake_of_modules_sources_and_archives_is_told_with_its_line() {
    let c = complaint(
        "[modules.a.sources.x]\nkind = \"files\"\npath = \"/x\"\nexlude = []\nonfile = 1\n\
         [modules.a.sources.y]\nkind = \"file\"\n\
         [modules.b]\nhealth = { url = \"ftp://h\" }\n\
         [archives.c]\nurl = \"ftp://h/b\"\n[archives.d]\nurl = \"/b\"\nlevel = 99\n[archives.e]\nurl = \"/b\"\n",
    );
    assert!(c.starts_with("/etc/b/backup.toml: cannot read the configuration: it has 7 mistakes\n"), "{c}");
    for line in [
        ":4: unknown key `exlude` in [modules.a.sources.x]; did you mean `exclude`?",
        ":5: unknown key `onfile` in [modules.a.sources.x]",
        ":7: `file` is no kind of store",
        ":8: the module `b` has no sources",
        ":9: ",
        ":11: ftp://h/b: ",
        ":12: /b: ",
    ] {
        assert!(c.lines().any(|l| l.starts_with(&format!("/etc/b/backup.toml{line}"))), "{line} in {c}");
    }
}

#[test]
fn a_wrong_address_is_one_mistake_and_a_key_of_another_store_is_known_by_its_beginning() {
    let c = complaint(
        "[modules.a.sources.x]\nkind = \"postgres\"\nurl = \"postgres://h/d?x=1\"\ndatabases = [\"a\"]\n\
         [modules.a.sources.y]\nkind = \"mysql\"\nurl = \"mysql://h:x/d\"\ndatabases = [\"a\"]\n\
         [modules.a.sources.z]\nkind = \"mysql\"\nurl = \"mysql://h/d\"\nlock_timeout = 5\n",
    );
    let found: Vec<&str> = c.lines().skip(1).collect();
    assert_eq!(found.len(), 3, "{c}");
    assert!(found[0].contains(":3: ") && found[1].contains(":7: "), "{c}");
    assert!(
        found[2].ends_with(
            ":12: unknown key `lock_timeout` in [modules.a.sources.z]; did you mean `lock_timeout_seconds`?"
        ),
        "{c}"
    );
}

#[test]
fn no_mistake_hides_another() {
    let c = complaint(
        "apps = 1\n[modules.a]\napps = [\"web\"]\nhealth = { urll = \"http://h\" }\n\
         [modules.a.sources.x]\nkind = \"files\"\npath = \"${NOWHERE}\"\nexlude = []\n\
         [modules.a.sources.y]\nkind = \"redis\"\n\
         [modules.a.sources.z]\nkind = \"files\"\npath = \"/z\"\nexclude = 5\none_file_system = \"no\"\ndisposable = 1\n\
         [archives.b]\nurl = \"s3://b\"\nlevl = 3\nsecret_access_key = \"hunter2\"\nformat = \"zip\"\n\
         [archives.d]\nformat = \"tar\"\nlevel = []\n[archives.e]\nurl = 5\n[archives.f]\nurl = \"${ELSEWHERE}\"\n\
         [archves.c]\nurl = \"/c\"\n",
    );
    let lines = [
        ":1: unknown key `apps`",
        ":3: unknown key `apps`; did you mean `app`?",
        ":4: unknown key `urll`; did you mean `url`?",
        ":7: the variable NOWHERE is not set",
        ":8: unknown key `exlude` in [modules.a.sources.x]; did you mean `exclude`?",
        ":10: `redis` is no kind of store",
        ":14: ",
        ":15: ",
        ":16: `disposable` must be true or false",
        ":19: unknown key `levl`; did you mean `level`?",
        ":20: a secret must not stand in this file",
        ":21: ",
        ":22: missing field `url`",
        ":24: ",
        ":26: ",
        ":28: the variable ELSEWHERE is not set",
        ":29: unknown key `archves`; did you mean `archives`?",
    ];
    let found: Vec<&str> = c.lines().skip(1).collect();
    assert!(c.contains(&format!("it has {} mistakes\n", lines.len())) && !c.contains("hunter2"), "{c}");
    for (line, found) in lines.into_iter().zip(found) {
        assert!(found.starts_with(&format!("/etc/b/backup.toml{line}")), "{line} is {found} in {c}");
    }
}

#[test]
fn an_unknown_kind_or_format_is_an_error() {
    let c = complaint("[modules.a.sources.x]\nkind = \"file\"\npath = \"/x\"\n");
    assert!(
        c.contains(":2:") && c.contains("`file` is no kind of store") && c.contains("did you mean `files`"),
        "{c}"
    );
    let c = complaint("[archives.a]\nurl = \"/b\"\nformat = \"tar.bz2\"\n");
    assert!(c.contains(":3:") && c.contains("tar.zst"), "{c}");
}

#[test]
fn a_variable_that_is_not_set_names_its_line() {
    let c = complaint("[modules.a.sources.x]\nkind = \"files\"\npath = \"${BASE}/${NOWHERE}\"\n");
    assert_eq!(c, "/etc/b/backup.toml:3: cannot read the configuration: the variable NOWHERE is not set");
}

#[test]
fn a_variable_is_needed_only_by_the_module_or_archive_that_it_belongs_to() {
    let text = "[modules.a.sources.x]\nkind = \"files\"\npath = \"/x\"\n\
                [modules.b.sources.x]\nkind = \"files\"\npath = \"${ONE}\"\n[archives.c]\nurl = \"/c\"\n\
                [archives.d]\nurl = \"s3://b/p\"\nsecret_access_key = \"${TWO:?of the cloud}\"\n";
    let config = parse(text).unwrap();
    config.module("a").unwrap();
    config.archive("c").unwrap();
    let told = |e: Error| e.to_string();
    let one = "/etc/b/backup.toml:6: cannot read the configuration: the variable ONE is not set";
    assert_eq!(config.module("b").map_err(told).unwrap_err(), one);
    assert!(config.archive("d").map_err(told).unwrap_err().contains(":11: "));
    let c = complaint(text);
    assert!(
        c.contains(":6: the variable ONE") && c.contains(":11: the variable TWO is not set: of the cloud"),
        "{c}"
    );
    // With another mistake, or one that may follow from it, all of it is wrong at once.
    for more in ["levl = 1\n", "level = \"${ONE}\"\n", "name = \"${ONE\"\n", "levl = \"${ONE}\"\n"] {
        let e = parse(&format!("{text}{more}")).map_err(told).unwrap_err();
        assert!(e.contains("the variable ONE is not set"), "{more}: {e}");
    }
    let bucket = |more: &str| {
        let text = format!("[archives.c]\nurl = \"s3://b/p?region=x\"\n[archives.d]\n{more}");
        parse(&text).unwrap().archive("c").map(drop).map_err(told)
    };
    // What another archive is read or opened with is nothing of this one.
    bucket(
        "url = \"s3://d\"\nendpoint = \"https://x\"\nsecret_access_key = \"${TWO}\"\naccess_key_id = \"i\"\n",
    )
    .unwrap();
    bucket("url = \"s3://d\"\nidentity = \"${TWO}\"\n").unwrap();
    bucket("url = \"/mnt/${TWO}/b\"\n").unwrap();
    bucket("url = \"sftp://${TWO}/b\"\n").unwrap();
    bucket("url = \"az://d\"\naccount = \"${TWO}\"\n").unwrap();
    assert!(bucket("url = \"s3://d\"\nendpoint = \"${TWO}\"\n").unwrap_err().contains("TWO"));
    // Whose credentials those of the environment are is known only when all places are.
    let several = "[archives.c]\nurl = \"s3://b/p?region=x\"\n[archives.d]\nurl = \"${ONE}\"\n";
    assert!(parse(several).unwrap().archive("c").map_err(told).unwrap_err().contains("ONE"));
}

#[test]
fn every_variable_that_is_not_set_and_every_plain_secret_is_told() {
    let c = complaint(
        "[modules.a.sources.x]\nkind = \"files\"\npath = \"${ONE}\"\nexclude = [\"${TWO}\"]\n\
         [archives.b]\nurl = \"s3://b\"\nsecret_access_key = \"hunter2\"\n",
    );
    assert!(c.contains("it has 3 mistakes") && c.contains(":7: a secret") && !c.contains("hunter2"), "{c}");
    assert!(c.contains(":3: the variable ONE is not set") && c.contains(":4: the variable TWO"), "{c}");
}

#[test]
fn a_value_cannot_smuggle_in_syntax() {
    let var = |_: &str| Some("\"\nkind = \"evil".to_owned());
    let text = "[archives.a]\nurl = \"${X}\"\n";
    let c = Config::parse(Path::new("backup.toml"), text, &Registry::default(), &var).unwrap();
    assert_eq!(c.archives().next().unwrap().1.url, "\"\nkind = \"evil");
}

#[test]
fn an_archive_that_cannot_be_opened_by_anyone_is_an_error() {
    for (line, part) in [
        ("url = \"ftp://h/b\"", "ftp"),
        ("url = \"host:b\"", "./host:b"),
        ("url = \"\"", "it is empty"),
        ("url = \"b\"\nlevel = 99", "levels"),
        ("url = \"b\"\nname = \"x\"", "{id}"),
    ] {
        let c = complaint(&format!("\n[archives.a]\n{line}\n"));
        assert!(c.contains("backup.toml:") && c.contains(part), "{c}");
    }
}

#[test]
fn broken_toml_names_its_line() {
    assert!(complaint("[archives.a]\nurl = \n").contains(":2:"));
    assert!(complaint("[archives.a]\nurl = 5\n").contains(":2:"));
}

#[test]
fn relative_paths_are_taken_from_the_folder_of_the_file() {
    let c = parse("[archives.a]\nurl = \"./b\"\n").unwrap();
    assert_eq!(c.archives().next().unwrap().1.url, "/etc/b/./b");
}

#[test]
fn a_name_that_is_not_configured_lists_those_that_are() {
    let c = parse(EXAMPLE).unwrap();
    assert!(c.module("wikki").unwrap_err().to_string().contains("there are: wiki"));
    assert!(
        c.archive("nass").unwrap_err().to_string().contains("there are: cloud, local, nas, offsite, server")
    );
}

#[test]
fn the_published_schema_is_current() {
    let file = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../docs/backup.schema.json");
    let mut now = serde_json::to_string_pretty(&schema(&Registry::default())).unwrap();
    now.push('\n');
    if std::env::var_os("BACKUP_WRITE_SCHEMA").is_some() {
        std::fs::write(&file, &now).unwrap();
    }
    let published = std::fs::read_to_string(&file).unwrap();
    assert!(published == now, "run this test with BACKUP_WRITE_SCHEMA=1");
}

#[tokio::test]
async fn no_complaint_shows_a_password() {
    let var = |_: &str| Some("hunter2".to_owned());
    let parse = |text: &str| Config::parse(Path::new("b.toml"), text, &Registry::default(), &var);
    for text in [
        "[archives.a]\nurl = \"s3://u:${PW}@h/b\"\n",
        "[archives.a]\nurl = \"/b\"\nlevel = \"${PW}\"\n",
        "[archives.a]\nurl = \"/b\"\nformat = \"${PW}\"\n",
        "[archives.a]\nurl = [\"${PW}\"]\n",
    ] {
        let e = parse(text).unwrap_err();
        assert!(!format!("{e} {e:?}").contains("hunter2"), "{e}");
        assert!(e.to_string().contains("b.toml:"), "{e}");
    }
    let place = "postgres://u:hunter2@h/db";
    let e = Registry::default().parse(place).await.map(|_| ()).unwrap_err();
    let opened = crate::archive::at(place).open().map(|_| ()).unwrap_err();
    let shown = format!("{e} {opened} {}", crate::archive::at(place));
    assert!(!shown.contains("hunter2") && shown.contains("postgres://***@h/db"), "{shown}");
}

#[test]
fn credentials_of_an_archive_come_from_its_own_variables() {
    let var = |name: &str| match name {
        "BACKUP_OFF_SITE_ACCESS_KEY_ID" => Some("key".to_owned()),
        "BACKUP_OFF_SITE_SECRET_ACCESS_KEY" => Some("hunter2".to_owned()),
        "NAS" => Some("s3cret".to_owned()),
        _ => None,
    };
    let text = "[archives.off-site]\nurl = \"s3://b/p\"\nendpoint = \"http://127.0.0.1:9\"\n\
                [archives.nas]\nurl = \"webdav://me@nas/b\"\npassword = \"${NAS}\"\n";
    let c = Config::parse(Path::new("backup.toml"), text, &Registry::default(), &var).unwrap();
    let by_name = |name: &str| c.archives().find(|(n, _)| *n == name).unwrap().1.clone();
    let (s3, dav) = (by_name("off-site"), by_name("nas"));
    assert_eq!(s3.access_key_id.as_deref(), Some("key"));
    assert_eq!(s3.secret_access_key.as_ref().unwrap().expose(), "hunter2");
    assert_eq!(dav.password.as_ref().unwrap().expose(), "s3cret");
    let shown = format!("{c:?} {}", serde_json::to_string(&[s3, dav]).unwrap());
    assert!(!shown.contains("hunter2") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn a_container_of_azure_is_opened_by_a_key_or_a_token_of_its_own() {
    let parse = |text: &str, set: &[(&str, &str)]| {
        let var = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let text = format!("[archives.az-1]\nurl = \"az://c/p\"\n{text}");
        let c = Config::parse(Path::new("backup.toml"), &text, &Registry::default(), &var)?;
        let archive = c.archives().next().unwrap().1.clone();
        let shown = format!("{c:?} {}", serde_json::to_string(&archive).unwrap());
        assert!(!shown.contains("aHVudGVyMg==") && !shown.contains("hunter2"), "{shown}");
        let exposed = |secret: &Option<Secret>| secret.as_ref().map(|s| s.expose().to_owned());
        Ok::<_, Error>((archive.account.clone(), exposed(&archive.account_key), exposed(&archive.sas_token)))
    };
    let own = |account: &str, key: Option<&str>, token: Option<&str>| {
        (Some(account.to_owned()), key.map(str::to_owned), token.map(str::to_owned))
    };
    let (key, token) = ("aHVudGVyMg==", "sv=1&sig=hunter2");
    let variables = [("BACKUP_AZ_1_ACCOUNT", "one"), ("BACKUP_AZ_1_ACCOUNT_KEY", key), ("KEY", key)];
    assert_eq!(parse("", &variables).unwrap(), own("one", Some(key), None));
    let configured = "account = \"two\"\naccount_key = \"${KEY}\"\n";
    assert_eq!(parse(configured, &variables).unwrap(), own("two", Some(key), None));
    let other = [("BACKUP_AZ_1_SAS_TOKEN", token)];
    assert_eq!(parse("account = \"two\"\n", &other).unwrap(), own("two", None, Some(token)));
    let dir = tempfile::tempdir().unwrap();
    for (text, key, token) in [(key, Some(key), None), (token, None, Some(token))] {
        let file = dir.path().join("secret");
        std::fs::write(&file, format!("{text}\n")).unwrap();
        let configured = format!("account = \"two\"\npassword_file = \"{}\"\n", file.display());
        assert_eq!(parse(&configured, &variables).unwrap(), own("two", key, token));
    }
    let both = [("BACKUP_AZ_1_ACCOUNT_KEY", key), ("BACKUP_AZ_1_SAS_TOKEN", token)];
    let e = parse("account = \"two\"\n", &both).unwrap_err();
    assert!(e.to_string().contains("not both"), "{e}");
    assert!(parse("account = \"two\"\nsas_token = \"sig=hunter2\"\n", &[]).is_err());
}

#[test]
fn a_secret_in_the_configuration_itself_is_refused_and_not_repeated() {
    for value in ["hunter2", "${X:-hunter2}", "hunter2${X}"] {
        let c = complaint(&format!("[archives.a]\nurl = \"s3://b\"\nsecret_access_key = \"{value}\"\n"));
        assert!(c.contains("backup.toml:3:") && !c.contains("hunter2"), "{c}");
    }
    assert!(complaint("[archives.a]\nurl = \"/b\"\nregion = \"eu\"\n").contains("on this machine"));
    assert!(complaint("[archives.a]\nurl = \"s3://key:hunter2@b\"\n").contains("a secret stands in the URL"));
}

#[test]
fn an_application_and_its_health_check_are_configured_and_nonsense_is_an_error() {
    let of =
        |line: &str| format!("[modules.a]\n{line}\n[modules.a.sources.x]\nkind = \"files\"\npath = \"/x\"\n");
    let health = |rest: &str| of(&format!("app = [\"a-web\"]\nhealth = {{ {rest} }}"));
    let c = parse(&health("url = \"http://127.0.0.1:1/health\", timeout = \"90s\"")).unwrap();
    assert!(format!("{:?}", c.module("a").unwrap()).contains("90s"));
    for (rest, part) in [
        ("url = \"ftp://h\"", "http"),
        ("url = \"http://h\", timeout = \"soon\"", "90s"),
        ("url = \"http://h\", command = \"x\"", "unknown key `command`"),
        ("timeout = \"90s\"", "url"),
    ] {
        let c = complaint(&health(rest));
        assert!(c.contains("backup.toml:") && c.contains(part), "{c}");
    }
}
