//! What is put comes back the same.

use super::ArchiveFixture;
use crate::{
    Must,
    conformance::pouring::{assert_reads_back, back_up},
    make::{self, chunked, directory, file, hostile_names, link, noise, richly_attributed, sparse, streamed},
    memory::MemorySource,
};
use backup_core::{Context, Entry, Kind, Posix, Stage, State};
use bytes::Bytes;

async fn round_trip(make: &impl ArchiveFixture, source: &MemorySource, cx: &Context) {
    let fresh = make.fresh().await;
    let summary = back_up(&*fresh.archive, source, cx).await.must("make the backup");
    assert_eq!(summary.state, State::Complete);
    assert_reads_back(&*fresh.reopened(), &summary, source, cx).await;
}

/// Newlines, bytes that are not UTF-8, names of the format's own members, long and deep paths.
pub async fn hostile_names_are_kept_byte_for_byte(make: &impl ArchiveFixture) {
    let mut source = MemorySource::new("names");
    for name in hostile_names() {
        source = source.with_file(name.clone(), [b"content of ", &name[..]].concat());
    }
    round_trip(make, &source, &Context::default()).await;
}

/// No bytes, in memory, streamed and of unknown size; and no entries at all.
pub async fn empty_files_and_an_empty_component_are_kept(make: &impl ArchiveFixture) {
    let source = MemorySource::new("files")
        .with_file("empty", "")
        .with(file("streamed").sized(0), || streamed("", 1))
        .with(file("unknown"), || streamed("", 1));
    round_trip(make, &source, &Context::default()).await;
    round_trip(make, &MemorySource::new("nothing"), &Context::default()).await;
}

/// Modes, large owners, times before 1970 and between seconds, extended attributes of any bytes.
pub async fn attributes_are_kept_to_the_nanosecond_and_byte(make: &impl ArchiveFixture) {
    let mut source = MemorySource::new("files").with_bytes(richly_attributed("rich").sized(3), "abc");
    let times = [(0, 0), (-1, 1), (1 << 33, 999_999_999), (-62_135_596_800, 0), (1_700_000_000, 10)];
    for (i, mtime) in times.into_iter().enumerate() {
        let posix = Posix { mode: 0o644, mtime, uid: i as u64, ..Posix::default() };
        source = source.with_bytes(Entry { posix: Some(posix), ..file(format!("time {i}")).sized(1) }, "t");
    }
    let rich_directory = Entry { stage: Stage::Complete, kind: Kind::Directory, ..richly_attributed("d") };
    round_trip(make, &source.with_empty(rich_directory), &Context::default()).await;
}

/// Attributes that only the store understands; entries without any; all three stages.
pub async fn attributes_of_a_store_and_all_stages_are_kept(make: &impl ArchiveFixture) {
    let store = serde_json::json!({ "content-type": "text/\u{e9}", "tags": { "a\n": ["b", 1, null] } });
    let object = Entry { store: Some(store), ..file("bucket/key").sized(3) };
    let source = MemorySource::new("db")
        .with_bytes(Entry::file("schema.sql", Stage::Prepare).sized(6), "create")
        .with_bytes(object, "abc")
        .with(file("rows.copy"), || streamed("1\n2\n", 2))
        .with_bytes(Entry::file("indexes.sql", Stage::Complete).sized(5), "index");
    round_trip(make, &source, &Context::default()).await;
}

/// Links of both kinds, pipes, devices, directories, the component's own folder.
pub async fn every_kind_of_entry_is_kept(make: &impl ArchiveFixture) {
    let special = |kind, path: &'static str, device| {
        let posix = Posix { mode: 0o660, gid: 6, mtime: (77, 8), device, ..Posix::default() };
        Entry { kind, posix: Some(posix), ..file(path) }
    };
    let source = MemorySource::new("files")
        .with_bytes(richly_attributed("d/file").sized(4), "file")
        .with_empty(link(Kind::Symlink, "d/dangling", &b"../../nowhere\n\xff"[..]))
        .with_empty(link(Kind::Symlink, "d/absolute", "/etc/passwd"))
        .with_empty(link(Kind::Symlink, "d/long", vec![b'l'; 1000]))
        .with_empty(special(Kind::Fifo, "d/pipe", None))
        .with_empty(special(Kind::CharDevice, "d/null", Some((1, 3))))
        .with_empty(special(Kind::BlockDevice, "d/disk", Some((259, 1_048_575))))
        .with_empty(link(Kind::HardLink, "d/same", "d/file"))
        .with_empty(directory("d/empty", 0o1777))
        .with_empty(directory("d", 0o2750))
        .with_empty(directory("", 0o700));
    round_trip(make, &source, &Context::default()).await;
}

/// The path is empty: the component is not a folder.
pub async fn a_component_that_is_one_file_is_kept(make: &impl ArchiveFixture) {
    let source = MemorySource::new("config").with_bytes(richly_attributed("").sized(7), "a = 1\n\n");
    round_trip(make, &source, &Context::default()).await;
}

/// Holes at the beginning, in the middle, at the end, and nothing but a hole. Extents are aligned to 4096 bytes, as file
/// systems report them.
pub async fn sparse_entries_keep_their_extents(make: &impl ArchiveFixture) {
    let mut source = MemorySource::new("files");
    type Case = (&'static str, &'static [(u64, u64)], u64);
    let cases: [Case; 5] = [
        ("middle", &[(0, 4096), (1 << 20, 8192)], (1 << 20) + 8192),
        ("both ends", &[(65_536, 4096), (3 << 20, 4096)], 8 << 20),
        ("nothing", &[], 1 << 20),
        ("odd end", &[(4096, 4096), (40_960, 100)], 41_060),
        ("many", &[(0, 4096), (8192, 4096), (16_384, 4096), (24_576, 4096), (32_768, 4096)], 1 << 20),
    ];
    for (name, extents, size) in cases {
        let (entry, bytes) = sparse(name, extents, size);
        source = source.with(entry, move || streamed(bytes.clone(), 5000));
    }
    round_trip(make, &source, &Context::default()).await;
}

/// No task, segment or frame for each of them.
pub async fn a_hundred_thousand_tiny_entries_are_kept(make: &impl ArchiveFixture) {
    let mut source = MemorySource::new("mail");
    for i in 0..100_000u32 {
        let text = Bytes::from(i.to_string());
        let entry = file(format!("{:03}/{i}", i % 500)).sized(text.len() as u64);
        source = source.with_bytes(entry, text);
    }
    round_trip(make, &source, &Context::default()).await;
}

/// 40 MiB in chunks of 64 KiB, the length known to nobody before the end; beside one of known size.
pub async fn an_entry_of_unknown_size_larger_than_any_segment_is_kept(make: &impl ArchiveFixture) {
    let slow = Entry { slow: true, ..file("dump.sql") };
    let source = MemorySource::new("db")
        .with(slow, || chunked(40 << 20, 64 << 10, 1))
        .with(file("known").sized(9_000_001), || make::streamed(noise(9_000_001, 2), 100_000));
    round_trip(make, &source, &Context::default()).await;
}
