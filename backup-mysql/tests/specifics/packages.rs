//! Packages of MariaDB, and names that hold what quotes them.

use super::*;
use backup_core::{Fact, Facts};

/// `g` of the package gives this number.
fn package(number: u32) -> String {
    format!(
        "SET sql_mode = 'ORACLE';; CREATE OR REPLACE PACKAGE pk AS FUNCTION g RETURN INT; END;; \
         CREATE OR REPLACE PACKAGE BODY pk AS FUNCTION g RETURN INT AS BEGIN RETURN {number}; END; END;; SET sql_mode = ''"
    )
}

async fn packages(flavor: Flavor) {
    let (server, mut c) = any_server(flavor).await;
    let tables = "CREATE TABLE t (id int PRIMARY KEY);; INSERT INTO t VALUES (1);; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1";
    let name = database(&mut c, "packages", &format!("{tables};; {}", package(3))).await;
    run(&mut c, &format!("CREATE VIEW w AS SELECT `{name}`.pk.g() AS g FROM t")).await;
    let (cx, at) = (Context::default(), config(&server, &name));
    let data = captured(&at, &cx).await.must("pour");
    let new = fingerprint(&mut c, &name).await;
    assert!(new.contains("PACKAGE BODY"), "{new}");

    // Where nothing is, beside what is there with the way back, merged, and in place.
    let elsewhere = fresh("packages");
    restore_data(&data, &config(&server, &elsewhere), &cx)
        .await
        .must("restore")
        .settle(&cx)
        .await
        .must("settle");
    let called = format!("SELECT `{elsewhere}`.pk.g() + (SELECT g FROM `{elsewhere}`.w)");
    assert_eq!(value(&mut conn(&server).await, &called).await, "6");
    let mut c = conn(&server).await;
    run(&mut c, &format!("USE `{name}`;; {}", package(4))).await;
    let old = fingerprint(&mut c, &name).await;
    let (mut merged, mut in_place) = (at.clone(), at.clone());
    merged["merge"] = json!(true);
    in_place["in_place"] = json!(true);
    for at in [&at, &merged] {
        let mut restored = restore_data(&data, at, &cx).await.must("restore");
        let mut c = conn(&server).await;
        assert_eq!(fingerprint(&mut c, &name).await, new);
        run(&mut c, "USE mysql").await;
        restored.check_revert(&cx).await.must("the way back");
        restored.revert(&cx).await.must("revert");
        assert_eq!(fingerprint(&mut conn(&server).await, &name).await, old);
    }
    restore_data(&data, &in_place, &cx).await.must("restore").settle(&cx).await.must("settle");
    assert_eq!(fingerprint(&mut conn(&server).await, &name).await, new);

    // The server drops a body with its declaration: what the backup lacks stays in a merge.
    let facts = Facts::new().with(format!("table {name}.t"), "rows", Fact::Count(1));
    let begun = MemorySource::new("db").with_facts(facts);
    let bare = data.contents().await.into_values().fold(begun, |bare, held| {
        let is_body = String::from_utf8_lossy(&held.entry.path).contains("packagebody");
        if is_body { bare } else { bare.with_bytes(held.entry.clone(), held.chunks.concat()) }
    });
    let mut c = conn(&server).await;
    run(&mut c, &format!("USE `{name}`;; {};; USE mysql", package(5))).await;
    let mut restored = restore_data(&bare, &merged, &cx).await.must("restore");
    let called = format!("SELECT `{name}`.pk.g()");
    assert_eq!(value(&mut conn(&server).await, &called).await, "5");
    restored.revert(&cx).await.must("revert");
    assert_eq!(value(&mut conn(&server).await, &called).await, "5");
}

#[test]
fn packages_are_restored_replaced_merged_and_brought_back() {
    in_time("packages_are_restored_replaced_merged_and_brought_back", async {
        packages(Flavor::Mariadb118).await;
        packages(Flavor::Mariadb1011).await;
    });
}

#[test]
fn rows_go_into_tables_whose_names_hold_backquotes() {
    in_time("rows_go_into_tables_whose_names_hold_backquotes", async {
        for flavor in [Flavor::Mariadb118, Flavor::Mysql9] {
            let (server, mut c) = any_server(flavor).await;
            let name = database(
                &mut c,
                "ticks",
                "CREATE TABLE `a``b` (id int PRIMARY KEY);; INSERT INTO `a``b` VALUES (1), (2), (3);; CREATE TABLE ab (id int PRIMARY KEY);; CREATE TABLE `c``d` (id int PRIMARY KEY);; INSERT INTO `c``d` VALUES (9);; \
                 INSERT INTO ab VALUES (7);; CREATE TRIGGER `t``r` BEFORE INSERT ON `a``b` FOR EACH ROW SET NEW.id = NEW.id",
            )
            .await;
            let (cx, at) = (Context::default(), config(&server, &name));
            let data = captured(&at, &cx).await.must("pour");
            let before = fingerprint(&mut c, &name).await;
            run(&mut c, "DELETE FROM `a``b`;; DELETE FROM ab;; DELETE FROM `c``d`;; USE mysql").await;
            let mut rows = at.clone();
            rows["data_only"] = json!(true);
            for at in [&rows, &at] {
                restore_data(&data, at, &cx).await.must("restore").settle(&cx).await.must("settle");
                assert_eq!(fingerprint(&mut conn(&server).await, &name).await, before);
            }
            let mut c = conn(&server).await;
            run(&mut c, &format!("DROP TABLE `{name}`.`a``b`")).await;
            let refused = surveyed(&mut *target(&rows), &data, &[], &cx).await.err().must("refused");
            assert!(refused.to_string().contains(&format!("{name}.a`b is not there")), "{refused}");

            // As earlier versions counted: without the backquotes.
            let sink = ContentsSink::new();
            pour(&data, "db", Arc::new(sink.clone()), &cx).await.must("pour");
            let of_ab = format!("{name}.ab/").into_bytes();
            let entries = sink.take().into_values().filter(|held| !held.entry.path.starts_with(&of_ab));
            let facts = Facts::new().with(format!("table {name}.ab"), "rows", Fact::Count(3)).with(
                format!("table {name}.cd"),
                "rows",
                Fact::Count(1),
            );
            let earlier = entries.fold(MemorySource::new("db").with_facts(facts), |data, held| {
                data.with_bytes(held.entry.clone(), held.chunks.concat())
            });
            let mut merged = at.clone();
            merged["merge"] = json!(true);
            restore_data(&earlier, &merged, &cx).await.must("restore").settle(&cx).await.must("settle");
        }
    });
}
