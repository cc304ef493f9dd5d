//! A restore, heal or undo that is killed anywhere: afterwards all targets are old, or all are new, and nothing stays behind.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/scene.rs"]
mod scene;

use backup_core::*;
use common::*;
use scene::*;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Runs to the end.
fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

/// Runs up to a point, and is gone. The runtime goes with it: a write of a file that had begun ends, nothing else goes on.
fn killed<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    run(dropped_after(polls, future))
}

fn kinds(healed: &[Healed]) -> Vec<&'static str> {
    let kind = |h: &Healed| match h {
        Healed::Reverted { .. } => "reverted",
        Healed::Settled { .. } => "settled",
        Healed::Kept { .. } => "kept",
        Healed::LeftAlone { .. } => "left",
        Healed::Cleared { .. } => "cleared",
        other => panic!("{other:?}"),
    };
    healed.iter().map(kind).collect()
}

#[test]
fn a_restore_that_is_killed_at_any_step_is_old_or_new_after_heal() {
    let mut seen = std::collections::BTreeMap::<_, usize>::new();
    for polls in 1.. {
        let s = run(scene());
        let prepared = run(s.plan(s.targets(), |_| {})).unwrap();
        let consent = Confirmation::of(prepared.plan().id().clone());
        let ended = killed(polls, prepared.apply(Some(consent), &s.cx));
        let healed = run(s.heal(0));
        let outcome = kinds(&healed);
        match outcome.as_slice() {
            [] | ["reverted"] | ["cleared"] => s.assert_old_without_traces(),
            ["kept"] => {
                assert!(s.is_new(), "{:?}", s.live());
                assert_eq!(kinds(&run(s.heal(25))), ["settled"]);
                assert!(s.is_new() && s.traces().is_empty(), "{:?}", s.traces());
            }
            other => panic!("{other:?}"),
        }
        *seen.entry(outcome.first().copied().unwrap_or("nothing")).or_default() += 1;
        if let Some(report) = ended {
            report.unwrap();
            assert!(polls > 10 && seen["reverted"] > 5, "{seen:?}");
            return;
        }
    }
}

#[test]
fn a_restore_that_settles_and_is_killed_at_any_step_is_old_or_new_after_heal() {
    let mut new = 0;
    for polls in 1.. {
        let s = run(scene());
        let prepared = run(s.plan(s.targets(), |o| o.settle = true)).unwrap();
        let consent = Confirmation::of(prepared.plan().id().clone());
        let ended = killed(polls, prepared.apply(Some(consent), &s.cx));
        run(s.heal(25));
        new += usize::from(s.is_new());
        assert!(s.is_old() || s.is_new(), "{:?}", s.live());
        assert!(s.traces().is_empty(), "{:?}", s.traces());
        if ended.is_some() {
            assert!(polls > 10 && new > 0, "{new} of {polls}");
            return;
        }
    }
}

/// Killed when a target has logged this step.
fn killed_at(s: &Scene, mut targets: Vec<FileTarget>, step: &str) {
    let log = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    targets.iter_mut().for_each(|t| t.log = log.clone());
    run(async {
        let reached = async {
            while !log.lock().unwrap().iter().any(|l| l == step) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            ended = s.restore(targets, |_| {}) => panic!("{ended:?}"),
            () = reached => {}
        }
    });
}

/// Killed while the second of three is swapped.
fn killed_half_way() -> Scene {
    let s = run(scene());
    let mut targets = s.targets();
    targets[1].fault = Some(Fault("half", How::Hang));
    killed_at(&s, targets, "half two");
    assert!(!s.is_old() && !s.is_new() && !s.place("two").exists(), "{:?}", s.live());
    s
}

#[test]
fn heal_that_is_killed_at_any_step_is_ended_by_the_next_heal() {
    for polls in 1.. {
        let s = killed_half_way();
        let ended = killed(polls, s.heal(0));
        let rest = run(s.heal(0));
        assert!(kinds(&rest).iter().all(|k| ["reverted", "cleared"].contains(k)), "{rest:?}");
        s.assert_old_without_traces();
        if ended.is_some() {
            assert!(polls > 5, "{polls}");
            return;
        }
    }
}

#[test]
fn an_undo_that_is_killed_at_any_step_is_old_or_still_new_after_heal() {
    for polls in 1.. {
        let s = run(scene());
        run(s.restore(s.targets(), |_| {})).unwrap();
        let found = pending(&s.state(), &[]).unwrap();
        let cx = Context::default();
        let ended = killed(polls, undo_restore(&found[0], &recover, &cx));
        match kinds(&run(s.heal(0)))[..] {
            [] | ["reverted"] | ["cleared"] => s.assert_old_without_traces(),
            ["kept"] => assert!(s.is_new()),
            ref other => panic!("{other:?}"),
        }
        if ended.is_some() {
            assert!(polls > 5, "{polls}");
            return;
        }
    }
}

#[test]
fn a_journal_is_found_beside_the_data_without_the_state_folder() {
    let s = killed_half_way();
    fs::remove_dir_all(s.state()).unwrap();
    // The stamp of this very process is all that is left, and it lives.
    assert_eq!(kinds(&run(s.heal(0))), ["left"]);
    edit(&s.homes()[0].join("journal.json"), |text| {
        let mut journal: serde_json::Value = serde_json::from_str(&text).unwrap();
        journal["process"]["started"] = (journal["process"]["started"].as_u64().unwrap() + 1).into();
        journal.to_string()
    });
    let by_any = pending(&s.state(), &s.homes()[2..]).unwrap();
    assert_eq!((by_any.len(), by_any[0].phase), (1, RestorePhase::Publishing));
    assert_eq!(kinds(&run(s.heal(0))), ["reverted"]);
    s.assert_old_without_traces();
}

/// As if the file system of one of them was not mounted.
#[test]
fn a_target_whose_folder_is_not_there_is_healed_once_it_is_and_the_others_before() {
    let s = killed_half_way();
    let (home, away) = (s.homes()[1].clone(), s.dir.path().join("away"));
    fs::rename(&home, &away).unwrap();
    for _ in 0..2 {
        let healed = run(s.heal(0));
        let [Healed::Failed { error, .. }] = &healed[..] else { panic!("{healed:?}") };
        assert!(error.to_string().contains("two at"), "{error}");
        let done: Vec<bool> = pending(&s.state(), &[]).unwrap()[0].targets.iter().map(|t| t.done).collect();
        assert_eq!(done, [true, false, true]);
    }
    fs::rename(&away, &home).unwrap();
    assert_eq!(kinds(&run(s.heal(0))), ["reverted"]);
    s.assert_old_without_traces();
}

/// The folders are taken away one by one, when all is done.
#[test]
fn a_folder_that_is_gone_because_all_is_done_is_no_obstacle() {
    let s = killed_half_way();
    let (home, away) = (s.homes()[1].clone(), s.dir.path().join("away"));
    fs::rename(&home, &away).unwrap();
    run(s.heal(0));
    fs::remove_dir_all(s.homes()[2].clone()).unwrap();
    fs::rename(&away, &home).unwrap();
    assert_eq!(kinds(&run(s.heal(0))), ["reverted"]);
    s.assert_old_without_traces();
}

#[test]
fn a_restore_with_a_place_that_is_gone_for_good_is_forgotten_and_the_rest_of_it_reverted() {
    let s = killed_half_way();
    let id = pending(&s.state(), &[]).unwrap()[0].id.clone();
    fs::remove_dir_all(s.homes()[1].clone()).unwrap();
    let forget = |id: &str| run(forget_restore(&s.state(), id, &recover, &s.cx));
    assert_eq!(forget("").unwrap_err().kind(), ErrorKind::NotFound);
    let forgotten = forget(id.as_str()).unwrap();
    assert!(forgotten.given_up.len() == 1 && forgotten.given_up[0].contains("two at"), "{forgotten:?}");
    assert_eq!(fs::read_to_string(s.place("one")).unwrap(), "old");
    assert!(s.traces().is_empty(), "{:?}", s.traces());
    assert_eq!(forget(id.as_str()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn without_its_journal_a_restore_is_forgotten_and_what_lies_beside_data_is_left_and_named() {
    let s = killed_half_way();
    let (id, homes) = (pending(&s.state(), &[]).unwrap()[0].id.clone(), s.homes());
    fs::remove_dir_all(&homes[0]).unwrap();
    let barred = run(s.restore(vec![s.target("two")], |_| {})).unwrap_err();
    assert_eq!(barred.kind(), ErrorKind::NotRolledBack, "{barred}");
    let forgotten = run(forget_restore(&s.state(), id.as_str(), &recover, &s.cx)).unwrap();
    assert_eq!((forgotten.left, forgotten.given_up.len()), (homes[1..].to_vec(), 3));
    assert!(homes[1].join("two.old").exists() && !s.traces().iter().any(|t| t.starts_with(s.state())));
}

fn edit(path: &Path, change: impl Fn(String) -> String) {
    fs::write(path, change(fs::read_to_string(path).unwrap())).unwrap();
}

#[test]
fn the_journal_of_another_host_is_left_alone_until_a_person_says_so() {
    let s = killed_half_way();
    edit(&s.homes()[0].join("journal.json"), |text| text.replace("\"host\": \"", "\"host\": \"not-"));
    assert_eq!(kinds(&run(s.heal(100))), ["left"]);
    let found = pending(&s.state(), &[]).unwrap();
    assert_eq!(found[0].running, None);
    run(undo_restore(&found[0], &recover, &s.cx)).unwrap();
    s.assert_old_without_traces();
}

/// Killed while the journal was being begun: its pointer, and homes without a journal.
fn killed_at_the_beginning() -> (Scene, PathBuf) {
    let s = run(scene());
    let mut targets = s.targets();
    targets[0].fault = Some(Fault("prepare", How::Hang));
    killed_at(&s, targets, "prepare one");
    let pointer =
        s.traces().into_iter().find(|p| p.starts_with(s.state()) && p.extension().unwrap() == "json");
    let home = s.homes()[0].clone();
    fs::rename(home.join("journal.json"), home.join("journal.json.tmp")).unwrap();
    edit(&home.join("journal.json.tmp"), |text| text[..text.len() / 2].to_owned());
    let pointer = pointer.unwrap();
    (s, pointer)
}

#[test]
fn a_crash_before_the_first_journal_was_written_is_cleared() {
    let (s, pointer) = killed_at_the_beginning();
    edit(&pointer, |text| text.replace("\"live\": true", "\"live\": false"));
    assert!(pending(&s.state(), &[]).unwrap().is_empty());
    assert_eq!(kinds(&run(s.heal(0))), ["cleared"]);
    s.assert_old_without_traces();
}

#[test]
fn a_journal_that_must_be_there_and_is_not_is_an_error_not_an_all_clear() {
    let (s, pointer) = killed_at_the_beginning();
    let before = s.traces();
    let healed = run(heal_restores(&s.state(), &[], &recover, jiff::Timestamp::now(), &s.cx)).unwrap();
    let [Healed::Failed { journal, error }] = &healed[..] else { panic!("{healed:?}") };
    assert_eq!((journal, error.kind()), (&pointer, ErrorKind::Target));
    assert_eq!(s.traces(), before);
}

#[test]
fn a_damaged_journal_and_data_without_a_journal_are_named_and_not_touched() {
    for remove in [false, true] {
        let s = killed_half_way();
        fs::remove_dir_all(s.state()).unwrap();
        let home = s.homes()[0].clone();
        match remove {
            true => fs::remove_file(home.join("journal.json")).unwrap(),
            false => edit(&home.join("journal.json"), |text| text[..text.len() / 2].to_owned()),
        }
        let before = s.traces();
        let homes = [home.clone()];
        let healed = run(heal_restores(&s.state(), &homes, &recover, jiff::Timestamp::now(), &s.cx)).unwrap();
        let [Healed::Failed { error, .. }] = &healed[..] else { panic!("{healed:?}") };
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.subject().unwrap().starts_with(home.to_str().unwrap()), "{error}");
        assert_eq!(pending(&s.state(), &homes).unwrap_err().kind(), ErrorKind::Damaged);
        assert_eq!(s.traces(), before);
    }
}

#[test]
fn an_empty_home_is_removed_once_it_cannot_be_one_that_is_just_being_made() {
    let s = run(scene());
    let home = s.homes()[0].clone();
    fs::create_dir(&home).unwrap();
    assert!(run(s.heal(0)).is_empty() && home.exists());
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::open(&home).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(kinds(&run(s.heal(0))), ["cleared"]);
    s.assert_old_without_traces();
}

#[test]
fn one_restore_that_cannot_be_healed_does_not_keep_the_others_from_it() {
    let s = killed_half_way();
    fs::write(s.state().join("restores/00000000000000000000000000.json"), "{").unwrap();
    let healed = run(s.heal(0));
    assert!(matches!(healed[..], [Healed::Failed { .. }, Healed::Reverted { .. }]), "{healed:?}");
    assert!(s.is_old());
}

#[test]
fn heal_reverts_in_reverse_order() {
    let s = killed_half_way();
    let order = std::sync::Mutex::new(Vec::new());
    let logged = |kind: &str, undo: serde_json::Value| {
        order.lock().unwrap().push(undo["place"].as_str().unwrap().rsplit('/').next().unwrap().to_owned());
        recover(kind, undo)
    };
    let healed = run(heal_restores(&s.state(), &[], &logged, jiff::Timestamp::now(), &s.cx)).unwrap();
    assert_eq!(kinds(&healed), ["reverted"]);
    assert_eq!(*order.lock().unwrap(), ["three", "two", "one"]);
}
