//! Stores for the conformance suites.

use super::{captured, config, conn, fingerprint, fresh, id_of, run, schemas_left, secret_file, target};
use async_trait::async_trait;
use backup_core::{Backend, Context, Result, Target};
use backup_mysql::MysqlBackend;
use backup_testkit::{
    conformance::{
        backend::{BackendFixture, Place},
        source::{Made, Setup, SourceFixture},
        target::TargetFixture,
    },
    memory::MemorySource,
    services::{Flavor, Mysql, mysql},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, OnceLock};

/// Databases on the server that is quickest to change.
pub struct Databases(pub Flavor);

const KNOWN: &str = "CREATE TABLE orders (id int PRIMARY KEY, t longtext, b varbinary(20), KEY (b));; \
    INSERT INTO orders SELECT seq.n, REPEAT('text ', 9000), x'00ff' FROM (SELECT 1 AS n UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8) seq;; \
    CREATE TABLE items (id int PRIMARY KEY, o int, FOREIGN KEY (o) REFERENCES orders (id));; INSERT INTO items VALUES (1, 1), (2, 8);; \
    CREATE VIEW both_of_them AS SELECT l.id, o.b FROM items l JOIN orders o ON l.o = o.id;; \
    CREATE TRIGGER t BEFORE INSERT ON items FOR EACH ROW SET NEW.o = NEW.o;; \
    CREATE PROCEDURE p() BEGIN SELECT 1; END";

const OLD: &str = "CREATE TABLE orders (id int PRIMARY KEY, old text);; INSERT INTO orders VALUES (1, 'old'), (2, 'data');; \
    CREATE TABLE gone (id int PRIMARY KEY, o int, FOREIGN KEY (o) REFERENCES orders (id));; INSERT INTO gone VALUES (1, 1);; \
    CREATE VIEW old_view AS SELECT * FROM gone;; CREATE TRIGGER t BEFORE INSERT ON orders FOR EACH ROW SET NEW.old = 'x';; \
    CREATE FUNCTION f() RETURNS int DETERMINISTIC RETURN 1";

/// A user of its own for each store, so that its sessions are known.
async fn user(server: &Mysql) -> String {
    let name = fresh("u");
    let mut c = conn(server).await;
    run(
        &mut c,
        &format!("CREATE USER '{name}'@'%' IDENTIFIED BY 'hunter2';; GRANT ALL ON *.* TO '{name}'@'%'"),
    )
    .await;
    name
}

fn sessions_of(server: &Arc<Mysql>, user: &str) -> Vec<String> {
    let (server, user) = (server.clone(), user.to_owned());
    let looking = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut c = conn(&server).await;
            for _ in 0..600 {
                let sql =
                    format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = '{user}'");
                let n = super::value(&mut c, &sql).await;
                if n == "0" {
                    return Vec::new();
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
            vec![format!("sessions of {user}")]
        })
    });
    looking.join().unwrap()
}

#[async_trait]
impl SourceFixture for Databases {
    async fn store(&self, setup: Setup) -> Option<Made> {
        let server = mysql(self.0).await;
        let (database, user) = (fresh("source"), user(&server).await);
        let mut c = conn(&server).await;
        run(&mut c, &format!("CREATE DATABASE `{database}`;; USE `{database}`")).await;
        match setup {
            Setup::Empty => {}
            Setup::Known => run(&mut c, KNOWN).await,
            Setup::Unreadable => {
                run(&mut c, KNOWN).await;
                run(&mut c, "CREATE TABLE broken (id int) ENGINE=MERGE UNION=(not_there)").await;
            }
            Setup::Big => {
                run(&mut c, KNOWN).await;
                for i in 0..4 {
                    run(&mut c, &format!("CREATE TABLE big{i} AS SELECT o.id + 10 * p.id AS id, o.t FROM orders o JOIN orders p")).await;
                }
            }
        }
        let file = secret_file(&user, "hunter2");
        let config = json!({
            "url": format!("mysql://{user}@127.0.0.1:{}/{database}?ssl-mode=DISABLED", server.port()),
            "password_file": file,
        });
        let made = MysqlBackend::default().source("c", config).unwrap();
        let (of_changes, watched) = (server.clone(), server.clone());
        Some(Made {
            source: made,
            expected: None,
            disturb: (setup == Setup::Big).then(|| -> Box<dyn Fn() + Send + Sync> {
                Box::new(move || {
                    let (server, database) = (of_changes.clone(), database.clone());
                    let changing = std::thread::spawn(move || {
                        let runtime =
                            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                        runtime.block_on(async {
                            let mut c = conn(&server).await;
                            run(&mut c, &format!("UPDATE `{database}`.big1 SET t = 'changed' WHERE id > 40"))
                                .await;
                        });
                    });
                    changing.join().unwrap();
                })
            }),
            taken: Box::new(move || sessions_of(&watched, &user)),
            secret: Some("hunter2".to_owned()),
            kept: Box::new(server),
        })
    }
}

/// A database that is restored, or a name where there is none.
pub struct Store {
    pub server: Arc<Mysql>,
    pub database: String,
    ids: Mutex<Vec<String>>,
}

impl Drop for Store {
    fn drop(&mut self) {
        let (server, database) = (self.server.clone(), self.database.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut c = conn(&server).await;
                run(&mut c, &format!("DROP DATABASE IF EXISTS `{database}`")).await;
            });
        });
        let _ = dropping.join();
    }
}

/// What is restored: poured once from a real database.
static NEW: OnceLock<MemorySource> = OnceLock::new();

async fn make_new_data(server: &Arc<Mysql>) {
    static ONCE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _one = ONCE.lock().await;
    if NEW.get().is_some() {
        return;
    }
    let mut c = conn(server).await;
    let name = fresh("new_data");
    run(&mut c, &format!("CREATE DATABASE `{name}` CHARACTER SET utf8mb4;; USE `{name}`")).await;
    run(&mut c, KNOWN).await;
    let data = captured(&config(server, &name), &Context::default()).await.unwrap();
    let _ = NEW.set(data);
}

#[async_trait]
impl TargetFixture for Databases {
    type Store = Store;

    async fn store(&self, old_data: bool) -> Store {
        let server = mysql(self.0).await;
        make_new_data(&server).await;
        let database = fresh("target");
        if old_data {
            let mut c = conn(&server).await;
            run(&mut c, &format!("CREATE DATABASE `{database}` CHARACTER SET latin1;; USE `{database}`"))
                .await;
            run(&mut c, OLD).await;
        }
        Store { server, database, ids: Mutex::default() }
    }

    async fn target(&self, store: &Store) -> Box<dyn Target> {
        let target = target(&config(&store.server, &store.database));
        store.ids.lock().unwrap().push(id_of(&*target));
        target
    }

    fn recover(&self, _store: &Store, undo: Value) -> Result<Box<dyn Target>> {
        MysqlBackend::default().recover(undo)
    }

    async fn fingerprint(&self, store: &Store) -> String {
        fingerprint(&mut conn(&store.server).await, &store.database).await
    }

    fn new_data(&self) -> MemorySource {
        NEW.get().unwrap().clone()
    }

    async fn leftovers(&self, store: &Store) -> Vec<String> {
        let ids = store.ids.lock().unwrap().clone();
        let mut c = conn(&store.server).await;
        let mut left = Vec::new();
        for id in ids {
            left.extend(schemas_left(&mut c, &id).await);
        }
        left
    }
}

#[async_trait]
impl BackendFixture for Databases {
    fn backend(&self) -> Box<dyn Backend> {
        Box::new(MysqlBackend::default())
    }

    async fn place(&self) -> Place {
        let server = mysql(self.0).await;
        let database = fresh("place");
        let mut c = conn(&server).await;
        run(&mut c, &format!("CREATE DATABASE `{database}`;; USE `{database}`")).await;
        run(&mut c, KNOWN).await;
        Place {
            config: config(&server, &database),
            absent: config(&server, "not_there"),
            own_texts: vec![server.url(&database), "mariadb://h/d".to_owned()],
            wrong_texts: vec!["mysql://u:p@h/d".to_owned(), "mysql://h".to_owned()],
            kept: Box::new(server),
        }
    }
}
