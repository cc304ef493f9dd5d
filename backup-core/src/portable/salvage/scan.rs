//! Finds frames without their table: each can be read without the others, so what one has lost says nothing of the next.

use crate::{
    Context, Error, ErrorKind, Result,
    destination::Blob,
    portable::{
        check::alive,
        compression::{Codec, Ended, FrameAt, LARGEST_FRAME, Lengths},
    },
};
use bytes::Bytes;
use std::sync::Arc;

/// How much a writer puts into a frame, where no frame before has told it.
const USUAL: u32 = 4 << 20;

/// The frames of a file from its beginning, up to its end or to where it was cut. Where something cannot be decompressed there is a frame
/// of which only the beginning can be read, as long as it says it is, or as the first one is; a wrong guess is found out by the digests of
/// what comes after it. Says, too, whether the last one is the beginning of a frame that was cut.
pub(super) async fn frames(
    blob: Arc<dyn Blob>,
    codec: &'static dyn Codec,
    cx: &Context,
) -> Result<(Vec<FrameAt>, bool)> {
    let mut window = Window { blob, start: 0, bytes: Bytes::new() };
    let (mut frames, mut packed, mut raw) = (Vec::new(), codec.head().len() as u64, 0u64);
    let mut usual = None;
    loop {
        alive(cx)?;
        let bytes = window.starting_at(packed).await?;
        if let Some(lengths) = whole_frame(codec, &bytes).await? {
            frames.push(FrameAt { packed, raw, lengths });
            usual.get_or_insert(lengths.raw);
            packed += u64::from(codec.stored(lengths.packed));
            raw += u64::from(lengths.raw);
            continue;
        }
        let content = codec.promised(&bytes).or(usual).unwrap_or(USUAL);
        let Some(next) = next_frame(&mut window, codec, packed + 1, cx).await? else {
            let (ended, lengths) = beginning(codec, bytes).await?;
            if lengths.raw > 0 {
                frames.push(FrameAt { packed, raw, lengths });
            }
            return Ok((frames, ended == Ended::Cut && lengths.raw > 0));
        };
        let length = (next - packed).min(LARGEST_FRAME.into()) as u32;
        frames.push(FrameAt { packed, raw, lengths: Lengths { packed: length, raw: content } });
        packed = next;
        raw += u64::from(content);
    }
}

/// Where the next frame begins that can be read.
async fn next_frame(
    window: &mut Window,
    codec: &'static dyn Codec,
    mut from: u64,
    cx: &Context,
) -> Result<Option<u64>> {
    loop {
        alive(cx)?;
        let bytes = window.starting_at(from).await?;
        let searched = bytes.clone();
        let found = tokio::task::spawn_blocking(move || codec.find_frame(&searched));
        match found.await.map_err(panicked)? {
            None if bytes.len() < LARGEST_FRAME as usize => return Ok(None),
            // The last bytes may be the beginning of one.
            None => from += bytes.len() as u64 - 64,
            Some(at) => {
                from += at as u64;
                let there = window.starting_at(from).await?;
                if whole_frame(codec, &there).await?.is_some() {
                    return Ok(Some(from));
                }
                from += 1;
            }
        }
    }
}

/// The frame at the beginning of these bytes, if it is whole and right.
async fn whole_frame(codec: &'static dyn Codec, bytes: &Bytes) -> Result<Option<Lengths>> {
    let bytes = bytes.clone();
    let tried = tokio::task::spawn_blocking(move || {
        let lengths = codec.lengths_at(&bytes).filter(|l| l.packed > 0 && l.raw > 0)?;
        let frame = bytes.get(..codec.stored(lengths.packed) as usize)?;
        codec.decode(frame, lengths, &mut Vec::new()).ok().map(|()| lengths)
    });
    tried.await.map_err(panicked)
}

/// What can be read of a frame that is cut or damaged.
async fn beginning(codec: &'static dyn Codec, rest: Bytes) -> Result<(Ended, Lengths)> {
    let tried = tokio::task::spawn_blocking(move || {
        let mut raw = Vec::new();
        let ended = codec.decode_beginning(&rest, &mut raw);
        (ended, Lengths { packed: rest.len() as u32, raw: raw.len() as u32 })
    });
    tried.await.map_err(panicked)
}

fn panicked(e: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Panicked, "decompress a frame", e)
}

/// A piece of the file that moves on.
struct Window {
    blob: Arc<dyn Blob>,
    start: u64,
    bytes: Bytes,
}

impl Window {
    /// What stands from here on: a whole frame at least, or all that there is.
    async fn starting_at(&mut self, at: u64) -> Result<Bytes> {
        let end = self.blob.bytes();
        let at = at.min(end);
        let skip = at.checked_sub(self.start).map(|n| n as usize).filter(|n| *n <= self.bytes.len());
        let rest = skip.map(|n| self.bytes.slice(n..)).unwrap_or_default();
        let wanted = (end - at).min(LARGEST_FRAME.into()) as usize;
        self.start = at;
        self.bytes = if rest.len() < wanted {
            let from = at + rest.len() as u64;
            let more = (end - from).min(LARGEST_FRAME.into()) as usize;
            let read = self.blob.read_at(from, more).await?;
            if rest.is_empty() { read } else { [rest, read].concat().into() }
        } else {
            rest
        };
        Ok(self.bytes.slice(..wanted))
    }
}
