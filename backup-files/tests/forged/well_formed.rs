//! The forger can write archives that are sound: so what is refused is refused for its lie alone.

use crate::{
    forge::{Forge, Line},
    frames::pack,
    world::World,
};
use serde_json::json;
use std::{fs, os::unix::fs::MetadataExt};

fn honest(compression: &'static str) -> Forge {
    let mut forge = Forge::new(compression);
    forge.file("a", b"hello");
    forge.file("d/b", &[7; 1500]);
    forge.node("symlink", "s", Some("/nowhere"));
    forge.node("fifo", "p", None);
    forge.node("hard-link", "h", Some("d/b"));
    forge.node("directory", "d", None);
    forge.node("directory", "", None);
    forge
}

#[tokio::test]
async fn an_archive_written_by_hand_after_the_specification_is_sound_and_is_restored() {
    for compression in ["zstd", "none"] {
        let world = World::new();
        let reader = world.open(&world.save(&honest(compression).finish())).await.unwrap();
        assert_eq!(world.defects(&reader).await, [""; 0]);
        world.restore(&reader).await.unwrap();
        assert_eq!(fs::read(world.live().join("a")).unwrap(), b"hello");
        assert_eq!(fs::read(world.live().join("h")).unwrap(), [7; 1500]);
        assert_eq!(fs::metadata(world.live().join("d/b")).unwrap().nlink(), 2);
        assert_eq!(fs::read_link(world.live().join("s")).unwrap().to_str(), Some("/nowhere"));
        assert!(!world.live().join("old").exists());
    }
}

#[tokio::test]
async fn frames_may_end_anywhere_in_the_tar() {
    let mut forge = honest("zstd");
    forge.shards();
    let manifest = forge.manifest().to_string();
    let (tar, cuts) = forge.whole_tar(manifest.as_bytes());
    let inside_headers: Vec<usize> = (1..cuts[0]).step_by(700).chain(cuts).collect();
    let world = World::new();
    let reader = world.open(&world.save(&pack(&tar, &inside_headers))).await.unwrap();
    assert_eq!(world.defects(&reader).await, [""; 0]);
    world.restore(&reader).await.unwrap();
}

#[tokio::test]
async fn permissions_are_what_the_index_says_also_where_they_are_dangerous() {
    let mut forge = Forge::new("zstd");
    let name = b"files/data/su";
    let owner = own_ids();
    let mut head = crate::forge::header(name, b'0', 0o4755, 2, b"");
    let ids = [(108, owner.0), (116, owner.1)];
    ids.iter().for_each(|(at, id)| head[*at..at + 7].copy_from_slice(format!("{id:07o}").as_bytes()));
    crate::forge::seal(&mut head);
    let at = forge.member(&head, b"#!");
    let line = Line::new("file", "su").set("n", 2).set("h", crate::forge::sha(b"#!"));
    forge.line(&line.set("a", json!([0o4755, owner.0, owner.1, 0, 0])).set("at", json!([at])));
    forge.node("directory", "", None);
    let world = World::new();
    let reader = world.open(&world.save(&forge.finish())).await.unwrap();
    assert_eq!(world.defects(&reader).await, [""; 0]);
    world.restore(&reader).await.unwrap();
    assert_eq!(fs::metadata(world.live().join("su")).unwrap().mode() & 0o7777, 0o4755);
}

#[tokio::test]
async fn a_device_is_made_if_that_was_agreed_to_or_its_loss_is_told() {
    let mut forge = Forge::new("zstd");
    let (uid, gid) = own_ids();
    let mut head = crate::forge::header(b"files/data/null", b'3', 0o600, 0, b"");
    for (at, number) in [(108, uid), (116, gid), (329, 1), (337, 3)] {
        head[at..at + 7].copy_from_slice(format!("{number:07o}").as_bytes());
    }
    crate::forge::seal(&mut head);
    let at = forge.member(&head, b"");
    let line = Line::new("char-device", "null").set("a", json!([0o600, uid, gid, 0, 0]));
    forge.line(&line.set("dev", json!([1, 3])).set("at", json!([at])));
    forge.node("directory", "", None);
    let world = World::new();
    let reader = world.open(&world.save(&forge.finish())).await.unwrap();
    assert_eq!(world.defects(&reader).await, [""; 0]);
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        // Nothing in this backup says that there is one: that is looked for.
        let e = world.restore(&reader).await.unwrap_err();
        assert_eq!(e.kind(), backup_core::ErrorKind::Refused, "{e}");
        assert!(e.to_string().contains("devices would be made, 1 of them"), "{e}");
    }
    let report = world.restore_accepting(&reader, if is_root { &["devices"] } else { &[] }).await.unwrap();
    match fs::symlink_metadata(world.live().join("null")) {
        Ok(made) => assert_eq!(made.rdev(), rustix::fs::makedev(1, 3)),
        Err(_) => {
            let told = report.notes.list.iter().any(|n| n.text.contains("devices could not be made"));
            assert!(told, "{:?}", report.notes);
            assert_eq!(report.state, backup_core::State::Partial);
        }
    }
}

fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}
