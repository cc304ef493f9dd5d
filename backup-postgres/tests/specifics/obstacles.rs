//! What stands in the way of an exchange is refused by the plan; an application that connects again and again does not.

use crate::common::{Database, held, pour, published};
use backup_core::{Context, ErrorKind, Severity, Stage};
use backup_testkit::{
    memory::{MemorySource, pour_into, surveyed},
    run,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};
use std::time::{Duration, Instant};

#[test]
fn what_would_be_lost_or_blocks_the_exchange_is_refused_by_the_plan() {
    run("what_would_be_lost_or_blocks_the_exchange_is_refused_by_the_plan", async {
        let cases = [
            (
                "CREATE TABLE t (i int); BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'prepared NAME';",
                "prepared NAME",
                "ROLLBACK PREPARED 'prepared NAME'",
            ),
            (
                "SELECT pg_create_logical_replication_slot('slot_NAME', 'test_decoding');",
                "slot_NAME",
                "SELECT pg_drop_replication_slot('slot_NAME')",
            ),
            (
                "CREATE SUBSCRIPTION sub_NAME CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false);",
                "subscription",
                "ALTER SUBSCRIPTION sub_NAME SET (slot_name = NONE); DROP SUBSCRIPTION sub_NAME",
            ),
        ];
        for (obstacle, named, removal) in cases {
            let database = Database::with(17, "").await;
            let of = |text: &str| text.replace("NAME", &database.name);
            database.sql(&of(obstacle)).await;
            let (nothing, cx) = (MemorySource::new("c"), Context::default());
            let e = surveyed(&mut *database.target(), &nothing, &[], &cx).await.unwrap_err();
            assert!(e.kind() == ErrorKind::Refused && e.to_string().contains(&of(named)), "{e}");
            database.sql(&of(removal)).await;
            surveyed(&mut *database.target(), &nothing, &[], &cx).await.unwrap();
        }
    });
}

#[test]
fn publish_and_revert_succeed_against_a_pool_that_connects_again() {
    run("publish_and_revert_succeed_against_a_pool_that_connects_again", async {
        let from = Database::with(17, "CREATE TABLE t AS SELECT 'new' v").await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        let live = Arc::new(Database::with(17, "CREATE TABLE t AS SELECT 'old' v").await);
        let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let pool: Vec<_> = (0..4)
            .map(|_| {
                let (live, stop, answers) = (live.clone(), stop.clone(), answers.clone());
                tokio::spawn(async move {
                    while !stop.load(Relaxed) {
                        // A session that sits there, and comes back as soon as it is ended.
                        let asked = live.try_sql("SELECT v FROM t; SELECT pg_sleep(3)").await;
                        if asked.is_ok() {
                            answers.fetch_add(1, Relaxed);
                        }
                    }
                })
            })
            .collect();
        let cx = Context::default();
        let mut target = live.target();
        let source = held(contents, facts);
        surveyed(&mut *target, &source, &[], &cx).await.unwrap();
        let sink = target.prepare(&cx).await.unwrap();
        pour_into(&source, "c", sink.clone(), &cx).await.unwrap();
        sink.finish(&cx).await.unwrap();
        let began = Instant::now();
        target.publish(&cx).await.unwrap();
        let published = began.elapsed();
        assert_eq!(live.sql("SELECT v FROM t").await, "new");
        target.check_revert(&cx).await.unwrap();
        target.revert(&cx).await.unwrap();
        assert_eq!(live.sql("SELECT v FROM t").await, "old");
        assert_eq!(live.leftovers_of_this().await, Vec::<String>::new());
        stop.store(true, Relaxed);
        for session in pool {
            session.await.unwrap();
        }
        eprintln!("published within {published:?} against 4 sessions");
        assert!(published < Duration::from_secs(10), "{published:?}");
    });
}

#[test]
fn a_publish_that_waits_for_others_ends_when_the_run_is_cancelled() {
    run("a_publish_that_waits_for_others_ends_when_the_run_is_cancelled", async {
        let from = Database::with(17, "CREATE TABLE t AS SELECT 'new' v").await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        let live = Database::with(17, "CREATE TABLE t AS SELECT 'old' v").await;
        let (cx, source) = (Context::default(), held(contents, facts));
        let mut target = live.target();
        surveyed(&mut *target, &source, &[], &cx).await.unwrap();
        let sink = target.prepare(&cx).await.unwrap();
        pour_into(&source, "c", sink.clone(), &cx).await.unwrap();
        sink.finish(&cx).await.unwrap();
        // Nobody can end what is prepared: the renaming tries again and again.
        live.sql("BEGIN; UPDATE t SET v = 'prepared'; PREPARE TRANSACTION 'waits'").await;
        let cancel = cx.cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(2)).await;
            cancel.cancel();
        });
        let began = Instant::now();
        let e = target.publish(&cx).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Cancelled, "{e}");
        // Without the cancellation it tries for a minute.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        target.revert(&cx.calm()).await.unwrap();
        assert_eq!(live.taken(), Vec::<String>::new());
        live.sql("ROLLBACK PREPARED 'waits'").await;
        assert_eq!(live.sql("SELECT v FROM t").await, "old");
        assert_eq!(live.leftovers_of_this().await, Vec::<String>::new());
    });
}

#[test]
fn a_database_that_was_exchanged_meanwhile_is_not_replaced() {
    run("a_database_that_was_exchanged_meanwhile_is_not_replaced", async {
        let from = Database::with(15, "CREATE TABLE t AS SELECT 1 i").await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        let to = Database::with(15, "CREATE TABLE old AS SELECT 1 i").await;
        let cx = Context::default();
        let mut target = to.target();
        let source = held(contents, facts);
        surveyed(&mut *target, &source, &[], &cx).await.unwrap();
        let sink = target.prepare(&cx).await.unwrap();
        pour_into(&source, "c", sink.clone(), &cx).await.unwrap();
        sink.finish(&cx).await.unwrap();
        to.admin(&format!("DROP DATABASE {}", to.name)).await;
        to.admin(&format!("CREATE DATABASE {}", to.name)).await;
        to.sql("CREATE TABLE precious AS SELECT 42 i").await;
        let e = target.publish(&cx).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
        target.revert(&cx).await.unwrap();
        assert_eq!(to.sql("SELECT i FROM precious").await, "42");
        assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
    });
}

#[test]
fn a_comment_of_the_database_survives_publish_and_settle() {
    run("a_comment_of_the_database_survives_publish_and_settle", async {
        for comment in ["NULL", "'it''s a [bracketed]\ncomment'"] {
            let from = Database::with(17, "CREATE TABLE t (i int)").await;
            from.sql(&format!("COMMENT ON DATABASE {} IS {comment}", from.name)).await;
            let to = Database::absent(17).await;
            crate::common::mirror(&from, &to).await;
            let of = |name: &str| {
                format!(
                    "SELECT coalesce(shobj_description(oid, 'pg_database'), 'none') FROM pg_database WHERE datname = '{name}'"
                )
            };
            assert_eq!(to.admin(&of(&to.name)).await, to.admin(&of(&from.name)).await);
        }
    });
}

const SUBSCRIBED: &str = "CREATE TABLE t AS SELECT 'new' v;
    CREATE SUBSCRIPTION sub CONNECTION 'host=nowhere' PUBLICATION p WITH (connect = false, slot_name = 'theirs')";

#[test]
fn a_restored_subscription_has_no_slot_and_bars_nothing() {
    run("a_restored_subscription_has_no_slot_and_bars_nothing", async {
        let from = Database::with(17, SUBSCRIBED).await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        let (source, live) =
            (held(contents, facts), Database::with(17, "CREATE TABLE t AS SELECT 'old' v").await);
        let cx = Context::default();
        let mut target = published(&source, live.target(), &cx).await;
        let how = "SELECT subenabled, subslotname IS NULL FROM pg_subscription JOIN pg_database d ON d.oid = subdbid
            WHERE datname = current_database()";
        assert_eq!(live.sql(how).await, "f|t");
        let said = cx.notes().list.into_iter().find(|note| note.text.contains("without its slot")).unwrap();
        assert!(said.severity == Severity::Warning && said.path.contains("sub"), "{said:?}");
        target.revert(&cx).await.unwrap();
        assert_eq!(live.sql("SELECT v FROM t").await, "old");
        assert_eq!(live.leftovers_of_this().await, Vec::<String>::new());
        from.sql("ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub").await;
    });
}

#[test]
fn a_rehearsal_tries_what_needs_no_rows_and_leaves_nothing() {
    run("a_rehearsal_tries_what_needs_no_rows_and_leaves_nothing", async {
        let rows = "CREATE MATERIALIZED VIEW m AS SELECT 100 / (SELECT count(*) FROM t);
            CREATE FUNCTION first() RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'DECLARE f text; BEGIN SELECT v INTO STRICT f FROM public.t; RETURN f; END';
            CREATE INDEX ON t ((v || first()))";
        let from = Database::with(17, &format!("{SUBSCRIBED}; {rows}")).await;
        let role = format!("{}_owner", from.name);
        from.sql(&format!("CREATE ROLE {role}; CREATE TABLE its (i int); ALTER TABLE its OWNER TO {role}"))
            .await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        from.sql("ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub").await;
        let definitions = contents.into_iter().filter(|(_, held)| held.entry.stage != Stage::Data).collect();
        let source = held(definitions, facts);
        let live = Database::with(17, "CREATE TABLE t AS SELECT 'old' v").await;
        for has_role in [true, false] {
            if !has_role {
                from.sql(&format!("DROP TABLE its; DROP ROLE {role}")).await;
            }
            let cx = Context::default();
            let mut target = live.target();
            surveyed(&mut *target, &source, &[], &cx).await.unwrap();
            let sink = target.rehearse(&cx).await.unwrap().unwrap();
            pour_into(&source, "c", sink.clone(), &cx).await.unwrap();
            match (has_role, sink.finish(&cx).await) {
                (true, tried) => drop(tried.unwrap()),
                (false, tried) => assert!(tried.unwrap_err().to_string().contains(&role)),
            }
            target.revert(&cx).await.unwrap();
            assert_eq!(live.sql("SELECT v FROM t").await, "old");
            assert_eq!(live.leftovers_of_this().await, Vec::<String>::new());
        }
    });
}
