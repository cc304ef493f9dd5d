//! A file that is written under its provisional name and gets its own at its end: SFTP and WebDAV.

use super::{RemoteFolder, dav, pace::Pace};
use crate::{
    Error, ErrorKind, Result,
    destination::{Pulse, Upload},
};
use async_trait::async_trait;
use bytes::Bytes;
use opendal::{Buffer, Writer};
use std::{io, time::Duration};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::task::AbortOnDropHandle;

/// So much is written in one call: each must come to its end in time.
const PIECE: usize = 256 << 10;
/// So long one that is given up waits for a server that has been sent everything.
const LAST_WORD: Duration = Duration::from_secs(30);

/// The end is said: a body that stops without it is cut off, and the server throws it away.
enum Piece {
    Bytes(Bytes),
    End,
}

enum Way {
    Sftp(Writer),
    /// `ended`: the server may have all of it.
    Dav {
        sender: mpsc::Sender<Piece>,
        sending: AbortOnDropHandle<Result<()>>,
        ended: bool,
    },
}

pub(super) struct FileUpload {
    folder: RemoteFolder,
    provisional: String,
    names: Vec<String>,
    way: Option<Way>,
    written: u64,
    pulse: Pulse,
}

pub(super) async fn begin(folder: &RemoteFolder, provisional: &str, names: &[String]) -> Result<FileUpload> {
    let path = folder.path(provisional);
    let way = match &folder.dav {
        None => {
            // OpenDAL opens the file with its first bytes, and these may be long in coming; the run is seen from its beginning.
            let fail = |e: opendal::Error| folder.error("create", provisional, &e);
            let empty = folder.plain.write_with(&path, Buffer::new()).if_not_exists(true);
            empty.await.map_err(fail)?;
            Way::Sftp(folder.plain.writer(&path).await.map_err(fail)?)
        }
        Some(dav) => {
            // A server shows a file when it has it whole; this one is seen from the beginning.
            folder.put(provisional, Bytes::new()).await?;
            let (sender, receiver) = mpsc::channel(2);
            let pieces = futures::stream::unfold(receiver, |mut receiver| async {
                match receiver.recv().await {
                    Some(Piece::Bytes(bytes)) => Some((Ok(bytes), receiver)),
                    Some(Piece::End) => None,
                    None => Some((Err(io::Error::other("it was given up")), receiver)),
                }
            });
            let (dav, shown) = (dav.clone(), folder.shown(provisional));
            let body = reqwest::Body::wrap_stream(pieces);
            let sending = tokio::spawn(async move { dav.put_stream(&path, body, &shown).await });
            Way::Dav { sender, sending: AbortOnDropHandle::new(sending), ended: false }
        }
    };
    let (folder, provisional, names) = (folder.clone(), provisional.to_owned(), names.to_vec());
    let pulse = folder.pulse();
    Ok(FileUpload { folder, provisional, names, way: Some(way), written: 0, pulse })
}

impl FileUpload {
    fn error(&self, operation: &'static str, message: &str) -> Error {
        Error::new(ErrorKind::Destination, operation, message).on(self.folder.shown(&self.provisional))
    }

    /// Everything is sent, and the server has said that it has it.
    async fn close(&mut self) -> Result<()> {
        let closed = match &mut self.way {
            None => return Err(Error::contract("a commit after the end").on(&self.provisional)),
            Some(Way::Sftp(writer)) => {
                let closed = writer.close().await;
                closed.map(drop).map_err(|e| self.folder.error("write", &self.provisional, &e))
            }
            Some(Way::Dav { sender, sending, ended }) => {
                // A request that is over already says why itself.
                *ended = matches!(timeout(self.folder.patience, sender.send(Piece::End)).await, Ok(Ok(())));
                match timeout(dav::ANSWER, sending).await {
                    Ok(sent) => sent.unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, "write", e))),
                    Err(_) => Err(self.error("write", "the server does not answer")),
                }
            }
        };
        self.way = None;
        closed
    }

    async fn name(&mut self) -> Result<String> {
        let there = self.folder.length_of(&self.provisional).await?;
        if there != Some(self.written) {
            let there = there.map_or("nothing is".to_owned(), |n| format!("{n} bytes are"));
            return Err(self.error(
                "check what was written",
                &format!("{} bytes were sent, {there} there", self.written),
            ));
        }
        for name in std::mem::take(&mut self.names) {
            if self.folder.length_of(&name).await?.is_some() {
                continue;
            }
            match self.folder.rename_to_free(&self.provisional, &name).await {
                Ok(true) => return Ok(name),
                Ok(false) => {}
                Err(e) => {
                    // The answer may have been lost: then it has gone from its old name to the new one.
                    let gone = self.folder.length_of(&self.provisional).await?.is_none();
                    match gone && self.folder.length_of(&name).await? == Some(self.written) {
                        true => return Ok(name),
                        false => return Err(e),
                    }
                }
            }
        }
        Err(Error::new(ErrorKind::Refused, "name the backup", "the name is taken").on(&self.provisional))
    }
}

#[async_trait]
impl Upload for FileUpload {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.written += bytes.len() as u64;
        let (folder, provisional) = (&self.folder, &self.provisional);
        let mut rest = bytes;
        while !rest.is_empty() {
            let most = folder.pace.as_ref().map_or(PIECE, Pace::piece).min(PIECE);
            let piece = rest.split_to(rest.len().min(most));
            if let Some(pace) = &folder.pace {
                pace.wait(piece.len()).await;
            }
            match &mut self.way {
                None => return Err(Error::contract("a write after the end").on(provisional)),
                Some(Way::Sftp(writer)) => {
                    let written = writer.write(Buffer::from(piece)).await;
                    written.map_err(|e| folder.error("write", provisional, &e))?;
                }
                Some(Way::Dav { sender, .. }) => {
                    match timeout(self.folder.patience, sender.send(Piece::Bytes(piece))).await {
                        Ok(Ok(())) => {}
                        // The server has answered before the end: it says why.
                        Ok(Err(_)) => {
                            self.close().await?;
                            return Err(self.error("write", "the server took it for whole before its end"));
                        }
                        Err(_) => {
                            let text =
                                format!("nothing moved for {} seconds", self.folder.patience.as_secs());
                            return Err(self.error("write", &text));
                        }
                    }
                }
            }
            self.pulse.beat();
        }
        Ok(())
    }

    fn pulse(&self) -> Option<Pulse> {
        Some(self.pulse.clone())
    }

    async fn finish(&mut self) -> Result<()> {
        self.close().await
    }

    async fn commit(mut self: Box<Self>) -> Result<String> {
        let named = self.name().await;
        if named.is_err() {
            // The failure is what is told; what could not be removed, the next run clears.
            let _ = self.folder.remove_now(&self.provisional).await;
        }
        named
    }

    async fn abort(mut self: Box<Self>) -> Result<()> {
        if let Some(Way::Dav { mut sending, ended, .. }) = self.way.take() {
            // What a server that has all of it makes of it after the removal would stay.
            let is_over = ended && timeout(LAST_WORD, &mut sending).await.is_ok();
            if !is_over {
                sending.abort();
                // Only that it is over matters.
                let _ = sending.await;
            }
        }
        self.folder.remove_now(&self.provisional).await
    }
}
