//! Addresses of servers: `postgres://user@host:port/database?sslmode=require`, and what is resolved from them.

use backup_core::{CommandRunner, Error, ErrorKind, Result, Secret, without_secrets};
use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

pub(crate) const DEFAULT_PORT: u16 = 5432;
/// Where servers of packages keep their sockets.
const SOCKET_FOLDERS: [&str; 2] = ["/run/postgresql", "/tmp"];

/// An address as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Address {
    pub(crate) user: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) database: Option<String>,
    pub(crate) ssl: Ssl,
}

/// How a connection is protected.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ssl {
    pub(crate) mode: SslMode,
    pub(crate) root_certificate: Option<PathBuf>,
}

/// The modes of libpq, under its names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SslMode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Host {
    Name(String),
    /// The folder of its Unix socket.
    Socket(PathBuf),
    /// In a container, and no port of it is reached from here.
    Inside(Passage),
}

/// Where programs can be run beside the server, so that one of them carries a connection.
#[derive(Clone)]
pub(crate) struct Passage(Arc<dyn CommandRunner>);

impl Passage {
    pub(crate) fn new(runner: Arc<dyn CommandRunner>) -> Self {
        Passage(runner)
    }

    pub(crate) fn runner(&self) -> &dyn CommandRunner {
        &*self.0
    }
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl PartialEq for Passage {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// All that a session needs. `Display` is without secrets.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) ssl: Ssl,
    /// What the server shows of our sessions.
    pub(crate) application: String,
}

impl Address {
    pub(crate) fn is_one(text: &str) -> bool {
        text.starts_with("postgres://") || text.starts_with("postgresql://")
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |message: &str| {
            Error::new(ErrorKind::Usage, "read an address of PostgreSQL", message)
                .on(without_secrets(text))
                .hint("postgres://user@host:5432/database")
        };
        let rest = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://"));
        let rest = rest.ok_or_else(|| wrong("it does not begin with postgres://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(wrong("it holds a password, which every user of this host could see").hint(
                "set BACKUP_<NAME>_PASSWORD, PGPASSWORD or password_file, or add a line to ~/.pgpass",
            ));
        }
        let (host, port) = host_and_port(place).ok_or_else(|| wrong("its port is no number"))?;
        let decode =
            |text: &str| decoded(text).ok_or_else(|| wrong("a % in it is not followed by two digits"));
        let mut address = Address {
            user: user.map(decode).transpose()?,
            host: Some(decode(host)?).filter(|h| !h.is_empty()),
            port,
            database: Some(decode(path)?).filter(|d| !d.is_empty()),
            ssl: Ssl::default(),
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            match key {
                "sslmode" => {
                    address.ssl.mode = value.parse().map_err(|()| wrong("its sslmode is unknown"))?
                }
                "sslrootcert" => address.ssl.root_certificate = Some(value.into()),
                "host" => address.host = Some(value),
                "user" => address.user = Some(value),
                "port" => address.port = Some(value.parse().map_err(|_| wrong("its port is no number"))?),
                "dbname" => address.database = Some(value),
                _ => return Err(wrong(&format!("`{key}` in it is not known"))),
            }
        }
        Ok(address)
    }

    pub(crate) fn host(&self) -> Host {
        match &self.host {
            Some(host) if host.starts_with('/') => Host::Socket(host.into()),
            Some(host) => Host::Name(host.clone()),
            None => {
                let port = self.port.unwrap_or(DEFAULT_PORT);
                let there = SOCKET_FOLDERS
                    .iter()
                    .find(|f| PathBuf::from(f).join(format!(".s.PGSQL.{port}")).exists());
                there.map_or_else(|| Host::Name("localhost".into()), |folder| Host::Socket(folder.into()))
            }
        }
    }
}

/// `host`, `host:5432`, `[::1]:5432`.
fn host_and_port(place: &str) -> Option<(&str, Option<u16>)> {
    if let Some((host, rest)) = place.strip_prefix('[').and_then(|p| p.split_once(']')) {
        let port = rest.strip_prefix(':').map(str::parse).transpose().ok()?;
        return (rest.is_empty() || port.is_some()).then_some((host, port));
    }
    match place.rsplit_once(':') {
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((place, None)),
    }
}

fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        out.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(out).ok()
}

impl FromStr for SslMode {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        Ok(match text {
            "disable" => SslMode::Disable,
            "allow" | "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return Err(()),
        })
    }
}

impl SslMode {
    /// As `PGSSLMODE` takes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        }
    }
}

impl Host {
    /// As `PGHOST` takes it.
    pub(crate) fn text(&self) -> String {
        match self {
            Host::Name(name) => name.clone(),
            Host::Socket(folder) => folder.to_string_lossy().into_owned(),
            // As it is called there.
            Host::Inside(_) => "127.0.0.1".to_owned(),
        }
    }

    pub(crate) fn is_this_host(&self) -> bool {
        match self {
            Host::Name(name) => {
                name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            Host::Socket(_) => true,
            Host::Inside(_) => false,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host.text(), self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_libpq_reads_them() {
        let a =
            Address::parse("postgres://u%40x@db.example:5433/my%20db?sslmode=verify-full&sslrootcert=/ca")
                .unwrap();
        assert_eq!(
            (a.user.as_deref(), a.host.as_deref(), a.port),
            (Some("u@x"), Some("db.example"), Some(5433))
        );
        assert_eq!((a.database.as_deref(), a.ssl.mode), (Some("my db"), SslMode::VerifyFull));
        let a = Address::parse("postgresql://%2Frun%2Fpg/d").unwrap();
        assert_eq!(a.host(), Host::Socket("/run/pg".into()));
        assert_eq!(Address::parse("postgres://[::1]:1/d").unwrap().host.as_deref(), Some("::1"));
        assert_eq!(Address::parse("postgres:///d?host=/x").unwrap().host(), Host::Socket("/x".into()));
    }

    #[test]
    fn what_is_wrong_or_unknown_in_an_address_is_an_error() {
        for text in [
            "postgres://h:x/d",
            "postgres://h/d?sslmode=maybe",
            "postgres://h/d?what=1",
            "postgres://h/%zz",
            "postgres://u:p@h/d",
        ] {
            assert_eq!(Address::parse(text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }
}
