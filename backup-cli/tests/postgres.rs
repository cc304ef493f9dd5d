//! PostgreSQL by the program, as an operator runs it: created, verified, restored, undone, settled. Killed:
//! `soak_databases.rs`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use backup_testkit::{run, services, services::Postgres};
use std::{
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};
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
fn a_view_that_cannot_be_filled_makes_the_restore_partial_and_the_old_database_is_kept() {
    run("a_view_that_cannot_be_filled_makes_the_restore_partial_and_the_old_database_is_kept", async {
        let w = World::new(15, "viewed_").await;
        w.make("app", "CREATE TABLE t AS SELECT 'then' v; CREATE MATERIALIZED VIEW seen AS SELECT v FROM t;
            CREATE ROLE nobody; GRANT ALL ON SCHEMA public TO nobody; ALTER MATERIALIZED VIEW seen OWNER TO nobody");
        w.expect(0, &["create", &format!("db={}", w.url("app")), "--to", "./b"]);
        w.sql("app", "UPDATE t SET v = 'now'");
        let replace = ["restore", "latest", "--from", "./b", "--settle"];
        let plan = w.plan(&replace);
        let said = w.expect(5, &[&replace[..], &["--confirm", &plan]].concat());
        assert!(
            said.contains("public.seen: it is left unfilled: permission denied for table t")
                && said.contains("REFRESH MATERIALIZED VIEW \"public\".\"seen\";")
                && said.contains("the previous data is kept"),
            "{said}"
        );
        assert_eq!(w.sql("app", "SELECT v FROM t"), "then");
        w.expect(0, &["restore", "--undo", "--yes"]);
        assert_eq!(w.sql("app", "SELECT v, (SELECT v FROM seen) FROM t"), "now|then");
        assert_eq!(w.leftovers(), "");
    });
}

/// Kills a restore at so many points, more in a soak, and heals it each time: `state` says `1|0` where all is old, and `0|1` where all is new.
async fn killed(w: &World, replace: &[&str], points: u64, state: impl Fn() -> String) -> String {
    let seed: u64 =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    eprintln!("seed {seed}");
    let points = if std::env::var_os("BACKUP_SOAK").is_some() { 20 } else { points };
    // How long one takes here: each point is somewhere in its own part of that, so that some are before it publishes, and some after.
    let plan = w.plan(replace);
    let began = std::time::Instant::now();
    w.expect(0, &[replace, &["--confirm", &plan]].concat());
    let whole = began.elapsed().as_millis() as u64 * 5 / 4;
    assert_eq!(state(), "0|1", "a restore that nobody has killed");
    w.expect(0, &["restore", "--undo", "--yes"]);
    let (mut old, mut new) = (0, 0);
    for n in 0..points {
        let plan = w.plan(replace);
        let mut command = w.command(&[replace, &["--confirm", &plan]].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let after = (n * whole + (seed.wrapping_mul(n + 1) >> 3) % whole) / points;
        tokio::time::sleep(Duration::from_millis(after)).await;
        let _ = child.kill();
        child.wait().unwrap();
        w.expect(0, &["heal", "--from", "./b"]);
        match &*state() {
            "1|0" => old += 1,
            "0|1" => {
                new += 1;
                w.expect(0, &["restore", "--undo", "--yes"]);
            }
            other => panic!("killed after {after} ms: a mixture: {other}"),
        }
        assert_eq!(w.leftovers(), "", "killed after {after} ms");
    }
    format!("killed at {points} points (seed {seed}): old {old}, new {new}, a mixture never")
}

#[test]
fn a_restore_of_several_databases_that_is_killed_is_old_or_new_in_all_of_them() {
    run("a_restore_of_several_databases_that_is_killed_is_old_or_new_in_all_of_them", async {
        let w = World::new(17, "").await;
        let names = ["app", "stock", "wiki"];
        for name in names {
            w.make(name, "CREATE TABLE a AS SELECT i, md5(i::text) v FROM generate_series(1, 30000) i; CREATE INDEX ON a (v); CREATE TABLE b AS SELECT 1 i");
        }
        let config = format!(
            "[modules.m.sources.db]\nkind = \"postgres\"\ncontainer = \"{}\"\ndatabases = [\"*\"]\n[archives.a]\nurl = \"b\"\n",
            w.server.container().id()
        );
        w.place.write("backup.toml", &config);
        w.expect(0, &["create", "-m", "m"]);
        let listed = w.place.json(0, &["ls", "latest", "-m", "m"]).to_string();
        assert!(
            listed.contains("wiki/public.a/00000.copybin") && listed.contains("roles+tablespaces.sql"),
            "{listed}"
        );
        for name in names {
            w.sql(name, "DROP TABLE b; CREATE TABLE only_old (i int)");
        }
        let state = || {
            let each = names.map(|name| w.sql(name, "SELECT (SELECT count(*) FROM pg_class WHERE relname = 'only_old'), (SELECT count(*) FROM pg_class WHERE relname = 'b')"));
            if each.iter().all(|one| *one == each[0]) { each[0].clone() } else { each.join(" ") }
        };
        let said = killed(&w, &["restore", "latest", "-m", "m"], 4, state).await;
        println!("soak: a restore of several databases of PostgreSQL, {said}");
    });
}

#[test]
fn a_merge_of_a_table_that_is_killed_is_old_or_new_after_heal() {
    run("a_merge_of_a_table_that_is_killed_is_old_or_new_after_heal", async {
        let w = World::new(15, "merged_").await;
        w.make("app", "CREATE TABLE a AS SELECT i, md5(i::text) v FROM generate_series(1, 50000) i; ALTER TABLE a ADD PRIMARY KEY (i); CREATE INDEX ON a (v);
            CREATE TABLE c (of_a int REFERENCES a); INSERT INTO c VALUES (7); CREATE VIEW seen AS SELECT v FROM a WHERE i = 7");
        w.expect(0, &["create", &format!("db={}", w.url("app")), "--to", "./b"]);
        w.sql("app", "UPDATE a SET v = 'old'; CREATE TABLE stays (i int)");
        // Whoever needs the table needs the one that has its name; beside an old one there is nothing of ours.
        let state = "SELECT CASE WHEN (SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND confrelid = 'a'::regclass) <> 1 OR to_regclass('stays') IS NULL THEN 'torn'
            WHEN (SELECT count(*) FROM a WHERE v = 'old') = 50000 AND (SELECT v FROM seen) = 'old' AND NOT EXISTS (SELECT FROM pg_namespace WHERE nspname ~ '^backup_') THEN '1|0'
            WHEN (SELECT count(*) FROM a WHERE v = md5(i::text)) = 50000 AND (SELECT v FROM seen) <> 'old' THEN '0|1' ELSE 'a mixture' END";
        let merge = ["restore", "latest", "--from", "./b", "--only", "db/public.a", "--merge"];
        let said = killed(&w, &merge, 4, || w.sql("app", state)).await;
        println!("soak: a merge of a table of PostgreSQL, {said}");
        let left = "SELECT count(*) FROM pg_namespace WHERE nspname ~ '^backup_'";
        assert_eq!(w.sql("app", left), "0");
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
