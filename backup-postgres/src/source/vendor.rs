//! Archives of `pg_dump -Fc`, made independent of the second in which they were written.

use super::watch::GaveWay;
use backup_core::{Content, Error, Facts, Part, Result};
use bytes::{Bytes, BytesMut};
use futures::stream;

const MAGIC: &[u8] = b"PGDMP";
/// Version, sizes and format after the magic.
const FIXED: usize = 11;
/// Second, minute, hour, day, month, year since 1900 and daylight saving: the first of January 2000.
const TIME: [u8; 7] = [0, 0, 0, 1, 0, 100, 0];

/// How every archive ends: a block of data of length zero, or an offset that was not set.
const END: [u8; 5] = [0; 5];

/// The same archive with a fixed time of creation, so that a database that has not changed gives the same bytes. The time is
/// for people only; the manifest has the true one. One that does not end as an archive does is an error, and so is the rest of one
/// that gives way.
pub(super) fn archive(content: Content, gave_way: GaveWay) -> Content {
    let state = Archive { content, gave_way, begun: false, tail: Vec::new() };
    Content::stream(stream::unfold(Some(state), |state| async {
        let mut state = state?;
        match state.next().await {
            Ok(Some(bytes)) => Some((Ok(Part::Bytes(bytes)), Some(state))),
            Ok(None) => Some((Ok(Part::End(Facts::new())), None)),
            Err(e) => Some((Err(e), None)),
        }
    }))
}

struct Archive {
    content: Content,
    gave_way: GaveWay,
    begun: bool,
    tail: Vec<u8>,
}

impl Archive {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(e) = self.gave_way.why() {
            return Err(e);
        }
        let next = match self.begun {
            false => head(&mut self.content).await?,
            true => self.content.next().await?,
        };
        self.begun = true;
        let Some(bytes) = next else {
            return match self.tail.ends_with(&END) {
                true => Ok(None),
                false => Err(Error::damaged("read what pg_dump wrote", "it ends in the middle: it was cut")),
            };
        };
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(END.len())..]);
        let excess = self.tail.len().saturating_sub(END.len());
        self.tail.drain(..excess);
        Ok(Some(bytes))
    }
}

/// The first bytes, with the time in them; they may come in pieces.
async fn head(content: &mut Content) -> Result<Option<Bytes>> {
    let mut head = BytesMut::new();
    loop {
        if let Some(at) = time_at(&head)?
            && let Some(time) = head.get_mut(at.0..at.0 + at.1 * TIME.len())
        {
            // Each number is a sign and so many bytes, the lowest first.
            for (number, value) in time.chunks_exact_mut(at.1).zip(TIME) {
                number.fill(0);
                number[1] = value;
            }
            return Ok(Some(head.freeze()));
        }
        match content.next().await? {
            Some(bytes) => head.extend_from_slice(&bytes),
            None => return Err(Error::damaged("read what pg_dump wrote", "it is too short for an archive")),
        }
    }
}

/// Where the time begins and how long a number is; `None`: more is needed.
fn time_at(head: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(fixed) = head.get(..FIXED) else { return Ok(None) };
    let (major, minor, size) = (fixed[5], fixed[6], usize::from(fixed[8]));
    if !fixed.starts_with(MAGIC) || major != 1 || size != 4 {
        return Err(Error::damaged("read what pg_dump wrote", "this is no archive of a kind that is known"));
    }
    // Since 1.15 the kind of compression is one byte; before it was a number.
    let compression = if minor >= 15 { 1 } else { 1 + size };
    Ok(Some((FIXED + compression, 1 + size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(pieces: Vec<Bytes>) -> Result<Vec<u8>> {
        let parts = pieces.into_iter().map(|b| Ok(Part::Bytes(b))).chain([Ok(Part::End(Facts::new()))]);
        let parts = Content::stream(stream::iter(parts.collect::<Vec<_>>()));
        let mut content = archive(parts, GaveWay::default());
        let mut out = Vec::new();
        while let Some(bytes) = content.next().await? {
            out.extend_from_slice(&bytes);
        }
        Ok(out)
    }

    #[tokio::test]
    async fn only_the_time_is_changed_whatever_pieces_it_comes_in() {
        for (minor, compression) in [(14, 5), (15, 1), (16, 1)] {
            let mut archive = [b"PGDMP".as_slice(), &[1, minor, 0, 4, 8, 1], &vec![7; compression]].concat();
            let time = archive.len();
            archive.extend([9; 35]);
            archive.extend(b"the rest\0\0\0\0\0");
            for piece in [1, 10, 13, 1000] {
                let out = read(archive.chunks(piece).map(Bytes::copy_from_slice).collect()).await.unwrap();
                assert_eq!((&out[..time], &out[time + 35..]), (&archive[..time], &b"the rest\0\0\0\0\0"[..]));
                assert_eq!(out[time..time + 35][15..20], [0, 1, 0, 0, 0]);
            }
        }
        let cut = [b"PGDMP".as_slice(), &[1, 16, 0, 4, 8, 1], &[7; 36], b"a row\0\0\0\0"].concat();
        assert!(read(vec![cut.into()]).await.unwrap_err().to_string().contains("cut"));
        assert!(read(vec!["PGDMP".into()]).await.is_err());
        assert!(read(vec!["-- PostgreSQL database dump".into()]).await.is_err());
    }
}
