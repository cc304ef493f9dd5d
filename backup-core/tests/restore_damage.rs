//! A backup is called damaged only where what is stored is not what was written.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/scene.rs"]
mod scene;

use async_trait::async_trait;
use backup_core::*;
use common::*;
use futures::stream::BoxStream;
use scene::*;
use std::sync::Arc;

fn cause(e: &Error) -> &Error {
    std::error::Error::source(e).unwrap().downcast_ref().unwrap()
}

/// A backup of which one component is at a place that does not answer any more.
struct Away(Arc<dyn BackupReader>);

#[async_trait]
impl BackupReader for Away {
    fn manifest(&self) -> &Manifest {
        self.0.manifest()
    }

    fn component(&self, name: &str, selection: Selection) -> Result<Box<dyn Source>> {
        if name != "two" {
            return self.0.component(name, selection);
        }
        Ok(Box::new(script(|sink, _| async move {
            let away = Error::new(ErrorKind::Destination, "read", "the connection was closed");
            let _lost = sink.put(Entry::file("a", Stage::Data), Content::failed(away)).await?;
            Ok(Facts::new())
        })))
    }

    fn entries(&self) -> BoxStream<'_, Result<Listed>> {
        self.0.entries()
    }

    async fn content(&self, component: &str, path: &[u8], cx: &Context) -> Result<(Entry, Content)> {
        self.0.content(component, path, cx).await
    }

    async fn check_structure(&self, depth: Depth, cx: &Context) -> Result<Vec<Error>> {
        self.0.check_structure(depth, cx).await
    }

    fn bytes_fetched(&self) -> u64 {
        self.0.bytes_fetched()
    }
}

#[tokio::test]
async fn a_place_that_does_not_answer_says_nothing_of_the_backup() {
    let s = scene().await;
    let reader: Arc<dyn BackupReader> = Arc::new(Away(s.archive.open(&s.backup, &s.cx).await.unwrap()));
    let e = verify(reader.clone(), Depth::Full, &s.cx).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Destination, "{e}");
    let prepared = s.plan_from(reader, s.targets(), |_| {}).await.unwrap();
    let consent = Confirmation::of(prepared.plan().id().clone());
    let e = prepared.apply(Some(consent), &s.cx).await.unwrap_err();
    assert_eq!((e.kind(), cause(&e).kind()), (ErrorKind::RolledBack, ErrorKind::Destination), "{e}");
    assert!(e.to_string().contains("two/a") && !met_damage(&e), "{e}");
    s.assert_old_without_traces();
}

#[tokio::test]
async fn what_is_wrong_with_a_target_says_nothing_of_the_backup() {
    for step in ["prepare", "finish", "publish"] {
        let s = scene().await;
        let mut targets = s.targets();
        targets[1].fault = Some(Fault(step, How::Damaged));
        let e = s.restore(targets, |_| {}).await.unwrap_err();
        assert_eq!((e.kind(), cause(&e).kind()), (ErrorKind::RolledBack, ErrorKind::Target), "{step}: {e}");
        assert!(e.to_string().contains("a row is missing") && !met_damage(&e), "{step}: {e}");
        s.assert_old_without_traces();
    }
    let s = scene().await;
    s.archive.tamper(&s.backup, "two", b"a", |b| b[0] ^= 1).unwrap();
    assert!(met_damage(&s.restore(s.targets(), |_| {}).await.unwrap_err()));
}

#[tokio::test]
async fn what_is_restored_in_place_is_read_before_anything_is_taken_away() {
    let s = scene().await;
    s.archive.tamper(&s.backup, "two", b"a", |b| b[0] ^= 1).unwrap();
    let mut targets = s.targets();
    targets[1].in_place = true;
    let log = targets[1].log.clone();
    let e = s.restore(targets, |_| {}).await.unwrap_err();
    assert!(e.kind() == ErrorKind::RolledBack && met_damage(&e), "{e}");
    assert_eq!(*log.lock().unwrap(), ["revert two", "reverted two"]);
    s.assert_old_without_traces();
}
