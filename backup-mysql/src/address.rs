//! Addresses of servers: `mysql://user@host:port/database?ssl-mode=REQUIRED`, and what is resolved from them.

use backup_core::{Error, ErrorKind, Result, Secret, without_secrets};
use std::{fmt, path::PathBuf, str::FromStr};

pub(crate) const DEFAULT_PORT: u16 = 3306;
/// Where servers of packages keep their sockets.
const SOCKETS: [&str; 3] = ["/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"];

/// An address as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Address {
    pub(crate) user: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) database: Option<String>,
    pub(crate) ssl: Option<Ssl>,
}

/// How a connection is protected.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ssl {
    pub(crate) mode: SslMode,
    pub(crate) ca: Option<PathBuf>,
    /// Certificate and key of the client.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
}

/// The modes of the vendors' clients, under their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SslMode {
    Disabled,
    #[default]
    Preferred,
    Required,
    VerifyCa,
    VerifyIdentity,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Host {
    Name(String, u16),
    Socket(PathBuf),
}

/// All that a session needs. `Display` is without secrets.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) host: Host,
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
    pub(crate) ssl: Ssl,
}

impl Address {
    pub(crate) fn is_one(text: &str) -> bool {
        text.starts_with("mysql://") || text.starts_with("mariadb://")
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |message: &str| {
            Error::new(ErrorKind::Usage, "read an address of MySQL", message)
                .on(without_secrets(text))
                .hint("mysql://user@host:3306/database")
        };
        let rest = text.strip_prefix("mysql://").or_else(|| text.strip_prefix("mariadb://"));
        let rest = rest.ok_or_else(|| wrong("it does not begin with mysql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(wrong("it holds a password, which every user of this host could see")
                .hint("set BACKUP_<NAME>_PASSWORD, MYSQL_PWD or password_file, or write it into ~/.my.cnf"));
        }
        let (host, port) = host_and_port(place).ok_or_else(|| wrong("its port is no number"))?;
        let decode =
            |text: &str| decoded(text).ok_or_else(|| wrong("a % in it is not followed by two digits"));
        let mut address = Address {
            user: user.map(decode).transpose()?,
            host: Some(decode(host)?).filter(|h| !h.is_empty()),
            port,
            database: Some(decode(path)?).filter(|d| !d.is_empty()),
            ..Address::default()
        };
        if let Some(path) = address.host.as_deref().filter(|h| h.starts_with('/')) {
            address.socket = Some(path.into());
            address.host = None;
        }
        let (mut certificate, mut key) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value)?;
            let mut ssl = address.ssl.clone().unwrap_or_default();
            match name {
                "ssl-mode" => ssl.mode = value.parse().map_err(|()| wrong("its ssl-mode is unknown"))?,
                "ssl-ca" => ssl.ca = Some(value.into()),
                "ssl-cert" => certificate = Some(value.into()),
                "ssl-key" => key = Some(value.into()),
                "socket" => {
                    address.socket = Some(value.into());
                    continue;
                }
                _ => return Err(wrong(&format!("`{name}` in it is not known"))),
            }
            address.ssl = Some(ssl);
        }
        match (certificate, key) {
            (Some(c), Some(k)) => address.ssl.get_or_insert_default().identity = Some((c, k)),
            (None, None) => {}
            _ => return Err(wrong("ssl-cert and ssl-key go together")),
        }
        Ok(address)
    }

    pub(crate) fn host(&self) -> Host {
        match (&self.socket, &self.host) {
            (Some(socket), _) => Host::Socket(socket.clone()),
            (None, Some(host)) => Host::Name(host.clone(), self.port.unwrap_or(DEFAULT_PORT)),
            (None, None) => {
                let there = SOCKETS.iter().map(PathBuf::from).find(|s| self.port.is_none() && s.exists());
                there.map_or_else(
                    || Host::Name("localhost".into(), self.port.unwrap_or(DEFAULT_PORT)),
                    Host::Socket,
                )
            }
        }
    }
}

/// `host`, `host:3306`, `[::1]:3306`.
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
        Ok(match text.to_ascii_uppercase().replace('-', "_").as_str() {
            "DISABLED" => SslMode::Disabled,
            "PREFERRED" => SslMode::Preferred,
            "REQUIRED" => SslMode::Required,
            "VERIFY_CA" => SslMode::VerifyCa,
            "VERIFY_IDENTITY" => SslMode::VerifyIdentity,
            _ => return Err(()),
        })
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SslMode::Disabled => "DISABLED",
            SslMode::Preferred => "PREFERRED",
            SslMode::Required => "REQUIRED",
            SslMode::VerifyCa => "VERIFY_CA",
            SslMode::VerifyIdentity => "VERIFY_IDENTITY",
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name, port) if name.contains(':') => write!(f, "[{name}]:{port}"),
            Host::Name(name, port) => write!(f, "{name}:{port}"),
            Host::Socket(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let a = Address::parse("mysql://u%40x@db.example:3307/my%20db?ssl-mode=VERIFY_IDENTITY&ssl-ca=/ca")
            .unwrap();
        assert_eq!(
            (a.user.as_deref(), a.host.as_deref(), a.port),
            (Some("u@x"), Some("db.example"), Some(3307))
        );
        assert_eq!(a.database.as_deref(), Some("my db"));
        assert_eq!(a.ssl.unwrap().mode, SslMode::VerifyIdentity);
        assert_eq!(
            Address::parse("mariadb://%2Frun%2Fx.sock/d").unwrap().host(),
            Host::Socket("/run/x.sock".into())
        );
        assert_eq!(Address::parse("mysql://[::1]:1/d").unwrap().host(), Host::Name("::1".into(), 1));
        assert_eq!(Address::parse("mysql:///d?socket=/x").unwrap().host(), Host::Socket("/x".into()));
    }

    #[test]
    fn what_is_wrong_or_unknown_in_an_address_is_an_error() {
        for text in [
            "mysql://h:x/d",
            "mysql://h/d?ssl-mode=maybe",
            "mysql://h/d?what=1",
            "mysql://h/%zz",
            "mysql://u:hunter2@h/d",
            "mysql://h/d?ssl-cert=x",
        ] {
            let e = Address::parse(text).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Usage, "{text}");
            assert!(!format!("{e} {e:?}").contains("hunter2"));
        }
    }
}
