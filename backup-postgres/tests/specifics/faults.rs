//! What breaks in the middle is an error or a loss, never a success, and leaves nothing behind.

use crate::common::{Database, backend, held, held_slowly, pour, restore};
use backup_core::{Backend, Context, ErrorKind, Ledger, Sink};
use backup_testkit::{
    faults::{ContentFault, SlowOn},
    memory::{ContentsSink, MemorySource, surveyed},
    run, services,
};
use std::sync::Arc;
use std::time::Duration;

fn many_rows() -> String {
    (0..4)
        .map(|n| {
            format!(
                "CREATE TABLE t{n} AS SELECT i, repeat(md5(i::text), 20) t FROM generate_series(1, 20000) i;"
            )
        })
        .collect()
}

#[test]
fn connections_that_are_cut_in_the_middle_are_losses() {
    run("connections_that_are_cut_in_the_middle_are_losses", async {
        let database = Arc::new(Database::with(17, &many_rows()).await);
        let cx = Context::new(64 << 20, 2);
        let view = database.source().connect(&cx).await.unwrap().fix(&cx).await.unwrap();
        let killer = {
            let database = database.clone();
            tokio::spawn(async move {
                let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'backup %' AND query LIKE 'COPY%' AND state = 'active'
                    AND datname = current_database()";
                while database.sql(cut).await == "0" {}
            })
        };
        let slow = SlowOn::all(Arc::new(ContentsSink::new()), Duration::from_millis(50));
        let ledger = Ledger::new(slow, "c", &cx);
        let poured = view.pour(ledger.clone(), &cx).await;
        killer.await.unwrap();
        assert!(poured.is_err() || !ledger.losses().is_empty(), "a cut connection went unnoticed");
        assert_eq!(database.taken(), Vec::<String>::new());
    });
}

#[test]
fn a_server_that_is_killed_in_the_middle_is_no_success() {
    run("a_server_that_is_killed_in_the_middle_is_no_success", async {
        let server = Arc::new(services::own_postgres(17).await);
        let database = Database::on(server.clone());
        database.admin(&format!("CREATE DATABASE {}", database.name)).await;
        database.sql(&many_rows()).await;
        let cx = Context::new(64 << 20, 2);
        let view = database.source().connect(&cx).await.unwrap().fix(&cx).await.unwrap();
        let slow = SlowOn::all(Arc::new(ContentsSink::new()), Duration::from_millis(200));
        let ledger = Ledger::new(slow, "c", &cx);
        let pouring = tokio::spawn({
            let (ledger, cx) = (ledger.clone(), cx.clone());
            async move { view.pour(ledger, &cx).await }
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.container().kill().await;
        let poured = tokio::time::timeout(Duration::from_secs(60), pouring).await.unwrap().unwrap();
        assert!(poured.is_err() || !ledger.losses().is_empty(), "a killed server went unnoticed");
        let e = pour(&*database.source(), &Context::default()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Source, "{e}");
    });
}

#[test]
fn rows_that_fail_in_a_restore_leave_the_old_database_and_nothing_else() {
    run("rows_that_fail_in_a_restore_leave_the_old_database_and_nothing_else", async {
        let from = Database::with(
            15,
            "CREATE TABLE t AS SELECT i FROM generate_series(1, 5000) i; SELECT lo_from_bytea(0, 'large')",
        )
        .await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        for victim in ["public.t/00000.copybin", "database/schema.dump", "database/large-objects.dump"] {
            let to = Database::with(15, "CREATE TABLE old AS SELECT 1 i").await;
            let before = to.fingerprint().await;
            let mut source = MemorySource::new("c");
            for (path, held) in contents.clone() {
                let cut = (path == victim).then(|| held.delivered() / 2);
                source = source.with(held.entry.clone(), move || match cut {
                    Some(at) => ContentFault::CutAfter(at).of(held.content()),
                    None => held.content(),
                });
            }
            let mut target = to.target();
            let cx = Context::default();
            surveyed(&mut *target, &source, &[], &cx).await.unwrap();
            let sink = target.prepare(&cx).await.unwrap();
            let ledger = Ledger::new(sink, "c", &cx);
            let poured = backup_testkit::memory::pour_into(&source, "c", ledger.clone(), &cx).await;
            let lost = ledger.losses();
            assert!(
                poured.is_err() || lost.iter().any(|(path, _)| path == victim) || !cx.notes().list.is_empty(),
                "{victim}: {poured:?}"
            );
            target.revert(&cx).await.unwrap();
            assert_eq!(to.fingerprint().await, before, "{victim}");
            assert_eq!(to.leftovers_of_this().await, Vec::<String>::new(), "{victim}");
        }
        let _ = facts;
    });
}

#[test]
fn a_restore_whose_connections_are_cut_is_an_error_and_leaves_nothing() {
    run("a_restore_whose_connections_are_cut_is_an_error_and_leaves_nothing", async {
        let from = Database::with(17, &many_rows()).await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        let to = Arc::new(Database::with(17, "CREATE TABLE old AS SELECT 1 i").await);
        let before = to.fingerprint().await;
        let killer = {
            let to = to.clone();
            tokio::spawn(async move {
                let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'backup restore %' AND query LIKE 'COPY%FROM STDIN%' AND state = 'active'
                    AND datname LIKE 'backup\\_new\\_%'";
                while to.sql(cut).await == "0" {}
            })
        };
        let e = restore(held_slowly(contents, facts), &to).await.unwrap_err();
        killer.await.unwrap();
        assert_eq!(e.kind(), ErrorKind::Target, "{e}");
        assert_eq!(to.fingerprint().await, before);
        assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
    });
}

#[test]
fn tables_can_be_left_out_and_a_pattern_without_a_table_is_an_error() {
    run("tables_can_be_left_out_and_a_pattern_without_a_table_is_an_error", async {
        let database = Database::with(17, "CREATE TABLE log_1 AS SELECT 1 i; CREATE TABLE log_2 AS SELECT 2 i; CREATE TABLE kept AS SELECT 3 i").await;
        let mut config = database.config();
        config.exclude_table_data = vec!["public.log_*".into()];
        let source = backend().source("c", config.to_value()).unwrap();
        let cx = Context::default();
        let (contents, facts) = pour(&*source, &cx).await.unwrap();
        assert_eq!(contents.keys().filter(|path| path.ends_with(b".copybin")).count(), 1);
        assert!(cx.notes().list.iter().filter(|note| note.text.contains("left out")).count() == 2);
        let to = Database::absent(17).await;
        restore(held(contents, facts), &to).await.unwrap();
        assert_eq!(to.sql("SELECT (SELECT count(*) FROM log_1), (SELECT count(*) FROM kept)").await, "0|1");
        config.exclude_table_data = vec!["public.lgo_*".into()];
        let source = backend().source("c", config.to_value()).unwrap();
        let e = pour(&*source, &Context::default()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn the_proof_of_a_restore_notices_rows_that_are_missing() {
    run("the_proof_of_a_restore_notices_rows_that_are_missing", async {
        let from = Database::with(15, "CREATE TABLE t AS SELECT i FROM generate_series(1, 10) i").await;
        let (mut contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        let key = bytes_of("public.t/00000.copybin");
        let other = Database::with(15, "CREATE TABLE t AS SELECT i FROM generate_series(1, 9) i").await;
        let (fewer, _) = pour(&*other.source(), &Context::default()).await.unwrap();
        contents.insert(key.clone().into(), fewer[&key[..]].clone());
        let to = Database::absent(15).await;
        let cx = Context::default();
        let mut target = to.target();
        let source = held(contents, facts.clone());
        surveyed(&mut *target, &source, &[], &cx).await.unwrap();
        let sink = target.prepare(&cx).await.unwrap();
        let ledger = Ledger::new(sink, "c", &cx);
        backup_testkit::memory::pour_into(&source, "c", ledger.clone(), &cx).await.unwrap();
        let there = ledger.finish(&cx).await.unwrap();
        let differences = backup_core::compare(&facts, &there, &|_, _| false);
        assert!(differences.iter().any(|d| d.to_string().contains("table public.t")), "{differences:?}");
        target.revert(&cx).await.unwrap();
    });
}

fn bytes_of(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn a_server_whose_disk_is_full_in_the_middle_of_a_restore_keeps_what_it_has() {
    run("a_server_whose_disk_is_full_in_the_middle_of_a_restore_keeps_what_it_has", async {
        let large = "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 40) v FROM generate_series(1, 60000) i;
            ALTER TABLE t ALTER v SET STORAGE PLAIN";
        let from = Database::with(15, large).await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        let to = Database::on(Arc::new(services::postgres_with_room(15, 90).await));
        to.admin(&format!("CREATE DATABASE {}", to.name)).await;
        to.sql("CREATE TABLE old AS SELECT 1 i").await;
        let before = to.fingerprint().await;
        let e = restore(held(contents, facts), &to).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Target && e.to_string().contains("No space left"), "{e}");
        assert_eq!((to.fingerprint().await, to.leftovers_of_this().await), (before, vec![]));
    });
}
