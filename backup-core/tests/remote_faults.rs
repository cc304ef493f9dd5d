//! What goes wrong between us and a bucket, of S3 or of Azure: whatever happens, there is never a backup that lists as complete and is not whole.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

use backup_core::{
    Archive, ComponentHeader, Context, CreateComponent, CreateRequest, Depth, Error, ErrorKind, Report,
    RetryPolicy, Series, State, create,
    destination::RemotePlace,
    portable::{PortableArchive, PortableOptions, Together},
    verify,
};
use backup_testkit::{
    make::{file, noise},
    memory::MemorySource,
    run,
    servers::{Azurite, Fault, Faulty, Minio, ObjectServer, Seen, or_skip},
};
use bytes::Bytes;
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// Three parts of an upload.
const DATA: usize = 20 << 20;

/// The server of a kind, shared by all tests.
type Store = &'static dyn ObjectServer;

fn minio() -> Store {
    static SERVER: OnceLock<Result<Minio, String>> = OnceLock::new();
    let server: &Minio = or_skip("minio", SERVER.get_or_init(Minio::start).as_ref().map_err(String::clone));
    server
}

fn azurite() -> Store {
    static SERVER: OnceLock<Result<Azurite, String>> = OnceLock::new();
    let server: &Azurite =
        or_skip("azurite", SERVER.get_or_init(Azurite::start).as_ref().map_err(String::clone));
    server
}

/// The emulator does one thing at a time: it gets more time and fewer rounds.
fn is_slow(store: Store) -> bool {
    store.url("").starts_with("az://")
}

/// Each promise as a test of its own.
macro_rules! promises {
    ($kind:ident, $server:ident, $($promise:ident)*) => {
        mod $kind {
            $(#[test]
            fn $promise() {
                super::run(stringify!($promise), async { super::$promise(super::$server()).await });
            })*
        }
    };
}

promises! { s3, minio,
    a_storm_of_errors_that_passes_is_ridden_out
    an_own_call_whose_answer_was_lost_is_never_taken_for_somebody_elses
    whatever_breaks_at_whatever_request_leaves_no_backup_that_is_not_whole
    a_full_server_a_wrong_clock_and_a_stalled_server_are_errors_with_a_way_out
    a_run_that_is_killed_after_the_completion_has_made_one_backup
    a_listing_that_fails_is_an_error
    a_slow_server_is_no_error
    an_answer_that_is_cut_is_read_again
    a_place_that_stalls_is_given_up_before_it_holds_up_the_others_for_long
    a_part_that_arrives_damaged_is_noticed_and_sent_again
    a_place_that_fails_half_way_fails_only_itself
    what_a_place_failed_with_is_said_in_the_backup_at_the_others
    a_backup_that_cannot_be_removed_keeps_what_stands_beside_it
}

// Those that depend on what the server speaks.
promises! { azure, azurite,
    a_storm_of_errors_that_passes_is_ridden_out
    an_own_call_whose_answer_was_lost_is_never_taken_for_somebody_elses
    whatever_breaks_at_whatever_request_leaves_no_backup_that_is_not_whole
    a_key_that_holds_no_more_and_a_container_that_keeps_everything_are_errors_with_a_way_out
    a_run_that_is_killed_after_the_completion_has_made_one_backup
    a_listing_that_fails_is_an_error
    a_part_that_arrives_damaged_is_noticed_and_sent_again
    a_backup_that_cannot_be_removed_keeps_what_stands_beside_it
}

fn archive_at(store: Store, endpoint: &str, prefix: &str) -> PortableArchive {
    let place = RemotePlace::parse(&store.url_at(endpoint, prefix)).unwrap().unwrap();
    let mut settings = store.settings();
    settings.patience = Some(Duration::from_secs(if is_slow(store) { 10 } else { 1 }));
    let (first_wait, longest_wait) = (Duration::from_millis(5), Duration::from_millis(50));
    settings.retry = Some(RetryPolicy { attempts: 6, first_wait, longest_wait });
    PortableArchive::remote(place.configured(settings).unwrap(), PortableOptions::default()).unwrap()
}

fn archive(store: Store, prefix: &str) -> PortableArchive {
    archive_at(store, &format!("http://{}", store.address()), prefix)
}

fn behind(store: Store, fault: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static) -> Faulty {
    Faulty::before(store.address(), fault).unwrap()
}

fn request() -> CreateRequest {
    static DATA_ONCE: OnceLock<Bytes> = OnceLock::new();
    let data = DATA_ONCE.get_or_init(|| noise(DATA, 7).into()).clone();
    let header = ComponentHeader {
        name: "c".to_owned(),
        kind: "memory".to_owned(),
        folder: "files".to_owned(),
        origin: serde_json::Value::Null,
    };
    let source = MemorySource::new("c").with_bytes(file("large"), data).with_file("small", "text");
    let components = vec![CreateComponent { header, source: Box::new(source) }];
    CreateRequest {
        module: "m".to_owned(),
        series: Series("m@h:c".to_owned()),
        components,
        ..Default::default()
    }
}

/// Makes a backup through a proxy that does this, at a prefix of this name.
async fn through(
    store: Store,
    prefix: &str,
    fault: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static,
) -> (Result<Report, Error>, PortableArchive) {
    let proxy = behind(store, fault);
    let to = archive_at(store, &proxy.endpoint(), prefix);
    let made = create(request(), &to, &Context::default()).await;
    (made, archive(store, prefix))
}

/// Everything that lists as complete is whole; what else is there, heal takes away. Says how many are complete.
async fn is_in_order(store: Store, what: &str) -> usize {
    let (archive, cx) = (archive(store, what), Context::default());
    // What could not be given back is held by this process, which lives on: that the run is over only we know.
    for lock in store.names(what).iter().filter(|name| name.starts_with(".backup-lock-")) {
        store.remove(what, lock);
    }
    archive.heal(&cx).await.unwrap();
    let list = archive.list(&cx).await.unwrap();
    for backup in &list {
        assert_eq!(backup.state, State::Complete, "{what}: {backup:?} is left after heal");
        let report = verify(archive.open(&backup.id, &cx).await.unwrap(), Depth::Full, &cx).await.unwrap();
        assert!(report.defects.is_empty(), "{what}: {:?}", report.defects);
    }
    // A probe may be of a run that goes on: it stays for ten minutes.
    let ours = |n: &String| n.starts_with('.') && !n.starts_with(".backup-probe-");
    let debris: Vec<_> = store.names(what).into_iter().filter(ours).collect();
    assert!(debris.is_empty(), "{what}: {debris:?} are left after heal");
    list.len()
}

async fn a_storm_of_errors_that_passes_is_ridden_out(store: Store) {
    let storm = |seen: &Seen| match seen.number % 3 {
        0 => Some(Fault::Refuse(503, "SlowDown")),
        1 if seen.number.is_multiple_of(2) => Some(Fault::CutRequest),
        _ => None,
    };
    let (made, _) = through(store, "storm", storm).await;
    assert_eq!(made.unwrap().state, State::Complete);
    assert_eq!(is_in_order(store, "storm").await, 1);
}

async fn an_own_call_whose_answer_was_lost_is_never_taken_for_somebody_elses(store: Store) {
    // The first of every conditional call: the lock, the claim of the name, the completion of the upload.
    let lost = std::sync::Mutex::new(std::collections::HashSet::new());
    let fault = move |seen: &Seen| {
        let first = seen.conditional && lost.lock().unwrap().insert(seen.line.clone());
        first.then_some(Fault::LoseAnswer)
    };
    let (made, _) = through(store, "lost", fault).await;
    assert_eq!(made.unwrap().state, State::Complete);
    assert_eq!(is_in_order(store, "lost").await, 1);
}

async fn whatever_breaks_at_whatever_request_leaves_no_backup_that_is_not_whole(store: Store) {
    let faults =
        [Fault::Refuse(500, "InternalError"), Fault::CutRequest, Fault::LoseAnswer, Fault::CutAnswer];
    let (mut failed, mut made) = (0, 0);
    let every = if is_slow(store) { 3 } else { 1 };
    for n in (0..18).step_by(every) {
        let (fault, prefix) = (faults[n as usize % faults.len()], format!("broken-{n}"));
        let (outcome, _) = through(store, &prefix, move |seen| (seen.number >= n).then_some(fault)).await;
        let complete = is_in_order(store, &prefix).await;
        match outcome {
            Ok(_) => {
                made += 1;
                assert_eq!(complete, 1, "{fault:?} from request {n} on: it was reported as made");
            }
            Err(e) => {
                failed += 1;
                assert_eq!(e.kind(), ErrorKind::Destination, "{fault:?} from request {n} on: {e}");
            }
        }
    }
    println!("{failed} failed, {made} were made all the same");
    assert!(failed > 8 / every);
}

async fn a_full_server_a_wrong_clock_and_a_stalled_server_are_errors_with_a_way_out(store: Store) {
    for (prefix, fault, says) in [
        ("full", Fault::Refuse(507, "XMinioStorageFull"), "no space left"),
        ("clock", Fault::Refuse(403, "RequestTimeTooSkewed"), "clocks"),
        ("stall", Fault::Stall, "nothing moved"),
    ] {
        says_what_a_server_did(store, prefix, fault, says).await;
    }
}

async fn a_key_that_holds_no_more_and_a_container_that_keeps_everything_are_errors_with_a_way_out(
    store: Store,
) {
    for (prefix, fault, says) in [
        ("key", Fault::Refuse(403, "AuthenticationFailed"), "account key or SAS token"),
        ("kept", Fault::Refuse(409, "BlobImmutableDueToPolicy"), "from being changed"),
    ] {
        says_what_a_server_did(store, prefix, fault, says).await;
    }
}

/// It does so to the second part of an upload.
async fn says_what_a_server_did(store: Store, prefix: &str, fault: Fault, says: &str) {
    let of_part = move |seen: &Seen| store.sends_part(&seen.line, 2).then_some(fault);
    let (made, _) = through(store, prefix, of_part).await;
    let e = made.unwrap_err();
    assert!(e.kind() == ErrorKind::Destination && e.to_string().contains(says), "{prefix}: {e}");
    assert_eq!(is_in_order(store, prefix).await, 0);
}

async fn a_run_that_is_killed_after_the_completion_has_made_one_backup(store: Store) {
    // From the completion on nothing that concerns the marker gets through: it and the claim stay, as after a kill.
    let completed = AtomicBool::new(false);
    let fault = move |seen: &Seen| {
        if store.completes(&seen.line) {
            completed.store(true, Relaxed);
        }
        let marker = completed.load(Relaxed) && seen.line.contains(".incomplete");
        marker.then_some(Fault::Refuse(500, "InternalError"))
    };
    let (made, archive) = through(store, "completed", fault).await;
    let (made, cx) = (made.unwrap(), Context::default());
    // The sidecar comes after it, too.
    let names = || store.names("completed");
    let sidecar = names().into_iter().find(|n| n.ends_with(".manifest.json")).unwrap();
    store.remove("completed", &sidecar);
    assert!(
        names().iter().any(|n| n.ends_with(".incomplete")) && names().iter().any(|n| n.ends_with(".claim"))
    );
    let listed = archive.list(&cx).await.unwrap();
    assert_eq!(listed.iter().map(|b| (&b.id, b.state)).collect::<Vec<_>>(), [(&made.id, State::Complete)]);
    let report = verify(archive.open(&made.id, &cx).await.unwrap(), Depth::Full, &cx).await.unwrap();
    assert!(report.defects.is_empty(), "{:?}", report.defects);
    assert_eq!(is_in_order(store, "completed").await, 1);
    assert_eq!(names(), [made.location], "heal took away marker and claim, and nothing else");
}

async fn a_listing_that_fails_is_an_error(store: Store) {
    let proxy = behind(store, move |seen| store.lists(&seen.line).then_some(Fault::CutAnswer));
    let e = archive_at(store, &proxy.endpoint(), "listing").list(&Context::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Destination, "{e}");
}

/// Slower than the patience for a part as a whole, and never still for so long.
async fn a_slow_server_is_no_error(store: Store) {
    let (made, _) = through(store, "slow", |_| Some(Fault::Slow(12))).await;
    assert_eq!(made.unwrap().state, State::Complete);
    assert_eq!(is_in_order(store, "slow").await, 1);
}

async fn an_answer_that_is_cut_is_read_again(store: Store) {
    let (made, _) = through(store, "reading", |_| None).await;
    let id = made.unwrap().id;
    let proxy = behind(store, |seen| seen.number.is_multiple_of(2).then_some(Fault::CutAnswer));
    let (archive, cx) = (archive_at(store, &proxy.endpoint(), "reading"), Context::default());
    let report = verify(archive.open(&id, &cx).await.unwrap(), Depth::Full, &cx).await.unwrap();
    assert!(report.defects.is_empty() && proxy.seen() > 4, "{:?}", report.defects);
    // One that is cut each time, as a server does whose object is damaged: the address is not what is wrong.
    let proxy = behind(store, |seen| {
        (seen.line.starts_with("GET") && seen.line.contains(".tar.zst ")).then_some(Fault::CutAnswer)
    });
    let archive = archive_at(store, &proxy.endpoint(), "reading");
    let Err(e) = archive.open(&id, &cx).await else { panic!("it was read") };
    let hint = e.hint_text().unwrap_or_default();
    assert!(hint.contains("damaged there") && !hint.contains("address"), "{e}: {hint}");
}

async fn a_place_that_stalls_is_given_up_before_it_holds_up_the_others_for_long(store: Store) {
    let proxy = behind(store, move |seen| store.sends_part(&seen.line, 1).then_some(Fault::Stall));
    let (good, bad) = (archive(store, "moves"), archive_at(store, &proxy.endpoint(), "stalls"));
    let together = Together::new(vec![bad, good.clone()], Vec::new()).unwrap();
    let begin = std::time::Instant::now();
    let report = together.create(request(), &Context::default()).await.unwrap();
    // With all its repetitions the stalled call alone would take 24 s here, and minutes with the usual patience.
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let error = report.places[0].error.as_ref().unwrap();
    assert!(error.to_string().contains("nothing moved"), "{error}");
    assert!(report.places[1].error.is_none() && report.state == State::Complete);
    assert_eq!(is_in_order(store, "moves").await, 1);
    assert_eq!(is_in_order(store, "stalls").await, 0);
}

async fn a_part_that_arrives_damaged_is_noticed_and_sent_again(store: Store) {
    let first = AtomicBool::new(true);
    let once = move |seen: &Seen| {
        let hit = store.sends_part(&seen.line, 2) && first.swap(false, Relaxed);
        hit.then_some(Fault::FlipByte)
    };
    let (made, _) = through(store, "flipped-once", once).await;
    assert_eq!(made.unwrap().state, State::Complete);
    assert_eq!(is_in_order(store, "flipped-once").await, 1);
    let always = move |seen: &Seen| store.sends_part(&seen.line, 2).then_some(Fault::FlipByte);
    let (made, _) = through(store, "flipped", always).await;
    let e = made.unwrap_err();
    assert!(e.kind() == ErrorKind::Destination && e.to_string().contains("not what was sent"), "{e}");
    assert_eq!(is_in_order(store, "flipped").await, 0);
}

async fn a_place_that_fails_half_way_fails_only_itself(store: Store) {
    let proxy = behind(store, move |seen| store.sends_part(&seen.line, 2).then_some(Fault::CutRequest));
    let (good, bad) = (archive(store, "good"), archive_at(store, &proxy.endpoint(), "bad"));
    let together = Together::new(vec![bad, good.clone()], Vec::new()).unwrap();
    let report = together.create(request(), &Context::default()).await.unwrap();
    assert_eq!(report.places[0].error.as_ref().map(Error::kind), Some(ErrorKind::Destination));
    assert!(report.places[1].error.is_none() && report.state == State::Complete);
    assert_eq!(is_in_order(store, "good").await, 1);
    assert_eq!(is_in_order(store, "bad").await, 0);
}

async fn what_a_place_failed_with_is_said_in_the_backup_at_the_others(store: Store) {
    // Nobody listens there. It has the name of the other, at another server.
    let (good, bad) = (archive(store, "says"), archive_at(store, "http://127.0.0.1:1", "says"));
    let together = Together::new(vec![bad, good.clone()], Vec::new()).unwrap();
    let report = together.create(request(), &Context::default()).await.unwrap();
    assert!(report.places[0].error.is_some() && report.state == State::Complete);
    let reader = good.open(&report.id, &Context::default()).await.unwrap();
    let said = &reader.manifest().notes.list;
    let says = said.iter().any(|n| n.path.ends_with("/says") && n.text.contains("not kept there"));
    assert!(says, "{said:?}");
}

async fn a_backup_that_cannot_be_removed_keeps_what_stands_beside_it(store: Store) {
    let (made, direct) = through(store, "held", |_| None).await;
    let (made, cx) = (made.unwrap(), Context::default());
    let sidecar = format!("{}.manifest.json", made.location);
    let is_there = || store.names("held").contains(&sidecar);
    // As with an object lock: this object is not to be removed, and all else is as ever.
    let line = format!("/held/{} ", made.location);
    let locked = move |seen: &Seen| {
        let hit = seen.line.starts_with("DELETE") && seen.line.contains(&line);
        hit.then_some(Fault::Refuse(403, "AccessDenied"))
    };
    let proxy = behind(store, locked);
    let before = direct.list(&cx).await.unwrap();
    let removed =
        archive_at(store, &proxy.endpoint(), "held").remove(std::slice::from_ref(&made.id), &cx).await;
    assert!(removed.is_err() && is_there(), "{removed:?}");
    assert_eq!(direct.list(&cx).await.unwrap(), before);
    direct.remove(&[made.id], &cx).await.unwrap();
    assert!(!is_there());
}
