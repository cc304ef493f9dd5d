//! Small files that ask for much memory. Each is opened by a process of its own, whose memory is measured.

use crate::{
    forge::{Forge, Line, sha},
    frames::{frame, seek_table},
    world::{World, refused_file},
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

/// More than any sound archive needs.
const MOST: u64 = 400 << 20;

#[test]
#[ignore = "a process that the tests start"]
fn child() {
    let (Ok(path), Ok(why)) = (std::env::var("HOSTILE_ARCHIVE"), std::env::var("HOSTILE_WHY")) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(refused_file(&World::new(), Path::new(&path), &why));
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak << 10 < MOST, "{peak} KiB were needed");
}

fn refused_in_little_memory(path: &Path, why: &str) {
    let out = Command::new("sh")
        .args(["-c", "ulimit -v 4000000 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "bombs::child", "--ignored", "--nocapture"])
        .envs([("HOSTILE_ARCHIVE", path.to_str().unwrap()), ("HOSTILE_WHY", why)])
        .output()
        .unwrap();
    let told = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&told));
    assert!(String::from_utf8_lossy(&told).contains("1 passed"), "the child did nothing");
}

fn saved(world: &World, archive: &[u8]) -> PathBuf {
    world.save(archive)
}

fn sound() -> Forge {
    let mut forge = Forge::new("zstd");
    forge.file("a", b"hello");
    forge.node("directory", "", None);
    forge
}

#[test]
fn a_shard_of_a_gibibyte_is_refused() {
    // It is there, in frames of 64 MiB of zeros.
    let world = World::new();
    let mut forge = sound();
    forge.shards();
    let begin = forge.tar.len() as u64;
    let length = 1u64 << 30;
    let head = crate::forge::header(b"index/000001.jsonl", b'0', 0o600, length, b"");
    forge.tar.extend_from_slice(&head);
    let real = forge.tar.len();
    forge.own.push(json!(["index/000001.jsonl", begin, 512, length, sha(b"?")]));
    let mut manifest = forge.manifest();
    manifest["layout"]["end"] = (real as u64 + length).into();
    let manifest = manifest.to_string();
    let (tar, _) = forge.whole_tar(manifest.as_bytes());
    // The locator must say where the manifest is behind the zeros.
    let offset = real as u64 + length;
    let locator = String::from_utf8(tar[tar.len() - 1536..tar.len() - 1024].to_vec()).unwrap();
    let mut locator = locator.replace(&format!("offset {real}\n"), &format!("offset {offset}\n"));
    locator.truncate(512);
    let mut last = tar[tar.len() - 2048..].to_vec();
    last[512..1024].copy_from_slice(&[locator.as_bytes(), &[b'\n'; 32]].concat()[..512]);
    let zeros = frame(&vec![0; 16 << 20]);
    let mut frames = vec![(frame(&tar[..real]), real as u32)];
    frames.extend(std::iter::repeat_n((zeros, 16 << 20), 64));
    let rest = &tar[real..tar.len() - 2048];
    frames.push((frame(rest), rest.len() as u32));
    frames.push((frame(&last), 2048));
    refused_in_little_memory(&stored(&world, &frames), "a part of 1073741824 bytes is impossible");
}

fn stored(world: &World, frames: &[(Vec<u8>, u32)]) -> PathBuf {
    let path = world.dir.path().join("x.tar.zst");
    let mut file = fs::File::create(&path).unwrap();
    frames.iter().for_each(|(frame, _)| file.write_all(frame).unwrap());
    let lengths: Vec<(u32, u32)> = frames.iter().map(|(frame, raw)| (frame.len() as u32, *raw)).collect();
    file.write_all(&seek_table(&lengths)).unwrap();
    path
}

#[test]
fn a_frame_that_is_larger_than_it_says_is_refused() {
    let world = World::new();
    let forge = sound();
    let mut frames = pieces(forge);
    // It says 4 MiB in the table, and holds 256 MiB.
    frames.insert(0, (frame(&vec![0; 256 << 20]), 4 << 20));
    refused_in_little_memory(&stored(&world, &frames), "");
    // The same in the frame's own header: content size 4 MiB (FCS), the blocks go on.
    let mut liar = frame(&vec![0; 256 << 20]);
    let at = liar.windows(4).position(|w| w == (256u32 << 20).to_le_bytes()).expect("a size of four bytes");
    liar[at..at + 4].copy_from_slice(&(4u32 << 20).to_le_bytes());
    let mut frames = pieces(sound());
    frames[0] = (liar, 4 << 20);
    refused_in_little_memory(&stored(&world, &frames), "");
}

fn pieces(mut forge: Forge) -> Vec<(Vec<u8>, u32)> {
    forge.shards();
    let manifest = forge.manifest().to_string();
    let (tar, cuts) = forge.whole_tar(manifest.as_bytes());
    let begins = [&[0], &cuts[..]].concat();
    begins.windows(2).map(|w| (frame(&tar[w[0]..w[1]]), (w[1] - w[0]) as u32)).collect()
}

#[test]
fn a_manifest_of_a_hundred_megabytes_is_refused() {
    let world = World::new();
    let archive = sound().finish_with(|m| m["note"] = "x".repeat(100_000_000).into());
    refused_in_little_memory(&saved(&world, &archive), "is impossible");
}

#[test]
fn a_manifest_of_very_many_values_is_refused() {
    let world = World::new();
    let mut forge = sound();
    forge.shards();
    let mut manifest = forge.manifest();
    manifest["metadata"] = json!({ "x": "zeros" });
    let zeros = format!("[{}0]", "0,".repeat(30_000_000));
    let archive = forge.finish_as(manifest.to_string().replace("\"zeros\"", &zeros).as_bytes());
    refused_in_little_memory(&saved(&world, &archive), "too many values");
}

#[test]
fn a_line_of_very_many_values_or_members_is_refused() {
    let world = World::new();
    let mut forge = sound();
    let line = forge.file_line("x", b"1").set("st", json!(vec![0; 7_000_000]));
    forge.line(&line);
    refused_in_little_memory(&saved(&world, &forge.finish()), "too many values");
    let mut forge = sound();
    let line = forge.file_line("x", b"1").set("at", Value::from(vec![json!([512, 512, 0]); 1_000_000]));
    forge.line(&line);
    refused_in_little_memory(&saved(&world, &forge.finish()), "too many values");
    let mut forge = sound();
    let line = forge.file_line("x", b"1").set("at", Value::from(vec![json!([0, 512, 0]); 10_000_000]));
    forge.line(&line);
    refused_in_little_memory(&saved(&world, &forge.finish()), "is impossible");
}

#[test]
fn a_path_of_a_million_folders_is_refused() {
    let world = World::new();
    let mut forge = sound();
    let path = format!("{}x", "a/".repeat(1_000_000));
    let at = forge.member(&crate::forge::header(b"x", b'0', 0o600, 0, b""), b"");
    let line = Line::new("file", &path).set("n", 0).set("h", sha(b"")).set("s", "complete");
    forge.line(&line.set("at", json!([at])));
    refused_in_little_memory(&saved(&world, &forge.finish()), "its path is too long");
}

#[test]
fn a_header_of_a_hundred_megabytes_in_the_tar_is_a_defect_and_is_not_read() {
    let world = World::new();
    let mut forge = sound();
    let value = "x".repeat(100_000_000);
    let headers = [
        crate::forge::pax("x", &[("comment", &value)]),
        crate::forge::header(b"files/data/x", b'0', 0o600, 1, b""),
    ];
    let at = forge.member(&headers.concat(), b"1");
    let line = Line::new("file", "x").set("n", 1).set("h", sha(b"1")).set("s", "complete");
    forge.line(&line.set("at", json!([at])));
    let path = saved(&world, &forge.finish());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // The index says nothing wrong, and a restore goes by it: the header is not even read to see that it is too long.
    runtime.block_on(async {
        let reader = world.open(&path).await.unwrap();
        let defects = world.defects(&reader).await;
        assert!(defects.iter().any(|d| d.contains("not as long as it should be")), "{defects:?}");
        world.restore(&reader).await.unwrap();
    });
}
