//! MySQL and MariaDB servers.

use super::container::{Container, Shared, Wanted, engine, shared, start, until};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex as StdMutex, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// With what passwords like to break on.
const PASSWORD: &str = "p'a\\s\"s $x@/:";

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flavor {
    /// MySQL 9: binary log and GTIDs on, `local_infile` off, `caching_sha2_password`.
    Mysql9,
    /// MariaDB 10.11, with a binary log.
    Mariadb1011,
    /// MariaDB 11.8, with a binary log; it has no programs called `mysql`.
    Mariadb118,
}

impl Flavor {
    /// All of them.
    pub const ALL: [Flavor; 3] = [Flavor::Mysql9, Flavor::Mariadb1011, Flavor::Mariadb118];

    /// Its name in `BACKUP_TEST_REQUIRE`.
    pub fn store(self) -> &'static str {
        if self.is_mariadb() { "mariadb" } else { "mysql" }
    }

    /// Whether it is MariaDB.
    pub fn is_mariadb(self) -> bool {
        self != Flavor::Mysql9
    }

    fn tag(self) -> &'static str {
        match self {
            Flavor::Mysql9 => "9",
            Flavor::Mariadb1011 => "10.11",
            Flavor::Mariadb118 => "11.8",
        }
    }
}

/// A running server. Its superuser is `root`, from anywhere; everything that costs time for safety is off.
pub struct Mysql {
    container: Container,
    flavor: Flavor,
}

impl Mysql {
    /// Which server it is.
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// The container it runs in.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.container.port()
    }

    /// Of `root`.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Address of a database, without the password.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port())
    }

    /// The vendor's client in the container, as `root`.
    pub fn client(&self) -> &'static str {
        if self.flavor.is_mariadb() { "mariadb" } else { "mysql" }
    }
}

/// A server of this sort, shared with other tests of this program.
pub async fn mysql(flavor: Flavor) -> Arc<Mysql> {
    static SLOTS: OnceLock<StdMutex<BTreeMap<Flavor, Arc<Shared<Mysql>>>>> = OnceLock::new();
    let slot = {
        let mut slots = SLOTS.get_or_init(StdMutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(flavor).or_default().clone()
    };
    shared(&slot, flavor.store(), || own_mysql(flavor, &[])).await
}

/// A server for one test alone, with further arguments: to be killed, or set up in another way.
pub async fn own_mysql(flavor: Flavor, arguments: &[&str]) -> Mysql {
    start_mysql(flavor, arguments, None, None).await
}

/// The same with room for so many MB in all. A new server takes 70 (MariaDB) or 110 (MySQL) of them, and 180 while it starts.
pub async fn mysql_with_room(flavor: Flavor, megabytes: u32) -> Mysql {
    let mut arguments = vec!["--skip-log-bin", "--innodb-buffer-pool-size=16M"];
    arguments.push(match flavor.is_mariadb() {
        true => "--innodb-log-file-size=8M",
        false => "--innodb-redo-log-capacity=8M",
    });
    start_mysql(flavor, &arguments, Some(megabytes), None).await
}

/// The same with a folder of this host, which is `/shared` there.
pub async fn mysql_with_folder(flavor: Flavor, folder: &Path, arguments: &[&str]) -> Mysql {
    start_mysql(flavor, arguments, None, Some((folder.to_owned(), "/shared"))).await
}

async fn start_mysql(
    flavor: Flavor,
    arguments: &[&str],
    room: Option<u32>,
    folder: Option<(PathBuf, &'static str)>,
) -> Mysql {
    engine(flavor.store()).await;
    let mut settings = vec![
        "--performance-schema=OFF",
        "--innodb-buffer-pool-size=64M",
        "--innodb-flush-log-at-trx-commit=0",
        "--sync-binlog=0",
        "--skip-name-resolve",
        "--max-connections=200",
        "--event-scheduler=ON",
    ];
    match flavor.is_mariadb() {
        true => settings.extend(["--log-bin", "--server-id=1"]),
        false => settings.extend(["--mysqlx=OFF", "--server-id=1"]),
    }
    settings.extend(arguments);
    let container = start(&Wanted {
        store: flavor.store(),
        tag: flavor.tag().to_owned(),
        port: 3306,
        environment: vec![("MYSQL_ROOT_PASSWORD".into(), PASSWORD.into())],
        arguments: settings.into_iter().map(String::from).collect(),
        in_memory: Some("/var/lib/mysql"),
        room,
        folder,
    })
    .await;
    let port = container.port();
    until(flavor.store(), || async move { greets(port).await.unwrap_or(false) }).await;
    Mysql { container, flavor }
}

/// The port of a container answers before the server does: ready is who greets with version 10 of the protocol.
async fn greets(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut head = [0; 5];
    match tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut head)).await {
        Ok(read) => read.map(|_| head[4] == 10),
        Err(_) => Ok(false),
    }
}
