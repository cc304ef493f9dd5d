//! The other method: one archive of pg_dump.

use crate::common::{Database, backend, held, pour, restore};
use backup_core::{Backend, Context, Ledger, Source};
use backup_postgres::Method;
use backup_testkit::{
    faults::ContentFault,
    memory::{MemorySource, pour_into, surveyed},
    run,
};

const EVERYTHING: &str = include_str!("../common/everything.sql");

fn dumping(database: &Database) -> Box<dyn Source> {
    let mut config = database.config();
    config.method = Some(Method::Dump);
    backend().source("c", config.to_value()).unwrap()
}

#[test]
fn everything_comes_back_from_one_archive_of_pg_dump() {
    run("everything_comes_back_from_one_archive_of_pg_dump", async {
        let from = Database::with(17, EVERYTHING).await;
        let (contents, facts) = pour(&*dumping(&from), &Context::default()).await.unwrap();
        let names: Vec<_> = contents.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect();
        let dump = format!("{}.dump", from.name);
        assert_eq!(names, ["database/RESTORE.md", "database/properties.json", &*dump]);
        let to = Database::absent(17).await;
        restore(held(contents, facts.clone()), &to).await.unwrap();
        assert_eq!(from.fingerprint().await, to.fingerprint().await);
        assert_eq!(facts.count("table public.plain", "rows"), 18182);
        assert_eq!((from.taken(), to.leftovers_of_this().await), (vec![], vec![]));
    });
}

#[test]
fn rows_that_are_left_out_of_a_dump_are_counted_as_none() {
    run("rows_that_are_left_out_of_a_dump_are_counted_as_none", async {
        let tables = "CREATE TABLE \"Log s\" AS SELECT i FROM generate_series(1, 9) i; CREATE TABLE kept AS SELECT 1 i";
        let from = Database::with(15, tables).await;
        let mut config = from.config();
        config.method = Some(Method::Dump);
        config.exclude_table_data = vec!["public.Log*".into()];
        let source = backend().source("c", config.to_value()).unwrap();
        let (contents, facts) = pour(&*source, &Context::default()).await.unwrap();
        let to = Database::absent(15).await;
        restore(held(contents, facts), &to).await.unwrap();
        assert_eq!(
            to.sql("SELECT (SELECT count(*) FROM \"Log s\"), (SELECT count(*) FROM kept)").await,
            "0|1"
        );
    });
}

#[test]
fn a_dump_that_is_cut_or_damaged_restores_nothing() {
    run("a_dump_that_is_cut_or_damaged_restores_nothing", async {
        let rows = "CREATE TABLE t AS SELECT i, md5(i::text) v FROM generate_series(1, 50000) i";
        let from = Database::with(15, rows).await;
        let (contents, facts) = pour(&*dumping(&from), &Context::default()).await.unwrap();
        let to = Database::with(15, "CREATE TABLE old (i int)").await;
        let before = to.fingerprint().await;
        let dump = format!("{}.dump", from.name);
        for fault in [ContentFault::CutAfter(300_000), ContentFault::EndAfter(300_000)] {
            let mut source = MemorySource::new("c").with_facts(facts.clone());
            for (path, held) in contents.clone() {
                let broken = path == dump.as_bytes();
                source = source.with(held.entry.clone(), move || match broken {
                    true => fault.of(held.content()),
                    false => held.content(),
                });
            }
            let (cx, mut target) = (Context::default(), to.target());
            surveyed(&mut *target, &source, &[], &cx).await.unwrap();
            let ledger = Ledger::new(target.prepare(&cx).await.unwrap(), "c", &cx);
            let poured = pour_into(&source, "c", ledger.clone(), &cx).await;
            assert!(poured.is_err() || !ledger.losses().is_empty(), "{fault:?} went unnoticed");
            target.revert(&cx).await.unwrap();
            assert_eq!((to.fingerprint().await, to.leftovers_of_this().await), (before.clone(), vec![]));
        }
    });
}

#[test]
fn a_database_that_is_one_file_is_restored_by_hand() {
    run("a_database_that_is_one_file_is_restored_by_hand", async {
        let from = Database::with(15, EVERYTHING).await;
        crate::by_hand::follow_the_guide(&from, &*dumping(&from)).await;
    });
}
