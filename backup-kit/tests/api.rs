//! What an embedder may rely on.

use backup_core::{Backend, Source, Target};
use backup_kit::{
    Confirmation, Content, CoreError, Entry, Error, ErrorKind, Module, Named, Old, Registry, Report, Restore,
    SourceSpec, State, archive, conclude, heal, verify,
};
use backup_testkit::memory::{MemoryBackend, MemorySource, MemoryStore};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

async fn store(name: &str, files: &[(&str, &str)]) -> MemoryStore {
    let mut source = MemorySource::new(name);
    for (path, text) in files {
        source = source.with_file(path.to_string(), text.to_string());
    }
    MemoryStore::holding(&source).await
}

fn module(name: &str, backend: &MemoryBackend) -> Module {
    Module::new(name)
        .registry(Registry::default().with(backend.clone()))
        .source("db", SourceSpec::new("memory", json!({ "store": "db" })))
}

#[tokio::test]
async fn a_store_from_outside_is_backed_up_and_restored() {
    let db = store("db", &[("a", "1"), ("b/c", "22")]).await;
    let copy = MemoryStore::absent("copy");
    let backend = MemoryBackend::new().with("db", db.clone()).with("copy", copy.clone());
    let (place, state) = (archive::memory(), tempfile::tempdir().unwrap());
    let app = module("app", &backend);
    let seen = Arc::new(Mutex::new(0));
    let count = seen.clone();
    let report: Report = app
        .backup()
        .to(place.clone())
        .meta("appVersion", "0.1.0")
        .tag("daily")
        .on_event(move |_| *count.lock().unwrap() += 1)
        .run()
        .await
        .unwrap();
    assert_eq!((report.state, report.entries, report.module.as_str()), (State::Complete, 2, "app"));
    assert!(*seen.lock().unwrap() > 0, "events are told");

    let plan = app
        .restore(place.clone())
        .latest()
        .to("db", "memory:copy")
        .state_dir(state.path())
        .plan()
        .await
        .unwrap();
    assert!(!plan.needs_consent());
    assert!(copy.contents().is_none(), "a plan only reads");
    let restored = plan.apply(None).await.unwrap();
    assert_eq!(restored.state, State::Complete);
    assert_eq!(copy.fingerprint(), db.fingerprint());
}

#[tokio::test]
async fn what_exists_is_replaced_only_with_a_confirmation_of_the_plan() {
    let (db, live) = (store("db", &[("a", "new")]).await, store("live", &[("a", "old")]).await);
    let backend = MemoryBackend::new().with("db", db.clone()).with("live", live.clone());
    let (place, state) = (archive::memory(), tempfile::tempdir().unwrap());
    let app = module("app", &backend);
    app.backup().to(place.clone()).run().await.unwrap();
    let before = live.fingerprint();
    let plan = || app.restore(place.clone()).latest().to("db", "memory:live").state_dir(state.path()).plan();

    for consent in [None, Some(Confirmation::disposable())] {
        let refused = plan().await.unwrap().apply(consent).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Refused);
        assert_eq!(live.fingerprint(), before);
    }
    let plan = plan().await.unwrap();
    assert!(plan.needs_consent());
    let consent = Confirmation::of(plan.id());
    plan.apply(consent).await.unwrap();
    assert_eq!(live.fingerprint(), db.fingerprint());
}

#[tokio::test]
async fn a_restore_is_undone_or_settled_in_a_later_process() {
    let (db, live) = (store("db", &[("a", "new")]).await, store("live", &[("a", "old")]).await);
    let backend = MemoryBackend::new().with("db", db.clone()).with("live", live.clone());
    let (place, state) = (archive::memory(), tempfile::tempdir().unwrap());
    let app = module("app", &backend);
    app.backup().to(place.clone()).run().await.unwrap();
    let old = live.fingerprint();
    let registry = Registry::default().with(backend);
    for (what, expected) in [(Old::BringBack, &old), (Old::LetGo, &db.fingerprint())] {
        let restore = app.restore(place.clone()).latest().to("db", "memory:live").state_dir(state.path());
        let plan = restore.plan().await.unwrap();
        let consent = Confirmation::of(plan.id());
        let report = plan.apply(consent).await.unwrap();
        assert!(report.undo_until.is_some() && !report.settled);
        let id = report.id.to_string();
        let cx = backup_kit::Context::default();
        conclude(what, Some(&id), None, state.path(), &registry, &cx).await.unwrap();
        assert_eq!(&live.fingerprint(), expected, "{what:?}");
        assert!(live.leftovers().is_empty(), "{what:?}");
        let again = conclude(what, Some(&id), None, state.path(), &registry, &cx).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_partial_backup_is_an_error_with_its_report_and_never_the_latest() {
    let place = archive::memory();
    let app = Module::new("app")
        .registry(Registry::default().with(Torn))
        .source("torn", SourceSpec::new("torn", Value::Null));
    let e = app.backup().to(place.clone()).run().await.unwrap_err();
    let Error::Partial(report) = e else { panic!("{e:?}") };
    assert_eq!((report.state, report.components[0].lost), (State::Partial, 1));
    let e = app.restore(place).latest().plan().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn two_runs_go_on_side_by_side_in_one_process() {
    let runs = ["one", "two"].map(|name| {
        tokio::spawn(async move {
            let backend = MemoryBackend::new().with("db", store("db", &[("name", name)]).await);
            let seen: Arc<Mutex<Vec<String>>> = Arc::default();
            let kept = seen.clone();
            let place = archive::memory();
            let app = module(name, &backend);
            let report = app
                .backup()
                .to(place.clone())
                .memory_limit(64 << 20)
                .on_event(move |e| kept.lock().unwrap().push(serde_json::to_string(e).unwrap()))
                .run()
                .await
                .unwrap();
            let opened = place.open().unwrap();
            let cx = backup_kit::Context::default();
            let verified = verify(&*opened, &report.id, backup_kit::Depth::Full, &cx).await.unwrap();
            assert!(verified.defects.is_empty());
            assert_eq!(opened.list(&cx).await.unwrap().len(), 1, "archives are their own");
            assert!(!seen.lock().unwrap().is_empty());
            report
        })
    });
    let [one, two] = runs;
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!((one.module.as_str(), two.module.as_str()), ("one", "two"));
    assert_ne!(one.id, two.id);
}

#[tokio::test]
async fn a_run_that_is_cancelled_leaves_nothing() {
    let backend = MemoryBackend::new().with("db", store("db", &[("a", "1")]).await);
    let (place, token) = (archive::memory(), backup_kit::CancellationToken::new());
    token.cancel();
    let e = module("app", &backend).backup().to(place.clone()).cancel(token).run().await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Cancelled);
    assert!(place.open().unwrap().list(&backup_kit::Context::default()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_run_of_some_components_is_a_series_of_its_own() {
    let backend = MemoryBackend::new().with("db", store("db", &[("a", "1")]).await);
    let place = archive::memory();
    let app = module("app", &backend).source("more", SourceSpec::new("memory", json!({ "store": "db" })));
    let whole = app.backup().to(place.clone()).run().await.unwrap();
    let part = app.backup().only("db").to(place.clone()).run().await.unwrap();
    assert_ne!(whole.series, part.series);
    let e = app.backup().only("bd").to(place).run().await.unwrap_err();
    assert!(e.to_string().contains("there are: db, more"), "{e}");
}

#[test]
fn every_future_may_go_to_another_thread() {
    fn send<T: Send>(_: T) {}
    let app = Module::new("app").source("x", backup_kit::files::folder("."));
    send(app.backup().run());
    send(app.backup().preflight());
    send(app.restore(archive::memory()).latest().plan());
    send(Restore::new(archive::memory()).id("x").plan());
    fn apply(plan: backup_kit::RestorePlan) {
        send(plan.apply(None));
    }
    let _ = apply;
    let (registry, cx) = (Registry::default(), backup_kit::Context::default());
    let dir = std::path::Path::new("/");
    send(heal(dir, &[], &registry, &cx));
    send(conclude(Old::LetGo, None, None, dir, &registry, &cx));
}

/// A store whose only entry cannot be read.
struct Torn;

impl Backend for Torn {
    fn kind(&self) -> &'static str {
        "torn"
    }

    fn folder(&self) -> &'static str {
        "torn"
    }

    fn schema(&self) -> Value {
        json!({})
    }

    fn source(&self, component: &str, _: Value) -> Result<Box<dyn Source>, CoreError> {
        let torn = || Content::failed(CoreError::new(ErrorKind::Denied, "open", "no"));
        Ok(Box::new(MemorySource::new(component).with(Entry::file("x", backup_core::Stage::Data), torn)))
    }

    fn target(&self, _: &str, _: Value) -> Result<Box<dyn Target>, CoreError> {
        Err(CoreError::contract("not in this test"))
    }

    fn recover(&self, _: Value) -> Result<Box<dyn Target>, CoreError> {
        Err(CoreError::contract("not in this test"))
    }

    fn parse(&self, _: &str) -> Option<Result<Named, CoreError>> {
        None
    }
}
