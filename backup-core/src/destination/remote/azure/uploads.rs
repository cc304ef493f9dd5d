//! Uploads in parts to Azure: blocks, which lie unseen under the name of their blob until a list of them is committed. There is no
//! list of such uploads: what a killed one has left is found by its name alone, and is dropped by committing an empty list under
//! it, and removing the blob that this makes.

use crate::{
    Error, ErrorKind, Result,
    destination::remote::{
        calls::{Answer, Call, Calls, PATH, QUERY},
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
use reqsign_azure_storage::Credential;
use serde::{Deserialize, de::IgnoredAny};
use std::{sync::Arc, time::Duration};

/// The version of the protocol: the one that OpenDAL speaks.
const VERSION: (HeaderName, &str) = (HeaderName::from_static("x-ms-version"), "2022-11-02");
const CHECKSUM: HeaderName = HeaderName::from_static("x-ms-content-crc64");
/// Metadata of an empty blob under which blocks were dropped.
const GIVEN_UP: HeaderName = HeaderName::from_static("x-ms-meta-backupgivenup");
/// A block that had reached the server when its sender was killed may be made after the first look. What comes later still,
/// the service drops after a week.
const LOOKS_AGAIN: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(600)];

/// Calls about uploads in one container.
pub(super) struct Blocks {
    pub(super) calls: Calls<Credential>,
    /// The URL of the container, without a slash at its end.
    pub(super) url: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct BlockList {
    uncommitted_blocks: ListOfBlocks,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListOfBlocks {
    block: Vec<IgnoredAny>,
}

/// All blocks of a blob have names of one length; the upload in it keeps them apart from what another one has left.
fn block_id(upload: &str, number: usize) -> String {
    BASE64_STANDARD.encode(format!("{upload}-{number:06}"))
}

impl Blocks {
    fn call<'a>(
        &self,
        operation: &'static str,
        method: Method,
        key: &'a Key,
        query: &str,
    ) -> Result<Call<'a>> {
        let url = format!("{}/{}{query}", self.url, utf8_percent_encode(&key.path, PATH));
        let mut call = Call::new(operation, method, key, url);
        call.header(VERSION.0, VERSION.1)?;
        Ok(call)
    }

    /// Commits a list of blocks unless there is a blob.
    async fn commit(
        &self,
        operation: &'static str,
        key: &Key,
        list: &str,
        mark: (HeaderName, &str),
    ) -> Result<Answer> {
        let mut call = self.call(operation, Method::PUT, key, "?comp=blocklist")?;
        call.header(header::IF_NONE_MATCH, "*")?;
        call.header(header::CONTENT_TYPE, "application/xml")?;
        call.header(mark.0, mark.1)?;
        let body = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{list}</BlockList>");
        with_body(&mut call, Outgoing::Memory(Buffer::from(body)), None)?;
        self.calls.succeed(&call).await
    }

    /// Whether blocks lie there that belong to no blob yet.
    async fn has_blocks(&self, key: &Key) -> Result<bool> {
        let query = "?comp=blocklist&blocklisttype=uncommitted";
        let call = self.call("look for parts of an upload", Method::GET, key, query)?;
        match self.calls.answer(&call).await? {
            answer if answer.status == StatusCode::NOT_FOUND => Ok(false),
            answer if answer.status.is_success() => {
                Ok(!call.parse::<BlockList>(&answer)?.uncommitted_blocks.block.is_empty())
            }
            answer => Err(call.refused(&answer)),
        }
    }

    /// The tag of the empty blob that a clearing has made, if there is one.
    async fn given_up(&self, key: &Key) -> Result<Option<String>> {
        let call = self.call("look at what is left of an upload", Method::HEAD, key, "")?;
        match self.calls.answer(&call).await? {
            answer if answer.status == StatusCode::NOT_FOUND => Ok(None),
            answer if answer.status.is_success() => {
                Ok(tag(&answer).filter(|_| answer.headers.contains_key(GIVEN_UP)))
            }
            answer => Err(call.refused(&answer)),
        }
    }

    /// Removes a blob if it is still the one with this tag.
    async fn remove(&self, key: &Key, tag: &str) -> Result<()> {
        let mut call = self.call("give up the upload", Method::DELETE, key, "")?;
        call.header(header::IF_MATCH, tag)?;
        let answer = self.calls.answer(&call).await?;
        let gone = [StatusCode::NOT_FOUND, StatusCode::PRECONDITION_FAILED].contains(&answer.status);
        if answer.status.is_success() || gone { Ok(()) } else { Err(call.refused(&answer)) }
    }

    /// Drops all blocks of this name that belong to no blob.
    async fn drop_blocks(&self, key: &Key) -> Result<()> {
        let made = match self.has_blocks(key).await? {
            false => None,
            true => match self.commit("give up the upload", key, "", (GIVEN_UP, "1")).await {
                Ok(answer) => tag(&answer),
                // A blob has the name: a whole one, to which late blocks do no harm, or the empty one of a clearing.
                Err(e) if e.kind() == ErrorKind::Refused => None,
                Err(e) => return Err(e),
            },
        };
        let empty = match made {
            Some(tag) => Some(tag),
            None => self.given_up(key).await?,
        };
        match empty {
            Some(tag) => self.remove(key, &tag).await,
            None => Ok(()),
        }
    }
}

fn tag(answer: &Answer) -> Option<String> {
    answer.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned)
}

/// A request is signed with the length of its body.
fn with_body(call: &mut Call<'_>, body: Outgoing, water: Option<Arc<Water>>) -> Result<()> {
    call.header(header::CONTENT_LENGTH, &body.length().to_string())?;
    call.body(body, water);
    Ok(())
}

#[async_trait]
impl Uploads for Blocks {
    fn part_sizes(&self) -> fn(usize) -> u64 {
        part::size_of_block
    }

    fn checksum(&self) -> CrcAlgorithm {
        CrcAlgorithm::Crc64Nvme
    }

    /// The server knows of it by its first block only.
    async fn begin(&self, _key: &Key, _mark: Mark<'_>) -> Result<String> {
        Ok(ulid::Ulid::generate().to_string())
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
        let block = block_id(id, number);
        let query = format!("?comp=block&blockid={}", utf8_percent_encode(&block, QUERY));
        let mut call = self.call("write", Method::PUT, key, &query)?;
        call.header(CHECKSUM, &BASE64_STANDARD.encode(checksum.to_le_bytes()))?;
        with_body(&mut call, body, Some(water))?;
        self.calls.succeed(&call).await?;
        Ok(PartSent { number, element: format!("<Uncommitted>{block}</Uncommitted>") })
    }

    async fn complete(&self, key: &Key, _id: &str, parts: &[PartSent], mark: Mark<'_>) -> Result<()> {
        let list: String = parts.iter().map(|part| part.element.as_str()).collect();
        let name = HeaderName::from_bytes(format!("x-ms-meta-{}", Mark::NAME).as_bytes());
        let name = name.map_err(Error::contract)?;
        self.commit("complete", key, &list, (name, mark.0)).await.map(drop)
    }

    /// The blocks of a name cannot be given up one upload at a time.
    async fn give_up(&self, key: &Key, _id: &str) -> Result<()> {
        self.give_up_all(key).await
    }

    async fn give_up_all(&self, key: &Key) -> Result<()> {
        self.drop_blocks(key).await?;
        for pause in LOOKS_AGAIN {
            tokio::time::sleep(pause).await;
            self.drop_blocks(key).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_blocks_is_read_with_the_mark_of_its_encoding() {
        let read = |text: &str| -> usize {
            let list: BlockList = quick_xml::de::from_reader(text.as_bytes()).unwrap();
            list.uncommitted_blocks.block.len()
        };
        let head = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>";
        let two =
            "<Block><Name>YQ==</Name><Size>1</Size></Block><Block><Name>Yg==</Name><Size>2</Size></Block>";
        let list = format!("{head}<BlockList><UncommittedBlocks>{two}</UncommittedBlocks></BlockList>");
        assert_eq!(read(&list), 2);
        assert_eq!(read(&format!("{head}<BlockList><UncommittedBlocks /></BlockList>")), 0);
        assert_eq!(
            read(&format!("{head}<BlockList><CommittedBlocks>{two}</CommittedBlocks></BlockList>")),
            0
        );
        assert_eq!(read("<BlockList/>"), 0);
    }

    #[test]
    fn all_blocks_of_a_blob_have_names_of_one_length_that_fit() {
        let upload = ulid::Ulid::generate().to_string();
        let lengths =
            [1, 50_000].map(|number| BASE64_STANDARD.decode(block_id(&upload, number)).unwrap().len());
        assert!(lengths[0] == lengths[1] && lengths[0] <= 64, "{lengths:?}");
    }
}
