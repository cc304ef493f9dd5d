//! Tables that are left out altogether.

use crate::common::{Database, backend, held, pour, restore};
use backup_core::{Backend, Context, EXCLUDED, ErrorKind, Fact};
use backup_postgres::Method;
use backup_testkit::run;

const TABLES: &str = "CREATE TABLE users (id int PRIMARY KEY, n int); INSERT INTO users VALUES (1, 1);
    CREATE TABLE log (id serial PRIMARY KEY, by int CONSTRAINT own_key REFERENCES users); INSERT INTO log (by) VALUES (1); CREATE INDEX ON log (by);
    CREATE TABLE notes (id int PRIMARY KEY, of_log int CONSTRAINT leads REFERENCES log, t text); INSERT INTO notes VALUES (1, 1, 'x'); COMMENT ON CONSTRAINT leads ON notes IS 'c';
    CREATE VIEW seen AS SELECT id FROM log; CREATE VIEW above AS SELECT id FROM seen; CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM above;
    CREATE INDEX on_counted ON counted (count); CREATE FUNCTION of_row(log) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION body() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM log; END;
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY; CREATE POLICY by_log ON notes USING (EXISTS (SELECT FROM log)); CREATE POLICY by_user ON notes USING (EXISTS (SELECT FROM users));
    CREATE TABLE parted (i int) PARTITION BY RANGE (i); CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10); INSERT INTO parted VALUES (5);
    CREATE TABLE kept (i serial PRIMARY KEY, t text); INSERT INTO kept (t) VALUES ('y'); CREATE VIEW stays AS SELECT * FROM kept; CREATE MATERIALIZED VIEW filled AS SELECT count(*) n FROM kept;
    GRANT SELECT ON log TO PUBLIC; CREATE PUBLICATION PUBLISHED FOR TABLE log, kept";

#[test]
fn what_cannot_be_without_an_excluded_table_goes_with_it_and_is_said() {
    run("what_cannot_be_without_an_excluded_table_goes_with_it_and_is_said", async {
        for (version, method) in [(15, Method::Native), (17, Method::Native), (17, Method::Dump)] {
            let sql = TABLES.replace("PUBLISHED", &format!("published_{version}"));
            let from = Database::with(version, &sql).await;
            let mut config = from.config();
            config.method = Some(method);
            config.exclude_tables = vec!["public.log".into(), "public.part*d".into()];
            let (cx, source) = (Context::default(), backend().source("c", config.to_value()).unwrap());
            let (contents, facts) = pour(&*source, &cx).await.unwrap();
            let Some(Fact::Note(said)) = facts.get("all", EXCLUDED) else { panic!("{facts:?}") };
            for gone in [
                "public.log",
                "view public.above",
                "fk constraint public.notes leads",
                "policy public.notes by_log",
                "body()",
                "of_row(",
                "public.parted_1",
            ] {
                assert!(said.contains(gone), "{gone}: {said}");
            }
            for other in ["own_key", "by_user", "kept", "log_id_seq"] {
                assert!(!said.contains(other), "{other}: {said}");
            }
            assert!(cx.notes().list.iter().any(|n| n.path == "view public.seen"), "{:?}", cx.notes());
            let all: Vec<u8> = contents
                .into_iter()
                .flat_map(|(path, held)| [path.to_vec(), held.chunks.concat()].concat())
                .collect();
            assert!(!String::from_utf8_lossy(&all).contains("log_id_seq"), "something of it is there");

            let (contents, facts) = pour(&*source, &cx).await.unwrap();
            let to = Database::absent(version).await;
            restore(held(contents, facts), &to).await.unwrap();
            let there = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class WHERE relnamespace = 'public'::regnamespace";
            assert_eq!(
                to.sql(there).await,
                "filled kept kept_i_seq kept_pkey notes notes_pkey stays users users_pkey"
            );
            let rows = "SELECT (SELECT count(*) FROM users), (SELECT t FROM notes), (SELECT t FROM stays), (SELECT n FROM filled), nextval('kept_i_seq'),
                (SELECT string_agg(polname, ',') FROM pg_policy), (SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace), (SELECT string_agg(tablename, ',') FROM pg_publication_tables)";
            assert_eq!(to.sql(rows).await, "1|x|y|1|2|by_user|0|kept");
            to.sql("INSERT INTO notes VALUES (2, 99, 'free')").await;

            config.exclude_tables = vec!["public.typo".into()];
            let source = backend().source("c", config.to_value()).unwrap();
            assert!(source.origin().get("exclude_tables").is_none());
            let e = pour(&*source, &cx).await.unwrap_err();
            assert!(e.kind() == ErrorKind::NotFound && e.to_string().contains("public.typo"), "{e}");
            assert_eq!(from.taken(), Vec::<String>::new());
        }
    });
}
