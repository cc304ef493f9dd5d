//! Servers, databases and their fingerprints, for the tests of this crate.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)] // the helpers of a test are test code too, and each test uses some

pub mod fixtures;
pub mod schema;

use backup_core::{Backend, Context, Fact, Facts, Result, Source, Target, compare};
use backup_mysql::MysqlBackend;
use backup_testkit::{
    conformance::pouring::pour,
    make::streamed,
    memory::{ContentsSink, MemorySource, surveyed},
    services::{Flavor, Mysql},
};
use mysql_async::{Conn, OptsBuilder, Row, Value, prelude::Queryable};
use serde_json::{Value as Json, json};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};
use tokio::sync::Mutex;

/// A name that no other test of this program uses.
pub fn fresh(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{what}_{}", NEXT.fetch_add(1, Relaxed))
}

/// A connection of `root`.
pub async fn conn(server: &Mysql) -> Conn {
    let opts = OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(server.port())
        .user(Some("root"))
        .pass(Some(server.password()))
        .prefer_socket(false)
        .init(vec!["SET NAMES utf8mb4", "SET sql_mode = ''", "SET time_zone = '+00:00'"]);
    Conn::new(opts).await.unwrap()
}

/// Runs statements, each on a line of its own or ended by `;;`.
pub async fn run(c: &mut Conn, script: &str) {
    for statement in script.split(";;").map(str::trim).filter(|s| !s.is_empty()) {
        if let Err(e) = c.query_drop(statement).await {
            panic!("{statement}: {e}");
        }
    }
}

/// One value as text; empty for NULL.
pub async fn value(c: &mut Conn, sql: &str) -> String {
    let row: Option<Row> = c.query_first(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    row.map(|r| r.unwrap().into_iter().next().map(show).unwrap_or_default()).unwrap_or_default()
}

fn show(v: Value) -> String {
    match v {
        Value::NULL => String::new(),
        Value::Bytes(b) => match String::from_utf8(b) {
            Ok(text) => text,
            Err(e) => format!("{:x?}", e.into_bytes()),
        },
        other => other.as_sql(true),
    }
}

fn shown(v: Value) -> Option<String> {
    (v != Value::NULL).then(|| show(v))
}

/// A file with the password of `root`.
pub fn password_file(server: &Mysql) -> PathBuf {
    secret_file(&server.port().to_string(), server.password())
}

/// A file with a secret, in the build directory, where it may stay. Made whole at once: other tests may read it.
pub fn secret_file(of: &str, secret: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mysql-{}-{of}", std::process::id()));
    if !path.exists() {
        let new = path.with_extension(fresh("new"));
        std::fs::write(&new, secret).unwrap();
        std::fs::rename(&new, &path).unwrap();
    }
    path
}

/// Configuration of a database, without encryption: that has a test of its own.
pub fn config(server: &Mysql, database: &str) -> Json {
    json!({
        "url": format!("{}?ssl-mode=DISABLED", server.url(database)),
        "password_file": password_file(server),
    })
}

pub fn source(config: &Json) -> Box<dyn Source> {
    MysqlBackend::default().source("db", config.clone()).unwrap()
}

pub fn target(config: &Json) -> Box<dyn Target> {
    MysqlBackend::default().target("db", config.clone()).unwrap()
}

/// What a source pours, to be poured again; with the rows that it counted.
pub async fn captured(from: &Json, cx: &Context) -> Result<MemorySource> {
    let sink = ContentsSink::new();
    let poured = pour(&*source(from), "db", Arc::new(sink.clone()), cx).await?;
    assert_eq!(poured.lost, 0, "{:?}", cx.notes());
    let facts = poured.proof.iter().filter(|(subject, ..)| *subject != "all");
    let facts = facts.fold(Facts::new(), |all, (s, m, f): (&str, &str, &Fact)| all.with(s, m, f.clone()));
    let mut data = MemorySource::new("db").with_facts(facts);
    for held in sink.take().into_values() {
        let bytes: Vec<u8> = held.chunks.concat();
        match held.entry.size {
            Some(_) => data = data.with_bytes(held.entry, bytes),
            None => data = data.with(held.entry, move || streamed(bytes.clone(), 50_000)),
        }
    }
    Ok(data)
}

/// Restores one database as another; the facts of both sides must agree.
pub async fn restore(from: &Json, to: &Json, cx: &Context) -> Result<Box<dyn Target>> {
    let data = captured(from, cx).await?;
    restore_data(&data, to, cx).await
}

/// The same of what was captured before.
pub async fn restore_data(data: &MemorySource, to: &Json, cx: &Context) -> Result<Box<dyn Target>> {
    restore_accepting(data, to, &[], cx).await
}

/// The same with these refusals accepted.
pub async fn restore_accepting(
    data: &MemorySource,
    to: &Json,
    accept: &[&str],
    cx: &Context,
) -> Result<Box<dyn Target>> {
    let mut target = target(to);
    match fill_and_publish(data, &mut *target, accept, cx).await {
        Ok(()) => Ok(target),
        Err(e) => {
            target.revert(&cx.calm()).await?;
            Err(e)
        }
    }
}

async fn fill_and_publish(
    data: &MemorySource,
    target: &mut dyn Target,
    accept: &[&str],
    cx: &Context,
) -> Result<()> {
    let survey = surveyed(target, data, accept, cx).await?;
    let sink = target.prepare(cx).await?;
    if survey.in_place {
        target.clear(cx).await?;
    }
    let expected = {
        let nowhere = Arc::new(ContentsSink::new());
        pour(data, "db", nowhere, cx).await?.proof
    };
    let poured = pour(data, "db", sink, cx).await?;
    assert_eq!(poured.lost, 0, "{:?}", cx.notes());
    let differences = compare(&expected, &poured.proof, &|_, _| false);
    assert!(differences.is_empty(), "{differences:?}");
    target.publish(cx).await
}

/// Everything of a database but its name: what makes its objects, and every value of every table.
pub async fn fingerprint(c: &mut Conn, database: &str) -> String {
    let mut out = String::new();
    let properties = format!(
        "SELECT CONCAT(DEFAULT_CHARACTER_SET_NAME, ' ', DEFAULT_COLLATION_NAME) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = '{database}'"
    );
    let found = value(c, &properties).await;
    if found.is_empty() {
        return "there is no such database".to_owned();
    }
    writeln!(out, "{found}").unwrap();
    run(c, &format!("USE `{database}`")).await;
    let tables: Vec<(String, String)> = c
        .query(format!(
            "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{database}' ORDER BY TABLE_NAME"
        ))
        .await
        .unwrap();
    for (table, kind) in &tables {
        let quoted = format!("`{}`", table.replace('`', "``"));
        let what = match kind.as_str() {
            "VIEW" => "VIEW",
            "SEQUENCE" => "SEQUENCE",
            _ => "TABLE",
        };
        let created = created(c, &format!("SHOW CREATE {what} {quoted}"), 1).await;
        writeln!(out, "{}", plain(&created.replace(&format!("`{database}`."), ""))).unwrap();
        match what {
            "SEQUENCE" => {
                let next = value(c, &format!("SELECT next_not_cached_value FROM {quoted}")).await;
                writeln!(out, "next {next}").unwrap();
            }
            "TABLE" => {
                for row in rows(c, database, table, &quoted, kind == "SYSTEM VERSIONED").await {
                    writeln!(out, "{row}").unwrap();
                }
            }
            _ => {}
        }
    }
    for (sql, what) in [
        (
            format!(
                "SELECT ROUTINE_NAME, ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = '{database}'"
            ),
            2,
        ),
        (
            format!(
                "SELECT EVENT_NAME, 'EVENT' FROM information_schema.EVENTS WHERE EVENT_SCHEMA = '{database}'"
            ),
            3,
        ),
    ] {
        let mut list: Vec<(String, String)> = c.query(sql).await.unwrap();
        list.sort();
        for (name, kind) in list {
            let created = created(c, &format!("SHOW CREATE {kind} `{name}`"), what).await;
            writeln!(out, "{created}").unwrap();
        }
    }
    let triggers: Vec<Row> = c
        .query(format!(
            "SELECT EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER, TRIGGER_NAME, ACTION_STATEMENT, DEFINER, SQL_MODE, \
             CHARACTER_SET_CLIENT, COLLATION_CONNECTION FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = '{database}' ORDER BY 1, 2, 3, 4"
        ))
        .await
        .unwrap();
    for row in triggers {
        writeln!(out, "{:?}", row.unwrap().into_iter().map(show).collect::<Vec<_>>()).unwrap();
    }
    out
}

/// MySQL 9 remembers whether a column named its character set besides its collation, and forgets it with the next `CREATE TABLE`.
fn plain(created: &str) -> String {
    let mut out = created.to_owned();
    for charset in ["latin1", "utf8mb4"] {
        out = out.replace(&format!(" CHARACTER SET {charset} COLLATE "), " COLLATE ");
    }
    out
}

async fn created(c: &mut Conn, sql: &str, column: usize) -> String {
    let row: Option<Row> = c.query_first(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    row.unwrap().unwrap().into_iter().nth(column).map(show).unwrap_or_default()
}

async fn rows(c: &mut Conn, database: &str, table: &str, quoted: &str, versioned: bool) -> Vec<String> {
    let columns: Vec<(String, String)> = c
        .query(format!(
            "SELECT COLUMN_NAME, DATA_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = '{database}' AND TABLE_NAME = '{}' ORDER BY ORDINAL_POSITION",
            table.replace('\'', "''")
        ))
        .await
        .unwrap();
    let mut list: Vec<String> = columns
        .iter()
        .map(|(name, kind)| {
            let name = format!("`{}`", name.replace('`', "``"));
            if kind == "float" { format!("{name}*1e0") } else { name }
        })
        .collect();
    let all = if versioned {
        list.extend(["row_start".to_owned(), "row_end".to_owned()]);
        " FOR SYSTEM_TIME ALL"
    } else {
        ""
    };
    let found: Vec<Row> = c.query(format!("SELECT {} FROM {quoted}{all}", list.join(", "))).await.unwrap();
    let mut found: Vec<String> = found
        .into_iter()
        .map(|r| format!("{table}: {:?}", r.unwrap().into_iter().map(shown).collect::<Vec<_>>()))
        .collect();
    found.sort();
    found
}

/// Schemas that restores have left, of all tests of the server.
pub async fn schemas_left(c: &mut Conn, of: &str) -> Vec<String> {
    c.query(format!(
        "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '\\_backup\\_{of}%'"
    ))
    .await
    .unwrap()
}

/// The name that a restore gives to what it makes.
pub fn id_of(target: &dyn Target) -> String {
    target.undo()["id"].as_str().unwrap().to_owned()
}

pub fn rows_of(facts: &Facts, database: &str, table: &str) -> u64 {
    facts.count(&format!("table {database}.{table}"), "rows")
}

/// A shared server while a test has it to itself: the global read lock of one test waits for the open snapshot of another, and
/// changes of definitions that meet it end in deadlocks, which are the server's business and not what is tested.
pub struct Turn {
    server: Arc<Mysql>,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl std::ops::Deref for Turn {
    type Target = Arc<Mysql>;
    fn deref(&self) -> &Arc<Mysql> {
        &self.server
    }
}

/// A server of this sort, for one test at a time. Who needs several takes MariaDB 11.8 first.
pub async fn any_server(flavor: Flavor) -> (Turn, Conn) {
    static TURNS: LazyLock<[Arc<Mutex<()>>; 3]> = LazyLock::new(Default::default);
    // Taken before the turn: who waits keeps the server running.
    let server = backup_testkit::services::mysql(flavor).await;
    let which = Flavor::ALL.iter().position(|f| *f == flavor).unwrap();
    let turn = TURNS[which].clone().lock_owned().await;
    let c = conn(&server).await;
    (Turn { server, _turn: turn }, c)
}
