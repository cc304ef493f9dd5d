//! Files that change while they are read.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use async_trait::async_trait;
use backup_core::{Content, Context, Entry, Error, Proof, Put, Result, Severity, Sink};
use common::*;
use std::{
    fmt, fs,
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

/// Takes everything, and does something to the source after the first bytes of every stream.
struct Meddling {
    meddle: Box<dyn Fn(usize) + Send + Sync>,
    tries: AtomicUsize,
    taken: Mutex<Vec<(Entry, Vec<u8>)>>,
}

impl fmt::Display for Meddling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("meddling")
    }
}

#[async_trait]
impl Sink for Meddling {
    async fn put(&self, entry: Entry, mut content: Content) -> Result<Put> {
        let stream = content.in_memory().is_none();
        let mut all = Vec::new();
        loop {
            match content.next().await {
                Ok(Some(bytes)) => {
                    if stream && all.is_empty() {
                        // The clock of a file system ticks every few milliseconds: two writes within one tick look like one.
                        std::thread::sleep(std::time::Duration::from_millis(30));
                        (self.meddle)(self.tries.fetch_add(1, Relaxed));
                    }
                    all.extend_from_slice(&bytes);
                }
                Ok(None) => break,
                Err(e) => return Ok(Put::Discarded(Error::to_string(&e).into())),
            }
        }
        self.taken.lock().unwrap().push((entry, all));
        Ok(Put::Stored)
    }

    async fn finish(&self, _: &Context) -> Result<Proof> {
        Ok(Proof::new())
    }
}

/// Backs up a file of 5 MiB while `meddle` is done to it in try number so and so.
async fn meddled(
    strict: bool,
    meddle: impl Fn(&Path, usize) + Send + Sync + 'static,
) -> (Done, Vec<u8>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, vec![b'a'; 5 << 20]).unwrap();
    let path = file.clone();
    let sink = Arc::new(Meddling {
        meddle: Box::new(move |n| meddle(&path, n)),
        tries: AtomicUsize::new(0),
        taken: Mutex::default(),
    });
    let mut config = config(&file);
    config.strict = strict;
    let done = pour(&config, sink.clone()).await;
    let taken = std::mem::take(&mut *sink.taken.lock().unwrap());
    assert_eq!(taken.len(), 1);
    let (entry, bytes) = taken.into_iter().next().unwrap();
    assert_eq!(entry.size, Some(bytes.len() as u64));
    (done, bytes, sink.tries.load(Relaxed))
}

fn rewrite(path: &Path, with: u8) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(&vec![with; 5 << 20]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_once_is_read_again() {
    let (done, bytes, tries) = meddled(false, |path, n| {
        if n == 0 {
            rewrite(path, b'b');
        }
    })
    .await;
    assert_eq!((done.lost, tries), (0, 2));
    assert!(bytes.iter().all(|b| *b == b'b'));
    assert_eq!(done.notes.list, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_all_the_time_is_stored_with_a_warning_after_three_tries() {
    for strict in [false, true] {
        let (done, _, tries) = meddled(strict, |path, n| rewrite(path, b'b' + n as u8)).await;
        assert_eq!((done.lost, tries), (0, 3));
        let severity = if strict { Severity::Lost } else { Severity::Warning };
        assert!(done.says(severity, "changed while it was read"), "{:?}", done.notes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grew_is_stored_up_to_its_size_at_open() {
    let (done, bytes, tries) = meddled(false, |path, _| {
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"a line").unwrap();
    })
    .await;
    assert_eq!((bytes.len(), tries), (5 << 20, 1));
    assert!(done.says(Severity::Note, "grew"), "{:?}", done.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shrank_in_the_last_try_is_filled_up_with_zeros() {
    let (done, bytes, tries) = meddled(false, |path, n| {
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len((4 - n as u64) << 20).unwrap();
    })
    .await;
    assert_eq!((tries, bytes.len()), (3, 3 << 20));
    assert_eq!(bytes.last(), Some(&0));
    assert!(done.says(Severity::Warning, "shorter"), "{:?}", done.notes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_in_turmoil_is_stored_whole() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for n in 0..300 {
        let sub = root.join(format!("{}", n % 10));
        fs::create_dir_all(&sub).unwrap();
        fs::write(sub.join(format!("{n}")), vec![b'x'; n * 100]).unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (stopped, at) = (stop.clone(), root.clone());
    let turmoil = std::thread::spawn(move || {
        for n in 0.. {
            if stopped.load(Relaxed) {
                break;
            }
            let path = at.join(format!("{}/{}", n % 10, n % 300));
            match n % 4 {
                0 => drop(fs::remove_file(&path)),
                1 => drop(fs::write(&path, vec![b'y'; n % 70_000])),
                2 => drop(fs::create_dir(&path)),
                _ => drop(fs::rename(&path, at.join(format!("{}/moved{n}", n % 7)))),
            }
        }
    });
    for _ in 0..20 {
        let done = pour(&config(&root), backup_core::DigestSink::new()).await;
        assert_eq!(done.lost, 0, "{:?}", done.notes);
    }
    stop.store(true, Relaxed);
    turmoil.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grew_and_was_rewritten_is_no_mere_log() {
    let grow = |path: &Path, n: usize| {
        rewrite(path, b'b' + n as u8);
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"a line").unwrap();
    };
    let (done, bytes, tries) = meddled(false, move |path, n| {
        if n == 0 {
            grow(path, n);
        }
    })
    .await;
    assert_eq!((done.lost, tries, bytes.len()), (0, 2, (5 << 20) + 6));
    assert!(bytes[..5 << 20].iter().all(|b| *b == b'b'));
    let (done, _, tries) = meddled(false, grow).await;
    assert_eq!((done.lost, tries), (0, 3));
    assert!(done.says(Severity::Warning, "changed while it was read"), "{:?}", done.notes);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_says_it_is_empty_is_stored_with_its_content() {
    let sink =
        Arc::new(Meddling { meddle: Box::new(|_| {}), tries: AtomicUsize::new(0), taken: Mutex::default() });
    let done = pour(&config("/proc/version"), sink.clone()).await;
    assert_eq!(done.lost, 0, "{:?}", done.notes);
    let taken = sink.taken.lock().unwrap();
    let content = fs::read("/proc/version").unwrap();
    assert_eq!((taken[0].0.size, &taken[0].1), (Some(content.len() as u64), &content));
    assert!(taken[0].0.fingerprint.is_none());
}

#[tokio::test]
async fn a_pipe_a_socket_or_a_device_is_no_source() {
    let dir = tempfile::tempdir().unwrap();
    let [pipe, socket] = ["pipe", "socket"].map(|name| dir.path().join(name));
    run("mkfifo", &[pipe.to_str().unwrap()]);
    let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [&pipe, &socket, Path::new("/dev/null")] {
        let e = source(&config(path)).connect(&Context::default()).await.err().unwrap();
        assert_eq!(e.kind(), backup_core::ErrorKind::Usage, "{path:?}: {e}");
    }
}
