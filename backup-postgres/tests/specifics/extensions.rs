//! Extensions make their own objects; of their tables, only what is the user's is in a backup.

use crate::common::{Database, mirror, pour};
use backup_core::Context;
use backup_testkit::{run, services};
use std::sync::Arc;

#[test]
fn of_an_extension_only_the_rows_that_it_names_are_kept() {
    run("of_an_extension_only_the_rows_that_it_names_are_kept", async {
        let server = Arc::new(services::own_postgres(17).await);
        let script = "CREATE TABLE settings (name text PRIMARY KEY, standard bool);
            INSERT INTO settings VALUES ('built in', true);
            CREATE TABLE internal AS SELECT 1 AS i;
            SELECT pg_catalog.pg_extension_config_dump('settings', 'WHERE NOT standard');";
        let install = "d=/usr/share/postgresql/17/extension; printf %s \"$1\" > $d/ours--1.sql
            printf \"default_version = '1'\\nrelocatable = true\\n\" > $d/ours.control";
        server.container().exec(&["sh", "-c", install, "sh", script]).await;
        let from = Database::on(server.clone());
        from.admin(&format!("CREATE DATABASE {}", from.name)).await;
        from.sql("CREATE EXTENSION ours; INSERT INTO settings VALUES ('mine', false); CREATE TABLE t AS SELECT 1 i").await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        assert_eq!(facts.count("table public.settings", "rows in 00000"), 1);
        assert!(!contents.keys().any(|path| path.starts_with(b"public.internal")));
        let to = Database::on(server);
        mirror(&from, &to).await;
        assert_eq!(to.sql("SELECT string_agg(name, ',' ORDER BY name) FROM settings").await, "built in,mine");
        assert_eq!(to.fingerprint().await, from.fingerprint().await);
    });
}
