//! What the pipeline that makes a backup promises.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use async_trait::async_trait;
use backup_core::*;
use common::*;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

const A: &[(&str, &str)] = &[("a", "1"), ("b/c", "22")];

fn fails_while_pouring() -> Script {
    script(|sink, cx| async move {
        let items = [Ok((Entry::file("first", Stage::Data), Content::whole("x"))), Err(failed("list"))];
        put_stage(&sink, &cx, futures::stream::iter(items)).await?;
        Ok(Facts::new())
    })
}

async fn states(archive: &MemoryArchive, cx: &Context) -> Vec<State> {
    archive.list(cx).await.unwrap().iter().map(|s| s.state).collect()
}

#[tokio::test]
async fn a_backup_in_which_everything_is_there_is_complete_and_says_what_it_holds() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let mut r = request(vec![component("x", files(A)), component("y", files(&[("z", "333")]))]);
    r.read_back = backup_core::ReadBack::Full;
    let report = create(r, &archive, &cx).await.unwrap();
    assert_eq!((report.state, report.entries, report.data_bytes), (State::Complete, 3, 6));
    assert!(report.read_back && report.notes.list.is_empty());
    let list = archive.list(&cx).await.unwrap();
    assert_eq!((list.len(), list[0].verified.is_some()), (1, true));
}

fn at_read_back(act: impl Fn() + Send + Sync + 'static, cx: Context) -> Context {
    cx.with_observer(Some(Arc::new(move |event| {
        if matches!(event, Event::Phase { phase: Phase::ReadBack }) {
            act();
        }
    })))
}

#[tokio::test]
async fn who_cancels_while_it_is_read_back_has_a_backup_that_is_not_verified() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let cancel = cx.cancel.clone();
    let cx = at_read_back(move || cancel.cancel(), cx);
    let mut r = request(vec![component("x", files(A))]);
    r.read_back = backup_core::ReadBack::Full;
    let report = create(r, &archive, &cx).await.unwrap();
    assert_eq!((report.state, report.read_back), (State::Complete, false));
    let note = &report.notes.list[0];
    assert!(note.severity == Severity::Warning && note.text.contains("not read back"), "{note:?}");
    let list = archive.list(&Context::default()).await.unwrap();
    assert_eq!((list[0].state, list[0].verified, list[0].damaged), (State::Complete, None, None));
}

#[tokio::test]
async fn a_backup_that_is_damaged_when_it_is_read_back_is_there_and_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_owned();
    let mut options = portable::PortableOptions::default();
    options.compression = portable::Compression::None;
    let archive = portable::PortableArchive::folder(&place, options).unwrap();
    let flip = move || {
        let mut files = std::fs::read_dir(&place).unwrap().map(|f| f.unwrap().path());
        let tar = files.find(|f| f.extension().is_some_and(|e| e == "tar")).unwrap();
        let mut bytes = std::fs::read(&tar).unwrap();
        let at = bytes.windows(6).position(|w| w == b"needle").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&tar, bytes).unwrap();
    };
    let cx = at_read_back(flip.clone(), Context::default());
    // What is small is read once, when it is opened.
    let large = script(|sink, cx| async move {
        let file =
            |path: &str, text: Vec<u8>| Ok((Entry::file(path.to_owned(), Stage::Data), Content::whole(text)));
        let items = [file("a", b"needle".into()), file("b", vec![b'-'; 4 << 20])];
        put_stage(&sink, &cx, futures::stream::iter(items)).await?;
        Ok(Facts::new())
    });
    let mut r = request(vec![component("x", large)]);
    r.read_back = backup_core::ReadBack::Full;
    let e = create(r, &archive, &cx).await.unwrap_err();
    let cx = Context::default();
    let list = archive.list(&cx).await.unwrap();
    assert_eq!((list.len(), e.kind(), list[0].verified), (1, ErrorKind::Damaged, None));
    assert!(list[0].damaged.is_some(), "{list:?}");
    for part in ["is stored under", &list[0].location, list[0].id.as_str(), "must not be trusted"] {
        assert!(e.message().contains(part), "{e}");
    }
    archive.mark_verified(&list[0].id, jiff::Timestamp::now(), &cx).await.unwrap();
    let list = archive.list(&cx).await.unwrap();
    assert!(list[0].verified.is_some() && list[0].damaged.is_none(), "a sound reading takes it back");
}

#[tokio::test]
async fn a_source_that_cannot_be_opened_leaves_nothing_behind() {
    for at_fix in [false, true] {
        let (archive, cx) = (MemoryArchive::new(), Context::default());
        let mut bad = files(A);
        *(if at_fix { &mut bad.fix } else { &mut bad.connect }) = Some(failed("open"));
        let good = files(A);
        let log = good.log.clone();
        let e = create(request(vec![component("x", good), component("y", bad)]), &archive, &cx).await;
        let e = e.unwrap_err();
        assert_eq!((e.kind(), e.subject()), (ErrorKind::Source, Some("y")));
        assert!(archive.list(&cx).await.unwrap().is_empty());
        assert_eq!(
            log.lock().unwrap().contains(&"fix".to_owned()),
            at_fix,
            "connecting comes before the moment"
        );
        // The run lock is given back.
        create(request(vec![component("x", files(A))]), &archive, &cx).await.unwrap();
    }
}

#[tokio::test]
async fn with_consent_a_source_that_cannot_be_opened_is_left_out_and_said() {
    for at_fix in [false, true] {
        let (archive, cx) = (MemoryArchive::new(), Context::default());
        let mut bad = files(A);
        *(if at_fix { &mut bad.fix } else { &mut bad.connect }) = Some(failed("open"));
        let mut r = request(vec![component("x", files(A)), component("y", bad.clone())]);
        r.allow_partial = true;
        let report = create(r, &archive, &cx).await.unwrap();
        assert_eq!((report.state, report.components.len()), (State::Partial, 1));
        assert_eq!(report.notes.worst(), Some(Severity::Lost));
        let reader = archive.open(&report.id, &cx).await.unwrap();
        assert!(reader.manifest().not_included[0].contains('y'));
        assert!(reader.manifest().component("y").is_none(), "not there as an empty one");
        assert_eq!(states(&archive, &cx).await, [State::Partial]);

        let mut r = request(vec![component("y", bad)]);
        r.allow_partial = true;
        assert!(create(r, &archive, &Context::default()).await.is_err(), "nothing at all is no backup");
        assert_eq!(states(&archive, &cx).await.len(), 1);
    }
}

#[tokio::test]
async fn if_one_fails_while_pouring_the_others_finish_and_the_backup_is_partial() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let slow = script(|sink, cx| async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let items = [Ok((Entry::file("late", Stage::Data), Content::whole("x")))];
        put_stage(&sink, &cx, futures::stream::iter(items)).await?;
        Ok(Facts::new())
    });
    let r = request(vec![component("x", fails_while_pouring()), component("y", slow)]);
    let report = create(r, &archive, &cx).await.unwrap();
    assert_eq!(report.state, State::Partial);
    let counts: Vec<_> = report.components.iter().map(|c| (c.entries, c.lost)).collect();
    assert_eq!(counts, [(1, 1), (1, 0)]);
    let note = &report.notes.list[0];
    assert!(note.severity == Severity::Lost && note.component == "x" && note.text.contains("away"));
}

#[tokio::test]
async fn if_all_fail_nothing_is_stored() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let r = request(vec![component("x", fails_while_pouring()), component("y", fails_while_pouring())]);
    assert_eq!(create(r, &archive, &cx).await.unwrap_err().kind(), ErrorKind::Source);
    assert!(archive.list(&cx).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_view_that_panics_is_lost_and_the_others_are_kept() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let panics = script(|_, _| async { panic!("a defect") });
    let r = request(vec![component("x", panics), component("y", files(A))]);
    let report = create(r, &archive, &cx).await.unwrap();
    assert_eq!((report.state, report.components[0].lost), (State::Partial, 1));
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_makes_the_backup_partial_whatever_the_author_returns() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let r = request(vec![component("x", files(&[("a", "1"), ("secret", "!")]))]);
    let report = create(r, &archive, &cx).await.unwrap();
    assert_eq!((report.state, report.entries, report.components[0].lost), (State::Partial, 1, 1));
    assert_eq!(report.notes.list[0].path, "secret");
}

#[tokio::test]
async fn what_a_view_begins_to_put_and_gives_up_is_lost_however_it_goes_on() {
    fn put(path: &str, stage: Stage, content: Content) -> (Entry, Content) {
        (Entry::file(path.to_owned(), stage), content)
    }
    type Puts = fn() -> (Entry, Content);
    let cases: [(&str, Puts); 4] = [
        ("given up", || put("x", Stage::Data, Content::stream(futures::stream::pending()))),
        ("no path", || put("../x", Stage::Data, Content::whole("1"))),
        ("cancelled", || put("x", Stage::Data, Content::failed(Error::cancelled()))),
        ("a put of stage", || put("x", Stage::Prepare, Content::whole("1"))),
    ];
    for (why, bad) in cases {
        let (archive, cx) = (MemoryArchive::new(), Context::default());
        let goes_on = script(move |sink, _| async move {
            let (entry, content) = put("first", Stage::Data, Content::whole("1"));
            let _ = sink.put(entry, content).await?;
            let (entry, content) = bad();
            let _ = tokio::time::timeout(Duration::from_millis(20), sink.put(entry, content)).await;
            let (entry, content) = put("last", Stage::Data, Content::whole("1"));
            let _ = sink.put(entry, content).await?;
            Ok(Facts::new())
        });
        let report = create(request(vec![component("x", goes_on)]), &archive, &cx).await.unwrap();
        assert_eq!((report.state, report.components[0].lost), (State::Partial, 1), "{why}");
        assert!(report.notes.list[0].text.contains(why), "{:?}", report.notes.list);
    }
}

#[tokio::test]
async fn what_was_given_up_and_put_again_is_not_lost() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let again = script(move |sink, _| async move {
        let never = Content::stream(futures::stream::pending());
        let put = sink.put(Entry::file("x", Stage::Data), never);
        let _ = tokio::time::timeout(Duration::from_millis(20), put).await;
        let _ = sink.put(Entry::file("x", Stage::Data), Content::whole("1")).await?;
        Ok(Facts::new())
    });
    let report = create(request(vec![component("x", again)]), &archive, &cx).await.unwrap();
    assert_eq!((report.state, report.entries), (State::Complete, 1));
}

#[tokio::test]
async fn a_warning_makes_the_backup_partial_only_when_it_is_strict() {
    for (strict, state) in [(false, State::Complete), (true, State::Partial)] {
        let (archive, cx) = (MemoryArchive::new(), Context::default());
        let warns = script(|_, cx| async move {
            cx.note(Severity::Warning, "x", "f", "it changed while it was read");
            Ok(Facts::new())
        });
        let mut r = request(vec![component("x", warns)]);
        r.strict = strict;
        assert_eq!(create(r, &archive, &cx).await.unwrap().state, state);
    }
}

#[tokio::test]
async fn counts_of_one_pour_that_differ_are_never_a_success() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let lies = script(|sink, cx| async move {
        let items = [Ok((Entry::file("f", Stage::Data), Content::whole("x")))];
        put_stage(&sink, &cx, futures::stream::iter(items)).await?;
        Ok(Facts::new().with("all", "entries", Fact::Count(2)))
    });
    let report = create(request(vec![component("x", lies)]), &archive, &cx).await.unwrap();
    assert_eq!((report.state, report.components[0].differences.len()), (State::Partial, 1));
    assert_eq!(report.notes.worst(), Some(Severity::Lost));
}

#[tokio::test]
async fn a_cancelled_run_leaves_nothing_behind_and_gives_the_lock_back() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let cancel = cx.cancel.clone();
    let stalls = script(move |sink, cx| {
        cancel.cancel();
        async move {
            let never = Content::stream(futures::stream::pending());
            let items = [Ok((Entry::file("f", Stage::Data), never))];
            put_stage(&sink, &cx, futures::stream::iter(items)).await?;
            Ok(Facts::new())
        }
    });
    let r = request(vec![component("x", stalls), component("y", files(A))]);
    let e = tokio::time::timeout(Duration::from_secs(10), create(r, &archive, &cx)).await.unwrap();
    assert_eq!(e.unwrap_err().kind(), ErrorKind::Cancelled);
    let cx = Context::default();
    assert!(archive.list(&cx).await.unwrap().is_empty());
    create(request(vec![component("x", files(A))]), &archive, &cx).await.unwrap();
}

#[tokio::test]
async fn a_broken_rule_ends_the_run_and_nothing_is_stored() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let goes_back = script(|sink, _| async move {
        let _ = sink.put(Entry::file("a", Stage::Data), Content::whole("x")).await?;
        let _ = sink.put(Entry::file("b", Stage::Prepare), Content::whole("x")).await?;
        Ok(Facts::new())
    });
    let r = request(vec![component("x", goes_back), component("y", files(A))]);
    assert_eq!(create(r, &archive, &cx).await.unwrap_err().kind(), ErrorKind::Contract);
    assert!(archive.list(&cx).await.unwrap().is_empty());
}

#[tokio::test]
async fn wrong_requests_are_refused_before_anything_is_read() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let twice = request(vec![component("x", files(A)), component("x", files(A))]);
    let nameless = CreateRequest { series: Series::default(), ..request(vec![component("x", files(A))]) };
    let strange = CreateRequest { module: "../x".into(), ..request(vec![component("x", files(A))]) };
    for r in [twice, nameless, strange, request(vec![]), request(vec![component("-x", files(A))])] {
        assert_eq!(create(r, &archive, &cx).await.unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[tokio::test]
async fn the_moments_of_all_stores_are_fixed_at_once_and_after_all_are_connected() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let log = Arc::new(Mutex::new(Vec::new()));
    let with_log = || Script { log: log.clone(), ..files(A) };
    let r = request(vec![component("x", with_log()), component("y", with_log())]);
    create(r, &archive, &cx).await.unwrap();
    assert_eq!(*log.lock().unwrap(), ["connect", "connect", "fix", "fix"]);
}

#[tokio::test]
async fn what_was_damaged_later_is_found_by_verify_and_named() {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let r = request(vec![component("x", files(A)), component("y", files(A))]);
    let id = create(r, &archive, &cx).await.unwrap().id;
    let sound = verify(archive.open(&id, &cx).await.unwrap(), Depth::Full, &cx).await.unwrap();
    assert_eq!((sound.entries, sound.bytes, sound.defects.len()), (4, 6, 0));
    archive.tamper(&id, "y", b"b/c", |b| b[0] ^= 1).unwrap();
    let found = verify(archive.open(&id, &cx).await.unwrap(), Depth::Full, &cx).await.unwrap();
    assert_eq!(found.defects.len(), 1);
    assert_eq!((found.defects[0].kind(), found.defects[0].subject()), (ErrorKind::Damaged, Some("y/b/c")));
    assert_eq!(found.components.iter().map(|c| c.sound).collect::<Vec<_>>(), [true, false]);
}

/// Takes one put at a time, and counts how many were open at once.
#[derive(Default)]
struct OneAtATime {
    turn: tokio::sync::Mutex<()>,
    open: AtomicUsize,
    most: AtomicUsize,
    ended: AtomicUsize,
    fail_first: AtomicBool,
}

impl std::fmt::Display for OneAtATime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("one at a time")
    }
}

#[async_trait]
impl Sink for OneAtATime {
    async fn put(&self, _entry: Entry, mut content: Content) -> Result<Put> {
        let open = self.open.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(open, SeqCst);
        let turn = self.turn.lock().await;
        tokio::task::yield_now().await;
        while content.next().await?.is_some() {}
        drop(turn);
        self.open.fetch_sub(1, SeqCst);
        self.ended.fetch_add(1, SeqCst);
        if self.fail_first.swap(false, SeqCst) {
            return Err(Error::new(ErrorKind::Destination, "write", "the disk is full"));
        }
        Ok(Put::Stored)
    }

    async fn finish(&self, _cx: &Context) -> Result<Proof> {
        Ok(Proof::new())
    }
}

fn many(n: usize) -> impl futures::Stream<Item = Result<(Entry, Content)>> + Send {
    futures::stream::iter((0..n).map(|i| {
        let content = match i % 2 {
            0 => Content::whole("x"),
            _ => Content::produce(|feed| async move {
                feed.send("y").await?;
                Ok(Facts::new())
            }),
        };
        Ok((Entry::file(format!("f{i}"), Stage::Data), content))
    }))
}

#[tokio::test]
async fn a_sink_that_takes_one_put_at_a_time_does_not_hang_and_no_more_than_allowed_are_open() {
    let sink = Arc::new(OneAtATime::default());
    let cx = Context::new(1 << 20, 3);
    let dynamic: Arc<dyn Sink> = sink.clone();
    let put = put_stage(&dynamic, &cx, many(200));
    tokio::time::timeout(Duration::from_secs(20), put).await.unwrap().unwrap();
    assert_eq!(sink.ended.load(SeqCst), 200);
    assert!((2..=6).contains(&sink.most.load(SeqCst)), "{:?}", sink.most);
}

#[tokio::test]
async fn after_an_error_open_puts_are_awaited_and_no_more_are_taken() {
    let sink = Arc::new(OneAtATime { fail_first: true.into(), ..OneAtATime::default() });
    let cx = Context::new(1 << 20, 3);
    let dynamic: Arc<dyn Sink> = sink.clone();
    let e = put_stage(&dynamic, &cx, many(200)).await.unwrap_err();
    assert_eq!((e.kind(), sink.open.load(SeqCst)), (ErrorKind::Destination, 0));
    assert!(sink.ended.load(SeqCst) < 20);
}

#[tokio::test]
async fn a_broken_sink_ends_all_pours_and_comes_first_among_the_errors() {
    let broken: Arc<dyn Sink> = Arc::new(OneAtATime { fail_first: true.into(), ..OneAtATime::default() });
    let sound: Arc<dyn Sink> = Arc::new(OneAtATime::default());
    let stalls = script(|sink, cx| async move {
        let never = Content::stream(futures::stream::pending());
        put_stage(&sink, &cx, futures::stream::iter([Ok((Entry::file("f", Stage::Data), never))])).await?;
        Ok(Facts::new())
    });
    let pouring = |name: &str, view: Script, sink: &Arc<dyn Sink>| Pouring {
        component: name.into(),
        view: Box::new(view),
        sink: sink.clone(),
        stillness: None,
    };
    let list = vec![pouring("x", stalls, &sound), pouring("y", files(A), &broken)];
    let cx = Context::default();
    let poured = tokio::time::timeout(Duration::from_secs(10), pour_all(list, false, &cx)).await.unwrap();
    let kinds: Vec<_> = poured.into_iter().map(|(_, r)| r.unwrap_err().kind()).collect();
    assert_eq!(kinds, [ErrorKind::Cancelled, ErrorKind::Destination]);
    // What was not taken because of it is no loss of its source.
    assert_eq!(cx.notes().worst(), None, "{:?}", cx.notes());
}

#[test]
fn every_pipeline_can_be_spawned() {
    fn can<T: Send>(_: &T) {}
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    can(&create(request(vec![]), &archive, &cx));
    let reader = |a: &MemoryArchive| a.clone();
    can(&async {
        let reader = reader(&archive).open(&BackupId::generate(), &cx).await?;
        verify(reader.clone(), Depth::Full, &cx).await?;
        let options = RestoreOptions::new("state", "label");
        plan_restore(reader, vec![], options, &cx).await?.apply(None, &cx).await
    });
    let state = std::path::Path::new("state");
    can(&async {
        heal_restores(state, &[], &recover, jiff::Timestamp::now(), &cx).await?;
        for restore in pending(state, &[])? {
            settle_restore(&restore, &recover, &cx).await?;
            undo_restore(&restore, &recover, &cx).await?;
        }
        Ok::<(), Error>(())
    });
}
