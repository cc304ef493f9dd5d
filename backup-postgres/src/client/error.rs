//! What a server says when it refuses, and what a connection says when it breaks.

use backup_core::{Error, ErrorKind};
use postgres_protocol::message::backend::ErrorFields;
use std::{fmt, io};

/// An error of a session.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// The server refused a statement; the session goes on.
    Server(Box<Refusal>),
    /// The connection is lost or was never made.
    Io(io::Error),
    /// Somebody speaks another protocol.
    Protocol(String),
    /// A content that was to be loaded has failed: the server is sound, and has nothing of it.
    Content(Error),
}

/// An error as the server words it.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    /// SQLSTATE.
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) detail: String,
    pub(crate) hint: String,
}

impl ClientError {
    pub(crate) fn refusal(mut fields: ErrorFields<'_>) -> Self {
        use postgres_protocol::message::backend::ErrorField;
        let mut refusal = Refusal::default();
        let text = |field: &ErrorField<'_>| String::from_utf8_lossy(field.value_bytes()).into_owned();
        while let Ok(Some(field)) = fallible_next(&mut fields) {
            match field.type_() {
                b'C' => refusal.code = text(&field),
                b'M' => refusal.message = text(&field),
                b'D' => refusal.detail = text(&field),
                b'H' => refusal.hint = text(&field),
                _ => {}
            }
        }
        ClientError::Server(Box::new(refusal))
    }

    /// SQLSTATE, if the server refused.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            ClientError::Server(refusal) => Some(&refusal.code),
            _ => None,
        }
    }

    /// As an error of the library, refined by what the server says.
    pub(crate) fn during(self, kind: ErrorKind, operation: &'static str) -> Error {
        let refusal = match self {
            ClientError::Content(e) => return e,
            ClientError::Io(e) => {
                return Error::new(kind, operation, format!("the connection to the server is lost: {e}"))
                    .caused_by(e);
            }
            ClientError::Protocol(what) => return Error::new(kind, operation, what),
            ClientError::Server(refusal) => refusal,
        };
        let (refined, hint) = refusal.meaning();
        let mut message = format!("{} ({})", refusal.message, refusal.code);
        if !refusal.detail.is_empty() {
            message = format!("{message}: {}", refusal.detail);
        }
        let error = Error::new(refined.unwrap_or(kind), operation, message);
        match hint {
            Some(hint) => error.hint(hint),
            None if refusal.hint.is_empty() => error,
            None => error.hint(refusal.hint),
        }
    }
}

/// What can be done about a role that is not there.
pub(crate) const NO_ROLE: &str = "make the role first (CREATE ROLE …), or let the restore make those of the backup, if it has them (--globals), or leave owners and privileges out (--no-owner, in a configuration no_owner = true)";

impl Refusal {
    fn meaning(&self) -> (Option<ErrorKind>, Option<&'static str>) {
        match &*self.code {
            "28P01" => (
                Some(ErrorKind::Denied),
                Some("set BACKUP_<NAME>_PASSWORD, PGPASSWORD or password_file, or add a line to ~/.pgpass"),
            ),
            "28000" => {
                (Some(ErrorKind::Denied), Some("the server's pg_hba.conf must let this user in from here"))
            }
            "3D000" => (Some(ErrorKind::NotFound), Some("`psql -l` lists the databases of the server")),
            "42704" if self.message.starts_with("role ") => (None, Some(NO_ROLE)),
            "42501" => (Some(ErrorKind::Denied), None),
            "53300" => (None, Some("the server has no free connection: raise max_connections, or try later")),
            "55P03" => (
                None,
                Some(
                    "another session holds or waits for a stronger lock (DDL): try later, or raise lock_timeout",
                ),
            ),
            _ => (None, None),
        }
    }
}

fn fallible_next<'a>(
    fields: &mut ErrorFields<'a>,
) -> io::Result<Option<postgres_protocol::message::backend::ErrorField<'a>>> {
    use fallible_iterator::FallibleIterator;
    fields.next()
}

impl From<io::Error> for ClientError {
    fn from(e: io::Error) -> Self {
        // With TLS, too: it has more to say then, which helps nobody.
        match e.kind() {
            io::ErrorKind::UnexpectedEof => ClientError::Io(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the server closed the connection",
            )),
            _ => ClientError::Io(e),
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Server(refusal) => write!(f, "{} ({})", refusal.message, refusal.code),
            ClientError::Io(e) => e.fmt(f),
            ClientError::Protocol(what) => f.write_str(what),
            ClientError::Content(e) => e.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_closed_is_told_so_whatever_lies_between() {
        let tls = "peer closed connection without sending TLS close_notify: https://docs.rs/rustls/";
        let e = ClientError::from(io::Error::new(io::ErrorKind::UnexpectedEof, tls));
        let e = e.during(ErrorKind::Source, "read the rows");
        assert!(e.message().ends_with("is lost: the server closed the connection"), "{e}");
    }

    #[test]
    fn a_role_that_is_missing_has_ways_out() {
        let refusal = |message: &str| {
            let (code, message) = ("42704".to_owned(), message.to_owned());
            ClientError::Server(Box::new(Refusal { code, message, ..Refusal::default() }))
                .during(ErrorKind::Target, "restore")
        };
        assert!(
            refusal("role \"boss\" does not exist").hint_text().unwrap_or_default().contains("--globals")
        );
        assert!(refusal("type \"mood\" does not exist").hint_text().is_none());
    }
}
