//! Materialized views that cannot be filled: what they show is derived, and costs nobody the rows.

use crate::{
    by_hand,
    common::{Database, backend, held, pour, restore, restore_by},
};
use backup_core::{Backend, Context, Severity};
use backup_postgres::Method;
use backup_testkit::run;

/// `far` reads another server; `near` reads `far`; the owner of `barred` may not read what it shows.
const VIEWS: &str = "CREATE TABLE t AS SELECT i FROM generate_series(1, 5) i; CREATE SCHEMA \"Odd s\";
    CREATE ROLE ROLE; GRANT ALL ON SCHEMA public TO ROLE; GRANT ROLE TO CURRENT_USER;
    CREATE EXTENSION postgres_fdw; CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (dbname 'REMOTE');
    CREATE USER MAPPING FOR PUBLIC SERVER s OPTIONS (user 'postgres', password 'PASSWORD'); CREATE FOREIGN TABLE rt (i int) SERVER s OPTIONS (table_name 't');
    CREATE MATERIALIZED VIEW \"Odd s\".\"far \"\"x\" AS SELECT i FROM rt; CREATE VIEW between_them AS SELECT * FROM \"Odd s\".\"far \"\"x\";
    CREATE MATERIALIZED VIEW a_near AS SELECT count(*) n FROM between_them;
    CREATE MATERIALIZED VIEW barred AS SELECT i FROM t; ALTER MATERIALIZED VIEW barred OWNER TO ROLE;
    CREATE MATERIALIZED VIEW works AS SELECT sum(i) s FROM t; CREATE MATERIALIZED VIEW z_empty AS SELECT 1 x WITH NO DATA";
const FILLED: &str =
    "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'm' AND relispopulated";

#[test]
fn a_materialized_view_that_cannot_be_filled_costs_nobody_the_rows() {
    run("a_materialized_view_that_cannot_be_filled_costs_nobody_the_rows", async {
        let cases = [(15, Method::Native), (15, Method::Dump), (17, Method::Dump)];
        for (version, method) in cases {
            let remote = Database::with(version, "CREATE TABLE t AS SELECT 1 i").await;
            let from = Database::absent(version).await;
            from.admin(&format!("CREATE DATABASE {}", from.name)).await;
            let role = format!("owns_{}", from.name);
            let views =
                VIEWS.replace("ROLE ROLE", &format!("ROLE {role}")).replace("TO ROLE", &format!("TO {role}"));
            let views = views.replace("GRANT ROLE", &format!("GRANT {role}")).replace("REMOTE", &remote.name);
            from.sql(&views.replace("PASSWORD", &from.server.password().replace('\'', "''"))).await;
            let mut config = from.config();
            config.method = Some(method);
            let source = backend().source("c", config.to_value()).unwrap();
            let (contents, facts) = pour(&*source, &Context::default()).await.unwrap();
            let folder = by_hand::unpacked(&contents);
            let source = held(contents, facts);

            // The other server is there.
            let to = Database::absent(version).await;
            let (paths, _) = lost(&restore(source.clone(), &to).await.unwrap());
            assert_eq!(
                (paths, to.sql(FILLED).await),
                (vec!["public.barred".into()], "a_near far \"x works".into())
            );

            // It is gone, also for views that were filled; what needs one of these is unfilled, too.
            remote.admin(&format!("ALTER DATABASE {0} RENAME TO gone_{0}", remote.name)).await;
            let mut rows = to.config();
            rows.data_only = true;
            let fresh = Database::absent(version).await;
            let mut said = Vec::new();
            for target in [fresh.target(), to.target_by(rows)] {
                let (paths, texts) = lost(&restore_by(source.clone(), target).await.unwrap());
                assert_eq!(
                    paths,
                    ["Odd s.far \"x", "public.a_near", "public.barred"],
                    "{version} {method:?} {texts:?}"
                );
                let fill = "to fill it: REFRESH MATERIALIZED VIEW \"Odd s\".\"far \"\"x\";";
                assert!(texts[0].contains(&remote.name) && texts[0].ends_with(fill), "{texts:?}");
                assert!(texts[1].contains("has not been populated"), "{texts:?}");
                assert!(texts[2].contains("permission denied for table t"), "{texts:?}");
                said = texts;
            }
            for to in [&fresh, &to] {
                assert_eq!(
                    (to.sql(FILLED).await, to.sql("SELECT count(*) FROM t").await),
                    ("works".into(), "5".into())
                );
            }

            // The statements that were named fill them.
            remote.admin(&format!("ALTER DATABASE gone_{0} RENAME TO {0}", remote.name)).await;
            to.sql(&format!("GRANT SELECT ON t TO {role}")).await;
            for text in &said {
                to.sql(text.split_once("to fill it: ").unwrap().1).await;
            }
            assert_eq!(to.sql(FILLED).await, "a_near barred far \"x works");
            drop((to, fresh));

            // By hand, too, all else is there.
            remote.admin(&format!("ALTER DATABASE {0} RENAME TO gone_{0}", remote.name)).await;
            from.admin(&format!("ALTER DATABASE {0} RENAME TO kept_{0}", from.name)).await;
            // The tools of this host are of 15.
            if version == 15 {
                by_hand::follow(&from, folder.path()).await;
                assert_eq!(from.sql(FILLED).await, "works");
            }
            for name in [format!("kept_{}", from.name), format!("gone_{}", remote.name), from.name.clone()] {
                from.admin(&format!("DROP DATABASE IF EXISTS {name}")).await;
            }
            from.admin(&format!("DROP ROLE {role}")).await;
        }
    });
}

/// What the report says is missing, and why.
fn lost(restored: &Context) -> (Vec<String>, Vec<String>) {
    let lost = restored.notes().list.into_iter().filter(|note| note.severity == Severity::Lost);
    lost.map(|note| (note.path, note.text)).unzip()
}
