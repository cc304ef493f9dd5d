//! An object that is being uploaded in parts. Its key is fixed from the beginning and nothing can be seen of it before its end:
//! a small marker object under the provisional name shows it, and leads to what a killed run has left.

use super::RemoteFolder;
use crate::{Error, ErrorKind, Result, destination::Upload};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use opendal::{Buffer, ErrorKind as Remote, Writer};
use serde::{Deserialize, Serialize};

/// The smallest part. There can be 10,000 parts: after each thousand they double.
const PART: usize = 8 << 20;
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
    writer: Writer,
    part: BytesMut,
    parts: usize,
    written: u64,
}

fn part_size(number: usize) -> usize {
    PART << (number / 1000).min(9)
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
                let writer = folder
                    .operator
                    .writer_with(&folder.path(name))
                    .if_not_exists(true)
                    .user_metadata([(TOKEN.to_owned(), provisional.to_owned())])
                    .concurrent(AT_ONCE)
                    .await
                    .map_err(|e| folder.error("create", name, &e))?;
                return Ok(ObjectUpload {
                    folder: folder.clone(),
                    provisional: provisional.to_owned(),
                    name: name.clone(),
                    writer,
                    part: BytesMut::new(),
                    parts: 0,
                    written: 0,
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
            uploads.give_up(&folder.path(&marker.name)).await?;
        }
        folder.remove_now(&claim(&marker.name)).await?;
    }
    folder.remove_now(provisional).await
}

impl ObjectUpload {
    async fn send_part(&mut self) -> Result<()> {
        let part = std::mem::take(&mut self.part).freeze();
        self.parts += 1;
        let sent = self.writer.write(Buffer::from(part)).await;
        sent.map_err(|e| self.folder.error("write", &self.name, &e))
    }

    async fn complete(&mut self) -> Result<()> {
        if !self.part.is_empty() {
            self.send_part().await?;
        }
        let Err(e) = self.writer.close().await else { return Ok(()) };
        // The answer may have been lost, and the object be there: the name tells nothing, our mark on it does.
        match self.folder.operator.stat(&self.folder.path(&self.name)).await {
            Ok(found) => {
                let mut marks = found.user_metadata().into_iter().flatten();
                match marks.any(|(key, value)| key.eq_ignore_ascii_case(TOKEN) && value == self.provisional) {
                    true => Ok(()),
                    false => Err(taken(&self.name)),
                }
            }
            Err(_) if e.kind() == Remote::ConditionNotMatch => Err(taken(&self.name)),
            Err(_) => Err(self.folder.error("complete", &self.name, &e)),
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
        // Ours first, while its number is known; then whatever else was begun under this name.
        let aborted = self.writer.abort().await;
        discard(&self.folder, &self.provisional).await?;
        match aborted {
            // The listing that came after it found nothing to give up.
            Err(e) if e.kind() != Remote::NotFound && self.folder.uploads.is_none() => {
                Err(self.folder.error("give up the upload", &self.name, &e))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Upload for ObjectUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let mut rest = &bytes[..];
        self.written += rest.len() as u64;
        while !rest.is_empty() {
            let size = part_size(self.parts);
            if self.part.capacity() == 0 {
                self.part.reserve(size);
            }
            let (now, later) = rest.split_at(rest.len().min(size - self.part.len()));
            self.part.extend_from_slice(now);
            rest = later;
            if self.part.len() == size {
                self.send_part().await?;
            }
        }
        Ok(())
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

    #[test]
    fn ten_thousand_parts_are_enough_for_five_terabytes() {
        let all: u64 = (0..10_000).map(|n| part_size(n) as u64).sum();
        assert!(all > 5 << 40, "{all}");
        assert_eq!((part_size(0), part_size(999), part_size(1000)), (PART, PART, 2 * PART));
        assert!(part_size(9_999) as u64 <= 5 << 30);
    }
}
