//! From a configuration to a server that answers, by the ladder: published port, address of the container, a program in it.

use crate::{
    PostgresConfig,
    address::{Address, DEFAULT_PORT, Endpoint, Host, Passage, Ssl},
    client::{ClientError, Session},
    credentials::{Whose, password},
};
use backup_core::{
    ContainerEngine, ContainerFacts, Error, ErrorKind, Result, Secret, ToolCommand, output_of,
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::net::TcpStream;

/// Servers older than this lack what is relied on.
const OLDEST: u32 = 13;
/// The newest that was tested.
const NEWEST: u32 = 18;
/// Where to be while others are renamed and dropped.
const MAINTENANCE: [&str; 2] = ["postgres", "template1"];
const PORT_ANSWERS: Duration = Duration::from_secs(3);

/// A server and the database of it that is meant; of several the one that is looked at.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) database: String,
    /// Nobody has named it: the configuration and the container do not.
    unnamed: bool,
    /// Databases that are renamed with it: nobody may be in them meanwhile.
    pub(crate) together: Arc<[String]>,
    /// How it is reached, for people.
    pub(crate) rung: String,
    /// The container that it runs in, if that is known, and its port in there.
    pub(crate) inside: Option<(ContainerFacts, u16)>,
    pub(crate) config: PostgresConfig,
    pub(crate) engine: Arc<dyn ContainerEngine>,
}

impl Server {
    /// Finds out where it is and how to log in. The server itself is not asked yet.
    pub(crate) async fn resolve(
        config: &PostgresConfig,
        component: &str,
        engine: &Arc<dyn ContainerEngine>,
    ) -> Result<Self> {
        let address = match &config.url {
            Some(url) => Address::parse(url)?,
            None => Address::default(),
        };
        let container = match &config.container {
            Some(name) => Some(running(engine.inspect(name).await?, name)?),
            None => None,
        };
        let of_container = match &container {
            Some(facts) => Environment::read(facts, &**engine).await?,
            None => Environment::default(),
        };
        let user = config.user.clone().or(address.user.clone()).or(of_container.user).or_else(own_name);
        let user = user.unwrap_or_else(|| "postgres".to_owned());
        let listed = || config.databases.first().filter(|_| !config.means_all()).cloned();
        let database = listed().or_else(|| config.named_database()).or(of_container.database);
        let otherwise = || if config.means_all() { MAINTENANCE[0].to_owned() } else { user.clone() };
        let unnamed = database.is_none() && config.container.is_some();
        let database = database.unwrap_or_else(otherwise);
        let (host, port, rung, inside) = match container {
            Some(facts) => {
                let port = of_container.port.unwrap_or(DEFAULT_PORT);
                let (host, reached, rung) = reach(&facts, port, &**engine).await;
                (host, reached, rung, Some((facts, port)))
            }
            None => {
                let (host, port) = (address.host(), address.port.unwrap_or(DEFAULT_PORT));
                let inside = match host.is_this_host() {
                    // An engine that does not answer is no reason to fail: the server does.
                    true => engine.publishing(port).await.ok().flatten(),
                    false => None,
                };
                let inside = inside.and_then(|facts| {
                    let inner =
                        facts.published.iter().find(|(_, there)| there.port() == port).map(|(p, _)| *p)?;
                    Some((facts, inner))
                });
                let rung = format!("{}:{port}", host.text());
                (host, port, rung, inside)
            }
        };
        let password = password(&Whose {
            component,
            password_file: config.password_file.as_deref(),
            host: &host.text(),
            port,
            database: &database,
            user: &user,
            of_container: of_container.password,
        })?;
        let application = format!("backup {}", &ulid::Ulid::generate().to_string()[16..]);
        let ssl = if config.url.is_some() { address.ssl } else { Ssl::default() };
        let endpoint = Endpoint { host, port, user, password, ssl, application };
        let (config, engine, together) = (config.clone(), engine.clone(), Arc::from([]));
        Ok(Server { endpoint, database, unnamed, together, rung, inside, config, engine })
    }

    /// What has a container of its own has a database of its own: the one that each server has is hardly meant, unless it is named.
    pub(crate) fn database_is_said(&self) -> Result<()> {
        if !self.unnamed || self.config.means_all() {
            return Ok(());
        }
        let name = self.config.container.as_deref().unwrap_or_default();
        let message = "neither the configuration nor the environment of the container (POSTGRES_DB, POSTGRES_USER) names a database";
        let e = Error::new(ErrorKind::Usage, "find the database", message).on(name);
        Err(e.hint(format!("name it: container://{name}/app, or database = \"app\"; container://{name}/* or databases = [\"*\"] is all")))
    }

    /// The same server, and another database of it.
    pub(crate) fn of(&self, database: &str) -> Self {
        Server { database: database.to_owned(), ..self.clone() }
    }

    /// A session with the database.
    pub(crate) async fn session(&self) -> Result<Session, ClientError> {
        Session::connect(&self.endpoint, &self.database).await
    }

    /// A session with a database from which the others can be renamed and dropped.
    pub(crate) async fn maintenance_session(&self) -> Result<Session, ClientError> {
        let named = self.config.maintenance_database.as_deref();
        let databases = named.map_or_else(|| MAINTENANCE.to_vec(), |name| vec![name]);
        let is_renamed = |name: &str| name == self.database || self.together.iter().any(|d| d == name);
        let mut first = None;
        for database in databases.into_iter().filter(|d| !is_renamed(d)) {
            match Session::connect(&self.endpoint, database).await {
                Err(e) if e.code() == Some("3D000") => drop(first.get_or_insert(e)),
                other => return other,
            }
        }
        Err(first.unwrap_or_else(|| {
            ClientError::Protocol("no database is left to connect to: set maintenance_database".into())
        }))
    }

    /// All databases, and those that take no connections: without templates, and without what restores keep beside others.
    pub(crate) async fn databases(&self) -> Result<(Vec<String>, Vec<String>), ClientError> {
        let mut session = match self.session().await {
            Err(e) if e.code() == Some("3D000") => self.maintenance_session().await?,
            session => session?,
        };
        let sql = "SELECT datname, datallowconn AND datconnlimit <> -2 FROM pg_catalog.pg_database
            WHERE NOT datistemplate AND datname !~ '^backup_(new|old)_[0-9a-z]{26}(_[0-9]+)?$' ORDER BY datname";
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for row in session.query(sql).await? {
            let [Some(name), Some(takes_connections)] = row.as_slice() else { continue };
            if takes_connections == "t" { &mut open } else { &mut closed }.push(name.clone());
        }
        session.close().await;
        Ok((open, closed))
    }

    /// Something of the database, with its name if it may be one of several.
    pub(crate) fn shown(&self, what: &str) -> String {
        match self.config.databases.is_empty() {
            true => what.to_owned(),
            false => format!("{}/{what}", self.database),
        }
    }

    /// For people, without secrets.
    pub(crate) fn place(&self) -> String {
        match &self.inside {
            Some((facts, _)) if self.config.container.is_some() => {
                format!("container://{}/{}", facts.name, self.database)
            }
            _ => format!(
                "postgres://{}@{}:{}/{}",
                self.endpoint.user,
                self.endpoint.host.text(),
                self.endpoint.port,
                self.database
            ),
        }
    }
}

/// The major version, refused if it is too old. `server_version_num` is 170011 for 17.11.
pub(crate) async fn major_version(session: &mut Session) -> Result<(u32, Option<String>), ClientError> {
    let text = session.value("SHOW server_version_num").await?.unwrap_or_default();
    let major = text.parse::<u32>().unwrap_or(0) / 10_000;
    if major < OLDEST {
        let message = format!("the server is PostgreSQL {major}; {OLDEST} is the oldest that can be handled");
        return Err(ClientError::Protocol(message));
    }
    let untested =
        format!("the server is PostgreSQL {major}, which is newer than any that was tested ({NEWEST})");
    Ok((major, (major > NEWEST).then_some(untested)))
}

/// 11 of 17.11.
pub(crate) async fn minor_version(session: &mut Session) -> Result<u32, ClientError> {
    let text = session.value("SHOW server_version_num").await?.unwrap_or_default();
    Ok(text.parse::<u32>().unwrap_or(0) % 10_000)
}

/// The name of the user that this process runs as: libpq's default.
fn own_name() -> Option<String> {
    std::env::var("PGUSER").or_else(|_| std::env::var("USER")).ok().filter(|name| !name.is_empty())
}

fn running(facts: ContainerFacts, name: &str) -> Result<ContainerFacts> {
    if facts.running {
        return Ok(facts);
    }
    let e = Error::new(ErrorKind::Source, "reach PostgreSQL", "the container does not run").on(name);
    Err(e.hint(format!("docker start {name}")))
}

async fn reach(facts: &ContainerFacts, port: u16, engine: &dyn ContainerEngine) -> (Host, u16, String) {
    if let Some(there) = facts.published.get(&port) {
        let ip = if there.ip().is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { there.ip() };
        if answers(&ip.to_string(), there.port()).await {
            return (Host::Name(ip.to_string()), there.port(), format!("published port {}", there.port()));
        }
    }
    for ip in &facts.addresses {
        if answers(&ip.to_string(), port).await {
            return (Host::Name(ip.to_string()), port, format!("address {ip} of the container"));
        }
    }
    let rung = "a program in the container, for no port of it is reached from here";
    (Host::Inside(Passage::new(engine.runner(&facts.id))), port, rung.to_owned())
}

async fn answers(host: &str, port: u16) -> bool {
    let connected = tokio::time::timeout(PORT_ANSWERS, TcpStream::connect((host, port))).await;
    matches!(connected, Ok(Ok(_)))
}

/// What the official image is told by its environment.
#[derive(Default)]
struct Environment {
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    port: Option<u16>,
}

impl Environment {
    async fn read(facts: &ContainerFacts, engine: &dyn ContainerEngine) -> Result<Self> {
        let user = value(facts, engine, "POSTGRES_USER").await?.map(|s| s.expose().to_owned());
        let database = value(facts, engine, "POSTGRES_DB").await?.map(|s| s.expose().to_owned());
        Ok(Environment {
            // The image makes a database of this name.
            database: database.or_else(|| user.clone()),
            user: Some(user.unwrap_or_else(|| "postgres".to_owned())),
            password: value(facts, engine, "POSTGRES_PASSWORD").await?,
            port: facts.environment.get("PGPORT").and_then(|p| p.expose().parse().ok()),
        })
    }
}

/// A variable, or the content of the file that `NAME_FILE` names in the container.
async fn value(facts: &ContainerFacts, engine: &dyn ContainerEngine, name: &str) -> Result<Option<Secret>> {
    if let Some(value) = facts.environment.get(name).filter(|v| !v.expose().is_empty()) {
        return Ok(Some(value.clone()));
    }
    let Some(file) = facts.environment.get(&format!("{name}_FILE")).filter(|v| !v.expose().is_empty()) else {
        return Ok(None);
    };
    if !Path::new(file.expose()).is_absolute() {
        return Ok(None);
    }
    let cat = ToolCommand::new("cat").arg("--").arg(file.expose());
    let read = output_of(&*engine.runner(&facts.id), cat, 64 << 10, Duration::from_secs(20)).await;
    let read =
        read.map_err(|e| e.hint(format!("{name}_FILE of the container {} cannot be read", facts.name)))?;
    Ok(Some(Secret::new(String::from_utf8_lossy(&read).trim_end_matches(['\r', '\n']))))
}
