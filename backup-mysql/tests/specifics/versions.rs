//! Older servers and the other vendor.

use super::*;

#[test]
fn an_older_server_and_another_vendor_are_refused_and_nothing_is_left() {
    in_time("an_older_server_and_another_vendor_are_refused_and_nothing_is_left", async {
        let (new, mut c) = any_server(Flavor::Mariadb118).await;
        let name = database(&mut c, "versions", "CREATE TABLE t (id int PRIMARY KEY)").await;
        let cx = Context::default();
        let data = captured(&config(&new, &name), &cx).await.must("pour");
        for flavor in [Flavor::Mariadb1011, Flavor::Mysql9] {
            let (server, mut c) = any_server(flavor).await;
            let to = fresh("refused");
            // The plan says so, with both versions.
            let error = surveyed(&mut *target(&config(&server, &to)), &data, &[], &cx).await;
            let error = error.err().must("refused");
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            let here = if flavor.is_mariadb() { "MariaDB 10.11." } else { "this is MySQL 9." };
            assert!(
                error.to_string().contains("the backup is of MariaDB 11.8.")
                    && error.to_string().contains(here),
                "{error}"
            );
            assert_eq!(fingerprint(&mut c, &to).await, "there is no such database");
        }
        // Forward is fine, and so is another vendor if asked.
        let (old, mut c) = any_server(Flavor::Mariadb1011).await;
        let name =
            database(&mut c, "versions", "CREATE TABLE t (id int PRIMARY KEY);; INSERT INTO t VALUES (1)")
                .await;
        let data = captured(&config(&old, &name), &cx).await.must("pour");
        restore_data(&data, &config(&new, &name), &cx).await.must("forward").settle(&cx).await.must("settle");
        let (mysql, _) = any_server(Flavor::Mysql9).await;
        let other = restore_accepting(&data, &config(&mysql, &name), &["other-vendor"], &cx).await;
        assert!(other.is_ok() || other.err().must("an error").kind() == ErrorKind::Target);
    });
}

#[test]
fn the_plan_of_a_restore_to_the_other_vendor_lists_what_does_not_map() {
    in_time("the_plan_of_a_restore_to_the_other_vendor_lists_what_does_not_map", async {
        for (from, to, words) in [
            (
                Flavor::Mariadb118,
                Flavor::Mysql9,
                ["sequences: ", ".numbers", "system versioning: ", ".with_history", "uuid", ".numbered.u"]
                    .as_slice(),
            ),
            (
                Flavor::Mysql9,
                Flavor::Mariadb118,
                &[
                    "JSON",
                    ".blobs.doc",
                    "_0900_",
                    "invisible columns",
                    ".generated_key.h",
                    "functional key",
                    ".e",
                ],
            ),
        ] {
            let cx = Context::default();
            let (name, data) = {
                let (server, mut c) = any_server(from).await;
                let name = fresh("peculiar");
                schema::every_sort(&mut c, &name, from).await;
                run(&mut c, "CREATE TABLE modern (t varchar(5)) DEFAULT CHARSET=utf8mb4").await;
                (name.clone(), captured(&config(&server, &name), &cx).await.must("pour"))
            };
            let notes_on = async |flavor: Flavor| {
                let (server, _c) = any_server(flavor).await;
                let mut there = target(&config(&server, &name));
                surveyed(&mut *there, &data, &["other-vendor"], &cx).await.must("survey").notes.join("\n")
            };
            let said = notes_on(to).await;
            for word in words {
                assert!(said.contains(word), "{word} in {said}");
            }
            // To the same vendor nothing of it is said.
            let said = notes_on(from).await;
            assert!(!said.contains("does not map"), "{said}");
        }
    });
}
