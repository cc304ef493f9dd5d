//! What every source promises. Enlist with `source_conformance!`.

use crate::{
    Must,
    conformance::pouring::{assert_same, pour},
    faults::{BreaksAfter, DiscardsFirst, FullAfter, KeepsAll, LastFirst, OneAtATime, RecordsPuts, SlowOn},
    memory::{Contents, ContentsSink, pour_into},
    not_applicable,
};
use async_trait::async_trait;
use backup_core::{Context, ErrorKind, Poured, Result, Sink, Source, compare};
use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

/// What a store is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Known data: several entries, some of them streams.
    Known,
    /// Nothing.
    Empty,
    /// Several MiB in at least a few entries, so that a pour can be interrupted.
    Big,
    /// Known data and one entry that cannot be read.
    Unreadable,
}

/// A store with a source on it.
pub struct Made {
    /// The source.
    pub source: Box<dyn Source>,
    /// Entries that must be poured, as far as the fixture knows them; `None`: only that pours agree with each other.
    pub expected: Option<Contents>,
    /// Changes the store while it is poured.
    pub disturb: Option<Box<dyn Fn() + Send + Sync>>,
    /// What a pour took and did not give back: locks, snapshots, temporary files.
    pub taken: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Must not be printed or kept in an origin.
    pub secret: Option<String>,
    /// What lives as long as the store.
    pub kept: Box<dyn Any + Send + Sync>,
}

impl Made {
    /// A store that lives as long as `kept`.
    pub fn new(source: impl Source + 'static, kept: impl Any + Send + Sync) -> Self {
        Made {
            source: Box::new(source),
            expected: None,
            disturb: None,
            taken: Box::new(Vec::new),
            secret: None,
            kept: Box::new(kept),
        }
    }
}

/// Makes stores to be read.
#[async_trait]
pub trait SourceFixture: Send + Sync {
    /// A store of its own; `None` if this setup cannot be made here (an unreadable file as root). `Known`, `Empty` and `Big`
    /// must be possible.
    async fn store(&self, setup: Setup) -> Option<Made>;

    /// The least budget with which it can pour.
    fn least_budget(&self) -> usize {
        1 << 20
    }
}

async fn made(make: &impl SourceFixture, setup: Setup) -> Made {
    make.store(setup).await.must("the fixture makes such a store")
}

async fn pour_through(
    made: &Made,
    cx: &Context,
    wrap: impl Fn(Arc<dyn Sink>) -> Arc<dyn Sink>,
) -> Result<(Poured, Contents)> {
    let sink = ContentsSink::new();
    let pouring = pour(&*made.source, "c", wrap(Arc::new(sink.clone())), cx);
    let poured = tokio::time::timeout(Duration::from_secs(90), pouring).await.must("no deadlock")?;
    Ok((poured, sink.take()))
}

fn assert_nothing_taken(made: &Made) {
    assert_eq!((made.taken)(), Vec::<String>::new(), "something that was taken was not given back");
}

/// Nothing more, nothing less, nothing changed; in stages, with the promised sizes.
pub async fn what_is_poured_is_what_is_there(make: &impl SourceFixture) {
    for setup in [Setup::Known, Setup::Big] {
        let (made, cx) = (made(make, setup).await, Context::default());
        let (poured, contents) = pour_through(&made, &cx, |sink| sink).await.must("pour");
        assert_eq!(poured.lost, 0, "{:?}", cx.notes());
        assert!(!contents.is_empty(), "nothing was poured");
        assert_eq!(poured.proof.count("all", "entries"), contents.len() as u64);
        if let Some(expected) = &made.expected {
            assert_same(expected, &contents);
        }
        assert!(poured.moment.first <= poured.moment.last);
        assert_nothing_taken(&made);
    }
}

/// The same facts every time, however many streams flow at once.
pub async fn two_pours_of_a_still_store_prove_the_same(make: &impl SourceFixture) {
    let made = made(make, Setup::Known).await;
    let (first, contents) = pour_through(&made, &Context::new(64 << 20, 8), |s| s).await.must("pour");
    let (second, again) = pour_through(&made, &Context::new(64 << 20, 1), |s| s).await.must("pour again");
    assert_same(&contents, &again);
    let differences = compare(&first.proof, &second.proof, &|_, _| false);
    assert!(differences.is_empty(), "{differences:?}");
}

/// An empty store is a backup too.
pub async fn an_empty_store_is_poured_without_error(make: &impl SourceFixture) {
    let (made, cx) = (made(make, Setup::Empty).await, Context::default());
    let (poured, contents) = pour_through(&made, &cx, |sink| sink).await.must("pour");
    assert_eq!(poured.lost, 0, "{:?}", cx.notes());
    if let Some(expected) = &made.expected {
        assert_same(expected, &contents);
    }
}

async fn pours_into(make: &impl SourceFixture, wrap: impl Fn(Arc<dyn Sink>) -> Arc<dyn Sink>) {
    let made = made(make, Setup::Known).await;
    let (_, expected) = pour_through(&made, &Context::default(), |sink| sink).await.must("pour");
    let cx = Context::new(make.least_budget(), 8);
    let (poured, contents) = pour_through(&made, &cx, wrap).await.must("pour into this sink");
    assert_eq!(poured.lost, 0, "{:?}", cx.notes());
    assert_same(&expected, &contents);
    assert_eq!(cx.budget.in_flight(), 0, "bytes of the budget were not given back");
}

/// A content reaches its end without any other put progressing.
pub async fn it_pours_into_a_sink_that_takes_one_put_at_a_time(make: &impl SourceFixture) {
    pours_into(make, |sink| OneAtATime::new(sink)).await;
}

/// No content waits for one that was put before it.
pub async fn it_pours_into_a_sink_that_answers_last_first(make: &impl SourceFixture) {
    pours_into(make, |sink| LastFirst::new(sink)).await;
}

/// A slow consumer is not an error.
pub async fn it_pours_into_a_slow_sink(make: &impl SourceFixture) {
    pours_into(make, |sink| SlowOn::all(sink, Duration::from_millis(3))).await;
}

/// Thirty tasks and the least budget.
pub async fn it_pours_under_the_least_budget(make: &impl SourceFixture) {
    let made = made(make, Setup::Big).await;
    let cx = Context::new(make.least_budget(), 30);
    let (poured, _) = pour_through(&made, &cx, |sink| sink).await.must("pour");
    assert_eq!(poured.lost, 0, "{:?}", cx.notes());
    assert_eq!(cx.budget.in_flight(), 0, "bytes of the budget were not given back");
}

/// No more than the run allows are open at once; what is in memory may be put in place.
pub async fn contents_do_nothing_until_they_are_polled(make: &impl SourceFixture) {
    let (made, cx) = (made(make, Setup::Big).await, Context::default());
    let sink = KeepsAll::new(Arc::new(ContentsSink::new()));
    let pouring = pour_into(&*made.source, "c", sink, &cx);
    let (_, lost) = tokio::time::timeout(Duration::from_secs(60), pouring)
        .await
        .must("a sink that has everything already ends")
        .must("contents that are dropped unpolled are no error");
    assert_eq!(lost, 0);
    assert_nothing_taken(&made);
}

/// What one entry lost does not cost the others.
pub async fn a_discarded_put_does_not_end_the_pour(make: &impl SourceFixture) {
    let (made, cx) = (made(make, Setup::Known).await, Context::default());
    let (_, all) = pour_through(&made, &cx, |sink| sink).await.must("pour");
    let victim = all.keys().next().must("an entry").clone();
    let (poured, contents) =
        pour_through(&made, &cx, |sink| DiscardsFirst::of(sink, victim.clone())).await.must("pour");
    // A source may put it again; else it is lost, and counted.
    let expected = all.len() - usize::try_from(poured.lost).must("a number");
    assert_eq!(contents.len(), expected, "entries vanished without being lost");
    assert!(poured.lost <= 1, "one discarded put lost {}", poured.lost);
}

/// It is counted as lost; nothing is left out in silence.
pub async fn an_unreadable_entry_is_put_and_lost(make: &impl SourceFixture) {
    let Some(made) = make.store(Setup::Unreadable).await else {
        return not_applicable("an_unreadable_entry_is_put_and_lost", "nothing here is unreadable");
    };
    let cx = Context::default();
    let (poured, contents) = pour_through(&made, &cx, |sink| sink).await.must("pour");
    assert!(poured.lost >= 1, "the unreadable entry was left out in silence");
    if let Some(expected) = &made.expected {
        assert_same(expected, &contents);
    }
    assert_nothing_taken(&made);
}

/// At any point: the error comes back, and what was taken is given back.
pub async fn a_broken_sink_ends_the_pour_with_its_error(make: &impl SourceFixture) {
    for puts in [0, 1, 2] {
        let (made, cx) = (made(make, Setup::Big).await, Context::default());
        let error = pour_through(&made, &cx, |sink| BreaksAfter::new(sink, puts)).await.err();
        let error = error.must("a broken sink is an error");
        assert_eq!(error.kind(), ErrorKind::Destination, "another error hides the cause: {error}");
        assert_nothing_taken(&made);
    }
    let (made, cx) = (made(make, Setup::Big).await, Context::default());
    let error = pour_through(&made, &cx, |sink| FullAfter::new(sink, 100_000)).await.err();
    let error = error.must("a full disk is an error");
    assert_eq!(error.kind(), ErrorKind::Destination, "another error hides the cause: {error}");
    assert_nothing_taken(&made);
}

/// Within five seconds, and what was taken is given back.
pub async fn cancellation_ends_the_pour_in_time(make: &impl SourceFixture) {
    let (made, cx) = (made(make, Setup::Big).await, Context::default());
    let cancel = cx.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel();
    });
    let started = Instant::now();
    let slow = |sink| SlowOn::all(sink, Duration::from_millis(300)) as Arc<dyn Sink>;
    let error = pour_through(&made, &cx, slow).await.err().must("a cancelled pour is an error");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_millis(5200), "it took {:?}", started.elapsed());
    assert_nothing_taken(&made);
}

/// A run may fail between any two steps.
pub async fn what_was_connected_or_fixed_is_given_back_when_dropped(make: &impl SourceFixture) {
    let (made, cx) = (made(make, Setup::Known).await, Context::default());
    drop(made.source.connect(&cx).await.must("connect"));
    assert_nothing_taken(&made);
    let view = made.source.connect(&cx).await.must("connect").fix(&cx).await.must("fix");
    drop(view);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_nothing_taken(&made);
    pour_through(&made, &cx, |sink| sink).await.must("pour afterwards");
}

/// Whatever the application does meanwhile, the contracts hold.
pub async fn a_store_that_changes_while_it_is_poured_breaks_no_contract(make: &impl SourceFixture) {
    let (mut made, cx) = (made(make, Setup::Big).await, Context::default());
    let Some(disturb) = made.disturb.take() else {
        return not_applicable(
            "a_store_that_changes_while_it_is_poured_breaks_no_contract",
            "the fixture does not change it",
        );
    };
    let changes = tokio::task::spawn_blocking(move || {
        for _ in 0..20 {
            disturb();
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    let record = RecordsPuts::new(Arc::new(ContentsSink::new()));
    let slow = SlowOn::all(record, Duration::from_millis(5));
    let pouring = tokio::time::timeout(Duration::from_secs(90), pour(&*made.source, "c", slow, &cx)).await;
    changes.await.must("the changes end");
    match pouring.must("no deadlock") {
        Ok(poured) if poured.lost > 0 => {
            let notes = cx.notes();
            assert!(notes.worst() == Some(backup_core::Severity::Lost), "a loss without a note: {notes:?}");
        }
        Ok(_) => {}
        Err(e) => {
            let defect = matches!(e.kind(), ErrorKind::Contract | ErrorKind::Panicked | ErrorKind::Budget);
            assert!(!defect, "{e:?}");
        }
    }
    assert_nothing_taken(&made);
}

/// Names and origins go into logs and manifests.
pub async fn no_secret_is_shown(make: &impl SourceFixture) {
    let (made, cx) = (made(make, Setup::Known).await, Context::default());
    let Some(secret) = &made.secret else {
        return not_applicable("no_secret_is_shown", "there is none");
    };
    let (poured, _) = pour_through(&made, &cx, |sink| sink).await.must("pour");
    for text in
        [made.source.to_string(), made.source.origin().to_string(), format!("{poured:?} {:?}", cx.notes())]
    {
        assert!(!text.contains(secret.as_str()), "the secret is shown");
    }
}

/// Makes a test of every promise of a source. The argument is an expression that makes a `SourceFixture`.
#[macro_export]
macro_rules! source_conformance {
    ($fixture:expr) => {
        $crate::promises!(
            $fixture,
            source,
            [
                what_is_poured_is_what_is_there,
                two_pours_of_a_still_store_prove_the_same,
                an_empty_store_is_poured_without_error,
                it_pours_into_a_sink_that_takes_one_put_at_a_time,
                it_pours_into_a_sink_that_answers_last_first,
                it_pours_into_a_slow_sink,
                it_pours_under_the_least_budget,
                contents_do_nothing_until_they_are_polled,
                a_discarded_put_does_not_end_the_pour,
                an_unreadable_entry_is_put_and_lost,
                a_broken_sink_ends_the_pour_with_its_error,
                cancellation_ends_the_pour_in_time,
                what_was_connected_or_fixed_is_given_back_when_dropped,
                a_store_that_changes_while_it_is_poured_breaks_no_contract,
                no_secret_is_shown,
            ]
        );
    };
}
