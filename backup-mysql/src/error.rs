//! What a server says when it refuses, and what a connection says when it breaks.

use backup_core::{Error, ErrorKind};
use mysql_async::{DriverError, Error as Driver, IoError};
use std::{fmt, time::Duration};

/// An error of a session.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// The server refused a statement; the session goes on.
    Server { code: u16, message: String },
    /// The connection is lost, was never made, or somebody speaks another protocol.
    Lost(String),
    /// Who answers is none of these servers.
    Foreign(String),
    /// No answer in time; the session cannot be used any more.
    Late(Duration),
}

/// Lock wait timeout exceeded.
pub(crate) const LOCK_WAIT: u16 = 1205;
/// Access denied; you need (at least one of) the … privilege(s).
pub(crate) const NEEDS_PRIVILEGE: u16 = 1227;
/// Unknown system variable.
pub(crate) const UNKNOWN_VARIABLE: u16 = 1193;
/// Deadlock found.
pub(crate) const DEADLOCK: u16 = 1213;

impl ClientError {
    /// The server's number of it, if the server refused.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            ClientError::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the session is of no use any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.code().is_none()
    }

    /// As an error of the library, refined by what the server says.
    pub(crate) fn during(self, kind: ErrorKind, operation: &'static str) -> Error {
        let (refined, hint) = self.meaning();
        let error = Error::new(refined.unwrap_or(kind), operation, &self);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn meaning(&self) -> (Option<ErrorKind>, Option<String>) {
        let ClientError::Server { code, message } = self else { return (None, None) };
        let hint = |text: &str| Some(text.to_owned());
        match *code {
            1045 | 1698 => (
                Some(ErrorKind::Denied),
                hint("set BACKUP_<NAME>_PASSWORD, MYSQL_PWD or password_file, or write it into ~/.my.cnf"),
            ),
            1044 | 1142 | 1143 | 1370 => (Some(ErrorKind::Denied), Some(grant(message))),
            NEEDS_PRIVILEGE => (Some(ErrorKind::Denied), Some(grant(message))),
            1049 => (Some(ErrorKind::NotFound), hint("`SHOW DATABASES` lists the databases of the server")),
            1130 => (
                Some(ErrorKind::Denied),
                hint("the server lets this user in from other hosts only: CREATE USER 'name'@'%'"),
            ),
            1040 | 1203 => {
                (None, hint("the server has no free connection: raise max_connections, or try later"))
            }
            LOCK_WAIT => (
                None,
                hint(
                    "another session holds the lock (a long query, DDL): try later, or raise lock_timeout_seconds",
                ),
            ),
            1419 => (
                None,
                hint("SET GLOBAL log_bin_trust_function_creators = 1, or restore as a user with SUPER"),
            ),
            1153 | 1301 => (None, hint("raise max_allowed_packet of the server")),
            1114 | 1021 | 3 => (None, hint("make room on the server's disk")),
            1836 | 1290 => (None, hint("the server is read-only: name its primary")),
            _ => (None, None),
        }
    }
}

/// The statement that an administrator can run, from what the server said is missing.
fn grant(message: &str) -> String {
    // "Access denied; you need (at least one of) the RELOAD privilege(s) for this operation"
    let global = message.split_once(") the ").and_then(|(_, rest)| rest.split_once(" privilege"));
    if let Some((privileges, _)) = global {
        let first = privileges.split(" or ").next().unwrap_or(privileges);
        return format!("GRANT {first} ON *.* TO the user (as an administrator)");
    }
    // "SELECT command denied to user 'u'@'h' for table `app`.`t`"
    if let Some((command, rest)) = message.split_once(" command denied to user ") {
        let user = rest.split(" for ").next().unwrap_or("the user");
        return format!("GRANT {command} ON the database TO {user} (as an administrator)");
    }
    // "Access denied for user 'u'@'%' to database 'x'"
    if let Some((user, database)) =
        message.strip_prefix("Access denied for user ").and_then(|r| r.split_once(" to database "))
    {
        // Those of a restore have a new name each time; in a GRANT `_` and `%` are wildcards.
        let database = match database.trim_matches('\'') {
            ours if ours.starts_with("_backup_") => "\\_backup\\_%".to_owned(),
            other => other.replace('_', "\\_").replace('%', "\\%").replace('`', "``"),
        };
        return format!("GRANT ALL ON `{database}`.* TO {user} (as an administrator)");
    }
    "an administrator must grant it".to_owned()
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Server { code, message } => write!(f, "{message} ({code})"),
            ClientError::Foreign(why) => f.write_str(why),
            ClientError::Lost(why) => write!(f, "the connection to the server is lost: {why}"),
            ClientError::Late(limit) => write!(f, "the server did not answer within {} s", limit.as_secs()),
        }
    }
}

impl From<Driver> for ClientError {
    fn from(e: Driver) -> Self {
        match e {
            Driver::Server(e) => ClientError::Server { code: e.code, message: e.message },
            Driver::Driver(DriverError::ConnectionClosed) => ClientError::Lost("it was closed".to_owned()),
            // With TLS, too: it has more to say then, which helps nobody.
            Driver::Io(IoError::Io(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                ClientError::Lost("the server closed it".to_owned())
            }
            other => ClientError::Lost(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_closed_is_told_so_whatever_lies_between() {
        let tls = std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            "peer closed connection without sending TLS close_notify",
        );
        let e = ClientError::from(Driver::Io(IoError::Io(tls)));
        assert_eq!(e.to_string(), "the connection to the server is lost: the server closed it");
    }

    #[test]
    fn a_missing_privilege_is_named_with_its_grant() {
        for (code, message, hint) in [
            (
                1227,
                "Access denied; you need (at least one of) the RELOAD or FLUSH_TABLES privilege(s) for this operation",
                "GRANT RELOAD ON *.*",
            ),
            (
                1142,
                "SELECT command denied to user 'u'@'%' for table `app`.`t`",
                "GRANT SELECT ON the database TO 'u'@'%'",
            ),
            (
                1044,
                "Access denied for user 'u'@'%' to database '_backup_1'",
                "GRANT ALL ON `\\_backup\\_%`.* TO 'u'@'%'",
            ),
            (1044, "Access denied for user 'u'@'%' to database 'app'", "GRANT ALL ON `app`.* TO 'u'@'%'"),
            (
                1044,
                "Access denied for user 'u'@'%' to database 'my_app%'",
                "GRANT ALL ON `my\\_app\\%`.* TO 'u'@'%'",
            ),
        ] {
            let e = ClientError::Server { code, message: message.into() }.during(ErrorKind::Source, "read");
            assert_eq!(e.kind(), ErrorKind::Denied);
            assert!(e.hint_text().unwrap().starts_with(hint), "{:?}", e.hint_text());
        }
    }
}
