//! Databases of a real server, filled, looked at and compared.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(dead_code, unreachable_pub, reason = "each test crate uses some")]

pub mod engine;

use backup_core::{
    Backend, Content, Context, Facts, HostRunner, Ledger, Result, Secret, Sink, Source, Target, ToolCommand,
    output_of,
};
use backup_postgres::{PostgresBackend, PostgresConfig};
use backup_testkit::{
    memory::{Contents, ContentsSink, MemorySource, surveyed},
    services::{self, Postgres},
};
use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A database of its own on a shared server; dropped with everything that was made of it.
pub struct Database {
    pub server: Arc<Postgres>,
    pub name: String,
    password: tempfile::NamedTempFile,
    /// Of the restores that were begun.
    ids: std::sync::Mutex<Vec<String>>,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Database {
    /// None of this name is there yet.
    pub async fn absent(version: u32) -> Self {
        Self::on(services::postgres(version).await)
    }

    pub fn on(server: Arc<Postgres>) -> Self {
        let mut password = tempfile::NamedTempFile::new().unwrap();
        writeln!(password, "{}", server.password()).unwrap();
        let name = format!("fixture_{}", NUMBER.fetch_add(1, Relaxed));
        Database { server, name, password, ids: std::sync::Mutex::default() }
    }

    /// Filled with these statements.
    pub async fn with(version: u32, sql: &str) -> Self {
        let database = Self::absent(version).await;
        database.admin(&format!("CREATE DATABASE {}", database.name)).await;
        database.sql(sql).await;
        database
    }

    pub fn config(&self) -> PostgresConfig {
        self.config_of(&self.name)
    }

    pub fn config_of(&self, database: &str) -> PostgresConfig {
        let mut config = PostgresConfig::url(self.server.url(database));
        config.password_file = Some(self.password.path().to_owned());
        config
    }

    pub fn source(&self) -> Box<dyn Source> {
        backend().source("c", self.config().to_value()).unwrap()
    }

    pub fn target(&self) -> Box<dyn Target> {
        self.target_by(self.config())
    }

    /// A restore of this database that is configured so.
    pub fn target_by(&self, config: PostgresConfig) -> Box<dyn Target> {
        let target = backend().target("c", config.to_value()).unwrap();
        self.ids.lock().unwrap().push(target.undo()["id"].as_str().unwrap().to_owned());
        target
    }

    /// Runs statements; a value of the last one.
    pub async fn sql(&self, sql: &str) -> String {
        self.psql(&self.name, sql).await.unwrap()
    }

    pub async fn try_sql(&self, sql: &str) -> Result<String> {
        self.psql(&self.name, sql).await
    }

    /// In another database of the server.
    pub async fn admin(&self, sql: &str) -> String {
        self.psql("postgres", sql).await.unwrap()
    }

    pub async fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let call = self.tool("psql", database).args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-f", "-"]);
        let call = call.reading(Content::whole(sql.to_owned()));
        let said = output_of(&HostRunner, call, 64 << 20, Duration::from_secs(120)).await?;
        Ok(String::from_utf8_lossy(&said).trim().to_owned())
    }

    pub fn tool(&self, program: &str, database: &str) -> ToolCommand {
        ToolCommand::new(program)
            .env("PGHOST", Secret::new("127.0.0.1"))
            .env("PGPORT", Secret::new(self.server.port().to_string()))
            .env("PGUSER", Secret::new("postgres"))
            .env("PGDATABASE", Secret::new(database))
            .env("PGAPPNAME", Secret::new("test"))
            .env("PGCLIENTENCODING", Secret::new("UTF8"))
            .env("PGPASSWORD", Secret::new(self.server.password()))
    }

    /// Changes with everything that matters: definitions, database properties, every row of every table, large objects, sequences.
    pub async fn fingerprint(&self) -> String {
        self.fingerprint_of(&self.name).await
    }

    pub async fn fingerprint_of(&self, name: &str) -> String {
        let literal = name.replace('\'', "''");
        let exists =
            self.admin(&format!("SELECT count(*) FROM pg_database WHERE datname = '{literal}'")).await;
        if exists == "0" {
            return "nothing".to_owned();
        }
        // The server's own pg_dump; the name of the database and the mark of a restore are not part of it.
        let dump = self.server.container().exec(&["pg_dump", "-U", "postgres", "-s", "--create", name]).await;
        let mut out: Vec<String> = dump
            .lines()
            .filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"))
            .filter(|line| !line.starts_with("--") && !line.is_empty())
            .map(|line| line.replace(name, "DATABASE"))
            .filter(|line| !line.contains("[backup restore") && !line.starts_with("COMMENT ON DATABASE"))
            .collect();
        let tables = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
              AND (c.relkind = 'r' OR c.relispopulated) ORDER BY 1";
        let mut sums =
            vec!["SET extra_float_digits = 3; SET bytea_output = hex; SET timezone = UTC;".to_owned()];
        for table in self.psql(name, tables).await.unwrap().lines() {
            sums.push(format!(
                "SELECT '{}', count(*), md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text COLLATE \"C\"), '')) FROM ONLY {table} t;",
                table.replace('\'', "''")
            ));
        }
        sums.push("SELECT oid, pg_get_userbyid(lomowner), lomacl, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid;".into());
        sums.push(
            "SELECT 'sequence', schemaname, sequencename, last_value FROM pg_sequences ORDER BY 2, 3;".into(),
        );
        out.push(self.psql(name, &sums.join("\n")).await.unwrap());
        out.join("\n")
    }

    /// Sessions, locks and snapshots of ours that the server still has. Waits a moment for those that are ending.
    pub fn taken(&self) -> Vec<String> {
        let sql = "SELECT application_name || ' ' || state || ' ' || left(query, 80) FROM pg_stat_activity WHERE application_name LIKE 'backup %'
            AND datname = '".to_owned() + &self.name + "'";
        let began = Instant::now();
        loop {
            let left = self.blocking_psql(&sql);
            if left.is_empty() || began.elapsed() > Duration::from_secs(30) {
                return left.lines().map(str::to_owned).collect();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn blocking_psql(&self, sql: &str) -> String {
        let out = std::process::Command::new("psql")
            .args(["-qAtX", "-c", sql])
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.server.port().to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("PGPASSWORD", self.server.password())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// What restores of this database left behind: what it says of itself, and what was made by them. Other tests restore other
    /// databases of this server meanwhile.
    pub async fn leftovers_of_this(&self) -> Vec<String> {
        let marked = format!(
            "SELECT datname FROM pg_database WHERE datname = '{}' AND shobj_description(oid, 'pg_database') LIKE '%[backup restore%'",
            self.name
        );
        let mut all: Vec<String> = self.admin(&marked).await.lines().map(str::to_owned).collect();
        let ids = self.ids.lock().unwrap().clone();
        for id in ids {
            let sql = format!(
                "SELECT datname FROM pg_database WHERE datname IN ('backup_new_{id}', 'backup_old_{id}')"
            );
            all.extend(self.admin(&sql).await.lines().map(str::to_owned));
        }
        all
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = &self.name;
        let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
        // A server that was killed on purpose has nothing to be dropped.
        let _ = std::process::Command::new("psql")
            .args(["-qAtX", "-c", &drop])
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.server.port().to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("PGPASSWORD", self.server.password())
            .output();
    }
}

pub fn backend() -> PostgresBackend {
    PostgresBackend::new(Arc::new(engine::DockerProgram))
}

/// Pours into memory, behind a ledger. What was lost is an error here.
pub async fn pour(source: &dyn Source, cx: &Context) -> Result<(Contents, Facts)> {
    let sink = ContentsSink::new();
    let ledger = Ledger::new(Arc::new(sink.clone()), "c", cx);
    let view = source.connect(cx).await?.fix(cx).await?;
    let facts = view.pour(ledger.clone(), cx).await?;
    ledger.finish(cx).await?;
    assert_eq!(ledger.settle_losses(), 0, "{:?}", cx.notes());
    Ok((sink.take(), facts))
}

/// What was poured, as a source.
pub fn held(contents: Contents, facts: Facts) -> MemorySource {
    let mut source = MemorySource::new("c");
    for held in contents.into_values() {
        source = source.with(held.entry.clone(), move || held.content());
    }
    source.with_facts(facts)
}

/// The same; what is larger than a megabyte pauses for some seconds before its end, so that there is time to break it.
pub fn held_slowly(contents: Contents, facts: Facts) -> MemorySource {
    let mut source = MemorySource::new("c");
    for held in contents.into_values() {
        source = source.with(held.entry.clone(), move || pausing(held.content()));
    }
    source.with_facts(facts)
}

fn pausing(mut content: Content) -> Content {
    Content::produce(move |feed| async move {
        let mut sent = 0;
        while let Some(bytes) = content.next().await? {
            sent += bytes.len();
            feed.send(bytes).await?;
        }
        if sent > 1 << 20 {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        }
        Ok(content.facts().cloned().unwrap_or_default())
    })
}

/// From one database right into another, published and settled.
pub async fn mirror(from: &Database, to: &Database) {
    let cx = Context::default();
    let mut target = to.target();
    surveyed(&mut *target, &MemorySource::new("c"), &[], &cx).await.unwrap();
    let sink = target.prepare(&cx).await.unwrap();
    let ledger = Ledger::new(sink, "c", &cx);
    let view = from.source().connect(&cx).await.unwrap().fix(&cx).await.unwrap();
    let expected = view.pour(ledger.clone(), &cx).await.unwrap();
    let there = ledger.finish(&cx).await.unwrap();
    assert_eq!(ledger.settle_losses(), 0, "{:?}", cx.notes());
    let mut expected_all = expected;
    expected_all.add_missing(there.clone());
    let differences = backup_core::compare(&expected_all, &there, &|_, _| false);
    assert!(differences.is_empty(), "{differences:?}");
    target.publish(&cx).await.unwrap();
    target.settle(&cx).await.unwrap();
    assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
}

/// Restores this, published and settled; any failure is reverted, as a restore does it.
pub async fn restore(source: MemorySource, to: &Database) -> Result<Context> {
    restore_by(source, to.target()).await
}

pub async fn restore_by(source: MemorySource, target: Box<dyn Target>) -> Result<Context> {
    restore_with(source, target, Context::default()).await
}

pub async fn restore_with(source: MemorySource, mut target: Box<dyn Target>, cx: Context) -> Result<Context> {
    let survey = surveyed(&mut *target, &source, &[], &cx).await?;
    let done = async {
        let sink = target.prepare(&cx).await?;
        if survey.in_place {
            target.clear(&cx).await?;
        }
        let ledger = Ledger::new(sink, "c", &cx);
        let view = source.connect(&cx).await?.fix(&cx).await?;
        let mut expected = view.pour(ledger.clone(), &cx).await?;
        let there = ledger.finish(&cx).await?;
        assert_eq!(ledger.settle_losses(), 0, "{:?}", cx.notes());
        expected.add_missing(there.clone());
        let differences = backup_core::compare(&expected, &there, &|subject, _| subject == "database");
        assert!(differences.is_empty(), "{differences:?}");
        target.publish(&cx).await
    };
    match done.await {
        Ok(()) => target.settle(&cx).await.map(|()| cx),
        Err(e) => {
            target.revert(&cx).await?;
            Err(e)
        }
    }
}

/// Restores this and publishes it; what was there is kept.
pub async fn published(source: &MemorySource, mut target: Box<dyn Target>, cx: &Context) -> Box<dyn Target> {
    surveyed(&mut *target, source, &[], cx).await.unwrap();
    let ledger = Ledger::new(target.prepare(cx).await.unwrap(), "c", cx);
    let view = source.connect(cx).await.unwrap().fix(cx).await.unwrap();
    view.pour(ledger.clone(), cx).await.unwrap();
    ledger.finish(cx).await.unwrap();
    target.publish(cx).await.unwrap();
    target
}
