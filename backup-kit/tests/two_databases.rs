//! A module of two databases, by the embedding API: one backup, one restore, all or nothing.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use backup_kit::{Confirmation, ErrorKind, Health, Module, archive, postgres};
use backup_testkit::{run, services, services::Postgres};
use std::{io::Write, path::Path, sync::Arc, time::Duration};

struct World {
    server: Arc<Postgres>,
    dir: tempfile::TempDir,
}

impl World {
    fn sql(&self, database: &str, sql: &str) -> String {
        let out = std::process::Command::new("psql")
            .args(["-qAtX", "-v", "ON_ERROR_STOP=1", "-c", sql, &self.server.url(database)])
            .env("PGPASSWORD", self.server.password())
            .output()
            .unwrap();
        assert!(out.status.success(), "{sql}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn module(&self) -> Module {
        let password = self.dir.path().join("password");
        writeln!(std::fs::File::create(&password).unwrap(), "{}", self.server.password()).unwrap();
        let source = |database: &str| postgres::url(self.server.url(database)).password_file(&password);
        Module::new("shop").source("orders", source("orders")).source("stock", source("stock"))
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.path().join("shop.tar.zst")
    }

    fn state(&self) -> &Path {
        self.dir.path()
    }

    fn values(&self) -> (String, String) {
        (self.sql("orders", "SELECT v FROM t"), self.sql("stock", "SELECT v FROM t"))
    }
}

#[test]
fn two_databases_are_restored_together_or_not_at_all() {
    run("two_databases_are_restored_together_or_not_at_all", async {
        let w =
            World { server: Arc::new(services::own_postgres(17).await), dir: tempfile::tempdir().unwrap() };
        for database in ["orders", "stock"] {
            w.sql("postgres", &format!("CREATE DATABASE {database}"));
            w.sql(database, "CREATE TABLE t AS SELECT 'then' v");
        }
        w.sql("stock", "CREATE ROLE keeper; ALTER TABLE t OWNER TO keeper");
        let module = w.module();
        module.backup().to(archive::file(w.file())).run().await.unwrap();
        for database in ["orders", "stock"] {
            w.sql(database, "UPDATE t SET v = 'now'");
        }

        // The second one fails while its definitions are restored.
        w.sql("stock", "REASSIGN OWNED BY keeper TO postgres; DROP ROLE keeper");
        let plan =
            module.restore(archive::file(w.file())).latest().state_dir(w.state()).plan().await.unwrap();
        let consent = Confirmation::of(plan.id());
        let e = plan.apply(consent).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::RolledBack, "{e}");
        assert_eq!(w.values(), ("now".to_owned(), "now".to_owned()));
        let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'backup\\_%'";
        assert_eq!(w.sql("postgres", left), "0");

        w.sql("postgres", "CREATE ROLE keeper");
        let plan =
            module.restore(archive::file(w.file())).latest().state_dir(w.state()).plan().await.unwrap();
        let consent = Confirmation::of(plan.id());
        plan.apply(consent).await.unwrap();
        assert_eq!(w.values(), ("then".to_owned(), "then".to_owned()));

        // Both are published, and the application does not work with them: both are as before, and it runs.
        for database in ["orders", "stock"] {
            w.sql(database, "UPDATE t SET v = 'now'");
        }
        let app = services::own_postgres(15).await;
        let health = Health::url("http://127.0.0.1:9/health").timeout(Duration::from_secs(1));
        let broken = module.clone().app([app.container().id()]).health(health);
        let plan =
            broken.restore(archive::file(w.file())).latest().state_dir(w.state()).plan().await.unwrap();
        let consent = Confirmation::of(plan.id());
        let e = plan.apply(consent).await.unwrap_err();
        assert!(e.kind() == ErrorKind::RolledBack && e.to_string().contains("/health"), "{e}");
        assert_eq!(w.values(), ("now".to_owned(), "now".to_owned()));
        assert_eq!(w.sql("postgres", left), "2", "the old data of the restore before, and nothing else");
        assert!(starts(app.container().id()) > 1, "it was not stopped and started");
    });
}

/// How often the container was started, by what its program has said.
fn starts(id: &str) -> usize {
    let out = std::process::Command::new("docker").args(["logs", id]).output().unwrap();
    let said = [out.stdout, out.stderr].concat();
    let state =
        std::process::Command::new("docker").args(["inspect", "-f", "{{.State.Running}}", id]).output();
    assert_eq!(state.unwrap().stdout, b"true\n");
    String::from_utf8_lossy(&said).matches("starting PostgreSQL").count()
}
