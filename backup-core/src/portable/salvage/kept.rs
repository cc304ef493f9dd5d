//! Lines of the index that are kept in a temporary file: in the order in which a backup has them.

use crate::{
    Error, ErrorKind, Result,
    destination::{Blob, local_blob},
    portable::index::{Line, SHARD},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::{
    fs::File,
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

/// Lines that are being written down.
pub(super) struct Keeper {
    file: File,
    pending: Vec<u8>,
    pieces: Vec<usize>,
}

/// Lines that were written down.
#[derive(Clone)]
pub(in crate::portable) struct KeptLines {
    blob: Arc<dyn Blob>,
    pieces: Arc<[usize]>,
}

fn failed(e: io::Error) -> Error {
    Error::io(ErrorKind::Target, "keep lines of the index in a temporary file", e)
        .hint("TMPDIR names another folder")
}

impl Keeper {
    pub(super) fn new() -> Result<Self> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(Keeper { file, pending: Vec::new(), pieces: Vec::new() })
    }

    pub(super) fn push(&mut self, line: &Line) -> Result<()> {
        line.encode(&mut self.pending);
        if self.pending.len() >= SHARD { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all(&self.pending).map_err(failed)?;
            self.pieces.push(self.pending.len());
            self.pending.clear();
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<KeptLines> {
        self.flush()?;
        let bytes = self.pieces.iter().map(|n| *n as u64).sum();
        let blob = local_blob(self.file, bytes, PathBuf::from("lines of the index"));
        Ok(KeptLines { blob, pieces: self.pieces.into() })
    }
}

impl KeptLines {
    /// Whole lines, about a shard at a time.
    pub(in crate::portable) fn pieces(&self) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        let me = self.clone();
        let mut at = 0;
        let places: Vec<(u64, usize)> = self
            .pieces
            .iter()
            .map(|n| {
                at += *n as u64;
                (at - *n as u64, *n)
            })
            .collect();
        stream::iter(places).then(move |(at, n)| {
            let blob = me.blob.clone();
            async move { blob.read_at(at, n).await }
        })
    }

    /// The lines, decoded.
    pub(super) fn lines(&self) -> impl Stream<Item = Result<Line>> + Send + use<> {
        self.pieces().flat_map(|piece| {
            let lines: Vec<Result<Line>> = match piece {
                Ok(bytes) => {
                    bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(Line::decode).collect()
                }
                Err(e) => vec![Err(e)],
            };
            stream::iter(lines)
        })
    }
}
