//! Archives of `pg_dump -Fc`, made independent of the second in which they were written.

use backup_core::{Content, Error, Facts, Part, Result};
use bytes::{Bytes, BytesMut};
use futures::stream;

const MAGIC: &[u8] = b"PGDMP";
/// Version, sizes and format after the magic.
const FIXED: usize = 11;
/// Second, minute, hour, day, month, year since 1900 and daylight saving: the first of January 2000.
const TIME: [u8; 7] = [0, 0, 0, 1, 0, 100, 0];

/// The same archive with a fixed time of creation, so that a database that has not changed gives the same bytes. The time is
/// for people only; the manifest has the true one.
pub(super) fn without_time(content: Content) -> Content {
    Content::stream(stream::unfold(Some((content, false)), |state| async {
        let (mut content, begun) = state?;
        let next = match begun {
            false => head(&mut content).await,
            true => content.next().await,
        };
        match next {
            Ok(Some(bytes)) => Some((Ok(Part::Bytes(bytes)), Some((content, true)))),
            Ok(None) => Some((Ok(Part::End(Facts::new())), None)),
            Err(e) => Some((Err(e), None)),
        }
    }))
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
        let mut content = without_time(Content::stream(stream::iter(parts.collect::<Vec<_>>())));
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
            archive.extend(b"the rest");
            for piece in [1, 10, 13, 1000] {
                let out = read(archive.chunks(piece).map(Bytes::copy_from_slice).collect()).await.unwrap();
                assert_eq!((&out[..time], &out[time + 35..]), (&archive[..time], &b"the rest"[..]));
                assert_eq!(out[time..time + 35][15..20], [0, 1, 0, 0, 0]);
            }
        }
        assert!(read(vec!["PGDMP".into()]).await.is_err());
        assert!(read(vec!["-- PostgreSQL database dump".into()]).await.is_err());
    }
}
