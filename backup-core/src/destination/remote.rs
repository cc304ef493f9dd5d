//! A place on a server, through OpenDAL: what holds for every kind of server.

mod azure;
mod calls;
mod dav;
mod failure;
mod file;
mod object;
mod pace;
mod part;
mod place;
mod s3;
mod settings;
#[cfg(unix)]
mod sftp;
mod transport;
mod uploads;

pub use place::RemotePlace;
pub use settings::RemoteSettings;

use super::{Blob, Destination, Pulse, Stored, Upload, local::temporary_name};
use crate::{Error, ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use opendal::{ErrorKind as Remote, Operator, layers::RetryLayer};
use place::Scheme;
use std::{fmt, sync::Arc, time::Duration};

/// A folder of a server, or a prefix of a bucket. A clone is the same place.
#[derive(Clone)]
pub(crate) struct RemoteFolder {
    /// Repeats what can be repeated.
    operator: Operator,
    /// Repeats nothing.
    plain: Operator,
    /// Empty, or with a slash at its end.
    prefix: String,
    shown: Arc<str>,
    /// The server, if it keeps objects.
    server: Option<String>,
    /// What OpenDAL does not have for stores of objects.
    uploads: Option<Arc<dyn uploads::Uploads>>,
    /// What it does not have for WebDAV.
    dav: Option<dav::Dav>,
    patience: Duration,
    /// Where HTTP does not keep to it itself.
    pace: Option<pace::Pace>,
}

impl RemoteFolder {
    /// The place; nothing is read or written.
    pub(crate) fn new(place: &RemotePlace) -> Result<Self> {
        let policy = place.retry();
        let retry = RetryLayer::new()
            .with_max_times(policy.attempts.saturating_sub(1) as usize)
            .with_min_delay(policy.first_wait)
            .with_max_delay(policy.longest_wait)
            .with_jitter();
        let pace = place.settings.limit_rate.map(pace::Pace::new).transpose().map_err(|e| e.on(place))?;
        let (mut uploads, mut dav) = (None, None);
        let (plain, path) = match place.scheme {
            Scheme::S3 => {
                let (operator, calls) = s3::open(place, pace.clone())?;
                uploads = Some(calls);
                (operator, place.path.clone())
            }
            Scheme::Azure => {
                let (operator, calls) = azure::open(place, pace.clone())?;
                uploads = Some(calls);
                (operator, place.path.clone())
            }
            Scheme::WebdavPlain | Scheme::WebdavTls => {
                let (operator, calls) = dav::open(place, pace.clone())?;
                dav = Some(calls);
                (operator, place.path.clone())
            }
            #[cfg(unix)]
            Scheme::Sftp => sftp::open(place)?,
            #[cfg(not(unix))]
            Scheme::Sftp => {
                let message = "this version speaks SFTP on Unix only, where it runs the program ssh";
                return Err(Error::new(ErrorKind::Unsupported, "use the archive", message).on(place));
            }
        };
        let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
        let operator = plain.clone().layer(retry);
        Ok(RemoteFolder {
            operator,
            plain,
            prefix,
            shown: place.to_string().into(),
            server: place.server_of_environment().map(|(_, server)| server.to_owned()),
            uploads,
            dav,
            patience: place.patience(),
            pace,
        })
    }

    /// Whether objects have no folders around them and no names before their end.
    fn keeps_objects(&self) -> bool {
        self.uploads.is_some()
    }

    fn speaks_http(&self) -> bool {
        self.uploads.is_some() || self.dav.is_some()
    }

    /// For an upload to it.
    fn pulse(&self) -> Pulse {
        Pulse::new(2 * self.patience)
    }

    fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A name with its place, for people.
    fn shown(&self, name: &str) -> String {
        if name.is_empty() { self.shown.to_string() } else { format!("{}/{name}", self.shown) }
    }

    fn error(&self, operation: &'static str, name: &str, e: &opendal::Error) -> Error {
        failure::error(operation, self.shown(name), e)
    }

    async fn length_of(&self, name: &str) -> Result<Option<u64>> {
        match self.operator.stat(&self.path(name)).await {
            Ok(found) => Ok(Some(found.content_length())),
            Err(e) if e.kind() == Remote::NotFound => Ok(None),
            Err(e) => Err(self.error("look at", name, &e)),
        }
    }

    /// Writes something small; a reader sees the old or the new.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let path = self.path(name);
        if self.keeps_objects() || self.dav.is_some() {
            let put = self.operator.write(&path, bytes).await;
            return put.map(drop).map_err(|e| self.error("write", name, &e));
        }
        let temporary = self.path(&temporary_name(name));
        let mut replaced = false;
        let put = async {
            let length = bytes.len() as u64;
            self.operator.write(&temporary, bytes).await?;
            if self.operator.stat(&temporary).await?.content_length() != length {
                return Err(opendal::Error::new(Remote::Unexpected, "another length is there than was sent"));
            }
            match self.operator.rename(&temporary, &path).await {
                Err(e) if is_refusal(&e) => {
                    // A server without a rename that replaces. What is there goes first; from then on nothing but the new one is left.
                    self.operator.delete(&path).await?;
                    replaced = true;
                    self.operator.rename(&temporary, &path).await
                }
                // Whether it was done is not known: then it is there, and the other is not.
                Err(e) => match (self.operator.stat(&temporary).await, self.operator.stat(&path).await) {
                    (Err(gone), Ok(found))
                        if gone.kind() == Remote::NotFound && found.content_length() == length =>
                    {
                        Ok(())
                    }
                    _ => Err(e),
                },
                renamed => renamed,
            }
        };
        let put = put.await;
        if put.is_err() && !replaced {
            // Of no use to anybody; that it cannot be removed adds nothing to the error.
            let _ = self.operator.delete(&temporary).await;
        }
        put.map(drop).map_err(|e| self.error("write", name, &e))
    }

    /// Gives a file a name that nothing has, as far as the server can tell: WebDAV does not replace, of SFTP the caller has looked.
    async fn rename_to_free(&self, from: &str, to: &str) -> Result<bool> {
        let (from, path) = (self.path(from), self.path(to));
        match &self.dav {
            Some(dav) => dav.rename(&from, &path, &self.shown(to)).await,
            None => {
                let renamed = self.plain.rename(&from, &path).await;
                renamed.map(|()| true).map_err(|e| self.error("name", to, &e))
            }
        }
    }

    async fn remove_now(&self, name: &str) -> Result<()> {
        match self.operator.delete(&self.path(name)).await {
            Err(e) if e.kind() != Remote::NotFound => Err(self.error("remove", name, &e)),
            _ => Ok(()),
        }
    }

    async fn read_small_now(&self, name: &str, limit: u64) -> Result<Option<Bytes>> {
        Ok(self.read_tagged(name, limit).await?.map(|(bytes, _)| bytes))
    }

    /// The content and the tag that tells it from any other; of one moment where the server has tags.
    async fn read_tagged(&self, name: &str, limit: u64) -> Result<Option<(Bytes, Option<String>)>> {
        let path = self.path(name);
        for _ in 0..10 {
            let found = match self.operator.stat(&path).await {
                Ok(found) => found,
                Err(e) if e.kind() == Remote::NotFound => return Ok(None),
                Err(e) => return Err(self.error("read", name, &e)),
            };
            if found.content_length() > limit {
                let text = format!("it is longer than {limit} bytes");
                return Err(Error::damaged("read", text).on(self.shown(name)));
            }
            let tag = found.etag().map(str::to_owned);
            let reading = self.operator.read_with(&path);
            let reading = if let Some(tag) = &tag { reading.if_match(tag) } else { reading };
            match reading.await {
                Ok(bytes) => return Ok(Some((bytes.to_bytes(), tag))),
                Err(e) if e.kind() == Remote::NotFound => return Ok(None),
                // Written between the two calls: looked at again.
                Err(e) if e.kind() == Remote::ConditionNotMatch => {}
                Err(e) => return Err(self.error("read", name, &e)),
            }
        }
        Err(Error::new(ErrorKind::Destination, "read", "it changes all the time").on(self.shown(name)))
    }

    /// Compares and swaps by the conditions of the server. Whoever is told that the condition does not hold looks: it may be the
    /// own call, made twice because its first answer was lost.
    async fn swap(&self, name: &str, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<bool> {
        let path = self.path(name);
        let limit = expected.map_or(0, <[u8]>::len).max(new.map_or(0, <[u8]>::len)) as u64 + 4096;
        let found = match expected {
            // Told by the condition of the call itself.
            None => None,
            Some(_) => self.read_tagged(name, limit).await?,
        };
        if found.as_ref().map(|(bytes, _)| &bytes[..]) != expected {
            return Ok(false);
        }
        let tag = found.and_then(|(_, tag)| tag);
        if !self.keeps_objects() {
            return self.swap_file(name, expected.is_some(), tag.as_deref(), new, limit).await;
        }
        let done = match (new, &tag) {
            (Some(new), Some(tag)) => {
                self.operator.write_with(&path, new.to_vec()).if_match(tag).await.map(drop)
            }
            (Some(new), None) if expected.is_none() => {
                self.operator.write_with(&path, new.to_vec()).if_not_exists(true).await.map(drop)
            }
            (Some(new), None) => self.operator.write(&path, new.to_vec()).await.map(drop),
            (None, Some(tag)) => self.operator.delete_with(&path).if_match(tag).await,
            (None, None) => self.operator.delete(&path).await,
        };
        match (done, new) {
            (Ok(()), _) => Ok(true),
            (Err(e), Some(new)) if e.kind() == Remote::ConditionNotMatch => {
                Ok(self.read_small_now(name, limit).await?.is_some_and(|there| there == new))
            }
            (Err(e), None) if e.kind() == Remote::ConditionNotMatch || e.kind() == Remote::NotFound => {
                Ok(self.read_small_now(name, limit).await?.is_none())
            }
            (Err(e), _) => Err(self.error("write", name, &e)),
        }
    }
}

impl RemoteFolder {
    /// The second half of `swap` where the server knows few conditions or none: what was expected was found. A new file is never
    /// put over another; of two that replace at the same moment, the one that reads back the other's has lost.
    async fn swap_file(
        &self,
        name: &str,
        exists: bool,
        tag: Option<&str>,
        new: Option<&[u8]>,
        limit: u64,
    ) -> Result<bool> {
        let path = self.path(name);
        let Some(new) = new else {
            return self.remove_now(name).await.map(|()| true);
        };
        let put = match (&self.dav, exists) {
            // A weak tag fits no condition.
            (Some(dav), _) => match tag.filter(|tag| !tag.starts_with("W/")) {
                None if exists => self.put(name, Bytes::copy_from_slice(new)).await.map(|()| true),
                tag => dav.put_if(&path, Bytes::copy_from_slice(new), tag, &self.shown(name)).await,
            },
            (None, true) => self.put(name, Bytes::copy_from_slice(new)).await.map(|()| true),
            (None, false) => match self.plain.write_with(&path, new.to_vec()).if_not_exists(true).await {
                Ok(_) => Ok(true),
                // A server without finer words says "failure" for what exists.
                Err(e) => match self.length_of(name).await? {
                    Some(_) => Ok(false),
                    None => Err(self.error("write", name, &e)),
                },
            },
        };
        let there = self.read_small_now(name, limit).await;
        match (put, there) {
            // What is there tells, also after an answer that was lost.
            (_, Ok(Some(there))) if there == new => Ok(true),
            (Ok(_), Ok(_)) => Ok(false),
            (Err(e), _) | (Ok(_), Err(e)) => Err(e),
        }
    }

    /// A folder that is not there lists as an empty one on some servers.
    async fn must_be_there(&self) -> Result<()> {
        if self.keeps_objects() || self.prefix.is_empty() {
            return Ok(());
        }
        self.operator.stat(&self.prefix).await.map(drop).map_err(|e| self.error("list", "", &e))
    }

    /// Makes the folder if only its last part is missing.
    async fn make_folder(&self) -> Result<()> {
        match self.must_be_there().await {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => return other.map_err(|e| e.with_kind(ErrorKind::Destination)),
        }
        let fail = |e: opendal::Error| self.error("create the destination folder", "", &e);
        if let Some((above, _)) = self.prefix.trim_end_matches('/').rsplit_once('/') {
            self.operator
                .stat(&format!("{above}/"))
                .await
                .map_err(|e| fail(e).hint("create the folder above it first, or check the path"))?;
        }
        self.operator.create_dir(&self.prefix).await.map_err(fail)
    }
}

impl fmt::Display for RemoteFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

#[async_trait]
impl Destination for RemoteFolder {
    async fn prepare(&self) -> Result<()> {
        self.make_folder().await?;
        let probe = self.path(&format!(".backup-probe-{}", ulid::Ulid::generate()));
        let fail = |e| self.error("write to the destination", "", &e);
        self.operator.write(&probe, "probe").await.map_err(fail)?;
        self.operator.delete(&probe).await.map_err(fail)
    }

    async fn space(&self) -> Result<Option<(u64, u64)>> {
        Ok(None)
    }

    async fn create(&self, provisional: &str, names: &[String]) -> Result<Box<dyn Upload>> {
        Ok(match self.keeps_objects() {
            true => Box::new(object::begin(self, provisional, names).await?),
            false => Box::new(file::begin(self, provisional, names).await?),
        })
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn Blob>> {
        let found = self.operator.stat(&self.path(name)).await.map_err(|e| self.error("open", name, &e))?;
        Ok(Arc::new(RemoteBlob {
            folder: self.clone(),
            name: name.to_owned(),
            bytes: found.content_length(),
        }))
    }

    async fn list(&self) -> Result<Vec<Stored>> {
        self.must_be_there().await?;
        let fail = |e: opendal::Error| self.error("list", "", &e);
        let mut lister = self.operator.lister(&self.prefix).await.map_err(fail)?;
        let mut out = Vec::new();
        while let Some(entry) = lister.try_next().await.map_err(fail)? {
            let name = entry.path().strip_prefix(&self.prefix).unwrap_or(entry.path());
            if name.is_empty() || name.contains('/') {
                continue;
            }
            let found = entry.metadata();
            let modified = found.last_modified().map(Timestamp::from).unwrap_or_default();
            out.push(Stored { name: name.to_owned(), bytes: found.content_length(), modified });
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(if self.keeps_objects() { object::without_given_up(out) } else { out })
    }

    async fn write_small(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.put(name, Bytes::copy_from_slice(bytes)).await
    }

    async fn swap_small(&self, name: &str, expected: Option<&[u8]>, new: Option<&[u8]>) -> Result<bool> {
        self.swap(name, expected, new).await
    }

    async fn read_small(&self, name: &str, limit: u64) -> Result<Option<Bytes>> {
        self.read_small_now(name, limit).await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.remove_now(name).await
    }

    async fn discard(&self, provisional: &str) -> Result<()> {
        match self.keeps_objects() {
            true => object::discard(self, provisional).await,
            false => self.remove_now(provisional).await,
        }
    }

    fn identity(&self) -> String {
        match &self.server {
            Some(server) => format!("{server} {self}"),
            None => self.to_string(),
        }
    }
}

struct RemoteBlob {
    folder: RemoteFolder,
    name: String,
    bytes: u64,
}

#[async_trait]
impl Blob for RemoteBlob {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.bytes);
        let short = || {
            Error::damaged("read", "it ends before what should be there").on(self.folder.shown(&self.name))
        };
        let end = end.ok_or_else(short)?;
        if length == 0 {
            return Ok(Bytes::new());
        }
        if let (Some(pace), false) = (&self.folder.pace, self.folder.speaks_http()) {
            pace.wait(length).await;
        }
        let read = self.folder.operator.read_with(&self.folder.path(&self.name)).range(offset..end).await;
        let read = read.map_err(|e| self.folder.error("read", &self.name, &e))?.to_bytes();
        if read.len() == length { Ok(read) } else { Err(short()) }
    }
}

/// Whether a server has answered, and refused. Otherwise nobody knows what it has done.
fn is_refusal(e: &opendal::Error) -> bool {
    #[cfg(unix)]
    return sftp::is_refusal(e);
    // What else is renamed has calls of its own.
    #[cfg(not(unix))]
    return e.kind() == Remote::Unsupported;
}
