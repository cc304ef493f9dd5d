//! What only these servers can do wrong.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod connection;
mod containers;
mod faults;
mod in_place;
mod large;
mod moment;
mod packages;
mod users;
mod versions;

use backup_core::{Backend, Context, ErrorKind, Event, Severity};
use backup_mysql::MysqlBackend;
use backup_testkit::{
    Must,
    conformance::pouring::pour,
    faults::SlowOn,
    memory::{ContentsSink, MemorySource, surveyed},
    run as in_time, services,
    services::{Flavor, Mysql},
};
use common::{
    any_server, captured, config, conn, fingerprint, fresh, id_of, restore, restore_accepting, restore_data,
    rows_of, run, schema, schemas_left, secret_file, source, target, value,
};
use mysql_async::{Conn, prelude::Queryable};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

async fn round_trip(flavor: Flavor) {
    let (server, mut c) = any_server(flavor).await;
    let (from, to) = (fresh("every"), fresh("again"));
    schema::every_sort(&mut c, &from, flavor).await;
    let cx = Context::default();
    let mut target = restore(&config(&server, &from), &config(&server, &to), &cx).await.unwrap();
    let (expected, found) = (fingerprint(&mut c, &from).await, fingerprint(&mut c, &to).await);
    for (a, b) in expected.lines().zip(found.lines()) {
        assert_eq!(a, b, "in:\n{found}");
    }
    assert_eq!(expected.lines().count(), found.lines().count());
    target.settle(&cx).await.unwrap();
    assert_eq!(schemas_left(&mut c, &id_of(&*target)).await, Vec::<String>::new());
    if flavor.is_mariadb() {
        // The default of the restored table counts with the restored sequence.
        run(&mut c, &format!("INSERT INTO `{to}`.numbered (t) VALUES ('works')")).await;
    }
}

#[test]
fn every_sort_of_object_comes_back_on_mysql_9() {
    in_time("every_sort_of_object_comes_back_on_mysql_9", round_trip(Flavor::Mysql9));
}

#[test]
fn every_sort_of_object_comes_back_on_mariadb_10_11() {
    in_time("every_sort_of_object_comes_back_on_mariadb_10_11", round_trip(Flavor::Mariadb1011));
}

#[test]
fn every_sort_of_object_comes_back_on_mariadb_11_8() {
    in_time("every_sort_of_object_comes_back_on_mariadb_11_8", round_trip(Flavor::Mariadb118));
}

/// A user with these rights, and a configuration that logs in as it.
async fn as_user(server: &Mysql, c: &mut Conn, database: &str, grants: &[&str]) -> Value {
    let name = fresh("limited");
    run(c, &format!("CREATE USER '{name}'@'%' IDENTIFIED BY 'p w'")).await;
    for grant in grants {
        run(c, &format!("GRANT {grant} TO '{name}'@'%'")).await;
    }
    let file = secret_file(&name, "p w");
    json!({
        "url": format!("mysql://{name}@127.0.0.1:{}/{database}?ssl-mode=DISABLED", server.port()),
        "password_file": file,
    })
}

async fn database(c: &mut Conn, what: &str, script: &str) -> String {
    let name = fresh(what);
    run(c, &format!("CREATE DATABASE `{name}`;; USE `{name}`;; {script}")).await;
    name
}

#[test]
fn a_table_that_changes_between_the_listing_and_the_lock_is_read_as_it_is_at_the_moment() {
    in_time("a_table_that_changes_between_the_listing_and_the_lock_is_read_as_it_is_at_the_moment", async {
        for flavor in [Flavor::Mariadb118, Flavor::Mysql9] {
            let (server, mut c) = any_server(flavor).await;
            let name = database(
                &mut c,
                "ddl",
                "CREATE TABLE t (id int PRIMARY KEY);; INSERT INTO t VALUES (1);; CREATE TABLE goes (id int)",
            )
            .await;
            let (cx, sink) = (Context::default(), Arc::new(ContentsSink::new()));
            let ready = source(&config(&server, &name)).connect(&cx).await.must("connect");
            run(&mut c, "ALTER TABLE t ADD COLUMN added int DEFAULT 7, ALGORITHM=INSTANT;; CREATE TABLE made (id int);; DROP TABLE goes").await;
            let view = ready.fix(&cx).await.must("fix");
            let facts = view.pour(sink.clone(), &cx).await.must("pour");
            assert_eq!(
                (rows_of(&facts, &name, "t"), facts.get(&format!("table {name}.made"), "rows").is_some()),
                (1, true)
            );
            let contents = sink.take();
            let path = format!("{name}.t/data.tsv");
            let rows = contents.get(path.as_bytes()).must("the rows");
            assert_eq!(rows.chunks.concat(), b"1\t7\n");
            assert!(!contents.keys().any(|k| k.starts_with(format!("{name}.goes").as_bytes())));
        }
    });
}

#[test]
fn what_a_user_may_have_no_right_to_see_is_said() {
    in_time("what_a_user_may_have_no_right_to_see_is_said", async {
        for flavor in [Flavor::Mariadb1011, Flavor::Mysql9] {
            let (server, mut c) = any_server(flavor).await;
            let name = database(&mut c, "seen", "CREATE TABLE a (id int);; CREATE TABLE b (id int)").await;
            let said = async |from: &Value| {
                let cx = Context::default();
                source(from).connect(&cx).await.must("connect");
                let of = |severity| {
                    cx.notes()
                        .list
                        .iter()
                        .filter(|n| n.severity == severity)
                        .map(|n| n.text.clone())
                        .collect::<String>()
                };
                (of(Severity::Lost), of(Severity::Warning))
            };
            let part = as_user(&server, &mut c, &name, &[&format!("SELECT ON `{name}`.a")]).await;
            assert!(said(&part).await.0.contains("it is not whole"), "{flavor:?}");
            let reader =
                as_user(&server, &mut c, &name, &[&format!("SELECT, SHOW VIEW ON `{name}`.*")]).await;
            let (lost, warned) = said(&reader).await;
            assert!(
                lost.is_empty()
                    && warned.contains("triggers, events")
                    && warned.contains("GRANT TRIGGER, EVENT"),
                "{warned}"
            );
            let rights = format!("SELECT, SHOW VIEW, TRIGGER, EVENT ON `{name}`.*");
            let (lost, warned) = said(&as_user(&server, &mut c, &name, &[&rights]).await).await;
            assert!(lost.is_empty() && !warned.contains("events"), "{warned}");
            let right =
                if flavor.is_mariadb() { "GRANT SELECT ON mysql.proc" } else { "GRANT SHOW_ROUTINE ON *.*" };
            assert!(warned.contains("procedures and functions") && warned.contains(right), "{warned}");
            if !flavor.is_mariadb() {
                let all = as_user(&server, &mut c, &name, &[&rights, "SHOW_ROUTINE ON *.*"]).await;
                assert!(!said(&all).await.1.contains("procedures"));
            }
            assert_eq!(said(&config(&server, &name)).await, Default::default());
        }
    });
}

#[test]
fn a_table_outside_of_snapshots_is_named() {
    in_time("a_table_outside_of_snapshots_is_named", async {
        let (server, mut c) = any_server(Flavor::Mariadb1011).await;
        let name = database(
            &mut c,
            "engines",
            "CREATE TABLE m (id int) ENGINE=MyISAM;; CREATE TABLE i (id int);; INSERT INTO m VALUES (1)",
        )
        .await;
        let cx = Context::default();
        captured(&config(&server, &name), &cx).await.must("pour");
        let notes = cx.notes().list;
        let named: Vec<_> =
            notes.iter().filter(|n| n.severity == Severity::Warning).map(|n| n.path.as_str()).collect();
        assert_eq!(named, [format!("{name}.m")], "{notes:?}");
    });
}

#[test]
fn what_is_left_out_is_left_out_and_said() {
    in_time("what_is_left_out_is_left_out_and_said", async {
        let (server, mut c) = any_server(Flavor::Mariadb1011).await;
        let name = database(&mut c, "part", "CREATE TABLE a (id int);; INSERT INTO a VALUES (1);; CREATE TABLE b (id int);; INSERT INTO b VALUES (1);; CREATE TABLE c (id int)").await;
        let mut from = config(&server, &name);
        from["exclude_data"] = json!(["a"]);
        from["exclude_tables"] = json!([format!("{name}.b")]);
        let (cx, to) = (Context::default(), fresh("parted"));
        let mut restored = restore(&from, &config(&server, &to), &cx).await.must("restore");
        restored.settle(&cx).await.must("settle");
        let tables = format!(
            "SELECT GROUP_CONCAT(TABLE_NAME ORDER BY 1) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{to}'"
        );
        assert_eq!(value(&mut c, &tables).await, "a,c");
        assert_eq!(value(&mut c, &format!("SELECT COUNT(*) FROM `{to}`.a")).await, "0");
    });
}

#[test]
fn what_depends_on_a_table_that_is_left_out_goes_with_it_and_is_said() {
    in_time("what_depends_on_a_table_that_is_left_out_goes_with_it_and_is_said", async {
        for flavor in [Flavor::Mariadb1011, Flavor::Mysql9] {
            let (server, mut c) = any_server(flavor).await;
            let name = database(
                &mut c,
                "leaves",
                "CREATE TABLE log_a (id int PRIMARY KEY);; CREATE TABLE kept (id int PRIMARY KEY, log_a int, k int, KEY (k), \
                 CONSTRAINT to_log FOREIGN KEY (log_a) REFERENCES log_a (id), CONSTRAINT to_self FOREIGN KEY (k) REFERENCES kept (id));; \
                 CREATE VIEW of_log AS SELECT l.id FROM log_a l;; CREATE VIEW of_view AS SELECT id FROM of_log;; \
                 CREATE VIEW of_kept AS SELECT log_a FROM kept;; \
                 CREATE TRIGGER t BEFORE INSERT ON log_a FOR EACH ROW SET NEW.id = NEW.id;; INSERT INTO log_a VALUES (1);; \
                 INSERT INTO kept VALUES (1, 1, 1)",
            )
            .await;
            let mut from = config(&server, &name);
            from["exclude_tables"] = json!(["log_*"]);
            let (cx, to) = (Context::default(), fresh("left"));
            let poured = pour(&*source(&from), "db", Arc::new(ContentsSink::new()), &cx).await.must("pour");
            let said = format!("{:?}", poured.proof.get("all", backup_core::EXCLUDED));
            for word in ["log_*", "of_log", "of_view", "to_log"] {
                assert!(said.contains(word), "{said}");
            }
            assert!(!said.contains("of_kept") && !said.contains("to_self"), "{said}");
            restore(&from, &config(&server, &to), &cx).await.must("restore").settle(&cx).await.must("settle");
            let mut c = conn(&server).await;
            let there = format!(
                "SELECT GROUP_CONCAT(TABLE_NAME ORDER BY 1) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{to}'"
            );
            assert_eq!(value(&mut c, &there).await, "kept,of_kept");
            // The row that led to the table is there, and others can be added.
            run(&mut c, &format!("INSERT INTO `{to}`.kept VALUES (2, 7, 1)")).await;
            from["exclude_tables"] = json!(["lgo_*"]);
            let error = source(&from).connect(&cx).await.err().must("nothing is called so");
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    });
}

#[test]
fn keys_of_large_tables_are_made_after_their_rows_and_those_of_small_ones_with_the_table() {
    in_time("keys_of_large_tables_are_made_after_their_rows_and_those_of_small_ones_with_the_table", async {
        for flavor in [Flavor::Mariadb118, Flavor::Mysql9] {
            let (server, mut c) = any_server(flavor).await;
            let columns = "id int PRIMARY KEY AUTO_INCREMENT, n int, t varchar(500), w text, UNIQUE KEY u (t, id), KEY k (n), FULLTEXT KEY f (w), FULLTEXT KEY g (t)";
            let name = database(
                &mut c,
                "keyed",
                &format!(
                    "CREATE TABLE large ({columns});; CREATE TABLE small ({columns}, FOREIGN KEY (n) REFERENCES large (id));; \
                     INSERT INTO large (n, t, w) VALUES (1, REPEAT('a b ', 100), REPEAT('some words ', 50));; INSERT INTO small (n, t) VALUES (1, 'x')"
                ),
            )
            .await;
            for _ in 0..11 {
                run(&mut c, "INSERT INTO large (n, t, w) SELECT id, t, w FROM large").await;
            }
            run(&mut c, "ANALYZE TABLE large").await;
            let (cx, to) = (Context::default(), fresh("keyed_again"));
            let sink = Arc::new(ContentsSink::new());
            pour(&*source(&config(&server, &name)), "db", sink.clone(), &cx).await.must("pour");
            let contents = sink.take();
            let text = |path: &str| {
                let held = contents.get(format!("{name}.{path}").as_bytes());
                held.map(|h| String::from_utf8(h.chunks.concat()).unwrap())
            };
            assert!(!text("large/table.sql").must("the table").contains("UNIQUE KEY"));
            assert!(text("large/keys.sql").must("its keys").contains("ADD UNIQUE KEY `u`"));
            assert!(text("small/table.sql").must("the table").contains("FULLTEXT KEY `g`"));
            assert!(text("small/keys.sql").is_none() && text("small/foreign-keys.sql").is_some());
            let mut restored =
                restore(&config(&server, &name), &config(&server, &to), &cx).await.must("restore");
            assert_eq!(fingerprint(&mut c, &name).await, fingerprint(&mut c, &to).await);
            restored.settle(&cx).await.must("settle");
        }
    });
}

#[test]
fn a_foreign_key_from_outside_is_refused_before_anything_is_done() {
    in_time("a_foreign_key_from_outside_is_refused_before_anything_is_done", async {
        for flavor in [Flavor::Mariadb118, Flavor::Mysql9] {
            let (server, mut c) = any_server(flavor).await;
            let name = database(&mut c, "led_to", "CREATE TABLE t (id int PRIMARY KEY)").await;
            let outside = database(
                &mut c,
                "outside",
                &format!("CREATE TABLE o (id int, FOREIGN KEY (id) REFERENCES `{name}`.t (id))"),
            )
            .await;
            let mut to = target(&config(&server, &name));
            let refused = surveyed(&mut *to, &MemorySource::new("db"), &[], &Context::default())
                .await
                .err()
                .must("refused");
            assert_eq!(refused.kind(), ErrorKind::Refused);
            assert!(refused.to_string().contains(&format!("`{outside}`.`o`")), "{refused}");
            run(&mut c, &format!("DROP DATABASE `{outside}`")).await;
        }
    });
}

/// Connects again whenever it is thrown out, and always has a transaction open.
async fn reconnecting(server: Arc<Mysql>, name: String, stop: Arc<AtomicBool>) -> u32 {
    let mut connections = 0;
    while !stop.load(Relaxed) {
        let mut c = conn(&server).await;
        connections += 1;
        if c.query_drop(format!("USE `{name}`")).await.is_err() {
            continue;
        }
        while !stop.load(Relaxed) {
            let used = async {
                c.query_drop("START TRANSACTION").await?;
                c.query_drop("SELECT COUNT(*) FROM t").await?;
                tokio::time::sleep(Duration::from_millis(30)).await;
                c.query_drop("COMMIT").await
            };
            if used.await.is_err() {
                break;
            }
        }
    }
    connections
}

#[test]
fn tables_change_places_against_a_pool_that_connects_again() {
    in_time("tables_change_places_against_a_pool_that_connects_again", async {
        for flavor in [Flavor::Mariadb118, Flavor::Mysql9] {
            let (server, mut c) = any_server(flavor).await;
            let name = database(&mut c, "pooled", "CREATE TABLE t (id int PRIMARY KEY);; INSERT INTO t VALUES (1);; CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET @a = 1").await;
            let cx = Context::default();
            let data = captured(&config(&server, &name), &cx).await.must("pour");
            run(&mut c, "INSERT INTO t VALUES (2)").await;
            let old = fingerprint(&mut c, &name).await;
            run(&mut c, "USE mysql").await;
            let stop = Arc::new(AtomicBool::new(false));
            let pool: Vec<_> = (0..4)
                .map(|_| tokio::spawn(reconnecting(server.clone(), name.clone(), stop.clone())))
                .collect();
            tokio::time::sleep(Duration::from_millis(300)).await;
            let began = std::time::Instant::now();
            let mut restored = restore_data(&data, &config(&server, &name), &cx).await.must("publish");
            assert_eq!(value(&mut c, &format!("SELECT COUNT(*) FROM `{name}`.t")).await, "1");
            restored.check_revert(&cx).await.must("the old data is there");
            restored.revert(&cx).await.must("revert");
            eprintln!("{flavor:?}: restored and reverted in {:?}", began.elapsed());
            stop.store(true, Relaxed);
            for session in pool {
                session.await.unwrap();
            }
            let mut c = conn(&server).await;
            assert_eq!(fingerprint(&mut c, &name).await, old);
            assert_eq!(schemas_left(&mut c, &id_of(&*restored)).await, Vec::<String>::new());
        }
    });
}

#[test]
fn without_local_infile_rows_are_inserted_and_the_setting_stays() {
    in_time("without_local_infile_rows_are_inserted_and_the_setting_stays", async {
        // Its own: others restore on the shared one, and need the setting.
        let server = services::own_mysql(Flavor::Mysql9, &[]).await;
        let mut c = conn(&server).await;
        let name = fresh("inserted");
        schema::every_sort(&mut c, &name, Flavor::Mysql9).await;
        run(&mut c, "DROP VIEW of_nobody").await; // takes a right that this user lacks
        let (cx, to) = (Context::default(), fresh("inserted_again"));
        let data = captured(&config(&server, &name), &cx).await.must("pour");
        run(&mut c, "SET GLOBAL log_bin_trust_function_creators = ON").await;
        let right = format!("ALL ON `{to}`.*");
        let rights =
            ["ALL ON `\\_backup\\_%`.*", "SET_ANY_DEFINER, SYSTEM_USER, ALLOW_NONEXISTENT_DEFINER ON *.*"];
        let limited = as_user(&server, &mut c, &to, &[&right, rights[0], rights[1]]).await;
        let mut restored = restore_data(&data, &limited, &cx).await.must("restore");
        assert_eq!(fingerprint(&mut c, &name).await, fingerprint(&mut c, &to).await);
        assert!(cx.notes().list.iter().any(|n| n.text.contains("inserted")), "{:?}", cx.notes());
        restored.settle(&cx).await.must("settle");
        // A value that was taken in another form is no success there, either.
        let mut c = conn(&server).await;
        let small = database(
            &mut c,
            "bent",
            "CREATE TABLE t (id int PRIMARY KEY, n tinyint);; INSERT INTO t VALUES (1, 1)",
        )
        .await;
        let bent = bent(&config(&server, &small), &cx).await;
        let mut into = target(&limited);
        let shadow = into.prepare(&cx).await.must("prepare");
        let error = pour(&bent, "db", shadow, &cx).await.err().must("a bent value is an error");
        assert!(error.to_string().contains("another form"), "{error}");
        into.revert(&cx).await.must("revert");
        // Who may switch it on does so for the time of loading.
        let mut restored = restore_data(&data, &config(&server, &to), &cx).await.must("restore");
        let mut c = conn(&server).await; // the other one used the database, and was ended
        assert_eq!(value(&mut c, "SELECT @@GLOBAL.local_infile").await, "0");
        restored.revert(&cx).await.must("revert");
        assert_eq!(fingerprint(&mut c, &name).await, fingerprint(&mut c, &to).await);
        restores_at_the_same_time(&server, &mut c, &data, &cx).await;
    });
}

/// The one that ends first leaves the setting to the other, which came when it was on already; the last one puts it back.
async fn restores_at_the_same_time(
    server: &Mysql,
    c: &mut Conn,
    data: &backup_testkit::memory::MemorySource,
    cx: &Context,
) {
    let setting = "SELECT @@GLOBAL.local_infile";
    let (one, other) = (fresh("one_of_two"), fresh("other_of_two"));
    let (mut first, mut second) = (target(&config(server, &one)), target(&config(server, &other)));
    let into_first = first.prepare(cx).await.must("prepare");
    let into_second = second.prepare(cx).await.must("prepare");
    pour(data, "db", into_first, cx).await.must("fill the first");
    first.publish(cx).await.must("publish the first");
    assert_eq!(value(c, setting).await, "1");
    pour(data, "db", into_second, cx).await.must("fill the second, while the first has ended");
    second.publish(cx).await.must("publish the second");
    assert_eq!(value(c, setting).await, "0");
    for mut target in [first, second] {
        target.settle(cx).await.must("settle");
    }
    assert_eq!(fingerprint(c, &one).await, fingerprint(c, &other).await);
    // On by the server's own setting it stays on.
    run(c, "SET GLOBAL local_infile = ON").await;
    restore_data(data, &config(server, &one), cx).await.must("restore").settle(cx).await.must("settle");
    assert_eq!(value(&mut conn(server).await, setting).await, "1");
}

/// What is in the database, with rows that its table cannot hold.
async fn bent(from: &Value, cx: &Context) -> MemorySource {
    let sink = ContentsSink::new();
    pour(&*source(from), "db", Arc::new(sink.clone()), cx).await.must("pour");
    sink.take().into_values().fold(MemorySource::new("db"), |data, held| {
        let rows = held.entry.path.ends_with(b"data.tsv");
        let bytes = if rows { b"1\t1000\n".to_vec() } else { held.chunks.concat() };
        data.with_bytes(held.entry, bytes)
    })
}

#[test]
fn a_value_that_the_server_takes_in_another_form_ends_the_restore() {
    in_time("a_value_that_the_server_takes_in_another_form_ends_the_restore", async {
        let (server, mut c) = any_server(Flavor::Mariadb118).await;
        let name = database(
            &mut c,
            "bent",
            "CREATE TABLE t (id int PRIMARY KEY, n tinyint);; INSERT INTO t VALUES (1, 1)",
        )
        .await;
        let (cx, to) = (Context::default(), fresh("bent_to"));
        let data = bent(&config(&server, &name), &cx).await;
        let mut target = target(&config(&server, &to));
        surveyed(&mut *target, &data, &[], &cx).await.must("survey");
        let shadow = target.prepare(&cx).await.must("prepare");
        let error = pour(&data, "db", shadow, &cx).await.err().must("a bent value is an error");
        assert!(error.to_string().contains("another form"), "{error}");
        target.revert(&cx).await.must("revert");
        assert_eq!(fingerprint(&mut c, &to).await, "there is no such database");
        assert_eq!(schemas_left(&mut c, &id_of(&*target)).await, Vec::<String>::new());
    });
}

#[test]
fn a_wrong_password_and_a_missing_right_are_denied_and_say_the_way_out() {
    in_time("a_wrong_password_and_a_missing_right_are_denied_and_say_the_way_out", async {
        let (server, mut c) = any_server(Flavor::Mariadb118).await;
        let name = database(
            &mut c,
            "denied",
            "CREATE TABLE t (id int PRIMARY KEY);; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1",
        )
        .await;
        let cx = Context::default();
        let mut wrong = config(&server, &name);
        wrong["url"] = json!(server.url(&name).replace("root@", "nobody@"));
        let error = source(&wrong).connect(&cx).await.err().must("denied");
        assert!(error.kind() == ErrorKind::Denied && error.hint_text().is_some(), "{error}");
        let right = format!("ALL ON `{name}`.*");
        let limited = as_user(&server, &mut c, &name, &[&right]).await;
        let data = captured(&config(&server, &name), &cx).await.must("pour");
        // By the plan, before anything is done.
        let planned = surveyed(&mut *target(&limited), &data, &[], &cx).await;
        let error = planned.err().must("may not make schemas");
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(
            error.hint_text().unwrap_or_default().starts_with(r"GRANT ALL ON `\_backup\_%`.*"),
            "{:?}",
            error.hint_text()
        );
        let beside = as_user(&server, &mut c, &name, &["ALL ON `\\_backup\\_%`.*"]).await;
        let error = surveyed(&mut *target(&beside), &data, &[], &cx).await.err().must("not its database");
        let grant = format!("GRANT ALL ON `{}`.*", name.replace('_', "\\_"));
        assert!(error.hint_text().unwrap_or_default().starts_with(&grant), "{error} {:?}", error.hint_text());
        // A routine whose body is hidden is lost, not left out.
        let reader = as_user(&server, &mut c, &name, &[&format!("SELECT, EXECUTE ON `{name}`.*")]).await;
        let poured = pour(&*source(&reader), "db", Arc::new(ContentsSink::new()), &cx).await.must("pour");
        assert_eq!(poured.lost, 1, "{:?}", cx.notes());
    });
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_table_is_never_a_success() {
    in_time("a_server_that_dies_in_the_middle_of_a_table_is_never_a_success", async {
        for flavor in [Flavor::Mariadb118, Flavor::Mysql9] {
            let server = services::own_mysql(flavor, &[]).await;
            let mut c = conn(&server).await;
            let name = database(&mut c, "dies", "CREATE TABLE t (id int PRIMARY KEY AUTO_INCREMENT, t longtext);; INSERT INTO t (t) VALUES (REPEAT('x', 1000000))").await;
            for _ in 0..5 {
                run(&mut c, "INSERT INTO t (t) SELECT t FROM t").await;
            }
            let cx = Context::default();
            let view =
                source(&config(&server, &name)).connect(&cx).await.must("connect").fix(&cx).await.must("fix");
            // So slowly that it would take long after the engine has come to kill the server: it has other things to do, too.
            let slow = SlowOn::all(Arc::new(ContentsSink::new()), Duration::from_millis(200));
            let ledger = backup_core::Ledger::new(slow, "db", &cx);
            let pouring = tokio::spawn({
                let (ledger, cx) = (ledger.clone(), cx.clone());
                async move { view.pour(ledger, &cx).await }
            });
            tokio::time::sleep(Duration::from_millis(60)).await;
            server.container().kill().await;
            let poured = pouring.await.unwrap();
            assert!(
                poured.is_err() || ledger.settle_losses() > 0,
                "a cut table passed for a whole one: {poured:?}"
            );
        }
    });
}

#[test]
fn a_restore_is_in_the_binary_log() {
    in_time("a_restore_is_in_the_binary_log", async {
        let server = services::own_mysql(Flavor::Mariadb1011, &[]).await;
        let mut c = conn(&server).await;
        let name = database(&mut c, "logged", "CREATE TABLE t (id int PRIMARY KEY, t text);; INSERT INTO t VALUES (1, 'in the log, or replicas lack it')").await;
        let cx = Context::default();
        let data = captured(&config(&server, &name), &cx).await.must("pour");
        run(&mut c, "FLUSH BINARY LOGS").await;
        restore_data(&data, &config(&server, &name), &cx)
            .await
            .must("restore")
            .settle(&cx)
            .await
            .must("settle");
        let log = server.container().exec(&["sh", "-c", "cat /var/lib/mysql/*-bin.000002"]).await;
        assert!(log.contains("in the log, or replicas lack it") && log.contains("RENAME TABLE"));
        // Without it, if that is asked for.
        let mut without = config(&server, &name);
        without["skip_binary_log"] = json!(true);
        let mut c = conn(&server).await;
        run(&mut c, "FLUSH BINARY LOGS").await;
        restore_data(&data, &without, &cx).await.must("restore").settle(&cx).await.must("settle");
        let log = server.container().exec(&["sh", "-c", "cat /var/lib/mysql/*-bin.000003"]).await;
        assert!(!log.contains("in the log") && !log.contains("_backup_"), "{log}");
        // But never where somebody replicates.
        let password = format!("MYSQL_PWD={}", server.password());
        let replica = "mariadb-binlog -R --stop-never --host=127.0.0.1 -uroot $(basename /var/lib/mysql/*-bin.000001) >/dev/null 2>&1 &";
        server.container().exec(&["env", &password, "sh", "-c", replica]).await;
        let attached =
            "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'";
        let mut c = conn(&server).await;
        while value(&mut c, attached).await == "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let refused = surveyed(&mut *target(&without), &data, &[], &cx).await.err().must("refused");
        assert!(
            refused.kind() == ErrorKind::Refused && refused.to_string().contains("replicas"),
            "{refused}"
        );
    });
}

#[test]
fn without_the_binary_log_nothing_of_a_restore_is_a_transaction_of_the_server() {
    in_time("without_the_binary_log_nothing_of_a_restore_is_a_transaction_of_the_server", async {
        let (server, mut c) = any_server(Flavor::Mysql9).await;
        let name =
            database(&mut c, "unlogged", "CREATE TABLE t (id int PRIMARY KEY);; INSERT INTO t VALUES (1)")
                .await;
        let (cx, to) = (Context::default(), fresh("unlogged_to"));
        let gtids = "SELECT @@GLOBAL.gtid_executed";
        let mut without = config(&server, &to);
        without["skip_binary_log"] = json!(true);
        let before = value(&mut c, gtids).await;
        let mut restored = restore(&config(&server, &name), &without, &cx).await.must("restore");
        restored.settle(&cx).await.must("settle");
        assert_eq!(value(&mut c, gtids).await, before);
        // A user who may not switch it off is told before anything is done.
        let limited = as_user(&server, &mut c, &to, &["ALL ON `%`.*", "REPLICATION SLAVE ON *.*"]).await;
        without["url"] = limited["url"].clone();
        without["password_file"] = limited["password_file"].clone();
        let refused = surveyed(&mut *target(&without), &MemorySource::new("db"), &[], &cx).await;
        let refused = refused.err().must("refused");
        assert!(refused.to_string().contains("may not switch the binary log off"), "{refused}");
    });
}
