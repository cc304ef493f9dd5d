//! PostgreSQL servers.

use super::container::{Container, Shared, Wanted, engine, shared, start, until};
use std::sync::{Arc, OnceLock};
use std::{collections::BTreeMap, sync::Mutex as StdMutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// With what passwords like to break on.
const PASSWORD: &str = "p'a\\s\"s $x@/:";

/// A running PostgreSQL server. Its superuser is `postgres`; everything that costs time for safety is off.
pub struct Postgres {
    container: Container,
    version: u32,
}

impl Postgres {
    /// The major version.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The container it runs in.
    pub fn container(&self) -> &Container {
        &self.container
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.container.port()
    }

    /// Of the superuser; TCP connections need it.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Address of a database, without the password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port())
    }
}

/// A server of this major version, shared with other tests of this program.
pub async fn postgres(version: u32) -> Arc<Postgres> {
    static SLOTS: OnceLock<StdMutex<BTreeMap<u32, Arc<Shared<Postgres>>>>> = OnceLock::new();
    let slot = {
        let mut slots =
            SLOTS.get_or_init(StdMutex::default).lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slots.entry(version).or_default().clone()
    };
    shared(&slot, "postgres", || own_postgres(version)).await
}

/// A server for one test alone: to be killed or filled.
pub async fn own_postgres(version: u32) -> Postgres {
    start_postgres(version, None).await
}

/// The same with room for so many MB of data, its log not among them: 30 are taken from the beginning.
pub async fn postgres_with_room(version: u32, megabytes: u32) -> Postgres {
    start_postgres(version, Some(megabytes)).await
}

async fn start_postgres(version: u32, room: Option<u32>) -> Postgres {
    engine("postgres").await;
    let settings = [
        "fsync=off",
        "full_page_writes=off",
        "synchronous_commit=off",
        "shared_buffers=64MB",
        "max_connections=200",
        "max_prepared_transactions=4",
        "wal_level=logical",
    ];
    let mut environment = vec![("POSTGRES_PASSWORD".to_owned(), PASSWORD.to_owned())];
    if room.is_some() {
        environment.push(("PGDATA".into(), "/small/data".into()));
        environment.push(("POSTGRES_INITDB_ARGS".into(), "--waldir=/tmp/wal".into()));
    }
    let container = start(&Wanted {
        store: "postgres",
        tag: version.to_string(),
        port: 5432,
        environment,
        arguments: ["postgres"]
            .into_iter()
            .map(String::from)
            .chain(settings.iter().flat_map(|s| ["-c".into(), (*s).into()]))
            .collect(),
        in_memory: room.map(|_| "/small"),
        room,
        folder: None,
    })
    .await;
    let port = container.port();
    until("PostgreSQL", || async move { asks_for_a_password(port).await.unwrap_or(false) }).await;
    Postgres { container, version }
}

/// The port of a container answers before the server does, and a server that is still starting refuses: ready is who asks for
/// the password.
async fn asks_for_a_password(port: u16) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut startup = vec![0, 0, 0, 0, 0, 3, 0, 0];
    startup.extend_from_slice(b"user\0postgres\0\0");
    let length = u32::try_from(startup.len()).unwrap_or(0).to_be_bytes();
    startup[..4].copy_from_slice(&length);
    stream.write_all(&startup).await?;
    Ok(stream.read_u8().await? == b'R')
}
