//! What is stored is not always what was written.

use super::{ArchiveFixture, Fresh, Raw};
use crate::{
    Must,
    conformance::pouring::{back_up, read_back},
    make::{file, noise, richly_attributed, streamed},
    memory::{Contents, MemorySource, differences},
    not_applicable,
};
use backup_core::{BackupSummary, Context, Depth, Selection};
use std::time::Duration;

/// Positions that are damaged in each piece.
const SAMPLES: u64 = 24;

fn source() -> MemorySource {
    let mut source = MemorySource::new("c").with_bytes(richly_attributed("rich").sized(3), "abc");
    for i in 0..20u64 {
        source = source.with_file(format!("tiny {i}"), format!("tiny {i}"));
    }
    source.with(file("noise"), || streamed(noise(1 << 20, 6), 100_000))
}

/// What a restore of a damaged archive comes to.
enum Outcome {
    /// Somebody said that it is damaged.
    Found,
    /// Nobody did, and every byte is right.
    Harmless,
}

async fn outcome(fresh: &Fresh, made: &BackupSummary, expected: &Contents, what: &str) -> Outcome {
    let cx = Context::default();
    let read = async {
        let archive = fresh.reopened();
        if !archive.list(&cx).await?.iter().any(|s| s.id == made.id && s.state == made.state) {
            return Ok(None);
        }
        let reader = archive.open(&made.id, &cx).await?;
        let defects = reader.check_structure(Depth::Full, &cx).await?;
        let proof = reader.manifest().component("c").map(|c| c.proof.clone());
        let read = read_back(&reader, "c", Selection::All, |sink| sink, &cx).await?;
        Ok::<_, backup_core::Error>(Some((defects, proof, read)))
    };
    let read = tokio::time::timeout(Duration::from_secs(30), read).await;
    match read.must(&format!("{what}: reading a damaged archive ends")) {
        Err(_) | Ok(None) => Outcome::Found,
        Ok(Some((defects, proof, read))) => {
            let wrong: Vec<_> = read
                .contents
                .iter()
                .filter(|(path, held)| {
                    !expected.get(*path).is_some_and(|want| {
                        let one =
                            |held: &crate::memory::Held| Contents::from([((*path).clone(), held.clone())]);
                        differences(&one(want), &one(held)).is_empty()
                    })
                })
                .map(|(path, _)| backup_core::display_path(path))
                .collect();
            let compared =
                proof.is_some_and(|p| backup_core::compare(&p, &read.proof, &|_, _| false).is_empty());
            if read.lost > 0 || !defects.is_empty() || !compared {
                // Content that no digest covers must not slip through beside what was found.
                let content = |path: &&String| !path.starts_with("rich");
                assert_eq!(wrong.iter().find(content), None, "{what}: damaged bytes were given out as data");
                return Outcome::Found;
            }
            assert_eq!(wrong, Vec::<String>::new(), "{what}: nobody noticed, and the data is wrong");
            assert_eq!(
                read.contents.len(),
                expected.len(),
                "{what}: nobody noticed, and entries are missing"
            );
            Outcome::Harmless
        }
    }
}

async fn prepared(make: &impl ArchiveFixture) -> (Fresh, BackupSummary, Contents) {
    let fresh = make.fresh().await;
    let made = back_up(&*fresh.archive, &source(), &Context::default()).await.must("make the backup");
    (fresh, made, source().contents().await)
}

fn largest(raw: &dyn Raw) -> String {
    raw.pieces().into_iter().max_by_key(|(_, length)| *length).must("a piece of the archive").0
}

/// Found, or harmless because another copy says the same; a flip in the middle of the data is always found.
pub async fn a_flipped_byte_is_never_read_as_data(make: &impl ArchiveFixture) {
    let (fresh, made, expected) = prepared(make).await;
    let Some(raw) = fresh.raw() else {
        return not_applicable("a_flipped_byte_is_never_read_as_data", "its bytes cannot be reached");
    };
    assert!(
        matches!(outcome(&fresh, &made, &expected, "sound").await, Outcome::Harmless),
        "it is damaged before"
    );
    let largest = largest(raw);
    for (name, length) in raw.pieces().into_iter().filter(|(_, length)| *length > 0) {
        let sound = raw.read(&name);
        let mut positions: Vec<u64> = (0..SAMPLES).map(|i| i * (length - 1) / (SAMPLES - 1)).collect();
        positions.push(length / 2);
        positions.dedup();
        for at in positions {
            let mut bytes = sound.clone();
            bytes[at as usize] ^= 0x20;
            raw.write(&name, Some(&bytes));
            let what = format!("{name}, byte {at} of {length}");
            let outcome = outcome(&fresh, &made, &expected, &what).await;
            if name == largest && at == length / 2 {
                assert!(matches!(outcome, Outcome::Found), "{what}: a flip in the data was not found");
            }
        }
        raw.write(&name, Some(&sound));
    }
    assert!(
        matches!(outcome(&fresh, &made, &expected, "mended").await, Outcome::Harmless),
        "it is damaged after"
    );
}

/// A copy that was cut off, an object that is gone.
pub async fn a_cut_or_missing_piece_is_never_read_as_data(make: &impl ArchiveFixture) {
    let (fresh, made, expected) = prepared(make).await;
    let Some(raw) = fresh.raw() else {
        return not_applicable("a_cut_or_missing_piece_is_never_read_as_data", "its bytes cannot be reached");
    };
    let largest = largest(raw);
    for (name, length) in raw.pieces() {
        let sound = raw.read(&name);
        let cuts = [
            None,
            Some(0),
            Some(length / 3),
            Some(length / 2),
            length.checked_sub(700),
            length.checked_sub(1),
        ];
        for cut in cuts {
            let kept = cut.map(|n| &sound[..n as usize]);
            raw.write(&name, kept);
            let what = format!("{name}, {cut:?} of {length} bytes left");
            let outcome = outcome(&fresh, &made, &expected, &what).await;
            if name == largest && cut.is_none_or(|n| n <= length / 2) {
                assert!(
                    matches!(outcome, Outcome::Found),
                    "{what}: that half of the data is gone was not found"
                );
            }
            raw.write(&name, Some(&sound));
        }
    }
    assert!(
        matches!(outcome(&fresh, &made, &expected, "mended").await, Outcome::Harmless),
        "it is damaged after"
    );
}
