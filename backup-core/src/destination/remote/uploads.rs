//! Uploads in parts: the calls of S3 that are made without OpenDAL, which holds five parts for each upload, cannot send one from a
//! file, and knows nothing of uploads that others began.

use super::{
    failure,
    part::Part,
    s3::{PATH, QUERY},
    transport::{Outgoing, Transport, Water},
};
use crate::{Error, ErrorKind, Result, RetryPolicy};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use opendal::Buffer;
use percent_encoding::utf8_percent_encode;
use reqsign_aws_v4::Credential;
use reqsign_core::Signer;
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

const CHECKSUM: HeaderName = HeaderName::from_static("x-amz-checksum-crc32c");

/// Calls about uploads in one bucket.
#[derive(Clone)]
pub(super) struct Uploads(Arc<Bucket>);

struct Bucket {
    transport: Transport,
    signer: Signer<Credential>,
    /// The URL of the bucket, without a slash at its end.
    url: String,
    retry: RetryPolicy,
    patience: Duration,
}

/// An object: its key, and what people call it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) path: String,
    pub(super) shown: String,
}

/// A part that the server has.
#[derive(Clone, Debug)]
pub(super) struct PartSent {
    pub(super) number: usize,
    tag: String,
    /// CRC-32C in base64.
    checksum: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listing {
    #[serde(rename = "Upload")]
    uploads: Vec<Begun>,
    is_truncated: bool,
    next_key_marker: String,
    next_upload_id_marker: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Begun {
    key: String,
    upload_id: String,
}

/// What a server says of a failure; of a completion it may say it with the status of success.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Complaint {
    code: String,
    message: String,
}

/// A request that can be repeated.
struct Call<'a> {
    operation: &'static str,
    method: Method,
    key: &'a Key,
    url: String,
    headers: HeaderMap,
    body: Outgoing,
    water: Option<Arc<Water>>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Uploads {
    pub(super) fn new(
        transport: Transport,
        signer: Signer<Credential>,
        url: String,
        retry: RetryPolicy,
        patience: Duration,
    ) -> Self {
        Uploads(Arc::new(Bucket { transport, signer, url, retry, patience }))
    }

    /// Begins one; `mark` is metadata of the object that it will be. Says its id.
    pub(super) async fn begin(&self, key: &Key, mark: (&'static str, &str)) -> Result<String> {
        let mut call = self.call("begin the upload", Method::POST, key, "uploads=");
        let name = HeaderName::from_bytes(format!("x-amz-meta-{}", mark.0).as_bytes());
        call.header(name.map_err(Error::contract)?, mark.1)?;
        call.header(HeaderName::from_static("x-amz-checksum-algorithm"), "CRC32C")?;
        let begun: Begun = parse(&call, &self.succeed(&call).await?.body)?;
        match begun.upload_id.is_empty() {
            true => Err(wrong(&call, "it names no upload")),
            false => Ok(begun.upload_id),
        }
    }

    /// Sends a part; the first has number 1. The server compares its checksum.
    pub(super) async fn send(
        &self,
        key: &Key,
        id: &str,
        number: usize,
        part: Part,
        water: Arc<Water>,
    ) -> Result<PartSent> {
        let (checksum, body) = part.into_outgoing().await.map_err(|e| e.on(&key.shown))?;
        let checksum = BASE64_STANDARD.encode(checksum.to_be_bytes());
        let query = format!("partNumber={number}&uploadId={}", utf8_percent_encode(id, QUERY));
        let mut call = self.call("write", Method::PUT, key, &query);
        call.header(CHECKSUM, &checksum)?;
        (call.body, call.water) = (body, Some(water));
        let answer = self.succeed(&call).await?;
        match answer.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()) {
            Some(tag) => Ok(PartSent { number, tag: tag.to_owned(), checksum }),
            None => Err(wrong(&call, "it gives no tag for a part")),
        }
    }

    /// Makes the object of its parts unless there is one of this key: that is an error of kind `Refused`.
    pub(super) async fn complete(&self, key: &Key, id: &str, parts: &[PartSent]) -> Result<()> {
        let mut body = String::from("<CompleteMultipartUpload>");
        for PartSent { number, tag, checksum } in parts {
            let tag = quick_xml::escape::escape(tag.as_str());
            body.push_str(&format!(
                "<Part><ChecksumCRC32C>{checksum}</ChecksumCRC32C><ETag>{tag}</ETag><PartNumber>{number}</PartNumber></Part>"
            ));
        }
        body.push_str("</CompleteMultipartUpload>");
        let query = format!("uploadId={}", utf8_percent_encode(id, QUERY));
        let mut call = self.call("complete", Method::POST, key, &query);
        call.header(header::IF_NONE_MATCH, "*")?;
        call.header(header::CONTENT_TYPE, "application/xml")?;
        call.body = Outgoing::Memory(Buffer::from(body));
        let answer = self.succeed(&call).await?;
        match parse::<Complaint>(&call, &answer.body)?.code.is_empty() {
            true => Ok(()),
            false => Err(refused(&call, &answer)),
        }
    }

    /// Gives up every upload of exactly this key. One that is gone meanwhile is no error.
    pub(super) async fn give_up_all(&self, key: &Key) -> Result<()> {
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        loop {
            let mut query = format!("uploads=&prefix={}", utf8_percent_encode(&key.path, QUERY));
            if !key_marker.is_empty() {
                query.push_str(&format!("&key-marker={}", utf8_percent_encode(&key_marker, QUERY)));
                query.push_str(&format!("&upload-id-marker={}", utf8_percent_encode(&id_marker, QUERY)));
            }
            let mut call = self.call("list the uploads", Method::GET, key, "");
            call.url = format!("{}/?{query}", self.0.url);
            let listing: Listing = parse(&call, &self.succeed(&call).await?.body)?;
            // Of two pages in a row, the second begins after what is given up here.
            for upload in listing.uploads.iter().filter(|u| u.key == key.path) {
                self.give_up(key, &upload.upload_id).await?;
            }
            if !listing.is_truncated || listing.next_key_marker.is_empty() {
                return Ok(());
            }
            (key_marker, id_marker) = (listing.next_key_marker, listing.next_upload_id_marker);
        }
    }

    /// Gives up one.
    pub(super) async fn give_up(&self, key: &Key, id: &str) -> Result<()> {
        let query = format!("uploadId={}", utf8_percent_encode(id, QUERY));
        let call = self.call("give up the upload", Method::DELETE, key, &query);
        match self.answer(&call).await? {
            answer if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND => Ok(()),
            answer => Err(refused(&call, &answer)),
        }
    }

    fn call<'a>(&self, operation: &'static str, method: Method, key: &'a Key, query: &str) -> Call<'a> {
        let url = format!("{}/{}?{query}", self.0.url, utf8_percent_encode(&key.path, PATH));
        let (headers, body) = (HeaderMap::new(), Outgoing::Memory(Buffer::new()));
        Call { operation, method, key, url, headers, body, water: None }
    }

    async fn succeed(&self, call: &Call<'_>) -> Result<Answer> {
        match self.answer(call).await? {
            answer if answer.status.is_success() => Ok(answer),
            answer => Err(refused(call, &answer)),
        }
    }

    /// Asked again where that may help.
    async fn answer(&self, call: &Call<'_>) -> Result<Answer> {
        let never = CancellationToken::new();
        let once = || async {
            let answer = self.once(call).await?;
            let busy = answer.status.is_server_error()
                || answer.status == StatusCode::TOO_MANY_REQUESTS
                || answer.status == StatusCode::REQUEST_TIMEOUT;
            let refused = refused(call, &answer);
            match busy || (answer.status.is_client_error() && refused.may_retry()) {
                true => Err(refused.retry(true)),
                false => Ok(answer),
            }
        };
        self.0.retry.run(&never, once).await
    }

    async fn once(&self, call: &Call<'_>) -> Result<Answer> {
        let fail = |e: &opendal::Error| failure::error(call.operation, &call.key.shown, e);
        let request = Request::builder().method(call.method.clone()).uri(&call.url).body(());
        let (mut parts, ()) = request
            .map_err(|e| Error::new(ErrorKind::Usage, call.operation, e).on(&call.key.shown))?
            .into_parts();
        parts.headers = call.headers.clone();
        let signing = tokio::time::timeout(self.0.patience, self.0.signer.sign(&mut parts, None)).await;
        let unsigned = |e: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Destination, call.operation, e).on(&call.key.shown)
        };
        signing.map_err(|_| unsigned(&"no credentials came in time"))?.map_err(|e| unsigned(&e))?;
        parts.headers.remove(header::HOST);
        let answered = self.0.transport.exchange(parts, call.body.clone(), call.water.clone()).await;
        let (head, mut body) = answered.map_err(|e| fail(&e))?.into_parts();
        let body = body.to_buffer().await.map_err(|e| fail(&e))?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl Call<'_> {
    fn header(&mut self, name: HeaderName, value: &str) -> Result<()> {
        let value = HeaderValue::from_str(value).map_err(Error::contract)?;
        self.headers.insert(name, value);
        Ok(())
    }
}

fn parse<T: for<'de> Deserialize<'de>>(call: &Call<'_>, body: &[u8]) -> Result<T> {
    quick_xml::de::from_reader(body).map_err(|e| wrong(call, &e.to_string()))
}

fn wrong(call: &Call<'_>, what: &str) -> Error {
    let text = format!("the answer is wrong: {what}");
    Error::new(ErrorKind::Destination, call.operation, text).on(&call.key.shown)
}

fn refused(call: &Call<'_>, answer: &Answer) -> Error {
    let said: Complaint = quick_xml::de::from_reader(&answer.body[..]).unwrap_or_default();
    let error = failure::said(call.operation, &call.key.shown, answer.status, &said.code, &said.message);
    match said.code.as_str() {
        // Another upload of this key was completed, or is being completed just now.
        "PreconditionFailed" | "ConditionalRequestConflict" => error.with_kind(ErrorKind::Refused),
        "InternalError" | "SlowDown" | "BadDigest" | "XAmzContentChecksumMismatch" => error.retry(true),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_uploads_is_read() {
        let page = "<ListMultipartUploadsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker>\
                    <NextUploadIdMarker>i</NextUploadIdMarker><Upload><Key>a</Key><UploadId>1</UploadId></Upload>\
                    <Upload><Key>a</Key><UploadId>2</UploadId><Initiator><ID>x</ID></Initiator></Upload>\
                    </ListMultipartUploadsResult>";
        let listing: Listing = quick_xml::de::from_reader(page.as_bytes()).unwrap();
        assert!(
            listing.is_truncated && listing.next_key_marker == "k" && listing.next_upload_id_marker == "i"
        );
        assert_eq!(listing.uploads.iter().map(|u| &*u.upload_id).collect::<Vec<_>>(), ["1", "2"]);
    }
}
