//! Roles and tablespaces: of servers of their own, for they are everybody's.

use crate::common::{Database, backend, held, pour, published, restore_by};
use backup_core::{Backend, Context, ErrorKind, Fact, Severity, Target};
use backup_postgres::PostgresConfig;
use backup_testkit::{memory::surveyed, run, services};
use std::sync::Arc;

const ROLES: &str = "CREATE ROLE boss; CREATE ROLE \"o'x\" LOGIN PASSWORD 'its p''w' VALID UNTIL '2040-01-01 00:00:00+00' CONNECTION LIMIT 5 CREATEDB;
    CREATE ROLE stays LOGIN PASSWORD 'before'; GRANT boss TO \"o'x\" WITH ADMIN OPTION; GRANT pg_monitor TO boss; GRANT boss TO stays;
    ALTER ROLE \"o'x\" SET work_mem = '8MB'; ALTER ROLE boss SET search_path = \"$user\", audit; COMMENT ON ROLE boss IS E'two\\nlines';
    CREATE TABLESPACE fast OWNER boss LOCATION '/tmp/fast' WITH (seq_page_cost = 2); GRANT CREATE ON TABLESPACE fast TO stays; COMMENT ON TABLESPACE fast IS 'it''s'";

async fn server_with(folders: &[&str]) -> Database {
    let server = services::own_postgres(17).await;
    for folder in folders {
        let make = format!("mkdir -p {folder} && chown postgres {folder}");
        server.container().exec(&["sh", "-c", &make]).await;
    }
    Database::on(Arc::new(server))
}

/// What the vendor's tool says of all roles and tablespaces but those named so.
async fn globals(database: &Database, but: &[&str]) -> Vec<String> {
    let said = database.server.container().exec(&["pg_dumpall", "-U", "postgres", "-g"]).await;
    let kept =
        said.lines().filter(|line| !line.starts_with("--") && !line.starts_with('\\') && !line.is_empty());
    let mut lines: Vec<String> =
        kept.filter(|line| !but.iter().any(|b| line.contains(b))).map(str::to_owned).collect();
    lines.sort();
    lines
}

fn with_globals(database: &Database) -> PostgresConfig {
    let mut config = database.config();
    config.globals = Some(true);
    config
}

fn target(database: &Database) -> Box<dyn Target> {
    backend().target("c", with_globals(database).to_value()).unwrap()
}

#[test]
fn roles_and_tablespaces_come_back_if_asked_for_and_those_that_are_there_stay_as_they_are() {
    run("roles_and_tablespaces_come_back_if_asked_for_and_those_that_are_there_stay_as_they_are", async {
        let from = server_with(&["/tmp/fast", "/tmp/lost"]).await;
        from.admin(ROLES).await;
        from.admin("CREATE TABLESPACE lost LOCATION '/tmp/lost'").await;
        from.admin(&format!("CREATE DATABASE {} OWNER boss", from.name)).await;
        from.admin(&format!("ALTER DATABASE {} SET default_tablespace = fast", from.name)).await;
        from.sql("CREATE TABLE t AS SELECT 1 i; ALTER TABLE t OWNER TO \"o'x\"; CREATE TABLE at_home (i int PRIMARY KEY USING INDEX TABLESPACE pg_default) TABLESPACE pg_default;
            CREATE TABLE apart (i int PRIMARY KEY) TABLESPACE pg_default; INSERT INTO apart VALUES (1); ALTER TABLE at_home OWNER TO \"o'x\"; ALTER TABLE apart OWNER TO \"o'x\"").await;
        let source = backend().source("c", with_globals(&from).to_value()).unwrap();
        assert!(source.origin().get("globals").is_none());
        from.admin("GRANT SET, ALTER SYSTEM ON PARAMETER log_statement TO boss; GRANT SET ON PARAMETER \"app.Key\" TO \"o'x\" WITH GRANT OPTION").await;
        from.admin("ALTER ROLE ALL SET log_min_duration_statement = 100; GRANT SET ON PARAMETER log_duration TO PUBLIC").await;
        let cx = Context::default();
        let (contents, facts) = pour(&*source, &cx).await.unwrap();
        let said = cx.notes().list;
        for left_out in [
            "ALTER ROLE ALL SET) are not in the backup: log_min_duration_statement",
            "TO PUBLIC) are not in the backup: log_duration",
        ] {
            assert!(
                said.iter().any(|n| n.severity == Severity::Warning && n.text.contains(left_out)),
                "{said:?}"
            );
        }
        // Said, and out of the way of what is compared.
        from.admin("ALTER ROLE ALL RESET ALL; REVOKE ALL ON PARAMETER log_duration FROM PUBLIC").await;
        assert_eq!(facts.get("roles", "o'x"), Some(&Fact::Note("may log in".into())));
        let source = held(contents, facts);

        // Not asked for: said, and what is missing is an error with the way out.
        let to = server_with(&["/tmp/fast"]).await;
        to.admin("CREATE ROLE stays LOGIN PASSWORD 'after'").await;
        let fresh = globals(&to, &[]).await;
        let mut plain = backend().target("c", to.config().to_value()).unwrap();
        let survey = surveyed(&mut *plain, &source, &[], &Context::default()).await.unwrap();
        assert!(survey.notes.iter().any(|note| note.contains("--globals")), "{:?}", survey.notes);
        assert!(restore_by(source.clone(), plain).await.is_err());

        // Undone: taken away with all else.
        let cx = Context::default();
        let mut undone = published(&source, target(&to), &cx).await;
        assert_ne!(globals(&to, &[]).await, fresh);
        undone.revert(&cx).await.unwrap();
        assert_eq!(globals(&to, &[]).await, fresh);

        let survey = surveyed(&mut *target(&to), &source, &[], &cx).await.unwrap();
        let plan = survey.notes.join("\n");
        assert!(
            plan.contains("roles are made, before all else: boss, o'x")
                && plan.contains("stay as they are: postgres, stays")
                && plan.contains("where nothing is replaced there is no undo"),
            "{plan}"
        );
        let cx = restore_by(source.clone(), target(&to)).await.unwrap();
        let but = ["stays", "lost", "ROLE postgres"];
        assert_eq!(globals(&to, &but).await, globals(&from, &but).await);
        assert_eq!(to.sql("SELECT tableowner || ' ' || pg_get_userbyid(datdba) FROM pg_tables, pg_database WHERE tablename = 't' AND datname = current_database()").await, "o'x boss");
        let places = "SELECT string_agg(relname || ' in ' || coalesce(spcname, 'default'), ', ' ORDER BY relname) || '; ' || current_setting('default_tablespace')
            FROM pg_class c LEFT JOIN pg_tablespace s ON s.oid = reltablespace WHERE relname IN ('t', 'at_home', 'at_home_pkey', 'apart', 'apart_pkey')";
        let expected = "apart in default, apart_pkey in fast, at_home in default, at_home_pkey in default, t in fast; fast";
        assert_eq!((&*from.sql(places).await, &*to.sql(places).await), (expected, expected));
        let notes = cx.notes().list;
        let said = |name: &str, severity| notes.iter().any(|n| n.path == name && n.severity == severity);
        assert!(
            said("role stays", Severity::Note) && said("tablespace lost", Severity::Warning),
            "{notes:?}"
        );

        // A role that others need by now stays when the restore is undone.
        let later = server_with(&["/tmp/fast"]).await;
        let cx = Context::default();
        let mut undone = published(&source, target(&later), &cx).await;
        later.admin("CREATE TABLE needs (i int); GRANT SELECT ON needs TO boss").await;
        undone.revert(&cx).await.unwrap();
        let left = later.admin("SELECT string_agg(rolname || ' ' || shobj_description(oid, 'pg_authid'), ',') FROM pg_roles WHERE rolname IN ('boss', 'o''x')").await;
        assert_eq!(left, "boss two\nlines");

        // One that another restore makes in the same moment is there.
        later.admin("DROP TABLE needs; REVOKE SET, ALTER SYSTEM ON PARAMETER log_statement FROM boss; DROP ROLE boss").await;
        let meanwhile = "BEGIN; CREATE ROLE boss; DO $$ BEGIN FOR i IN 1..600 LOOP
            EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()); PERFORM pg_sleep(0.1); END LOOP; END $$; COMMIT";
        let cx = Context::default();
        let (_, mut settled) = tokio::join!(later.admin(meanwhile), async {
            while later.admin("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()").await == "0" {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            published(&source, target(&later), &cx).await
        });
        settled.settle(&cx).await.unwrap();
        let notes = cx.notes().list;
        assert!(
            notes.iter().any(|n| n.path == "role boss" && n.text.contains("was there already")),
            "{notes:?}"
        );

        // A backup without them has none to restore; who may not read passwords is told so.
        let without = backend().source("c", from.config().to_value()).unwrap();
        let (contents, facts) = pour(&*without, &Context::default()).await.unwrap();
        let e = surveyed(&mut *target(&to), &held(contents, facts), &[], &cx).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
        let mut config = with_globals(&from);
        config.url = Some(from.server.url(&from.name).replace("postgres@", "o%27x@"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "its p'w\n").unwrap();
        config.password_file = Some(file.path().to_owned());
        let cx = Context::default();
        let (contents, _) = pour(&*backend().source("c", config.to_value()).unwrap(), &cx).await.unwrap();
        let text = contents[b"roles+tablespaces.sql".as_slice()].chunks.concat();
        assert!(!String::from_utf8(text).unwrap().contains("SCRAM"));
        assert!(cx.notes().list.iter().any(|n| n.text.contains("passwords of roles")), "{:?}", cx.notes());
    });
}
