//! Several PostgreSQL databases as one component: all of them restored or none, one of them, or a table of one.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use backup_kit::{
    Confirmation, ErrorKind, Module, Old, Only, RestorePlan, RestoreReport, Result, archive, conclude,
    postgres,
};
use backup_testkit::{run, services, services::Postgres};
use std::path::PathBuf;

struct World {
    server: Postgres,
    dir: tempfile::TempDir,
}

const BOTH: [&str; 2] = ["orders", "stock"];

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
        let server = postgres::container(self.server.container().id());
        Module::new("shop").source("db", server.databases(BOTH))
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("shop.tar.zst")
    }

    fn restore(&self) -> backup_kit::Restore {
        self.module().restore(archive::file(self.file())).latest().state_dir(self.dir.path())
    }

    /// A server, or a database of it.
    fn place(&self, database: &str) -> String {
        let below = if database.is_empty() { String::new() } else { format!("/{database}") };
        format!("container://{}{below}", self.server.container().id())
    }

    fn values(&self) -> String {
        format!("{} {}", self.sql("orders", "SELECT v FROM t"), self.sql("stock", "SELECT v FROM t"))
    }

    /// What restores keep or have left.
    fn kept(&self) -> String {
        self.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname LIKE 'backup\\_%'")
    }
}

async fn apply(plan: RestorePlan) -> Result<RestoreReport> {
    let consent = Confirmation::of(plan.id());
    plan.apply(consent).await
}

fn refused(plan: RestorePlan) -> String {
    plan.refused().unwrap().to_string()
}

#[test]
fn several_databases_are_restored_together_undone_together_and_taken_one_by_one() {
    run("several_databases_are_restored_together_undone_together_and_taken_one_by_one", async {
        let w = World { server: services::own_postgres(17).await, dir: tempfile::tempdir().unwrap() };
        for database in BOTH {
            w.sql("postgres", &format!("CREATE DATABASE {database}"));
            w.sql(
                database,
                &format!("CREATE TABLE t AS SELECT 'then' v; CREATE TABLE of_{database} AS SELECT 1 i"),
            );
        }
        w.sql("stock", "CREATE ROLE keeper; ALTER TABLE t OWNER TO keeper");
        w.module().backup().to(archive::file(w.file())).run().await.unwrap();
        let change = || BOTH.map(|database| w.sql(database, "UPDATE t SET v = 'now'"));
        change();

        // The second one fails while its definitions are restored.
        w.sql("stock", "REASSIGN OWNED BY keeper TO postgres; DROP ROLE keeper");
        let e = apply(w.restore().plan().await.unwrap()).await.unwrap_err();
        assert!(e.kind() == ErrorKind::RolledBack && e.to_string().contains("keeper"), "{e}");
        assert_eq!((w.values(), w.kept()), ("now now".to_owned(), "0".to_owned()));
        w.sql("postgres", "CREATE ROLE keeper");

        let plan = w.restore().plan().await.unwrap();
        let said = format!("{:?}", plan.plan());
        assert!(said.contains("orders: a database with 2 relations"), "{said}");
        let id = apply(plan).await.unwrap().id.to_string();
        assert_eq!(w.values(), "then then");
        let (registry, cx) = (backup_kit::Registry::default(), Default::default());
        conclude(Old::BringBack, Some(&id), None, w.dir.path(), &registry, &cx).await.unwrap();
        assert_eq!((w.values(), w.kept()), ("now now".to_owned(), "0".to_owned()));

        // Where the names cannot be kept there is none for two.
        let e = refused(w.restore().to("db", w.place("one")).plan().await.unwrap());
        assert!(e.contains("several databases") && e.contains("orders, stock"), "{e}");
        let orders = |glob: &str| Only::matching("db", glob);
        let e = w.restore().only(orders("postgres/**")).plan().await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
        // One of them takes the name of the place; of the definitions of the other nothing comes along.
        apply(w.restore().only(orders("orders")).to("db", w.place("one")).plan().await.unwrap())
            .await
            .unwrap();
        let tables = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
        assert_eq!(w.sql("one", tables), "of_orders t");
        apply(w.restore().only(orders("stock/public.of_*")).to("db", w.place("two")).plan().await.unwrap())
            .await
            .unwrap();
        assert_eq!(w.sql("two", tables), "of_stock");
        let definitions = w.restore().only(orders("stock")).schema_only(true).to("db", w.place("three"));
        apply(definitions.plan().await.unwrap()).await.unwrap();
        assert_eq!(
            (w.sql("three", tables), w.sql("three", "SELECT count(*) FROM t")),
            ("of_stock t".into(), "0".into())
        );

        // A table of one goes into the database that is there; those of two cannot change places at once.
        let merging = |glob: &str| w.restore().only(orders(glob)).merge(true);
        let e = refused(merging("*/public.t").plan().await.unwrap());
        assert!(e.contains("tables of several databases"), "{e}");
        apply(merging("orders/public.t").settle(true).plan().await.unwrap()).await.unwrap();
        assert_eq!(w.values(), "then now");
        change();
        w.sql("orders", "DROP TABLE of_orders");
        let e = refused(w.restore().data_only(true).plan().await.unwrap());
        assert!(e.contains("public.of_orders"), "{e}");
        w.sql("orders", "CREATE TABLE of_orders (i int)");
        apply(w.restore().data_only(true).settle(true).plan().await.unwrap()).await.unwrap();
        assert_eq!(
            (w.values(), w.sql("orders", "SELECT i FROM of_orders")),
            ("then then".into(), "1".into())
        );

        // To a server alone: each keeps its name, those that are not there appear.
        for database in BOTH {
            w.sql("postgres", &format!("DROP DATABASE {database}"));
        }
        apply(w.restore().to("db", w.place("")).plan().await.unwrap()).await.unwrap();
        assert_eq!((w.values(), w.kept()), ("then then".to_owned(), "0".to_owned()));
    });
}

#[test]
fn roles_come_with_a_part_if_they_are_asked_for() {
    run("roles_come_with_a_part_if_they_are_asked_for", async {
        let w = World { server: services::own_postgres(17).await, dir: tempfile::tempdir().unwrap() };
        for database in BOTH {
            w.sql("postgres", &format!("CREATE DATABASE {database}"));
        }
        w.sql("stock", "CREATE ROLE keeper; CREATE TABLE t AS SELECT 1 i; ALTER TABLE t OWNER TO keeper");
        let source = || postgres::container(w.server.container().id()).databases(BOTH);
        let module = Module::new("shop").source("db", source().globals(true));
        module.backup().to(archive::file(w.file())).run().await.unwrap();
        for (glob, merge) in [("stock/public.t", false), ("stock", false), ("stock/public.t", true)] {
            w.sql("stock", "REASSIGN OWNED BY keeper TO postgres; DROP ROLE keeper");
            let part = || w.restore().only(Only::matching("db", glob)).merge(merge).settle(true);
            let part = || if merge { part() } else { part().to("db", w.place("other")) };
            let e = apply(part().plan().await.unwrap()).await.unwrap_err();
            assert!(e.failed().and_then(|e| e.hint_text()).unwrap_or_default().contains("--globals"), "{e}");
            apply(part().globals(true).plan().await.unwrap()).await.unwrap();
            let there = if merge { "stock" } else { "other" };
            assert_eq!(w.sql(there, "SELECT tableowner FROM pg_tables WHERE tablename = 't'"), "keeper");
            if !merge {
                w.sql("postgres", "DROP DATABASE other");
            }
        }

        // Where the backup has none it is no way out.
        Module::new("shop")
            .source("db", source())
            .backup()
            .to(archive::file(w.dir.path().join("without.tar")))
            .run()
            .await
            .unwrap();
        let archive = archive::file(w.dir.path().join("without.tar"));
        let without = w.module().restore(archive).latest().state_dir(w.dir.path()).globals(true);
        let plan =
            without.only(Only::matching("db", "stock")).to("db", w.place("other")).plan().await.unwrap();
        let e = refused(plan);
        assert!(e.contains("the backup has none"), "{e}");
    });
}
