//! Parts of a PostgreSQL database: single tables, definitions alone, rows alone.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use backup_kit::{
    Confirmation, ErrorKind, Module, Old, Only, Restore, RestorePlan, Result, archive, conclude, postgres,
};
use backup_testkit::{run, services, services::Postgres};
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

static NUMBER: AtomicU32 = AtomicU32::new(0);

const SHOP: &str = "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE SCHEMA audit;
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note = upper(NEW.note); RETURN NEW; END';
    CREATE TABLE users (id int PRIMARY KEY, name text); INSERT INTO users VALUES (1, 'a'), (2, 'b');
    CREATE TABLE events (id serial PRIMARY KEY, by int REFERENCES users, m mood DEFAULT 'good', note text CHECK (note <> ''), n int GENERATED ALWAYS AS (by * 2) STORED);
    INSERT INTO events (by, note) SELECT 1 + i % 2, 'n' || i FROM generate_series(1, 1000) i;
    CREATE INDEX by_note ON events (note, by); CREATE TRIGGER stamped BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION stamp();
    COMMENT ON TABLE events IS 'what happened'; COMMENT ON COLUMN events.note IS 'loud';
    CREATE VIEW loud AS SELECT id, note FROM events; CREATE MATERIALIZED VIEW many AS SELECT count(*) n FROM events;
    CREATE TABLE audit.log AS SELECT i FROM generate_series(1, 10) i; CREATE SEQUENCE free; SELECT setval('free', 77); SELECT lo_from_bytea(0, 'large');";

struct World {
    server: Arc<Postgres>,
    dir: tempfile::TempDir,
    /// Databases of this test have names that begin with it.
    prefix: String,
}

impl World {
    async fn new(version: u32) -> Self {
        let (server, dir) = (services::postgres(version).await, tempfile::tempdir().unwrap());
        let prefix = format!("part_{}_{}_", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let w = World { server, dir, prefix };
        w.make("shop", SHOP);
        w
    }

    fn name(&self, database: &str) -> String {
        if database == "postgres" { database.to_owned() } else { format!("{}{database}", self.prefix) }
    }

    fn try_sql(&self, database: &str, sql: &str) -> std::result::Result<String, String> {
        let out = std::process::Command::new("psql")
            .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.server.url(&self.name(database))])
            .env("PGPASSWORD", self.server.password())
            .output()
            .unwrap();
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        self.try_sql(database, sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    fn make(&self, database: &str, sql: &str) {
        self.sql("postgres", &format!("CREATE DATABASE {}", self.name(database)));
        if !sql.is_empty() {
            self.sql(database, sql);
        }
    }

    fn module(&self) -> Module {
        let source = postgres::container(self.server.container().id()).database(self.name("shop"));
        Module::new("shop").source("db", source)
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("shop.tar.zst")
    }

    async fn back_up(&self) {
        self.module().backup().to(archive::file(self.file())).run().await.unwrap();
    }

    fn restore(&self) -> Restore {
        self.module().restore(archive::file(self.file())).latest().state_dir(self.dir.path())
    }

    fn to(&self, database: &str) -> Restore {
        let place = format!("container://{}/{}", self.server.container().id(), self.name(database));
        self.restore().to("db", place)
    }

    fn tables(&self, database: &str) -> String {
        let sql = "SELECT string_agg(format('%I.%I', n.nspname, c.relname), ' ' ORDER BY 1) FROM (SELECT 1) x, pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'v', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";
        self.sql(database, &sql.replace("ORDER BY 1", "ORDER BY n.nspname, c.relname"))
    }

    /// Definitions of a table as the server says them.
    fn definition(&self, database: &str, table: &str) -> String {
        let args = ["pg_dump", "-U", "postgres", "-s", "-t", table, &self.name(database)];
        let out = std::process::Command::new("docker")
            .args(["exec", self.server.container().id()])
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let lines = text.lines().filter(|l| !l.starts_with("--") && !l.is_empty() && !l.starts_with('\\'));
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let list = format!("SELECT datname FROM pg_database WHERE datname LIKE '{}%'", self.prefix);
        for database in self.try_sql("postgres", &list).unwrap_or_default().lines() {
            let _ = self.try_sql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)"));
        }
    }
}

async fn apply(plan: Result<RestorePlan>) -> Result<backup_kit::RestoreReport> {
    let plan = plan?;
    let consent = Confirmation::of(plan.id());
    plan.apply(consent).await
}

#[test]
fn one_table_comes_back_with_all_that_is_its_own_and_nothing_else() {
    run("one_table_comes_back_with_all_that_is_its_own_and_nothing_else", async {
        for version in [15, 17] {
            let w = World::new(version).await;
            w.back_up().await;
            let plan = w.to("one").only(Only::matching("db", "public.events")).plan().await.unwrap();
            let said = plan.plan().notes.join("\n");
            assert!(said.contains("fk constraint public.events events_by_fkey is left out"), "{said}");
            plan.apply(None).await.unwrap();
            assert_eq!(w.tables("one"), "public.events public.events_id_seq");
            let mut expected = w.definition("shop", "events");
            let foreign = expected.find("ALTER TABLE ONLY public.events\n    ADD CONSTRAINT events_by_fkey");
            let foreign = foreign.unwrap_or_else(|| panic!("{expected}"));
            let end = foreign + expected[foreign..].find(';').unwrap() + 2;
            expected.replace_range((foreign - 1)..(end - 1), "");
            assert_eq!(w.definition("one", "events").trim(), expected.trim(), "PostgreSQL {version}");
            let rows =
                "SELECT md5(string_agg(e::text, ',' ORDER BY id)), nextval('events_id_seq') FROM events e";
            assert_eq!(w.sql("one", rows), w.sql("shop", rows));
            let inserted = "INSERT INTO events (by, note) VALUES (1, 'quiet') RETURNING note";
            assert_eq!(w.sql("one", inserted), "QUIET", "its trigger and the function that it calls");

            // Both tables: the foreign key is there, too. A name that is none is an error.
            apply(w.to("two").only(Only::matching("db", "public.*")).plan().await).await.unwrap();
            assert_eq!(w.tables("two"), "public.events public.events_id_seq public.users");
            assert_eq!(
                w.sql("two", "SELECT count(*) FROM pg_constraint WHERE conname = 'events_by_fkey'"),
                "1"
            );
            let e = w.to("no").only(Only::matching("db", "public.typo")).plan().await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
            // A database without tables keeps what is its own; what would be gone with it is refused.
            w.make("bare", "");
            let bare = w.name("bare");
            w.sql("postgres", &format!("CREATE ROLE owns_{bare}; ALTER DATABASE {bare} OWNER TO owns_{bare}; ALTER DATABASE {bare} SET work_mem = '7MB';
                COMMENT ON DATABASE {bare} IS 'mine'; REVOKE CONNECT ON DATABASE {bare} FROM PUBLIC"));
            let own = format!("SELECT pg_get_userbyid(datdba), datacl, shobj_description(oid, 'pg_database'), (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = d.oid)
                FROM pg_database d WHERE datname = '{bare}'");
            let before = w.sql("postgres", &own);
            assert!(before.contains("mine") && before.contains("work_mem=7MB"), "{before}");
            let users = || w.to("bare").only(Only::matching("db", "public.users"));
            w.sql("bare", "CREATE TYPE precious AS ENUM ('a')");
            for merge in [false, true] {
                let e = users().merge(merge).plan().await.unwrap_err();
                assert!(e.to_string().contains("is not empty"), "{e}");
            }
            w.sql("bare", "DROP TYPE precious");
            users().merge(true).plan().await.unwrap().apply(None).await.unwrap();
            assert_eq!(w.sql("bare", "SELECT count(*) FROM users"), "2");
            assert_eq!(w.sql("postgres", &own), before);
            w.sql("postgres", &format!("DROP DATABASE {bare} WITH (FORCE)"));
            w.sql("postgres", &format!("DROP ROLE owns_{bare}"));
            // Beside other tables it would take their place.
            let e = w.restore().only(Only::matching("db", "public.events")).plan().await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
        }
    });
}

#[test]
fn definitions_are_restored_without_rows_and_rows_into_the_definitions_that_are_there() {
    run("definitions_are_restored_without_rows_and_rows_into_the_definitions_that_are_there", async {
        for (version, dump) in [(15, false), (17, true), (17, false)] {
            let w = World::new(version).await;
            let mut module = w.module();
            if dump {
                let mut config = backup_postgres::PostgresConfig::container(w.server.container().id());
                config.database = Some(w.name("shop"));
                config.method = Some(backup_postgres::Method::Dump);
                module = Module::new("shop").source("db", postgres::Postgres::from(config));
            }
            module.backup().to(archive::file(w.file())).run().await.unwrap();

            apply(w.to("empty").schema_only(true).plan().await).await.unwrap();
            assert_eq!(w.definition("empty", "*.*"), w.definition("shop", "*.*"));
            let counts = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM audit.log), (SELECT count(*) FROM pg_largeobject_metadata)";
            assert_eq!(w.sql("empty", counts), "0|0|0");
            assert_eq!(w.sql("empty", "SELECT last_value FROM free"), "1");
            if !dump {
                let one = w.to("def").only(Only::matching("db", "public.users")).schema_only(true);
                apply(one.plan().await).await.unwrap();
                assert_eq!(
                    (w.tables("def"), w.sql("def", "SELECT count(*) FROM users")),
                    ("public.users".into(), "0".into())
                );
            }

            // Into the definitions that are there, which are newer, and over the rows that are there.
            w.sql("empty", "ALTER TABLE events ADD later text DEFAULT 'x'; CREATE INDEX later ON events (later); CREATE TABLE added AS SELECT 1 i; INSERT INTO users VALUES (9, 'z');
                CREATE SEQUENCE own; SELECT setval('own', 5000)");
            let newer = w.definition("empty", "*.*");
            let plan = w.to("empty").data_only(true).plan().await.unwrap();
            let said = plan.plan().notes.join("\n");
            assert!(said.contains("will be empty: public.added") && plan.needs_consent(), "{said}");
            apply(Ok(plan)).await.unwrap();
            assert_eq!(w.definition("empty", "*.*"), newer);
            assert_eq!(w.sql("empty", counts), "1000|10|1");
            let rows = "SELECT count(*), min(later), (SELECT string_agg(name, ',' ORDER BY id) FROM users), (SELECT n FROM many), (SELECT last_value FROM free) FROM events";
            assert_eq!(w.sql("empty", rows), "1000|x|a,b|1000|77");
            assert_eq!(
                w.sql("empty", "SELECT nextval('events_id_seq'), nextval('own')"),
                "1001|5001",
                "one that the backup does not know goes on"
            );

            // Nowhere to go: refused by the plan.
            let refused = |plan: RestorePlan| plan.refused().unwrap().to_string();
            w.sql("empty", "DROP TABLE audit.log");
            let e = refused(w.to("empty").data_only(true).plan().await.unwrap());
            assert!(e.contains("audit.log"), "{e}");
            let e = refused(w.to("absent").data_only(true).plan().await.unwrap());
            assert!(e.contains("no database"), "{e}");
            let e = w.restore().schema_only(true).data_only(true).plan().await.unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage);
        }
    });
}

const LEFT: &str = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'backup\\_%'";

#[test]
fn a_table_is_exchanged_in_its_database_undone_and_settled_and_all_others_stay() {
    run("a_table_is_exchanged_in_its_database_undone_and_settled_and_all_others_stay", async {
        for version in [15, 17] {
            let w = World::new(version).await;
            w.sql("shop", "CREATE STATISTICS pair (dependencies) ON by, n FROM events; GRANT SELECT ON events TO PUBLIC");
            // Lines of a text that look like some of pg_restore are its own.
            w.sql("shop", "ALTER TABLE events ALTER note SET DEFAULT E'a\r\nSET lock_timeout = 0;\n\\\\restrict x\nb'; COMMENT ON COLUMN events.n IS E'c\r\nSET lock_timeout = 0;\nd'");
            let texts = "SELECT md5(pg_get_expr(adbin, adrelid)), md5(col_description('events'::regclass, 5)) FROM pg_attrdef WHERE adrelid = 'events'::regclass AND adnum = 4";
            let written = w.sql("shop", texts);
            w.back_up().await;
            // What a database has set for its users is not for a restore.
            let hostile = |on: bool| {
                let how = if on { "SET default_transaction_read_only = on" } else { "RESET ALL" };
                w.sql("postgres", &format!("ALTER DATABASE {} {how}", w.name("shop")));
            };
            let one = || w.restore().only(Only::matching("db", "public.events")).merge(true);
            let e = one().plan().await.unwrap().refused().unwrap();
            assert!(e.to_string().contains("materialized view public.many"), "{e}");
            let e = w.restore().merge(true).plan().await.unwrap().refused().unwrap();
            assert!(e.to_string().contains("table by table"), "{e}");
            // Other tables are there, too: the reason is the store's, and nothing is done.
            for restore in [one().schema_only(true), one().data_only(true)] {
                let all = w.definition("shop", "*.*");
                let plan = restore.plan().await.unwrap();
                let e = plan.refused().unwrap();
                assert!(!e.to_string().contains("is not empty"), "{e}");
                assert!(apply(Ok(plan)).await.is_err());
                assert_eq!(w.definition("shop", "*.*"), all);
            }

            let before = w.definition("shop", "events");
            w.sql("shop", "DROP MATERIALIZED VIEW many; UPDATE users SET name = 'later'; DELETE FROM events WHERE id > 500; UPDATE events SET note = 'changed'; ALTER TABLE events ADD added int;
                CREATE TABLE orders (id int PRIMARY KEY, event int CONSTRAINT leads REFERENCES events); INSERT INTO orders VALUES (1, 7); COMMENT ON CONSTRAINT leads ON orders IS 'kept'");
            let changed = w.definition("shop", "*.*");
            let state = "SELECT (SELECT count(*) FROM events), (SELECT count(*) FROM loud WHERE note = 'changed'), (SELECT string_agg(name, ',') FROM users),
                (SELECT confrelid::regclass || ' ' || obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE conname = 'leads')";
            let old = "500|500|later,later|events kept";
            assert_eq!(w.sql("shop", state), old);
            let plan = one().plan().await.unwrap();
            let said = plan.plan().notes.join("\n");
            assert!(
                said.contains("view public.loud") && said.contains("foreign key leads of public.orders"),
                "{said}"
            );
            assert!(plan.needs_consent() && plan.plan().members[0].survey.merges);
            hostile(true);
            let report = apply(Ok(plan)).await.unwrap();
            hostile(false);
            assert_eq!(w.sql("shop", state), "1000|0|later,later|events kept");
            assert_eq!(w.definition("shop", "events"), before);
            assert_eq!(w.sql("shop", texts), written);
            assert!(w.try_sql("shop", "INSERT INTO orders VALUES (2, 5000)").unwrap_err().contains("leads"));
            w.sql(
                "shop",
                "DELETE FROM events WHERE id = 9; DELETE FROM users WHERE id NOT IN (SELECT by FROM events)",
            );
            let inserted = "INSERT INTO events (by, note) VALUES (1, 'quiet') RETURNING id || note";
            assert_eq!(w.sql("shop", inserted), "1001QUIET");

            let (cx, id) = (backup_kit::Context::default(), report.id.to_string());
            let registry = backup_kit::Registry::default();
            let end = async |how, id: &str| {
                conclude(how, Some(id), None, w.dir.path(), &registry, &cx).await.unwrap()
            };
            // What was made on the restored table would go with it: nothing is undone until it is gone.
            w.sql("shop", "CREATE MATERIALIZED VIEW since AS SELECT id FROM events");
            let undone = conclude(Old::BringBack, Some(&id), None, w.dir.path(), &registry, &cx).await;
            let e = undone.unwrap_err();
            assert!(e.kind() == ErrorKind::Refused && e.to_string().contains("view public.since"), "{e}");
            let backup_kit::Error::Failed(e) = e else { panic!("{e}") };
            let hint = e.hint_text().unwrap();
            assert!(hint.contains("drop what is named") && hint.contains("backup settle"), "{hint}");
            assert_eq!(
                w.sql("shop", "SELECT count(*) FROM since"),
                w.sql("shop", "SELECT count(*) FROM events")
            );
            w.sql("shop", "DROP MATERIALIZED VIEW since");
            hostile(true);
            end(Old::BringBack, &id).await;
            hostile(false);
            assert_eq!(w.sql("shop", state), old);
            assert_eq!(w.definition("shop", "*.*"), changed);
            assert_eq!(w.sql("shop", LEFT), "0");

            // What does not fit the tables that stay changes nothing.
            w.sql("shop", "INSERT INTO events (id, by, note) VALUES (7000, 1, 'new'); INSERT INTO orders VALUES (3, 7000)");
            let e = apply(one().plan().await).await.unwrap_err();
            assert!(e.kind() == ErrorKind::RolledBack && e.to_string().contains("leads"), "{e}");
            assert_eq!((w.definition("shop", "*.*"), w.sql("shop", LEFT)), (changed, "0".into()));

            // One that is not there appears; settled, nothing is left of the restore.
            w.sql("shop", "DROP TABLE events CASCADE; UPDATE users SET name = 'x'");
            let report = apply(one().plan().await).await.unwrap();
            assert_eq!(w.sql("shop", "SELECT count(*) FROM events"), "1000");
            assert_eq!((report.settled, w.sql("shop", LEFT)), (true, "0".into()));
            w.sql("shop", "UPDATE events SET note = 'again'");
            let report = apply(one().plan().await).await.unwrap();
            assert_ne!(w.sql("shop", LEFT), "0");
            hostile(true);
            end(Old::LetGo, &report.id.to_string()).await;
            hostile(false);
            let last = "SELECT (SELECT count(*) FROM events WHERE note = 'again'), (SELECT count(*) FROM users WHERE name = 'x')";
            assert_eq!((w.sql("shop", last), w.sql("shop", LEFT)), ("0|2".into(), "0".into()));
        }
    });
}

#[test]
fn a_table_whose_name_looks_like_a_glob_is_restored_alone() {
    run("a_table_whose_name_looks_like_a_glob_is_restored_alone", async {
        let w = World::new(17).await;
        w.sql("shop", r#"CREATE TABLE "s*r" (i int); CREATE TABLE sar (i int); CREATE TABLE "x[1]" (i int); CREATE TABLE x1 (i int)"#);
        w.back_up().await;
        for (to, table) in [("star", "s*r"), ("class", "x[1]")] {
            let only = Only::matching("db", format!("public.{table}"));
            apply(w.to(to).only(only).plan().await).await.unwrap();
            assert_eq!(w.tables(to), format!("public.\"{table}\""));
        }
    });
}

#[test]
fn nothing_that_nobody_agreed_to_lose_goes_with_a_table() {
    run("nothing_that_nobody_agreed_to_lose_goes_with_a_table", async {
        let w = World::new(17).await;
        w.back_up().await;
        let merged =
            |table: &str| w.restore().only(Only::matching("db", format!("public.{table}"))).merge(true);
        w.sql("shop", "DROP MATERIALIZED VIEW many; UPDATE users SET name = 'later'");

        // The key of a table that stays leads to the restored one, once; one that was dropped is not made.
        let keys = "SELECT count(*), bool_and(convalidated) FROM pg_constraint WHERE conname = 'events_by_fkey' AND confrelid = 'users'::regclass";
        let names = "SELECT string_agg(name, ',' ORDER BY id) FROM users";
        apply(merged("users").settle(true).plan().await).await.unwrap();
        assert_eq!((w.sql("shop", keys), w.sql("shop", names)), ("1|t".into(), "a,b".into()));
        w.sql("shop", "ALTER TABLE events DROP CONSTRAINT events_by_fkey; UPDATE users SET name = 'later'");
        apply(merged("users").settle(true).plan().await).await.unwrap();
        assert_eq!((w.sql("shop", keys), w.sql("shop", names)), ("0|".into(), "a,b".into()));

        // What cannot be led to the restored table is refused by the plan.
        for (make, name, drop) in [
            ("CREATE TABLE archive (LIKE events INCLUDING DEFAULTS)", "table archive", "DROP TABLE archive"),
            ("CREATE VIEW typed AS SELECT NULL::events IS NULL AS x", "view typed", "DROP VIEW typed"),
            (
                "CREATE SUBSCRIPTION follows CONNECTION 'host=none' PUBLICATION p WITH (connect = false, slot_name = NONE);
                 SET allow_system_table_mods = on;
                 INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) SELECT oid, 'events'::regclass, 'r' FROM pg_subscription",
                "subscription follows",
                "DROP SUBSCRIPTION follows",
            ),
        ] {
            w.sql("shop", make);
            let refused = merged("events").plan().await.unwrap().refused();
            w.sql("shop", drop);
            let e = refused.unwrap().to_string().replace("public.", "");
            assert!(e.contains(name), "{make}: {e}");
        }

        // What others do while the rows come: the last statement before them is the one that it follows.
        let meanwhile = |sql: &str| {
            w.sql("shop", &format!("DROP EVENT TRIGGER IF EXISTS meanwhile; CREATE OR REPLACE FUNCTION meanwhile() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN {sql}; END$$;
                CREATE EVENT TRIGGER meanwhile ON ddl_command_end WHEN TAG IN ('DROP SCHEMA') EXECUTE FUNCTION meanwhile()"));
        };
        let rolled_back = async |what: &str| {
            let e = apply(merged("events").plan().await).await.unwrap_err();
            assert!(e.kind() == ErrorKind::RolledBack && e.to_string().contains(what), "{e}");
            w.sql("shop", "DROP EVENT TRIGGER meanwhile");
            assert_eq!(w.sql("shop", LEFT), "0");
        };
        meanwhile("CREATE MATERIALIZED VIEW IF NOT EXISTS public.late AS SELECT count(*) FROM public.events");
        rolled_back("late").await;
        assert_eq!(w.sql("shop", "SELECT count FROM late"), "1000");
        w.sql("shop", "DROP TABLE events CASCADE");
        meanwhile("CREATE TABLE IF NOT EXISTS public.events AS SELECT 'theirs' AS made");
        rolled_back("made, dropped or exchanged").await;
        assert_eq!(w.sql("shop", "SELECT made FROM events"), "theirs");

        // Who keeps it from its place is named, and not what he does.
        let script = "BEGIN; SELECT 'precious' FROM users LIMIT 1; SELECT pg_sleep(600)";
        let (url, password) = (w.server.url(&w.name("shop")), w.server.password().to_owned());
        let mut busy = std::process::Command::new("psql");
        let busy = busy
            .args(["-qAtXc", script, &url])
            .env("PGPASSWORD", password)
            .env("PGAPPNAME", "busy")
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut busy = busy.spawn().unwrap();
        while w.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'busy' AND wait_event = 'PgSleep'") == "0" {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let e = apply(merged("users").plan().await).await.unwrap_err();
        w.sql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'busy'",
        );
        let backup_kit::Error::Failed(e) = e else { panic!("{e}") };
        let hint = e.hint_text().unwrap_or_default();
        assert!(hint.contains("of postgres (busy) has used") && hint.contains("users since"), "{e} {hint}");
        assert!(!format!("{e}{hint}").contains("precious"));
        assert_eq!(w.sql("shop", LEFT), "0");
        busy.wait().unwrap();

        // A table that was not there before has nothing to lead others to when it goes again.
        w.sql("shop", "DROP TABLE events");
        let report = apply(merged("*").plan().await).await.unwrap();
        let (cx, id, registry) =
            (backup_kit::Context::default(), report.id.to_string(), backup_kit::Registry::default());
        let undo = async || conclude(Old::BringBack, Some(&id), None, w.dir.path(), &registry, &cx).await;
        w.sql("shop", "CREATE VIEW since AS SELECT id FROM events");
        let e = undo().await.unwrap_err();
        assert!(e.kind() == ErrorKind::Refused && e.to_string().contains("view public.since"), "{e}");
        w.sql("shop", "DROP VIEW since");
        undo().await.unwrap();
        assert_eq!(
            w.sql("shop", "SELECT to_regclass('public.events') IS NULL, (SELECT count(*) FROM users)"),
            "t|2"
        );
        assert_eq!(w.sql("shop", LEFT), "0");
    });
}

#[test]
fn a_table_comes_with_its_partitions_and_its_children() {
    run("a_table_comes_with_its_partitions_and_its_children", async {
        for version in [15, 17] {
            let w = World::new(version).await;
            w.sql("shop", "CREATE TABLE days (id int, day date, by int REFERENCES users, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); CREATE INDEX by_user ON days (by);
                CREATE TABLE audit.y24 PARTITION OF days FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') PARTITION BY HASH (id);
                CREATE TABLE y24_0 PARTITION OF audit.y24 FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE y24_1 PARTITION OF audit.y24 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
                CREATE TABLE rest PARTITION OF days DEFAULT; CREATE TRIGGER stamped BEFORE INSERT ON days FOR EACH ROW EXECUTE FUNCTION stamp();
                INSERT INTO days SELECT i, '2024-06-01'::date + i, 1 + i % 2, 'x' FROM generate_series(1, 500) i;
                CREATE TABLE asks (id int, day date, FOREIGN KEY (id, day) REFERENCES days); INSERT INTO asks SELECT 7, day FROM days WHERE id = 7;
                CREATE VIEW of_days AS SELECT count(*) n FROM days;
                CREATE TABLE parent (id int PRIMARY KEY, what text); CREATE TABLE child (more text) INHERITS (parent);
                INSERT INTO parent VALUES (1, 'parent'); INSERT INTO child VALUES (2, 'child', 'more');");
            w.back_up().await;
            let rows = "SELECT (SELECT md5(string_agg(d::text, ',' ORDER BY id)) || count(*) FROM days d), (SELECT string_agg(id || what, ',') FROM parent), (SELECT more FROM child)";
            let of_parts = "SELECT (SELECT count(*) FROM y24_0), (SELECT count(*) FROM audit.y24), (SELECT count(*) FROM rest), (SELECT count(*) FROM ONLY parent)";
            let valid = "SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY 1) FILTER (WHERE NOT indisvalid), count(*) > 9 FROM pg_index WHERE indrelid > 16384";
            let definitions = |database: &str| {
                ["days|audit.y24|y24_*|rest", "parent|child"].map(|t| w.definition(database, t))
            };
            let (all, counted, defined) = (w.sql("shop", rows), w.sql("shop", of_parts), definitions("shop"));
            let both = |restore: Restore| {
                restore.only(Only::matching("db", "public.days")).only(Only::matching("db", "public.parent"))
            };

            let plan = both(w.to("new")).plan().await.unwrap();
            let said = plan.plan().notes.join("\n");
            assert!(
                ["audit.y24", "public.y24_0", "public.rest", "public.child"].iter().all(|t| said.contains(t)),
                "{said}"
            );
            apply(Ok(plan)).await.unwrap();
            assert_eq!((w.sql("new", rows), w.sql("new", of_parts)), (all.clone(), counted.clone()));
            assert_eq!(w.sql("new", valid), "|t", "PostgreSQL {version}");
            apply(both(w.to("bare").schema_only(true)).plan().await).await.unwrap();
            assert_eq!(w.sql("bare", of_parts), "0|0|0|0");

            w.sql("shop", "DELETE FROM days WHERE id > 50; UPDATE days SET note = 'changed'; DELETE FROM ONLY parent; UPDATE child SET more = 'less'");
            let (changed, counted_then) = (w.sql("shop", rows), w.sql("shop", of_parts));
            let report = apply(both(w.restore().merge(true)).plan().await).await.unwrap();
            assert_eq!((w.sql("shop", rows), w.sql("shop", of_parts)), (all.clone(), counted.clone()));
            assert_eq!(
                (w.sql("shop", "SELECT n FROM of_days"), definitions("shop")),
                ("500".into(), defined.clone())
            );
            assert_eq!(w.sql("shop", valid), "|t", "PostgreSQL {version}");
            let e = w.try_sql("shop", "INSERT INTO asks VALUES (7, '2020-01-01')").unwrap_err();
            assert!(e.contains("asks"), "{e}");
            let (cx, id) = (backup_kit::Context::default(), report.id.to_string());
            let registry = backup_kit::Registry::default();
            conclude(Old::BringBack, Some(&id), None, w.dir.path(), &registry, &cx).await.unwrap();
            assert_eq!((w.sql("shop", rows), w.sql("shop", of_parts)), (changed, counted_then));
            assert_eq!((definitions("shop"), w.sql("shop", LEFT)), (defined.clone(), "0".into()));
            apply(both(w.restore().merge(true).settle(true)).plan().await).await.unwrap();
            assert_eq!((w.sql("shop", rows), w.sql("shop", LEFT)), (all, "0".into()));

            // One of its partitions alone, or one that the backup does not have, cannot be led to the restored table.
            let refused = async |only: &str| {
                let plan = w.restore().merge(true).only(Only::matching("db", only)).plan().await.unwrap();
                plan.refused().unwrap().to_string()
            };
            assert!(refused("public.rest").await.contains("partitions"));
            w.sql(
                "shop",
                "CREATE TABLE y26 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')",
            );
            assert!(refused("public.days").await.contains("y26"));
        }
    });
}

#[test]
fn a_table_comes_with_what_only_the_index_of_its_constraint_needs() {
    run("a_table_comes_with_what_only_the_index_of_its_constraint_needs", async {
        for version in [15, 17] {
            let w = World::new(version).await;
            w.sql("shop", "CREATE EXTENSION btree_gist; CREATE EXTENSION unaccent; CREATE TABLE excl (room int, during tsrange, EXCLUDE USING gist (room WITH =, during WITH &&));
                INSERT INTO excl VALUES (1, '[2026-01-01, 2026-01-02)'); CREATE FUNCTION low(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)';
                CREATE TABLE by_f (a text, EXCLUDE (low(a) WITH =)); INSERT INTO by_f VALUES ('x');
                CREATE OPERATOR CLASS same FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 btint4cmp(int, int);
                CREATE TABLE own (i int, EXCLUDE (i same WITH =)); INSERT INTO own VALUES (1)");
            w.back_up().await;
            for table in ["excl", "by_f", "own"] {
                let only = Only::matching("db", format!("public.{table}"));
                apply(w.to(table).only(only).plan().await).await.unwrap();
                assert_eq!(w.sql(table, &format!("SELECT count(*) FROM {table}")), "1");
                assert_eq!(w.definition(table, table), w.definition("shop", table), "PostgreSQL {version}");
            }
            // Nothing that is not needed: it may not be there on another server.
            let extensions = "SELECT string_agg(extname, ' ' ORDER BY extname) FROM pg_extension";
            assert_eq!(
                (w.sql("excl", extensions), w.sql("by_f", extensions)),
                ("btree_gist plpgsql".into(), "plpgsql".into())
            );
        }
    });
}

#[test]
fn what_only_the_text_of_a_function_names_is_told_with_the_way_out() {
    run("what_only_the_text_of_a_function_names_is_told_with_the_way_out", async {
        let w = World::new(15).await;
        w.sql("shop", "CREATE FUNCTION f3(int) RETURNS bool LANGUAGE sql AS 'SELECT $1 > 0'; CREATE FUNCTION f2(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN public.f3($1); END';
            CREATE TABLE checked (i int CHECK (f2(i))); INSERT INTO checked VALUES (1);
            CREATE FUNCTION low(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT lower($1)'; CREATE FUNCTION lower_still(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN public.low($1); END';
            CREATE TABLE indexed AS SELECT 'x' t; CREATE INDEX ON indexed (lower_still(t)); CREATE INDEX ON indexed (t)");
        w.back_up().await;
        for table in ["checked", "indexed"] {
            let only = Only::matching("db", format!("public.{table}"));
            let e = apply(w.to(table).only(only).plan().await).await.unwrap_err();
            let hint = e.failed().and_then(|e| e.hint_text()).unwrap_or_default();
            assert!(
                hint.contains("text of a function") && hint.contains("whole database under another name"),
                "{e}: {hint}"
            );
            assert!(
                e.to_string().contains("does not exist") && !e.to_string().contains("unexpectedly"),
                "{e}"
            );
        }
    });
}

#[test]
fn of_partitions_only_rows_that_the_backup_has_are_exchanged_and_an_undo_never_fails_for_a_foreign_key() {
    run(
        "of_partitions_only_rows_that_the_backup_has_are_exchanged_and_an_undo_never_fails_for_a_foreign_key",
        async {
            let w = World::new(17).await;
            w.sql("shop", "DROP MATERIALIZED VIEW many;
                CREATE TABLE log (id int, what text) PARTITION BY RANGE (id); CREATE TABLE log_old PARTITION OF log FOR VALUES FROM (0) TO (100);
                CREATE TABLE log_new PARTITION OF log FOR VALUES FROM (100) TO (200); INSERT INTO log VALUES (1, 'old'), (101, 'new');
                CREATE TABLE bs (id bigserial, by int REFERENCES users, n int GENERATED ALWAYS AS IDENTITY (START 40), PRIMARY KEY (id)) PARTITION BY RANGE (id);
                CREATE TABLE bs_1 PARTITION OF bs FOR VALUES FROM (0) TO (1000); INSERT INTO bs (by) SELECT 2 FROM generate_series(1, 5)");
            let source = postgres::container(w.server.container().id()).database(w.name("shop"));
            let module = Module::new("shop").source("db", source.exclude_table_data("public.log_old"));
            module.backup().to(archive::file(w.file())).run().await.unwrap();
            let only =
                |restore: Restore, table: &str| restore.only(Only::matching("db", format!("public.{table}")));

            // What the backup does not have takes nobody's rows away, and is not said to come with them.
            for table in ["log", "log_old"] {
                let plan = only(w.restore().merge(true), table).plan().await.unwrap();
                let e = plan.refused().unwrap();
                assert!(
                    e.to_string().contains("left out of the backup")
                        && e.to_string().contains("public.log_old"),
                    "{e}"
                );
                assert!(!e.to_string().contains("log_new"), "{e}");
            }
            let plan = only(w.to("new"), "log").plan().await.unwrap();
            let notes = plan.plan().notes.iter().filter(|note| note.contains("these come, too"));
            let notes: Vec<_> = notes
                .map(|note| {
                    (note.contains("without rows"), note.contains("log_old"), note.contains("log_new"))
                })
                .collect();
            assert_eq!(notes, [(false, false, true), (true, true, false)]);
            apply(Ok(plan)).await.unwrap();
            assert_eq!(w.sql("new", "SELECT string_agg(what, ',') FROM log"), "new");
            // Out of the way it keeps its rows.
            w.sql("shop", "ALTER TABLE log DETACH PARTITION log_old; ALTER TABLE log_old RENAME TO kept; UPDATE log SET what = 'changed'");
            apply(only(w.restore().merge(true).settle(true), "log").plan().await).await.unwrap();
            assert_eq!(
                w.sql("shop", "SELECT (SELECT what FROM kept), (SELECT string_agg(what, ',') FROM log)"),
                "old|new"
            );

            // Sequences of a partitioned table; its foreign key does not fit any more when it comes back.
            w.sql("shop", "UPDATE bs SET n = DEFAULT WHERE id = 1");
            let report = apply(only(w.restore().merge(true), "bs").plan().await).await.unwrap();
            let added = "INSERT INTO bs (by) VALUES (1) RETURNING id, n";
            assert_eq!(w.sql("shop", added), "6|45");
            assert_eq!(
                w.sql("shop", "SELECT pg_get_serial_sequence('bs', 'id'), pg_get_serial_sequence('bs', 'n')"),
                "public.bs_id_seq|public.bs_n_seq"
            );
            w.sql("shop", "DELETE FROM bs WHERE by = 2; DELETE FROM events; DELETE FROM users WHERE id = 2");
            let (cx, id) = (backup_kit::Context::default(), report.id.to_string());
            let registry = backup_kit::Registry::default();
            let undo = async || conclude(Old::BringBack, Some(&id), None, w.dir.path(), &registry, &cx).await;
            // What the server refuses is not done, and not tried again by anybody else.
            w.sql("shop", "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not now'; END$$;
                CREATE EVENT TRIGGER no ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION no()");
            let e = undo().await.unwrap_err();
            assert!(e.kind() == ErrorKind::Refused && e.to_string().contains("not now"), "{e}");
            let kept = backup_kit::kept(Old::LetGo, None, None, w.dir.path()).unwrap();
            assert_eq!(kept.phase, backup_core::RestorePhase::Published);
            w.sql("shop", "DROP EVENT TRIGGER no");
            undo().await.unwrap();
            assert_eq!(w.sql("shop", "SELECT count(*), max(n) FROM bs"), "5|45");
            let notes = cx.notes().list;
            let told = notes
                .iter()
                .find(|note| note.path.contains("bs_by_fkey"))
                .unwrap_or_else(|| panic!("{notes:?}"));
            let statement = &told.text[told.text.find("ALTER TABLE").unwrap()..];
            assert!(w.try_sql("shop", statement).unwrap_err().contains("bs_by_fkey"), "{statement}");
            w.sql("shop", &format!("INSERT INTO users VALUES (2, 'b'); {statement}"));
            assert_eq!(w.sql("shop", LEFT), "0");
            assert_eq!(w.sql("shop", added), "6|46");
        },
    );
}
