//! Who may not is told what is missing.

use crate::common::{Database, backend, pour};
use backup_core::{Backend, Context, ErrorKind, Fact};
use backup_postgres::PostgresConfig;
use backup_testkit::{
    memory::{MemorySource, surveyed},
    run,
};
use std::io::Write;

/// A role of this database alone, with a password, and the configuration to read as it.
async fn as_role(database: &Database, grants: &str) -> (PostgresConfig, tempfile::NamedTempFile) {
    let role = format!("r_{}", database.name);
    database.sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'pw'; {}", grants.replace("ROLE", &role))).await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "pw").unwrap();
    let mut config = database.config();
    config.url = Some(database.server.url(&database.name).replace("postgres@", &format!("{role}@")));
    config.password_file = Some(file.path().to_owned());
    (config, file)
}

async fn drop_role(database: &Database) {
    let role = format!("r_{}", database.name);
    database.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[test]
fn a_missing_privilege_names_the_grant() {
    run("a_missing_privilege_names_the_grant", async {
        let tables = "CREATE SCHEMA hidden; CREATE TABLE hidden.t (i int); CREATE TABLE open (i int);";
        for (grants, hint) in [
            ("GRANT SELECT ON open TO ROLE", "GRANT USAGE ON SCHEMA \"hidden\""),
            (
                "GRANT SELECT ON open TO ROLE; GRANT USAGE ON SCHEMA hidden TO ROLE",
                "GRANT SELECT ON \"hidden\".\"t\"",
            ),
        ] {
            let database = Database::with(17, tables).await;
            let (config, _file) = as_role(&database, grants).await;
            let source = backend().source("c", config.to_value()).unwrap();
            let e = pour(&*source, &Context::default()).await.unwrap_err();
            assert_eq!(
                (e.kind(), e.hint_text().unwrap().contains(hint)),
                (ErrorKind::Denied, true),
                "{e} {:?}",
                e.hint_text()
            );
            database.sql(&format!("GRANT pg_read_all_data TO r_{}", database.name)).await;
            pour(&*source, &Context::default()).await.unwrap();
            drop_role(&database).await;
        }
    });
}

#[test]
fn rows_that_row_security_hides_are_an_error_and_not_left_out() {
    run("rows_that_row_security_hides_are_an_error_and_not_left_out", async {
        let tables = "CREATE TABLE t AS SELECT i, 'x' who FROM generate_series(1, 2) i; ALTER TABLE t ENABLE ROW LEVEL SECURITY;
            CREATE POLICY first_only ON t USING (i = 1)";
        let database = Database::with(15, tables).await;
        let (config, _file) = as_role(&database, "GRANT SELECT ON t TO ROLE").await;
        let source = backend().source("c", config.to_value()).unwrap();
        let e = pour(&*source, &Context::default()).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Denied && e.hint_text().unwrap().contains("BYPASSRLS"), "{e}");
        database.sql(&format!("ALTER ROLE r_{} BYPASSRLS", database.name)).await;
        let (_, facts) = pour(&*source, &Context::default()).await.unwrap();
        assert_eq!(facts.count("table public.t", "rows in 00000"), 2);
        drop_role(&database).await;
    });
}

#[test]
fn a_wrong_or_missing_password_is_denied_with_a_way_out() {
    run("a_wrong_or_missing_password_is_denied_with_a_way_out", async {
        let database = Database::with(17, "").await;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "wrong-password").unwrap();
        let mut config = database.config();
        config.password_file = Some(file.path().to_owned());
        let source = backend().source("c", config.to_value()).unwrap();
        let e = pour(&*source, &Context::default()).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Denied && e.hint_text().is_some(), "{e}");
        assert!(!format!("{e:?}").contains("wrong-password"));
        let mut target = backend().target("c", config.to_value()).unwrap();
        let e = surveyed(&mut *target, &MemorySource::new("c"), &[], &Context::default()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Denied);
    });
}

#[test]
fn a_user_who_may_not_create_databases_is_told_so_by_the_plan() {
    run("a_user_who_may_not_create_databases_is_told_so_by_the_plan", async {
        let database = Database::with(15, "").await;
        let (config, _file) = as_role(&database, "").await;
        let mut target = backend().target("c", config.to_value()).unwrap();
        let e = surveyed(&mut *target, &MemorySource::new("c"), &[], &Context::default()).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Denied && e.hint_text().unwrap().contains("CREATEDB"), "{e}");
        drop_role(&database).await;
    });
}

#[test]
fn a_role_that_is_not_there_is_an_error_unless_owners_are_left_out() {
    run("a_role_that_is_not_there_is_an_error_unless_owners_are_left_out", async {
        let from = Database::with(17, "CREATE TABLE t AS SELECT 1 i").await;
        let role = format!("gone_{}", from.name);
        from.sql(&format!("CREATE ROLE {role}; ALTER TABLE t OWNER TO {role}")).await;
        let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
        from.sql(&format!("REASSIGN OWNED BY {role} TO postgres; DROP ROLE {role}")).await;
        let source = crate::common::held(contents, facts);
        let to = Database::absent(17).await;
        let e = crate::common::restore(source.clone(), &to).await.unwrap_err();
        assert!(
            e.to_string().contains(&role)
                && std::error::Error::source(&e).is_none()
                && e.hint_text().unwrap().contains("--no-owner"),
            "{e} {:?}",
            e.hint_text()
        );
        assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
        let mut config = to.config();
        config.no_owner = true;
        crate::common::restore_by(source, backend().target("c", config.to_value()).unwrap()).await.unwrap();
        assert_eq!(to.sql("SELECT tableowner FROM pg_tables WHERE tablename = 't'").await, "postgres");
    });
}

#[test]
fn with_too_few_sessions_fewer_read_and_with_none_to_spare_pg_dump_alone_and_that_is_said() {
    run("with_too_few_sessions_fewer_read_and_with_none_to_spare_pg_dump_alone_and_that_is_said", async {
        let database = Database::with(17, "CREATE TABLE t AS SELECT i FROM generate_series(1, 9) i").await;
        let (mut config, _file) = as_role(&database, "GRANT pg_read_all_data TO ROLE").await;
        for (limit, method, warning) in [
            (2, "dump: pg_dump -Fc; no session is left for more", "by pg_dump -Fc alone"),
            (3, "native", "1 sessions instead of 2"),
            (4, "native", ""),
        ] {
            database.sql(&format!("ALTER ROLE r_{} CONNECTION LIMIT {limit}", database.name)).await;
            let mut cx = Context::default();
            cx.tasks = 2;
            let source = backend().source("c", config.to_value()).unwrap();
            let (contents, facts) = pour(&*source, &cx).await.unwrap();
            let said = facts.get("database", "method");
            assert!(matches!(said, Some(Fact::Note(how)) if how.starts_with(method)), "{limit}: {said:?}");
            let warned: Vec<_> = cx.notes().list.into_iter().map(|note| note.text).collect();
            assert!(
                warned.iter().any(|text| text.contains(warning)) || warning.is_empty() && warned.is_empty(),
                "{warned:?}"
            );
            let to = Database::absent(17).await;
            crate::common::restore(crate::common::held(contents, facts), &to).await.unwrap();
            assert_eq!(to.sql("SELECT count(*) FROM t").await, "9");
            assert_eq!(database.taken(), Vec::<String>::new());
        }
        database.sql(&format!("ALTER ROLE r_{} CONNECTION LIMIT 2", database.name)).await;
        config.method = Some(backup_postgres::Method::Native);
        let e =
            pour(&*backend().source("c", config.to_value()).unwrap(), &Context::default()).await.unwrap_err();
        assert!(e.hint_text().is_some_and(|hint| hint.contains("CONNECTION LIMIT")), "{e}");
        drop_role(&database).await;
    });
}

/// What tells, in the sessions of a restore, how long they wait for an autovacuum: one that loads rows, and that of pg_restore which
/// builds an index.
const TELLING: &str = "
CREATE FUNCTION telling(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
  IF current_setting('application_name') LIKE 'backup restore %' THEN
    RAISE EXCEPTION 'it waits for %', current_setting('deadlock_timeout');
  END IF;
  RETURN i;
END $$;
CREATE TABLE t AS SELECT 1 i;";

#[test]
fn who_may_does_not_wait_long_for_an_autovacuum_and_who_may_not_restores_nevertheless() {
    run("who_may_does_not_wait_long_for_an_autovacuum_and_who_may_not_restores_nevertheless", async {
        let by_rows = "ALTER TABLE t ADD CHECK (public.telling(i) = 1)";
        let by_index = "CREATE INDEX ON t (public.telling(i))";
        const ROLE: &str = "ALTER USER ROLE CREATEDB";
        const GRANTED: &str = "ALTER USER ROLE CREATEDB; GRANT SET ON PARAMETER deadlock_timeout TO ROLE";
        for (telling, version, by, waits) in [
            (by_rows, 15, None, "20ms"),
            (by_rows, 17, Some(ROLE), "1s"),
            (by_index, 17, None, "20ms"),
            (by_index, 17, Some(ROLE), "1s"),
            (by_index, 17, Some(GRANTED), "20ms"),
        ] {
            let from = Database::with(version, &format!("{TELLING} {telling}")).await;
            let (contents, facts) = pour(&*from.source(), &Context::default()).await.unwrap();
            let source = crate::common::held(contents, facts);
            let to = Database::absent(version).await;
            let (mut config, mut _password) = (to.config(), None);
            if let Some(grants) = by {
                let (of_role, file) = as_role(&from, grants).await;
                let role = format!("r_{}@", from.name);
                config.url = Some(to.server.url(&to.name).replace("postgres@", &role));
                (config.password_file, config.no_owner) = (of_role.password_file, true);
                _password = Some(file);
            }
            let e = crate::common::restore_by(source, to.target_by(config)).await.unwrap_err();
            let told = format!("it waits for {waits}");
            assert!(e.to_string().contains(&told), "{version}, {by:?}, {telling}: {e}");
            assert_eq!(to.leftovers_of_this().await, Vec::<String>::new());
            if by.is_some() {
                drop_role(&from).await;
            }
        }
    });
}
