//! What goes wrong between us and a bucket: whatever happens, there is never a backup that lists as complete and is not whole.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

use backup_core::{
    Archive, ComponentHeader, Context, CreateComponent, CreateRequest, Depth, Error, ErrorKind, Report,
    RetryPolicy, Secret, Series, State, create,
    destination::{RemotePlace, RemoteSettings},
    portable::{PortableArchive, PortableOptions, Together},
    verify,
};
use backup_testkit::{
    make::{file, noise},
    memory::MemorySource,
    run,
    servers::{Fault, Faulty, Minio, Seen, or_skip},
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

fn minio() -> &'static Minio {
    static SERVER: OnceLock<Result<Minio, String>> = OnceLock::new();
    or_skip("minio", SERVER.get_or_init(Minio::start).as_ref().map_err(String::clone))
}

fn archive(endpoint: &str, prefix: &str) -> PortableArchive {
    let place = RemotePlace::parse(&format!("s3://{}/{prefix}", Minio::BUCKET)).unwrap().unwrap();
    let mut settings = RemoteSettings::default();
    settings.endpoint = Some(endpoint.to_owned());
    settings.access_key_id = Some(Minio::KEY.to_owned());
    settings.secret_access_key = Some(Secret::new(Minio::SECRET));
    settings.patience = Some(Duration::from_secs(1));
    let (first_wait, longest_wait) = (Duration::from_millis(5), Duration::from_millis(50));
    settings.retry = Some(RetryPolicy { attempts: 6, first_wait, longest_wait });
    PortableArchive::remote(place.configured(settings).unwrap(), PortableOptions::default()).unwrap()
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
    prefix: &str,
    fault: impl Fn(&Seen) -> Option<Fault> + Send + Sync + 'static,
) -> (Result<Report, Error>, PortableArchive) {
    let proxy = Faulty::before(minio().address(), fault).unwrap();
    let made = create(request(), &archive(&proxy.endpoint(), prefix), &Context::default()).await;
    (made, archive(&minio().endpoint(), prefix))
}

/// Everything that lists as complete is whole; what else is there, heal takes away. Says how many are complete.
async fn is_in_order(archive: &PortableArchive, what: &str) -> usize {
    let cx = Context::default();
    let names = || std::fs::read_dir(minio().bucket().join(what)).into_iter().flatten().flatten();
    // What could not be given back is held by this process, which lives on: that the run is over only we know.
    for lock in names().filter(|e| e.file_name().to_string_lossy().starts_with(".backup-lock-")) {
        std::fs::remove_dir_all(lock.path()).unwrap();
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
    let debris: Vec<_> = names().map(|e| e.file_name().to_string_lossy().into_owned()).filter(ours).collect();
    assert!(debris.is_empty(), "{what}: {debris:?} are left after heal");
    list.len()
}

#[test]
fn a_storm_of_errors_that_passes_is_ridden_out() {
    run("a_storm_of_errors_that_passes_is_ridden_out", async {
        let storm = |seen: &Seen| match seen.number % 3 {
            0 => Some(Fault::Refuse(503, "SlowDown")),
            1 if seen.number.is_multiple_of(2) => Some(Fault::CutRequest),
            _ => None,
        };
        let (made, direct) = through("storm", storm).await;
        assert_eq!(made.unwrap().state, State::Complete);
        assert_eq!(is_in_order(&direct, "storm").await, 1);
    });
}

#[test]
fn an_own_call_whose_answer_was_lost_is_never_taken_for_somebody_elses() {
    run("an_own_call_whose_answer_was_lost_is_never_taken_for_somebody_elses", async {
        // The first of every conditional call: the lock, the claim of the name, the completion of the upload.
        let lost = std::sync::Mutex::new(std::collections::HashSet::new());
        let fault = move |seen: &Seen| {
            let first = seen.conditional && lost.lock().unwrap().insert(seen.line.clone());
            first.then_some(Fault::LoseAnswer)
        };
        let (made, direct) = through("lost", fault).await;
        assert_eq!(made.unwrap().state, State::Complete);
        assert_eq!(is_in_order(&direct, "lost").await, 1);
    });
}

#[test]
fn whatever_breaks_at_whatever_request_leaves_no_backup_that_is_not_whole() {
    run("whatever_breaks_at_whatever_request_leaves_no_backup_that_is_not_whole", async {
        let faults =
            [Fault::Refuse(500, "InternalError"), Fault::CutRequest, Fault::LoseAnswer, Fault::CutAnswer];
        let (mut failed, mut made) = (0, 0);
        for n in 0..18 {
            let (fault, prefix) = (faults[n as usize % faults.len()], format!("broken-{n}"));
            let (outcome, direct) = through(&prefix, move |seen| (seen.number >= n).then_some(fault)).await;
            let complete = is_in_order(&direct, &prefix).await;
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
        assert!(failed > 8);
    });
}

#[test]
fn a_full_server_a_wrong_clock_and_a_stalled_server_are_errors_with_a_way_out() {
    run("a_full_server_a_wrong_clock_and_a_stalled_server_are_errors_with_a_way_out", async {
        let of_part = |seen: &Seen| seen.line.contains("partNumber=2");
        for (prefix, fault, says) in [
            ("full", Fault::Refuse(507, "XMinioStorageFull"), "no space left"),
            ("clock", Fault::Refuse(403, "RequestTimeTooSkewed"), "clocks"),
            ("stall", Fault::Stall, "nothing moved"),
        ] {
            let (made, direct) = through(prefix, move |seen| of_part(seen).then_some(fault)).await;
            let e = made.unwrap_err();
            assert!(e.kind() == ErrorKind::Destination && e.to_string().contains(says), "{prefix}: {e}");
            assert_eq!(is_in_order(&direct, prefix).await, 0);
        }
    });
}

#[test]
fn a_run_that_is_killed_after_the_completion_has_made_one_backup() {
    run("a_run_that_is_killed_after_the_completion_has_made_one_backup", async {
        // From the completion on nothing that concerns the marker gets through: it and the claim stay, as after a kill.
        let completed = AtomicBool::new(false);
        let fault = move |seen: &Seen| {
            if seen.line.starts_with("POST") && seen.line.contains("uploadId=") {
                completed.store(true, Relaxed);
            }
            let marker = completed.load(Relaxed) && seen.line.contains(".incomplete");
            marker.then_some(Fault::Refuse(500, "InternalError"))
        };
        let (made, archive) = through("completed", fault).await;
        let (made, cx) = (made.unwrap(), Context::default());
        // The sidecar comes after it, too.
        let folder = minio().bucket().join("completed");
        let names = || -> Vec<String> {
            std::fs::read_dir(&folder)
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let sidecar = names().into_iter().find(|n| n.ends_with(".manifest.json")).unwrap();
        std::fs::remove_dir_all(folder.join(sidecar)).unwrap();
        assert!(
            names().iter().any(|n| n.ends_with(".incomplete"))
                && names().iter().any(|n| n.ends_with(".claim"))
        );
        let listed = archive.list(&cx).await.unwrap();
        assert_eq!(
            listed.iter().map(|b| (&b.id, b.state)).collect::<Vec<_>>(),
            [(&made.id, State::Complete)]
        );
        let report = verify(archive.open(&made.id, &cx).await.unwrap(), Depth::Full, &cx).await.unwrap();
        assert!(report.defects.is_empty(), "{:?}", report.defects);
        assert_eq!(is_in_order(&archive, "completed").await, 1);
        assert_eq!(names(), [made.location], "heal took away marker and claim, and nothing else");
    });
}

#[test]
fn a_listing_that_fails_is_an_error_and_a_slow_server_is_none() {
    run("a_listing_that_fails_is_an_error_and_a_slow_server_is_none", async {
        let lists = |seen: &Seen| seen.line.contains("list-type=2").then_some(Fault::CutAnswer);
        let proxy = Faulty::before(minio().address(), lists).unwrap();
        let e = archive(&proxy.endpoint(), "listing").list(&Context::default()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Destination, "{e}");
        // Slower than the patience for a part as a whole, and never still for so long.
        let (made, direct) = through("slow", |_| Some(Fault::Slow(12))).await;
        assert_eq!(made.unwrap().state, State::Complete);
        assert_eq!(is_in_order(&direct, "slow").await, 1);
    });
}

#[test]
fn an_answer_that_is_cut_is_read_again() {
    run("an_answer_that_is_cut_is_read_again", async {
        let (made, _) = through("reading", |_| None).await;
        let id = made.unwrap().id;
        let every_other = |seen: &Seen| seen.number.is_multiple_of(2).then_some(Fault::CutAnswer);
        let proxy = Faulty::before(minio().address(), every_other).unwrap();
        let (archive, cx) = (archive(&proxy.endpoint(), "reading"), Context::default());
        let report = verify(archive.open(&id, &cx).await.unwrap(), Depth::Full, &cx).await.unwrap();
        assert!(report.defects.is_empty() && proxy.seen() > 4, "{:?}", report.defects);
    });
}

#[test]
fn a_place_that_stalls_is_given_up_before_it_holds_up_the_others_for_long() {
    run("a_place_that_stalls_is_given_up_before_it_holds_up_the_others_for_long", async {
        let stalls = |seen: &Seen| seen.line.contains("partNumber=1").then_some(Fault::Stall);
        let proxy = Faulty::before(minio().address(), stalls).unwrap();
        let (good, bad) = (archive(&minio().endpoint(), "moves"), archive(&proxy.endpoint(), "stalls"));
        let together = Together::new(vec![bad, good.clone()]).unwrap();
        let begin = std::time::Instant::now();
        let report = together.create(request(), &Context::default()).await.unwrap();
        // With all its repetitions the stalled call alone would take 24 s here, and minutes with the usual patience.
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
        let error = report.places[0].error.as_ref().unwrap();
        assert!(error.to_string().contains("nothing moved"), "{error}");
        assert!(report.places[1].error.is_none() && report.state == State::Complete);
        assert_eq!(is_in_order(&good, "moves").await, 1);
        assert_eq!(is_in_order(&archive(&minio().endpoint(), "stalls"), "stalls").await, 0);
    });
}

#[test]
fn a_part_that_arrives_damaged_is_noticed_and_sent_again() {
    run("a_part_that_arrives_damaged_is_noticed_and_sent_again", async {
        let first = AtomicBool::new(true);
        let once = move |seen: &Seen| {
            let hit = seen.line.contains("partNumber=2") && first.swap(false, Relaxed);
            hit.then_some(Fault::FlipByte)
        };
        let (made, direct) = through("flipped-once", once).await;
        assert_eq!(made.unwrap().state, State::Complete);
        assert_eq!(is_in_order(&direct, "flipped-once").await, 1);
        let always = |seen: &Seen| seen.line.contains("partNumber=2").then_some(Fault::FlipByte);
        let (made, direct) = through("flipped", always).await;
        let e = made.unwrap_err();
        assert!(e.kind() == ErrorKind::Destination && e.to_string().contains("not what was sent"), "{e}");
        assert_eq!(is_in_order(&direct, "flipped").await, 0);
    });
}

#[test]
fn a_place_that_fails_half_way_fails_only_itself() {
    run("a_place_that_fails_half_way_fails_only_itself", async {
        let broken = |seen: &Seen| seen.line.contains("partNumber=2").then_some(Fault::CutRequest);
        let proxy = Faulty::before(minio().address(), broken).unwrap();
        let (good, bad) = (archive(&minio().endpoint(), "good"), archive(&proxy.endpoint(), "bad"));
        let together = Together::new(vec![bad, good.clone()]).unwrap();
        let report = together.create(request(), &Context::default()).await.unwrap();
        assert_eq!(report.places[0].error.as_ref().map(Error::kind), Some(ErrorKind::Destination));
        assert!(report.places[1].error.is_none() && report.state == State::Complete);
        assert_eq!(is_in_order(&good, "good").await, 1);
        assert_eq!(is_in_order(&archive(&minio().endpoint(), "bad"), "bad").await, 0);
    });
}

#[test]
fn what_a_place_failed_with_is_said_in_the_backup_at_the_others() {
    run("what_a_place_failed_with_is_said_in_the_backup_at_the_others", async {
        // Nobody listens there.
        let (good, bad) = (archive(&minio().endpoint(), "says"), archive("http://127.0.0.1:1", "nowhere"));
        let together = Together::new(vec![bad, good.clone()]).unwrap();
        let report = together.create(request(), &Context::default()).await.unwrap();
        assert!(report.places[0].error.is_some() && report.state == State::Complete);
        let reader = good.open(&report.id, &Context::default()).await.unwrap();
        let said = &reader.manifest().notes.list;
        let says = said.iter().any(|n| n.path.ends_with("/nowhere") && n.text.contains("not kept there"));
        assert!(says, "{said:?}");
    });
}

#[test]
fn a_backup_that_cannot_be_removed_keeps_what_stands_beside_it() {
    run("a_backup_that_cannot_be_removed_keeps_what_stands_beside_it", async {
        let (made, direct) = through("held", |_| None).await;
        let (made, cx) = (made.unwrap(), Context::default());
        let sidecar = minio().bucket().join(format!("held/{}.manifest.json", made.location));
        // As with an object lock: this object is not to be removed, and all else is as ever.
        let line = format!("/held/{} ", made.location);
        let locked = move |seen: &Seen| {
            let hit = seen.line.starts_with("DELETE") && seen.line.contains(&line);
            hit.then_some(Fault::Refuse(403, "AccessDenied"))
        };
        let proxy = Faulty::before(minio().address(), locked).unwrap();
        let before = direct.list(&cx).await.unwrap();
        let removed = archive(&proxy.endpoint(), "held").remove(std::slice::from_ref(&made.id), &cx).await;
        assert!(removed.is_err() && sidecar.exists(), "{removed:?}");
        assert_eq!(direct.list(&cx).await.unwrap(), before);
        direct.remove(&[made.id], &cx).await.unwrap();
        assert!(!sidecar.exists());
    });
}
