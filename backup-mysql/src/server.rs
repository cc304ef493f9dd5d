//! From a configuration to a server that answers, by the ladder: published port, address of the container.

use crate::{
    MysqlConfig,
    address::{Address, DEFAULT_PORT, Endpoint, Host, Ssl},
    credentials::{OptionFile, password},
};
use backup_core::{
    ContainerEngine, ContainerFacts, Error, ErrorKind, Result, Secret, ToolCommand, output_of,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::net::TcpStream;

const PORT_ANSWERS: Duration = Duration::from_secs(3);

/// A server, and the databases of it that are meant.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    /// `None`: all but the server's own.
    pub(crate) names: Option<Vec<String>>,
    /// How it is reached, for people.
    pub(crate) rung: String,
    /// The container that was named, and its port in there.
    container: Option<(ContainerFacts, u16)>,
}

impl Server {
    /// Finds out where it is and how to log in. The server itself is not asked yet.
    pub(crate) async fn resolve(
        config: &MysqlConfig,
        component: &str,
        engine: &Arc<dyn ContainerEngine>,
    ) -> Result<Self> {
        match &config.container {
            Some(name) => in_container(config, component, name, &**engine).await,
            None => at_address(config, component),
        }
    }

    /// Whether its folders are those of this host, unless it is in a container.
    pub(crate) fn is_on_this_host(&self) -> bool {
        // A port of this host may be that of a tunnel.
        matches!(self.endpoint.host, Host::Socket(_))
    }

    /// The container that it runs in, if that is known, and its port in there.
    pub(crate) async fn inside(&self, engine: &dyn ContainerEngine) -> Option<(ContainerFacts, u16)> {
        if self.container.is_some() {
            return self.container.clone();
        }
        let Host::Name(name, port) = &self.endpoint.host else { return None };
        let is_here = name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        // An engine that does not answer has no container for us.
        let facts = if is_here { engine.publishing(*port).await.ok().flatten()? } else { return None };
        let inner = facts.published.iter().find(|(_, there)| there.port() == *port).map(|(p, _)| *p)?;
        Some((facts, inner))
    }
}

/// Reads the environment and files, too.
fn at_address(config: &MysqlConfig, component: &str) -> Result<Server> {
    let mut address = Address::parse(config.url.as_deref().unwrap_or_default())?;
    let options = OptionFile::of_this_user()?;
    // What the address says wins, and a place is taken as a whole.
    if address.host.is_none() && address.socket.is_none() && address.port.is_none() {
        address.host = options.get("host").map(str::to_owned);
        address.socket = options.get("socket").map(PathBuf::from);
        address.port = options.get("port").and_then(|p| p.parse().ok());
    }
    let ssl = match address.ssl.clone() {
        Some(ssl) => ssl,
        None => options.ssl()?,
    };
    let user =
        config.user.clone().or(address.user.clone()).or_else(|| options.get("user").map(str::to_owned));
    let endpoint = Endpoint {
        host: address.host(),
        user: user.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "root".to_owned()),
        password: password(component, config.password_file.as_deref(), None, &options)?,
        ssl,
    };
    let rung = endpoint.host.to_string();
    Ok(Server { endpoint, names: names(config, address.database), rung, container: None })
}

async fn in_container(
    config: &MysqlConfig,
    component: &str,
    name: &str,
    engine: &dyn ContainerEngine,
) -> Result<Server> {
    let facts = engine.inspect(name).await?;
    if !facts.running {
        let e = Error::new(ErrorKind::Source, "reach the server", "the container does not run").on(name);
        return Err(e.hint(format!("docker start {name}")));
    }
    let environment = Environment::read(&facts, engine).await?;
    let (user, of_container) = environment.login(config.user.as_deref());
    let options = OptionFile::of_this_user()?;
    let password = password(component, config.password_file.as_deref(), of_container, &options)?;
    let names = names(config, environment.database);
    if names.as_ref().is_some_and(Vec::is_empty) {
        let message = "neither the configuration nor the environment of the container names a database";
        let e = Error::new(ErrorKind::Usage, "find the database", message).on(name);
        return Err(e.hint("databases = [\"name\"], or [\"*\"] for all"));
    }
    let port = environment.port.unwrap_or(DEFAULT_PORT);
    let (host, rung) = reach(&facts, port).await?;
    let endpoint = Endpoint { host, user, password, ssl: Ssl::default() };
    Ok(Server { endpoint, names, rung, container: Some((facts, port)) })
}

fn names(config: &MysqlConfig, otherwise: Option<String>) -> Option<Vec<String>> {
    match config.databases.as_slice() {
        [all] if all == "*" => None,
        [] => Some(otherwise.into_iter().collect()),
        named => Some(named.to_vec()),
    }
}

async fn reach(facts: &ContainerFacts, port: u16) -> Result<(Host, String)> {
    if let Some(there) = facts.published.get(&port) {
        let ip: IpAddr = if there.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { there.ip() };
        if answers(ip, there.port()).await {
            return Ok((
                Host::Name(ip.to_string(), there.port()),
                format!("published port {}", there.port()),
            ));
        }
    }
    for ip in &facts.addresses {
        if answers(*ip, port).await {
            return Ok((Host::Name(ip.to_string(), port), format!("address {ip} of the container")));
        }
    }
    let message =
        format!("port {port} is not published on this host, and the container's address does not answer");
    let e = Error::new(ErrorKind::Source, "reach the server", message).on(&facts.name);
    let name = &facts.name;
    Err(e.hint(format!(
        "publish the port on this host only (-p 127.0.0.1:{port}:{port}), or give the container a network: docker network connect bridge {name} \
         (before it docker network disconnect none {name}, where that is the one it has)"
    )))
}

async fn answers(ip: IpAddr, port: u16) -> bool {
    let connected = tokio::time::timeout(PORT_ANSWERS, TcpStream::connect((ip, port))).await;
    matches!(connected, Ok(Ok(_)))
}

/// What the official images are told by their environment.
#[derive(Default)]
struct Environment {
    user: Option<String>,
    password: Option<Secret>,
    root_password: Option<Secret>,
    /// Root has no password.
    root_is_open: bool,
    database: Option<String>,
    port: Option<u16>,
}

impl Environment {
    async fn read(facts: &ContainerFacts, engine: &dyn ContainerEngine) -> Result<Self> {
        let plain = |s: Option<Secret>| s.map(|s| s.expose().to_owned());
        let set = |name: &str| facts.environment.get(name).is_some_and(|v| !v.expose().is_empty());
        Ok(Environment {
            user: plain(value(facts, engine, "USER").await?),
            password: value(facts, engine, "PASSWORD").await?,
            root_password: value(facts, engine, "ROOT_PASSWORD").await?,
            root_is_open: set("MYSQL_ALLOW_EMPTY_PASSWORD") || set("MARIADB_ALLOW_EMPTY_ROOT_PASSWORD"),
            database: plain(value(facts, engine, "DATABASE").await?),
            port: facts.environment.get("MYSQL_TCP_PORT").and_then(|p| p.expose().parse().ok()),
        })
    }

    /// The wanted user; else root, if it is known how to log in as root; else the user of the container.
    fn login(&self, wanted: Option<&str>) -> (String, Option<Secret>) {
        let as_root = self.root_is_open || self.root_password.is_some();
        match (wanted, &self.user) {
            (Some("root"), _) => ("root".to_owned(), self.root_password.clone()),
            (Some(wanted), Some(user)) if wanted == user => (user.clone(), self.password.clone()),
            (Some(wanted), _) => (wanted.to_owned(), None),
            (None, Some(user)) if !as_root => (user.clone(), self.password.clone()),
            (None, _) => ("root".to_owned(), self.root_password.clone()),
        }
    }
}

/// A variable of either vendor's image, or the content of the file that `NAME_FILE` names in the container.
async fn value(facts: &ContainerFacts, engine: &dyn ContainerEngine, name: &str) -> Result<Option<Secret>> {
    for vendor in ["MARIADB", "MYSQL"] {
        let name = format!("{vendor}_{name}");
        let there = |name: &str| facts.environment.get(name).filter(|v| !v.expose().is_empty());
        if let Some(value) = there(&name) {
            return Ok(Some(value.clone()));
        }
        let Some(file) = there(&format!("{name}_FILE")) else { continue };
        if !Path::new(file.expose()).is_absolute() {
            continue;
        }
        let cat = ToolCommand::new("cat").arg("--").arg(file.expose());
        let read = output_of(&*engine.runner(&facts.id), cat, 64 << 10, Duration::from_secs(20)).await;
        let read =
            read.map_err(|e| e.hint(format!("{name}_FILE of the container {} cannot be read", facts.name)))?;
        return Ok(Some(Secret::new(String::from_utf8_lossy(&read).trim_end_matches(['\r', '\n']))));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_used_where_its_password_is_known_and_else_the_user_of_the_container() {
        let secret = |s: &str| Some(Secret::new(s));
        let full = Environment {
            user: Some("app".into()),
            password: secret("of app"),
            root_password: secret("of root"),
            ..Environment::default()
        };
        let login = |e: &Environment, wanted| {
            let (user, password) = e.login(wanted);
            (user, password.map(|p| p.expose().to_owned()))
        };
        assert_eq!(login(&full, None), ("root".into(), Some("of root".into())));
        assert_eq!(login(&full, Some("app")), ("app".into(), Some("of app".into())));
        assert_eq!(login(&full, Some("other")), ("other".into(), None));
        let random = Environment { root_password: None, ..full };
        assert_eq!(login(&random, None), ("app".into(), Some("of app".into())));
        let open = Environment { root_is_open: true, ..random };
        assert_eq!(login(&open, None), ("root".into(), None));
    }
}
