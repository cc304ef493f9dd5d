//! Every byte of a small archive changed in turn, and every length it can be cut to: noticed with a message that names what is
//! damaged, or what is read is provably the same.
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

use backup_core::{
    encryption::{Identities, NewIdentity, Recipients},
    portable::{PortableArchive, PortableOptions},
    *,
};
use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

fn entry(path: &str, kind: Kind) -> Entry {
    let mut e =
        Entry::file(path.to_owned(), if kind == Kind::Directory { Stage::Complete } else { Stage::Data });
    e.kind = kind;
    e.posix = Some(Posix {
        mode: 0o640,
        uid: 7,
        gid: 8,
        mtime: (1_700_000_000, 5),
        xattrs: vec![("user.a".into(), "b".into())],
        device: None,
    });
    e
}

/// For archives whose name ends in .age.
fn options(path: &Path) -> PortableOptions {
    static KEY: LazyLock<NewIdentity> = LazyLock::new(NewIdentity::generate);
    let mut options = PortableOptions::default().with_sizes(4096, 4096);
    if path.extension().is_some_and(|e| e == "age") {
        options.recipients = Recipients::keys([&KEY.recipient]).unwrap();
        options.identities = Identities::default().key(KEY.secret.clone());
    }
    options
}

async fn write(path: &Path, cx: &Context) {
    let options = options(path);
    let archive = PortableArchive::file(path, options).unwrap();
    let header = BackupHeader {
        id: BackupId::generate(),
        module: "m".into(),
        series: Series("s".into()),
        created: jiff::Timestamp::now(),
        host: "h".into(),
        components: vec![ComponentHeader {
            name: "c".into(),
            kind: "files".into(),
            folder: "files".into(),
            origin: serde_json::Value::Null,
        }],
        metadata: Default::default(),
        tags: vec![],
        note: None,
    };
    let writer = archive.begin(header, cx).await.unwrap();
    let sink = writer.component("c").unwrap();
    let put = async |e: Entry, c: Content| assert_eq!(sink.put(e, c).await.unwrap(), Put::Stored);
    put(entry("a.txt", Kind::File), Content::whole("some text\n")).await;
    let mut link = entry("l", Kind::Symlink);
    link.link = Some("a.txt".into());
    put(link, Content::empty()).await;
    let mut sparse = entry("s", Kind::File).sized(9000);
    sparse.extents = Some(Arc::new([Extent { offset: 4096, length: 512 }]));
    put(sparse, Content::whole(vec![7; 512])).await;
    put(entry("", Kind::Directory), Content::empty()).await;
    let proof = sink.finish(cx).await.unwrap();
    let poured = Poured {
        component: "c".into(),
        moment: Moment::now(),
        proof,
        lost: 0,
        kept: 0,
        differences: vec![],
        stillness: None,
    };
    let conclusion = Conclusion {
        poured: vec![poured],
        notes: Notes::default(),
        state: State::Complete,
        not_included: vec![],
        finished: jiff::Timestamp::now(),
    };
    writer.commit(conclusion, cx).await.unwrap();
}

/// Everything that a restore would see.
async fn read(path: &Path, cx: &Context) -> Result<Vec<String>> {
    use futures::StreamExt;
    let archive = PortableArchive::file(path, options(path))?;
    let list = archive.list(cx).await?;
    let reader = archive.open(&list[0].id, cx).await?;
    let mut out = vec![format!("{:?}", reader.manifest())];
    let mut entries = reader.entries();
    while let Some(listed) = entries.next().await {
        let listed = listed?;
        out.push(format!("{listed:?}"));
        if listed.entry.kind == Kind::File {
            let (_, mut content) = reader.content("c", &listed.entry.path, cx).await?;
            while let Some(bytes) = content.next().await? {
                out.push(format!("{bytes:?}"));
            }
        }
    }
    Ok(out)
}

/// `Ok` if the archive opens and verification finds nothing.
async fn verified(path: &Path, cx: &Context) -> std::result::Result<(), Vec<Error>> {
    let archive = PortableArchive::file(path, options(path)).unwrap();
    let list = archive.list(cx).await.map_err(|e| vec![e])?;
    let reader = archive.open(&list[0].id, cx).await.map_err(|e| vec![e])?;
    let report = verify(reader, Depth::Full, cx).await.map_err(|e| vec![e])?;
    if report.defects.is_empty() { Ok(()) } else { Err(report.defects) }
}

async fn damage(name: &str, step: usize) {
    let cx = Context::new(8 << 20, 2);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    write(&path, &cx).await;
    let good = std::fs::read(&path).unwrap();
    assert!(good.len() <= 32 << 10, "{} bytes", good.len());
    verified(&path, &cx).await.unwrap();
    let expected = read(&path, &cx).await.unwrap();
    let (mut noticed, mut harmless) = (0, 0);
    // One bit of every byte here; every bit in a soak.
    let bits: Vec<usize> =
        if std::env::var_os("BACKUP_SOAK").is_some() { (0..8).collect() } else { vec![step % 8] };
    for at in 0..good.len() {
        for bit in &bits {
            let mut bad = good.clone();
            bad[at] ^= 1 << ((bit + at) % 8);
            std::fs::write(&path, &bad).unwrap();
            match verified(&path, &cx).await {
                Err(defects) => {
                    noticed += 1;
                    assert!(defects.iter().all(|d| d.subject().is_some()), "byte {at}: {defects:?}");
                }
                Ok(()) => {
                    harmless += 1;
                    assert_eq!(read(&path, &cx).await.unwrap(), expected, "byte {at} was not noticed");
                }
            }
        }
    }
    for length in 0..good.len() {
        std::fs::write(&path, &good[..length]).unwrap();
        assert!(verified(&path, &cx).await.is_err(), "cut to {length} bytes");
    }
    println!("soak: {name}: {} bytes, {noticed} flips noticed, {harmless} without any effect", good.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_or_a_cut_of_a_compressed_archive_is_noticed() {
    damage("x.tar.zst", 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_or_a_cut_of_a_gzip_archive_is_noticed() {
    damage("x.tar.gz", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_or_a_cut_of_an_xz_archive_is_noticed() {
    damage("x.tar.xz", 6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_or_a_cut_of_an_encrypted_archive_is_noticed() {
    damage("x.tar.zst.age", 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_or_a_cut_of_a_plain_archive_is_noticed() {
    damage("x.tar", 5).await;
}
