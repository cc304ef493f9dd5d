//! What every target promises: all old or all new, killed anywhere. Enlist with `target_conformance!`.

use crate::{
    Must,
    conformance::pouring::pour,
    faults::{ContentFault, Fault, FaultyTarget, Step},
    memory::{MemorySource, incoming},
};
use async_trait::async_trait;
use backup_core::{Context, Entry, ErrorKind, Incoming, Poured, Result, Sink, Survey, Target, compare};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Makes stores to be restored.
#[async_trait]
pub trait TargetFixture: Send + Sync {
    /// A store, kept as long as it lives.
    type Store: Send + Sync;

    /// One with known old data, or one where nothing is yet.
    async fn store(&self, old_data: bool) -> Self::Store;

    /// A new restore of it.
    async fn target(&self, store: &Self::Store) -> Box<dyn Target>;

    /// What `Backend::recover` makes, in a later process, of what `undo` said.
    fn recover(&self, store: &Self::Store, undo: Value) -> Result<Box<dyn Target>>;

    /// Changes whenever anything effective does: contents and attributes, not counts alone.
    async fn fingerprint(&self, store: &Self::Store) -> String;

    /// Data to restore, other than the old: several entries, at least one of them a stream.
    fn new_data(&self) -> MemorySource;

    /// Shadows and old data that are still kept.
    async fn leftovers(&self, store: &Self::Store) -> Vec<String>;

    /// The polls of a call at which it is killed in turn, ascending. A store of which every try takes seconds names fewer.
    fn polls(&self) -> Vec<u32> {
        (1..=60).collect()
    }
}

/// A kill before the call, after it, and at the polls of it that the fixture names. The loops end at the first poll that the
/// call did not need, for then all are covered.
fn kills(make: &impl TargetFixture) -> impl Iterator<Item = Fault> {
    [Fault::Killed, Fault::KilledAfter].into_iter().chain(make.polls().into_iter().map(Fault::KilledAtPoll))
}

async fn pause() {
    // What an abandoned call still does in threads that no runtime knows; a killed process has none.
    tokio::time::sleep(Duration::from_millis(60)).await;
}

async fn coming(make: &impl TargetFixture) -> Incoming {
    incoming(&make.new_data()).await
}

/// Surveyed and prepared, as by a plan that is applied.
async fn begin(make: &impl TargetFixture, target: &mut dyn Target, cx: &Context) -> Result<Arc<dyn Sink>> {
    let survey = target.survey(&coming(make).await, cx).await?;
    assert!(survey.refusals.is_empty(), "what the fixture gives is refused: {:?}", survey.refusals);
    target.prepare(cx).await
}

async fn fill(make: &impl TargetFixture, target: &mut dyn Target, cx: &Context) -> Result<Poured> {
    let sink = begin(make, target, cx).await?;
    pour(&make.new_data(), "c", sink, cx).await
}

async fn restore(make: &impl TargetFixture, target: &mut dyn Target, cx: &Context) -> Result<()> {
    let poured = fill(make, target, cx).await?;
    assert_eq!(poured.lost, 0, "{:?}", cx.notes());
    target.publish(cx).await
}

/// The fingerprint of the new data, from a restore of its own.
async fn new_fingerprint(make: &impl TargetFixture, old_data: bool) -> String {
    let (store, cx) = (make.store(old_data).await, Context::default());
    let mut target = make.target(&store).await;
    restore(make, &mut *target, &cx).await.must("restore");
    let published = make.fingerprint(&store).await;
    target.settle(&cx).await.must("settle");
    assert_eq!(make.fingerprint(&store).await, published, "settling changed the data");
    published
}

async fn assert_old<F: TargetFixture>(make: &F, store: &F::Store, old: &str, when: &str) {
    assert_eq!(make.fingerprint(store).await, old, "{when}: it is not the old data");
    assert_eq!(make.leftovers(store).await, Vec::<String>::new(), "{when}: something is left");
}

/// A plan is made without touching anything; it says whether data will be replaced.
pub async fn a_survey_reads_only(make: &impl TargetFixture) {
    for old_data in [true, false] {
        let (store, cx) = (make.store(old_data).await, Context::default());
        let before = make.fingerprint(&store).await;
        let mut target = make.target(&store).await;
        let coming = coming(make).await;
        let first = target.survey(&coming, &cx).await.must("survey");
        // What is free is everybody's: it changes by itself.
        let second = Survey {
            free_bytes: first.free_bytes,
            free_entries: first.free_entries,
            ..target.survey(&coming, &cx).await.must("survey again")
        };
        assert_eq!(first, second, "two surveys differ");
        let mut other = make.target(&store).await;
        assert_eq!(first.identity, other.survey(&coming, &cx).await.must("survey by another plan").identity);
        assert_eq!(first.replaces, old_data, "whether data is replaced is said wrongly: {first:?}");
        assert!(
            !first.place.is_empty() && !first.publish.is_empty(),
            "the plan would say nothing: {first:?}"
        );
        assert_old(make, &store, &before, "after a survey").await;
    }
}

/// Prepared, put, finished: still the old data.
pub async fn nothing_is_effective_before_publish(make: &impl TargetFixture) {
    for old_data in [true, false] {
        let (store, cx) = (make.store(old_data).await, Context::default());
        let old = make.fingerprint(&store).await;
        let mut target = make.target(&store).await;
        let sink = begin(make, &mut *target, &cx).await.must("prepare");
        assert_eq!(make.fingerprint(&store).await, old, "prepare was effective");
        pour(&make.new_data(), "c", sink, &cx).await.must("pour");
        assert_eq!(make.fingerprint(&store).await, old, "puts or finish were effective");
        target.publish(&cx).await.must("publish");
        assert_ne!(make.fingerprint(&store).await, old, "publish was not effective");
        target.settle(&cx).await.must("settle");
        assert_eq!(make.leftovers(&store).await, Vec::<String>::new(), "something is left after settling");
    }
}

/// Whatever was there before.
pub async fn what_is_published_does_not_depend_on_the_old_data(make: &impl TargetFixture) {
    assert_eq!(new_fingerprint(make, true).await, new_fingerprint(make, false).await);
}

/// The same facts that were counted when the data was taken.
pub async fn the_proof_is_that_of_the_source(make: &impl TargetFixture) {
    let (store, cx) = (make.store(true).await, Context::default());
    let expected = {
        let sink = std::sync::Arc::new(crate::memory::ContentsSink::new());
        pour(&make.new_data(), "c", sink, &cx).await.must("pour into memory").proof
    };
    let mut target = make.target(&store).await;
    let poured = fill(make, &mut *target, &cx).await.must("fill the shadow");
    let differences = compare(&expected, &poured.proof, &|_, _| false);
    assert!(differences.is_empty(), "{differences:?}");
    target.revert(&cx).await.must("revert");
}

/// Before anything, after each step, twice, and by a later process.
pub async fn revert_restores_the_old_data_at_any_point(make: &impl TargetFixture) {
    for old_data in [true, false] {
        for steps in 0..4 {
            for later_process in [false, true] {
                let (store, cx) = (make.store(old_data).await, Context::default());
                let old = make.fingerprint(&store).await;
                let mut target = make.target(&store).await;
                let sink = match steps > 0 {
                    true => Some(begin(make, &mut *target, &cx).await.must("prepare")),
                    false => None,
                };
                if let (Some(sink), 2..) = (sink, steps) {
                    pour(&make.new_data(), "c", sink, &cx).await.must("pour");
                }
                if steps > 2 {
                    target.publish(&cx).await.must("publish");
                }
                if later_process {
                    let undo = target.undo();
                    drop(target);
                    target = make.recover(&store, undo).must("recover");
                }
                let when = format!("old data {old_data}, {steps} steps, by a later process {later_process}");
                target.revert(&cx).await.must(&when);
                assert_old(make, &store, &old, &when).await;
                target.revert(&cx).await.must("revert again");
                assert_old(make, &store, &old, &format!("{when}, twice")).await;
            }
        }
    }
}

/// And twice, and by a later process; a late revert does not bring the old data back.
pub async fn settle_keeps_the_new_data(make: &impl TargetFixture) {
    let new = new_fingerprint(make, true).await;
    for later_process in [false, true] {
        let (store, cx) = (make.store(true).await, Context::default());
        let mut target = make.target(&store).await;
        restore(make, &mut *target, &cx).await.must("restore");
        if later_process {
            let undo = target.undo();
            drop(target);
            target = make.recover(&store, undo).must("recover");
        }
        for _ in 0..2 {
            target.settle(&cx).await.must("settle");
            assert_old(make, &store, &new, "after settling").await;
        }
    }
}

/// It is journalled before the shadow is made.
pub async fn undo_is_the_same_from_the_beginning_to_the_end(make: &impl TargetFixture) {
    let (store, cx) = (make.store(true).await, Context::default());
    let mut target = make.target(&store).await;
    target.survey(&coming(make).await, &cx).await.must("survey");
    let undo = target.undo();
    let sink = target.prepare(&cx).await.must("prepare");
    assert_eq!(target.undo(), undo, "after prepare");
    pour(&make.new_data(), "c", sink, &cx).await.must("pour");
    target.publish(&cx).await.must("publish");
    assert_eq!(target.undo(), undo, "after publish");
    let mut other = make.target(&store).await;
    other.survey(&coming(make).await, &cx).await.must("survey");
    assert_ne!(other.undo(), undo, "two restores of one store cannot be told apart");
    target.revert(&cx).await.must("revert");
}

async fn killed_at(make: &impl TargetFixture, step: Step) {
    let mut covered = 0;
    for old_data in [true, false] {
        for fault in kills(make) {
            let (store, cx) = (make.store(old_data).await, Context::default());
            let old = make.fingerprint(&store).await;
            let mut target = FaultyTarget::new(make.target(&store).await, step, fault);
            let (undo, happened) = (target.undo(), target.happened());
            let mut run = restore(make, &mut target, &cx).await;
            if run.is_ok() && step == Step::Revert {
                run = target.revert(&cx).await;
            }
            if !happened() {
                run.must("a run without a fault");
                break;
            }
            covered += 1;
            assert!(run.is_err(), "a killed run succeeded");
            drop(target);
            pause().await;
            let mut later = make.recover(&store, undo).must("recover");
            let when = format!("killed in {step:?}, {fault:?}, old data {old_data}");
            later.revert(&cx).await.must(&when);
            assert_old(make, &store, &old, &when).await;
            later.revert(&cx).await.must("revert again");
            assert_old(make, &store, &old, &when).await;
        }
    }
    assert!(covered >= 4, "the kill happened only {covered} times");
}

/// Somewhere in the middle of making the shadow.
pub async fn killed_in_prepare_a_later_process_reverts(make: &impl TargetFixture) {
    killed_at(make, Step::Prepare).await;
}

/// With half a shadow.
pub async fn killed_in_a_put_a_later_process_reverts(make: &impl TargetFixture) {
    killed_at(make, Step::Put).await;
}

/// With a whole shadow that is not sealed.
pub async fn killed_in_finish_a_later_process_reverts(make: &impl TargetFixture) {
    killed_at(make, Step::Finish).await;
}

/// Between the old data and the new.
pub async fn killed_in_publish_a_later_process_reverts(make: &impl TargetFixture) {
    killed_at(make, Step::Publish).await;
}

/// Half-way back.
pub async fn killed_in_revert_a_later_process_reverts(make: &impl TargetFixture) {
    killed_at(make, Step::Revert).await;
}

/// The old data is going: on with it.
pub async fn killed_in_settle_a_later_process_settles(make: &impl TargetFixture) {
    let new = new_fingerprint(make, true).await;
    for fault in kills(make) {
        let (store, cx) = (make.store(true).await, Context::default());
        let mut target = FaultyTarget::new(make.target(&store).await, Step::Settle, fault);
        let happened = target.happened();
        restore(make, &mut target, &cx).await.must("restore");
        let undo = target.undo();
        let settled = target.settle(&cx).await;
        assert_eq!(settled.is_err(), happened());
        let covered = !happened();
        drop(target);
        pause().await;
        let mut later = make.recover(&store, undo).must("recover");
        later.settle(&cx).await.must("settle in a later process");
        assert_old(make, &store, &new, &format!("killed in settle, {fault:?}")).await;
        if covered {
            break;
        }
    }
}

/// An error in the middle of publishing, in the same process.
pub async fn a_publish_that_fails_half_way_is_reverted(make: &impl TargetFixture) {
    for fault in [Fault::Fails, Fault::FailsAfter].into_iter().chain(kills(make)) {
        let (store, cx) = (make.store(true).await, Context::default());
        let old = make.fingerprint(&store).await;
        let mut inner = make.target(&store).await;
        let undo = inner.undo();
        let poured = fill(make, &mut *inner, &cx).await.must("fill the shadow");
        assert_eq!(poured.lost, 0);
        let mut target = FaultyTarget::new(inner, Step::Publish, fault);
        let happened = target.happened();
        let published = target.publish(&cx).await;
        assert_eq!(published.is_err(), happened());
        let covered = !happened();
        if matches!(fault, Fault::Killed | Fault::KilledAfter | Fault::KilledAtPoll(_)) {
            drop(target);
            pause().await;
            make.recover(&store, undo).must("recover").revert(&cx).await.must("revert");
        } else {
            target.revert(&cx).await.must("revert");
        }
        assert_old(make, &store, &old, &format!("publish, {fault:?}")).await;
        if covered {
            break;
        }
    }
}

/// A damaged archive, a lost connection to it.
pub async fn a_cut_content_does_not_get_into_the_store(make: &impl TargetFixture) {
    let (store, cx) = (make.store(true).await, Context::default());
    let old = make.fingerprint(&store).await;
    let mut target = make.target(&store).await;
    let sink = begin(make, &mut *target, &cx).await.must("prepare");
    let contents = make.new_data().contents().await;
    let victim = contents.values().filter(|h| h.delivered() > 0).max_by_key(|h| h.delivered());
    let victim = victim.must("an entry with bytes");
    let entry = Entry { size: None, extents: None, ..victim.entry.clone() };
    let put = sink.put(entry, ContentFault::CutAfter(victim.delivered() / 2).of(victim.content())).await;
    match put {
        Ok(put) => assert!(matches!(put, backup_core::Put::Discarded(_)), "a cut content was taken: {put:?}"),
        Err(e) => panic!("a cut content broke the sink: {e:?}"),
    }
    let proof = sink.finish(&cx).await.must("finish");
    assert_eq!(proof.count("all", "entries"), 0, "a cut content was counted");
    target.revert(&cx).await.must("revert");
    assert_old(make, &store, &old, "after a cut content").await;
}

/// Within five seconds; then everything is as it was.
pub async fn cancellation_in_the_middle_is_reverted(make: &impl TargetFixture) {
    let (store, cx) = (make.store(true).await, Context::default());
    let old = make.fingerprint(&store).await;
    let mut target = make.target(&store).await;
    let sink = begin(make, &mut *target, &cx).await.must("prepare");
    let contents = make.new_data().contents().await;
    let mut source = MemorySource::new("c");
    for held in contents.into_values() {
        let stall = held.delivered() / 2;
        source = source.with(held.entry.clone(), move || ContentFault::StallAfter(stall).of(held.content()));
    }
    let cancel = cx.cancel.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        cancel.cancel();
    });
    let started = Instant::now();
    let error = pour(&source, "c", sink, &cx).await.err().must("a cancelled pour is an error");
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(started.elapsed() < Duration::from_millis(5200), "it took {:?}", started.elapsed());
    target.revert(&cx.calm()).await.must("revert");
    assert_old(make, &store, &old, "after a cancellation").await;
}

/// A failed restore does not stand in the way of the next one.
pub async fn a_restore_after_a_reverted_one_succeeds(make: &impl TargetFixture) {
    let new = new_fingerprint(make, true).await;
    let (store, cx) = (make.store(true).await, Context::default());
    for published in [false, true] {
        let mut target = make.target(&store).await;
        fill(make, &mut *target, &cx).await.must("fill the shadow");
        if published {
            target.publish(&cx).await.must("publish");
        }
        target.revert(&cx).await.must("revert");
    }
    let mut target = make.target(&store).await;
    restore(make, &mut *target, &cx).await.must("restore");
    target.settle(&cx).await.must("settle");
    assert_old(make, &store, &new, "after the third restore").await;
}

/// Makes a test of every promise of a target. The argument is an expression that makes a `TargetFixture`.
#[macro_export]
macro_rules! target_conformance {
    ($fixture:expr) => {
        $crate::promises!(
            $fixture,
            target,
            [
                a_survey_reads_only,
                nothing_is_effective_before_publish,
                what_is_published_does_not_depend_on_the_old_data,
                the_proof_is_that_of_the_source,
                revert_restores_the_old_data_at_any_point,
                settle_keeps_the_new_data,
                undo_is_the_same_from_the_beginning_to_the_end,
                killed_in_prepare_a_later_process_reverts,
                killed_in_a_put_a_later_process_reverts,
                killed_in_finish_a_later_process_reverts,
                killed_in_publish_a_later_process_reverts,
                killed_in_revert_a_later_process_reverts,
                killed_in_settle_a_later_process_settles,
                a_publish_that_fails_half_way_is_reverted,
                a_cut_content_does_not_get_into_the_store,
                cancellation_in_the_middle_is_reverted,
                a_restore_after_a_reverted_one_succeeds,
            ]
        );
    };
}
