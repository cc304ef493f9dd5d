//! Everything comes back as it was.

use crate::common::{Database, mirror};
use backup_testkit::run;

const EVERYTHING: &str = include_str!("../common/everything.sql");

async fn comes_back(version: u32, sql: &str) {
    let from = Database::with(version, sql).await;
    let to = Database::absent(version).await;
    let expected = from.fingerprint().await;
    mirror(&from, &to).await;
    let found = to.fingerprint().await;
    if expected != found {
        let (a, b): (Vec<_>, Vec<_>) = (expected.lines().collect(), found.lines().collect());
        let missing: Vec<_> = a.iter().filter(|line| !b.contains(line)).take(20).collect();
        let extra: Vec<_> = b.iter().filter(|line| !a.contains(line)).take(20).collect();
        panic!("PostgreSQL {version}: missing {missing:#?}, extra {extra:#?}");
    }
    assert_eq!(from.fingerprint().await, expected, "the source was changed");
    assert_eq!(from.taken(), Vec::<String>::new());
}

#[test]
fn everything_of_postgresql_15_comes_back() {
    run("everything_of_postgresql_15_comes_back", comes_back(15, EVERYTHING));
}

#[test]
fn everything_of_postgresql_17_comes_back() {
    run("everything_of_postgresql_17_comes_back", comes_back(17, EVERYTHING));
}

#[test]
fn an_empty_database_comes_back() {
    run("an_empty_database_comes_back", comes_back(17, ""));
}

#[test]
fn a_table_that_is_cut_into_pieces_comes_back() {
    let rows = "CREATE TABLE big AS SELECT i, md5(i::text) || repeat('x', 900) t FROM generate_series(1, 150000) i; ALTER TABLE big ALTER t SET STORAGE EXTERNAL;";
    run("a_table_that_is_cut_into_pieces_comes_back", async {
        let from = Database::with(15, rows).await;
        let (contents, facts) = crate::common::pour(&*from.source(), &Default::default()).await.unwrap();
        let pieces = contents.keys().filter(|path| path.starts_with(b"public.big/")).count();
        assert!(pieces > 1, "it was not cut");
        let rows: u64 = facts
            .iter()
            .filter(|(s, _, _)| *s == "table public.big")
            .map(|(s, m, _)| facts.count(s, m))
            .sum();
        assert_eq!(rows, 150_000);
        drop(from);
        comes_back(15, rows_sql()).await;
    });
    fn rows_sql() -> &'static str {
        "CREATE TABLE big AS SELECT i, md5(i::text) || repeat('x', 900) t FROM generate_series(1, 100000) i;"
    }
}

#[test]
fn a_backup_goes_to_a_newer_server_and_not_to_an_older_one() {
    run("a_backup_goes_to_a_newer_server_and_not_to_an_older_one", async {
        let old = Database::with(15, "CREATE TABLE t AS SELECT i FROM generate_series(1, 9) i").await;
        let new = Database::absent(17).await;
        let (contents, facts) = crate::common::pour(&*old.source(), &Default::default()).await.unwrap();
        crate::common::restore(crate::common::held(contents, facts), &new).await.unwrap();
        assert_eq!(new.sql("SELECT count(*) FROM t").await, "9");
        let back = Database::absent(15).await;
        let (contents, facts) = crate::common::pour(&*new.source(), &Default::default()).await.unwrap();
        let e = crate::common::restore(crate::common::held(contents, facts), &back).await.unwrap_err();
        assert_eq!(e.kind(), backup_core::ErrorKind::Refused, "the plan refuses it: {e}");
        assert_eq!(back.leftovers_of_this().await, Vec::<String>::new());
    });
}

#[test]
fn a_database_of_another_encoding_comes_back() {
    run("a_database_of_another_encoding_comes_back", async {
        let from = Database::absent(15).await;
        from.admin(&format!(
            "CREATE DATABASE {} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
            from.name
        ))
        .await;
        from.sql("CREATE TABLE \"é\" (\"ü\" text, n regtype); INSERT INTO \"é\" VALUES ('äöü', 'int'), ('plain', NULL)").await;
        let to = Database::absent(15).await;
        mirror(&from, &to).await;
        assert_eq!(from.fingerprint().await, to.fingerprint().await);
        assert_eq!(to.sql("SELECT \"ü\" FROM \"é\" LIMIT 1").await, "äöü");
    });
}
