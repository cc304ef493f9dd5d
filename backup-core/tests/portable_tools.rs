//! A portable archive is read by `zstd`, `gzip` or `xz`, `tar` and `sha256sum` alone, and by our own reader to the same end.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

use backup_core::{
    portable::{Compression, PortableArchive, PortableOptions, Together},
    *,
};
use bytes::Bytes;
use futures::StreamExt;
use std::{path::Path, process::Command, sync::Arc, time::Duration};

fn header(components: &[&str]) -> BackupHeader {
    BackupHeader {
        id: BackupId::generate(),
        module: "demo".into(),
        series: Series("demo".into()),
        created: jiff::Timestamp::now(),
        host: "here".into(),
        components: components
            .iter()
            .map(|name| ComponentHeader {
                name: (*name).into(),
                kind: "files".into(),
                folder: "files".into(),
                origin: serde_json::json!({ "path": "/srv/demo" }),
            })
            .collect(),
        metadata: Default::default(),
        tags: vec![],
        note: None,
    }
}

fn file(path: &[u8], mode: u32) -> Entry {
    let mut e = Entry::file(path.to_vec(), Stage::Data);
    e.posix = Some(Posix { mode, uid: 0, gid: 0, mtime: (1_700_000_000, 123_456_789), ..Posix::default() });
    e
}

/// Bytes that neither repeat nor compress well.
fn noise(n: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

fn chunks(data: Vec<u8>, size: usize) -> Content {
    let parts: Vec<_> = data.chunks(size).map(|c| Ok(Part::Bytes(Bytes::copy_from_slice(c)))).collect();
    Content::stream(futures::stream::iter(parts).chain(futures::stream::iter([Ok(Part::End(Facts::new()))])))
}

fn conclusion(poured: Vec<(&str, Proof)>, state: State) -> Conclusion {
    let poured = poured
        .into_iter()
        .map(|(component, proof)| Poured {
            component: component.into(),
            moment: Moment::now(),
            proof,
            lost: 0,
            kept: 0,
            differences: vec![],
            stillness: None,
        })
        .collect();
    Conclusion {
        poured,
        notes: Notes::default(),
        state,
        not_included: vec![],
        finished: jiff::Timestamp::now(),
    }
}

async fn write_demo(archive: &PortableArchive, cx: &Context) -> BackupSummary {
    let _lock = archive.lock(&Series("demo".into()), Duration::ZERO, cx).await.unwrap();
    archive.preflight(Some(1000), cx).await.unwrap();
    let writer = archive.begin(header(&["a", "b"]), cx).await.unwrap();
    let (a, b) = (writer.component("a").unwrap(), writer.component("b").unwrap());
    let put = |sink: Arc<dyn Sink>, e: Entry, c: Content| async move { sink.put(e, c).await.unwrap() };
    assert_eq!(put(a.clone(), file(b"small.txt", 0o644), Content::whole("hello\n")).await, Put::Stored);
    assert_eq!(put(a.clone(), file(b"empty", 0o600), Content::empty()).await, Put::Stored);
    let large = noise(300_000, 7);
    let known = file(b"known", 0o640).sized(300_000);
    assert_eq!(put(a.clone(), known, chunks(large.clone(), 9_999)).await, Put::Stored);
    let failing = Content::stream(futures::stream::iter([
        Ok(Part::Bytes(Bytes::from(noise(200_000, 3)))),
        Err(Error::new(ErrorKind::Source, "read", "the disk is gone")),
    ]));
    assert!(matches!(put(a.clone(), file(b"torn", 0o600), failing).await, Put::Discarded(_)));
    assert_eq!(put(b.clone(), file(b"stream", 0o600), chunks(noise(500_000, 9), 12_345)).await, Put::Stored);
    let mut sparse = file(b"sparse", 0o600).sized(1_000_000);
    sparse.extents = Some([Extent { offset: 512_000, length: 1024 }].into());
    assert_eq!(put(a.clone(), sparse, Content::whole(noise(1024, 5))).await, Put::Stored);
    let mut hard =
        Entry { kind: Kind::HardLink, link: Some("small.txt".into()), ..file(b"other-name", 0o644) };
    hard.stage = Stage::Complete;
    assert_eq!(put(a.clone(), hard, Content::empty()).await, Put::Stored);
    let mut root = Entry { kind: Kind::Directory, ..file(b"", 0o750) };
    root.stage = Stage::Complete;
    assert_eq!(put(a.clone(), root, Content::empty()).await, Put::Stored);
    let proofs = vec![("a", a.finish(cx).await.unwrap()), ("b", b.finish(cx).await.unwrap())];
    writer.commit(conclusion(proofs, State::Complete), cx).await.unwrap()
}

fn shell(folder: &Path, script: &str) -> String {
    let out = Command::new("sh").arg("-ec").arg(script).current_dir(folder).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{script}: {text}");
    text
}

/// The commands of an archive's RESTORE.md, in their order, for the file of this name.
fn restore_guide(folder: &Path, show: &str, name: &str) -> Vec<String> {
    let guide = shell(folder, &format!("{show} {name} | tar -xO RESTORE.md 2>/dev/null"));
    let compression = Compression::of_name(name).unwrap();
    let stands_for = format!("BACKUP.{}", compression.extension());
    let commands: Vec<_> = guide.lines().filter(|line| line.starts_with("       ")).collect();
    assert!(guide.contains(&stands_for) && commands.len() == 3, "{guide}");
    commands.into_iter().map(|line| line.trim().replace(&stands_for, name)).collect()
}

/// What checks a file of this name without unpacking it.
fn checks(name: &str) -> &'static [&'static str] {
    match Compression::of_name(name).unwrap() {
        Compression::Zstd => &["zstd -t", "zstd -l"],
        Compression::Gzip => &["gzip -t", "pigz -t", "tar tzf"],
        Compression::Xz => &["xz -t", "xz -l", "xz -t -T2", "tar tJf"],
        Compression::None => &["tar tf"],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_its_restore_guide_everything_comes_back_with_tools_alone() {
    for (name, show) in [
        ("demo.tar.zst", "zstd -dc"),
        ("demo.tar.gz", "gzip -dc"),
        ("demo.tgz", "gzip -dc"),
        ("demo.tar.xz", "xz -dc"),
        ("demo.txz", "xz -dc -T2"),
        ("demo.tar", "cat"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = PortableOptions::default().with_sizes(64 << 10, 128 << 10);
        let archive = PortableArchive::file(dir.path().join(name), options).unwrap();
        let cx = Context::new(8 << 20, 4);
        let summary = write_demo(&archive, &cx).await;
        assert_eq!((summary.state, summary.entries), (State::Complete, 7));

        let reader = archive.open(&summary.id, &cx).await.unwrap();
        let defects = reader.check_structure(Depth::Full, &cx).await.unwrap();
        assert!(defects.is_empty(), "{name}: {defects:?}");
        let report = verify(reader, Depth::Full, &cx).await.unwrap();
        assert!(report.defects.is_empty(), "{name}: {:?}", report.defects);

        for check in checks(name) {
            shell(dir.path(), &format!("{check} {name} 2>&1"));
        }
        let commands = restore_guide(dir.path(), show, name);
        assert_eq!(commands[2], "cat SHA256SUMS/* | sha256sum --check --quiet");
        shell(dir.path(), &commands[..2].join("\n"));
        let out = dir.path().join("restored");
        assert_eq!(shell(&out, &commands[2]), "");
        assert_eq!(shell(&out, "cat files/a/other-name; stat -c %a files/a"), "hello\n750\n");
        assert_eq!(std::fs::read(out.join("files/a/known")).unwrap(), noise(300_000, 7));
        shell(&out, "cat files/b/stream.seg?????? > whole");
        assert_eq!(std::fs::read(out.join("whole")).unwrap(), noise(500_000, 9));
        assert_eq!(std::fs::read(out.join("files/a/sparse")).unwrap()[512_000..513_024], noise(1024, 5));
        assert_eq!(std::fs::metadata(out.join("files/a/sparse")).unwrap().len(), 1_000_000);
        assert_eq!(shell(&out, "stat -c %Y.%y files/a/known | cut -c1-10"), "1700000000\n");
        shell(&out, "grep -q discarded index/* && test ! -s files/a/torn.seg000000");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_entry_costs_its_frames_in_every_compression() {
    for compression in [Compression::Zstd, Compression::Gzip, Compression::Xz] {
        let dir = tempfile::tempdir().unwrap();
        let options = PortableOptions::default().with_sizes(64 << 10, 128 << 10);
        let name = format!("x.{}", compression.extension());
        let archive = PortableArchive::file(dir.path().join(&name), options).unwrap();
        let cx = Context::new(8 << 20, 4);
        let made = write_demo(&archive, &cx).await;
        let reader = archive.open(&made.id, &cx).await.unwrap();
        let (_, mut content) = reader.content("a", b"small.txt", &cx).await.unwrap();
        assert_eq!(content.next().await.unwrap().unwrap(), "hello\n");
        assert_eq!(content.next().await.unwrap(), None);
        // The tail, at most three frames for manifest, index and entry: of 800 KB that cannot be compressed.
        let (fetched, all) = (reader.bytes_fetched(), made.stored_bytes);
        assert!(all > 800_000 && fetched < 280_000, "{name}: {fetched} of {all} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_lists_what_is_complete_and_what_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let options = PortableOptions::default().with_sizes(64 << 10, 128 << 10);
    let archive = PortableArchive::folder(dir.path().join("b"), options).unwrap();
    let cx = Context::new(8 << 20, 4);
    archive.preflight(None, &cx).await.unwrap();
    let first = write_demo(&archive, &cx).await;
    let second = write_demo(&archive, &cx).await;
    assert_ne!(first.location, second.location);

    let unfinished = archive.begin(header(&["a"]), &cx).await.unwrap();
    let states = |list: &[BackupSummary]| list.iter().map(|b| b.state).collect::<Vec<_>>();
    let listed = archive.list(&cx).await.unwrap();
    assert_eq!(states(&listed), [State::Complete, State::Complete, State::Incomplete]);
    assert!(archive.open(&listed[2].id, &cx).await.is_err());
    unfinished.abort(&cx).await.unwrap();
    assert_eq!(archive.list(&cx).await.unwrap().len(), 2);

    // Without the sidecars the manifests inside are taken.
    for name in [&first.location, &second.location] {
        std::fs::remove_file(dir.path().join("b").join(format!("{name}.manifest.json"))).unwrap();
    }
    assert_eq!(archive.list(&cx).await.unwrap(), vec![first.clone(), second.clone()]);

    // A copy has the same id: which of the two is meant?
    let (one, copy) = (dir.path().join("b").join(&first.location), dir.path().join("b/copy.tar.zst"));
    std::fs::copy(&one, &copy).unwrap();
    let e = archive.remove(std::slice::from_ref(&first.id), &cx).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Refused && e.message().contains("copy.tar.zst"), "{e}");
    assert!(e.message().contains(&first.location), "{e}");
    assert_eq!(archive.open(&first.id, &cx).await.err().map(|e| e.kind()), Some(ErrorKind::Refused));
    let e = archive.mark_verified(&first.id, jiff::Timestamp::now(), &cx).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused);
    assert!(one.exists() && copy.exists());
    std::fs::remove_file(&copy).unwrap();

    archive.mark_verified(&first.id, jiff::Timestamp::now(), &cx).await.unwrap();
    assert!(archive.list(&cx).await.unwrap()[0].verified.is_some());
    archive.remove(std::slice::from_ref(&first.id), &cx).await.unwrap();
    assert_eq!(archive.list(&cx).await.unwrap(), vec![second]);
    assert_eq!(archive.remove(&[first.id], &cx).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn only_files_of_ours_are_healed_away() {
    let dir = tempfile::tempdir().unwrap();
    let archive = PortableArchive::folder(dir.path(), PortableOptions::default()).unwrap();
    let cx = Context::default();
    let made = write_demo(&archive, &cx).await;
    archive.mark_verified(&made.id, jiff::Timestamp::now(), &cx).await.unwrap();
    std::fs::rename(dir.path().join(&made.location), dir.path().join("renamed.tar.zst")).unwrap();
    let own = ["x.tar.manifest.json", "x.tar.state.json", "y.tar.zst.state.json"];
    for name in own {
        std::fs::write(dir.path().join(name), "{\"mine\":1}").unwrap();
    }
    let mut healed = archive.heal(&cx).await.unwrap();
    healed.sort();
    let orphans = ["manifest", "state"].map(|what| format!("{}.{what}.json", made.location));
    assert_eq!(healed, orphans);
    assert!(own.iter().all(|name| dir.path().join(name).exists()));
}

#[tokio::test]
async fn a_backup_whose_file_is_gone_is_listed_as_missing_and_heal_leaves_what_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let archive = PortableArchive::folder(dir.path(), PortableOptions::default()).unwrap();
    let cx = Context::default();
    let made = write_demo(&archive, &cx).await;
    archive.mark_verified(&made.id, jiff::Timestamp::now(), &cx).await.unwrap();
    std::fs::remove_file(dir.path().join(&made.location)).unwrap();
    let listed = archive.list(&cx).await.unwrap();
    assert_eq!((&listed[0].id, listed[0].state, listed.len()), (&made.id, State::Missing, 1));
    assert_eq!(listed[0].was, Some(State::Complete));
    assert_eq!(archive.open(&made.id, &cx).await.err().unwrap().kind(), ErrorKind::Damaged);
    assert_eq!(archive.heal(&cx).await.unwrap(), Vec::<String>::new());
    assert!(cx.notes().list.iter().any(|n| n.path == made.location), "heal says nothing of it");
    archive.mark_damaged(&made.id, jiff::Timestamp::now(), &cx).await.unwrap();
    assert_eq!(archive.list(&cx).await.unwrap(), listed);
    // A sidecar that is no more whole is not less of a sign.
    let sidecar = dir.path().join(format!("{}.manifest.json", made.location));
    let text = std::fs::read_to_string(&sidecar).unwrap();
    std::fs::write(&sidecar, text.replacen("manifest_sha256\":\"", "manifest_sha256\":\"0", 1)).unwrap();
    let listed = archive.list(&cx).await.unwrap();
    assert_eq!((listed.len(), listed[0].state, listed[0].was), (1, State::Missing, None));
    archive.remove(&[listed[0].id.clone()], &cx).await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_was_known_of_a_backup_that_was_deleted_is_not_said_of_the_next_file_of_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let cx = Context::default();
    let place = |name: &str| {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        PortableArchive::folder(dir.path().join(name), PortableOptions::default()).unwrap()
    };
    let (offsite, here) = (place("offsite"), place("here"));
    let made = write_demo(&offsite, &cx).await;
    let now = jiff::Timestamp::now();
    let copied = async || {
        let reader = offsite.open(&made.id, &cx).await.unwrap();
        let copied = copy(reader, &here, Duration::ZERO, &cx).await.unwrap();
        assert!(!copied.was_there && copied.backup.location == made.location);
        let listed = here.list(&cx).await.unwrap();
        assert_eq!((listed[0].state, listed[0].damaged, listed[0].verified), (State::Complete, None, None));
    };
    copied().await;
    for damaged in [true, false] {
        match damaged {
            true => here.mark_damaged(&made.id, now, &cx).await.unwrap(),
            false => here.mark_verified(&made.id, now, &cx).await.unwrap(),
        }
        std::fs::remove_file(dir.path().join("here").join(&made.location)).unwrap();
        copied().await;
    }

    // Nor at any of several places.
    let header = header(&["a"]);
    let name = format!("demo-backup-{}.tar.zst", header.created.strftime("%Y%m%d-%H%M%S"));
    let places = [place("one"), place("two")];
    for place in ["one", "two"] {
        let state = dir.path().join(place).join(format!("{name}.state.json"));
        std::fs::write(state, format!("{{\"damaged\":\"{now}\"}}")).unwrap();
    }
    let together = Together::new(places.to_vec(), Vec::new()).unwrap();
    let writer = together.begin(header, &cx).await.unwrap();
    let proof = writer.component("a").unwrap().finish(&cx).await.unwrap();
    writer.commit(conclusion(vec![("a", proof)], State::Complete), &cx).await.unwrap();
    for place in &places {
        let listed = place.list(&cx).await.unwrap();
        assert_eq!((&listed[0].location, listed[0].damaged), (&name, None));
    }
    assert!(cx.notes().list.iter().all(|n| n.severity == Severity::Note), "{:?}", cx.notes());
}

#[tokio::test]
async fn heal_leaves_what_stands_beside_an_archive_that_was_moved_away_and_linked() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("b");
    std::fs::create_dir(&folder).unwrap();
    let archive = PortableArchive::folder(&folder, PortableOptions::default()).unwrap();
    let cx = Context::default();
    let made = write_demo(&archive, &cx).await;
    archive.mark_verified(&made.id, jiff::Timestamp::now(), &cx).await.unwrap();
    std::fs::rename(folder.join(&made.location), dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", folder.join(&made.location)).unwrap();
    assert_eq!(archive.heal(&cx).await.unwrap(), Vec::<String>::new());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 3);
}

#[tokio::test]
async fn an_archive_that_is_named_by_a_link_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let cx = Context::default();
    let file = |name: &str| PortableArchive::file(dir.path().join(name), PortableOptions::default()).unwrap();
    let made = write_demo(&file("x.tar.zst"), &cx).await;
    std::os::unix::fs::symlink("x.tar.zst", dir.path().join("link.tar.zst")).unwrap();
    let link = file("link.tar.zst");
    assert_eq!(link.list(&cx).await.unwrap()[0].id, made.id);
    assert!(link.open(&made.id, &cx).await.is_ok());
}

#[tokio::test]
async fn what_is_there_is_not_overwritten_be_it_a_link_or_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("link.tar")).unwrap();
    let archives = ["link.tar", "folder.tar"]
        .map(|n| PortableArchive::file(dir.path().join(n), PortableOptions::default()));
    std::fs::create_dir(dir.path().join("folder.tar")).unwrap();
    for archive in archives {
        let e = archive.unwrap().preflight(None, &Context::default()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
    }
}
