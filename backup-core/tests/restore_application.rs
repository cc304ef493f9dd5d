//! The containers of an application are stopped while its data is exchanged, and started again whatever happens.
#![allow(clippy::unwrap_used, reason = "a test")]

mod common;
#[path = "common/scene.rs"]
mod scene;

use backup_core::*;
use common::*;
use scene::*;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}

/// `web` and `worker` run, `spare` does not.
fn application() -> Containers {
    let containers = Containers::running(&["web", "worker"]);
    containers.set("spare", false);
    containers
}

async fn prepared(
    s: &Scene,
    containers: &Containers,
    health: Option<Box<dyn HealthCheck>>,
) -> PreparedRestore {
    let reader = s.archive.open(&s.backup, &s.cx).await.unwrap();
    let mut options = RestoreOptions::new(s.state(), "shop");
    options.app = ["web", "worker", "spare"].map(String::from).to_vec();
    options.containers = Arc::new(containers.clone());
    options.health = health;
    let member = |t: FileTarget| RestoreMember {
        component: t.place.file_name().unwrap().to_string_lossy().into_owned(),
        kind: "file".into(),
        selection: Selection::All,
        target: Box::new(t),
        disposable: false,
    };
    plan_restore(reader, s.targets().into_iter().map(member).collect(), options, &s.cx).await.unwrap()
}

/// Remembers what it saw; works only if it is told so.
struct Seeing {
    containers: Containers,
    saw: Arc<Mutex<Vec<bool>>>,
    works: bool,
}

#[async_trait::async_trait]
impl HealthCheck for Seeing {
    async fn check(&self, _cx: &Context) -> Result<()> {
        self.saw.lock().unwrap().extend(self.containers.state().into_values());
        match self.works {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Target, "check the health", "it answers 503")),
        }
    }
}

async fn heal(s: &Scene, containers: &Containers) -> Vec<Healed> {
    let now = jiff::Timestamp::now();
    heal_restores(&s.state(), &s.homes(), containers, now, &Context::default()).await.unwrap()
}

#[test]
fn it_is_started_again_for_the_health_check_and_what_did_not_run_is_left_alone() {
    for works in [true, false] {
        let (s, containers) = (run(scene()), application());
        let before = containers.state();
        let saw = Arc::<Mutex<Vec<bool>>>::default();
        let health = Seeing { containers: containers.clone(), saw: saw.clone(), works };
        let plan = run(prepared(&s, &containers, Some(Box::new(health))));
        assert_eq!(plan.plan().app.len(), 3);
        let consent = Confirmation::of(plan.plan().id().clone());
        let done = run(plan.apply(Some(consent), &s.cx));
        match works {
            true => assert!(done.is_ok() && s.is_new(), "{done:?}"),
            false => {
                assert_eq!(done.unwrap_err().kind(), ErrorKind::RolledBack);
                s.assert_old_without_traces();
            }
        }
        // In the order of their names: spare, web, worker.
        assert_eq!(*saw.lock().unwrap(), [false, true, true]);
        assert_eq!(containers.state(), before);
    }
}

#[test]
fn a_restore_that_is_killed_at_any_step_leaves_an_application_that_heal_starts_again() {
    let mut was_stopped = 0;
    for polls in 1.. {
        let (s, containers) = (run(scene()), application());
        let before = containers.state();
        let plan = run(prepared(&s, &containers, None));
        let consent = Confirmation::of(plan.plan().id().clone());
        let ended = run(dropped_after(polls, plan.apply(Some(consent), &s.cx)));
        was_stopped += u32::from(containers.state() != before);
        run(heal(&s, &containers));
        assert_eq!(containers.state(), before, "killed after {polls} polls");
        assert!(s.is_old() || s.is_new(), "{:?}", s.live());
        if ended.is_some() {
            assert!(was_stopped > 5, "{was_stopped} of {polls}");
            return;
        }
    }
}

#[test]
fn an_undo_stops_and_starts_it_too_killed_or_not() {
    for polls in 1.. {
        let (s, containers) = (run(scene()), application());
        let before = containers.state();
        let plan = run(prepared(&s, &containers, None));
        let consent = Confirmation::of(plan.plan().id().clone());
        run(plan.apply(Some(consent), &s.cx)).unwrap();
        let kept = pending(&s.state(), &s.homes()).unwrap().remove(0);
        let ended = run(dropped_after(polls, undo_restore(&kept, &containers, &s.cx)));
        run(heal(&s, &containers));
        assert_eq!(containers.state(), before, "killed after {polls} polls");
        assert!(s.is_old() || s.is_new(), "{:?}", s.live());
        if let Some(undone) = ended {
            undone.unwrap();
            s.assert_old_without_traces();
            return;
        }
    }
}

#[test]
fn a_container_that_is_not_there_is_an_error_of_the_plan() {
    let s = run(scene());
    let e = run(async {
        let reader = s.archive.open(&s.backup, &s.cx).await.unwrap();
        let mut options = RestoreOptions::new(s.state(), "shop");
        options.app = vec!["gone".to_owned()];
        options.containers = Arc::new(application());
        let member = RestoreMember {
            component: "one".into(),
            kind: "file".into(),
            selection: Selection::All,
            target: Box::new(s.target("one")),
            disposable: false,
        };
        plan_restore(reader, vec![member], options, &s.cx).await.err().unwrap()
    });
    assert_eq!((e.kind(), e.subject()), (ErrorKind::NotFound, Some("gone")));
    s.assert_old_without_traces();
}

/// Answers with these statuses, one after another, the last again and again.
async fn server(statuses: &'static [u16]) -> (String, tokio::task::JoinHandle<()>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/health", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        for n in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let status = statuses[statuses.len().min(n + 1) - 1];
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, serving)
}

#[tokio::test]
async fn an_address_is_asked_until_it_answers_well_or_the_time_is_over() {
    let cx = Context::default();
    let check = |url: &str, limit: u64| UrlHealth::new(url, Duration::from_millis(limit)).unwrap();
    let (url, serving) = server(&[503, 500, 200]).await;
    check(&url, 10_000).check(&cx).await.unwrap();
    serving.abort();
    let (url, serving) = server(&[503]).await;
    let e = check(&url, 1200).check(&cx).await.unwrap_err();
    assert!(e.to_string().contains("503") && e.subject() == Some(&*url), "{e}");
    serving.abort();
    // Nobody listens; somebody listens and says nothing.
    let e = check("http://127.0.0.1:9/", 700).check(&cx).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Target);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://u:hunter2@{}/", silent.local_addr().unwrap());
    let began = std::time::Instant::now();
    let e = check(&url, 700).check(&cx).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3) && !format!("{e:?}").contains("hunter2"), "{e:?}");
    cx.cancel.cancel();
    assert_eq!(check(&url, 60_000).check(&cx).await.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(UrlHealth::new("ftp://h", Duration::ZERO).err().unwrap().kind(), ErrorKind::Usage);
}
