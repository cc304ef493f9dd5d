//! Calls of object stores that OpenDAL does not have: signed, asked again where that may help, their failures told.

use super::{
    failure,
    transport::{Outgoing, Transport, Water},
    uploads::Key,
};
use crate::{Error, ErrorKind, Result, RetryPolicy};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use opendal::Buffer;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use reqsign_core::{Signer, SigningCredential};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// What stays as it is in a query.
pub(super) const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same in a path.
pub(super) const PATH: &AsciiSet = &QUERY.remove(b'/');

/// Makes calls with one credential.
pub(super) struct Calls<C: SigningCredential> {
    pub(super) transport: Transport,
    pub(super) signer: Signer<C>,
    pub(super) retry: RetryPolicy,
    /// Credentials that do not come within this time are given up.
    pub(super) patience: Duration,
}

/// A request about one object. It can be repeated.
pub(super) struct Call<'a> {
    operation: &'static str,
    method: Method,
    key: &'a Key,
    url: String,
    headers: HeaderMap,
    body: Outgoing,
    water: Option<Arc<Water>>,
}

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What a server says of a failure; S3 may say it of a completion with the status of success.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Complaint {
    pub(super) code: String,
    message: String,
}

impl<'a> Call<'a> {
    pub(super) fn new(operation: &'static str, method: Method, key: &'a Key, url: String) -> Self {
        let (headers, body) = (HeaderMap::new(), Outgoing::Memory(Buffer::new()));
        Call { operation, method, key, url, headers, body, water: None }
    }

    pub(super) fn header(&mut self, name: HeaderName, value: &str) -> Result<()> {
        let value = HeaderValue::from_str(value).map_err(Error::contract)?;
        self.headers.insert(name, value);
        Ok(())
    }

    /// Sends this with it; `water` is told how far it comes.
    pub(super) fn body(&mut self, body: Outgoing, water: Option<Arc<Water>>) {
        (self.body, self.water) = (body, water);
    }

    pub(super) fn parse<T: for<'de> Deserialize<'de>>(&self, answer: &Answer) -> Result<T> {
        quick_xml::de::from_reader(&answer.body[..]).map_err(|e| self.wrong(&e.to_string()))
    }

    /// The answer cannot be right.
    pub(super) fn wrong(&self, what: &str) -> Error {
        let text = format!("the answer is wrong: {what}");
        Error::new(ErrorKind::Destination, self.operation, text).on(&self.key.shown)
    }

    /// What a server that refuses has said. That the key is taken is of kind `Refused`.
    pub(super) fn refused(&self, answer: &Answer) -> Error {
        let said: Complaint = quick_xml::de::from_reader(&answer.body[..]).unwrap_or_default();
        let error = failure::said(self.operation, &self.key.shown, answer.status, &said.code, &said.message);
        match said.code.as_str() {
            // Another upload of this key was completed, or is being completed just now.
            "PreconditionFailed" | "ConditionalRequestConflict" | "BlobAlreadyExists" | "ConditionNotMet" => {
                error.with_kind(ErrorKind::Refused)
            }
            "InternalError" | "SlowDown" | "BadDigest" | "XAmzContentChecksumMismatch" | "Crc64Mismatch" => {
                error.retry(true)
            }
            _ => error,
        }
    }
}

impl<C: SigningCredential> Calls<C> {
    /// The answer of success, or an error.
    pub(super) async fn succeed(&self, call: &Call<'_>) -> Result<Answer> {
        match self.answer(call).await? {
            answer if answer.status.is_success() => Ok(answer),
            answer => Err(call.refused(&answer)),
        }
    }

    /// An answer, asked for again where that may help.
    pub(super) async fn answer(&self, call: &Call<'_>) -> Result<Answer> {
        let never = CancellationToken::new();
        let once = || async {
            let answer = self.once(call).await?;
            let busy = answer.status.is_server_error()
                || answer.status == StatusCode::TOO_MANY_REQUESTS
                || answer.status == StatusCode::REQUEST_TIMEOUT;
            let refused = call.refused(&answer);
            match busy || (answer.status.is_client_error() && refused.may_retry()) {
                true => Err(refused.retry(true)),
                false => Ok(answer),
            }
        };
        self.retry.run(&never, once).await
    }

    async fn once(&self, call: &Call<'_>) -> Result<Answer> {
        let fail = |e: &opendal::Error| failure::error(call.operation, &call.key.shown, e);
        let request = Request::builder().method(call.method.clone()).uri(&call.url).body(());
        let (mut parts, ()) = request
            .map_err(|e| Error::new(ErrorKind::Usage, call.operation, e).on(&call.key.shown))?
            .into_parts();
        parts.headers = call.headers.clone();
        let signing = tokio::time::timeout(self.patience, self.signer.sign(&mut parts, None)).await;
        let unsigned = |e: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Destination, call.operation, e).on(&call.key.shown)
        };
        signing.map_err(|_| unsigned(&"no credentials came in time"))?.map_err(|e| unsigned(&e))?;
        parts.headers.remove(header::HOST);
        let answered = self.transport.exchange(parts, call.body.clone(), call.water.clone()).await;
        let (head, mut body) = answered.map_err(|e| fail(&e))?.into_parts();
        let body = body.to_buffer().await.map_err(|e| fail(&e))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}
