//! Servers that are in a bad way.

use super::*;

#[test]
fn a_server_whose_disk_is_full_in_the_middle_of_a_restore_keeps_what_it_has() {
    in_time("a_server_whose_disk_is_full_in_the_middle_of_a_restore_keeps_what_it_has", async {
        for (flavor, room) in [(Flavor::Mariadb118, 220), (Flavor::Mysql9, 260)] {
            let server = services::mysql_with_room(flavor, room).await;
            let mut c = conn(&server).await;
            let name = database(
                &mut c,
                "kept",
                "CREATE TABLE old (id int PRIMARY KEY, t text);; INSERT INTO old VALUES (1, 'stays');; CREATE VIEW v AS SELECT id FROM old;; \
                 CREATE TABLE rows_of (id int PRIMARY KEY AUTO_INCREMENT, t text);; INSERT INTO rows_of (t) VALUES (REPEAT('x', 60000))",
            )
            .await;
            let cx = Context::default();
            // The rows of one are poured again and again: more than there is room for.
            let sink = ContentsSink::new();
            pour(&*source(&config(&server, &name)), "db", Arc::new(sink.clone()), &cx).await.must("pour");
            let mut data = MemorySource::new("db");
            for held in sink.take().into_values() {
                let bytes = held.chunks.concat();
                if !held.entry.path.ends_with(b"rows_of/data.tsv") {
                    data = data.with_bytes(held.entry, bytes);
                    continue;
                }
                let more: Vec<u8> =
                    (1..3500).flat_map(|id| [id.to_string().as_bytes(), &bytes[1..]].concat()).collect();
                data = data.with_bytes(backup_core::Entry { size: None, ..held.entry }, more);
            }
            run(&mut c, "DROP TABLE rows_of").await;
            let before = fingerprint(&mut c, &name).await;
            let mut target = target(&config(&server, &name));
            surveyed(&mut *target, &data, &[], &cx).await.must("survey");
            let shadow = target.prepare(&cx).await.must("prepare");
            let error = pour(&data, "db", shadow, &cx).await.err().must("there is no room for it");
            assert!(
                error.kind() == ErrorKind::Target
                    && error.hint_text() == Some("make room on the server's disk"),
                "{error}: {:?}",
                error.hint_text()
            );
            target.revert(&cx).await.must("revert");
            assert_eq!(fingerprint(&mut c, &name).await, before);
            assert_eq!(schemas_left(&mut c, "").await, Vec::<String>::new());
        }
    });
}
