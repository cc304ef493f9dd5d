//! What is restored in place comes last and is told loud and clear if it fails; all else keeps its promises.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/scene.rs"]
mod scene;

use backup_core::*;
use common::*;
use scene::*;
use std::sync::{Arc, Mutex};

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

fn old() -> Option<String> {
    Some("old".into())
}

fn new() -> Option<String> {
    Some(NEW.into())
}

/// `two` is restored in place, between two that are not.
fn targets(s: &Scene) -> Vec<FileTarget> {
    let mut targets = s.targets();
    targets[1].in_place = true;
    targets
}

#[tokio::test]
async fn it_comes_when_all_others_are_proven_and_before_they_take_effect_and_nothing_is_kept() {
    let s = scene().await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut targets = targets(&s);
    targets.iter_mut().for_each(|t| t.log = log.clone());
    let prepared = s.plan(targets, |_| {}).await.unwrap();
    let plan = prepared.plan();
    assert!(plan.settle && plan.needs_consent());
    let told = format!("{}\n{}", plan.notes.join("\n"), plan.destructive());
    assert!(told.contains("two: restored IN PLACE") && told.contains("there is no way back"), "{told}");
    let consent = Confirmation::of(plan.id().clone());
    let report = prepared.apply(Some(consent), &s.cx).await.unwrap();
    assert!(s.is_new() && s.traces().is_empty(), "{:?}", s.traces());
    assert!(report.settled && report.undo_until.is_none());
    assert_eq!(report.components.iter().map(|c| &*c.name).collect::<Vec<_>>(), NAMES);
    assert!(pending(&s.state(), &[]).unwrap().is_empty());
    let steps = ["rehearse", "put", "prepare", "clear", "publish", "settle", "revert"];
    let log: Vec<String> = log.lock().unwrap().clone();
    let log: Vec<&String> = log.iter().filter(|l| steps.contains(&l.split_once(' ').unwrap().0)).collect();
    let expected = "rehearse two, revert two, prepare one, prepare three, prepare two, clear two, publish two, \
                    publish one, publish three, settle one, settle two, settle three";
    assert_eq!(log, expected.split(", ").collect::<Vec<_>>());
}

#[tokio::test]
async fn a_failure_before_anything_is_taken_away_leaves_everything_as_it_was() {
    for (at, step) in [
        (1, "rehearse"),
        (0, "prepare"),
        (2, "prepared"),
        (2, "skip"),
        (1, "prepare"),
        (1, "prepared"),
        (1, "clear"),
    ] {
        let s = scene().await;
        let mut targets = targets(&s);
        targets[at].fault = Some(Fault(step, How::Fail));
        let e = s.restore(targets, |_| {}).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::RolledBack, "{at} {step} {e}");
        s.assert_old_without_traces();
    }
}

#[tokio::test]
async fn before_anything_is_taken_away_definitions_are_tried_without_the_data_and_nothing_is_noted_twice() {
    let s = scene_of(&[("t.sql", "CREATE"), ("a", "new"), ("b", "")]).await;
    let mut targets = targets(&s);
    let log = targets[1].log.clone();
    targets[1].fault = Some(Fault("finish", How::Damaged));
    let e = s.restore(targets, |_| {}).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::RolledBack, "{e}");
    assert_eq!(*log.lock().unwrap(), ["rehearse two", "put t.sql", "revert two", "reverted two"]);
    s.assert_old_without_traces();
    let report = s.restore(self::targets(&s), |_| {}).await.unwrap();
    assert!(report.notes.list.iter().all(|n| n.text != "noted in a rehearsal"), "{:?}", report.notes);
}

#[tokio::test]
async fn a_failure_after_that_names_it_and_another_restore_makes_it_whole() {
    // What fails, where, and what is there then.
    let cases = [
        (1, "cleared", How::Fail, None, "NOT whole"),
        (1, "skip", How::Fail, None, "NOT whole"),
        (1, "publish", How::Panic, None, "NOT whole"),
        (0, "half", How::Fail, new(), "stays"),
        (2, "published", How::Panic, new(), "stays"),
    ];
    for (at, step, how, left, said) in cases {
        let s = scene().await;
        let mut failing = targets(&s);
        failing[at].fault = Some(Fault(step, how));
        let e = s.restore(failing, |_| {}).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotRolledBack, "{step} {e}");
        let place = s.place("two").display().to_string();
        let hint = e.hint_text().unwrap();
        for part in ["two at ", &place, said, "all else is as it was before"] {
            assert!(e.to_string().contains(part), "{part} in {e}");
        }
        assert!(hint.contains(s.backup.as_str()) && hint.contains(" --in-place=two`"), "{hint}");
        assert_eq!(s.live(), [old(), left, None], "{step}");
        assert!(s.traces().is_empty(), "{:?}", s.traces());
        s.restore(targets(&s), |o| o.settle = true).await.unwrap();
        assert!(s.is_new() && s.traces().is_empty());
    }
}

#[test]
fn a_restore_that_is_killed_at_any_step_is_healed_and_what_is_not_whole_is_told_once() {
    let mut seen = std::collections::BTreeMap::<_, usize>::new();
    for polls in 1.. {
        let s = run(scene());
        let prepared = run(s.plan(targets(&s), |_| {})).unwrap();
        let consent = Confirmation::of(prepared.plan().id().clone());
        let ended = run(dropped_after(polls, prepared.apply(Some(consent), &s.cx)));
        let healed = run(s.heal(0));
        let outcome = match &healed[..] {
            [] if ended.is_some() => "new",
            [] | [Healed::Cleared { .. }] if s.is_new() => "new",
            [] | [Healed::Cleared { .. } | Healed::Reverted { .. }] => {
                assert!(s.is_old(), "{:?}", s.live());
                "old"
            }
            [Healed::Settled { .. }] => "new",
            [Healed::Gone { error, label, .. }] => {
                assert_eq!((error.kind(), &**label), (ErrorKind::NotRolledBack, "shop"));
                assert!(error.to_string().contains("two at "), "{error}");
                let live = s.live();
                assert!(live[0] == old() && live[2].is_none(), "{live:?}");
                "gone"
            }
            other => panic!("{other:?}"),
        };
        assert!(outcome != "new" || s.is_new(), "{:?}", s.live());
        assert!(s.traces().is_empty(), "{outcome} {:?}", s.traces());
        assert!(run(s.heal(0)).is_empty(), "it is told twice");
        if outcome == "gone" {
            run(s.restore(targets(&s), |o| o.settle = true)).unwrap();
            assert!(s.is_new() && s.traces().is_empty());
        }
        *seen.entry(outcome).or_default() += 1;
        if let Some(report) = ended {
            report.unwrap();
            assert!(seen["old"] > 5 && seen["gone"] > 5 && seen["new"] > 1, "{seen:?}");
            return;
        }
    }
}

#[test]
fn one_that_took_effect_and_is_not_settled_yet_is_not_undone() {
    let s = run(scene());
    let mut hanging = targets(&s);
    hanging[0].fault = Some(Fault("settle", How::Hang));
    let log = Arc::new(Mutex::new(Vec::new()));
    hanging[0].log = log.clone();
    run(async {
        let reached = async {
            while !log.lock().unwrap().iter().any(|l| l == "settle one") {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            ended = s.restore(hanging, |_| {}) => panic!("{ended:?}"),
            () = reached => {}
        }
    });
    // As if it was killed a moment before.
    let journal = s.homes()[0].join("journal.json");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, text.replace("\"settling\"", "\"published\"")).unwrap();
    let found = pending(&s.state(), &[]).unwrap();
    assert_eq!(found[0].targets[1].in_place, Some(InPlace::Complete));
    let e = run(undo_restore(&found[0], &recover, &s.cx)).unwrap_err();
    assert!(e.kind() == ErrorKind::Refused && e.to_string().contains("restored in place"), "{e}");
    assert!(matches!(&run(s.heal(0))[..], [Healed::Settled { .. }]));
    assert!(s.is_new() && s.traces().is_empty());
}

/// Somebody who finds an application without its data may take it for a new one.
#[test]
fn an_application_is_not_started_over_what_is_not_whole() {
    for (step, runs) in [("cleared", false), ("prepared", true)] {
        for killed in [false, true] {
            let (s, containers) = (run(scene()), Containers::running(&["web"]));
            let mut targets = targets(&s);
            targets[1].fault = Some(Fault(step, if killed { How::Hang } else { How::Fail }));
            let (engine, log) = (containers.clone(), targets[1].log.clone());
            let said = run(async {
                let restoring = s.restore(targets, |o| {
                    o.app = vec!["web".into()];
                    o.containers = Arc::new(engine);
                });
                let reached = async {
                    while !log.lock().unwrap().iter().any(|l| *l == format!("{step} two")) || !killed {
                        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
                    }
                };
                tokio::select! {
                    ended = restoring => Some(ended.unwrap_err()),
                    () = reached => None,
                }
            });
            let now = jiff::Timestamp::now();
            let healed = run(heal_restores(&s.state(), &[], &containers, now, &Context::default())).unwrap();
            let said = said.or_else(|| match &healed[..] {
                [Healed::Gone { error, .. }] => Some(error.clone()),
                _ => None,
            });
            assert_eq!(containers.state()["web"], runs, "{step} {killed} {said:?}");
            let hint = said.and_then(|e| e.hint_text().map(str::to_owned)).unwrap_or_default();
            assert_eq!(hint.contains("docker start web"), !runs, "{hint}");
        }
    }
}
