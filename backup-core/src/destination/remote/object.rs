//! An object that is being uploaded in parts. Its key is fixed from the beginning and nothing can be seen of it before its end:
//! a small marker object under the provisional name shows it, and leads to what a killed run has left.

use super::{
    RemoteFolder,
    part::Part,
    transport::Water,
    uploads::{Key, Mark, PartSent, Uploads},
};
use crate::{
    Error, ErrorKind, Result,
    destination::{Pulse, Stored, Upload},
};
use async_trait::async_trait;
use bytes::Bytes;
use opendal::{Buffer, ErrorKind as Remote};
use serde::{Deserialize, Serialize};
use std::{collections::HashSet, sync::Arc};
use tokio::task::JoinSet;

/// Parts that are sent at the same time.
const AT_ONCE: usize = 3;
/// An object of no more than this is sent in one call, that is, without being cancelled; others can be until they are complete.
const ONE_CALL: u64 = 1 << 20;
const LARGEST_MARKER: u64 = 4096;
const CLAIMED: &str = ".claim";

/// What a marker says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    /// The name of the object that is being uploaded.
    name: String,
}

pub(super) struct ObjectUpload {
    folder: RemoteFolder,
    uploads: Arc<dyn Uploads>,
    provisional: String,
    name: String,
    key: Key,
    /// Of the upload in parts; a small object needs none.
    id: Option<String>,
    /// What is collected; nothing at the beginning and behind the end of a part.
    part: Option<Part>,
    /// Parts that were handed over, and how large the next one is after so many.
    begun: usize,
    size_after: fn(usize) -> u64,
    sending: JoinSet<Result<PartSent>>,
    sent: Vec<PartSent>,
    written: u64,
    pulse: Pulse,
}

/// Who holds it uploads the object of this name; nobody else begins to.
fn claim(name: &str) -> String {
    format!(".{name}{CLAIMED}")
}

/// Says under the provisional name what will be uploaded, keeps the first free name for it, and begins.
pub(super) async fn begin(
    folder: &RemoteFolder,
    provisional: &str,
    names: &[String],
) -> Result<ObjectUpload> {
    let uploads = folder.uploads.as_ref();
    let uploads = uploads.ok_or_else(|| Error::contract("an upload in parts to what is no bucket"))?;
    let begun = async {
        for name in names {
            if folder.length_of(name).await?.is_some() {
                continue;
            }
            // The marker first: whatever comes after it can be found.
            let marker = serde_json::to_vec(&Marker { name: name.clone() }).map_err(Error::contract)?;
            folder.put(provisional, marker.into()).await?;
            if folder.swap(&claim(name), None, Some(provisional.as_bytes())).await? {
                return Ok(ObjectUpload {
                    folder: folder.clone(),
                    uploads: uploads.clone(),
                    provisional: provisional.to_owned(),
                    name: name.clone(),
                    key: key(folder, name),
                    id: None,
                    part: None,
                    begun: 0,
                    size_after: uploads.part_sizes(),
                    sending: JoinSet::new(),
                    sent: Vec::new(),
                    written: 0,
                    pulse: folder.pulse(),
                });
            }
        }
        Err(taken(provisional))
    };
    let begun = begun.await;
    if begun.is_err() {
        // The failure is what is told; what it leaves, the next run clears.
        let _ = discard(folder, provisional).await;
    }
    begun
}

fn key(folder: &RemoteFolder, name: &str) -> Key {
    Key { path: folder.path(name), shown: folder.shown(name) }
}

fn taken(name: &str) -> Error {
    Error::new(ErrorKind::Refused, "name the backup", "the name is taken").on(name)
}

/// Removes what an upload left that did not come to its end: its parts, its claim, and its marker last.
pub(super) async fn discard(folder: &RemoteFolder, provisional: &str) -> Result<()> {
    let Some(bytes) = folder.read_small_now(provisional, LARGEST_MARKER).await? else { return Ok(()) };
    let marker: Marker = serde_json::from_slice(&bytes).map_err(|e| {
        Error::damaged("clear what a killed run has left", e)
            .on(folder.shown(provisional))
            .hint("if no run is going on, remove this object, and uploads that were not completed")
    })?;
    // The claim is given back only if it is ours; then nobody else has begun an upload of this name.
    let held = folder.read_small_now(&claim(&marker.name), LARGEST_MARKER).await?;
    if held.is_some_and(|h| h == provisional.as_bytes()) {
        if let Some(uploads) = &folder.uploads {
            uploads.give_up_all(&key(folder, &marker.name)).await?;
        }
        folder.remove_now(&claim(&marker.name)).await?;
    }
    folder.remove_now(provisional).await
}

/// An upload to Azure that is being given up is seen for a moment, empty, under the name that it still claims: it is none.
pub(super) fn without_given_up(all: Vec<Stored>) -> Vec<Stored> {
    let claims: HashSet<String> =
        all.iter().filter(|s| s.name.ends_with(CLAIMED)).map(|s| s.name.clone()).collect();
    all.into_iter().filter(|s| s.bytes > 0 || !claims.contains(&claim(&s.name))).collect()
}

impl ObjectUpload {
    fn mark(&self) -> Mark<'_> {
        Mark(&self.provisional)
    }

    /// Hands a part over, when fewer than so many are on their way.
    async fn send(&mut self, part: Part) -> Result<()> {
        let uploads = self.uploads.clone();
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let begun = uploads.begin(&self.key, self.mark()).await?;
                self.id.insert(begun).clone()
            }
        };
        // Large ones go through files: one is written while one is sent.
        let at_once = if part.is_in_memory() { AT_ONCE } else { 1 };
        while self.sending.len() >= at_once {
            self.one_arrives().await?;
        }
        self.begun += 1;
        let (number, key, water) = (self.begun, self.key.clone(), Water::new(self.pulse.clone()));
        self.sending.spawn(async move { uploads.send(&key, &id, number, part, water).await });
        Ok(())
    }

    async fn one_arrives(&mut self) -> Result<()> {
        match self.sending.join_next().await {
            None => Ok(()),
            Some(Ok(sent)) => {
                self.sent.push(sent?);
                self.pulse.beat();
                Ok(())
            }
            Some(Err(e)) => Err(Error::new(ErrorKind::Panicked, "write", e).on(&self.key.shown)),
        }
    }

    /// All of a small object in one call.
    async fn put_whole(&mut self, part: Option<Part>) -> Result<()> {
        let bytes = match part.map(Part::into_buffer) {
            None => Buffer::new(),
            Some(Some(bytes)) => bytes,
            // Only the parts of large objects are kept in files.
            Some(None) => return Err(Error::contract("a small object is kept in a file").on(&self.name)),
        };
        let mark = [(Mark::NAME.to_owned(), self.provisional.clone())];
        let put =
            self.folder.operator.write_with(&self.key.path, bytes).if_not_exists(true).user_metadata(mark);
        put.await.map(drop).map_err(|e| match e.kind() {
            Remote::ConditionNotMatch => taken(&self.name),
            _ => self.folder.error("write", &self.name, &e),
        })
    }

    async fn complete(&mut self) -> Result<()> {
        let done = match self.begun {
            0 => {
                let all = self.part.take();
                self.put_whole(all).await
            }
            _ => {
                self.sent.sort_by_key(|part| part.number);
                let id = self.id.as_deref().unwrap_or_default();
                self.uploads.complete(&self.key, id, &self.sent, self.mark()).await
            }
        };
        let Err(e) = done else { return Ok(()) };
        // The answer may have been lost, and the object be there: the name tells nothing, our mark on it does.
        match self.folder.operator.stat(&self.key.path).await {
            Ok(found) => {
                let mut marks = found.user_metadata().into_iter().flatten();
                match marks
                    .any(|(key, value)| key.eq_ignore_ascii_case(Mark::NAME) && value == self.provisional)
                {
                    true => Ok(()),
                    false => Err(taken(&self.name)),
                }
            }
            Err(_) if e.kind() == ErrorKind::Refused => Err(taken(&self.name)),
            Err(_) => Err(e),
        }
    }

    /// Whether as many bytes are there as were sent.
    async fn check(&self) -> Result<()> {
        match self.folder.length_of(&self.name).await? {
            Some(there) if there == self.written => Ok(()),
            there => {
                let there = there.map_or("nothing is".to_owned(), |n| format!("{n} bytes are"));
                let text = format!("{} bytes were sent, {there} there", self.written);
                Err(Error::new(ErrorKind::Destination, "check what was written", text)
                    .on(self.folder.shown(&self.name)))
            }
        }
    }

    async fn give_up(&mut self) -> Result<()> {
        self.part = None;
        // None of them may arrive after the upload is gone.
        self.sending.shutdown().await;
        let gone = match self.id.take() {
            // Ours first, while its number is known; then whatever else was begun under this name.
            Some(id) => self.uploads.give_up(&self.key, &id).await,
            None => Ok(()),
        };
        discard(&self.folder, &self.provisional).await?;
        gone
    }
}

#[async_trait]
impl Upload for ObjectUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut rest = bytes;
        self.written += rest.len() as u64;
        while !rest.is_empty() {
            let size = (self.size_after)(self.begun);
            let mut part = match self.part.take() {
                Some(part) => part,
                None => Part::begin(size, self.uploads.checksum()).await?,
            };
            let now = usize::try_from(size - part.length()).unwrap_or(rest.len()).min(rest.len());
            part.push(rest.split_to(now)).await?;
            match part.length() == size {
                true => self.send(part).await?,
                false => self.part = Some(part),
            }
        }
        Ok(())
    }

    /// A small object goes in one call, which makes it visible, too.
    async fn finish(&mut self) -> Result<()> {
        if let Some(part) = self.part.take_if(|part| part.length() > ONE_CALL) {
            self.send(part).await?;
        }
        if self.begun > 0
            && let Some(part) = self.part.take()
        {
            self.send(part).await?;
        }
        while !self.sending.is_empty() {
            self.one_arrives().await?;
        }
        Ok(())
    }

    fn keeps_bytes(&self) -> bool {
        true
    }

    fn pulse(&self) -> Option<Pulse> {
        Some(self.pulse.clone())
    }

    async fn commit(mut self: Box<Self>) -> Result<String> {
        if let Err(e) = self.complete().await {
            // The failure is what is told.
            let _ = self.give_up().await;
            return Err(e);
        }
        if let Err(e) = self.check().await {
            let _ = self.folder.remove_now(&self.name).await;
            let _ = self.give_up().await;
            return Err(e);
        }
        // It is there and whole. What stays of marker and claim lists as incomplete until the next run clears it.
        let _ = discard(&self.folder, &self.provisional).await;
        Ok(self.name)
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        self.give_up().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Secret,
        destination::{Destination, RemotePlace, RemoteSettings},
    };
    use backup_testkit::{
        make::noise,
        run,
        servers::{Azurite, Minio, ObjectServer, or_skip},
    };

    fn folder(url: &str) -> RemoteFolder {
        let settings = match url.starts_with("az://") {
            true => RemoteSettings {
                account_key: Some(Secret::new(Azurite::ACCOUNT_KEY)),
                ..RemoteSettings::default()
            },
            false => RemoteSettings {
                access_key_id: Some(Minio::KEY.to_owned()),
                secret_access_key: Some(Secret::new(Minio::SECRET)),
                ..RemoteSettings::default()
            },
        };
        let place = RemotePlace::parse(url).unwrap().unwrap().configured(settings).unwrap();
        RemoteFolder::new(&place).unwrap()
    }

    /// Small parts and then large ones.
    async fn one_object_of_parts(server: &dyn ObjectServer) {
        let folder = folder(&server.url("parts"));
        let mut upload = begin(&folder, ".provisional", &["whole".to_owned()]).await.unwrap();
        upload.size_after = |n| if n < 2 { 5 << 20 } else { 17 << 20 };
        let data = Bytes::from(noise(47 << 20, 3));
        for at in (0..data.len()).step_by(3 << 20) {
            upload.write(data.slice(at..(at + (3 << 20)).min(data.len()))).await.unwrap();
        }
        upload.finish().await.unwrap();
        assert_eq!(upload.begun, 5);
        assert_eq!(Box::new(upload).commit().await.unwrap(), "whole");
        let blob = folder.open("whole").await.unwrap();
        assert!(blob.read_at(0, data.len()).await.unwrap() == data);
        let names: Vec<_> = folder.list().await.unwrap().into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["whole"]);
        assert_eq!(server.uploads(), [""; 0]);
    }

    #[test]
    fn small_parts_from_memory_and_large_ones_from_a_file_make_one_object() {
        run("small_parts_from_memory_and_large_ones_from_a_file_make_one_object", async {
            one_object_of_parts(&or_skip("minio", Minio::start())).await;
        });
    }

    #[test]
    fn small_blocks_from_memory_and_large_ones_from_a_file_make_one_object() {
        run("small_blocks_from_memory_and_large_ones_from_a_file_make_one_object", async {
            one_object_of_parts(&or_skip("azurite", Azurite::start())).await;
        });
    }

    #[test]
    fn a_name_that_somebody_else_took_meanwhile_is_never_written_over_and_no_block_stays() {
        run("a_name_that_somebody_else_took_meanwhile_is_never_written_over_and_no_block_stays", async {
            let server = or_skip("azurite", Azurite::start());
            let folder = folder(&server.url("taken"));
            for bytes in [3, 12 << 20] {
                let mut upload = begin(&folder, ".provisional", &["name".to_owned()]).await.unwrap();
                upload.write(noise(bytes, 5).into()).await.unwrap();
                upload.finish().await.unwrap();
                folder.write_small("name", b"of somebody else").await.unwrap();
                let e = Box::new(upload).commit().await.unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
                assert_eq!(&folder.read_small("name", 99).await.unwrap().unwrap()[..], b"of somebody else");
                assert_eq!(server.uploads(), [""; 0]);
                folder.remove("name").await.unwrap();
                assert!(folder.list().await.unwrap().is_empty());
            }
        });
    }

    #[test]
    fn a_clearing_that_is_killed_half_way_shows_nothing_and_is_brought_to_its_end() {
        run("a_clearing_that_is_killed_half_way_shows_nothing_and_is_brought_to_its_end", async {
            let server = or_skip("azurite", Azurite::start());
            let folder = folder(&server.url("cleared"));
            let shown = || async {
                let all = folder.list().await.unwrap();
                all.into_iter().map(|s| s.name).filter(|n| !n.starts_with('.')).collect::<Vec<_>>()
            };
            let mut upload = begin(&folder, ".provisional", &["name".to_owned()]).await.unwrap();
            upload.write(noise(12 << 20, 5).into()).await.unwrap();
            while !upload.sending.is_empty() {
                upload.one_arrives().await.unwrap();
            }
            assert_eq!(server.uploads(), ["cleared/name"]);
            assert!(shown().await.is_empty());
            // As after a kill between the two calls of a clearing: the empty object is there and named as ours.
            drop(upload);
            let mark = [("backupgivenup".to_owned(), "1".to_owned())];
            folder.operator.write_with(&folder.path("name"), "").user_metadata(mark).await.unwrap();
            assert!(server.names("cleared").contains(&"name".to_owned()) && shown().await.is_empty());
            discard(&folder, ".provisional").await.unwrap();
            assert!(server.names("cleared").is_empty() && server.uploads().is_empty());
            // One that is empty and whole stays.
            let upload = begin(&folder, ".provisional", &["name".to_owned()]).await.unwrap();
            assert_eq!(Box::new(upload).commit().await.unwrap(), "name");
            folder.put(".provisional", r#"{"name":"name"}"#.into()).await.unwrap();
            folder.put(&claim("name"), ".provisional".into()).await.unwrap();
            discard(&folder, ".provisional").await.unwrap();
            assert_eq!(shown().await, ["name"]);
        });
    }
}
