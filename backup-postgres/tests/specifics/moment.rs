//! One moment: what happens between listing, locking and reading does not tear it.

use crate::common::{Database, backend, engine::DockerProgram, pour};
use backup_core::{
    Backend, CommandRunner, ContainerEngine, ContainerFacts, Content, Context, Entry, Error, ErrorKind,
    Event, Ledger, Proof, Put, Result, Sink, Stage, ToolCommand,
};
use backup_postgres::PostgresBackend;
use backup_testkit::{memory::ContentsSink, run};
use std::sync::{
    Arc, Mutex,
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
        config.lock_timeout = Some(2);
        let source = backend().source("c", config.to_value()).unwrap();
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let told = said.clone();
        let cx = Context::default().with_observer(Some(Arc::new(move |event: &Event| {
            if let Event::Waiting { reason } = event {
                told.lock().unwrap().push(reason.clone());
            }
        })));
        let e = pour(&*source, &cx).await.unwrap_err();
        // While it waits, and once.
        let said = said.lock().unwrap().clone();
        assert!(
            said.len() == 1 && said[0].contains("of postgres") && said[0].contains("pg_sleep"),
            "{said:?}"
        );
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

/// What is of this stage is taken only when it may.
struct Held {
    inner: ContentsSink,
    stage: Stage,
    open: tokio::sync::Semaphore,
}

impl Held {
    fn new(stage: Stage) -> Arc<Self> {
        Arc::new(Held { inner: ContentsSink::new(), stage, open: tokio::sync::Semaphore::new(0) })
    }
}

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a sink that waits")
    }
}

#[async_trait::async_trait]
impl Sink for Held {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        if entry.stage == self.stage && self.open.acquire().await.is_err() {
            return Err(Error::new(ErrorKind::Target, "put an entry", "it is never taken"));
        }
        self.inner.put(entry, content).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.inner.finish(cx).await
    }
}

/// The sessions that look for those who wait for a dump.
const LOOKS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'backup %'
    AND query LIKE '%pg_blocking_pids%' AND datname = current_database()";

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
            let held = Held::new(Stage::Data);
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
                // Who looks for those who wait has done so when it is decided, and until then the rows may not come.
                while database.sql(LOOKS).await != "0" {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
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
        let held = Held::new(Stage::Data);
        let ledger = Ledger::new(held, "c", &cx);
        let pouring = tokio::spawn({
            let cx = cx.clone();
            async move { view.pour(ledger, &cx).await }
        });
        // The one that looks for those who wait begins a moment after the others.
        while database.sql(LOOKS).await == "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        pouring.abort();
        assert!(pouring.await.unwrap_err().is_cancelled());
        assert_eq!(database.taken(), Vec::<String>::new());
    });
}

#[test]
fn rows_are_read_while_the_definitions_are_put_and_neither_goes_on_without_the_other() {
    run("rows_are_read_while_the_definitions_are_put_and_neither_goes_on_without_the_other", async {
        let tables =
            "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 300) v FROM generate_series(1, 5000) i;
            ALTER TABLE t ALTER v SET STORAGE EXTERNAL; CREATE TABLE u AS SELECT * FROM t";
        let database = Database::with(17, tables).await;
        for is_taken in [true, false] {
            let mut cx = Context::default();
            cx.tasks = 2;
            let view = database.source().connect(&cx).await.unwrap().fix(&cx).await.unwrap();
            let held = Held::new(Stage::Prepare);
            let ledger = Ledger::new(held.clone(), "c", &cx);
            let pouring = tokio::spawn({
                let (ledger, cx) = (ledger.clone(), cx.clone());
                async move { view.pour(ledger, &cx).await }
            });
            // Each session has as much as there is room for, and waits.
            let reading = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'backup %' AND query LIKE 'COPY %'
                AND wait_event = 'ClientWrite' AND datname = current_database()";
            while database.sql(reading).await != "2" {
                assert!(!pouring.is_finished(), "{:?}", pouring.await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(held.inner.contents().is_empty());
            match is_taken {
                true => held.open.add_permits(100),
                false => held.open.close(),
            }
            match pouring.await.unwrap() {
                Ok(facts) => {
                    let rows: u64 = facts
                        .iter()
                        .filter(|(_, what, _)| what.starts_with("rows in"))
                        .map(|(subject, what, _)| facts.count(subject, what))
                        .sum();
                    assert_eq!((is_taken, rows, ledger.losses()), (true, 10_000, vec![]));
                }
                Err(e) => assert!(!is_taken && e.to_string().contains("never taken"), "{e}"),
            }
            assert_eq!(database.taken(), Vec::<String>::new());
        }
    });
}

/// An engine in whose containers `pg_dump --version` answers only when it may.
struct SlowToAnswer(Arc<tokio::sync::Semaphore>);

#[async_trait::async_trait]
impl ContainerEngine for SlowToAnswer {
    async fn inspect(&self, name: &str) -> Result<ContainerFacts> {
        DockerProgram.inspect(name).await
    }

    async fn publishing(&self, port: u16) -> Result<Option<ContainerFacts>> {
        DockerProgram.publishing(port).await
    }

    fn runner(&self, id: &str) -> Arc<dyn CommandRunner> {
        Arc::new(AnswersWhenItMay(DockerProgram.runner(id), self.0.clone()))
    }
}

struct AnswersWhenItMay(Arc<dyn CommandRunner>, Arc<tokio::sync::Semaphore>);

impl std::fmt::Display for AnswersWhenItMay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl CommandRunner for AnswersWhenItMay {
    fn run(&self, command: ToolCommand) -> Content {
        let asks = command.arguments.iter().any(|word| word == "--version");
        let (mut content, may) = (self.0.run(command), self.1.clone());
        Content::produce(move |feed| async move {
            let _may = if asks { Some(may.acquire().await) } else { None };
            while let Some(bytes) = content.next().await? {
                feed.send(bytes).await?;
            }
            Ok(content.facts().cloned().unwrap_or_default())
        })
    }
}

#[test]
fn sessions_are_opened_while_the_tools_are_asked_for_their_version() {
    run("sessions_are_opened_while_the_tools_are_asked_for_their_version", async {
        let database = Database::with(17, "CREATE TABLE t AS SELECT 1 i").await;
        let may = Arc::new(tokio::sync::Semaphore::new(0));
        let backend = PostgresBackend::new(Arc::new(SlowToAnswer(may.clone())));
        let source = backend.source("c", database.config().to_value()).unwrap();
        let mut cx = Context::default();
        cx.tasks = 2;
        let connecting = tokio::spawn(async move { source.connect(&cx).await.map(drop) });
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'backup %' AND datname = current_database()";
        while database.sql(sessions).await != "3" {
            assert!(!connecting.is_finished(), "this host has a pg_dump of that version");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        may.add_permits(1);
        connecting.await.unwrap().unwrap();
        assert_eq!(database.taken(), Vec::<String>::new());
    });
}
