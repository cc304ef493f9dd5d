//! A publish and a revert that are killed before any of their steps leave all old or all new.

mod side_files;

use super::Steps;
use crate::{FilesConfig, source::FilesSource, target::FilesTarget};
use backup_core::{Context, Incoming, Source, Target};
use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

async fn coming() -> Incoming {
    backup_testkit::memory::incoming(&backup_testkit::memory::MemorySource::new("c")).await
}

fn run(script: &str, at: &Path) {
    let out = Command::new("sh").args(["-ec", script]).current_dir(at).output().unwrap();
    assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Everything about a tree that a restore changes: names, kinds, modes, owners, times, sizes, links, contents.
fn snapshot(at: &Path) -> String {
    let script = "if [ -e \"$1\" ]; then
        find \"$1\" -name '.backup-*' -prune -o -printf '%P|%y|%m|%U|%G|%T@|%l\\n' | sort
        find \"$1\" -name '.backup-*' -prune -o -type f -print0 | sort -z | xargs -0r sha256sum; fi
        for side in wal shm journal; do [ ! -e \"$1-$side\" ] || echo \"$side $(stat -c '%i %Y' \"$1-$side\") $(sha256sum <\"$1-$side\")\"; done";
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
    merge: bool,
}

impl Scene {
    async fn filled(&self) -> FilesTarget {
        let config = FilesConfig { merge: self.merge, ..FilesConfig::new(&self.target) };
        self.fill(FilesTarget::new("c", &config).unwrap()).await
    }

    async fn fill(&self, mut target: FilesTarget) -> FilesTarget {
        let cx = Context::default();
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
        let new = match self.merge {
            true => self.merged(),
            false => snapshot(&self.new),
        };
        let mut target = self.filled().await;
        target.publish(&cx).await.unwrap();
        let undo = target.undo();
        let (steps, _) = killed_before(1);
        assert!(target.with_steps(steps).settle(&cx).await.is_err());
        FilesTarget::recover(undo.clone()).unwrap().settle(&cx).await.unwrap();
        FilesTarget::recover(undo).unwrap().settle(&cx).await.unwrap();
        let merged = self.new.with_file_name("merged");
        assert_eq!(
            snapshot(&self.target).replace(&*self.target.to_string_lossy(), ""),
            new.replace(&*self.new.to_string_lossy(), "").replace(&*merged.to_string_lossy(), "")
        );
        self.nothing_is_left();
    }

    /// What a merge of the new tree into the old one must be, made by `cp`.
    fn merged(&self) -> String {
        let (old, new) = (self.target.display(), self.new.display());
        let merged = self.new.with_file_name("merged");
        let at = merged.display();
        let script = format!(
            "rm -rf '{at}'; cp -a '{old}' '{at}'; rm -rf '{at}'/.backup-*; cp -a --remove-destination '{new}/.' '{at}/'"
        );
        run(&script, self.new.parent().unwrap());
        snapshot(&merged)
    }
}

fn beside(dir: &Path, make_old: &'static str) -> Scene {
    run(NEW, dir);
    let at = dir.to_owned();
    let reset = move || run(&format!("rm -rf t .t.backup-*; {make_old}"), &at);
    Scene { target: dir.join("t"), new: dir.join("n"), reset: Box::new(reset), merge: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    beside(dir.path(), OLD).every_kill_is_undone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_merged_and_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    Scene { merge: true, ..beside(dir.path(), OLD) }.every_kill_is_undone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_point_that_is_merged_one_by_one() {
    if !is_root("a_mount_point_that_is_merged_one_by_one") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    run("mkdir t; mount -t tmpfs tmpfs t", dir.path());
    let _mounted = Mounted(dir.path().join("t"));
    run(NEW, dir.path());
    let at = dir.path().to_owned();
    let reset = move || run(&format!("find t -mindepth 1 -delete; {OLD}"), &at);
    let scene = Scene { merge: true, reset: Box::new(reset), ..scene(dir.path()) };
    scene.every_kill_is_undone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_in_a_target_while_it_is_merged_stays() {
    let cx = Context::default();
    for mounted in [false, true] {
        if mounted && !is_root("what_is_made_in_a_target_while_it_is_merged_stays, for mounts") {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let _mounted = mounted.then(|| {
            run("mkdir t; mount -t tmpfs tmpfs t", dir.path());
            Mounted(dir.path().join("t"))
        });
        run(NEW, dir.path());
        run(OLD, dir.path());
        let scene = Scene { merge: true, ..scene(dir.path()) };
        let old = snapshot(&scene.target);
        for settled in [false, true] {
            let mut target = scene.filled().await;
            let late =
                "echo late > t/late; mkdir t/late-dir; echo late > t/late-dir/x; echo late > t/sub/late
                touch -d '2001-01-01 01:01:01.25' t/sub t";
            run(late, dir.path());
            target.publish(&cx).await.unwrap();
            assert_eq!(all_with(&scene.target, "late"), 3 + usize::from(mounted) * 3);
            run("test \"$(stat -c %y t/sub)\" = \"$(stat -c %y n/sub)\"", dir.path());
            if settled {
                target.settle(&cx).await.unwrap();
                assert_eq!(all_with(&scene.target, "late"), 3);
            } else {
                target.revert(&cx).await.unwrap();
                assert_eq!(all_with(&scene.target, "late"), 3);
                assert!(cx.notes().list.iter().all(|n| !n.text.contains("appeared")), "{:?}", cx.notes());
                run("rm -r t/late* t/sub/late; touch -d '2001-01-01 01:01:01.25' t/sub t", dir.path());
                assert_eq!(snapshot(&scene.target), old);
            }
            scene.nothing_is_left();
        }
    }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_nothing_but_lost_and_found_leaves_nothing_behind() {
    let (dir, cx) = (tempfile::tempdir().unwrap(), Context::default());
    run(NEW, dir.path());
    run("mkdir -p t/lost+found", dir.path());
    let scene = scene(dir.path());
    let mut target = FilesTarget::new("c", &FilesConfig::new(&scene.target)).unwrap();
    assert!(!target.survey(&coming().await, &cx).await.unwrap().replaces);
    let mut target = scene.fill(target).await;
    target.publish(&cx).await.unwrap();
    target.settle(&cx).await.unwrap();
    scene.nothing_is_left();
    assert!(cx.notes().list.is_empty(), "{:?}", cx.notes().list);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_into_a_folder_that_was_empty_is_not_dropped_with_it() {
    let cx = Context::default();
    for late in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        run(NEW, dir.path());
        run("mkdir t", dir.path());
        let held = crate::system::open_dir(&dir.path().join("t")).unwrap();
        let scene = scene(dir.path());
        let mut target = FilesTarget::new("c", &FilesConfig::new(&scene.target)).unwrap();
        assert!(!target.survey(&coming().await, &cx).await.unwrap().replaces);
        let mut target = scene.fill(target).await;
        target.publish(&cx).await.unwrap();
        if late {
            use std::{io::Write, os::fd::AsFd};
            let mut file = crate::system::create_file(held.as_fd(), b"late").unwrap();
            file.write_all(b"precious").unwrap();
        }
        target.settle(&cx).await.unwrap();
        match late {
            false => scene.nothing_is_left(),
            true => {
                run("test precious = \"$(cat .t.backup-*/found/*/late)\"", dir.path());
                assert!(cx.notes().list.iter().any(|note| note.text.contains("found")), "{:?}", cx.notes());
            }
        }
        assert!(dir.path().join("t/only-new/x").exists());
    }
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
        let scene = Scene {
            target: dir.path().join("t"),
            new: dir.path().join("n"),
            reset: Box::new(reset),
            merge: false,
        };
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
        merge: false,
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
        FilesTarget::new("c", config).unwrap().survey(&coming().await, &Context::default()).await.unwrap()
    };
    let with_owners = survey(&config).await;
    assert_eq!(with_owners.local_path, Some(dir.path().canonicalize().unwrap().join("real/t")));
    config.no_owner = true;
    let without = survey(&config).await;
    let says = |s: &backup_core::Survey| s.notes.iter().any(|n| n == "owners are not restored");
    assert!(says(&without) && !says(&with_owners));
}

fn a_name_of_another_restore() -> String {
    format!(".backup-{}", backup_core::BackupId::generate())
}

/// A mount point `t` with some data, and something new in `n`.
fn mounted() -> (tempfile::TempDir, Mounted) {
    let dir = tempfile::tempdir().unwrap();
    run("mkdir t; mount -t tmpfs tmpfs t; echo old > t/same; echo old > t/old", dir.path());
    run("mkdir n; echo new > n/same; echo new > n/new", dir.path());
    let mounted = Mounted(dir.path().join("t"));
    (dir, mounted)
}

fn scene(dir: &Path) -> Scene {
    Scene { target: dir.join("t"), new: dir.join("n"), reset: Box::new(|| ()), merge: false }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_home_of_another_restore_to_the_same_mount_point_stays() {
    if !is_root("the_home_of_another_restore_to_the_same_mount_point_stays") {
        return;
    }
    let (dir, _mounted) = mounted();
    let other = dir.path().join("t").join(a_name_of_another_restore());
    fs::create_dir_all(other.join("previous")).unwrap();
    let cx = Context::default();
    let mut target = scene(dir.path()).filled().await;
    target.publish(&cx).await.unwrap();
    assert!(other.join("previous").exists());
    target.revert(&cx).await.unwrap();
    assert!(other.join("previous").exists());
    let mut target = scene(dir.path()).filled().await;
    target.publish(&cx).await.unwrap();
    target.settle(&cx).await.unwrap();
    assert!(other.join("previous").exists());
    run("rm t/same t/new", dir.path());
    let survey = FilesTarget::new("c", &FilesConfig::new(dir.path().join("t")))
        .unwrap()
        .survey(&coming().await, &cx)
        .await
        .unwrap();
    assert!(!survey.replaces, "it counts as data");
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_and_found_stays_where_it_is_and_what_is_in_it_is_data() {
    use std::os::unix::fs::MetadataExt;
    if !is_root("lost_and_found_stays_where_it_is_and_what_is_in_it_is_data") {
        return;
    }
    for new in ["true", "mkdir n/lost+found; echo new > n/lost+found/x"] {
        let (dir, _mounted) = mounted();
        let cx = Context::default();
        let to = dir.path().join("t");
        run(&format!("{new}; rm t/*; mkdir t/lost+found; chmod 700 t/lost+found"), dir.path());
        let config = FilesConfig::new(&to);
        let looked = async || {
            FilesTarget::new("c", &config).unwrap().survey(&coming().await, &cx).await.unwrap().replaces
        };
        assert!(!looked().await);
        run("echo old > t/lost+found/x; touch -d 2001-01-01 t/lost+found", dir.path());
        assert!(looked().await, "what a repair of the file system found is data");
        let (inode, old) = (to.join("lost+found").metadata().unwrap().ino(), snapshot(&to));
        for killed in 0.. {
            let target = scene(dir.path()).filled().await;
            let undo = target.undo();
            let published = target.with_steps(killed_before(killed).0).publish(&cx).await.is_ok();
            assert_eq!(to.join("lost+found").metadata().unwrap().ino(), inode);
            let there = fs::read_to_string(to.join("lost+found/x")).unwrap_or_default();
            assert!(!published || there == if new == "true" { "" } else { "new\n" }, "{there}");
            FilesTarget::recover(undo).unwrap().revert(&cx).await.unwrap();
            assert_eq!(snapshot(&to), old, "killed before step {killed}");
            assert_eq!(to.join("lost+found").metadata().unwrap().ino(), inode);
            if published {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_appears_where_none_was_planned_to_be_replaced_is_kept() {
    let cx = Context::default();
    for before in ["true", "mkdir t"] {
        let dir = tempfile::tempdir().unwrap();
        run(&format!("mkdir n; echo new > n/new; {before}"), dir.path());
        let mut target = scene(dir.path()).filled().await;
        run("mkdir -p t; echo precious > t/precious", dir.path());
        let e = target.publish(&cx).await.unwrap_err();
        assert_eq!(e.kind(), backup_core::ErrorKind::Refused, "{e}");
        target.revert(&cx).await.unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("t/precious")).unwrap(), "precious\n");
        scene(dir.path()).nothing_is_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_mounted_inside_a_target_is_told_and_not_moved() {
    if !is_root("what_is_mounted_inside_a_target_is_told_and_not_moved") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (at, cx) = ("t/with space", Context::default());
    run(&format!("mkdir -p '{at}' n; echo new > n/new; echo old > t/old"), dir.path());
    let mut before = scene(dir.path()).filled().await;
    run(&format!("mount -t tmpfs tmpfs '{at}'"), dir.path());
    let _mounted = Mounted(dir.path().join(at));
    let e = before.publish(&cx).await.unwrap_err();
    assert!(e.kind() == backup_core::ErrorKind::Refused && e.to_string().contains(at), "{e}");
    before.revert(&cx).await.unwrap();
    let mut target = FilesTarget::new("c", &FilesConfig::new(dir.path().join("t"))).unwrap();
    let survey = target.survey(&coming().await, &cx).await.unwrap();
    assert!(survey.refusals.iter().any(|r| r.why.contains(at)), "{:?}", survey.refusals);
    assert_eq!(target.prepare(&cx).await.err().unwrap().kind(), backup_core::ErrorKind::Refused);
    assert!(dir.path().join("t/old").exists());
    scene(dir.path()).nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn acls_of_the_folder_above_are_not_inherited() {
    let dir = tempfile::tempdir().unwrap();
    run(
        "mkdir -p n/sub; echo new > n/new; chmod 640 n/new; chmod 750 n/sub n; setfacl -d -m u:1234:rwx .",
        dir.path(),
    );
    let mut target = scene(dir.path()).filled().await;
    target.publish(&Context::default()).await.unwrap();
    let out = Command::new("getfacl").args(["-R", "-p"]).arg(dir.path().join("t")).output().unwrap();
    let acls = String::from_utf8_lossy(&out.stdout);
    assert!(acls.contains("new") && !acls.contains("1234") && !acls.contains("default"), "{acls}");
}

/// Does this before its step number `at`.
fn meanwhile(at: usize, dir: &Path, script: &'static str) -> Steps {
    let (count, dir) = (AtomicUsize::new(0), dir.to_owned());
    let step = move || {
        if count.fetch_add(1, Relaxed) == at {
            run(script, &dir);
        }
        Ok(())
    };
    Steps(Some(Arc::new(step)))
}

fn all_with(dir: &Path, text: &str) -> usize {
    let out = Command::new("grep").args(["-rlx", text]).arg(dir).output().unwrap();
    String::from_utf8_lossy(&out.stdout).lines().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_application_makes_during_a_publish_one_by_one_is_set_aside_and_kept() {
    if !is_root("what_an_application_makes_during_a_publish_one_by_one_is_set_aside_and_kept") {
        return;
    }
    let app = "echo app > t/app.new; mv -f t/app.new t/same; mkdir -p t/new2; echo app > t/new2/x";
    let mut told = 0;
    for at in 0..12 {
        for reverted in [true, false] {
            let (dir, _mounted) = mounted();
            run("mkdir n/new2; echo new > n/new2/x; echo new > n/new2/y", dir.path());
            let (to, cx) = (dir.path().join("t"), Context::default());
            let mut target = scene(dir.path()).filled().await.with_steps(meanwhile(at, dir.path(), app));
            target.publish(&cx).await.unwrap();
            let at_home = fs::read_dir(&to)
                .unwrap()
                .map(|e| e.unwrap().path())
                .find(|p| p.to_string_lossy().contains(".backup-"));
            let set_aside = at_home.unwrap().join("found").exists();
            assert_eq!(set_aside, !cx.notes().list.is_empty(), "{:?}", cx.notes());
            told += usize::from(set_aside);
            if reverted {
                target.revert(&cx).await.unwrap();
                assert!(fs::read_to_string(to.join("old")).unwrap() == "old\n" && !to.join("new").exists());
            } else {
                target.settle(&cx).await.unwrap();
                assert!(to.join("new").exists());
                // Moved out with what is old it goes with it, as anything written before a publish does.
                continue;
            }
            // `same`; what is written into a folder that is restored already goes with it.
            assert!(all_with(&to, "app") >= 1, "before step {at}: it is gone");
        }
    }
    assert!(told > 0, "nothing was ever in the way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revert_one_by_one_keeps_what_was_made_since() {
    if !is_root("a_revert_one_by_one_keeps_what_was_made_since") {
        return;
    }
    let (dir, _mounted) = mounted();
    let (to, cx) = (dir.path().join("t"), Context::default());
    let mut target = scene(dir.path()).filled().await;
    target.publish(&cx).await.unwrap();
    run("echo app > t/app; echo app > x; mv x t/same; mkdir t/d; echo app > t/d/x", dir.path());
    let old_home = target.journal_home().unwrap();
    target.revert(&cx).await.unwrap();
    assert_eq!(fs::read_to_string(to.join("same")).unwrap(), "old\n");
    assert_eq!(all_with(&old_home.join("found"), "app"), 3);
    assert_eq!(fs::read_dir(&to).unwrap().count(), 3, "old, same and the home");
    assert!(cx.notes().list.iter().any(|n| n.text.contains("found")), "{:?}", cx.notes());
}
