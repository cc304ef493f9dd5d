//! Uploads in parts to S3: multipart uploads, which have ids and are listed.

use crate::{
    Error, Result,
    destination::remote::{
        calls::{Call, Calls, Complaint, PATH, QUERY},
        part::{self, Part},
        transport::{Outgoing, Water},
        uploads::{Key, Mark, PartSent, Uploads},
    },
};
use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_STANDARD};
use crc_fast::CrcAlgorithm;
use http::{HeaderName, Method, StatusCode, header};
use opendal::Buffer;
use percent_encoding::utf8_percent_encode;
use reqsign_aws_v4::Credential;
use serde::Deserialize;
use std::sync::Arc;

const CHECKSUM: HeaderName = HeaderName::from_static("x-amz-checksum-crc32c");

/// Calls about uploads in one bucket.
pub(super) struct Multipart {
    pub(super) calls: Calls<Credential>,
    /// The URL of the bucket, without a slash at its end.
    pub(super) url: String,
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

impl Multipart {
    fn call<'a>(&self, operation: &'static str, method: Method, key: &'a Key, query: &str) -> Call<'a> {
        let url = format!("{}/{}?{query}", self.url, utf8_percent_encode(&key.path, PATH));
        Call::new(operation, method, key, url)
    }
}

#[async_trait]
impl Uploads for Multipart {
    fn part_sizes(&self) -> fn(usize) -> u64 {
        part::size
    }

    fn checksum(&self) -> CrcAlgorithm {
        CrcAlgorithm::Crc32Iscsi
    }

    async fn begin(&self, key: &Key, mark: Mark<'_>) -> Result<String> {
        let mut call = self.call("begin the upload", Method::POST, key, "uploads=");
        let name = HeaderName::from_bytes(format!("x-amz-meta-{}", Mark::NAME).as_bytes());
        call.header(name.map_err(Error::contract)?, mark.0)?;
        call.header(HeaderName::from_static("x-amz-checksum-algorithm"), "CRC32C")?;
        let begun: Begun = call.parse(&self.calls.succeed(&call).await?)?;
        match begun.upload_id.is_empty() {
            true => Err(call.wrong("it names no upload")),
            false => Ok(begun.upload_id),
        }
    }

    async fn send(
        &self,
        key: &Key,
        id: &str,
        number: usize,
        part: Part,
        water: Arc<Water>,
    ) -> Result<PartSent> {
        let (checksum, body) = part.into_outgoing().await.map_err(|e| e.on(&key.shown))?;
        let checksum = BASE64_STANDARD.encode((checksum as u32).to_be_bytes());
        let query = format!("partNumber={number}&uploadId={}", utf8_percent_encode(id, QUERY));
        let mut call = self.call("write", Method::PUT, key, &query);
        call.header(CHECKSUM, &checksum)?;
        call.body(body, Some(water));
        let answer = self.calls.succeed(&call).await?;
        let Some(tag) = answer.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()) else {
            return Err(call.wrong("it gives no tag for a part"));
        };
        let tag = quick_xml::escape::escape(tag);
        let element = format!(
            "<Part><ChecksumCRC32C>{checksum}</ChecksumCRC32C><ETag>{tag}</ETag><PartNumber>{number}</PartNumber></Part>"
        );
        Ok(PartSent { number, element })
    }

    async fn complete(&self, key: &Key, id: &str, parts: &[PartSent], _mark: Mark<'_>) -> Result<()> {
        let parts: String = parts.iter().map(|part| part.element.as_str()).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let query = format!("uploadId={}", utf8_percent_encode(id, QUERY));
        let mut call = self.call("complete", Method::POST, key, &query);
        call.header(header::IF_NONE_MATCH, "*")?;
        call.header(header::CONTENT_TYPE, "application/xml")?;
        call.body(Outgoing::Memory(Buffer::from(body)), None);
        let answer = self.calls.succeed(&call).await?;
        match call.parse::<Complaint>(&answer)?.code.is_empty() {
            true => Ok(()),
            false => Err(call.refused(&answer)),
        }
    }

    async fn give_up(&self, key: &Key, id: &str) -> Result<()> {
        let query = format!("uploadId={}", utf8_percent_encode(id, QUERY));
        let call = self.call("give up the upload", Method::DELETE, key, &query);
        match self.calls.answer(&call).await? {
            answer if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND => Ok(()),
            answer => Err(call.refused(&answer)),
        }
    }

    async fn give_up_all(&self, key: &Key) -> Result<()> {
        let (mut key_marker, mut id_marker) = (String::new(), String::new());
        loop {
            let mut query = format!("uploads=&prefix={}", utf8_percent_encode(&key.path, QUERY));
            if !key_marker.is_empty() {
                query.push_str(&format!("&key-marker={}", utf8_percent_encode(&key_marker, QUERY)));
                query.push_str(&format!("&upload-id-marker={}", utf8_percent_encode(&id_marker, QUERY)));
            }
            let call = Call::new("list the uploads", Method::GET, key, format!("{}/?{query}", self.url));
            let listing: Listing = call.parse(&self.calls.succeed(&call).await?)?;
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
