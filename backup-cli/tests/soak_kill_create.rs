//! `backup create` killed at any moment: what was there stays, what is half is never taken for a backup, the next run works at once.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

mod support;

use std::{fs, path::Path, time::Duration};
use support::{
    Place,
    trial::{Random, Run, contents, duration_of, names_in, times},
};

/// About 20 MB in some thousand files, half of which can be compressed.
fn tree(root: &Path, random: &mut Random) {
    for i in 0..3000 {
        let folder = root.join(format!("{}/{}", i % 10, i % 70));
        fs::create_dir_all(&folder).unwrap();
        let length = if i % 300 == 0 { 800_000 } else { 4_000 };
        let content = if i % 2 == 0 { random.bytes(length) } else { b"0123456789".repeat(length / 10) };
        fs::write(folder.join(format!("file {i}")), content).unwrap();
    }
}

#[test]
fn a_killed_create_harms_nothing_and_the_next_one_works_at_once() {
    let place = Place::new();
    let mut random = Random::new("soak_kill_create");
    tree(&place.path("tree"), &mut random);
    let create = ["create", "tree", "--to", "b"];
    place.expect(0, &create);
    let earlier = contents(&place.path("b"));
    let first = complete(&place)[0].clone();
    place.expect(0, &["verify", &first, "--from", "b"]);

    let usual = (0..4).map(|_| duration_of(&place, &create)).min().unwrap();
    forget_all_but(&place, &first);
    let kills = times(10, 100);
    let (mut killed, mut left_incomplete, mut left_complete, mut left_small) = (0, 0, 0, 0);
    for i in 0..kills {
        let delay = random.point(i, kills, usual + usual / 20);
        killed += u32::from(Run::start(&place, &create).kill_after(delay));

        let at = format!("kill {i} after {delay:?}");
        let list = place.json(0, &["list", "--from", "b"]);
        for backup in list["backups"].as_array().unwrap() {
            match backup["state"].as_str().unwrap() {
                "complete" => {
                    let id = backup["id"].as_str().unwrap();
                    place.expect(0, &["verify", id, "--from", "b"]);
                    left_complete += u32::from(id != first);
                }
                "incomplete" => left_incomplete += 1,
                other => panic!("{at}: it lists as {other}"),
            }
        }
        is_untouched(&place, &earlier, &at);
        let small = |n: &String| n.contains(".tmp-") || n.starts_with(".backup-probe-");
        left_small += u32::from(names_in(&place.path("b")).iter().any(small));

        let next = duration_of(&place, &create);
        assert!(
            next < usual * 10 + Duration::from_secs(5),
            "{at}: the next run took {next:?}, usual is {usual:?}"
        );
        let debris: Vec<_> = names_in(&place.path("b")).into_iter().filter(|n| n.starts_with('.')).collect();
        assert_eq!(debris, [""; 0], "{at}: left after the next run");
        is_untouched(&place, &earlier, &at);
        forget_all_but(&place, &first);
    }
    place.expect(0, &["verify", "--from", "b"]);
    println!(
        "soak: create killed {killed} of {kills} times within {} ms: left {left_incomplete} incomplete, \
         {left_complete} complete and sound, {left_small} with small temporary files; earlier backup untouched, next run at once",
        usual.as_millis()
    );
    assert!(
        killed as usize * 3 >= kills,
        "only {killed} of {kills} runs were still going on when they were killed"
    );
}

fn complete(place: &Place) -> Vec<String> {
    let list = place.json(0, &["list", "--from", "b"]);
    let backups = list["backups"].as_array().unwrap().iter();
    backups.filter(|b| b["state"] == "complete").map(|b| b["id"].as_str().unwrap().to_owned()).collect()
}

/// All but the mark of its verification, which every verification renews.
fn is_untouched(place: &Place, earlier: &[String], at: &str) {
    let now = contents(&place.path("b"));
    let missing: Vec<_> = earlier.iter().filter(|file| !now.contains(file)).collect();
    assert!(missing.is_empty(), "{at}: {missing:?} has changed");
}

fn forget_all_but(place: &Place, first: &str) {
    let others: Vec<String> = complete(place).into_iter().filter(|id| id != first).collect();
    let line: Vec<&str> =
        ["remove", "--from", "b"].into_iter().chain(others.iter().map(String::as_str)).collect();
    place.expect(0, &line);
}
