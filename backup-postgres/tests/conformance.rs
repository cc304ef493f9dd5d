//! PostgreSQL as a store that keeps all promises.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use async_trait::async_trait;
use backup_core::{Backend, ContainerFacts, Context, Result, Source, Target};
use backup_postgres::PostgresConfig;
use backup_testkit::{
    conformance::{
        backend::{BackendFixture, Place},
        source::{Made, Setup, SourceFixture},
        target::TargetFixture,
    },
    memory::MemorySource,
};
use common::{Database, backend, held, pour};
use serde_json::Value;
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

/// The version whose tools this host has, if it has any: a call in a container takes longer.
const VERSION: u32 = 15;

const KNOWN: &str = "CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a SELECT i, 'row ' || i FROM generate_series(1, 1000) i;
    CREATE TABLE b (id serial, x jsonb, r regclass); INSERT INTO b (x, r) VALUES ('{}', 'a'), (NULL, NULL);
    CREATE TABLE empty (); CREATE VIEW v AS SELECT count(*) FROM a; SELECT lo_from_bytea(0, 'large');";

/// Restored several hundred times.
const SMALL: &str = "CREATE TABLE a (id int PRIMARY KEY, t text); INSERT INTO a SELECT i, 'row ' || i FROM generate_series(1, 1000) i;
    CREATE TABLE b (id serial, x jsonb); INSERT INTO b (x) VALUES ('{}'), (NULL);";

/// Keeps the server from one store to the next: without anybody who uses it, it ends, and starting one takes seconds.
#[derive(Default)]
struct Postgres(OnceLock<Arc<backup_testkit::services::Postgres>>);

impl Postgres {
    async fn database(&self, sql: &str) -> Database {
        self.kept(Database::with(VERSION, sql).await)
    }

    fn kept(&self, database: Database) -> Database {
        self.0.get_or_init(|| database.server.clone());
        database
    }
}

struct Boxed(Box<dyn Source>);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl Source for Boxed {
    async fn connect(&self, cx: &Context) -> Result<Box<dyn backup_core::Ready>> {
        self.0.connect(cx).await
    }

    fn origin(&self) -> Value {
        self.0.origin()
    }
}

#[async_trait]
impl SourceFixture for Postgres {
    async fn store(&self, setup: Setup) -> Option<Made> {
        let sql = match setup {
            Setup::Empty => String::new(),
            Setup::Known => KNOWN.to_owned(),
            Setup::Big => (0..12)
                .map(|n| format!("CREATE TABLE big{n} AS SELECT i, repeat(md5(i::text), 8) t FROM generate_series(1, 5000) i;"))
                .collect(),
            // Its file is not there.
            Setup::Unreadable => format!("{KNOWN} UPDATE pg_class SET relfilenode = 4000000000 WHERE oid = 'a'::regclass;"),
        };
        let database = Arc::new(self.database(&sql).await);
        let mut made = Made::new(Boxed(database.source()), database.clone());
        made.secret = Some(database.server.password().to_owned());
        if setup == Setup::Big {
            let (database, number) = (database.clone(), std::sync::atomic::AtomicU32::new(0));
            made.disturb = Some(Box::new(move || {
                let n = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let (name, sql) =
                    (&database.name, format!("CREATE TABLE more{n} (i int); DELETE FROM big1 WHERE i = {n}"));
                let url = database.server.url(name);
                let out = std::process::Command::new("psql")
                    .args(["-qc", &sql, &url])
                    .env("PGPASSWORD", database.server.password())
                    .output();
                assert!(out.unwrap().status.success());
            }));
        }
        made.taken = Box::new(move || database.taken());
        Some(made)
    }
}

#[async_trait]
impl TargetFixture for Postgres {
    type Store = Database;

    async fn store(&self, old_data: bool) -> Database {
        match old_data {
            true => self.database("CREATE TABLE old (i int); INSERT INTO old VALUES (1)").await,
            false => self.kept(Database::absent(VERSION).await),
        }
    }

    async fn target(&self, store: &Database) -> Box<dyn Target> {
        store.target()
    }

    fn recover(&self, _: &Database, undo: Value) -> Result<Box<dyn Target>> {
        backend().recover(undo)
    }

    async fn fingerprint(&self, store: &Database) -> String {
        store.fingerprint().await
    }

    fn new_data(&self) -> MemorySource {
        static DATA: OnceLock<MemorySource> = OnceLock::new();
        let made = DATA.get_or_init(|| {
            let made = std::thread::spawn(|| {
                tokio::runtime::Runtime::new().unwrap().block_on(async {
                    let database = Database::with(VERSION, SMALL).await;
                    let (contents, facts) = pour(&*database.source(), &Context::default()).await.unwrap();
                    held(contents, facts)
                })
            });
            made.join().unwrap()
        });
        made.clone()
    }

    async fn leftovers(&self, store: &Database) -> Vec<String> {
        store.leftovers_of_this().await
    }

    /// A try makes two databases and drops them.
    fn polls(&self) -> Vec<u32> {
        vec![1, 2, 3, 5, 8, 12, 17, 24, 33, 45, 60]
    }
}

#[async_trait]
impl BackendFixture for Postgres {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(backend())
    }

    async fn place(&self) -> Place {
        let database = self.database(KNOWN).await;
        Place {
            config: database.config().to_value(),
            absent: database.config_of("no_such_database").to_value(),
            own_texts: vec![
                "postgres://u@h/db".into(),
                "postgresql://h:1/a%20b".into(),
                "postgres:///x?host=/run".into(),
            ],
            wrong_texts: vec![
                "postgres://u:secret@h/db".into(),
                "postgres://h:x/db".into(),
                "postgres://h/db?x=1".into(),
            ],
            kept: Box::new(database),
        }
    }
}

mod source {
    backup_testkit::source_conformance!(super::Postgres::default());
}
mod target {
    backup_testkit::target_conformance!(super::Postgres::default());
}
mod backend_promises {
    backup_testkit::backend_conformance!(super::Postgres::default());
}

#[test]
fn a_star_means_all_databases_of_a_container() {
    let facts =
        ContainerFacts { name: "pg".into(), image: "postgres:17".into(), ..ContainerFacts::default() };
    let named = backend().recognise(&facts, Some("*")).unwrap();
    assert_eq!(named.config["databases"], serde_json::json!(["*"]));
    assert_eq!((named.name.as_str(), named.identity.as_str()), ("pg", "container://pg/*"));
}

#[test]
fn an_address_is_a_whole_configuration() {
    let named = backend().parse("postgres://u@h/app").unwrap().unwrap();
    assert_eq!(named.config, PostgresConfig::url("postgres://u@h/app").to_value());
    assert_eq!((named.name.as_str(), named.identity.as_str()), ("app", "postgres://h:5432/app"));
}
