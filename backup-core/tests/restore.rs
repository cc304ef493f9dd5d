//! What a restore promises: all or nothing, proven, with consent, and undone if that is asked for.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/scene.rs"]
mod scene;

use async_trait::async_trait;
use backup_core::*;
use common::*;
use scene::*;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

fn cause(e: &Error) -> &Error {
    std::error::Error::source(e).unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn a_restore_replaces_all_keeps_the_old_data_and_can_be_undone() {
    let s = scene().await;
    let report = s.restore(s.targets(), |_| {}).await.unwrap();
    assert!(s.is_new());
    assert_eq!((report.state, report.settled, report.undo_until.is_some()), (State::Complete, false, true));
    assert_eq!(report.components.iter().map(|c| (c.entries, c.bytes)).collect::<Vec<_>>(), [(2, 3); 3]);
    let found = pending(&s.state(), &[]).unwrap();
    assert_eq!((found.len(), found[0].phase, found[0].running), (1, RestorePhase::Published, Some(false)));
    assert_eq!((&*found[0].label, &found[0].backup), ("shop", &s.backup));
    undo_restore(&found[0], &recover, &s.cx).await.unwrap();
    s.assert_old_without_traces();
    assert_eq!(undo_restore(&found[0], &recover, &s.cx).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_undo_that_was_refused_before_anything_was_changed_is_not_repeated_by_itself() {
    let s = scene().await;
    s.restore(s.targets(), |o| o.keep_previous = Duration::from_secs(3600)).await.unwrap();
    let found = pending(&s.state(), &[]).unwrap();
    let all_refuse = |_: &str, undo: serde_json::Value| {
        let mut target = FileTarget::new(undo["place"].as_str().unwrap()).fault("revert", How::Refuse);
        target.home = undo["home"].as_str().unwrap().into();
        Ok(Box::new(target) as Box<dyn Target>)
    };
    let e = undo_restore(&found[0], &all_refuse, &s.cx).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
    let hint = e.hint_text().unwrap();
    assert!(hint.starts_with("drop the view; ") && hint.contains("backup settle"), "{hint}");
    // Kept for another try, whenever it was asked for.
    assert!(matches!(&s.heal(23).await[..], [Healed::Kept { .. }]));
    assert!(s.is_new());
    // Where one of them was brought back, the others have to follow.
    let one_refuses =
        |kind: &str, undo: serde_json::Value| match undo["place"] == s.place("one").to_str().unwrap() {
            true => all_refuse(kind, undo),
            false => recover(kind, undo),
        };
    let e = undo_restore(&found[0], &one_refuses, &s.cx).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotRolledBack, "{e}");
    assert!(matches!(&s.heal(0).await[..], [Healed::Reverted { .. }]));
    s.assert_old_without_traces();
}

#[cfg(unix)]
#[tokio::test]
async fn journals_and_their_folders_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let s = scene().await;
    s.restore(s.targets(), |_| {}).await.unwrap();
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    for home in s.homes() {
        assert_eq!((mode(&home), mode(&home.join("journal.json"))), (0o700, 0o600));
    }
    for path in s.traces().iter().filter(|p| p.starts_with(s.state())) {
        assert_eq!(mode(path), 0o600, "{path:?}");
    }
}

#[tokio::test]
async fn the_old_data_is_let_go_when_asked_for_or_when_its_time_is_over() {
    let s = scene().await;
    let report = s.restore(s.targets(), |o| o.settle = true).await.unwrap();
    assert!(report.settled && s.is_new() && s.traces().is_empty());

    let s = scene().await;
    s.restore(s.targets(), |_| {}).await.unwrap();
    assert!(matches!(&s.heal(23).await[..], [Healed::Kept { .. }]));
    assert!(matches!(&s.heal(25).await[..], [Healed::Settled { .. }]));
    assert!(s.is_new() && s.traces().is_empty());

    let s = scene().await;
    s.restore(s.targets(), |_| {}).await.unwrap();
    settle_restore(&pending(&s.state(), &[]).unwrap()[0], &recover, &s.cx).await.unwrap();
    assert!(s.is_new() && s.traces().is_empty());
}

#[tokio::test]
async fn where_nothing_is_replaced_nothing_is_asked_and_nothing_is_kept() {
    let s = scene().await;
    let prepared = s.plan(vec![s.target("three")], |_| {}).await.unwrap();
    assert!(!prepared.plan().needs_consent());
    let report = prepared.apply(None, &s.cx).await.unwrap();
    assert!(report.settled && s.traces().is_empty());
    assert_eq!(fs::read_to_string(s.place("three")).unwrap(), NEW);
}

#[tokio::test]
async fn a_failure_or_panic_at_any_step_leaves_everything_as_it_was() {
    for step in ["prepare", "prepared", "publish", "half", "published"] {
        for how in [How::Fail, How::Panic] {
            for at in 0..3 {
                let s = scene().await;
                let mut targets = s.targets();
                targets[at].fault = Some(Fault(step, how));
                let e = s.restore(targets, |_| {}).await.unwrap_err();
                assert_eq!(e.kind(), ErrorKind::RolledBack, "{step} {how:?} {e}");
                let kind = if how == How::Fail { ErrorKind::Target } else { ErrorKind::Panicked };
                assert_eq!((cause(&e).kind(), cause(&e).subject()), (kind, Some(NAMES[at])));
                assert!(e.to_string().ends_with("everything is as it was before"), "{e}");
                s.assert_old_without_traces();
            }
        }
    }
}

#[tokio::test]
async fn targets_are_published_in_order_and_reverted_in_reverse() {
    let s = scene().await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let mut targets = s.targets();
    targets.iter_mut().for_each(|t| t.log = log.clone());
    targets[2].fault = Some(Fault("half", How::Fail));
    s.restore(targets, |_| {}).await.unwrap_err();
    let log = log.lock().unwrap();
    let steps: Vec<&str> =
        log.iter().map(|l| &**l).filter(|l| l.starts_with("publish ") || l.starts_with("revert ")).collect();
    assert_eq!(
        steps,
        ["publish one", "publish two", "publish three", "revert three", "revert two", "revert one"]
    );
}

struct Sick;

#[async_trait]
impl HealthCheck for Sick {
    async fn check(&self, _cx: &Context) -> Result<()> {
        Err(Error::new(ErrorKind::Target, "ask the application", "500"))
    }
}

#[tokio::test]
async fn an_application_that_is_not_healthy_gets_its_old_data_back() {
    let s = scene().await;
    let e = s.restore(s.targets(), |o| o.health = Some(Box::new(Sick))).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::RolledBack);
    s.assert_old_without_traces();
}

/// As if a file system was unmounted meanwhile.
struct MovesAway {
    home: PathBuf,
    to: PathBuf,
}

#[async_trait]
impl HealthCheck for MovesAway {
    async fn check(&self, _cx: &Context) -> Result<()> {
        fs::rename(&self.home, &self.to).unwrap();
        Err(Error::new(ErrorKind::Target, "ask the application", "500"))
    }
}

#[tokio::test]
async fn what_is_out_of_reach_is_never_said_to_be_reverted_or_settled() {
    let s = scene().await;
    let (home, to) = (s.homes()[0].clone(), s.dir.path().join("away"));
    s.restore(vec![s.target("two"), s.target("one")], |_| {}).await.unwrap();
    let found = pending(&s.state(), &[]).unwrap();
    fs::rename(&home, &to).unwrap();
    for e in [
        undo_restore(&found[0], &recover, &s.cx).await.unwrap_err(),
        settle_restore(&found[0], &recover, &s.cx).await.unwrap_err(),
    ] {
        let text = format!("{e} {}", e.hint_text().unwrap());
        for part in ["one", home.to_str().unwrap(), "mount", "--forget"] {
            assert!(text.contains(part), "{text}");
        }
    }
    assert!(
        matches!(&s.heal(25).await[..], [Healed::Failed { .. }]),
        "its time is over, and it is not there"
    );
    assert_eq!(pending(&s.state(), &[]).unwrap()[0].phase, RestorePhase::Published, "nothing was begun");
    fs::rename(&to, &home).unwrap();
    undo_restore(&found[0], &recover, &s.cx).await.unwrap();
    s.assert_old_without_traces();

    let away = MovesAway { home: home.clone(), to: to.clone() };
    let two_and_one = vec![s.target("two"), s.target("one")];
    let e = s.restore(two_and_one, |o| o.health = Some(Box::new(away))).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotRolledBack, "{e}");
    fs::rename(&to, &home).unwrap();
    assert!(matches!(&s.heal(0).await[..], [Healed::Reverted { .. }]));
    s.assert_old_without_traces();
}

#[tokio::test]
async fn a_damaged_entry_is_named_and_nothing_is_restored() {
    let s = scene().await;
    s.archive.tamper(&s.backup, "two", b"a", |b| b[0] ^= 1).unwrap();
    let e = s.restore(s.targets(), |_| {}).await.unwrap_err();
    assert_eq!((e.kind(), cause(&e).kind()), (ErrorKind::RolledBack, ErrorKind::Damaged));
    assert!(e.to_string().contains("two/a") && e.to_string().contains(s.backup.as_str()), "{e}");
    s.assert_old_without_traces();
}

#[tokio::test]
async fn a_target_that_counts_less_than_was_backed_up_is_not_published() {
    let s = scene().await;
    let mut targets = s.targets();
    targets[1].fault = Some(Fault("skip", How::Fail));
    let e = s.restore(targets, |_| {}).await.unwrap_err();
    assert_eq!((e.kind(), cause(&e).kind()), (ErrorKind::RolledBack, ErrorKind::Damaged));
    assert!(e.to_string().contains("two") && e.to_string().contains("should be 2, is 1"), "{e}");
    s.assert_old_without_traces();
}

/// An observer that cancels when a phase begins.
fn cancelling(phase: Phase) -> Context {
    let token = tokio_util::sync::CancellationToken::new();
    let cancel = token.clone();
    let observer: Observer = Arc::new(move |event| {
        if matches!(event, Event::Phase { phase: p } if *p == phase) {
            cancel.cancel();
        }
    });
    Context::default().with_cancel(token).with_observer(Some(observer))
}

#[tokio::test]
async fn a_cancellation_before_the_commit_point_leaves_everything_as_it_was() {
    for phase in [Phase::Pour, Phase::Prove, Phase::Publish] {
        let mut s = scene().await;
        s.cx = cancelling(phase);
        let e = s.restore(s.targets(), |_| {}).await.unwrap_err();
        assert_eq!((e.kind(), cause(&e).kind()), (ErrorKind::RolledBack, ErrorKind::Cancelled), "{phase:?}");
        s.assert_old_without_traces();
    }
    // Before anything is made it is only cancelled.
    let s = scene().await;
    let prepared = s.plan(s.targets(), |_| {}).await.unwrap();
    let consent = Some(Confirmation::of(prepared.plan().id().clone()));
    let cx = cancelling(Phase::Preflight);
    assert_eq!(prepared.apply(consent, &cx).await.unwrap_err().kind(), ErrorKind::Cancelled);
    s.assert_old_without_traces();
}

#[tokio::test]
async fn data_is_replaced_only_with_consent_to_exactly_this_plan() {
    let s = scene().await;
    let other: PlanId = "0123456789abcdef".parse().unwrap();
    for consent in [None, Some(Confirmation::of(other)), Some(Confirmation::disposable())] {
        let prepared = s.plan(s.targets(), |_| {}).await.unwrap();
        assert!(prepared.plan().needs_consent());
        let text = prepared.plan().destructive().to_string();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(prepared.apply(consent, &s.cx).await.unwrap_err().kind(), ErrorKind::Refused);
        s.assert_old_without_traces();
    }
    // A target that is marked needs no more than that.
    let reader = s.archive.open(&s.backup, &s.cx).await.unwrap();
    let member = RestoreMember {
        component: "one".into(),
        kind: "file".into(),
        selection: Selection::All,
        target: Box::new(s.target("one")),
        disposable: true,
    };
    let options = RestoreOptions::new(s.state(), "shop");
    let prepared = plan_restore(reader, vec![member], options, &s.cx).await.unwrap();
    prepared.apply(Some(Confirmation::disposable()), &s.cx).await.unwrap();
    assert_eq!(fs::read_to_string(s.place("one")).unwrap(), NEW);
}

#[tokio::test]
async fn a_plan_whose_target_has_changed_meanwhile_is_refused() {
    let s = scene().await;
    let prepared = s.plan(s.targets(), |_| {}).await.unwrap();
    let id = prepared.plan().id().clone();
    fs::write(s.place("one"), "other").unwrap();
    let e = prepared.apply(Some(Confirmation::of(id)), &s.cx).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused);
    assert!(e.to_string().contains("the plan has changed"), "{e}");
    assert_eq!(fs::read_to_string(s.place("one")).unwrap(), "other");
    assert!(s.traces().is_empty());
    // Consent that names no plan is consent to the plan that was shown, too.
    let prepared = s.plan(vec![s.target("three")], |_| {}).await.unwrap();
    fs::write(s.place("three"), "somebody else's").unwrap();
    let e = prepared.apply(Some(Confirmation::disposable()), &s.cx).await.unwrap_err();
    assert!(e.to_string().contains("the plan has changed"), "{e}");
}

#[tokio::test]
async fn the_same_restore_has_the_same_plan_id_and_every_other_one_another() {
    let s = scene().await;
    let id = |p: PreparedRestore| p.plan().id().clone();
    let first = id(s.plan(s.targets(), |_| {}).await.unwrap());
    assert_eq!(first, id(s.plan(s.targets(), |_| {}).await.unwrap()));
    let mut noted = s.targets();
    noted[0].notes = vec!["owners cannot be set".into()];
    let mut ids = vec![
        first,
        id(s.plan(s.targets(), |o| o.settle = true).await.unwrap()),
        id(s.plan(vec![s.target("one")], |_| {}).await.unwrap()),
        id(s.plan(noted, |_| {}).await.unwrap()),
    ];
    for only in [&b"a"[..], b"b"] {
        let reader = s.archive.open(&s.backup, &s.cx).await.unwrap();
        let member = RestoreMember {
            component: "one".into(),
            kind: "file".into(),
            selection: Selection::Matching(Arc::new(move |path| path == only)),
            target: Box::new(s.target("one")),
            disposable: false,
        };
        let options = RestoreOptions::new(s.state(), "shop");
        let p = plan_restore(reader, vec![member], options, &s.cx).await.unwrap();
        assert_eq!((p.plan().members[0].entries, p.plan().members[0].selective), (1, true));
        ids.push(id(p));
    }
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
}

#[tokio::test]
async fn a_selection_is_proven_by_its_own_facts_and_one_that_matches_nothing_is_an_error() {
    let s = scene().await;
    let plan = async |only: &'static [u8]| {
        let member = RestoreMember {
            component: "three".into(),
            kind: "file".into(),
            selection: Selection::Matching(Arc::new(move |path| path == only)),
            target: Box::new(s.target("three")),
            disposable: false,
        };
        let reader = s.archive.open(&s.backup, &s.cx).await.unwrap();
        plan_restore(reader, vec![member], RestoreOptions::new(s.state(), "shop"), &s.cx).await
    };
    assert_eq!(plan(b"nothing").await.err().unwrap().kind(), ErrorKind::NotFound);
    plan(b"a").await.unwrap().apply(None, &s.cx).await.unwrap();
    assert_eq!(fs::read_to_string(s.place("three")).unwrap(), "a=new\n");
}

#[tokio::test]
async fn too_little_space_is_refused_before_anything_is_made() {
    let s = scene().await;
    for (free, enough) in [(8, false), (9, true)] {
        let mut targets = s.targets();
        // Three bytes each, and they share the space.
        targets.iter_mut().for_each(|t| t.free_bytes = Some(free));
        let prepared = s.plan(targets, |o| o.settle = true).await.unwrap();
        assert_eq!(prepared.plan().refused().is_none(), enough);
        let consent = Some(Confirmation::of(prepared.plan().id().clone()));
        match prepared.apply(consent, &s.cx).await {
            Ok(_) => assert!(enough && s.is_new()),
            Err(e) => {
                assert!(!enough && e.kind() == ErrorKind::Refused, "{e}");
                s.assert_old_without_traces();
            }
        }
    }
}

#[tokio::test]
async fn holes_of_files_need_no_space() {
    let mut s = scene().await;
    let sparse = script(move |sink, cx| async move {
        let extents = [Extent { offset: 1 << 20, length: 3 }];
        let mut entry = Entry::file("a", Stage::Data).sized((1 << 20) + 3);
        entry.extents = Some(extents.into());
        let items = [Ok((entry, Content::whole("new")))];
        put_stage(&sink, &cx, futures::stream::iter(items)).await?;
        Ok(Facts::new())
    });
    s.backup = create(request(vec![component("one", sparse)]), &s.archive, &s.cx).await.unwrap().id;
    for (free, enough) in [(2, false), (3, true)] {
        let mut target = s.target("one");
        target.free_bytes = Some(free);
        let plan = s.plan(vec![target], |_| {}).await.unwrap();
        assert_eq!(plan.plan().refused().is_none(), enough, "{:?}", plan.plan().refusals);
        assert_eq!(plan.plan().needs_bytes, 3);
    }
}

#[tokio::test]
async fn what_a_target_refuses_stands_in_the_plan_and_is_done_only_if_it_may_be_and_is_accepted() {
    let s = scene().await;
    let refusing = |accept: Option<&str>| {
        let mut targets = s.targets();
        let refusal = Refusal::new("it is of the other vendor", "take another server");
        let refusal = accept.map_or(refusal.clone(), |name| refusal.acceptable_as(name));
        targets[1].refusals = vec![refusal];
        targets
    };
    let plan = s.plan(refusing(Some("other-vendor")), |_| {}).await.unwrap();
    let e = plan.plan().refused().unwrap();
    assert_eq!((e.kind(), e.message()), (ErrorKind::Refused, "it is of the other vendor"));
    assert!(e.hint_text().unwrap().contains("--accept other-vendor"), "{e:?}");
    for accept in [None, Some("other-vendor")] {
        let e = s.restore(refusing(accept), |_| {}).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
        s.assert_old_without_traces();
    }
    // What nobody may accept is not accepted by any name; and a name must be one of those that are refused.
    for (name, refused) in [(None, true), (Some("another"), true), (Some("other-vendor"), false)] {
        let planned = s.plan(refusing(name), |o| o.accept = vec!["other-vendor".into()]).await;
        match refused {
            true => assert_eq!(planned.err().unwrap().kind(), ErrorKind::Usage),
            false => assert!(planned.unwrap().plan().refusals[0].accepted),
        }
    }
    let accepted = |o: &mut RestoreOptions| {
        o.accept = vec!["other-vendor".into()];
        o.settle = true;
    };
    s.restore(refusing(Some("other-vendor")), accepted).await.unwrap();
    assert!(s.is_new());
}

#[tokio::test]
async fn a_partial_backup_is_restored_only_with_consent_and_the_plan_says_what_is_missing() {
    let mut s = scene().await;
    let r = request(vec![component("one", files(&[("a", "new"), ("b", ""), ("c", "!")]))]);
    s.backup = create(r, &s.archive, &s.cx).await.unwrap().id;
    s.cx = Context::default();
    let prepared = s.plan(vec![s.target("one")], |_| {}).await.unwrap();
    assert!(prepared.plan().notes.iter().any(|n| n == "one: 1 entries are missing in the backup"));
    let e = s.restore(vec![s.target("one")], |_| {}).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Refused);
    s.assert_old_without_traces();
    let report = s.restore(vec![s.target("one")], |o| o.accept_partial = true).await.unwrap();
    assert_eq!(report.components[0].lost, 1);
    assert_eq!(fs::read_to_string(s.place("one")).unwrap(), NEW);
}

#[tokio::test]
async fn what_cannot_be_planned_is_an_error() {
    let s = scene().await;
    let kind = |r: Result<PreparedRestore>| r.err().unwrap().kind();
    assert_eq!(kind(s.plan(vec![], |_| {}).await), ErrorKind::Usage);
    assert_eq!(kind(s.plan(vec![s.target("four")], |_| {}).await), ErrorKind::NotFound);
    assert_eq!(kind(s.plan(vec![s.target("one"), s.target("one")], |_| {}).await), ErrorKind::Usage);
}

#[tokio::test]
async fn a_revert_that_fails_is_said_keeps_the_journal_and_heal_ends_it() {
    let s = scene().await;
    let mut targets = s.targets();
    targets[2].fault = Some(Fault("published", How::Fail));
    targets[1].fault = Some(Fault("revert", How::Fail));
    let e = s.restore(targets, |_| {}).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotRolledBack);
    assert!(e.hint_text().unwrap().contains("journal.json"));
    assert_eq!(pending(&s.state(), &[]).unwrap()[0].phase, RestorePhase::Reverting);
    assert_eq!(fs::read_to_string(s.place("one")).unwrap(), "old", "the others are brought back");
    assert!(matches!(&s.heal(0).await[..], [Healed::Reverted { .. }]));
    s.assert_old_without_traces();
}

#[tokio::test]
async fn a_home_that_belongs_to_another_restore_is_not_touched() {
    let s = scene().await;
    s.restore(vec![s.target("one")], |_| {}).await.unwrap();
    let before = s.traces();
    let e = s.restore(vec![s.target("two"), s.target("one")], |_| {}).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Target);
    assert_eq!(s.traces(), before);
    assert_eq!(fs::read_to_string(s.place("two")).unwrap(), "old");
}

#[tokio::test]
async fn without_a_local_target_the_journal_lies_in_the_state_folder() {
    let s = scene().await;
    let mut targets = s.targets();
    targets.iter_mut().for_each(|t| t.local = false);
    s.restore(targets, |_| {}).await.unwrap();
    let found = pending(&s.state(), &[]).unwrap();
    assert!(found[0].journal.starts_with(s.state()) && !s.homes()[0].join("journal.json").exists());
    undo_restore(
        &found[0],
        &|kind: &str, undo: serde_json::Value| {
            let mut target = FileTarget::new(undo["place"].as_str().unwrap());
            assert_eq!(kind, "file");
            target.local = false;
            target = target.existed(undo["existed"].as_bool().unwrap());
            Ok(Box::new(target) as Box<dyn Target>)
        },
        &s.cx,
    )
    .await
    .unwrap();
    s.assert_old_without_traces();
}

#[tokio::test]
async fn a_restore_that_goes_on_is_left_alone() {
    let s = Arc::new(scene().await);
    let mut targets = s.targets();
    targets[1].fault = Some(Fault("half", How::Hang));
    let other = s.clone();
    let run = tokio::spawn(async move { other.restore(targets, |_| {}).await.map(drop) });
    while !s.homes()[0].join("one.old").exists() || s.place("two").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let before = s.traces();
    assert!(matches!(&s.heal(100).await[..], [Healed::LeftAlone { .. }]));
    let found = pending(&s.state(), &s.homes()).unwrap();
    assert_eq!((found.len(), found[0].running), (1, Some(true)));
    assert_eq!(undo_restore(&found[0], &recover, &s.cx).await.unwrap_err().kind(), ErrorKind::AlreadyRunning);
    assert_eq!(s.traces(), before);
    run.abort();
    let _ = run.await;
    assert!(matches!(&s.heal(0).await[..], [Healed::Reverted { .. }]));
    s.assert_old_without_traces();
}

#[tokio::test]
async fn places_inside_each_other_are_refused_whichever_comes_first() {
    let s = scene().await;
    let inner = FileTarget::new(s.place("one").join("two"));
    for targets in [vec![s.target("one"), FileTarget::new(inner.place.clone())], vec![inner, s.target("one")]]
    {
        let e = s.plan(targets, |_| {}).await.err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Refused);
        let text = format!("{e} {}", e.hint_text().unwrap());
        for part in ["data/one/two", "inside", "--only", "--to"] {
            assert!(text.contains(part), "{text}");
        }
    }
    // A name that begins like another one is not inside it.
    let beside = FileTarget::new(s.dir.path().join("data/one-more/two"));
    s.plan(vec![s.target("one"), beside], |_| {}).await.unwrap();
    s.assert_old_without_traces();
}

#[tokio::test]
async fn a_restore_that_another_host_began_is_said_to_be_unfinished_bars_the_place_and_ends_by_an_undo() {
    let s = scene().await;
    let mut targets = s.targets();
    targets[1].fault = Some(Fault("half", How::Hang));
    let half = async {
        while !s.homes()[0].join("one.old").exists() || s.place("two").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let e = s.restore(vec![s.target("three")], |_| {}).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyRunning, "{e}");
    };
    tokio::select! {
        ended = s.restore(targets, |_| {}) => panic!("{ended:?}"),
        () = half => {}
    }
    let path = s.homes()[0].join("journal.json");
    let here = serde_json::to_string(&ProcessStamp::current().host).unwrap();
    let journal = fs::read_to_string(&path).unwrap();
    assert!(journal.contains(&here));
    fs::write(&path, journal.replace(&here, "\"elsewhere.invalid\"")).unwrap();
    assert!(matches!(&s.heal(100).await[..], [Healed::LeftAlone { unfinished: true, .. }]));
    let before = s.traces();
    let e = s.restore(vec![s.target("three")], |_| {}).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotRolledBack, "{e}");
    assert_eq!(s.traces(), before);
    let found = pending(&s.state(), &[]).unwrap();
    assert_eq!((found[0].running, found[0].phase), (None, RestorePhase::Publishing));
    undo_restore(&found[0], &recover, &s.cx).await.unwrap();
    s.assert_old_without_traces();
}
