//! Parts of a place that cannot be read: zeros stand for them, and it is known where they are.

use crate::{Error, ErrorKind, Result, destination::Blob};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

/// What a disk cannot read is found in steps of this.
const DISK_BLOCK: u64 = 4 << 10;
/// So many reads may fail before the rest of what is asked for is halved no further: a dying disk takes seconds for each.
const PATIENCE: usize = 64;

/// Bytes of which some are lost.
pub(in crate::portable) struct Holes {
    inner: Arc<dyn Blob>,
    block: u64,
    /// Numbers of blocks, from and to before which. What was lost once is not tried again.
    lost: Mutex<BTreeMap<u64, u64>>,
}

impl Holes {
    /// Of a file on a disk. One of which nothing can be read does not answer, which says nothing of the file.
    pub(in crate::portable) async fn on_disk(inner: Arc<dyn Blob>) -> Result<Arc<Self>> {
        let last = inner.bytes().saturating_sub(1);
        for at in [0, last / 2, last] {
            match inner.read_at(at, inner.bytes().min(1) as usize).await {
                Err(e) if at == last || !is_lost(&e) => return Err(e),
                Err(_) => {}
                Ok(_) => break,
            }
        }
        Ok(Self::of(inner, DISK_BLOCK))
    }

    /// Of what is lost in blocks of this length.
    pub(in crate::portable) fn of(inner: Arc<dyn Blob>, block: u64) -> Arc<Self> {
        Arc::new(Holes { inner, block, lost: Mutex::default() })
    }

    /// Where the first hole begins that was met in this range.
    pub(in crate::portable) fn first(&self, from: u64, to: u64) -> Option<u64> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let around =
            lost.range(..=from / self.block).next_back().filter(|(_, end)| **end > from / self.block);
        let first = around.or_else(|| lost.range(from / self.block..).next());
        first.map(|(block, _)| (block * self.block).max(from)).filter(|at| *at < to)
    }

    fn lose(&self, from: u64, to: u64) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut start, mut end) = (from / self.block, to.div_ceil(self.block));
        // One with what it touches.
        while let Some((other, its_end)) = lost.range(..=end).next_back().map(|(a, b)| (*a, *b)) {
            if its_end < start {
                break;
            }
            lost.remove(&other);
            (start, end) = (start.min(other), end.max(its_end));
        }
        lost.insert(start, end);
    }

    /// Reads what has no hole yet.
    async fn read_known(&self, at: u64, length: u64) -> Result<Known> {
        if self.first(at, at + length).is_some() {
            return Ok(Known::Hole);
        }
        match self.inner.read_at(at, length as usize).await {
            Err(e) if is_lost(&e) => Ok(Known::Failed),
            read => read.map(Known::Bytes),
        }
    }
}

enum Known {
    Bytes(Bytes),
    /// Of some of it that was known before.
    Hole,
    Failed,
}

#[async_trait::async_trait]
impl Blob for Holes {
    fn bytes(&self) -> u64 {
        self.inner.bytes()
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let Some(end) = offset.checked_add(length as u64).filter(|end| *end <= self.bytes()) else {
            return self.inner.read_at(offset, length).await;
        };
        // Larger parts first: where reads are dear, all of it is known about before any of it is known well.
        let (mut came, mut failed) = (vec![0; length], 0);
        let mut left = VecDeque::from([(offset, end)]);
        while let Some((from, to)) = left.pop_front() {
            let known = self.read_known(from, to - from).await?;
            failed += usize::from(matches!(known, Known::Failed));
            let middle = ((from + to) / 2 / self.block).max(from / self.block + 1) * self.block;
            match known {
                Known::Bytes(bytes) if bytes.len() == length => return Ok(bytes),
                Known::Bytes(bytes) => {
                    came[(from - offset) as usize..(to - offset) as usize].copy_from_slice(&bytes);
                }
                Known::Hole if middle < to => left.extend([(from, middle), (middle, to)]),
                Known::Failed if middle < to && failed <= PATIENCE => {
                    left.extend([(from, middle), (middle, to)]);
                }
                Known::Hole | Known::Failed => self.lose(from, to),
            }
        }
        Ok(came.into())
    }
}

/// A part that is lost, while others may be there. Of a place that does not answer none is.
fn is_lost(e: &Error) -> bool {
    e.kind() == ErrorKind::Damaged || is_read_error(e)
}

#[cfg(unix)]
fn is_read_error(e: &Error) -> bool {
    let under = std::error::Error::source(e).and_then(|e| e.downcast_ref::<std::io::Error>());
    under.is_some_and(|e| e.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()))
}

/// Elsewhere it is not told apart from a place that does not answer.
#[cfg(not(unix))]
fn is_read_error(_: &Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BackupReader, ComponentHeader, Content, Context, CreateComponent, CreateRequest, Entry, Facts,
        Moment, Ready, Series, Severity, Sink, Source, Stage, Stillness, View, create,
        encryption::Identities,
        portable::{
            PortableArchive, PortableOptions,
            salvage::{self, Beside},
        },
        put_stage,
    };
    use futures::TryStreamExt;
    use std::ops::Range;

    /// A file on a disk that cannot read a part of it.
    struct Worn(Vec<u8>, Range<u64>);

    #[async_trait::async_trait]
    impl Blob for Worn {
        fn bytes(&self) -> u64 {
            self.0.len() as u64
        }

        async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
            let end = offset + length as u64;
            if offset < self.1.end && end > self.1.start {
                return Err(Error::io(ErrorKind::Destination, "read", std::io::Error::from_raw_os_error(5)));
            }
            Ok(Bytes::copy_from_slice(&self.0[offset as usize..end as usize]))
        }
    }

    #[tokio::test]
    async fn what_a_disk_cannot_read_is_a_hole_and_what_is_around_it_is_there() {
        let worn = Arc::new(Worn(vec![7; 100_000], 40_960..45_000));
        let holes = Holes::on_disk(worn).await.unwrap();
        let read = holes.read_at(10, 99_000).await.unwrap();
        assert_eq!((read.len(), read.iter().filter(|b| **b == 0).count()), (99_000, 4096));
        assert_eq!((holes.first(0, 40_960), holes.first(41_000, 50_000)), (None, Some(41_000)));
        // Much of it: no more reads fail than are worth it, and what is known to be lost is not read again.
        let worn = Arc::new(Worn(vec![7; 4_000_000], 1_000_000..3_000_000));
        let holes = Holes::on_disk(worn).await.unwrap();
        for _ in 0..2 {
            let read = holes.read_at(0, 4_000_000).await.unwrap();
            assert!(read[..900_000].iter().chain(&read[3_100_000..]).all(|b| *b == 7));
            assert!(read.len() == 4_000_000 && read[1_000_000..3_000_000].iter().all(|b| *b == 0));
        }
        assert_eq!(holes.lost.lock().unwrap().len(), 1);
        assert_eq!(holes.first(2_000_000, 2_000_001), Some(2_000_000));
        let gone = Arc::new(Worn(vec![7; 100_000], 0..100_000));
        let e = Holes::on_disk(gone).await.err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Destination, "nothing is known of the file: {e}");
    }

    /// Forty files of noise.
    struct Noise;

    impl std::fmt::Display for Noise {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("noise")
        }
    }

    #[async_trait::async_trait]
    impl Source for Noise {
        async fn connect(&self, _cx: &Context) -> Result<Box<dyn Ready>> {
            Ok(Box::new(Noise))
        }
    }

    #[async_trait::async_trait]
    impl Ready for Noise {
        fn stillness(&self) -> Stillness {
            Stillness::None
        }

        async fn fix(self: Box<Self>, _cx: &Context) -> Result<Box<dyn View>> {
            Ok(self)
        }
    }

    #[async_trait::async_trait]
    impl View for Noise {
        fn moment(&self) -> Moment {
            Moment::now()
        }

        async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
            let mut state = 88_172_645_463_325_252_u64;
            let mut word = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            };
            let items = (0..40).map(|i| {
                let bytes: Vec<u8> = (0..25_000).flat_map(|_| word()).collect();
                Ok((Entry::file(format!("{i:02}"), Stage::Data), Content::whole(bytes)))
            });
            put_stage(&sink, cx, futures::stream::iter(items)).await?;
            Ok(Facts::new())
        }
    }

    async fn written(name: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let archive = PortableArchive::file(&path, PortableOptions::default()).unwrap();
        let header = ComponentHeader {
            name: "noise".into(),
            kind: "noise".into(),
            folder: "files".into(),
            origin: serde_json::Value::Null,
        };
        let request = CreateRequest {
            module: "noise".into(),
            series: Series("here:noise".into()),
            components: vec![CreateComponent { header, source: Box::new(Noise) }],
            ..CreateRequest::default()
        };
        create(request, &archive, &Context::default()).await.unwrap();
        std::fs::read(path).unwrap()
    }

    /// How many entries are there, and how many losses are told.
    async fn salvaged(file: &[u8], part: Range<u64>) -> (usize, usize) {
        let (blob, cx, nobody) =
            (Arc::new(Worn(file.to_vec(), part)), Context::default(), Identities::default());
        let opened = salvage::open(blob, "x".to_owned(), &nobody, Beside::default(), &cx).await;
        let there: Vec<_> = opened.unwrap().entries().try_collect().await.unwrap();
        let lost = cx.notes().list.iter().filter(|n| n.severity == Severity::Lost).count();
        (there.len(), lost)
    }

    #[tokio::test]
    async fn an_archive_of_which_a_disk_cannot_read_the_beginning_or_the_end_is_salvaged() {
        for name in ["x.tar", "x.tar.zst", "x.tar.gz", "x.tar.xz"] {
            let file = written(name).await;
            let end = file.len() as u64;
            assert_eq!(salvaged(&file, 0..0).await, (40, 0), "{name}");
            // 4 KiB of a plain tar are of two files at most; elsewhere the frame is lost from there on.
            let fewest = if name == "x.tar" { 38 } else { 15 };
            for part in [0..4096, 4_000_000..4_000_001, end - 4096..end, end - 65_536..end] {
                let (there, lost) = salvaged(&file, part.clone()).await;
                assert!((fewest..=40).contains(&there), "{name} {part:?}: {there} are there");
                assert!(lost > 0 || there == 40, "{name} {part:?}: {there} are there");
            }
        }
    }
}
