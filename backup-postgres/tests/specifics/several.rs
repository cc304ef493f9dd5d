//! Several databases in one backup: of all that a server has, back on another, and never a mixture of old and new.

use crate::{
    by_hand,
    common::{Database, backend, held, pour, published, restore_by},
};
use async_trait::async_trait;
use backup_core::{Backend, Context, ErrorKind, Fact, Result, Severity, Target};
use backup_postgres::{Method, PostgresConfig};
use backup_testkit::{
    conformance::target::{self, TargetFixture},
    memory::{MemorySource, surveyed},
    run, services,
};
use serde_json::Value;
use std::sync::{Arc, Mutex};

const EVERYTHING: &str = include_str!("../common/everything.sql");
/// A name that means something in SQL, in paths, in connection strings and to this program.
const NAMES: [&str; 3] = ["app", "b.c/d 'e'", "database"];

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn databases<S: Into<String>>(of: &Database, names: impl IntoIterator<Item = S>) -> PostgresConfig {
    let mut config = of.config_of("");
    config.databases = names.into_iter().map(Into::into).collect();
    config
}

/// Of the version whose tools this host has: what is done by hand is done with them.
async fn empty_server() -> Database {
    Database::on(Arc::new(services::own_postgres(15).await))
}

async fn fingerprints(of: &Database) -> Vec<String> {
    let mut all = Vec::new();
    for name in NAMES.iter().chain(&["postgres"]) {
        all.push(of.fingerprint_of(name).await);
    }
    all
}

#[test]
fn all_databases_of_a_server_come_back_on_another_with_its_roles() {
    run("all_databases_of_a_server_come_back_on_another_with_its_roles", async {
        let from = empty_server().await;
        from.admin("CREATE TABLE here_too AS SELECT 1 i; CREATE ROLE keeper").await;
        for (name, sql) in NAMES.into_iter().zip([
            EVERYTHING,
            "CREATE TABLE t AS SELECT i FROM generate_series(1, 7) i; ALTER TABLE t OWNER TO keeper; CREATE TABLE log AS SELECT 1 i",
            "CREATE TABLE log AS SELECT i FROM generate_series(1, 5) i; SELECT lo_from_bytea(0, 'large')",
        ]) {
            from.admin(&format!("CREATE DATABASE {}", quoted(name))).await;
            from.psql(name, sql).await.unwrap();
        }
        // What nobody can read is said; what a restore keeps beside others is none of them.
        from.admin(&format!(
            "CREATE DATABASE closed ALLOW_CONNECTIONS false; CREATE DATABASE backup_old_{}",
            "0".repeat(26)
        ))
        .await;

        let all = databases(&from, ["*"]);
        let (cx, source) = (Context::default(), backend().source("c", all.to_value()).unwrap());
        let (contents, facts) = pour(&*source, &cx).await.unwrap();
        let notes = cx.notes().list;
        assert!(notes.iter().any(|n| n.path == "closed" && n.severity == Severity::Warning), "{notes:?}");
        let Some(Fact::Note(said)) = facts.get("all", "moments") else { panic!("{facts:?}") };
        assert!(said.contains("4 databases, each of one moment of its own"), "{said}");
        assert_eq!(facts.count("b%2Ec%2Fd %27e%27/table public.t", "rows in 00000"), 7);
        assert_eq!(facts.get("roles", "keeper"), Some(&Fact::Note("no login".into())));
        assert!(contents.contains_key(b"database/public.log/00000.copybin".as_slice()));
        assert!(contents.contains_key(b"postgres/public.here_too/00000.copybin".as_slice()));
        // The globals of the source are its own matter: a restore makes them if it is asked to.
        assert!(source.origin().get("globals").is_none());

        let expected = fingerprints(&from).await;
        let unpacked = by_hand::unpacked(&contents);
        let backup = held(contents, facts);
        let to = empty_server().await;
        to.admin("CREATE TABLE old AS SELECT 1 i; CREATE DATABASE app").await;
        let before = fingerprints(&to).await;
        let mut config = to.config_of("");
        config.globals = Some(true);
        let target = || backend().target("c", config.to_value()).unwrap();
        let survey = surveyed(&mut *target(), &backup, &[], &Context::default()).await.unwrap();
        assert!(
            survey.publish.contains("all 4 databases change names in one transaction"),
            "{}",
            survey.publish
        );
        assert!(survey.present.contains("app: an empty database") && survey.replaces, "{}", survey.present);
        let mut undone = published(&backup, target(), &Context::default()).await;
        assert_eq!(fingerprints(&to).await, expected);
        undone.check_revert(&Context::default()).await.unwrap();
        undone.revert(&Context::default()).await.unwrap();
        assert_eq!(fingerprints(&to).await, before);
        restore_by(backup.clone(), target()).await.unwrap();
        assert_eq!(fingerprints(&to).await, expected);
        // In place, the database that others are renamed from included.
        to.admin("CREATE TABLE old AS SELECT 1 i; DROP DATABASE app").await;
        let mut in_place = config.clone();
        in_place.in_place = true;
        let in_place = backend().target("c", in_place.to_value()).unwrap();
        restore_by(backup, in_place).await.unwrap();
        assert_eq!(fingerprints(&to).await, expected);
        let left = "SELECT (SELECT count(*) FROM pg_database WHERE datname ~ '^backup_'), (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'backup %')";
        assert_eq!(to.admin(left).await, "0|0");

        // By hand, with the guide in the folder of a database: its roles lie beside it.
        to.admin(&format!("DROP DATABASE {}; DROP DATABASE app; DROP ROLE keeper", quoted(NAMES[1]))).await;
        by_hand::follow(&to, &unpacked.path().join("b%2Ec%2Fd %27e%27")).await;
        assert_eq!(to.fingerprint_of(NAMES[1]).await, from.fingerprint_of(NAMES[1]).await);

        // One file for each; without roles if that is said; exclusions of all of them, or of one.
        let mut dumped = databases(&from, NAMES[1..].iter().copied());
        dumped.method = Some(Method::Dump);
        dumped.globals = Some(false);
        dumped.exclude_tables = vec!["b.c*/public.log".into()];
        dumped.exclude_table_data = vec!["public.lo*".into()];
        let source = backend().source("c", dumped.to_value()).unwrap();
        let (contents, facts) = pour(&*source, &Context::default()).await.unwrap();
        let files: Vec<_> = contents.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        assert!(files.contains(&"database/database.dump".to_owned()), "{files:?}");
        assert!(!files.iter().any(|file| file.starts_with("roles")), "{files:?}");
        let there = empty_server().await;
        there.admin("CREATE ROLE keeper").await;
        let target = backend().target("c", there.config_of("").to_value()).unwrap();
        restore_by(held(contents, facts), target).await.unwrap();
        let logs = async |name: &str| {
            there.psql(name, "SELECT count(*), (SELECT count(*) FROM pg_class WHERE relname = 'log') FROM pg_largeobject_metadata").await.unwrap()
        };
        assert_eq!((logs(NAMES[1]).await, logs(NAMES[2]).await), ("0|0".to_owned(), "1|1".to_owned()));
        assert_eq!(there.psql(NAMES[2], "SELECT count(*) FROM log").await.unwrap(), "0");

        dumped.exclude_tables = vec!["database/public.t".into()];
        let source = backend().source("c", dumped.to_value()).unwrap();
        let e = pour(&*source, &Context::default()).await.unwrap_err();
        assert!(e.kind() == ErrorKind::NotFound && e.to_string().contains("database/public.t"), "{e}");
        let absent = backend().source("c", databases(&from, ["app", "absent"]).to_value()).unwrap();
        let e = pour(&*absent, &Context::default()).await.unwrap_err();
        assert!(e.kind() == ErrorKind::NotFound && e.to_string().contains("absent"), "{e}");
        let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'backup %'";
        assert_eq!(from.admin(open).await, "0");
    });
}

/// Two databases of a server that others use, too. Their names are those of the backup.
struct Two {
    databases: [Database; 2],
    /// Of the restores that were begun.
    ids: Mutex<Vec<String>>,
}

impl Two {
    /// None of this name may be there from before.
    async fn holding(prefix: &str, sql: Option<&str>) -> Self {
        let one = async |name: &str| {
            let mut database = Database::absent(15).await;
            database.name = name.to_owned();
            if let Some(sql) = sql {
                database.admin(&format!("CREATE DATABASE {name}")).await;
                database.sql(sql).await;
            }
            database
        };
        let databases = [one(&format!("{prefix}_a")).await, one(&format!("{prefix}_b")).await];
        Two { databases, ids: Mutex::default() }
    }

    fn config(&self) -> PostgresConfig {
        databases(&self.databases[0], self.databases.iter().map(|d| &d.name))
    }
}

/// One store after another.
struct Several {
    /// Names of its databases begin with it.
    prefix: &'static str,
    data: MemorySource,
}

impl Several {
    async fn new(prefix: &'static str) -> Self {
        let new = "CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a SELECT i, 'row ' || i FROM generate_series(1, 100) i";
        let from = Two::holding(prefix, Some(new)).await;
        let source = backend().source("c", from.config().to_value()).unwrap();
        let (contents, facts) = pour(&*source, &Context::default()).await.unwrap();
        Several { prefix, data: held(contents, facts) }
    }
}

#[async_trait]
impl TargetFixture for Several {
    type Store = Two;

    async fn store(&self, old_data: bool) -> Two {
        let old = "CREATE TABLE old (i int); INSERT INTO old VALUES (1)";
        Two::holding(self.prefix, old_data.then_some(old)).await
    }

    /// Surveyed: the plan knows which databases are coming, and so does from then on what undoes it.
    async fn target(&self, store: &Two) -> Box<dyn Target> {
        let mut target = backend().target("c", store.config().to_value()).unwrap();
        surveyed(&mut *target, &self.data, &[], &Context::default()).await.unwrap();
        let undo = target.undo();
        let names = store.databases.each_ref().map(|database| database.name.as_str());
        assert_eq!(undo["databases"], serde_json::json!(names));
        store.ids.lock().unwrap().push(undo["id"].as_str().unwrap().to_owned());
        target
    }

    fn recover(&self, _: &Two, undo: Value) -> Result<Box<dyn Target>> {
        backend().recover(undo)
    }

    /// Tables and rows: enough to tell old from new, and quick, for it is asked for again and again.
    async fn fingerprint(&self, store: &Two) -> String {
        let mut out = String::new();
        for database in &store.databases {
            let tables = "SELECT string_agg(relname || ' ' || (xpath('/row/n/text()', query_to_xml('SELECT count(*) n FROM ' || relname, false, true, '')))[1], ',' ORDER BY relname)
                FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
            let there = database
                .admin(&format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", database.name))
                .await;
            let tables = if there == "1" { database.sql(tables).await } else { "nothing".to_owned() };
            out += &format!("{}: {tables}; ", database.name);
        }
        out
    }

    fn new_data(&self) -> MemorySource {
        self.data.clone()
    }

    async fn leftovers(&self, store: &Two) -> Vec<String> {
        let ids = store.ids.lock().unwrap().join("|");
        let sql = format!(
            "SELECT datname FROM pg_database WHERE datname ~ '^backup_(new|old)_({ids})'
             OR datname LIKE '{}\\_%' AND shobj_description(oid, 'pg_database') LIKE '%[backup restore%'",
            self.prefix
        );
        store.databases[0].admin(&sql).await.lines().map(str::to_owned).collect()
    }

    fn polls(&self) -> Vec<u32> {
        vec![6]
    }
}

#[test]
fn of_several_databases_none_is_new_while_another_is_old_if_publishing_is_killed() {
    run("of_several_databases_none_is_new_while_another_is_old_if_publishing_is_killed", async {
        target::killed_in_publish_a_later_process_reverts(&Several::new("several_published").await).await;
    });
}

#[test]
fn of_several_databases_none_is_new_while_another_is_old_if_the_way_back_is_killed() {
    run("of_several_databases_none_is_new_while_another_is_old_if_the_way_back_is_killed", async {
        target::killed_in_revert_a_later_process_reverts(&Several::new("several_reverted").await).await;
    });
}

#[test]
fn of_several_databases_all_old_ones_go_if_settling_is_killed() {
    run("of_several_databases_all_old_ones_go_if_settling_is_killed", async {
        target::killed_in_settle_a_later_process_settles(&Several::new("several_settled").await).await;
    });
}
