//! Frames and seek tables that lie.

use crate::{
    forge::Forge,
    frames::{frame, pack, seek_table},
    world::refused,
};

fn sound() -> Forge {
    let mut forge = Forge::new("zstd");
    forge.file("a", b"hello");
    forge.node("directory", "", None);
    forge.shards();
    forge
}

/// The frames of a sound archive, with the lengths of their contents.
fn frames() -> Vec<(Vec<u8>, u32)> {
    let forge = sound();
    let manifest = forge.manifest().to_string();
    let (tar, cuts) = forge.whole_tar(manifest.as_bytes());
    let begins = [&[0], &cuts[..]].concat();
    begins.windows(2).map(|w| (frame(&tar[w[0]..w[1]]), (w[1] - w[0]) as u32)).collect()
}

fn file(frames: &[(Vec<u8>, u32)], table: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = frames.iter().flat_map(|(frame, _)| frame.clone()).collect();
    out.extend_from_slice(table);
    out
}

fn table(frames: &[(Vec<u8>, u32)], change: impl FnOnce(&mut Vec<(u32, u32)>)) -> Vec<u8> {
    let mut list = frames.iter().map(|(frame, raw)| (frame.len() as u32, *raw)).collect();
    change(&mut list);
    seek_table(&list)
}

#[tokio::test]
async fn a_seek_table_that_lies_is_refused() {
    let frames = frames();
    let lying = |change: fn(&mut Vec<(u32, u32)>)| file(&frames, &table(&frames, change));
    refused(&lying(|t| t[0].0 = u32::MAX), "table of frames").await;
    refused(&lying(|t| t[0].1 = u32::MAX), "impossible size").await;
    refused(&lying(|t| t[0].1 = 0), "impossible size").await;
    refused(&lying(|t| t[0].0 += 1), "not as long as the file").await;
    refused(&lying(|t| t.swap(0, 1)), "").await;
    refused(&lying(|t| _ = t.remove(0)), "not as long as the file").await;
    refused(&lying(|t| t.insert(1, (0, 0))), "impossible size").await;
    refused(&lying(|t| t.clear()), "").await;
    refused(&lying(|t| t[0].1 += 512), "").await;
    refused(&lying(|t| t[0].1 -= 512), "").await;
}

#[tokio::test]
async fn a_seek_table_of_four_billion_frames_is_refused_before_it_is_read() {
    let frames = frames();
    let mut table = table(&frames, |_| {});
    let count = table.len() - 9;
    table[count..count + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    refused(&file(&frames, &table), "it is longer than it can be").await;
    let one_more = frames.len() as u32 + 1;
    table[count..count + 4].copy_from_slice(&one_more.to_le_bytes());
    refused(&file(&frames, &table), "table of frames").await;
}

#[tokio::test]
async fn a_seek_table_with_anything_unusual_is_refused() {
    let frames = frames();
    let good = table(&frames, |_| {});
    for (at, byte) in [(0, 0x5F), (4, 0), (good.len() - 5, 0x80), (good.len() - 5, 0x7C)] {
        let mut bad = good.clone();
        bad[at] = byte;
        refused(&file(&frames, &bad), "").await;
    }
}

#[tokio::test]
async fn what_stands_before_the_first_frame_or_between_two_is_refused() {
    let good = frames();
    for at in 0..=good.len() {
        let mut with = good.clone();
        let skippable = [&0x184D_2A50_u32.to_le_bytes()[..], &4u32.to_le_bytes(), b"evil"].concat();
        match at {
            0 => with[0].0.splice(0..0, skippable).for_each(drop),
            _ => with[at - 1].0.extend_from_slice(&skippable),
        }
        refused(&file(&with, &table(&with, |_| {})), "its length is not what the table of frames says").await;
        refused(&file(&with, &table(&good, |_| {})), "not as long as the file").await;
    }
}

#[tokio::test]
async fn every_file_that_is_cut_is_refused() {
    for compression in ["zstd", "none"] {
        let mut forge = sound();
        forge.compression = compression;
        let whole = forge.finish();
        for keep in (0..whole.len()).step_by(97) {
            refused(&whole[..keep], "").await;
        }
    }
}

#[tokio::test]
async fn a_frame_may_hold_one_byte_and_no_more_frames_are_kept_than_needed() {
    let forge = sound();
    let manifest = forge.manifest().to_string();
    let (tar, _) = forge.whole_tar(manifest.as_bytes());
    // The locator must be a frame of its own: in pieces it is none.
    let cuts: Vec<usize> = (1..=tar.len()).collect();
    refused(&pack(&tar, &cuts), "no locator at the end").await;
}
