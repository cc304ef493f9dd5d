//! In place: the old database goes before the new one is filled, nobody gets in meanwhile, and what fails leaves nothing half restored.

use crate::common::{Database, held, pour, restore_by};
use backup_core::{Content, Context, Error, ErrorKind, Target};
use backup_postgres::Method;
use backup_testkit::{
    memory::{MemorySource, pour_into, surveyed},
    run,
};
use std::sync::Arc;

const EVERYTHING: &str = include_str!("../common/everything.sql");
const OLD: &str = "CREATE TABLE old AS SELECT 42 i";

fn in_place(database: &Database) -> Box<dyn Target> {
    let mut config = database.config();
    config.in_place = true;
    database.target_by(config)
}

async fn backup_of(database: &Database, method: Method) -> MemorySource {
    let mut config = database.config();
    config.method = Some(method);
    let source = backup_core::Backend::source(&crate::common::backend(), "c", config.to_value()).unwrap();
    let (contents, facts) = pour(&*source, &Context::default()).await.unwrap();
    held(contents, facts)
}

#[test]
fn everything_is_restored_in_place_as_it_was() {
    run("everything_is_restored_in_place_as_it_was", async {
        let from = Database::with(17, EVERYTHING).await;
        let to = Database::with(17, OLD).await;
        for method in [Method::Native, Method::Dump] {
            restore_by(backup_of(&from, method).await, in_place(&to)).await.unwrap();
            let (expected, found) = (from.fingerprint().await, to.fingerprint().await);
            let missing: Vec<_> =
                expected.lines().filter(|l| !found.lines().any(|f| f == *l)).take(20).collect();
            assert!(expected == found, "{method:?}: {missing:#?}");
            assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
            assert_eq!(to.taken(), Vec::<String>::new());
        }
    });
}

#[test]
fn nobody_gets_in_while_a_database_is_restored_in_place() {
    run("nobody_gets_in_while_a_database_is_restored_in_place", async {
        let from = Database::with(17, "CREATE TABLE t AS SELECT 'new' v").await;
        let backup = backup_of(&from, Method::Native).await;
        let to = Arc::new(Database::with(17, OLD).await);
        let sits = tokio::spawn({
            let to = to.clone();
            async move { to.try_sql("SELECT pg_sleep(60)").await }
        });
        let cx = Context::default();
        let mut target = in_place(&to);
        let survey = surveyed(&mut *target, &backup, &[], &cx).await.unwrap();
        assert!(survey.in_place && survey.replaces && survey.publish.contains("is dropped"), "{survey:?}");
        let sink = target.prepare(&cx).await.unwrap();
        assert_eq!(to.sql("SELECT i FROM old").await, "42", "what only prepares takes nothing away");
        target.check_revert(&cx).await.unwrap();
        target.clear(&cx).await.unwrap();
        let gone = target.check_revert(&cx).await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Refused, "{gone}");
        assert!(sits.await.unwrap().is_err());
        let barred = to.try_sql("SELECT 1").await.unwrap_err().to_string();
        assert!(barred.contains("not currently accepting connections"), "{barred}");
        let made = to.psql("postgres", &format!("CREATE DATABASE {}", to.name)).await.unwrap_err();
        assert!(made.to_string().contains("already exists"), "{made}");
        pour_into(&backup, "c", sink.clone(), &cx).await.unwrap();
        sink.finish(&cx).await.unwrap();
        target.publish(&cx).await.unwrap();
        target.settle(&cx).await.unwrap();
        assert_eq!(to.sql("SELECT v FROM t").await, "new");
        assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
    });
}

#[test]
fn what_fails_in_place_leaves_nothing_half_restored_and_another_restore_works() {
    run("what_fails_in_place_leaves_nothing_half_restored_and_another_restore_works", async {
        let from = Database::with(17, "CREATE TABLE t AS SELECT i FROM generate_series(1, 1000) i").await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        let mut torn = MemorySource::new("c").with_facts(facts.clone());
        for held in contents.clone().into_values() {
            let fails = held.entry.path.ends_with(b".copybin");
            torn = torn.with(held.entry.clone(), move || match fails {
                true => Content::failed(Error::new(ErrorKind::Source, "read", "it is torn")),
                false => held.content(),
            });
        }
        let to = Database::with(17, OLD).await;
        let cx = Context::default();

        // What comes in the way before anything is dropped leaves everything as it was.
        let mut target = in_place(&to);
        surveyed(&mut *target, &torn, &[], &cx).await.unwrap();
        target.prepare(&cx).await.unwrap();
        let slot = format!("slot_{}", to.name);
        to.sql(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'test_decoding')")).await;
        let e = target.clear(&cx).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Refused && e.to_string().contains("slots"), "{e}");
        target.check_revert(&cx).await.unwrap();
        target.revert(&cx).await.unwrap();
        assert_eq!(to.sql("SELECT i FROM old").await, "42");
        assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
        to.sql(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;

        // A process that was killed in the middle, and a later one that cleans up.
        let mut target = in_place(&to);
        surveyed(&mut *target, &torn, &[], &cx).await.unwrap();
        let sink = target.prepare(&cx).await.unwrap();
        let undo = target.undo();
        target.clear(&cx).await.unwrap();
        let poured = pour_into(&torn, "c", sink, &cx).await;
        assert!(poured.is_err() || poured.unwrap().1 > 0, "nothing was lost of what is torn");
        drop(target);
        let recover = |undo| backup_core::Backend::recover(&crate::common::backend(), undo).unwrap();
        let mut later = recover(undo.clone());
        later.check_revert(&cx).await.unwrap_err();
        later.revert(&cx).await.unwrap();
        assert_eq!(to.fingerprint().await, "nothing");
        assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
        recover(undo.clone()).check_revert(&cx).await.unwrap_err();
        recover(undo).revert(&cx).await.unwrap();

        restore_by(held(contents, facts), in_place(&to)).await.unwrap();
        assert_eq!(to.fingerprint().await, from.fingerprint().await);
        assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
    });
}
