//! From frames of tar bytes to the destination: compressed in parallel, written in order.

use super::{
    compression::{Compression, Compressors},
    seek_table::SeekTable,
};
use crate::{Error, ErrorKind, Reservation, Result, destination::Upload};
use bytes::Bytes;
use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// A piece of the tar that becomes one frame.
pub(super) struct Frame {
    pub(super) raw: Vec<u8>,
    /// What is reserved for these bytes: given back when they are written.
    pub(super) holds: Vec<Reservation>,
}

enum Message {
    Frame(Frame),
    End { reply: oneshot::Sender<Result<(String, u64)>> },
    Abort { reply: oneshot::Sender<Result<()>> },
}

/// The way out. Sending never waits: what is in flight is bounded by the budget that the frames hold.
pub(super) struct Output {
    sender: mpsc::UnboundedSender<Message>,
    failed: Arc<OnceLock<Error>>,
    compressors: Arc<Compressors>,
}

impl Output {
    pub(super) fn start(
        upload: Box<dyn Upload>,
        compression: Compression,
        level: i32,
        threads: usize,
    ) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let failed = Arc::new(OnceLock::new());
        let compressors = Arc::new(Compressors::new(compression, level));
        let worker = Worker {
            upload: Some(upload),
            compression,
            threads: threads.max(1),
            compressors: compressors.clone(),
            failed: failed.clone(),
            table: SeekTable::default(),
            written: 0,
        };
        tokio::spawn(worker.run(receiver));
        Output { sender, failed, compressors }
    }

    /// The first failure; everything after it is dropped.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failed.get().cloned()
    }

    /// Makes the archive impossible to complete.
    pub(super) fn poison(&self, error: Error) {
        // Only the first failure is told.
        let _ = self.failed.set(error);
    }

    pub(super) fn buffer(&self, capacity: usize) -> Vec<u8> {
        self.compressors.buffer(capacity)
    }

    pub(super) fn send(&self, frame: Frame) {
        if self.sender.send(Message::Frame(frame)).is_err() {
            self.poison(gone());
        }
    }

    /// Everything sent so far is written, the seek table after it, and it becomes durable and visible. Says its name and length.
    pub(super) async fn end(&self) -> Result<(String, u64)> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(Message::End { reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Nothing stays behind.
    pub(super) async fn abort(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.poison(Error::cancelled());
        if self.sender.send(Message::Abort { reply }).is_err() {
            return Ok(()); // it has ended already
        }
        answer.await.map_err(|_| gone())?
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Panicked, "write the archive", "the writing task is gone")
}

struct Packed {
    raw_length: usize,
    bytes: Vec<u8>,
    holds: Vec<Reservation>,
}

struct Worker {
    upload: Option<Box<dyn Upload>>,
    compression: Compression,
    threads: usize,
    compressors: Arc<Compressors>,
    failed: Arc<OnceLock<Error>>,
    table: SeekTable,
    written: u64,
}

impl Worker {
    async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Message>) {
        let mut running: VecDeque<JoinHandle<Result<Packed>>> = VecDeque::new();
        let last = loop {
            tokio::select! {
                // Written as soon as it is ready: the memory that it holds is waited for.
                packed = oldest(&mut running) => {
                    running.pop_front();
                    self.write(packed).await;
                }
                message = receiver.recv(), if running.len() <= self.threads => match message {
                    Some(Message::Frame(frame)) => running.push_back(self.compress(frame)),
                    other => break other,
                },
            }
        };
        while !running.is_empty() {
            let packed = oldest(&mut running).await;
            running.pop_front();
            self.write(packed).await;
        }
        // Whoever asked may have been cancelled meanwhile: an answer that nobody takes is no failure.
        match last {
            Some(Message::End { reply }) => drop(reply.send(self.end().await)),
            Some(Message::Abort { reply }) => drop(reply.send(self.give_up().await)),
            // All senders are gone without an end: the writer was dropped, and nothing may stay behind.
            _ => drop(self.give_up().await),
        }
    }

    fn compress(&self, frame: Frame) -> JoinHandle<Result<Packed>> {
        let (compressors, failed) = (self.compressors.clone(), self.failed.clone());
        tokio::task::spawn_blocking(move || {
            let Frame { raw, holds } = frame;
            if let Some(e) = failed.get() {
                return Err(e.clone());
            }
            Ok(Packed { raw_length: raw.len(), bytes: compressors.compress(raw)?, holds })
        })
    }

    async fn write(&mut self, packed: Result<Packed>) {
        let written = match packed {
            Ok(packed) => self.write_frame(packed).await,
            Err(e) => Err(e),
        };
        if let Err(e) = written {
            // Only the first failure is told.
            let _ = self.failed.set(e);
        }
    }

    async fn write_frame(&mut self, packed: Packed) -> Result<()> {
        let Packed { raw_length, bytes, holds } = packed;
        let (Some(upload), None) = (&mut self.upload, self.failed.get()) else { return Ok(()) };
        if self.compression != Compression::None {
            self.table.push(bytes.len(), raw_length)?;
        }
        self.written += bytes.len() as u64;
        let bytes = Bytes::from(bytes);
        upload.write(bytes.clone()).await?;
        if bytes.is_unique() {
            self.compressors.recycle(bytes.into());
        }
        drop(holds);
        Ok(())
    }

    async fn give_up(&mut self) -> Result<()> {
        match self.upload.take() {
            Some(upload) => upload.abort().await,
            None => Ok(()),
        }
    }

    async fn end(&mut self) -> Result<(String, u64)> {
        if let Some(e) = self.failed.get().cloned() {
            // The failure is what is told; that the clean-up failed too adds nothing.
            let _ = self.give_up().await;
            return Err(e);
        }
        let Some(mut upload) = self.upload.take() else { return Err(gone()) };
        if self.compression != Compression::None {
            let table = std::mem::take(&mut self.table).into_bytes();
            self.written += table.len() as u64;
            if let Err(e) = upload.write(table.into()).await {
                let _ = upload.abort().await;
                return Err(e);
            }
        }
        Ok((upload.commit().await?, self.written))
    }
}

/// The frame that comes next in the file, once it is compressed; for ever if none is running.
async fn oldest(running: &mut VecDeque<JoinHandle<Result<Packed>>>) -> Result<Packed> {
    match running.front_mut() {
        Some(task) => task.await.unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, "compress", e))),
        None => std::future::pending().await,
    }
}
