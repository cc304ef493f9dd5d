//! Keys and indexes are built once, and those of large tables at once.

use crate::common::{Database, pour, restore_by, restore_with};
use backup_core::{Content, Context, Facts};
use backup_testkit::{
    memory::{Contents, MemorySource},
    run,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;

/// One table of more than 8 MiB, parts of another, and what needs their keys.
const TABLES: &str = "
CREATE TABLE large AS SELECT i id, repeat(md5(i::text), 8) v, i % 7 k FROM generate_series(1, 40000) i;
ALTER TABLE large ADD PRIMARY KEY (id), ADD CONSTRAINT apart EXCLUDE USING btree (v WITH =);
CREATE INDEX ON large (lower(v)); CREATE INDEX \"od\"\"d; name\" ON large (k) WHERE k > 1;
COMMENT ON INDEX large_lower_idx IS 'kept'; ALTER TABLE large CLUSTER ON large_pkey;
CREATE TABLE parts (id int, v text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100000); CREATE INDEX ON parts (v);
INSERT INTO parts SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 40000) i;
CREATE TABLE later AS SELECT i id, i large_id FROM generate_series(1, 10) i;
ALTER TABLE later ADD FOREIGN KEY (large_id) REFERENCES large, ADD FOREIGN KEY (id) REFERENCES parts;
";

#[test]
fn indexes_of_a_large_table_are_built_while_others_are_loaded() {
    run("indexes_of_a_large_table_are_built_while_others_are_loaded", async {
        for version in [15, 17] {
            let from = Database::with(version, TABLES).await;
            let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
            let to = Database::absent(version).await;
            let gate = Arc::new(Semaphore::new(0));
            let source = held_until(&gate, b"public.later/", contents, facts);
            let target = to.target();
            let shadow = format!("backup_new_{}", target.undo()["id"].as_str().unwrap());
            let restoring =
                tokio::spawn(async move { restore_by(source, target).await.map(drop).map(|()| to) });
            let began = Instant::now();
            let built = "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relname IN ('large', 'parts_1')";
            while from.psql(&shadow, built).await.unwrap_or_default() != "6" {
                assert!(began.elapsed() < Duration::from_secs(60), "no index is built");
                assert!(!restoring.is_finished(), "{:?}", restoring.await.map(|done| done.map(drop)));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            gate.add_permits(1);
            let to = restoring.await.unwrap().unwrap();
            assert_eq!(from.fingerprint().await, to.fingerprint().await);
            let known =
                to.sql("SELECT count(DISTINCT tablename) FROM pg_stats WHERE schemaname = 'public'").await;
            assert_eq!(known, "4", "statistics of all tables, the partitioned one too");
            assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
        }
    });
}

/// What was poured; the entries that begin so do not end before they may.
fn held_until(gate: &Arc<Semaphore>, begin: &'static [u8], contents: Contents, facts: Facts) -> MemorySource {
    let mut source = MemorySource::new("c").with_facts(facts);
    for (path, held) in contents {
        let (last, gate) = (path.starts_with(begin), gate.clone());
        source = source.with(held.entry.clone(), move || match last {
            true => held_back(held.content(), gate.clone()),
            false => held.content(),
        });
    }
    source
}

/// Does not end before it may.
fn held_back(mut content: Content, gate: Arc<Semaphore>) -> Content {
    Content::produce(move |feed| async move {
        while let Some(bytes) = content.next().await? {
            feed.send(bytes).await?;
        }
        let _may = gate.acquire().await;
        Ok(content.facts().cloned().unwrap_or_else(Facts::new))
    })
}

/// An index of a large table that is built until another one is begun, and two of small tables each of which is built until the other
/// is, too. Who waited in vain takes a number.
const MEETING: &str = "
CREATE SEQUENCE in_vain;
CREATE FUNCTION wait_for(others int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE began timestamptz := clock_timestamp();
BEGIN
  IF current_setting('application_name') NOT LIKE 'backup restore %' THEN RETURN 1; END IF;
  WHILE (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 77
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) < others LOOP
    IF clock_timestamp() > began + '30 s' THEN RETURN nextval('public.in_vain'); END IF;
    PERFORM pg_sleep(0.02);
  END LOOP;
  RETURN 1;
END $$;
CREATE FUNCTION until_begun(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN IF i = 1 THEN RETURN public.wait_for(1); END IF; RETURN i; END $$;
CREATE FUNCTION meet(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN PERFORM pg_advisory_lock_shared(77); RETURN public.wait_for(2); END $$;
CREATE TABLE large AS SELECT i id, repeat(md5(i::text), 8) v FROM generate_series(1, 40000) i;
CREATE INDEX ON large (public.until_begun(id));
CREATE TABLE one AS SELECT 1 i; CREATE INDEX ON one (public.meet(i));
CREATE TABLE two AS SELECT 1 i; CREATE INDEX ON two (public.meet(i));
";

#[test]
fn what_is_left_is_built_side_by_side_as_soon_as_a_session_is_free() {
    run("what_is_left_is_built_side_by_side_as_soon_as_a_session_is_free", async {
        let from = Database::with(17, MEETING).await;
        let mut cx = Context::default();
        cx.tasks = 2;
        let (contents, facts) = pour(&*from.source(), &cx).await.unwrap();
        let to = Database::absent(17).await;
        let gate = Arc::new(Semaphore::new(0));
        let source = held_until(&gate, b"public.one/", contents, facts);
        let target = to.target();
        let restoring = tokio::spawn(async move { restore_with(source, target, cx).await.map(drop) });
        let begun = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%CREATE INDEX%public.until_begun%' AND application_name LIKE 'backup restore %'";
        while from.admin(begun).await == "0" {
            assert!(!restoring.is_finished(), "no index is built: {:?}", restoring.await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        gate.add_permits(1);
        restoring.await.unwrap().unwrap();
        assert_eq!(to.sql("SELECT is_called FROM in_vain").await, "f");
        assert_eq!(to.sql("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'").await, "3");
        assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
    });
}
