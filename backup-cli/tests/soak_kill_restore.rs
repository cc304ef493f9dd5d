//! `backup restore`, its undo, settle and heal killed at any moment: after `heal` everything is old or everything is new, and nothing
//! of the restore is left but what is kept for an undo.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    time::Duration,
};
use support::{
    Place,
    trial::{
        Fingerprint, Mount, Random, Run, difference, duration_of, fingerprint, homes_in, is_root, mirror,
        names_in, times, tool,
    },
};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A folder among others, which is exchanged.
    Plain,
    /// Something is mounted on the target: renamed one by one.
    MountPoint,
    /// In a lower layer of an overlay mount, which refuses to rename it.
    Overlay,
    /// A folder that is merged: new is what the backup has and what only the old tree has.
    Merged,
}

/// A tree that was backed up, and what became of it since.
struct Stage {
    place: Place,
    kind: Kind,
    mount: Option<Mount>,
    target: PathBuf,
    master: PathBuf,
    new: Fingerprint,
    old: Fingerprint,
}

/// What a target is.
#[derive(Debug, PartialEq, Eq)]
enum Is {
    Old,
    New,
    Mixed,
}

#[test]
fn a_folder_is_old_or_new_after_a_killed_restore() {
    kills_of_restore(Kind::Plain, times(10, 100));
}

#[test]
fn a_folder_that_is_merged_is_old_or_merged_after_a_killed_restore() {
    kills_of_restore(Kind::Merged, times(10, 100));
}

#[test]
fn a_mount_point_is_old_or_new_after_a_killed_restore() {
    if is_root("a_mount_point_is_old_or_new_after_a_killed_restore") {
        kills_of_restore(Kind::MountPoint, times(5, 50));
    }
}

#[test]
fn a_folder_of_a_lower_layer_is_old_or_new_after_a_killed_restore() {
    if is_root("a_folder_of_a_lower_layer_is_old_or_new_after_a_killed_restore") {
        kills_of_restore(Kind::Overlay, times(5, 50));
    }
}

#[test]
fn a_killed_undo_settle_or_heal_is_brought_to_its_end() {
    let kinds: &[Kind] = match is_root("a_killed_undo_settle_or_heal_is_brought_to_its_end, for mounts") {
        true => &[Kind::Plain, Kind::MountPoint, Kind::Overlay],
        false => &[Kind::Plain],
    };
    for kind in kinds {
        let mut stage = Stage::new(*kind);
        let mut random = Random::new("soak_kill_restore");
        let kills = times(2, 20);
        let mut counts = Vec::new();
        for command in ["undo", "settle", "heal"] {
            counts.push(format!("{command} {}", stage.kills_of(command, kills, &mut random)));
        }
        println!(
            "soak: {}: of {kills} each, killed: {}; all old or all new after heal",
            kind.name(),
            counts.join(", ")
        );
    }
}

fn kills_of_restore(kind: Kind, kills: usize) {
    let mut stage = Stage::new(kind);
    let mut random = Random::new("soak_kill_restore");
    let (usual, publish) = stage.usual();
    let (mut killed, mut before, mut after) = (0, [0; 3], [0; 2]);
    for i in 0..kills {
        let run = stage.restore();
        // Every second one while data is being swapped, which is the shortest part of a restore.
        let delay = if i % 2 == 0 {
            random.point(i, kills, usual + usual / 20)
        } else {
            assert!(run.reaches("publish"), "the restore ended before it published");
            run.begun.elapsed() + random.point(i, kills, publish)
        };
        killed += u32::from(run.kill_after(delay));
        let at = format!("{}, kill {i} after {delay:?}", kind.name());
        before[stage.is() as usize] += 1;
        stage.place.expect(0, &["heal"]);
        match stage.is() {
            Is::Old => after[0] += 1,
            Is::New => after[1] += 1,
            Is::Mixed => panic!("{at}: neither old nor new\n{}", stage.describe()),
        }
        stage.conclude(i, &at);
    }
    // The next one works.
    let run = stage.restore();
    assert_eq!(run.code_within(Duration::from_secs(120)), 0);
    assert_eq!(stage.is(), Is::New);
    println!(
        "soak: {}: restore killed {killed} of {kills} times within {} ms, publish {} ms: then {} old, {} new, {} between; \
         after heal {} old, {} new, nothing between",
        kind.name(),
        usual.as_millis(),
        publish.as_millis(),
        before[0],
        before[1],
        before[2],
        after[0],
        after[1]
    );
    assert!(
        killed as usize * 3 >= kills,
        "only {killed} of {kills} runs were still going on when they were killed"
    );
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Plain => "folder",
            Kind::MountPoint => "mount point",
            Kind::Overlay => "lower layer",
            Kind::Merged => "merged folder",
        }
    }
}

impl Stage {
    fn new(kind: Kind) -> Self {
        let place = Place::new();
        let (master, as_new) = (place.path("old"), place.path("new"));
        let (mount, target) = match kind {
            Kind::Plain | Kind::Merged => (None, place.path("tree")),
            Kind::MountPoint => {
                let target = place.path("mounted");
                (Some(Mount::tmpfs(&target, "size=64m,mode=755")), target)
            }
            Kind::Overlay => (None, place.path("merged/tree")),
        };
        grow(&as_new, "new", 400);
        grow(&master, "old", 300);
        let (mut new, mut old) = (fingerprint(&as_new), fingerprint(&master));
        if kind == Kind::MountPoint {
            new.remove(Path::new(""));
            old.remove(Path::new(""));
        }
        let mut stage = Stage { place, kind, mount, target, master, new, old };
        let lower = stage.place.path("lower/tree");
        if kind == Kind::Overlay {
            fs::create_dir_all(&lower).unwrap();
            mirror(&stage.master, &lower);
        }
        stage.reset();
        fs::create_dir_all(&stage.target).unwrap();
        mirror(&as_new, &stage.target);
        assert_eq!(stage.is(), Is::New, "{}", stage.describe());
        let target = stage.target.to_str().unwrap().to_owned();
        stage.place.expect(0, &["create", &target, "--to", "b"]);
        stage.reset();
        assert_eq!(stage.is(), Is::Old, "{}", stage.describe());
        if kind == Kind::Merged {
            stage.new = merged(&stage.old, &stage.new);
        }
        stage
    }

    /// The old tree is back, whatever was there.
    fn reset(&mut self) {
        if self.kind == Kind::Overlay {
            self.mount = None;
            for layer in ["upper", "work"] {
                // The kernel makes files in the work folder that nothing else can read.
                tool("rm", &["-rf", self.place.path(layer).to_str().unwrap()]);
            }
            let [lower, upper, work, merged] =
                ["lower", "upper", "work", "merged"].map(|n| self.place.path(n));
            self.mount = Some(Mount::overlay(&lower, &upper, &work, &merged));
        } else {
            fs::create_dir_all(&self.target).unwrap();
            mirror(&self.master, &self.target);
        }
    }

    /// How long a restore takes, and the part of it that swaps.
    fn usual(&mut self) -> (Duration, Duration) {
        let (mut all, mut publish) = (Duration::MAX, Duration::MAX);
        for _ in 0..3 {
            let run = self.restore();
            assert!(run.reaches("publish"));
            let (begun, from) = (run.begun, std::time::Instant::now());
            assert_eq!(run.code_within(Duration::from_secs(120)), 0);
            (all, publish) = (all.min(begun.elapsed()), publish.min(from.elapsed()));
            self.place.expect(0, &["settle"]);
            self.reset();
        }
        (all, publish)
    }

    fn restore(&self) -> Run {
        let mut line = vec!["restore", "latest", "--from", "b"];
        line.extend((self.kind == Kind::Merged).then_some("--merge"));
        let plan = self.place.json(0, &[&line[..], &["--dry-run"]].concat());
        let id = plan["plan"]["id"].as_str().unwrap();
        Run::start(&self.place, &[&line[..], &["--confirm", id]].concat())
    }

    fn is(&self) -> Is {
        if !self.target.exists() {
            return Is::Mixed;
        }
        match self.tree() {
            now if now == self.new => Is::New,
            now if now == self.old => Is::Old,
            _ => Is::Mixed,
        }
    }

    fn tree(&self) -> Fingerprint {
        let mut tree = fingerprint(&self.target);
        if self.kind == Kind::MountPoint {
            // The folder of the restore is inside: its time changes when that comes and goes.
            tree.remove(Path::new(""));
        }
        tree
    }

    fn describe(&self) -> String {
        let now = self.tree();
        format!("to old:\n{}to new:\n{}", difference(&now, &self.old), difference(&now, &self.new))
    }

    fn homes(&self) -> Vec<PathBuf> {
        match self.kind {
            Kind::MountPoint => homes_in(&self.target),
            _ => homes_in(self.target.parent().unwrap()),
        }
    }

    /// From what `heal` has left to the old tree, once by an undo and once by letting the old data go.
    fn conclude(&mut self, i: usize, at: &str) {
        if self.is() == Is::New && !self.homes().is_empty() {
            if i.is_multiple_of(3) {
                self.place.expect(0, &["settle"]);
                assert_eq!(self.is(), Is::New, "{at}: settled\n{}", self.describe());
            } else {
                self.place.expect(0, &["restore", "--undo", "--yes"]);
                assert_eq!(self.is(), Is::Old, "{at}: undone\n{}", self.describe());
            }
        }
        self.nothing_is_left(at);
        self.reset();
    }

    fn nothing_is_left(&self, at: &str) {
        assert_eq!(self.homes(), Vec::<PathBuf>::new(), "{at}: left beside the target");
        let restores = self.place.path("state/restores");
        let state = if restores.exists() { names_in(&restores) } else { Vec::new() };
        assert_eq!(state, [""; 0], "{at}: left in the state folder");
    }

    /// How many of these commands were killed.
    fn kills_of(&mut self, command: &str, kills: usize, random: &mut Random) -> u32 {
        let line: &[&str] = match command {
            "undo" => &["restore", "--undo", "--yes"],
            "settle" => &["settle"],
            _ => &["heal"],
        };
        let publish = self.usual().1;
        self.before(command, publish);
        let usual = duration_of(&self.place, line);
        self.reset_all();
        let mut killed = 0;
        for i in 0..kills {
            let at = format!("{}, {command}, kill {i}", self.kind.name());
            self.before(command, publish.mul_f64(0.9 * i as f64 / kills as f64));
            let delay = random.point(i, kills, usual + usual / 20);
            killed += u32::from(Run::start(&self.place, line).kill_after(delay));
            self.place.expect(0, &["heal"]);
            assert_ne!(self.is(), Is::Mixed, "{at} after {delay:?}\n{}", self.describe());
            if command == "settle" {
                assert_eq!(self.is(), Is::New, "{at} after {delay:?}\n{}", self.describe());
            }
            self.conclude(i, &at);
        }
        killed
    }

    /// What the command is for: a restore that was done, or one that was killed while it published.
    fn before(&self, command: &str, kill_after: Duration) {
        let run = self.restore();
        if command == "heal" {
            assert!(run.reaches("publish"));
            std::thread::sleep(kill_after);
            run.kill();
        } else {
            assert_eq!(run.code_within(Duration::from_secs(120)), 0);
        }
    }

    fn reset_all(&mut self) {
        self.place.expect(0, &["heal"]);
        if !self.homes().is_empty() {
            self.place.expect(0, &["settle"]);
        }
        self.reset();
    }
}

/// All of the new tree, and of the old one what has no place in it yet.
fn merged(old: &Fingerprint, new: &Fingerprint) -> Fingerprint {
    let hidden = |path: &Path| {
        path.ancestors().skip(1).any(|above| new.get(above).is_some_and(|text| !text.starts_with("folder")))
    };
    let mut all = new.clone();
    for (path, text) in old.iter().filter(|(path, _)| !hidden(path)) {
        all.entry(path.clone()).or_insert_with(|| text.clone());
    }
    all
}

/// A tree with many names at the top, folders in folders, links and odd modes.
fn grow(root: &Path, age: &str, entries: usize) {
    for i in 0..entries {
        let file = match i % 4 {
            0 => root.join(format!("{age} {i}")),
            1 => root.join(format!("both {i}")),
            2 => root.join(format!("folder {}/{age} {i}", i % 7)),
            _ => root.join(format!("{age} folder {}/deep/er/{i}", i % 5)),
        };
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, format!("{age} {i} ").repeat(i * 7 % 900)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600 + i as u32 % 0o100)).unwrap();
    }
    symlink(format!("{age} 0"), root.join("link")).unwrap();
    fs::hard_link(root.join("both 1"), root.join("folder 2/same")).unwrap();
    // Of one kind before and of another after.
    match age {
        "new" => fs::write(root.join("changes"), "a file").unwrap(),
        _ => fs::create_dir_all(root.join("changes/into a folder")).unwrap(),
    }
    fs::set_permissions(
        root.join("folder 6"),
        fs::Permissions::from_mode(if age == "new" { 0o711 } else { 0o1777 }),
    )
    .unwrap();
    for (i, folder) in ["folder 6", "folder 2", ""].iter().enumerate() {
        let time = std::time::SystemTime::UNIX_EPOCH
            + Duration::new(1_000_000_000 + age.len() as u64 + i as u64, 123);
        fs::File::open(root.join(folder)).unwrap().set_modified(time).unwrap();
    }
}
