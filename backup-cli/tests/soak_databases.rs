//! Databases as an operator keeps them, with the counts that are too long for every change: a module of PostgreSQL and MySQL or MariaDB
//! whose restore is killed at any moment, thousands of tables, and applications that write and connect again all the time.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

mod support;

use backup_testkit::{
    run, services,
    services::{Flavor, Mysql, Postgres},
};
use std::{
    io::Write,
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};
use support::{
    Place,
    trial::{Random, Run, names_in, times},
};

/// The pairs that modules are made of; the tests take the first one.
const PAIRS: [(u32, Flavor); 2] = [(15, Flavor::Mariadb1011), (17, Flavor::Mysql9)];
/// The database of every server.
const SHOP: &str = "shop";

/// A server of its own: what is left behind there is left behind by the test.
enum Server {
    Postgres(Postgres),
    Mysql(Mysql),
}

impl Server {
    async fn postgres(version: u32) -> Self {
        Server::Postgres(services::own_postgres(version).await)
    }

    async fn mysql(flavor: Flavor) -> Self {
        Server::Mysql(services::own_mysql(flavor, &[]).await)
    }

    fn title(&self) -> String {
        match self {
            Server::Postgres(server) => format!("PostgreSQL {}", server.version()),
            Server::Mysql(server) => match server.flavor() {
                Flavor::Mysql9 => "MySQL 9".to_owned(),
                Flavor::Mariadb1011 => "MariaDB 10.11".to_owned(),
                Flavor::Mariadb118 => "MariaDB 11.8".to_owned(),
            },
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Server::Postgres(_) => "postgres",
            Server::Mysql(_) => "mysql",
        }
    }

    fn url(&self, database: &str) -> String {
        match self {
            Server::Postgres(server) => server.url(database),
            Server::Mysql(server) => server.url(database),
        }
    }

    fn password(&self) -> &'static str {
        match self {
            Server::Postgres(server) => server.password(),
            Server::Mysql(server) => server.password(),
        }
    }

    /// A program of the container, as the superuser.
    fn inside(&self, program: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "-i"]);
        match self {
            Server::Postgres(server) => command.args(["-e", "PGUSER=postgres", server.container().id()]),
            Server::Mysql(server) => {
                command.arg("-e").arg(format!("MYSQL_PWD={}", server.password())).arg(server.container().id())
            }
        };
        command.args(program);
        command
    }

    /// The vendor's client, which ends at the first error.
    fn client(&self, database: &str) -> Command {
        match self {
            Server::Postgres(_) => self.inside(&["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", database]),
            Server::Mysql(server) => {
                self.inside(&[server.client(), "-uroot", "-N", "--skip-reconnect", database])
            }
        }
    }

    fn sql(&self, database: &str, sql: &str) -> String {
        let out = fed(&mut self.client(database), sql);
        assert!(out.status.success(), "{sql:.300}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    fn make_shop(&self, sql: &str) {
        let any = if matches!(self, Server::Postgres(_)) { "postgres" } else { "mysql" };
        self.sql(any, &format!("CREATE DATABASE {SHOP}"));
        self.sql(SHOP, sql);
    }

    /// Digest of all that the vendor's program says of a database, in whatever order.
    fn fingerprint(&self, database: &str) -> String {
        let options = "-uroot --single-transaction --skip-comments --routines --events";
        let dump = match self {
            Server::Postgres(_) => "pg_dump".to_owned(),
            Server::Mysql(server) if server.flavor().is_mariadb() => format!("mariadb-dump {options}"),
            Server::Mysql(_) => format!("mysqldump {options} --set-gtid-purged=OFF --no-tablespaces"),
        };
        // Lines of pg_dump that have another word each time.
        let script = format!(
            "set -e; {dump} {database} > /tmp/dump; grep -v '^.\\(un\\)*restrict ' /tmp/dump | LC_ALL=C sort | sha256sum"
        );
        let out = fed(&mut self.inside(&["sh", "-c", &script]), "");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Databases and schemas that restores have made and not taken away.
    fn leftovers(&self) -> String {
        match self {
            Server::Postgres(_) => self.sql(
                "postgres",
                "SELECT coalesce(string_agg(datname, ' '), '') FROM pg_database WHERE datname LIKE 'backup\\_%'",
            ),
            Server::Mysql(_) => self.sql(
                "mysql",
                "SELECT COALESCE(GROUP_CONCAT(SCHEMA_NAME), '') FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE '\\_backup\\_%'",
            ),
        }
    }

    /// Two tables with two kinds of keys, and what else a database has: about 10 MB of rows.
    fn fill(&self) {
        self.make_shop(match self {
            Server::Postgres(_) => {
                "CREATE TABLE a AS SELECT i, repeat(md5(i::text), 3) v FROM generate_series(1, 60000) i;
                 ALTER TABLE a ADD PRIMARY KEY (i); CREATE INDEX ON a (v); CREATE TABLE b AS SELECT * FROM a;
                 CREATE VIEW w AS SELECT v FROM a WHERE i < 9; CREATE SEQUENCE s; SELECT nextval('s')"
            }
            Server::Mysql(_) => {
                "CREATE TABLE a (i int PRIMARY KEY AUTO_INCREMENT, v varchar(100), KEY (v));
                 INSERT INTO a (v) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) SELECT SHA2(i, 384) FROM n;
                 INSERT INTO a (v) SELECT SHA2(RAND(), 384) FROM a x JOIN a y ON y.i <= 60;
                 CREATE TABLE b LIKE a; INSERT INTO b SELECT * FROM a;
                 CREATE VIEW w AS SELECT v FROM a WHERE i < 9; CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 7;
                 CREATE TRIGGER `up` BEFORE INSERT ON `a` FOR EACH ROW SET NEW.v = UPPER(NEW.v)"
            }
        });
    }

    /// What becomes of it after the backup: the same each time, from what a restore brings back.
    fn change(&self) {
        self.sql(
            SHOP,
            "DROP TABLE b; DROP VIEW w; CREATE TABLE only_old (i int PRIMARY KEY); CREATE VIEW old_view AS SELECT i FROM only_old;
             UPDATE a SET v = 'changed' WHERE i % 7 = 1",
        );
    }

    fn many_tables(&self, count: usize) {
        let id = match self {
            Server::Postgres(_) => "serial",
            Server::Mysql(_) => "int AUTO_INCREMENT",
        };
        let table = |i| {
            format!(
                "CREATE TABLE t{i} (id {id} PRIMARY KEY, v varchar(20) UNIQUE); INSERT INTO t{i} (v) VALUES ('{i}');\n"
            )
        };
        self.make_shop(&(0..count).map(table).collect::<String>());
    }

    /// Tables between which amounts are moved.
    fn open_accounts(&self) {
        match self {
            Server::Postgres(_) => {
                self.make_shop("");
                let out = fed(&mut self.inside(&["pgbench", "-i", "-q", SHOP]), "");
                assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            }
            Server::Mysql(_) => {
                let rows: Vec<String> = (0..50).map(|i| format!("({i}, 1000)")).collect();
                let table = |name| {
                    let rows = rows.join(", ");
                    format!(
                        "CREATE TABLE {name} (id int PRIMARY KEY, m bigint); INSERT INTO {name} VALUES {rows};"
                    )
                };
                self.make_shop(&["one", "two"].map(table).concat());
            }
        }
    }

    /// What an application does with one connection or a few: true if it came to the end of it.
    fn transfers(&self, salt: u64) -> bool {
        let out = match self {
            Server::Postgres(_) => {
                fed(&mut self.inside(&["pgbench", "-n", "-c", "2", "-t", "200", SHOP]), "")
            }
            Server::Mysql(_) => {
                let transfer = |n: u64| {
                    let (from, to) = if n.is_multiple_of(2) { ("one", "two") } else { ("two", "one") };
                    let (amount, id) = (n % 97, (n * 31 + salt) % 50);
                    format!(
                        "START TRANSACTION; UPDATE {from} SET m = m - {amount} WHERE id = {id}; UPDATE {to} SET m = m + {amount} WHERE id = {id}; COMMIT;\n"
                    )
                };
                fed(&mut self.client(SHOP), &(0..300).map(transfer).collect::<String>())
            }
        };
        out.status.success()
    }

    /// Whether nothing of what was moved is missing or there twice: one statement sees one moment.
    fn is_balanced(&self, database: &str) -> bool {
        match self {
            Server::Postgres(_) => {
                let sum = |column: &str, table: &str| {
                    format!("(SELECT coalesce(sum({column}), 0) FROM pgbench_{table})")
                };
                let [a, b, t, d] = [
                    sum("abalance", "accounts"),
                    sum("bbalance", "branches"),
                    sum("tbalance", "tellers"),
                    sum("delta", "history"),
                ];
                self.sql(database, &format!("SELECT {a} = {b} AND {b} = {t} AND {t} = {d}")) == "t"
            }
            Server::Mysql(_) => {
                self.sql(database, "SELECT (SELECT SUM(m) FROM one) + (SELECT SUM(m) FROM two)") == "100000"
            }
        }
    }
}

/// Runs a client with this input.
fn fed(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that gives up half-way takes no more, and says why.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// A module of some servers, and the archive of its backups.
struct World {
    place: Place,
    /// By their components.
    servers: Vec<(&'static str, Server)>,
}

/// What the databases of a module are: all of them, or a mixture with the reason.
#[derive(Debug, PartialEq, Eq)]
enum Is {
    Old,
    New,
    Mixed(String),
}

impl World {
    fn new(servers: Vec<(&'static str, Server)>) -> Self {
        let place = Place::new();
        let mut config = "[archives.a]\nurl = \"b\"\n".to_owned();
        for (component, server) in &servers {
            let (kind, url) = (server.kind(), server.url(SHOP));
            config += &format!("[modules.shop.sources.{component}]\nkind = \"{kind}\"\nurl = \"{url}\"\n");
        }
        place.write("backup.toml", &config);
        World { place, servers }
    }

    async fn of_both((version, flavor): (u32, Flavor)) -> Self {
        Self::new(vec![("orders", Server::postgres(version).await), ("stock", Server::mysql(flavor).await)])
    }

    fn title(&self) -> String {
        self.all(Server::title).join(" and ")
    }

    fn all<T>(&self, of: impl Fn(&Server) -> T) -> Vec<T> {
        self.servers.iter().map(|(_, server)| of(server)).collect()
    }

    fn command(&self, line: &[&str]) -> Command {
        let mut command = self.place.command(line);
        for (component, server) in &self.servers {
            command.env(format!("BACKUP_{}_PASSWORD", component.to_uppercase()), server.password());
        }
        command
    }

    /// Runs and demands success; how long it took.
    fn works(&self, line: &[&str]) -> Duration {
        let begun = Instant::now();
        let out = self.command(line).output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(0), "backup {}\n{said}", line.join(" "));
        begun.elapsed()
    }

    /// A restore in the place of what is there, with the consent to its plan.
    fn restore(&self) -> [String; 6] {
        let line = ["restore", "latest", "-m", "shop"];
        let out = self.command(&[&line[..], &["--dry-run", "--json"]].concat()).output().unwrap();
        let plan: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        let id = plan["plan"]["id"].as_str().unwrap_or_else(|| {
            panic!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
        });
        [line[0], line[1], line[2], line[3], "--confirm", id].map(str::to_owned)
    }

    fn starts_restore(&self) -> Run {
        let line = self.restore();
        let words: Vec<&str> = line.iter().map(String::as_str).chain(["--progress", "json"]).collect();
        Run::of(&mut self.command(&words))
    }

    fn restores(&self) -> Duration {
        let line = self.restore();
        self.works(&line.each_ref().map(String::as_str))
    }

    fn undoes(&self) -> Duration {
        self.works(&["restore", "--undo", "--yes"])
    }

    fn fingerprints(&self) -> Vec<String> {
        self.all(|server| server.fingerprint(SHOP))
    }

    fn is(&self, old: &[String], new: &[String]) -> Is {
        let now = self.fingerprints();
        if now == old {
            return Is::Old;
        } else if now == new {
            return Is::New;
        }
        let one = |((now, old), new): ((&String, &String), &String)| match () {
            () if now == old => "old",
            () if now == new => "new",
            () => "neither",
        };
        let each = now.iter().zip(old).zip(new).map(one).collect::<Vec<_>>();
        Is::Mixed(format!("{}: {}", self.title(), each.join(", ")))
    }

    fn nothing_is_left(&self, at: &str) {
        for (server, left) in self.all(Server::title).iter().zip(self.all(Server::leftovers)) {
            assert_eq!(left, "", "{at}: left on {server}");
        }
        let restores = self.place.path("state/restores");
        let state = if restores.exists() { names_in(&restores) } else { Vec::new() };
        assert_eq!(state, [""; 0], "{at}: left in the state folder");
    }
}

#[test]
fn databases_of_a_module_are_all_old_or_all_new_after_a_killed_restore() {
    run("databases_of_a_module_are_all_old_or_all_new_after_a_killed_restore", async {
        for pair in PAIRS.into_iter().take(times(1, 2)) {
            kills_of_restore(&World::of_both(pair).await, times(5, 20));
        }
    });
}

fn kills_of_restore(w: &World, kills: usize) {
    w.all(Server::fill);
    w.works(&["create", "-m", "shop"]);
    let new = w.fingerprints();
    w.all(Server::change);
    let old = w.fingerprints();
    let (usual, publish) = {
        let run = w.starts_restore();
        assert!(run.reaches("publish"), "the restore ended before it published");
        let (begun, from) = (run.begun, Instant::now());
        assert_eq!(run.code_within(Duration::from_secs(120)), 0);
        (begun.elapsed(), from.elapsed())
    };
    assert_eq!(w.is(&old, &new), Is::New);
    w.undoes();
    assert_eq!(w.is(&old, &new), Is::Old);
    let mut random = Random::new("soak_databases");
    let (mut killed, mut counts) = (0, [0; 2]);
    for i in 0..kills {
        let run = w.starts_restore();
        // Every second one while databases change places, which is the shortest part of a restore.
        let delay = if i % 2 == 0 {
            random.point(i, kills, usual + usual / 20)
        } else {
            assert!(run.reaches("publish"), "the restore ended before it published");
            run.begun.elapsed() + random.point(i, kills, publish)
        };
        killed += usize::from(run.kill_after(delay));
        let at = format!("{}, kill {i} after {delay:?}", w.title());
        w.works(&["heal"]);
        match w.is(&old, &new) {
            Is::Old => counts[0] += 1,
            Is::New => {
                counts[1] += 1;
                if i % 4 == 3 {
                    w.works(&["settle"]);
                    w.all(Server::change);
                } else {
                    w.undoes();
                }
                assert_eq!(w.is(&old, &new), Is::Old, "{at}: the way back");
            }
            Is::Mixed(why) => panic!("{at}: {why}"),
        }
        w.nothing_is_left(&at);
    }
    println!(
        "soak: module of {}: restore killed {killed} of {kills} times within {} ms, publish {} ms: after heal both old {}, both new {}, a mixture never",
        w.title(),
        usual.as_millis(),
        publish.as_millis(),
        counts[0],
        counts[1]
    );
    // On a machine that becomes quicker meanwhile more of them end before their time.
    assert!(killed * 5 >= kills, "only {killed} of {kills} runs were still going on when they were killed");
}

/// Backed up, changed, restored in the place of what is there, and undone.
fn very_many_tables(server: Server, count: usize) {
    server.many_tables(count);
    let w = World::new(vec![("db", server)]);
    let backed_up = w.works(&["create", "-m", "shop"]);
    let new = w.fingerprints();
    let change = "DROP TABLE t7; UPDATE t9 SET v = 'old'; CREATE TABLE only_old (i int PRIMARY KEY)";
    w.all(|server| server.sql(SHOP, change));
    let old = w.fingerprints();
    let restored = w.restores();
    assert_eq!(w.is(&old, &new), Is::New);
    let undone = w.undoes();
    assert_eq!(w.is(&old, &new), Is::Old);
    w.nothing_is_left("undone");
    println!(
        "soak: {count} tables of {}: backed up in {:.1} s, restored in the place of {count} others in {:.1} s, undone in {:.1} s",
        w.title(),
        backed_up.as_secs_f32(),
        restored.as_secs_f32(),
        undone.as_secs_f32()
    );
}

#[test]
fn databases_of_very_many_tables_come_back_and_go_again_on_postgresql() {
    run("databases_of_very_many_tables_come_back_and_go_again_on_postgresql", async {
        very_many_tables(Server::postgres(15).await, 5000);
    });
}

#[test]
fn databases_of_very_many_tables_come_back_and_go_again_on_mariadb() {
    run("databases_of_very_many_tables_come_back_and_go_again_on_mariadb", async {
        very_many_tables(Server::mysql(Flavor::Mariadb118).await, times(500, 5000));
    });
}

#[test]
fn databases_of_very_many_tables_come_back_and_go_again_on_mysql() {
    run("databases_of_very_many_tables_come_back_and_go_again_on_mysql", async {
        very_many_tables(Server::mysql(Flavor::Mysql9).await, times(500, 5000));
    });
}

#[test]
fn databases_that_are_written_all_the_time_are_of_one_moment_and_change_places_and_back() {
    run("databases_that_are_written_all_the_time_are_of_one_moment_and_change_places_and_back", async {
        for pair in PAIRS.into_iter().take(times(1, 2)) {
            written_all_the_time(&World::of_both(pair).await, Duration::from_secs(times(0, 200) as u64));
        }
    });
}

/// Lets the writers go, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn written_all_the_time(w: &World, at_least: Duration) {
    w.all(Server::open_accounts);
    let stop = AtomicBool::new(false);
    // Of each server: applications that came to the end of their work, and that were thrown out.
    let done: Vec<[AtomicU64; 2]> = w.all(|_| Default::default());
    let ended = |which: usize| done.iter().map(|of| of[which].load(Relaxed)).collect::<Vec<_>>();
    let rounds = std::thread::scope(|scope| {
        let stop_at_the_end = Stop(&stop);
        for ((_, server), done) in w.servers.iter().zip(&done) {
            for salt in 0..2 {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Relaxed) {
                        let which = usize::from(!server.transfers(salt));
                        done[which].fetch_add(1, Relaxed);
                    }
                });
            }
        }
        let (begun, mut rounds) = (Instant::now(), 0);
        while rounds == 0 || begun.elapsed() < at_least {
            everyone_has_written(|| ended(0));
            round_under_load(w);
            rounds += 1;
        }
        drop(stop_at_the_end);
        rounds
    });
    w.nothing_is_left("under load");
    println!(
        "soak: module of {} written all the time: {rounds} backups, restored elsewhere, in place and undone, every sum of one moment; \
         of the applications {:?} came to their end and {:?} were thrown out",
        w.title(),
        ended(0),
        ended(1)
    );
}

/// Waits until every server has had work that came to its end since now.
fn everyone_has_written(ended: impl Fn() -> Vec<u64>) {
    let (before, begun) = (ended(), Instant::now());
    while ended().iter().zip(&before).any(|(now, before)| now <= before) {
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody can write");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn round_under_load(w: &World) {
    w.works(&["create", "-m", "shop"]);
    let mut elsewhere: Vec<String> =
        ["restore", "latest", "-m", "shop", "--settle"].map(str::to_owned).into();
    for (component, server) in &w.servers {
        elsewhere.extend(["--to".to_owned(), format!("{component}={}", server.url("copy"))]);
    }
    w.works(&elsewhere.iter().map(String::as_str).collect::<Vec<_>>());
    let balanced = |database: &str, when: &str| {
        for (_, server) in &w.servers {
            assert!(server.is_balanced(database), "{}, {when}: not one moment", server.title());
        }
    };
    balanced("copy", "restored elsewhere");
    w.all(|server| server.sql(SHOP, "DROP DATABASE copy"));
    w.restores();
    balanced(SHOP, "restored in place");
    w.undoes();
    balanced(SHOP, "undone");
}
