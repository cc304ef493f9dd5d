//! In place: the old database goes before the new one is filled, nobody gets in meanwhile, and what fails leaves nothing half restored.

use crate::common::{Database, held, pour, restore_by};
use backup_core::{Content, Context, Error, ErrorKind, Target};
use backup_postgres::Method;
use backup_testkit::{
    faults::{Fault, FaultyTarget, Step},
    memory::{MemorySource, pour_into, surveyed},
    run,
};
use std::{sync::Arc, time::Duration};

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

/// Fills it and publishes it, in place.
async fn all_of_it(target: &mut dyn Target, backup: &MemorySource, cx: &Context) -> backup_core::Result<()> {
    surveyed(target, backup, &[], cx).await?;
    let sink = target.prepare(cx).await?;
    target.clear(cx).await?;
    pour_into(backup, "c", sink.clone(), cx).await?;
    sink.finish(cx).await?;
    target.publish(cx).await
}

#[test]
fn a_later_process_knows_whether_what_was_there_is_gone_wherever_an_earlier_one_was_killed() {
    run("a_later_process_knows_whether_what_was_there_is_gone_wherever_an_earlier_one_was_killed", async {
        let from = Database::with(17, "CREATE TABLE t AS SELECT 'new' v").await;
        let backup = backup_of(&from, Method::Native).await;
        let to = Database::with(17, OLD).await;
        let old = to.fingerprint().await;
        let cx = Context::default();
        let (mut untouched, mut gone) = (0, 0);
        let clearing = [5, 12, 15, 18].map(|polls| (Step::Clear, polls));
        for (step, polls) in clearing.into_iter().chain([(Step::Publish, 3)]) {
            if to.fingerprint().await == "nothing" {
                to.admin(&format!("CREATE DATABASE {}", to.name)).await;
                to.sql(OLD).await;
            }
            let mut target = FaultyTarget::new(in_place(&to), step, Fault::KilledAtPoll(polls));
            let killed = all_of_it(&mut target, &backup, &cx).await.is_err();
            let undo = target.undo();
            drop(target);
            let mut later = backup_core::Backend::recover(&crate::common::backend(), undo).unwrap();
            if !killed {
                later.settle(&cx).await.unwrap();
                to.sql("DROP TABLE t; CREATE TABLE old AS SELECT 42 i").await;
                continue;
            }
            let is_there = later.check_revert(&cx).await.is_ok();
            later.revert(&cx).await.unwrap();
            let expected = if is_there { old.as_str() } else { "nothing" };
            assert_eq!(to.fingerprint().await, expected, "{step:?} {polls}");
            assert_eq!(to.leftovers_of_this().await, Vec::<String>::new(), "{step:?} {polls}");
            *(if is_there { &mut untouched } else { &mut gone }) += 1;
        }
        assert!(untouched > 0 && gone > 0, "{untouched} {gone}");
    });
}

#[test]
fn an_ordinary_role_restores_its_own_database_in_place_and_drops_nothing_that_it_cannot_have_to_itself() {
    run(
        "an_ordinary_role_restores_its_own_database_in_place_and_drops_nothing_that_it_cannot_have_to_itself",
        async {
            let from = Database::with(17, "CREATE TABLE t AS SELECT 'new' v").await;
            let backup = backup_of(&from, Method::Native).await;
            let to = Arc::new(Database::with(17, "").await);
            let role = format!("owner_of_{}", to.name);
            to.admin(&format!(
                "CREATE ROLE {role} LOGIN CREATEDB PASSWORD 'p'; ALTER DATABASE {} OWNER TO {role}",
                to.name
            ))
            .await;
            to.sql(&format!("CREATE TABLE old AS SELECT 42 i; ALTER TABLE old OWNER TO {role}")).await;
            let mut password = tempfile::NamedTempFile::new().unwrap();
            std::io::Write::write_all(&mut password, b"p").unwrap();
            let mut config = to.config();
            (config.user, config.url) =
                (Some(role.clone()), config.url.map(|url| url.replace("postgres@", &format!("{role}@"))));
            config.password_file = Some(password.path().to_owned());
            (config.in_place, config.no_owner) = (true, true);

            // A session of somebody whom it may not end.
            let sits = tokio::spawn({
                let to = to.clone();
                async move { to.try_sql("SELECT pg_sleep(60)").await }
            });
            let busy = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'", to.name);
            while to.admin(&busy).await == "0" {}
            let cx = Context::default();
            let mut target = to.target_by(config.clone());
            surveyed(&mut *target, &backup, &[], &cx).await.unwrap();
            target.prepare(&cx).await.unwrap();
            let cancel = cx.cancel.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(2)).await;
                cancel.cancel();
            });
            assert_eq!(target.clear(&cx).await.unwrap_err().kind(), ErrorKind::Cancelled);
            target.check_revert(&cx.calm()).await.unwrap();
            target.revert(&cx.calm()).await.unwrap();
            let end = format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
                to.name
            );
            to.admin(&end).await;
            sits.await.unwrap().unwrap_err();
            assert_eq!(to.sql("SELECT i FROM old").await, "42");
            assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());

            restore_by(backup, to.target_by(config)).await.unwrap();
            assert_eq!(to.sql("SELECT v FROM t").await, "new");
            assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
            to.admin(&format!("DROP DATABASE {}; DROP ROLE {role}", to.name)).await;
        },
    );
}
