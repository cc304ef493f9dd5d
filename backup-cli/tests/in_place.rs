//! `restore --in-place` by the program: what is beside keeps its promises, and of what is in place nothing is hidden.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use backup_testkit::{
    run, services,
    services::{Flavor, Mysql, Postgres},
};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use support::{Place, Ran};

/// Runs the program with these passwords.
struct World {
    place: Place,
    passwords: Vec<(&'static str, String)>,
}

impl World {
    fn command(&self, line: &[&str]) -> Command {
        let mut command = self.place.command(line);
        command.envs(self.passwords.iter().map(|(name, password)| (*name, password.as_str())));
        command
    }

    fn expect(&self, code: i32, line: &[&str]) -> String {
        let ran: Ran = self.command(line).output().unwrap().into();
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.code, code, "backup {}\n{said}", line.join(" "));
        said
    }

    fn plan(&self, line: &[&str]) -> String {
        let out = self.command(&[line, &["--dry-run", "--json"]].concat()).output().unwrap();
        let object: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(object["plan"]["settle"], true, "{object}");
        object["plan"]["id"].as_str().unwrap().to_owned()
    }

    /// Restores with consent.
    fn restore(&self, code: i32, line: &[&str]) -> String {
        let plan = self.plan(line);
        self.expect(code, &[line, &["--confirm", &plan]].concat())
    }

    /// Kills a restore as soon as this says so.
    fn killed(&self, line: &[&str], when: impl Fn() -> bool) {
        let plan = self.plan(line);
        let mut command = self.command(&[line, &["--confirm", &plan]].concat());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let began = Instant::now();
        while !when() {
            assert!(began.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none());
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

struct Shop {
    world: World,
    server: Postgres,
}

const LEDGER: &str = "CREATE TABLE ledger AS SELECT i, CASE WHEN i % 2 = 0 THEN i ELSE -i - 1 END amount, md5(i::text) what, md5((-i)::text) || md5((i + 0.5)::text) || md5((i + 0.7)::text) pad FROM generate_series(1, 60000) i;
    CREATE INDEX ON ledger (what);
    CREATE FUNCTION fits() RETURNS bool LANGUAGE sql AS $$SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'gate')$$;
    ALTER TABLE ledger ADD CHECK (fits())";

impl Shop {
    async fn new() -> Self {
        let server = services::own_postgres(17).await;
        let place = Place::new();
        let source = |name: &str| {
            format!("[modules.shop.sources.{name}]\nkind = \"postgres\"\nurl = \"{}\"\n", server.url(name))
        };
        let config = format!(
            "[modules.shop.sources.pages]\nkind = \"files\"\npath = \"{}\"\n{}{}[archives.a]\nurl = \"b\"\n",
            place.path("pages").display(),
            source("orders"),
            source("stock")
        );
        place.write("backup.toml", &config);
        place.write("pages/a", "then");
        let world = World { place, passwords: vec![("PGPASSWORD", server.password().to_owned())] };
        let shop = Shop { world, server };
        for (database, role) in [("orders", "clerk"), ("stock", "keeper")] {
            shop.sql("postgres", &format!("CREATE ROLE {role}"));
            shop.sql("postgres", &format!("CREATE DATABASE {database}"));
            shop.sql(database, &format!("CREATE TABLE t AS SELECT 'then' v; ALTER TABLE t OWNER TO {role}"));
        }
        shop.sql("orders", &format!("CREATE ROLE gate; {LEDGER}"));
        shop
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        let out = Command::new("psql")
            .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.server.url(database)])
            .env("PGPASSWORD", self.server.password())
            .output()
            .unwrap();
        assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// What a database holds: its text, and the sum of the ledger.
    fn holds(&self, database: &str) -> String {
        let there = format!("SELECT count(*) FROM pg_database WHERE datname = '{database}'");
        if self.sql("postgres", &there) == "0" {
            return "nothing".to_owned();
        }
        let sum = if database == "orders" { "(SELECT sum(amount) FROM ledger)" } else { "0" };
        self.sql(database, &format!("SELECT v, {sum} FROM t"))
    }

    fn change(&self) {
        self.world.place.write("pages/a", "now");
        self.sql("orders", "UPDATE t SET v = 'now'; INSERT INTO ledger VALUES (0, 777, 'now')");
        self.sql("stock", "UPDATE t SET v = 'now'");
    }

    fn state(&self) -> [String; 3] {
        [self.world.place.read("pages/a"), self.holds("orders"), self.holds("stock")]
    }

    fn leftovers(&self) -> String {
        self.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'backup\\_%'")
    }

    /// Damages the rows in the archive; where it is, and what it was.
    fn damage(&self) -> (std::path::PathBuf, Vec<u8>) {
        let files = std::fs::read_dir(self.world.place.path("b")).unwrap().map(|file| file.unwrap().path());
        let path = files.filter(|path| path.extension().is_some_and(|e| e == "zst")).last().unwrap();
        let whole = std::fs::read(&path).unwrap();
        let (mut bytes, at) = (whole.clone(), whole.len() / 2);
        bytes[at..at + 4].iter_mut().for_each(|byte| *byte ^= 0x5a);
        std::fs::write(&path, bytes).unwrap();
        (path, whole)
    }

    /// Without the role that owns its table, a database fails while its definitions are restored.
    fn without_role(&self, role: &str, database: &str) {
        self.sql(database, &format!("REASSIGN OWNED BY {role} TO postgres; DROP ROLE {role}"));
    }
}

const THEN: [&str; 3] = ["then", "then|0", "then|0"];
const NOW: [&str; 3] = ["now", "now|777", "now|0"];

#[test]
fn a_module_with_a_database_in_place_is_as_it_was_until_it_begins_and_restored_again_if_it_fails() {
    run(
        "a_module_with_a_database_in_place_is_as_it_was_until_it_begins_and_restored_again_if_it_fails",
        async {
            let shop = Shop::new().await;
            let w = &shop.world;
            w.expect(0, &["create", "-m", "shop"]);
            shop.change();
            let restore = ["restore", "latest", "-m", "shop", "--in-place=orders"];
            let all = ["restore", "latest", "-m", "shop", "--in-place"];

            // What cannot be in place says so.
            let refused = w.expect(2, &["restore", "latest", "-m", "shop", "--in-place=pages"]);
            assert!(refused.contains("pages") && refused.contains("always restored beside"), "{refused}");
            w.expect(2, &["restore", "latest", "-m", "shop", "--only", "pages", "--in-place"]);
            w.expect(2, &["restore", "latest", "-m", "shop", "--only", "orders/public.t", "--in-place"]);
            w.expect(2, &[&all[..], &["--merge"]].concat());
            let plan = w.expect(6, &restore);
            for said in ["orders: restored IN PLACE", "nothing is kept for an undo", "there is no way back"] {
                assert!(plan.contains(said), "{said} in {plan}");
            }
            assert!(!plan.contains("stock: restored IN PLACE"), "{plan}");

            // One beside fails before: the one in place is untouched.
            shop.without_role("keeper", "stock");
            w.restore(1, &restore);
            assert_eq!((shop.state(), shop.leftovers()), (NOW.map(String::from), "0".into()));
            shop.sql("postgres", "CREATE ROLE keeper");

            // So does the one in place, where that can be known before: it is untouched, too.
            shop.without_role("clerk", "orders");
            let failed = w.restore(1, &restore);
            assert!(failed.contains("clerk") && !failed.contains("gone"), "{failed}");
            assert_eq!((shop.state(), shop.leftovers()), (NOW.map(String::from), "0".into()));
            shop.sql("postgres", "CREATE ROLE clerk");
            let whole = shop.damage();
            let failed = w.restore(7, &restore);
            assert!(failed.contains("damaged") && !failed.contains("gone"), "{failed}");
            assert_eq!((shop.state(), shop.leftovers()), (NOW.map(String::from), "0".into()));
            std::fs::write(&whole.0, &whole.1).unwrap();
            w.expect(0, &["verify", whole.0.file_name().unwrap().to_str().unwrap(), "-m", "shop"]);

            // Its rows are refused: all others are as before, and nothing hides what is gone.
            shop.sql("postgres", "DROP ROLE gate");
            let failed = w.restore(8, &restore);
            for said in
                ["orders at ", "is gone", "NOT whole", "all else is as it was before", "--in-place=orders`"]
            {
                assert!(failed.contains(said), "{said} in {failed}");
            }
            assert_eq!(
                (shop.state(), shop.leftovers()),
                (["now", "nothing", "now|0"].map(String::from), "0".into())
            );
            assert!(w.expect(0, &["heal"]).contains("nothing to heal"));

            // Once more, and both in place.
            shop.sql("postgres", "CREATE ROLE gate");
            let done = w.restore(0, &all);
            assert!(done.contains("stock: restored IN PLACE"), "{done}");
            assert_eq!((shop.state(), shop.leftovers()), (THEN.map(String::from), "0".into()));
            let undone = w.expect(3, &["restore", "--undo", "--yes"]);
            assert!(undone.contains("in place"), "{undone}");

            // Killed in the middle: the next backup is not one of what is not whole, and it is told once.
            shop.change();
            // As long as the old one is there beside the empty one that stands in for it, all can still be undone.
            let held = "SELECT count(*) FROM pg_database WHERE datname = 'orders' AND NOT datallowconn
                AND NOT EXISTS (SELECT FROM pg_database WHERE datname LIKE 'backup\\_old\\_%')";
            w.killed(&restore, || shop.sql("postgres", held) == "1");
            let told = w.expect(8, &["create", "-m", "shop"]);
            assert!(told.contains("orders at ") && told.contains("no backup is made this time"), "{told}");
            assert_eq!(
                (shop.state(), shop.leftovers()),
                (["now", "nothing", "now|0"].map(String::from), "0".into())
            );
            assert!(w.expect(0, &["heal"]).contains("nothing to heal"));
            w.expect(0, &["restore", "latest", "-m", "shop", "--only", "orders", "--in-place"]);
            assert_eq!(shop.holds("orders"), "then|0");
            w.killed(&restore, || shop.sql("postgres", held) == "1");
            assert!(w.expect(8, &["heal"]).contains("orders at "));
            w.expect(0, &["heal"]);
            let again = ["restore", "latest", "-m", "shop", "--settle"];
            w.restore(0, &again);
            assert_eq!((shop.state(), shop.leftovers()), (THEN.map(String::from), "0".into()));
        },
    );
}

fn maria(server: &Mysql, sql: &str) -> String {
    let out = Command::new("docker")
        .args(["exec", "-e"])
        .arg(format!("MYSQL_PWD={}", server.password()))
        .args([server.container().id(), server.client(), "-uroot", "-N", "-e", sql])
        .output()
        .unwrap();
    assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().replace('\t', "|")
}

#[test]
fn a_database_of_mariadb_is_restored_in_place_and_again_after_a_kill() {
    run("a_database_of_mariadb_is_restored_in_place_and_again_after_a_kill", async {
        let server = services::own_mysql(Flavor::Mariadb118, &[]).await;
        let w = World {
            place: Place::new(),
            passwords: vec![("BACKUP_DB_PASSWORD", server.password().to_owned())],
        };
        maria(
            &server,
            "CREATE DATABASE app; USE app; CREATE SEQUENCE s START WITH 5; CREATE TABLE t (id int PRIMARY KEY, amount int, what varchar(40), n int DEFAULT NEXT VALUE FOR s, KEY (what)); \
            INSERT INTO t SELECT seq, IF(seq % 2 = 0, seq, -seq - 1), MD5(seq), 1 FROM seq_1_to_100000; CREATE VIEW v AS SELECT SUM(amount) FROM t; \
            CREATE TRIGGER up BEFORE INSERT ON t FOR EACH ROW SET NEW.what = UPPER(NEW.what); \
            CREATE DATABASE other; CREATE TABLE other.o (i int); CREATE VIEW outside AS SELECT i FROM other.o",
        );
        let state = "SELECT * FROM app.v";
        assert_eq!(maria(&server, state), "0");
        w.expect(0, &["create", &format!("db={}", server.url("app")), "--to", "./b"]);
        maria(&server, "INSERT INTO app.t VALUES (0, 777, 'now', 1); CREATE TABLE app.later (i int)");
        let restore = ["restore", "latest", "--from", "./b", "--in-place"];
        // What its definitions lack is found before anything is dropped.
        maria(&server, "RENAME TABLE other.o TO other.away");
        let failed = w.restore(1, &restore);
        assert!(failed.contains("outside") && !failed.contains("gone"), "{failed}");
        assert_eq!(maria(&server, state), "777");
        maria(&server, "RENAME TABLE other.away TO other.o");
        w.killed(&restore, || {
            maria(&server, "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'app'") == "0"
        });
        let told = w.expect(8, &["heal", "--from", "./b"]);
        assert!(told.contains("db at ") && told.contains("NOT whole"), "{told}");
        w.expect(0, &["heal", "--from", "./b"]);
        let left = "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '\\_backup\\_%'";
        assert_eq!(maria(&server, left), "0");
        w.expect(0, &restore);
        assert_eq!(maria(&server, state), "0");
        maria(&server, "INSERT INTO app.t VALUES (0, 777, 'now', 1); CREATE TABLE app.later (i int)");
        w.restore(0, &restore);
        assert_eq!(maria(&server, state), "0");
        let all = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'app'; INSERT INTO app.t (id, what) VALUES (-1, 'up'); SELECT what, n FROM app.t WHERE id = -1";
        assert_eq!(maria(&server, all), "4\nUP|5");
        assert_eq!(maria(&server, left), "0");
    });
}
