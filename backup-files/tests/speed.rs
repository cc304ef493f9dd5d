//! How fast a tree is read and written, beside `tar`. Run by hand: `cargo test --release --test speed -- --ignored --nocapture`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod common;

use backup_core::Context;
use common::*;
use std::{fs, time::Instant};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn small_files_beside_tar() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("from");
    for n in 0..50_000u32 {
        let sub = from.join(format!("{}/{}", n % 50, n % 500));
        if n < 500 {
            fs::create_dir_all(&sub).unwrap();
        }
        fs::write(
            sub.join(format!("file-{n}")),
            vec![b'a' + (n % 26) as u8; 1000 + (n as usize * 37) % 6000],
        )
        .unwrap();
    }
    let at = dir.path().to_str().unwrap().to_owned();
    for round in 0..3 {
        let start = Instant::now();
        run("sh", &["-c", &format!("tar -cf - -C {at} from | cat > /dev/null")]);
        let tar = start.elapsed();
        let start = Instant::now();
        let done = pour(&config(&from), backup_core::DigestSink::new()).await;
        let ours = start.elapsed();
        assert_eq!(done.lost, 0);
        run("sh", &["-c", &format!("tar -cf {at}/t.tar -C {at} from; mkdir {at}/x{round}; sync")]);
        let start = Instant::now();
        run("sh", &["-c", &format!("tar -xf {at}/t.tar -C {at}/x{round}")]);
        let untar = start.elapsed();
        run("sync", &[]);
        let mut target = target(&config(dir.path().join(format!("to{round}"))));
        let cx = Context::default();
        let sink = target.prepare(&cx).await.unwrap();
        let start = Instant::now();
        pour(&config(&from), sink).await;
        target.publish(&cx).await.unwrap();
        let both = start.elapsed();
        eprintln!(
            "tar -c {tar:.2?}, read and hashed {ours:.2?}; tar -x {untar:.2?}, read, hashed and restored {both:.2?}"
        );
    }
}
