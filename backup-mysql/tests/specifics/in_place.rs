//! In place: what is there goes before what is restored comes; what fails leaves nothing half restored.

use super::*;
use backup_core::{Content, Error};

fn in_place(server: &Mysql, name: &str) -> Value {
    let mut config = config(server, name);
    config["in_place"] = json!(true);
    config
}

async fn restored_in_place(flavor: Flavor) {
    let (server, mut c) = any_server(flavor).await;
    let from = fresh("every");
    schema::every_sort(&mut c, &from, flavor).await;
    let to = database(
        &mut c,
        "in_place",
        "CREATE TABLE a (id int PRIMARY KEY);; INSERT INTO a VALUES (42);; CREATE TABLE b (id int PRIMARY KEY, a int, FOREIGN KEY (a) REFERENCES a (id));; \
         CREATE VIEW v AS SELECT id FROM a;; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 7;; \
         CREATE TRIGGER t BEFORE INSERT ON a FOR EACH ROW SET NEW.id = NEW.id;; CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO DELETE FROM a",
    )
    .await;
    if flavor.is_mariadb() {
        run(&mut c, "CREATE SEQUENCE s;; CREATE TABLE n (id int DEFAULT NEXT VALUE FOR s)").await;
    }
    let before = fingerprint(&mut c, &to).await;
    let cx = Context::default();
    let data = captured(&config(&server, &from), &cx).await.must("pour");
    let at = in_place(&server, &to);

    // A later process finds out how far an earlier one had come.
    let mut prepared = target(&at);
    let survey = surveyed(&mut *prepared, &data, &[], &cx).await.must("survey");
    assert!(survey.in_place && survey.replaces && survey.publish.contains("dropped"), "{survey:?}");
    let torn = Error::new(ErrorKind::Source, "read", "it is torn");
    let mut failing = MemorySource::new("db");
    for held in data.contents().await.into_values() {
        let (fails, torn) = (held.entry.path.ends_with(b"/data.tsv"), torn.clone());
        failing = failing.with(held.entry.clone(), move || match fails {
            true => Content::failed(torn.clone()),
            false => held.content(),
        });
    }
    let sink = prepared.prepare(&cx).await.must("prepare");
    prepared.check_revert(&cx).await.must("nothing is gone");
    assert_eq!(fingerprint(&mut c, &to).await, before);
    // A transaction of the application holds a table.
    let mut app = conn(&server).await;
    run(&mut app, &format!("USE `{to}`;; BEGIN;; SELECT * FROM a")).await;
    run(&mut c, "USE mysql").await; // or it would be ended, too
    prepared.clear(&cx).await.must("clear");
    let poured = pour(&failing, "db", sink, &cx).await;
    assert!(poured.is_err() || poured.is_ok_and(|p| p.lost > 0), "nothing was lost of what is torn");
    let undo = prepared.undo();
    let id = id_of(&*prepared);
    drop(prepared);
    let recover = || MysqlBackend::default().recover(undo.clone()).must("recover");
    let gone = recover().check_revert(&cx).await.err().must("it is gone");
    assert!(gone.kind() == ErrorKind::Refused && gone.to_string().contains("in place"), "{gone}");
    recover().revert(&cx).await.must("revert");
    assert_eq!(fingerprint(&mut c, &to).await.lines().count(), 1, "something is left of it");
    assert_eq!(schemas_left(&mut c, &id).await, Vec::<String>::new());
    recover().check_revert(&cx).await.err().must("it is gone");

    run(&mut c, &format!("CREATE TABLE `{to}`.made_meanwhile (id int);; USE mysql")).await;
    let mut target = restore_data(&data, &at, &cx).await.must("restore");
    target.settle(&cx).await.must("settle");
    let (expected, found) = (fingerprint(&mut c, &from).await, fingerprint(&mut c, &to).await);
    for (a, b) in expected.lines().zip(found.lines()) {
        assert_eq!(a, b, "in:\n{found}");
    }
    assert_eq!(expected.lines().count(), found.lines().count());
    assert_eq!(schemas_left(&mut c, &id_of(&*target)).await, Vec::<String>::new());
    if flavor.is_mariadb() {
        run(&mut c, &format!("INSERT INTO `{to}`.numbered (t) VALUES ('works')")).await;
    }
}

#[test]
fn every_sort_of_object_comes_back_in_place_on_mariadb_11_8() {
    in_time(
        "every_sort_of_object_comes_back_in_place_on_mariadb_11_8",
        restored_in_place(Flavor::Mariadb118),
    );
}

#[test]
fn every_sort_of_object_comes_back_in_place_on_mysql_9() {
    in_time("every_sort_of_object_comes_back_in_place_on_mysql_9", restored_in_place(Flavor::Mysql9));
}
