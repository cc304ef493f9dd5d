//! An index or a manifest that does not say what is in the archive.

use crate::{
    forge::{Forge, Line, header, sha},
    world::{World, refused, refused_in},
};
use serde_json::{Value, json};

fn sound() -> Forge {
    let mut forge = Forge::new("zstd");
    forge.file("a", b"hello");
    forge.file("b", b"world");
    forge.node("directory", "", None);
    forge
}

#[tokio::test]
async fn members_that_the_index_does_not_know_are_refused() {
    let mut forge = sound();
    forge.member(&header(b"files/data/../../x", b'0', 0o600, 4, b""), b"evil");
    refused(&forge.finish(), "are of no member that the index knows").await;

    let mut forge = Forge::new("none");
    forge.member(&header(b"etc/passwd", b'0', 0o600, 4, b""), b"evil");
    forge.file("a", b"hello");
    forge.node("directory", "", None);
    refused(&forge.finish(), "are of no member that the index knows").await;
}

#[tokio::test]
async fn members_after_the_manifest_or_after_the_end_are_refused() {
    for compression in ["zstd", "none"] {
        let mut forge = sound();
        forge.compression = compression;
        forge.after_manifest = [header(b"x", b'0', 0o600, 4, b""), vec![b'e'; 512]].concat();
        refused(&forge.finish(), "something after the manifest").await;
    }
    let mut forge = sound();
    forge.compression = "none";
    let longer = [forge.finish(), header(b"x", b'0', 0o600, 0, b"")].concat();
    refused(&longer, "no locator at the end").await;
}

#[tokio::test]
async fn a_member_of_the_archives_own_that_is_none_is_refused() {
    for name in ["../../etc/cron.d/x", "files/data/x", "index/000007.jsonl", "index/x", "SHA256SUMS/../x"] {
        let mut forge = sound();
        forge.own_member(name, b"evil");
        refused(&forge.finish(), "is no member of the archive's own").await;
    }
}

#[tokio::test]
async fn lines_that_claim_the_same_bytes_are_refused() {
    let mut forge = Forge::new("zstd");
    let line = forge.file_line("a", b"hello");
    forge.line(&line);
    forge.line(&line.set("p", "b"));
    forge.node("directory", "", None);
    refused(&forge.finish(), "or of two").await;

    // One that begins inside of another's data.
    let mut forge = Forge::new("zstd");
    let inner = [header(b"files/data/b", b'0', 0o600, 1, b""), vec![0; 512]].concat();
    let line = forge.file_line("a", &inner);
    forge.line(&line);
    let begin = forge.tar.len() - inner.len();
    let line = Line::new("file", "b").set("n", 1).set("h", sha(b"\0"));
    forge.line(&line.set("at", json!([[begin, 512, 1]])));
    forge.node("directory", "", None);
    refused(&forge.finish(), "or of two").await;
}

#[tokio::test]
async fn a_line_whose_place_is_impossible_is_refused() {
    let places = [
        (json!([[1, 512, 5]]), "a place is impossible"),
        (json!([[512, 0, 5]]), "a place is impossible"),
        (json!([[512, 100, 5]]), "a place is impossible"),
        (json!([[u64::MAX - 511, 512, 5]]), "a place"),
        (json!([[512, 512, 5], [512, 512, u64::MAX]]), "a place"),
        (json!([[1u64 << 40, 512, 5]]), "outside of the archive"),
        (json!([]), "do not fit its kind"),
        (json!([[512, 512, 4]]), "do not have its length"),
    ];
    for (at, why) in places {
        let mut forge = sound();
        let line = forge.file_line("x", b"12345").set("at", at);
        forge.line(&line);
        refused(&forge.finish(), why).await;
    }
}

#[tokio::test]
async fn more_or_less_than_the_manifest_promises_is_refused() {
    for (fact, why) in [(0, "bytes: the manifest and the index"), (2, "entries: the manifest and the index")]
    {
        for promised in [0u64, 1, 1000, u64::MAX] {
            let archive =
                sound().finish_with(|m| m["components"][0]["proof"][fact][2]["count"] = promised.into());
            refused(&archive, why).await;
        }
    }
    let archive =
        sound().finish_with(|m| m["components"][0]["proof"][1][2]["digest"] = "0".repeat(64).into());
    refused(&archive, "digest: the manifest and the index").await;
    let archive = sound().finish_with(|m| m["components"][0]["proof"] = json!([]));
    refused(&archive, "entries: the manifest and the index").await;
}

#[tokio::test]
async fn sums_that_overflow_are_refused() {
    let archive = sound().finish_with(|m| {
        let mut second = m["components"][0].clone();
        second["name"] = "more".into();
        for component in [&mut m["components"][0], &mut second] {
            component["proof"][0][2]["count"] = u64::MAX.into();
            component["proof"][2][2]["count"] = u64::MAX.into();
        }
        m["components"].as_array_mut().unwrap().push(second);
    });
    refused(&archive, "the manifest and the index do not say the same").await;
}

#[tokio::test]
async fn stages_out_of_order_are_refused() {
    let mut forge = Forge::new("zstd");
    forge.node("directory", "", None);
    forge.file("a", b"hello");
    refused(&forge.finish(), "stages are not in order").await;
}

#[tokio::test]
async fn a_component_or_folder_with_a_name_that_is_not_its_to_have_is_refused() {
    for name in ["../x", "..", ".", "", "a/b", "/etc", "-rf", "a b", "\u{e9}"] {
        for field in ["name", "folder"] {
            let archive = sound().finish_with(|m| m["components"][0][field] = name.into());
            refused(&archive, "is no name of a component").await;
        }
    }
    for folder in ["index", "SHA256SUMS", "metadata.json", "RESTORE.md", "manifest.json", "locator"] {
        let archive = sound().finish_with(|m| m["components"][0]["folder"] = folder.into());
        refused(&archive, "is the archive's own").await;
    }
    let twice = sound().finish_with(|m| {
        let again = m["components"][0].clone();
        m["components"].as_array_mut().unwrap().push(again);
    });
    refused(&twice, "is there twice").await;
}

#[tokio::test]
async fn no_backup_is_begun_with_a_folder_that_is_the_archives_own() {
    use backup_core::{Archive as _, portable::PortableArchive, portable::PortableOptions};
    for folder in ["index", "manifest.json", "../x", ""] {
        let header = backup_core::BackupHeader {
            id: backup_core::BackupId::generate(),
            module: "shop".into(),
            series: backup_core::Series("here:shop".into()),
            created: "2025-08-11T09:16:28.5Z".parse().unwrap(),
            host: "here".into(),
            components: vec![backup_core::ComponentHeader {
                name: "data".into(),
                kind: "files".into(),
                folder: folder.into(),
                origin: Value::Null,
            }],
            metadata: Default::default(),
            tags: Vec::new(),
            note: None,
        };
        let world = World::new();
        let archive = PortableArchive::folder(world.dir.path(), PortableOptions::default()).unwrap();
        let begun = archive.begin(header, &backup_core::Context::default()).await;
        assert_eq!(begun.err().map(|e| e.kind()), Some(backup_core::ErrorKind::Contract), "{folder}");
    }
}

#[tokio::test]
async fn unknown_fields_and_versions_are_refused() {
    let set = |key: &'static str, value: Value| sound().finish_with(|m| m[key] = value);
    refused(&set("surprise", json!(1)), "unknown field").await;
    refused(&set("state", json!("incomplete")), "incomplete").await;
    refused(&set("id", json!("../x")), "id").await;
    refused(&sound().finish_with(|m| m["layout"]["surprise"] = json!(1)), "unknown field").await;
    refused(&sound().finish_with(|m| m["layout"]["compression"] = json!("none")), "does not describe").await;
    refused(&sound().finish_with(|m| m["layout"]["end"] = json!(512)), "outside of the archive").await;
    for line in
        ["{\"c\":0}", "not json", "", "{\"c\":0,\"p\":\"x\",\"k\":\"file\",\"d\":\"0123456789abcdef\"}"]
    {
        let mut forge = sound();
        forge.raw_index(format!("{line}\n").as_bytes());
        refused(&forge.finish(), "index").await;
    }
    let mut forge = sound();
    forge.raw_index(&Line::new("symlink", "cut").text().as_bytes()[..20]);
    refused(&forge.finish(), "its last line is cut").await;
    let mut forge = sound();
    let line = forge.file_line("x", b"1").set("c", 7);
    forge.line(&line);
    refused(&forge.finish(), "of no component").await;
}

#[tokio::test]
async fn a_wrong_digest_is_refused_wherever_it_is() {
    // Of a content: the index is right about itself, the bytes are others. Structure alone does not show it.
    let mut forge = Forge::new("zstd");
    let line = forge.file_line("a", b"hello").set("h", sha(b"other"));
    forge.line(&line);
    forge.node("directory", "", None);
    refused(&forge.finish(), "its sha256 is").await;
    // Of a shard, of the first members, of the manifest.
    for i in 0..4 {
        let archive = sound().finish_with(|m| m["layout"]["own"][i][4] = "0".repeat(64).into());
        refused(&archive, "its digest is not the one in the manifest").await;
    }
    let mut forge = sound();
    forge.compression = "none";
    let mut archive = forge.finish();
    let at = archive.windows(4).position(|w| w == b"shop").unwrap();
    archive[at] = b'S';
    refused(&archive, "its digest is not the one in the locator").await;
}

#[tokio::test]
async fn a_header_that_says_something_else_than_the_index_is_a_defect_and_is_not_followed() {
    let world = World::new();
    let mut forge = Forge::new("zstd");
    let at = forge.member(&header(b"files/data/../../../x", b'0', 0o4777, 4, b""), b"evil");
    let line = Line::new("file", "a").set("n", 4).set("h", sha(b"evil")).set("at", json!([at]));
    forge.line(&line);
    forge.node("directory", "", None);
    let reader = world.open(&world.save(&forge.finish())).await.unwrap();
    let defects = world.defects(&reader).await;
    assert!(defects.iter().any(|d| d.contains("do not say the same")), "{defects:?}");
    // A restore goes by the index alone, and that is sound.
    world.restore(&reader).await.unwrap();
    assert_eq!(std::fs::read(world.live().join("a")).unwrap(), b"evil");
}

#[tokio::test]
async fn a_sparse_map_that_lies_is_refused() {
    let block = [1; 512];
    let maps: [(u64, &str, &[u8], &str); 8] = [
        (2048, "2\n0\n512\n256\n512\n", &[1; 1024], "map of a sparse file"), // overlap
        (2048, "2\n1024\n512\n0\n512\n", &[1; 1024], "map of a sparse file"), // out of order
        (600, "1\n512\n512\n", &block, "map of a sparse file"),              // beyond the file
        (2048, "1\n18446744073709551615\n512\n", &block, "map of a sparse file"),
        (2048, "1\n0\n1024\n", &block, "map of a sparse file"), // more than there is
        (2048, "1000000000\n", &block, "map of a sparse file"), // millions of extents
        (2048, "1\n0\n", &block, "map of a sparse file"),
        (1 << 63, "1\n0\n512\n", &block, "its length is impossible"),
    ];
    for (size, map, data, why) in maps {
        let mut forge = Forge::new("zstd");
        forge.sparse("s", size, map, data);
        forge.node("directory", "", None);
        refused_in(&World::new(), &forge.finish(), why).await;
    }
}

#[tokio::test]
async fn a_sparse_file_that_fits_nowhere_is_refused_before_it_is_begun() {
    let world = World::new();
    let mut forge = Forge::new("zstd");
    forge.sparse("s", i64::MAX as u64, "1\n0\n512\n", &[1; 512]);
    forge.node("directory", "", None);
    let reader = world.open(&world.save(&forge.finish())).await.unwrap();
    let before = world.picture();
    let e = world.restore(&reader).await.unwrap_err();
    assert_eq!(e.kind(), backup_core::ErrorKind::Refused, "{e}");
    assert_eq!(world.picture(), before);
}
