//! From frames of tar bytes to the destination: compressed in parallel, written in order.

use super::compression::{Compression, Compressors, Holds, Packed, TableOfFrames};
use crate::{Error, ErrorKind, Reservation, Result, destination::Upload};
use bytes::Bytes;
use std::sync::{Arc, OnceLock};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A piece of the tar that becomes one frame.
pub(super) struct Frame {
    pub(super) raw: Vec<u8>,
    pub(super) what: Holds,
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
    stop: CancellationToken,
    /// An archive that nobody waits for any more is given up.
    _stopped_when_dropped: DropGuard,
}

impl Output {
    /// Whatever goes on when `stop` is cancelled is left, unless the archive is being made visible already.
    pub(super) fn start(
        upload: Box<dyn Upload>,
        compression: Compression,
        level: i32,
        threads: usize,
        stop: CancellationToken,
    ) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let failed = Arc::new(OnceLock::new());
        let compressors = Arc::new(Compressors::new(compression, level));
        let threads = threads.max(1);
        let (encoders, most) = compression.codec().map_or((1, threads), |codec| codec.at_once(threads));
        let compressing = Compressing {
            encoders: Arc::new(Semaphore::new(encoders)),
            compressors: compressors.clone(),
            failed: failed.clone(),
        };
        let writing = Writing {
            upload: Some(upload),
            compression,
            compressors: compressors.clone(),
            failed: failed.clone(),
            table: TableOfFrames::default(),
            written: 0,
            stop: stop.clone(),
        };
        tokio::spawn(Worker { compressing, writing, most }.run(receiver));
        let _stopped_when_dropped = stop.clone().drop_guard();
        Output { sender, failed, compressors, stop, _stopped_when_dropped }
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

    /// Everything sent so far is written, the table of frames after it, and it becomes durable and visible. Says its name and length.
    pub(super) async fn end(&self) -> Result<(String, u64)> {
        let (reply, answer) = oneshot::channel();
        self.sender.send(Message::End { reply }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// Nothing stays behind.
    pub(super) async fn abort(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.poison(Error::cancelled());
        self.stop.cancel();
        if self.sender.send(Message::Abort { reply }).is_err() {
            return Ok(()); // it has ended already
        }
        answer.await.map_err(|_| gone())?
    }
}

fn gone() -> Error {
    Error::new(ErrorKind::Panicked, "write the archive", "the writing task is gone")
}

struct Done {
    packed: Packed,
    raw_length: usize,
    holds: Vec<Reservation>,
}

/// A frame that is compressed.
type Running = JoinHandle<Result<Done>>;

struct Worker {
    compressing: Compressing,
    writing: Writing,
    /// Frames that are compressed, wait for an encoder, or for the one before them.
    most: usize,
}

struct Compressing {
    /// Frames are compressed as many at a time as it has permits.
    encoders: Arc<Semaphore>,
    compressors: Arc<Compressors>,
    failed: Arc<OnceLock<Error>>,
}

struct Writing {
    upload: Option<Box<dyn Upload>>,
    compression: Compression,
    compressors: Arc<Compressors>,
    failed: Arc<OnceLock<Error>>,
    table: TableOfFrames,
    written: u64,
    stop: CancellationToken,
}

impl Worker {
    async fn run(self, receiver: mpsc::UnboundedReceiver<Message>) {
        let Worker { compressing, writing, most } = self;
        // One more is held by whoever writes.
        let (order, ordered) = mpsc::channel(most.saturating_sub(1).max(1));
        let (last, mut writing) = tokio::join!(compressing.run(receiver, order), writing.run(ordered));
        // Whoever asked may have been cancelled meanwhile: an answer that nobody takes is no failure.
        match last {
            Some(Message::End { reply }) => drop(reply.send(writing.end().await)),
            Some(Message::Abort { reply }) => drop(reply.send(writing.give_up().await)),
            // All senders are gone without an end: the writer was dropped, and nothing may stay behind.
            _ => drop(writing.give_up().await),
        }
    }
}

impl Compressing {
    /// Begins each frame in its turn, until something else than a frame comes.
    async fn run(
        self,
        mut receiver: mpsc::UnboundedReceiver<Message>,
        order: mpsc::Sender<Running>,
    ) -> Option<Message> {
        loop {
            // Writing goes on until this sender is gone.
            let Ok(place) = order.reserve().await else { return None };
            match receiver.recv().await {
                Some(Message::Frame(frame)) => place.send(self.compress(frame)),
                other => return other,
            }
        }
    }

    fn compress(&self, frame: Frame) -> Running {
        let (compressors, failed) = (self.compressors.clone(), self.failed.clone());
        let encoders = self.encoders.clone();
        tokio::spawn(async move {
            // It is never closed.
            let _permit = encoders.acquire_owned().await.map_err(|_| gone())?;
            let compress = move || {
                let Frame { raw, what, holds } = frame;
                if let Some(e) = failed.get() {
                    return Err(e.clone());
                }
                Ok(Done { raw_length: raw.len(), packed: compressors.compress(raw, what)?, holds })
            };
            let done = tokio::task::spawn_blocking(compress).await;
            done.unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, "compress", e)))
        })
    }
}

impl Writing {
    /// Writes each frame as soon as it is ready and those before it are out: the memory that it holds is waited for.
    async fn run(mut self, mut ordered: mpsc::Receiver<Running>) -> Self {
        while let Some(frame) = ordered.recv().await {
            let done = frame.await.unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, "compress", e)));
            let written = match done {
                Ok(done) => self.write_frame(done).await,
                Err(e) => Err(e),
            };
            if let Err(e) = written {
                // Only the first failure is told.
                let _ = self.failed.set(e);
            }
        }
        self
    }

    async fn write_frame(&mut self, done: Done) -> Result<()> {
        let Done { packed: Packed { bytes, listed }, raw_length, holds } = done;
        let (Some(upload), None) = (&mut self.upload, self.failed.get()) else { return Ok(()) };
        if let Some(codec) = self.compression.codec() {
            let head = codec.head();
            if self.written == 0 && !head.is_empty() {
                self.written = head.len() as u64;
                until(&self.stop, upload.write(Bytes::from_static(head))).await?;
            }
            self.table.push(listed, raw_length)?;
        }
        self.written += bytes.len() as u64;
        let kept = upload.keeps_bytes();
        until(&self.stop, upload.write(self.compressors.lend(bytes, kept))).await?;
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
        let (table, stop) = (std::mem::take(&mut self.table), self.stop.clone());
        let finished = until(&stop, async {
            if let Some(codec) = self.compression.codec() {
                let table = table.into_bytes(codec)?;
                self.written += table.len() as u64;
                upload.write(table.into()).await?;
            }
            upload.finish().await
        });
        if let Err(e) = finished.await {
            // The failure is what is told.
            let _ = upload.abort().await;
            return Err(e);
        }
        Ok((upload.commit().await?, self.written))
    }
}

/// What it comes to, unless it is stopped before.
async fn until(stop: &CancellationToken, doing: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Error::cancelled()),
        done = doing => done,
    }
}
