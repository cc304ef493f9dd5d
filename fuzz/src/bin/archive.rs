//! A whole archive: any bytes end in a verification with or without defects, or an error.
//!
//! Digests cannot be guessed. So an input that begins with `f` is made an archive here: lines of the index without their digests,
//! a line `--`, and the bytes of the tar before the index. Any other is opened as it is.
#![no_main]

use backup_core::{Context, Depth, Selection, portable::fuzzing, verify};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{cell::RefCell, time::Duration};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    thread_local! {
        static RUNTIME: RefCell<tokio::runtime::Runtime> =
            RefCell::new(tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime"));
    }
    let archive = match data.strip_prefix(b"f") {
        Some(rest) => forged(rest),
        None => data.to_vec(),
    };
    RUNTIME.with_borrow_mut(|runtime| runtime.block_on(look(archive.into())));
});

async fn look(archive: Bytes) {
    let Ok(reader) = fuzzing::open(archive).await else { return };
    let mut entries = reader.entries();
    while let Some(Ok(listed)) = entries.next().await {
        assert!(backup_core::is_entry_path(&listed.entry.path));
    }
    drop(entries);
    let cx = Context::new(64 << 20, 4);
    let _ = reader.check_structure(Depth::Quick, &cx).await;
    let _ = reader.component("data", Selection::All);
    // A file may claim more zeros than can be hashed: then it must be possible to stop.
    let cancel = cx.cancel.clone();
    let verified = verify(reader, Depth::Full, &cx);
    tokio::pin!(verified);
    tokio::select! {
        _ = &mut verified => {}
        () = tokio::time::sleep(Duration::from_secs(2)) => {
            cancel.cancel();
            let _ = verified.await;
        }
    }
}

fn forged(data: &[u8]) -> Vec<u8> {
    let at = data.windows(4).position(|w| w == b"\n--\n").unwrap_or(data.len());
    let (lines, tar) = (&data[..at], data.get(at + 4..).unwrap_or_default());
    let mut archive = Archive { tar: Vec::new(), own: Vec::new() };
    archive.own_member("metadata.json", b"{}");
    archive.own_member("RESTORE.md", b"#");
    archive.tar.extend_from_slice(tar);
    archive.pad();
    let mut index = Vec::new();
    for line in lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
        let digest = hex::encode(&Sha256::digest(line)[..8]);
        index.extend_from_slice(&line[..line.len() - 1]);
        index.extend_from_slice(format!(",\"d\":\"{digest}\"}}\n").as_bytes());
    }
    archive.own_member("index/000000.jsonl", &index);
    archive.finish()
}

struct Archive {
    tar: Vec<u8>,
    own: Vec<serde_json::Value>,
}

impl Archive {
    fn pad(&mut self) {
        self.tar.resize(self.tar.len().next_multiple_of(512), 0);
    }

    fn member(&mut self, name: &str, data: &[u8]) {
        let member = backup_core::tar::Member {
            path: name.into(),
            mode: 0o600,
            size: data.len() as u64,
            ..Default::default()
        };
        member.encode(&mut self.tar);
        self.tar.extend_from_slice(data);
        self.pad();
    }

    fn own_member(&mut self, name: &str, data: &[u8]) {
        let sha = hex::encode(Sha256::digest(data));
        self.own.push(json!([name, self.tar.len(), 512, data.len(), sha]));
        self.member(name, data);
    }

    fn finish(mut self) -> Vec<u8> {
        let end = self.tar.len();
        let time = "2025-08-11T09:16:28.5Z";
        let manifest = json!({
            "format": 1, "id": "01k2c8jv0zq4m0000000000000", "module": "m", "series": "s", "created": time,
            "finished": time, "host": "h", "state": "complete", "notes": [], "not_included": [],
            "components": [{
                "name": "data", "kind": "files", "folder": "files", "origin": null,
                "moment": { "first": time, "last": time }, "proof": [], "lost": 0,
            }],
            "layout": { "compression": "none", "end": end, "own": self.own },
        })
        .to_string();
        self.member("manifest.json", manifest.as_bytes());
        let locator = format!(
            "backup archive, format 1\nmanifest.json\noffset {end}\nlength {}\nsha256 {}\n",
            manifest.len(),
            hex::encode(Sha256::digest(manifest.as_bytes()))
        );
        self.member("locator", format!("{locator:\n<512}").as_bytes());
        self.tar.resize(self.tar.len() + 1024, 0);
        self.tar
    }
}
