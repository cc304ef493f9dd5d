//! A publish and a revert that are killed before any of their steps leave all old or all new.

use super::Steps;
use crate::{FilesConfig, source::FilesSource, target::FilesTarget};
use backup_core::{Context, Source, Target};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

fn run(script: &str, at: &Path) {
    let out = Command::new("sh").args(["-ec", script]).current_dir(at).output().unwrap();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Everything about a tree that a restore changes: names, kinds, modes, owners, times, sizes, links, contents.
fn snapshot(at: &Path) -> String {
    let script = "if [ -e \"$1\" ]; then
        find \"$1\" -name '.backup-*' -prune -o -printf '%P|%y|%m|%U|%G|%T@|%l\\n' | sort
        find \"$1\" -name '.backup-*' -prune -o -type f -print0 | sort -z | xargs -0r sha256sum; fi";
    let out = Command::new("sh").args(["-ec", script, "sh"]).arg(at).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Fails before its step number `at`, and at every later one: what is killed does nothing any more.
fn killed_before(at: usize) -> (Steps, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let step = move || match counted.fetch_add(1, Relaxed) {
        n if n >= at => Err(io::Error::other("killed")),
        _ => Ok(()),
    };
    (Steps(Some(Arc::new(step))), count)
}

const OLD: &str =
    "mkdir -p t/sub/deeper t/only-old; echo old > t/same; echo old > t/sub/same; echo old > t/sub/deeper/x;
    ln -s same t/link; chmod 750 t; chmod 700 t/sub; chown 12:34 t/sub 2>/dev/null || true
    find t -exec touch -h -d '2001-01-01 01:01:01.25' {} +";
const NEW: &str =
    "mkdir -p n/sub n/only-new; echo new > n/same; echo new > n/sub/same; echo new > n/only-new/x;
    ln -s other n/link; chmod 711 n; touch -d '2011-11-11' n/sub n/only-new n";

/// A place where the old tree `t` is made again and again; the new one is `n` beside it or elsewhere.
struct Scene {
    target: PathBuf,
    new: PathBuf,
    reset: Box<dyn Fn()>,
}

impl Scene {
    async fn filled(&self) -> FilesTarget {
        let cx = Context::default();
        let mut target = FilesTarget::new("c", &FilesConfig::new(&self.target)).unwrap();
        let sink = target.prepare(&cx).await.unwrap();
        let source = FilesSource::new("c", FilesConfig::new(&self.new));
        let view = source.connect(&cx).await.unwrap().fix(&cx).await.unwrap();
        view.pour(sink.clone(), &cx).await.unwrap();
        sink.finish(&cx).await.unwrap();
        target
    }

    fn nothing_is_left(&self) {
        for dir in [self.target.parent().unwrap(), &self.target] {
            for name in fs::read_dir(dir).into_iter().flatten() {
                let name = name.unwrap().file_name().into_string().unwrap();
                assert!(!name.contains(".backup-"), "{name} is left");
            }
        }
    }

    async fn every_kill_is_undone(&self) {
        let cx = Context::default();
        (self.reset)();
        let old = snapshot(&self.target);
        let mut killed = 0;
        loop {
            (self.reset)();
            assert_eq!(snapshot(&self.target), old, "the scene is not the same every time");
            let target = self.filled().await;
            let undo = target.undo();
            let (steps, _) = killed_before(killed);
            let mut target = target.with_steps(steps);
            let published = target.publish(&cx).await.is_ok();
            drop(target);
            // A revert that is killed, too, and then one that is not. Not at every step each time: that would be squared.
            let (steps, _) = killed_before(killed % 7);
            let _ = FilesTarget::recover(undo.clone()).unwrap().with_steps(steps).revert(&cx).await;
            FilesTarget::recover(undo.clone()).unwrap().revert(&cx).await.unwrap();
            assert_eq!(snapshot(&self.target), old, "killed before step {killed}");
            self.nothing_is_left();
            FilesTarget::recover(undo).unwrap().revert(&cx).await.unwrap();
            assert_eq!(snapshot(&self.target), old, "reverted twice");
            if published {
                break;
            }
            killed += 1;
        }
        assert!(killed >= 2, "no step was interrupted");
        self.every_kill_of_a_revert_is_gone_on_with(&old).await;
        self.what_is_settled_stays().await;
    }

    async fn every_kill_of_a_revert_is_gone_on_with(&self, old: &str) {
        let cx = Context::default();
        for killed in 0.. {
            (self.reset)();
            let mut target = self.filled().await;
            target.publish(&cx).await.unwrap();
            let undo = target.undo();
            let (steps, _) = killed_before(killed);
            let reverted = target.with_steps(steps).revert(&cx).await.is_ok();
            FilesTarget::recover(undo).unwrap().revert(&cx).await.unwrap();
            assert_eq!(snapshot(&self.target), old, "its revert was killed before step {killed}");
            self.nothing_is_left();
            if reverted {
                break;
            }
        }
    }

    async fn what_is_settled_stays(&self) {
        let cx = Context::default();
        (self.reset)();
        let new = snapshot(&self.new);
        let mut target = self.filled().await;
        target.publish(&cx).await.unwrap();
        let undo = target.undo();
        let (steps, _) = killed_before(1);
        assert!(target.with_steps(steps).settle(&cx).await.is_err());
        FilesTarget::recover(undo.clone()).unwrap().settle(&cx).await.unwrap();
        FilesTarget::recover(undo).unwrap().settle(&cx).await.unwrap();
        assert_eq!(
            snapshot(&self.target).replace(&*self.target.to_string_lossy(), ""),
            new.replace(&*self.new.to_string_lossy(), "")
        );
        self.nothing_is_left();
    }
}

fn beside(dir: &Path, make_old: &'static str) -> Scene {
    run(NEW, dir);
    let at = dir.to_owned();
    let reset = move || run(&format!("rm -rf t .t.backup-*; {make_old}"), &at);
    Scene { target: dir.join("t"), new: dir.join("n"), reset: Box::new(reset) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    beside(dir.path(), OLD).every_kill_is_undone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_absent() {
    let dir = tempfile::tempdir().unwrap();
    beside(dir.path(), "true").every_kill_is_undone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_replaced_by_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    beside(dir.path(), "echo old > t; touch -d '2001-01-01' t").every_kill_is_undone().await;
}

/// Mounts need root. A run that may not skip fails instead: BACKUP_TEST_REQUIRE=root.
fn is_root(test: &str) -> bool {
    let root = crate::system::is_root();
    let required = std::env::var("BACKUP_TEST_REQUIRE").unwrap_or_default();
    assert!(root || !required.split(',').any(|r| r == "root"), "{test} needs root");
    if !root {
        eprintln!("SKIPPED: {test}: needs root");
    }
    root
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_point_whose_children_are_renamed_one_by_one() {
    if !is_root("a_mount_point_whose_children_are_renamed_one_by_one") {
        return;
    }
    for how in ["mount -t tmpfs tmpfs t", "mkdir -p source; mount --bind source t"] {
        let dir = tempfile::tempdir().unwrap();
        run(&format!("mkdir t; {how}"), dir.path());
        let _mounted = Mounted(dir.path().join("t"));
        run(NEW, dir.path());
        let at = dir.path().to_owned();
        let reset = move || run(&format!("find t -mindepth 1 -delete; {OLD}"), &at);
        let scene = Scene { target: dir.path().join("t"), new: dir.path().join("n"), reset: Box::new(reset) };
        scene.every_kill_is_undone().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_a_lower_layer_of_an_overlay() {
    if !is_root("folders_of_a_lower_layer_of_an_overlay") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run("mkdir base merged; mount -t tmpfs tmpfs base; mkdir base/lower", dir.path());
    let _base = Mounted(dir.path().join("base"));
    run(OLD, &dir.path().join("base/lower"));
    run(NEW, dir.path());
    let mount =
        "umount -l merged 2>/dev/null || true; rm -rf base/upper base/work; mkdir base/upper base/work
        mount -t overlay overlay -o lowerdir=base/lower,upperdir=base/upper,workdir=base/work merged";
    let at = dir.path().to_owned();
    let scene = Scene {
        target: dir.path().join("merged/t"),
        new: dir.path().join("n"),
        reset: Box::new(move || run(mount, &at)),
    };
    let mounted = Mounted(dir.path().join("merged"));
    scene.every_kill_is_undone().await;
    drop(mounted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_put_in_place_of_the_restored_data_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (scene, cx) = (beside(dir.path(), OLD), Context::default());
    (scene.reset)();
    let mut target = scene.filled().await;
    target.publish(&cx).await.unwrap();
    run("mv t moved; mkdir t; echo precious > t/precious", dir.path());
    assert!(target.revert(&cx).await.is_err());
    assert_eq!(fs::read_to_string(dir.path().join("t/precious")).unwrap(), "precious\n");
}

#[tokio::test]
async fn a_publish_whose_shadow_or_home_has_gone_is_an_error_and_a_revert_of_it_is_not() {
    for gone in ["rm -rf .t.backup-*", "rm -rf .t.backup-*/shadow"] {
        let dir = tempfile::tempdir().unwrap();
        let (scene, cx) = (beside(dir.path(), OLD), Context::default());
        (scene.reset)();
        let old = snapshot(&scene.target);
        let mut target = scene.filled().await;
        run(gone, dir.path());
        let e = target.publish(&cx).await.unwrap_err();
        assert!(e.to_string().contains("gone"), "{e}");
        target.revert(&cx).await.unwrap();
        assert_eq!(snapshot(&scene.target), old);
        scene.nothing_is_left();
    }
}

#[tokio::test]
async fn a_survey_tells_the_real_path_and_that_owners_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    run("mkdir real; ln -s real link", dir.path());
    let mut config = FilesConfig::new(dir.path().join("link/t"));
    let survey = async |config: &FilesConfig| {
        FilesTarget::new("c", config).unwrap().survey(&Context::default()).await.unwrap()
    };
    let with_owners = survey(&config).await;
    assert_eq!(with_owners.local_path, Some(dir.path().canonicalize().unwrap().join("real/t")));
    config.no_owner = true;
    let without = survey(&config).await;
    let says = |s: &backup_core::Survey| s.notes.iter().any(|n| n == "owners are not restored");
    assert!(says(&without) && !says(&with_owners));
}
