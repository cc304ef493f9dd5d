//! An object that is being uploaded in parts. Its key is fixed from the beginning and nothing can be seen of it before its end:
//! a small marker object under the provisional name shows it, and leads to what a killed run has left.

use super::{
    RemoteFolder,
    part::{self, Part},
    transport::Water,
    uploads::{Key, PartSent, Uploads},
};
use crate::{
    Error, ErrorKind, Result,
    destination::{Pulse, Upload},
};
use async_trait::async_trait;
use bytes::Bytes;
use opendal::{Buffer, ErrorKind as Remote};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// Parts that are sent at the same time.
const AT_ONCE: usize = 3;
/// Metadata that tells our object from one that somebody else put there.
const TOKEN: &str = "backup-upload";
const LARGEST_MARKER: u64 = 4096;

/// What a marker says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    /// The name of the object that is being uploaded.
    name: String,
}

pub(super) struct ObjectUpload {
    folder: RemoteFolder,
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
    format!(".{name}.claim")
}

/// Says under the provisional name what will be uploaded, keeps the first free name for it, and begins.
pub(super) async fn begin(
    folder: &RemoteFolder,
    provisional: &str,
    names: &[String],
) -> Result<ObjectUpload> {
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
                    provisional: provisional.to_owned(),
                    name: name.clone(),
                    key: key(folder, name),
                    id: None,
                    part: None,
                    begun: 0,
                    size_after: part::size,
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

impl ObjectUpload {
    fn uploads(&self) -> Result<&Uploads> {
        self.folder.uploads.as_ref().ok_or_else(|| Error::contract("an upload in parts to what is no bucket"))
    }

    /// Hands a part over, when fewer than so many are on their way.
    async fn send(&mut self, part: Part) -> Result<()> {
        let uploads = self.uploads()?.clone();
        let id = match &self.id {
            Some(id) => id.clone(),
            None => self.id.insert(uploads.begin(&self.key, (TOKEN, &self.provisional)).await?).clone(),
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
        let mark = [(TOKEN.to_owned(), self.provisional.clone())];
        let put =
            self.folder.operator.write_with(&self.key.path, bytes).if_not_exists(true).user_metadata(mark);
        put.await.map(drop).map_err(|e| match e.kind() {
            Remote::ConditionNotMatch => taken(&self.name),
            _ => self.folder.error("write", &self.name, &e),
        })
    }

    async fn complete(&mut self) -> Result<()> {
        let last = self.part.take();
        let done = match self.begun {
            0 => self.put_whole(last).await,
            _ => {
                if let Some(part) = last {
                    self.send(part).await?;
                }
                while !self.sending.is_empty() {
                    self.one_arrives().await?;
                }
                self.sent.sort_by_key(|part| part.number);
                self.uploads()?.complete(&self.key, self.id.as_deref().unwrap_or_default(), &self.sent).await
            }
        };
        let Err(e) = done else { return Ok(()) };
        // The answer may have been lost, and the object be there: the name tells nothing, our mark on it does.
        match self.folder.operator.stat(&self.key.path).await {
            Ok(found) => {
                let mut marks = found.user_metadata().into_iter().flatten();
                match marks.any(|(key, value)| key.eq_ignore_ascii_case(TOKEN) && value == self.provisional) {
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
            Some(id) => self.uploads()?.give_up(&self.key, &id).await,
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
                None => Part::begin(size).await?,
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
        servers::{Minio, or_skip},
    };

    #[test]
    fn small_parts_from_memory_and_large_ones_from_a_file_make_one_object() {
        run("small_parts_from_memory_and_large_ones_from_a_file_make_one_object", async {
            let minio = or_skip("minio", Minio::start());
            let settings = RemoteSettings {
                access_key_id: Some(Minio::KEY.to_owned()),
                secret_access_key: Some(Secret::new(Minio::SECRET)),
                ..RemoteSettings::default()
            };
            let place = RemotePlace::parse(&minio.url("parts")).unwrap().unwrap();
            let folder = RemoteFolder::new(&place.configured(settings).unwrap()).unwrap();
            let mut upload = begin(&folder, ".provisional", &["whole".to_owned()]).await.unwrap();
            upload.size_after = |n| if n < 2 { 5 << 20 } else { 17 << 20 };
            let data = Bytes::from(noise(47 << 20, 3));
            for at in (0..data.len()).step_by(3 << 20) {
                upload.write(data.slice(at..(at + (3 << 20)).min(data.len()))).await.unwrap();
            }
            assert_eq!(upload.begun, 4);
            assert_eq!(Box::new(upload).commit().await.unwrap(), "whole");
            let blob = folder.open("whole").await.unwrap();
            assert!(blob.read_at(0, data.len()).await.unwrap() == data);
            let names: Vec<_> = folder.list().await.unwrap().into_iter().map(|s| s.name).collect();
            assert_eq!(names, ["whole"]);
            assert_eq!(minio.uploads(), [""; 0]);
        });
    }
}
