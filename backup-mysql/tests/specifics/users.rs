//! Users, roles and grants: of a server of their own, for they are everybody's.

use super::common::{config, conn, fresh, run, value};
use super::{captured, restore_data, source, target};
use backup_core::{Context, ErrorKind, Fact, Severity};
use backup_testkit::{
    Must,
    conformance::pouring::pour,
    memory::{MemorySource, surveyed},
    run as in_time, services,
    services::{Flavor, Mysql},
};
use mysql_async::{Conn, Row, prelude::Queryable};
use serde_json::json;

const MARIADB: &str = "INSERT INTO mysql.proxies_priv (Host, User, Proxied_host, Proxied_user, With_grant) VALUES ('%', 'root', '', '', 1);; FLUSH PRIVILEGES;; CREATE ROLE boss;; CREATE ROLE reader;; GRANT reader TO boss;; \
    CREATE USER 'o''x'@'%' IDENTIFIED BY 'its p''w' REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 500;; \
    CREATE USER two@localhost IDENTIFIED VIA mysql_native_password USING PASSWORD('x') OR unix_socket ACCOUNT LOCK;; \
    GRANT PROXY ON ''@'%' TO 'o''x'@'%' WITH GRANT OPTION;; GRANT PROXY ON 'o''x'@'%' TO two@localhost;; \
    GRANT boss TO 'o''x'@'%' WITH ADMIN OPTION;; SET DEFAULT ROLE boss FOR 'o''x'@'%'";
const MYSQL: &str = "CREATE ROLE boss, reader;; GRANT reader TO boss;; \
    CREATE USER 'o''x'@'%' IDENTIFIED BY 'its p''w' DEFAULT ROLE boss REQUIRE SSL WITH MAX_QUERIES_PER_HOUR 500 COMMENT 'it''s';; \
    CREATE USER two@localhost IDENTIFIED BY 'x' ACCOUNT LOCK PASSWORD EXPIRE INTERVAL 90 DAY;; \
    GRANT boss TO 'o''x'@'%' WITH ADMIN OPTION;; GRANT BACKUP_ADMIN ON *.* TO two@localhost";

/// What a server says of all users and roles that tests make.
async fn users(c: &mut Conn) -> Vec<String> {
    let _ = c.query_drop("SET print_identified_with_as_hex = ON").await;
    let list: Vec<(String, String)> = c
        .query("SELECT User, Host FROM mysql.user WHERE User IN ('o''x', 'two', 'boss', 'reader', 'stays') ORDER BY 1, 2")
        .await
        .unwrap();
    let mut said = Vec::new();
    for (name, host) in list {
        let name = name.replace('\'', "''");
        let account = if host.is_empty() { format!("'{name}'") } else { format!("'{name}'@'{host}'") };
        for sql in [format!("SHOW CREATE USER {account}"), format!("SHOW GRANTS FOR {account}")] {
            if host.is_empty() && sql.starts_with("SHOW CREATE") {
                continue;
            }
            let rows: Vec<Row> = c.query(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
            let mut lines: Vec<String> = rows.into_iter().map(|r| r.get::<String, _>(0).unwrap()).collect();
            lines.sort();
            said.extend(lines);
        }
    }
    said
}

async fn drop_users(c: &mut Conn) {
    run(c, "DROP USER IF EXISTS 'o''x'@'%', two@localhost;; DROP ROLE IF EXISTS boss, reader").await;
}

struct Made {
    server: Mysql,
    c: Conn,
    name: String,
    data: MemorySource,
}

/// A server with users, and a backup of them.
async fn made(flavor: Flavor, cx: &Context) -> Made {
    let server = services::own_mysql(flavor, &[]).await;
    let mut c = conn(&server).await;
    let name = fresh("shop");
    run(&mut c, &format!("CREATE DATABASE {name};; CREATE TABLE {name}.t (a int PRIMARY KEY, b int);; CREATE PROCEDURE {name}.p() SELECT 1")).await;
    run(&mut c, if flavor.is_mariadb() { MARIADB } else { MYSQL }).await;
    run(&mut c, &format!("GRANT SELECT (a), INSERT ON {name}.t TO 'o''x'@'%' WITH GRANT OPTION;; GRANT EXECUTE ON PROCEDURE {name}.p TO two@localhost;; GRANT SELECT ON {name}.* TO reader")).await;
    run(&mut c, "CREATE USER stays@'%' IDENTIFIED BY 'before'").await;
    let mut from = config(&server, &name);
    from["globals"] = json!(true);
    let data = captured(&from, cx).await.must("pour");
    Made { server, c, name, data }
}

/// What is asked of a target with users.
fn with_users(m: &Made) -> serde_json::Value {
    let mut to = config(&m.server, &m.name);
    to["globals"] = json!(true);
    to
}

async fn come_back(flavor: Flavor) {
    let cx = Context::default();
    let mut m = made(flavor, &cx).await;
    let before = users(&mut m.c).await;
    assert!(before.len() > 8, "{before:?}");
    let proxies = before.iter().filter(|line| line.starts_with("GRANT PROXY")).count();
    assert_eq!(proxies, if flavor.is_mariadb() { 2 } else { 0 }, "{before:?}");
    // Who is there stays as he is, whatever the backup says.
    run(&mut m.c, "DROP USER stays@'%';; CREATE USER stays@'%' IDENTIFIED BY 'after'").await;
    let stays = users(&mut m.c).await;
    drop_users(&mut m.c).await;
    let mut to = target(&with_users(&m));
    let survey = surveyed(&mut *to, &m.data, &[], &cx).await.must("survey");
    let plan = survey.notes.join("\n");
    assert!(
        plan.contains("are made") && plan.contains("`o'x`@`%`") && plan.contains("`stays`@`%`"),
        "{plan}"
    );
    drop(to);
    let mut restored = restore_data(&m.data, &with_users(&m), &cx).await.must("restore");
    m.c = conn(&m.server).await;
    assert_eq!(users(&mut m.c).await, stays);
    let said = cx.notes().list;
    assert!(said.iter().any(|n| n.path == "`stays`@`%`" && n.text.contains("stays as it is")), "{said:?}");
    if flavor.is_mariadb() {
        let admins =
            "SELECT COUNT(*) FROM mysql.roles_mapping WHERE User = 'root' AND Role IN ('boss', 'reader')";
        assert_eq!(value(&mut m.c, admins).await, "0", "who restores is no administrator of the roles");
    }
    // An undo takes away those that the restore made, and nobody else.
    restored.revert(&cx).await.must("revert");
    m.c = conn(&m.server).await;
    let left = users(&mut m.c).await;
    assert!(!left.is_empty() && left.iter().all(|l| l.contains("stays")), "{left:?}");
}

#[test]
fn users_roles_and_grants_come_back_if_asked_for_and_who_is_there_stays_as_he_is() {
    in_time("users_roles_and_grants_come_back_if_asked_for_and_who_is_there_stays_as_he_is", async {
        for flavor in [Flavor::Mariadb118, Flavor::Mariadb1011, Flavor::Mysql9] {
            come_back(flavor).await;
        }
    });
}

#[test]
fn users_that_nobody_asks_for_are_not_restored_and_users_that_are_hidden_are_no_silent_loss() {
    in_time(
        "users_that_nobody_asks_for_are_not_restored_and_users_that_are_hidden_are_no_silent_loss",
        async {
            let cx = Context::default();
            let mut m = made(Flavor::Mysql9, &cx).await;
            drop_users(&mut m.c).await;
            let mut plain = target(&config(&m.server, &m.name));
            let survey = surveyed(&mut *plain, &m.data, &[], &cx).await.must("survey");
            assert!(survey.notes.iter().any(|n| n.contains("--globals")), "{:?}", survey.notes);
            let mut restored = restore_data(&m.data, &config(&m.server, &m.name), &cx).await.must("restore");
            restored.settle(&cx).await.must("settle");
            m.c = conn(&m.server).await;
            assert!(users(&mut m.c).await.iter().all(|l| l.contains("stays")));
            // The origin of a backup with users does not ask for their restore.
            let mut from = with_users(&m);
            assert!(source(&from).origin().get("globals").is_none());
            // A backup without users has none to restore.
            let without = captured(&config(&m.server, &m.name), &cx).await.must("pour");
            let error = restore_data(&without, &with_users(&m), &cx).await.err().must("refused");
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            // Who may not read them is refused, if they were asked for, and told so, if not.
            run(
                &mut m.c,
                &format!(
                    "CREATE USER looks@'%' IDENTIFIED BY 'p';; GRANT SELECT ON {}.* TO looks@'%'",
                    m.name
                ),
            )
            .await;
            from["url"] = json!(from["url"].as_str().unwrap().replace("root@", "looks@"));
            from["password_file"] = json!(super::secret_file("looks", "p"));
            let error = source(&from).connect(&cx).await.err().must("denied");
            assert!(
                error.kind() == ErrorKind::Denied && error.hint_text().is_some_and(|h| h.contains("GRANT")),
                "{error}"
            );
            from["globals"] = json!(null);
            from["databases"] = json!(["*"]);
            source(&from).connect(&cx).await.must("connect");
            let said = cx.notes().list;
            assert!(
                said.iter().any(|n| n.severity == Severity::Warning && n.text.contains("mysql.user")),
                "{said:?}"
            );
        },
    );
}

#[test]
fn with_all_databases_users_are_in_the_backup_and_named_in_its_facts() {
    in_time("with_all_databases_users_are_in_the_backup_and_named_in_its_facts", async {
        let cx = Context::default();
        let m = made(Flavor::Mariadb118, &cx).await;
        let mut from = config(&m.server, &m.name);
        from["databases"] = json!(["*"]);
        let sink = std::sync::Arc::new(backup_testkit::memory::ContentsSink::new());
        let poured = pour(&*source(&from), "db", sink.clone(), &cx).await.must("pour");
        let named = poured.proof.get("users", "`o'x`@`%`");
        assert_eq!(named, Some(&Fact::Note("mysql_native_password".into())), "{:?}", poured.proof);
        let contents = sink.take();
        let users = contents.get(b"users+grants.sql".as_slice()).must("the users");
        let text = String::from_utf8(users.chunks.concat()).unwrap();
        assert!(text.contains("CREATE ROLE `boss`") && !text.contains("its p"), "{text}");
    });
}
