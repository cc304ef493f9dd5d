//! Servers in containers, and what the vendor's programs in them dump.

use super::common::{
    any_server, captured, config as config_of, fingerprint, fresh, id_of, run, schema, schemas_left, value,
};
use super::database;
use async_trait::async_trait;
use backup_core::{
    Backend, CommandRunner, ContainerEngine, ContainerFacts, Content, Context, Fact, HostRunner, Part,
    Result, Secret, ToolCommand,
};
use backup_mysql::MysqlBackend;
use backup_testkit::{
    Must,
    conformance::pouring::pour,
    memory::{ContentsSink, surveyed},
    run as in_time,
    services::{Flavor, Mysql},
};
use bytes::Bytes;
use serde_json::json;
use std::sync::Arc;

/// An engine that knows one container. Its programs are run with the `docker` of this host; those that dump by a script, if there is
/// one, whose arguments they are.
#[derive(Clone)]
struct Knows(ContainerFacts, Option<&'static str>);

struct InContainer(String);

impl std::fmt::Display for InContainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the container")
    }
}

impl CommandRunner for InContainer {
    fn run(&self, command: ToolCommand) -> Content {
        let mut line = vec!["exec".to_owned(), "-i".to_owned()];
        line.extend(command.environment.iter().flat_map(|(name, _)| ["-e".to_owned(), name.clone()]));
        line.extend([self.0.clone(), command.program.clone()]);
        line.extend(command.arguments.clone());
        HostRunner.run(ToolCommand { program: "docker".into(), arguments: line, ..command })
    }
}

/// A file of this host that the container is said to have, or a program in it.
impl CommandRunner for Knows {
    fn run(&self, command: ToolCommand) -> Content {
        match command.program.as_str() {
            "cat" => HostRunner.run(command),
            "df" => InContainer(self.0.id.clone()).run(command),
            dump if dump.ends_with("dump")
                && self.1.is_some()
                && !command.arguments.contains(&"--help".to_owned()) =>
            {
                let mut line: Vec<String> =
                    ["-c", self.1.unwrap_or_default(), dump].map(str::to_owned).into();
                line.extend(command.arguments.clone());
                InContainer(self.0.id.clone()).run(ToolCommand {
                    program: "sh".into(),
                    arguments: line,
                    ..command
                })
            }
            _ => InContainer(self.0.id.clone()).run(command),
        }
    }
}

impl std::fmt::Display for Knows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the container")
    }
}

/// The container of a server, as an engine describes it.
fn facts_of(server: &Mysql, environment: &[(&str, String)]) -> ContainerFacts {
    let published = std::net::SocketAddr::from(([127, 0, 0, 1], server.port()));
    ContainerFacts {
        id: server.container().id().to_owned(),
        name: "shop-db".to_owned(),
        running: true,
        environment: environment.iter().map(|(k, v)| ((*k).to_owned(), Secret::new(v.clone()))).collect(),
        published: [(3306, published)].into(),
        addresses: vec![server.container().address()],
        ..ContainerFacts::default()
    }
}

#[async_trait]
impl ContainerEngine for Knows {
    async fn inspect(&self, _name: &str) -> Result<ContainerFacts> {
        Ok(self.0.clone())
    }

    async fn publishing(&self, _port: u16) -> Result<Option<ContainerFacts>> {
        Ok(None)
    }

    fn runner(&self, _id: &str) -> Arc<dyn CommandRunner> {
        Arc::new(self.clone())
    }
}

#[test]
fn a_container_is_reached_by_its_port_or_its_address_with_the_password_that_it_has() {
    in_time("a_container_is_reached_by_its_port_or_its_address_with_the_password_that_it_has", async {
        let (server, mut c) = any_server(Flavor::Mariadb118).await;
        let name = database(&mut c, "contained", "CREATE TABLE t (id int);; INSERT INTO t VALUES (1)").await;
        let secret = tempfile::NamedTempFile::new().must("a file");
        std::fs::write(secret.path(), format!("{}\n", server.password())).must("write the secret");
        let environment = [
            ("MARIADB_ROOT_PASSWORD_FILE", secret.path().to_string_lossy().into_owned()),
            ("MYSQL_DATABASE", name.clone()),
        ];
        let both = facts_of(&server, &environment);
        let address_only = ContainerFacts { published: Default::default(), ..both.clone() };
        let nowhere = ContainerFacts { addresses: Vec::new(), ..address_only.clone() };
        let cx = Context::default();
        for (facts, rung) in [(&both, "published port"), (&address_only, "address")] {
            let backend = MysqlBackend::new(Arc::new(Knows(facts.clone(), None)));
            let from = backend.source("db", json!({"container": "shop-db"})).must("a source");
            let poured = pour(&*from, "db", Arc::new(ContentsSink::new()), &cx).await.must("pour");
            let reached = poured.proof.get("server", "reached").cloned();
            assert!(matches!(&reached, Some(Fact::Note(how)) if how.starts_with(rung)), "{reached:?}");
            assert_eq!(poured.proof.count(&format!("table {name}.t"), "rows"), 1);
        }
        let backend = |facts: &ContainerFacts| MysqlBackend::new(Arc::new(Knows(facts.clone(), None)));
        let stopped = ContainerFacts { running: false, ..both.clone() };
        let unnamed = ContainerFacts {
            environment: both
                .environment
                .clone()
                .into_iter()
                .filter(|(k, _)| k != "MYSQL_DATABASE")
                .collect(),
            ..both.clone()
        };
        for (facts, hint) in
            [(&nowhere, "-p 127.0.0.1:3306"), (&stopped, "docker start"), (&unnamed, "databases = ")]
        {
            let from = backend(facts).source("db", json!({"container": "shop-db"})).must("a source");
            let error = from.connect(&cx).await.err().must(hint);
            assert!(error.hint_text().unwrap_or_default().contains(hint), "{error}: {:?}", error.hint_text());
        }
        // The record of a restore finds the container again, wherever it listens by then.
        let to = fresh("contained_to");
        let config = json!({"container": "shop-db", "databases": [to]});
        let mut restored = backend(&both).target("db", config).must("a target");
        let data = captured(&config_of(&server, &name), &cx).await.must("pour");
        // The room on its disk is part of the plan.
        let survey = surveyed(&mut *restored, &data, &[], &cx).await.must("survey");
        let free = survey.free_bytes.must("the room is known");
        assert!(free > 1 << 20 && free % 1024 == 0, "{free}");
        let sink = restored.prepare(&cx).await.must("prepare");
        pour(&data, "db", sink, &cx).await.must("fill");
        restored.publish(&cx).await.must("publish");
        let undo = restored.undo();
        assert!(!undo.to_string().contains(server.password()));
        drop(restored);
        assert_eq!(value(&mut c, &format!("SELECT COUNT(*) FROM `{to}`.t")).await, "1");
        let mut later = backend(&address_only).recover(undo).must("recover");
        later.revert(&cx).await.must("revert");
        assert_eq!(fingerprint(&mut c, &to).await, "there is no such database");
    });
}

fn in_container(server: &Mysql, script: Option<&'static str>) -> MysqlBackend {
    let environment = [("MYSQL_ROOT_PASSWORD", server.password().to_owned())];
    MysqlBackend::new(Arc::new(Knows(facts_of(server, &environment), script)))
}

async fn dumped_and_restored(flavor: Flavor) {
    let (server, mut c) = any_server(flavor).await;
    let (from, to) = (fresh("dumped"), fresh("loaded"));
    schema::every_sort(&mut c, &from, flavor).await;
    // Longer ones the vendors' programs round.
    run(&mut c, "UPDATE orders SET short = 0.5").await;
    let backend = in_container(&server, None);
    let cx = Context::default();
    let config = |name: &str| json!({"container": "shop-db", "databases": [name], "method": "dump"});
    let source = backend.source("db", config(&from)).must("a source");
    let sink = ContentsSink::new();
    let poured = pour(&*source, "db", Arc::new(sink.clone()), &cx).await.must("pour");
    assert_eq!(poured.lost, 0, "{:?}", cx.notes());
    assert!(cx.notes().list.iter().any(|n| n.text.contains("FLOAT")), "{:?}", cx.notes());
    let method = poured.proof.get("all", "method").cloned();
    assert!(matches!(&method, Some(Fact::Note(how)) if how.starts_with("dump, because")), "{method:?}");
    let mut data = backup_testkit::memory::MemorySource::new("db");
    for held in sink.take().into_values() {
        let bytes: Vec<u8> = held.chunks.concat();
        data = match held.entry.size {
            Some(_) => data.with_bytes(held.entry, bytes),
            None => data.with(held.entry, move || backup_testkit::make::streamed(bytes.clone(), 50_000)),
        };
    }
    // Beside, and then in place of what is there by then.
    for in_place in [false, true] {
        let mut at = config(&to);
        at["in_place"] = json!(in_place);
        let mut target = backend.target("db", at).must("a target");
        let survey = surveyed(&mut *target, &data, &[], &cx).await.must("survey");
        assert_eq!(survey.in_place, in_place);
        let shadow = target.prepare(&cx).await.must("prepare");
        if in_place {
            target.clear(&cx).await.must("clear");
        }
        let filled = pour(&data, "db", shadow, &cx).await.must("fill");
        assert_eq!(filled.lost, 0, "{:?}", cx.notes());
        target.publish(&cx).await.must("publish");
        let (expected, found) = (fingerprint(&mut c, &from).await, fingerprint(&mut c, &to).await);
        for (a, b) in expected.lines().zip(found.lines()) {
            assert_eq!(a, b, "in:\n{found}");
        }
        assert_eq!(expected.lines().count(), found.lines().count());
        target.settle(&cx).await.must("settle");
        assert_eq!(schemas_left(&mut c, &id_of(&*target)).await, Vec::<String>::new());
        run(&mut c, &format!("CREATE TABLE `{to}`.later (i int);; USE mysql")).await;
    }
}

#[test]
fn what_the_vendors_program_dumps_comes_back_as_it_was() {
    in_time("what_the_vendors_program_dumps_comes_back_as_it_was", async {
        for flavor in Flavor::ALL {
            dumped_and_restored(flavor).await;
        }
    });
}

#[test]
fn a_dump_that_was_cut_failed_or_missed_a_table_is_lost_and_never_a_success() {
    in_time("a_dump_that_was_cut_failed_or_missed_a_table_is_lost_and_never_a_success", async {
        let (server, mut c) = any_server(Flavor::Mariadb118).await;
        let name = database(&mut c, "cut", "CREATE TABLE t (id int);; INSERT INTO t VALUES (1)").await;
        let config = json!({"container": "shop-db", "databases": [name], "method": "dump"});
        for (script, why) in [
            ("\"$0\" \"$@\" | head -c -30", "does not end with"),
            ("\"$0\" \"$@\"; exit 3", "exit status"),
            (
                "\"$0\" \"$@\" && mariadb -uroot -p\"$MYSQL_PWD\" -e \"CREATE TABLE $(for last; do :; done; echo $last).late (i int)\"",
                "were made",
            ),
        ] {
            let cx = Context::default();
            let source = in_container(&server, Some(script)).source("db", config.clone()).must("a source");
            let poured = pour(&*source, "db", Arc::new(ContentsSink::new()), &cx).await.must("pour");
            assert_eq!(poured.lost, 1, "{script}: {:?}", cx.notes());
            assert!(cx.notes().list.iter().any(|n| n.text.contains(why)), "{why}: {:?}", cx.notes());
        }
    });
}

#[test]
fn of_a_dump_that_is_cut_while_it_is_loaded_nothing_is_left() {
    in_time("of_a_dump_that_is_cut_while_it_is_loaded_nothing_is_left", async {
        let (server, mut c) = any_server(Flavor::Mariadb118).await;
        let name = database(&mut c, "half", "CREATE TABLE t (id int);; INSERT INTO t VALUES (1)").await;
        let config = |name: &str| json!({"container": "shop-db", "databases": [name], "method": "dump"});
        let backend = in_container(&server, None);
        let (cx, to) = (Context::default(), fresh("half_to"));
        let sink = ContentsSink::new();
        let source = backend.source("db", config(&name)).must("a source");
        pour(&*source, "db", Arc::new(sink.clone()), &cx).await.must("pour");
        let mut data = backup_testkit::memory::MemorySource::new("db");
        for held in sink.take().into_values() {
            let bytes = held.chunks.concat();
            data = match held.entry.size {
                Some(_) => data.with_bytes(held.entry, bytes),
                // Without an end: cut.
                None => data.with(held.entry, move || {
                    let half = Bytes::from(bytes[..bytes.len() - 200].to_vec());
                    Content::stream(futures::stream::iter([Ok(Part::Bytes(half))]))
                }),
            };
        }
        let mut target = backend.target("db", config(&to)).must("a target");
        let shadow = target.prepare(&cx).await.must("prepare");
        let filled = pour(&data, "db", shadow, &cx).await.must("the sink is sound");
        assert_eq!(filled.lost, 1, "{:?}", cx.notes());
        target.revert(&cx).await.must("revert");
        assert_eq!(fingerprint(&mut c, &to).await, "there is no such database");
        assert_eq!(schemas_left(&mut c, &id_of(&*target)).await, Vec::<String>::new());
    });
}
