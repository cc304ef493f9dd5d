//! What is special to the archive in memory; what every archive promises is tested by backup-testkit.

use super::*;
use crate::{ComponentHeader, Conclusion, Content, Depth, Extent, Moment, Poured, Selection, Stage};

fn header(series: &str) -> BackupHeader {
    BackupHeader {
        id: BackupId::generate(),
        module: "m".into(),
        series: Series(series.into()),
        created: Timestamp::now(),
        host: "h".into(),
        components: vec![ComponentHeader {
            name: "c".into(),
            kind: "files".into(),
            folder: "files".into(),
            origin: serde_json::Value::Null,
        }],
        metadata: BTreeMap::new(),
        tags: Vec::new(),
        note: None,
    }
}

async fn one(archive: &MemoryArchive, entry: Entry, content: Content, cx: &Context) -> BackupId {
    let header = header("s");
    let id = header.id.clone();
    let writer = archive.begin(header, cx).await.unwrap();
    let sink = writer.component("c").unwrap();
    assert_eq!(sink.put(entry, content).await.unwrap(), crate::Put::Stored);
    let proof = sink.finish(cx).await.unwrap();
    let poured = Poured {
        component: "c".into(),
        moment: Moment::now(),
        proof,
        lost: 0,
        kept: 0,
        differences: Vec::new(),
        stillness: None,
    };
    let conclusion = Conclusion {
        poured: vec![poured],
        notes: cx.notes(),
        state: State::Complete,
        not_included: Vec::new(),
        finished: jiff::Timestamp::now(),
    };
    writer.commit(conclusion, cx).await.unwrap();
    id
}

async fn read(mut content: Content) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(b) = content.next().await? {
        out.extend_from_slice(&b);
    }
    Ok(out)
}

#[tokio::test]
async fn the_content_of_a_sparse_entry_comes_with_its_holes() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let mut entry = Entry::file("x", Stage::Data).sized(200_000);
    entry.extents =
        Some([Extent { offset: 100_000, length: 3 }, Extent { offset: 100_003, length: 2 }].into());
    let id = one(&archive, entry, Content::whole("abcde"), &cx).await;
    let reader = archive.open(&id, &cx).await.unwrap();
    let (entry, content) = reader.content("c", b"x", &cx).await.unwrap();
    let bytes = read(content).await.unwrap();
    assert_eq!((entry.extents, bytes.len()), (None, 200_000));
    assert_eq!(&bytes[99_999..100_006], b"\0abcde\0");
    assert!(reader.check_structure(Depth::Full, &cx).await.unwrap().is_empty());
}

#[tokio::test]
async fn tampering_is_found_by_every_reader() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let id = one(&archive, Entry::file("x", Stage::Data), Content::whole("abc"), &cx).await;
    archive.tamper(&id, "c", b"x", |bytes| bytes[1] ^= 1).unwrap();
    let reader = archive.open(&id, &cx).await.unwrap();
    assert_eq!(reader.check_structure(Depth::Full, &cx).await.unwrap().len(), 1);
    let (_, content) = reader.content("c", b"x", &cx).await.unwrap();
    assert_eq!(read(content).await.unwrap_err().kind(), ErrorKind::Damaged);
    assert!(reader.component("d", Selection::All).is_err());
}
