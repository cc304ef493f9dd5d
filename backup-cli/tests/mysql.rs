//! MySQL and MariaDB by the program, as an operator runs it: created, verified, restored, undone, settled; and restored
//! by hand without it. Killed: `soak_databases.rs`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use backup_testkit::{
    run, services,
    services::{Flavor, Mysql},
};
use std::{
    io::Write,
    process::{Command, Stdio},
};
use support::Place;

struct World {
    place: Place,
    /// Of its own: what is left behind there is left behind by this test.
    server: Mysql,
}

impl World {
    async fn new(flavor: Flavor) -> Self {
        World { place: Place::new(), server: services::own_mysql(flavor, &[]).await }
    }

    fn url(&self, database: &str) -> String {
        format!("db={}", self.server.url(database))
    }

    /// By the vendor's client in the container.
    fn sql(&self, sql: &str) -> String {
        let mut client = Command::new("docker")
            .args(["exec", "-i", "-e"])
            .arg(format!("MYSQL_PWD={}", self.server.password()))
            .args([
                self.server.container().id(),
                self.server.client(),
                "-uroot",
                "-N",
                "--default-character-set=utf8mb4",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        client.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        let out = client.wait_with_output().unwrap();
        assert!(out.status.success(), "{sql}");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = self.place.command(line);
        command.env("BACKUP_DB_PASSWORD", self.server.password());
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

    /// Schemas that restores made of this server and did not take away.
    fn leftovers(&self) -> String {
        self.sql("SELECT GROUP_CONCAT(SCHEMA_NAME) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '\\_backup\\_%'")
    }
}

const APP: &str = "CREATE DATABASE app CHARACTER SET utf8mb4; USE app; CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, v varchar(40), b varbinary(9), KEY (v)); \
    INSERT INTO t (v, b) VALUES ('one', x'00ff'), ('two 😀', NULL), ('', ''); CREATE TABLE other (id int PRIMARY KEY, t int, FOREIGN KEY (t) REFERENCES t (id)); \
    INSERT INTO other VALUES (1, 1); CREATE VIEW w AS SELECT v FROM t; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 7; \
    CREATE TRIGGER up BEFORE INSERT ON t FOR EACH ROW SET NEW.v = UPPER(NEW.v);";

async fn created_restored_undone(flavor: Flavor) {
    let w = World::new(flavor).await;
    w.sql(APP);
    let (app, other) = (w.url("app"), w.url("other"));
    w.expect(0, &["create", &app, "--to", "./b"]);
    w.expect(0, &["verify", "--from", "./b"]);
    w.expect(0, &["restore", "latest", "--from", "./b", "--to", &other]);
    assert_eq!(w.sql("SELECT COUNT(*), MAX(v), other.f() FROM other.w").replace('\t', "|"), "3|two 😀|7");

    w.sql("UPDATE app.t SET v = 'changed'; CREATE TABLE app.later (i int); DROP VIEW app.w");
    let replace = ["restore", "latest", "--from", "./b"];
    assert!(w.expect(6, &replace).contains("REPLACE"), "data is replaced without consent");
    let plan = w.plan(&replace);
    w.expect(0, &[&replace[..], &["--confirm", &plan]].concat());
    assert_eq!(w.sql("SELECT COUNT(*) FROM app.w WHERE v = 'changed'"), "0");
    w.expect(0, &["restore", "--undo", "--yes"]);
    assert_eq!(
        w.sql("SELECT COUNT(*) FROM app.t WHERE v = 'changed'; SELECT COUNT(*) FROM app.later"),
        "3\n0"
    );
    let plan = w.plan(&replace);
    w.expect(0, &[&replace[..], &["--confirm", &plan]].concat());
    w.expect(0, &["settle"]);
    assert_eq!(
        w.sql("INSERT INTO app.t (v) VALUES ('up'); SELECT v FROM app.w ORDER BY v DESC LIMIT 1"),
        "UP"
    );
    assert_eq!(w.leftovers(), "NULL");

    // One table, the others stay.
    w.sql("DELETE FROM app.other; DELETE FROM app.t; CREATE TABLE app.stays (i int)");
    let one = ["restore", "latest", "--from", "./b", "--only", "db/app.t", "--merge", "--settle"];
    let refused = w.expect(6, &[&one[..], &["--dry-run"]].concat());
    assert!(refused.contains("foreign key") && refused.contains("`app`.`other`"), "{refused}");
    w.sql("DROP TABLE app.other");
    let plan = w.plan(&one);
    w.expect(0, &[&one[..], &["--confirm", &plan]].concat());
    assert_eq!(w.sql("SELECT COUNT(*) FROM app.t; SELECT COUNT(*) FROM app.stays"), "3\n0");
    assert_eq!(w.leftovers(), "NULL");
}

#[test]
fn a_database_is_backed_up_restored_elsewhere_replaced_undone_and_settled() {
    run("a_database_is_backed_up_restored_elsewhere_replaced_undone_and_settled", async {
        created_restored_undone(Flavor::Mariadb118).await;
        created_restored_undone(Flavor::Mysql9).await;
    });
}

async fn parts_of_a_database(flavor: Flavor) {
    let w = World::new(flavor).await;
    w.sql(APP);
    let (app, other) = (w.url("app"), w.url("other"));
    w.expect(0, &["create", &app, "--to", "./b"]);
    let restore = |more: &[&str]| {
        let line = [&["restore", "latest", "--from", "./b"], more].concat();
        let plan = w.plan(&line);
        w.expect(0, &[&line[..], &["--confirm", &plan]].concat());
    };
    // Definitions alone.
    w.expect(0, &["restore", "latest", "--from", "./b", "--to", &other, "--schema-only"]);
    assert_eq!(
        w.sql("SELECT COUNT(*) FROM other.w; SELECT COUNT(*) FROM other.other; SELECT other.f(); INSERT INTO other.t (v) VALUES ('up'); SELECT v FROM other.t"),
        "0\n0\n7\nUP"
    );
    // Rows alone: what the tables are by now they stay.
    w.sql(
        "ALTER TABLE other.t ADD COLUMN extra int DEFAULT 5, DROP KEY v; CREATE TABLE other.stays (i int); \
         CREATE TRIGGER other.down BEFORE UPDATE ON other.t FOR EACH ROW SET NEW.extra = 6",
    );
    restore(&["--to", &other, "--data-only"]);
    assert_eq!(w.sql("SELECT COUNT(*), MAX(v), MIN(extra) FROM other.t").replace('\t', "|"), "3|two 😀|5");
    assert_eq!(
        w.sql("UPDATE other.t SET v = 'x' WHERE id = 1; INSERT INTO other.t (v) VALUES ('again'); SELECT SUM(extra), MAX(v) FROM other.t; \
               SELECT COUNT(*) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = 'other' AND INDEX_NAME = 'v'; \
               SELECT COUNT(*) FROM other.stays; SELECT COUNT(*) FROM other.other")
            .replace('\t', "|"),
        "21|x\n0\n0\n1"
    );
    assert!(
        w.sql("SHOW CREATE TABLE other.other").contains("REFERENCES `t`"),
        "the foreign key is lost or led away"
    );
    w.expect(0, &["restore", "--undo", "--yes"]);
    assert_eq!(w.sql("SELECT COUNT(*), MAX(extra) FROM other.t").replace('\t', "|"), "1|5");
    w.sql("DROP TABLE other.other");
    let rows = ["restore", "latest", "--from", "./b", "--to", &other, "--data-only", "--dry-run"];
    let refused = w.expect(6, &rows);
    assert!(refused.contains("app.other") && refused.contains("definitions are not restored"), "{refused}");
    // One table whose foreign key leads to one that stays where it is.
    w.sql("DELETE FROM app.other");
    restore(&["--only", "db/app.other", "--merge", "--settle"]);
    assert!(
        w.sql("SHOW CREATE TABLE app.other").contains("REFERENCES `t`"),
        "the foreign key leads elsewhere"
    );
    assert_eq!(w.sql("INSERT INTO app.other VALUES (2, 2); SELECT COUNT(*) FROM app.other"), "2");
    assert_eq!(w.leftovers(), "NULL");
}

#[test]
fn definitions_alone_rows_alone_and_single_tables_come_back() {
    run("definitions_alone_rows_alone_and_single_tables_come_back", async {
        parts_of_a_database(Flavor::Mariadb118).await;
        parts_of_a_database(Flavor::Mysql9).await;
    });
}

async fn exchanged_with_foreign_keys(flavor: Flavor) {
    let w = World::new(flavor).await;
    w.sql("CREATE DATABASE shop; USE shop; CREATE TABLE customers (id int PRIMARY KEY); INSERT INTO customers VALUES (1), (2), (3); \
        CREATE TABLE orders (id int PRIMARY KEY, c int, CONSTRAINT of_c FOREIGN KEY (c) REFERENCES customers (id) ON DELETE CASCADE); \
        CREATE TABLE bills (id int PRIMARY KEY, c int, CONSTRAINT to_c FOREIGN KEY (c) REFERENCES customers (id)); \
        INSERT INTO orders VALUES (1, 1), (2, 2); INSERT INTO bills VALUES (1, 1);");
    let shop = w.url("shop");
    w.expect(0, &["create", &shop, "--to", "./b"]);
    w.sql("INSERT INTO shop.orders VALUES (3, 3); UPDATE shop.bills SET c = 3; DELETE FROM shop.customers WHERE id = 2");
    let old = "SELECT GROUP_CONCAT(id, ':', c ORDER BY id) FROM shop.orders; SELECT GROUP_CONCAT(id, ':', c) FROM shop.bills";
    assert_eq!(w.sql(old), "1:1,3:3\n1:3");
    let line = [
        "restore",
        "latest",
        "--from",
        "./b",
        "--only",
        "db/shop.orders",
        "--only",
        "db/shop.bills",
        "--merge",
    ];
    let said = w.expect(0, &[&line[..], &["--confirm", &w.plan(&line)]].concat());
    assert!(said.contains("of_c") && said.contains("not in `shop`.`customers`"), "{said}");
    // The application goes on: what it deletes acts on the new rows, and not on those that are kept.
    w.sql("DELETE FROM shop.bills; DELETE FROM shop.customers");
    assert_eq!(w.sql("SELECT COUNT(*), MAX(id) FROM shop.orders").replace('\t', "|"), "1|2");
    let said = w.expect(0, &["restore", "--undo", "--yes"]);
    assert_eq!(w.sql(old), "1:1,3:3\n1:3", "the old rows are not all back");
    assert!(said.contains("of_c") && said.contains("2 rows lead"), "{said}");
    let keys = "SELECT GROUP_CONCAT(CONSTRAINT_NAME, DELETE_RULE, REFERENCED_TABLE_NAME ORDER BY 1) FROM information_schema.REFERENTIAL_CONSTRAINTS \
        WHERE CONSTRAINT_SCHEMA = 'shop' AND UNIQUE_CONSTRAINT_SCHEMA = 'shop'";
    assert!(w.sql(keys).contains("of_cCASCADEcustomers"), "{}", w.sql(keys));
    assert!(w.sql("SHOW CREATE TABLE shop.bills").contains("REFERENCES `customers`"));
    // All of it can be restored while a part is kept, and a part goes where the other one is not.
    w.expect(0, &[&line[..], &["--confirm", &w.plan(&line)]].concat());
    let all = ["restore", "latest", "--from", "./b"];
    w.expect(0, &[&all[..], &["--confirm", &w.plan(&all)]].concat());
    assert_eq!(w.sql(old), "1:1,2:2\n1:1");
    let alone = w.url("alone");
    let said =
        w.expect(0, &["restore", "latest", "--from", "./b", "--only", "db/shop.bills", "--to", &alone]);
    assert!(said.contains("to_c") && said.contains("left out"), "{said}");
    assert_eq!(w.sql("INSERT INTO alone.bills VALUES (7, 7); SELECT COUNT(*) FROM alone.bills"), "2");

    // A key from one database into another: between what is restored together, and out of it.
    w.sql("CREATE DATABASE a; CREATE DATABASE z; CREATE TABLE z.p (id int PRIMARY KEY); INSERT INTO z.p VALUES (1); \
        CREATE TABLE a.t (id int PRIMARY KEY, CONSTRAINT into_z FOREIGN KEY (id) REFERENCES z.p (id) ON DELETE CASCADE); INSERT INTO a.t VALUES (1)");
    let id = w.server.container().id();
    let leads = |to: &str| {
        let shown = w.sql("SHOW CREATE TABLE a.t");
        assert!(shown.contains(&format!("REFERENCES `z`.`{to}`")), "{shown}");
    };
    for databases in ["[\"a\", \"z\"]", "[\"a\"]"] {
        w.place.write(
            "backup.toml",
            &format!(
                "[modules.m.sources.db]\nkind = \"mysql\"\ncontainer = \"{id}\"\ndatabases = {databases}\n"
            ),
        );
        w.expect(0, &["create", "-m", "m", "--to", "./m"]);
        w.sql("INSERT INTO z.p VALUES (2); INSERT INTO a.t VALUES (2)");
        let line = ["restore", "latest", "--from", "./m", "-m", "m"];
        w.expect(0, &[&line[..], &["--confirm", &w.plan(&line)]].concat());
        leads("p");
        assert_eq!(w.sql("SELECT MAX(id) FROM a.t"), "1");
        w.sql("DELETE FROM z.p WHERE id = 1");
        assert_eq!(w.sql("SELECT COUNT(*) FROM a.t"), "0", "the key does not act any more");
        w.expect(0, &["restore", "--undo", "--yes", "-m", "m"]);
        leads("p");
        assert_eq!(
            w.sql("SELECT GROUP_CONCAT(id ORDER BY id) FROM a.t"),
            "1,2",
            "the old rows are not all back"
        );
        w.sql("INSERT IGNORE INTO z.p VALUES (1); DELETE FROM z.p WHERE id = 2");
        assert_eq!(w.sql("SELECT GROUP_CONCAT(id) FROM a.t"), "1");
    }
}

#[test]
fn foreign_keys_act_only_on_tables_that_are_in_their_place() {
    run("foreign_keys_act_only_on_tables_that_are_in_their_place", async {
        exchanged_with_foreign_keys(Flavor::Mariadb118).await;
        exchanged_with_foreign_keys(Flavor::Mysql9).await;
    });
}

async fn foreign_keys_in_the_way(flavor: Flavor) {
    let w = World::new(flavor).await;
    w.sql("CREATE DATABASE shop; USE shop; CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE `P` (id int PRIMARY KEY); INSERT INTO p VALUES (1); INSERT INTO `P` VALUES (1); \
        CREATE TABLE c (id int PRIMARY KEY, a int, b int, CONSTRAINT k FOREIGN KEY (a) REFERENCES p (id), CONSTRAINT l FOREIGN KEY (b) REFERENCES `P` (id)); \
        INSERT INTO c VALUES (1, 1, 1); CREATE VIEW seen AS SELECT a FROM c; CREATE TRIGGER up BEFORE INSERT ON c FOR EACH ROW SET NEW.b = 1; \
        SET foreign_key_checks = 0; CREATE TABLE lost (id int PRIMARY KEY, CONSTRAINT nowhere FOREIGN KEY (id) REFERENCES nothere (id))");
    w.expect(0, &["create", &w.url("shop"), "--to", "./b"]);
    let restore = |code: i32, more: &[&str]| {
        let line = [&["restore", "latest", "--from", "./b"], more].concat();
        w.expect(code, &[&line[..], &["--confirm", &w.plan(&line)]].concat())
    };
    let undo = || w.expect(0, &["restore", "--undo", "--yes"]);
    let created = || w.sql("SHOW CREATE TABLE shop.c");
    let old = created();

    // Of names that differ in case only one is restored; the index that the server made for a key has its name again after the undo.
    restore(0, &["--only", "db/shop.c", "--only", "db/shop.p", "--merge"]);
    assert!(created().contains("REFERENCES `P`") && created().contains("REFERENCES `p`"), "{}", created());
    undo();
    assert_eq!(created(), old);

    // What a key leads to is another by now: all else comes back.
    restore(0, &["--only", "db/shop.c", "--merge"]);
    w.sql("ALTER TABLE shop.c DROP FOREIGN KEY k; ALTER TABLE shop.p MODIFY id varchar(9)");
    let said = undo();
    assert!(
        said.contains("foreign key k of c") && said.contains("ALTER TABLE `shop`.`c` ADD CONSTRAINT `k`"),
        "{said}"
    );
    assert_eq!(
        w.sql(
            "SELECT COUNT(*) FROM shop.seen; INSERT INTO shop.c (id) VALUES (2); SELECT SUM(b) FROM shop.c"
        ),
        "1\n2"
    );
    assert!(created().contains("CONSTRAINT `l`") && !created().contains("CONSTRAINT `k`"));

    // A table that stays has the name.
    w.sql("ALTER TABLE shop.p MODIFY id int; RENAME TABLE shop.c TO shop.archived; DROP TRIGGER IF EXISTS shop.up");
    let refused = restore(1, &["--only", "db/shop.c", "--merge"]);
    assert!(refused.contains("`archived`, which stays"), "{refused}");
    w.sql("DROP TABLE shop.archived; DROP VIEW shop.seen");

    // Rows alone, beside a table of the name that the old one had; and all of it, by the vendor's program, with a key that leads nowhere.
    w.sql("CREATE DATABASE other; CREATE TABLE other.p (id int PRIMARY KEY); CREATE TABLE other.c (id int PRIMARY KEY, a int, b int, CONSTRAINT far FOREIGN KEY (a) REFERENCES shop.p (id))");
    restore(0, &["--only", "db/shop.c", "--to", &w.url("other"), "--data-only"]);
    assert!(w.sql("SHOW CREATE TABLE other.c").contains("REFERENCES `shop`.`p`"));
    w.sql("DROP DATABASE other");
    let id = w.server.container().id();
    let module = format!(
        "[modules.m.sources.db]\nkind = \"mysql\"\ncontainer = \"{id}\"\ndatabases = [\"shop\"]\nmethod = \"dump\"\n"
    );
    w.place.write("backup.toml", &module);
    w.expect(0, &["create", "-m", "m", "--to", "./m"]);
    let line = ["restore", "latest", "--from", "./m", "-m", "m"];
    w.expect(0, &[&line[..], &["--confirm", &w.plan(&line)]].concat());
    let shown = w.sql("SHOW CREATE TABLE shop.lost");
    assert!(shown.contains("REFERENCES `nothere`"), "{shown}");
}

#[test]
fn what_a_foreign_key_leads_to_is_what_it_says() {
    run("what_a_foreign_key_leads_to_is_what_it_says", async {
        foreign_keys_in_the_way(Flavor::Mariadb118).await;
        foreign_keys_in_the_way(Flavor::Mysql9).await;
    });
}

async fn by_hand(flavor: Flavor, method: &str) {
    let w = World::new(flavor).await;
    w.sql(APP);
    w.sql("CREATE EVENT app.e ON SCHEDULE EVERY 1 YEAR DO SET @a = 1");
    // Each needs another that comes after it by name; an alias is no view.
    w.sql(
        "USE app; CREATE VIEW first AS SELECT f() AS a FROM t `last`; CREATE VIEW last AS SELECT a FROM first; CREATE VIEW before_w AS SELECT v FROM w; \
         CREATE PROCEDURE p() SET @called = 1; CREATE TRIGGER calls BEFORE INSERT ON other FOR EACH ROW CALL p()",
    );
    if flavor.is_mariadb() {
        w.sql(
            "USE app; SET sql_mode = 'ORACLE';\nDELIMITER //\nCREATE PACKAGE pk AS FUNCTION g RETURN INT; END//\n\
             CREATE PACKAGE BODY pk AS FUNCTION g RETURN INT AS BEGIN RETURN 3; END; END//\n\
             CREATE PACKAGE `body-pk` AS FUNCTION h RETURN INT; END//",
        );
        w.sql("CREATE VIEW app.a_of_package AS SELECT app.pk.g() AS g; CREATE SEQUENCE app.z; CREATE TABLE app.a_of_z (n int DEFAULT NEXTVAL(app.z))");
    }
    let id = w.server.container().id();
    w.place.write(
        "backup.toml",
        &format!("[modules.m.sources.db]\nkind = \"mysql\"\ncontainer = \"{id}\"\ndatabases = [\"app\"]\nmethod = \"{method}\"\n"),
    );
    w.expect(0, &["create", "-m", "m", "--to", "x.tar"]);
    w.sql("DROP DATABASE app; SET GLOBAL local_infile = ON");
    let unpacked = w.place.path("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let tar = Command::new("tar").args(["-xf", "../x.tar"]).current_dir(&unpacked).status().unwrap();
    assert!(tar.success());
    let folder = unpacked.join("db/db");
    let guide = std::fs::read_to_string(folder.join("app/RESTORE.md")).unwrap();
    let blocks = guide.split("```sh\n").skip(1).map(|b| b.split("```").next().unwrap());
    let script = format!("set -e\ncd /by-hand\n{}", blocks.collect::<Vec<_>>().join("\n"));
    std::fs::write(folder.join("script.sh"), script).unwrap();
    let copied =
        Command::new("docker").arg("cp").arg(&folder).arg(format!("{id}:/by-hand")).status().unwrap();
    assert!(copied.success());
    let password = w.server.password().replace('\\', "\\\\").replace('"', "\\\"");
    let options = format!("[client]\nuser=root\npassword=\"{password}\"\n");
    w.server.container().exec(&["sh", "-c", &format!("cat >/tmp/.my.cnf <<'END'\n{options}END\n")]).await;
    w.server.container().exec(&["env", "HOME=/tmp", "sh", "/by-hand/script.sh"]).await;
    assert_eq!(
        w.sql("SELECT COUNT(*), MAX(v), HEX(MAX(b)), app.f() FROM app.t; INSERT INTO app.t (v) VALUES ('up'); SELECT MAX(id), COUNT(*) FROM app.w, app.other")
            .replace('\t', "|"),
        "3|two 😀|00FF|7\n1|4"
    );
    assert_eq!(w.sql("SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'app'"), "e");
    assert_eq!(w.sql("SELECT COUNT(*), MAX(a) FROM app.last, app.before_w").replace('\t', "|"), "16|7");
    w.sql("INSERT INTO app.other VALUES (2, 1)");
    if flavor.is_mariadb() {
        let packages = "SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'app' AND ROUTINE_TYPE LIKE 'PACKAGE%'";
        assert_eq!(w.sql(&format!("SELECT g FROM app.a_of_package; {packages}")), "3\n3");
        w.sql("INSERT INTO app.a_of_z VALUES ()");
    }
}

#[test]
fn the_vendors_client_alone_restores_by_the_guide_in_the_archive() {
    run("the_vendors_client_alone_restores_by_the_guide_in_the_archive", async {
        by_hand(Flavor::Mariadb118, "native").await;
        by_hand(Flavor::Mysql9, "native").await;
        by_hand(Flavor::Mysql9, "dump").await;
    });
}

#[test]
fn a_container_is_all_that_has_to_be_named() {
    run("a_container_is_all_that_has_to_be_named", async {
        let w = World::new(Flavor::Mariadb118).await;
        w.sql("CREATE DATABASE named; CREATE TABLE named.t AS SELECT 1 i");
        let config = format!(
            "[modules.m.sources.db]\nkind = \"mysql\"\ncontainer = \"{}\"\ndatabases = [\"named\"]\n[archives.a]\nurl = \"b\"\n",
            w.server.container().id()
        );
        w.place.write("backup.toml", &config);
        // Without any password: the container has it.
        let out = w.place.expect(0, &["create", "-m", "m"]);
        assert!(out.stderr.contains("complete"), "{}", out.stderr);
        // A variable that is empty is none.
        let mut command = w.place.command(&["create", "-m", "m"]);
        let out = command.env("BACKUP_M_DB_PASSWORD", "").env("BACKUP_DB_PASSWORD", "").output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let said = w.place.json(0, &["show", "latest", "-m", "m"]);
        assert!(said.to_string().contains("published port"), "{said}");

        // One of several databases: all of it, and nothing of the others.
        w.sql("CREATE VIEW named.v AS SELECT i FROM named.t; CREATE TABLE named.`a b` AS SELECT 5 i; CREATE DATABASE other; CREATE TABLE other.u AS SELECT 2 i");
        let server = format!("db=container://{}/*", w.server.container().id());
        w.place.expect(0, &["create", &server, "--to", "./all"]);
        w.sql("UPDATE named.t SET i = 9; UPDATE other.u SET i = 9; DROP VIEW named.v");
        let state = "SELECT i FROM named.t; SELECT i FROM named.`a b`; SELECT i FROM other.u";
        let only = |what: &str| {
            let line = ["restore", "latest", "--from", "./all", "--settle", "--merge", "--only", what];
            let plan = w.plan(&line);
            w.expect(0, &[&line[..], &["--confirm", &plan]].concat());
        };
        only("db/named");
        assert_eq!(w.sql(state), "1\n5\n9");
        assert_eq!(w.sql("SELECT i FROM named.v"), "1");
        w.sql("UPDATE named.`a b` SET i = 9; UPDATE named.t SET i = 9");
        only("db/named.a b");
        assert_eq!(w.sql(state), "9\n5\n9");
        let copy = format!("db=container://{}/copy", w.server.container().id());
        w.expect(0, &["restore", "latest", "--from", "./all", "--only", "db/named", "--to", &copy]);
        assert_eq!(w.sql("SELECT i FROM copy.t; SELECT i FROM copy.v"), "1\n1");

        // Names that would be globs are names; the plan says which tables a part is of.
        w.sql("CREATE TABLE named.`x[1]` AS SELECT 1 i; CREATE TABLE named.x1 AS SELECT 1 i; CREATE DATABASE `na*d`; CREATE TABLE `na*d`.t AS SELECT 1 i");
        w.place.expect(0, &["create", &server, "--to", "./all"]);
        w.sql("UPDATE named.`x[1]` SET i = 9; UPDATE named.x1 SET i = 9; UPDATE named.t SET i = 9; UPDATE `na*d`.t SET i = 9");
        let state = "SELECT i FROM named.`x[1]`; SELECT i FROM named.x1; SELECT i FROM named.t; SELECT i FROM `na*d`.t";
        only("db/named.x[1]");
        assert_eq!(w.sql(state), "1\n9\n9\n9");
        only("db/na*d");
        assert_eq!(w.sql(state), "1\n9\n9\n1");
        let plan = [
            "restore",
            "latest",
            "--from",
            "./all",
            "--merge",
            "--only",
            "db/named.x?1?",
            "--only",
            "db/named.x*",
            "--dry-run",
        ];
        let said = w.command(&plan).output().unwrap();
        let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(said.contains("these tables are restored: named.x1, named.x[1]"), "{said}");
    });
}
