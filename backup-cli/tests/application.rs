//! An application in containers: found by their names, stopped while its data is exchanged, started again whatever happens.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use backup_testkit::{
    run, services,
    services::{Flavor, Postgres},
};
use std::{
    process::{Command, Stdio},
    time::Duration,
};
use support::Place;

fn docker(arguments: &[&str]) -> String {
    let out = Command::new("docker").args(arguments).output().unwrap();
    assert!(out.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

fn runs(id: &str) -> bool {
    docker(&["inspect", "-f", "{{.State.Running}}", id]) == "true"
}

fn sql(server: &Postgres, database: &str, sql: &str) -> String {
    let id = server.container().id();
    docker(&[
        "exec",
        "-u",
        "postgres",
        id,
        "psql",
        "-qAtX",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        database,
        "-c",
        sql,
    ])
}

fn expect(place: &Place, code: i32, line: &[&str]) -> String {
    let out = place.command(line).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "backup {}\n{said}", line.join(" "));
    said
}

fn plan(place: &Place, line: &[&str]) -> String {
    let out = place.command(&[line, &["--dry-run", "--json"]].concat()).output().unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    plan["plan"]["id"].as_str().unwrap_or_else(|| panic!("{plan}")).to_owned()
}

#[test]
fn a_database_is_named_by_its_container_alone() {
    run("a_database_is_named_by_its_container_alone", async {
        let (postgres, place) = (services::postgres(17).await, Place::new());
        sql(&postgres, "postgres", "CREATE DATABASE named");
        sql(&postgres, "named", "CREATE TABLE t AS SELECT 7 i");
        let of = |database: &str| format!("db=container://{}/{database}", postgres.container().id());
        let said = expect(&place, 0, &["create", &of("named"), "--to", "./b", "-v"]);
        assert!(!said.contains(postgres.password()), "{said}");
        let shown = expect(&place, 0, &["show", "latest", "--from", "./b"]);
        assert!(shown.contains("database named, reached by published port"), "{shown}");
        let unpack = format!("zstd -dcq {}/*.tar.zst | tar -xO RESTORE.md", place.path("b").display());
        let guide = Command::new("sh").args(["-c", &unpack]).output().unwrap().stdout;
        let guide = String::from_utf8_lossy(&guide);
        assert!(guide.contains("`find db/db -name RESTORE.md`"), "{guide}");
        // The one that each server has is hardly meant.
        let server = format!("db=container://{}", postgres.container().id());
        let said = expect(&place, 2, &["create", &server, "--to", "./b"]);
        assert!(said.contains("names a database") && said.contains("/app, or"), "{said}");
        let said = expect(&place, 6, &["restore", "latest", "--from", "./b", "--to", &server]);
        assert!(said.contains("names a database"), "{said}");
        expect(&place, 0, &["restore", "latest", "--from", "./b", "--to", &of("named%2d2")]);
        assert_eq!(sql(&postgres, "named-2", "SELECT i FROM t"), "7");

        let mysql = services::mysql(Flavor::Mariadb118).await;
        let client = ["exec", mysql.container().id(), "sh", "-c"];
        let ask = |sql: &str| {
            let script = format!("{} -N -uroot -p\"$MYSQL_ROOT_PASSWORD\" -e '{sql}'", mysql.client());
            docker(&[&client[..], &[&script]].concat())
        };
        ask("CREATE DATABASE named; CREATE TABLE named.t AS SELECT 7 AS i");
        let of = |database: &str| format!("db=container://{}/{database}", mysql.container().id());
        expect(&place, 0, &["create", &of("named"), "--to", "./m"]);
        expect(&place, 0, &["restore", "latest", "--from", "./m", "--to", &of("other")]);
        assert_eq!(ask("SELECT i FROM other.t"), "7");
        ask("DROP DATABASE named; DROP DATABASE other");

        expect(&place, 3, &["create", "container://no-such-container/db", "--to", "./b"]);
        // What runs in it is no store that is known: MariaDB is none of PostgreSQL.
        let said = expect(&place, 2, &["restore", "latest", "--from", "./b", "--to", &of("other")]);
        assert!(said.contains("it holds postgres"), "{said}");
    });
}

#[test]
fn an_application_that_is_stopped_when_the_program_is_killed_is_started_by_heal() {
    run("an_application_that_is_stopped_when_the_program_is_killed_is_started_by_heal", async {
        let (server, place) = (services::own_postgres(17).await, Place::new());
        let (app, idle) = (services::own_postgres(15).await, services::own_postgres(15).await);
        let (app, idle) = (app.container().id(), idle.container().id());
        docker(&["stop", idle]);
        let id = server.container().id();
        let mut config =
            format!("[archives.b]\nurl = \"./b\"\n[modules.shop]\napp = [\"{app}\", \"{idle}\"]\n");
        for name in ["one", "two", "three"] {
            sql(&server, "postgres", &format!("CREATE DATABASE {name}"));
            sql(&server, name, "CREATE TABLE t AS SELECT 1 v");
            config += &format!(
                "[modules.shop.sources.{name}]\nkind = \"postgres\"\ncontainer = \"{id}\"\ndatabase = \"{name}\"\n"
            );
        }
        place.write("backup.toml", &config);
        expect(&place, 0, &["create"]);
        let set = |v: u32| {
            for name in ["one", "two", "three"] {
                sql(&server, name, &format!("UPDATE t SET v = {v}"));
            }
        };
        let values = || ["one", "two", "three"].map(|name| sql(&server, name, "SELECT v FROM t"));
        set(2);
        let replace = ["restore", "latest"];
        let said = expect(&place, 6, &replace);
        assert!(said.contains("stop     ") && said.contains(app), "{said}");
        let mut caught = false;
        for _ in 0..6 {
            let confirmed = plan(&place, &replace);
            let mut restore = place.command(&["restore", "latest", "--confirm", &confirmed]);
            let mut child = restore.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            while runs(app) && child.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let _ = child.kill();
            child.wait().unwrap();
            // The engine may still be at the stop that it was asked for.
            tokio::time::sleep(Duration::from_secs(1)).await;
            caught |= !runs(app);
            expect(&place, 0, &["heal"]);
            assert!(runs(app) && !runs(idle), "the application is not as it was");
            let values = values();
            assert!(values == ["2"; 3] || values == ["1"; 3], "neither old nor new: {values:?}");
            if values == ["1"; 3] {
                expect(&place, 0, &["restore", "--undo", "--yes"]);
                assert!(runs(app) && !runs(idle));
            }
            if caught {
                break;
            }
        }
        assert!(caught, "it was never killed while the application stood still");

        // A health check that fails brings everything back, and the application runs.
        place.write(
            "backup.toml",
            &config.replace(
                "[modules.shop]\n",
                "[modules.shop]\nhealth = { url = \"http://127.0.0.1:9/\", timeout = \"1s\" }\n",
            ),
        );
        let confirmed = plan(&place, &replace);
        let said = expect(&place, 1, &["restore", "latest", "--confirm", &confirmed]);
        assert!(said.contains("127.0.0.1:9") && said.contains("as it was before"), "{said}");
        assert!(values() == ["2"; 3] && runs(app) && !runs(idle));
        // One that goes elsewhere is none of its business.
        let other = format!("one=container://{id}/elsewhere");
        let said = expect(&place, 0, &["restore", "latest", "--only", "one", "--to", &other]);
        assert!(!said.contains("stop     "), "{said}");
    });
}
