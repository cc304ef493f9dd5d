//! One moment: what happens between listing, locking and reading does not tear it.

use crate::common::{Database, backend, pour};
use backup_core::{Backend, Content, Context, Entry, ErrorKind, Ledger, Proof, Put, Result, Sink, Stage};
use backup_testkit::{memory::ContentsSink, run};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use std::time::Duration;

#[test]
fn what_is_truncated_or_changed_between_listing_and_lock_is_one_moment() {
    run("what_is_truncated_or_changed_between_listing_and_lock_is_one_moment", async {
        let cases = [
            ("TRUNCATE t; INSERT INTO t VALUES (7, 'new')", Some(1)),
            ("ALTER TABLE t ALTER a TYPE bigint", Some(100)),
            ("ALTER TABLE t ADD COLUMN c int DEFAULT 5", Some(100)),
            ("ALTER TABLE t RENAME TO moved; CREATE TABLE t AS SELECT 1 a, 'x' b", Some(1)),
            ("DROP TABLE t", None),
            ("CREATE TABLE later AS SELECT 1 x", Some(100)),
        ];
        for (change, rows) in cases {
            let database =
                Database::with(17, "CREATE TABLE t AS SELECT i a, 'x' b FROM generate_series(1, 100) i")
                    .await;
            let cx = Context::default();
            let ready = database.source().connect(&cx).await.unwrap();
            database.sql(change).await;
            let view = ready.fix(&cx).await.unwrap();
            let sink = ContentsSink::new();
            let facts = view.pour(Ledger::new(Arc::new(sink.clone()), "c", &cx), &cx).await.unwrap();
            assert_eq!(facts.get("table public.t", "rows in 00000").is_some(), rows.is_some(), "{change}");
            assert_eq!(facts.count("table public.t", "rows in 00000"), rows.unwrap_or(0), "{change}");
            let later = facts.count("table public.later", "rows in 00000");
            assert_eq!(later, u64::from(change.contains("later")), "{change}");
        }
    });
}

#[test]
fn a_change_after_the_moment_waits_and_does_not_stop_the_dump() {
    run("a_change_after_the_moment_waits_and_does_not_stop_the_dump", async {
        let database = Database::with(
            17,
            "CREATE TABLE t AS SELECT i FROM generate_series(1, 100) i; CREATE TABLE u AS SELECT 1 x",
        )
        .await;
        let cx = Context::default();
        let mut config = database.config();
        config.lock_timeout = Some(2);
        let source = backend().source("c", config.to_value()).unwrap();
        let view = source.connect(&cx).await.unwrap().fix(&cx).await.unwrap();
        let truncating = {
            let (url, password) = (database.server.url(&database.name), database.server.password());
            std::process::Command::new("psql")
                .args(["-qc", "TRUNCATE t", &url])
                .env("PGPASSWORD", password)
                .spawn()
                .unwrap()
        };
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        while database.sql(waits).await == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // pg_dump takes locks of its own, and gives up: that is said, and is no success.
        let sink = ContentsSink::new();
        let ledger = Ledger::new(Arc::new(sink.clone()), "c", &cx);
        let facts = view.pour(ledger.clone(), &cx).await.unwrap();
        assert_eq!(facts.count("table public.t", "rows in 00000"), 100, "the rows of the moment are read");
        let lost = ledger.losses();
        assert!(lost.len() == 1 && lost[0].1.contains("LOCK TABLE"), "{lost:?}");
        assert!(truncating.wait_with_output().unwrap().status.success());
        assert_eq!(database.taken(), Vec::<String>::new());
    });
}

#[test]
fn a_lock_that_somebody_holds_is_waited_for_and_then_named() {
    run("a_lock_that_somebody_holds_is_waited_for_and_then_named", async {
        let database = Database::with(15, "CREATE TABLE t (i int)").await;
        let url = database.server.url(&database.name);
        let mut holder = std::process::Command::new("psql")
            .args(["-qc", "BEGIN; LOCK TABLE t; SELECT pg_sleep(60)", &url])
            .env("PGPASSWORD", database.server.password())
            .spawn()
            .unwrap();
        while database.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 't'::regclass").await == "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut config = database.config();
        config.lock_timeout = Some(1);
        let source = backend().source("c", config.to_value()).unwrap();
        let e = pour(&*source, &Context::default()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Source, "{e}");
        assert!(e.hint_text().unwrap().contains("pg_sleep"), "{:?}", e.hint_text());
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_eq!(database.taken(), Vec::<String>::new());
    });
}

#[test]
fn the_sum_of_a_ledger_under_load_is_that_of_one_moment() {
    run("the_sum_of_a_ledger_under_load_is_that_of_one_moment", async {
        let tables = "CREATE TABLE one AS SELECT i id, 1000 v FROM generate_series(1, 500) i; ALTER TABLE one ADD PRIMARY KEY (id);
            CREATE TABLE two AS SELECT i id, 1000 v FROM generate_series(1, 500) i; ALTER TABLE two ADD PRIMARY KEY (id);";
        let database = Arc::new(Database::with(17, tables).await);
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..3)
            .map(|writer| {
                let (database, stop) = (database.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut n = writer * 7;
                    while !stop.load(Relaxed) {
                        n = (n * 31 + 11) % 500;
                        let (from, to) = if n % 2 == 0 { ("one", "two") } else { ("two", "one") };
                        let transfers: String = (0..40)
                            .map(|k| {
                                let id = (n + k * 13) % 500 + 1;
                                format!("BEGIN; UPDATE {from} SET v = v - {k} WHERE id = {id}; UPDATE {to} SET v = v + {k} WHERE id = {id}; COMMIT;")
                            })
                            .collect();
                        // Two writers may meet in a deadlock: then one of them has changed nothing.
                        let _ = database.try_sql(&transfers).await;
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            let copy = Database::absent(17).await;
            crate::common::mirror(&database, &copy).await;
            let sum = copy.sql("SELECT (SELECT sum(v) FROM one) + (SELECT sum(v) FROM two)").await;
            assert_eq!(sum, "1000000");
        }
        let moved = database.sql("SELECT count(*) FROM one WHERE v <> 1000").await;
        stop.store(true, Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        assert_ne!(moved, "0", "nobody wrote");
    });
}

/// Rows are taken only when they may.
struct Held {
    inner: ContentsSink,
    open: tokio::sync::Semaphore,
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a sink that waits")
    }
}

#[async_trait::async_trait]
impl Sink for Held {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        if entry.stage == Stage::Data {
            let _open = self.open.acquire().await;
        }
        self.inner.put(entry, content).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.inner.finish(cx).await
    }
}

#[test]
fn who_waits_for_the_dump_is_named_and_the_dump_gives_way_if_it_is_told_to() {
    run("who_waits_for_the_dump_is_named_and_the_dump_gives_way_if_it_is_told_to", async {
        for limit in [None, Some(2)] {
            let database =
                Database::with(17, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i").await;
            let mut config = database.config();
            config.give_way_after = limit;
            let cx = Context::default();
            let source = backend().source("c", config.to_value()).unwrap();
            let view = source.connect(&cx).await.unwrap().fix(&cx).await.unwrap();
            let held = Arc::new(Held { inner: ContentsSink::new(), open: tokio::sync::Semaphore::new(0) });
            let ledger = Ledger::new(held.clone(), "c", &cx);
            let pouring = tokio::spawn({
                let (ledger, cx) = (ledger.clone(), cx.clone());
                async move { view.pour(ledger, &cx).await }
            });
            // Whoever has poured the definitions has all locks.
            while !held.inner.contents().keys().any(|path| path.ends_with(b"schema.dump")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let changing = tokio::spawn({
                let (url, password) = (database.server.url(&database.name), database.server.password());
                let mut psql = tokio::process::Command::new("psql");
                let out =
                    psql.args(["-qc", "ALTER TABLE t ADD COLUMN more int", &url]).env("PGPASSWORD", password);
                out.output()
            });
            let named =
                || cx.notes().list.iter().any(|note| note.text.contains("ALTER TABLE t ADD COLUMN more"));
            while !named() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            if limit.is_some() {
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
            held.open.add_permits(100);
            let poured = pouring.await.unwrap();
            assert!(changing.await.unwrap().unwrap().status.success());
            match limit {
                None => assert_eq!(poured.unwrap().count("table public.t", "rows in 00000"), 1000),
                Some(_) => {
                    let e = poured.unwrap_err();
                    assert!(e.to_string().contains("gave way") && e.to_string().contains("ALTER"), "{e}");
                }
            }
            assert_eq!(database.taken(), Vec::<String>::new());
        }
    });
}

#[test]
fn a_dump_that_is_dropped_half_way_leaves_no_session_on_the_server() {
    run("a_dump_that_is_dropped_half_way_leaves_no_session_on_the_server", async {
        let database = Database::with(17, "CREATE TABLE t AS SELECT 1 i").await;
        let cx = Context::default();
        let view = database.source().connect(&cx).await.unwrap().fix(&cx).await.unwrap();
        let held = Arc::new(Held { inner: ContentsSink::new(), open: tokio::sync::Semaphore::new(0) });
        let ledger = Ledger::new(held, "c", &cx);
        let pouring = tokio::spawn({
            let cx = cx.clone();
            async move { view.pour(ledger, &cx).await }
        });
        // The one that looks for those who wait begins a moment after the others.
        let looks = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'backup %'
            AND query LIKE '%pg_blocking_pids%' AND datname = current_database()";
        while database.sql(looks).await == "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        pouring.abort();
        assert!(pouring.await.unwrap_err().is_cancelled());
        assert_eq!(database.taken(), Vec::<String>::new());
    });
}
