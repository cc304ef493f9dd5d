//! PostgreSQL by the program, as an operator runs it: created, verified, restored, undone, settled. Killed:
//! `soak_databases.rs`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use backup_testkit::{run, services, services::Postgres};
use std::{process::Command, sync::Arc};
use support::Place;

struct World {
    place: Place,
    server: Arc<Postgres>,
    /// Databases of this test have names that begin with it.
    prefix: &'static str,
}

impl World {
    /// With a server of its own: what is left behind there is left behind by it.
    async fn new(version: u32, prefix: &'static str) -> Self {
        let server = Arc::new(services::own_postgres(version).await);
        let place = Place::new();
        place.write("password", server.password());
        World { place, server, prefix }
    }

    fn url(&self, database: &str) -> String {
        self.server.url(&format!("{}{database}", self.prefix))
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        let url = if database == "postgres" { self.server.url(database) } else { self.url(database) };
        let out = Command::new("psql")
            .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql, &url])
            .env("PGPASSWORD", self.server.password())
            .output()
            .unwrap();
        assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn make(&self, database: &str, sql: &str) {
        self.sql("postgres", &format!("CREATE DATABASE {}{database}", self.prefix));
        self.sql(database, sql);
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = self.place.command(line);
        command.env("PGPASSWORD", self.server.password());
        command
    }

    fn expect(&self, code: i32, line: &[&str]) -> String {
        let out = self.command(line).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "backup {}\n{said}", line.join(" "));
        assert!(!said.contains(self.server.password()), "the password is shown: {said}");
        said
    }

    fn plan(&self, line: &[&str]) -> String {
        let out = self.command(&[line, &["--dry-run", "--json"]].concat()).output().unwrap();
        let plan: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        plan["plan"]["id"].as_str().unwrap_or_else(|| panic!("{plan}")).to_owned()
    }

    /// Databases that restores made of this server and did not take away.
    fn leftovers(&self) -> String {
        self.sql(
            "postgres",
            "SELECT string_agg(datname, ' ') FROM pg_database WHERE datname LIKE 'backup\\_%'",
        )
    }
}

#[test]
fn a_database_is_backed_up_restored_elsewhere_replaced_undone_and_settled() {
    run("a_database_is_backed_up_restored_elsewhere_replaced_undone_and_settled", async {
        for (version, prefix) in [(15, "whole_"), (17, "whole_")] {
            let w = World::new(version, prefix).await;
            w.make("app", "CREATE TABLE t AS SELECT i, 'v' || i v FROM generate_series(1, 1000) i; ALTER TABLE t ADD PRIMARY KEY (i)");
            let (app, other) = (format!("db={}", w.url("app")), format!("db={}", w.url("other")));
            w.expect(0, &["create", &app, "--to", "./b"]);
            w.expect(0, &["verify", "--from", "./b"]);
            w.expect(0, &["restore", "latest", "--from", "./b", "--to", &other]);
            assert_eq!(w.sql("other", "SELECT count(*), max(v) FROM t"), "1000|v999");

            w.sql("app", "UPDATE t SET v = 'changed'; CREATE TABLE later (i int)");
            let replace = ["restore", "latest", "--from", "./b"];
            assert!(w.expect(6, &replace).contains("REPLACE"), "data is replaced without consent");
            let plan = w.plan(&replace);
            w.expect(0, &[&replace[..], &["--confirm", &plan]].concat());
            assert_eq!(w.sql("app", "SELECT count(*) FROM t WHERE v = 'changed'"), "0");
            w.expect(0, &["restore", "--undo", "--yes"]);
            assert_eq!(w.sql("app", "SELECT count(*) FROM t WHERE v = 'changed'"), "1000");
            let plan = w.plan(&replace);
            w.expect(0, &[&replace[..], &["--confirm", &plan]].concat());
            w.expect(0, &["settle"]);
            assert_eq!(w.sql("app", "SELECT count(*) FROM t WHERE v = 'changed'"), "0");
            assert_eq!(w.leftovers(), "");
        }
    });
}

#[test]
fn a_container_is_all_that_has_to_be_named() {
    run("a_container_is_all_that_has_to_be_named", async {
        let w = World::new(17, "named_").await;
        w.make("app", "CREATE TABLE t AS SELECT 1 i");
        let config = format!(
            "[modules.m.sources.db]\nkind = \"postgres\"\ncontainer = \"{}\"\ndatabase = \"named_app\"\n[archives.a]\nurl = \"b\"\n",
            w.server.container().id()
        );
        w.place.write("backup.toml", &config);
        // Without any password: the container has it.
        let out = w.place.expect(0, &["create", "-m", "m"]);
        assert!(out.stderr.contains("complete"), "{}", out.stderr);
        let said = w.place.json(0, &["show", "latest", "-m", "m"]);
        assert!(said.to_string().contains("published port"), "{said}");

        // No port leads to it any more: it is reached through a program in it, both ways.
        let id = w.server.container().id();
        let docker = |arguments: &[&str]| {
            let out = Command::new("docker").args(arguments).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8_lossy(&out.stdout).trim().to_owned()
        };
        let sql = |database: &str, sql: &str| {
            docker(&["exec", id, "psql", "-U", "postgres", "-qAtc", sql, database])
        };
        sql("named_app", "INSERT INTO t SELECT generate_series(2, 50000)");
        docker(&["network", "disconnect", "bridge", id]);
        w.place.expect(0, &["create", "-m", "m"]);
        let said = w.place.json(0, &["show", "latest", "-m", "m"]);
        assert!(said.to_string().contains("a program in the container"), "{said}");
        sql("postgres", "DROP DATABASE named_app");
        w.place.expect(0, &["restore", "latest", "-m", "m", "--settle"]);
        assert_eq!(sql("named_app", "SELECT count(*), max(i) FROM t"), "50000|50000");
        let left =
            sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'backup%'");
        assert_eq!(left, "0");
    });
}
