//! WebDAV: what OpenDAL does not have of it. It sends a file from memory as a whole and moves over what is there; here a file is
//! sent while it is made, and a name is never taken from another.

use super::{
    calls::PATH,
    failure,
    pace::Pace,
    place::{RemotePlace, Scheme},
    transport::Transport,
};
use crate::{Error, ErrorKind, Result, Secret};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use opendal::{HttpTransporter, Operator, services};
use percent_encoding::utf8_percent_encode;
use std::time::Duration;

/// A server may have to copy what it was sent before it answers.
pub(super) const ANSWER: Duration = Duration::from_secs(300);

/// Calls that OpenDAL does not have.
#[derive(Clone)]
pub(super) struct Dav {
    transport: Transport,
    endpoint: String,
    user: Option<(String, Secret)>,
}

pub(super) fn open(place: &RemotePlace, pace: Option<Pace>) -> Result<(Operator, Dav)> {
    let tls = place.scheme == Scheme::WebdavTls;
    let port = place.port.map(|port| format!(":{port}")).unwrap_or_default();
    let scheme = if tls { "https" } else { "http" };
    let endpoint = format!("{scheme}://{}{port}", place.host);
    let transport = Transport::new(tls, place.settings.ca_file.as_deref(), place.patience(), pace)?;
    let mut builder = services::Webdav::default().endpoint(&endpoint);
    let user = match (&place.user, &place.settings.password) {
        (Some(user), Some(password)) => {
            builder = builder.username(user).password(password.expose());
            Some((user.clone(), password.clone()))
        }
        // A user whose password is not known here: the server says what it thinks of that.
        (_, None) => None,
        (None, Some(_)) => {
            let message = "there is a password and no user: give the user in the URL";
            return Err(Error::new(ErrorKind::Usage, "use the archive", message).on(place));
        }
    };
    let operator = Operator::new(builder).map_err(|e| failure::error("use the archive", place, &e))?;
    let context =
        opendal::OperationContext::new().with_http_transport(HttpTransporter::new(transport.clone()));
    Ok((operator.with_context(context), Dav { transport, endpoint, user }))
}

impl Dav {
    fn url(&self, path: &str) -> String {
        format!("{}/{}", self.endpoint, utf8_percent_encode(path, PATH))
    }

    fn request(&self, method: Method, path: &str, headers: HeaderMap) -> reqwest::RequestBuilder {
        let request = self.transport.client().request(method, self.url(path)).headers(headers);
        match &self.user {
            Some((user, password)) => request.basic_auth(user, Some(password.expose())),
            None => request,
        }
    }

    /// Sends a file whose bytes are still being made.
    pub(super) async fn put_stream(&self, path: &str, body: reqwest::Body, shown: &str) -> Result<()> {
        let sent = self.request(Method::PUT, path, HeaderMap::new()).body(body).send().await;
        let status = sent.map_err(|e| failed("write", shown, e))?.status();
        if status.is_success() { Ok(()) } else { Err(refused("write", shown, status)) }
    }

    /// Writes something small if the condition holds, and says whether it did.
    pub(super) async fn put_if(
        &self,
        path: &str,
        bytes: Bytes,
        condition: Option<&str>,
        shown: &str,
    ) -> Result<bool> {
        let mut headers = HeaderMap::new();
        match condition.map(HeaderValue::from_str) {
            None => drop(headers.insert(http::header::IF_NONE_MATCH, HeaderValue::from_static("*"))),
            Some(Ok(tag)) => drop(headers.insert(http::header::IF_MATCH, tag)),
            Some(Err(e)) => return Err(Error::new(ErrorKind::Destination, "write", e).on(shown)),
        }
        let sending = self.request(Method::PUT, path, headers).body(bytes).send();
        match answer(sending, "write", shown).await? {
            StatusCode::PRECONDITION_FAILED => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(refused("write", shown, status)),
        }
    }

    /// Gives a file another name unless something has it, and says whether it did.
    pub(super) async fn rename(&self, from: &str, to: &str, shown: &str) -> Result<bool> {
        let mut headers = HeaderMap::new();
        headers.insert("Overwrite", HeaderValue::from_static("F"));
        let to = HeaderValue::from_str(&self.url(to));
        headers.insert("Destination", to.map_err(|e| Error::new(ErrorKind::Usage, "name", e).on(shown))?);
        let move_it = Method::from_bytes(b"MOVE").map_err(Error::contract)?;
        let sending = self.request(move_it, from, headers).send();
        match answer(sending, "name", shown).await? {
            StatusCode::PRECONDITION_FAILED => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(refused("name", shown, status)),
        }
    }
}

async fn answer(
    sending: impl Future<Output = reqwest::Result<reqwest::Response>>,
    operation: &'static str,
    shown: &str,
) -> Result<StatusCode> {
    match tokio::time::timeout(ANSWER, sending).await {
        Ok(sent) => Ok(sent.map_err(|e| failed(operation, shown, e))?.status()),
        Err(_) => Err(Error::new(ErrorKind::Destination, operation, "the server does not answer").on(shown)),
    }
}

fn failed(operation: &'static str, shown: &str, e: reqwest::Error) -> Error {
    let e =
        opendal::Error::new(opendal::ErrorKind::Unexpected, "send the request").set_source(e.without_url());
    failure::error(operation, shown, &e)
}

fn refused(operation: &'static str, shown: &str, status: StatusCode) -> Error {
    let error = Error::new(ErrorKind::Destination, operation, format!("the server says: {status}")).on(shown);
    match status {
        StatusCode::INSUFFICIENT_STORAGE => {
            error.hint("free some space there, or choose another destination")
        }
        StatusCode::UNAUTHORIZED => {
            error.hint("give the user in the URL and the password as BACKUP_<NAME>_PASSWORD")
        }
        _ => error,
    }
}
