//! What was backed up, removed and restored is the same for rsync: content, modes, owners, times, links, attributes, devices.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a failed step of the set-up is a failed test")]

mod support;

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{Seek, SeekFrom, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use support::{
    Place,
    trial::{is_root, is_soak, tool},
};

#[test]
fn names_that_programs_stumble_over_come_back() {
    round_trip("names", |tree| {
        let names: [&[u8]; 20] = [
            b"new\nline",
            b"\xff\xfe",
            b"-rf",
            b"--",
            b"*",
            b" ",
            b"trailing ",
            b"tab\t",
            b"\\",
            b"\"quoted\"",
            b"manifest.json",
            b"metadata.json",
            b"index",
            b"RESTORE.md",
            b"SHA256SUMS",
            b".backup",
            b"...",
            "\u{1f980} \u{fc} u\u{308}".as_bytes(),
            b"\x01\x7f",
            b"$HOME `id` %s {}",
        ];
        for name in names {
            let name = OsStr::from_bytes(name);
            fs::write(tree.join(name), name.as_bytes()).unwrap();
            fs::create_dir_all(tree.join("folders").join(name)).unwrap();
            fs::write(tree.join("folders").join(name).join(name), "inside").unwrap();
            symlink(name, tree.join("folders").join(name).join("link")).unwrap();
        }
        let long = |c: char| c.to_string().repeat(255 / c.len_utf8());
        for c in ['x', '\u{e9}', '\u{1f980}'] {
            fs::create_dir_all(tree.join(long(c)).join(long(c))).unwrap();
            fs::write(tree.join(long(c)).join(long(c)).join(long('f')), "long").unwrap();
        }
        symlink("x".repeat(4000), tree.join("link to nowhere")).unwrap();
    });
}

#[test]
fn a_farm_of_hard_links_comes_back_as_links() {
    round_trip("links", |tree| {
        for i in 0..2000 {
            let (file, name) = (tree.join(format!("{}", i % 20)), tree.join(format!("farm {}/{i}", i % 37)));
            fs::create_dir_all(name.parent().unwrap()).unwrap();
            if i < 20 {
                fs::write(&file, format!("file {i}")).unwrap();
            }
            fs::hard_link(&file, &name).unwrap();
        }
    });
}

#[test]
fn of_a_farm_of_links_a_part_comes_back_whole() {
    let place = Place::new();
    let (first, part) = (place.path("tree/a"), place.path("tree/part"));
    fs::create_dir_all(&first).unwrap();
    fs::create_dir_all(&part).unwrap();
    fs::write(first.join("large"), vec![7; 5 << 20]).unwrap();
    for i in 0..300 {
        fs::hard_link(first.join("large"), part.join(format!("large {i:03}"))).unwrap();
        fs::write(first.join(format!("small {i:03}")), format!("{i}")).unwrap();
        symlink(format!("to {i}"), first.join(format!("link {i:03}"))).unwrap();
        for name in ["small", "link"] {
            for copy in ["", " again"] {
                let to = part.join(format!("{name} {i:03}{copy}"));
                fs::hard_link(first.join(format!("{name} {i:03}")), to).unwrap();
            }
        }
    }
    place.expect(0, &["create", "tree", "--to", "b"]);
    let part_of_it = ["restore", "latest", "--from", "b", "--only", "tree/part/*", "--to", "found"];
    let plan = place.json(0, &[&part_of_it[..], &["--dry-run"]].concat());
    let needs = plan["plan"]["needs_bytes"].as_u64().unwrap();
    assert!((5 << 20..6 << 20).contains(&needs), "{plan}");
    place.expect(0, &part_of_it);
    assert_eq!(rsync(&part, &place.path("found/part")), "");
}

#[test]
fn a_large_sparse_file_comes_back_sparse() {
    let place = Place::new();
    fs::create_dir(place.path("tree")).unwrap();
    // Its digest is that of all its bytes, holes too: the time is that of the apparent size.
    let size = if is_soak() { 10 << 30 } else { 1 << 30 };
    let at = [(0, "begin"), (size / 3, "middle"), (size - 3, "end")];
    let path = place.path("tree/sparse");
    let mut file = File::create(&path).unwrap();
    for (offset, text) in at {
        file.seek(SeekFrom::Start(offset)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    // Ends in a hole.
    File::create(place.path("tree/hole")).unwrap().set_len(size / 10).unwrap();
    let before = fs::metadata(&path).unwrap();
    there_and_back(&place);
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.len(), after.mtime_nsec()), (before.len(), before.mtime_nsec()));
    assert!(after.blocks() <= before.blocks() + 64, "{} blocks, {} before", after.blocks(), before.blocks());
    let hole = fs::metadata(place.path("tree/hole")).unwrap();
    assert!(hole.len() == size / 10 && hole.blocks() < 64, "{hole:?}");
    for (offset, text) in at {
        let mut found = vec![0; text.len()];
        std::os::unix::fs::FileExt::read_exact_at(&File::open(&path).unwrap(), &mut found, offset).unwrap();
        assert_eq!(found, text.as_bytes());
    }
}

#[test]
fn devices_modes_attributes_and_access_lists_come_back() {
    if !is_root("devices_modes_attributes_and_access_lists_come_back") {
        return;
    }
    round_trip("special", |tree| {
        let path = |name: &str| tree.join(name).into_os_string().into_string().unwrap();
        tool("mknod", &[&path("block"), "b", "7", "200"]);
        tool("mknod", &[&path("character"), "c", "1", "3"]);
        tool("mkfifo", &["-m", "640", &path("fifo")]);
        for (mode, owner) in [(0o4755, 0), (0o2755, 12), (0o6711, 1000), (0o0000, 65534), (0o1777, 4_000_000)]
        {
            let file = tree.join(format!("mode {mode:o}"));
            fs::write(&file, "x").unwrap();
            std::os::unix::fs::lchown(&file, Some(owner), Some(owner + 1)).unwrap();
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(tree.join("folder")).unwrap();
        for name in ["folder", "mode 4755"] {
            tool("setfattr", &["-n", "user.note", "-v", "a b\"c", &path(name)]);
            tool("setfattr", &["-n", "trusted.hidden", "-v", "0x00ff00", &path(name)]);
            tool("setfacl", &["-m", "u:1234:r,g:77:rw,m::rwx", &path(name)]);
        }
        tool("setfattr", &["-n", "user.large", "-v", &"v".repeat(3000), &path("folder")]);
        tool("setfacl", &["-d", "-m", "u:99:rwx", &path("folder")]);
        symlink("folder", tree.join("link")).unwrap();
        std::os::unix::fs::lchown(tree.join("link"), Some(33), Some(34)).unwrap();
        assert!(fs::symlink_metadata(tree.join("block")).unwrap().file_type().is_block_device());
    });
}

#[test]
fn folders_in_300_levels_and_odd_folders_come_back() {
    round_trip("folders", |tree| {
        let mut deep = PathBuf::from(tree);
        for i in 0..300 {
            deep.push(format!("{i}"));
            fs::create_dir(&deep).unwrap();
        }
        fs::write(deep.join("bottom"), "found").unwrap();
        let times = [0, 1, 86_399, 1_000_000_000, 4_102_444_800];
        for (i, seconds) in times.into_iter().enumerate() {
            let folder = tree.join(format!("empty {i}"));
            fs::create_dir(&folder).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
            File::open(&folder).unwrap().set_modified(time).unwrap();
            fs::set_permissions(&folder, Permissions::from_mode([0, 0o111, 0o1777, 0o2700, 0o500][i]))
                .unwrap();
        }
        let before_1970 = SystemTime::UNIX_EPOCH - Duration::new(86_400 * 365, 5);
        fs::write(tree.join("old"), "old").unwrap();
        File::open(tree.join("old")).unwrap().set_modified(before_1970).unwrap();
        File::open(tree.join("0/1/2")).unwrap().set_modified(before_1970).unwrap();
    });
}

#[test]
fn a_whole_system_comes_back() {
    round_trip("system", |tree| {
        // In a soak more than 50,000 entries.
        let few = &["/usr/share/perl5", "/usr/share/zoneinfo"][..];
        let folders = if is_soak() { &["/usr/share", "/usr/lib"][..] } else { few };
        for folder in folders.iter().filter(|folder| Path::new(folder).exists()) {
            tool("cp", &["-a", folder, tree.join(folder[1..].replace('/', "-")).to_str().unwrap()]);
        }
        assert!(fs::read_dir(tree).unwrap().count() > 0, "none of {folders:?} is here");
    });
}

/// Grows a tree, copies it, and compares the copy with what comes back.
fn round_trip(what: &str, grow: impl FnOnce(&Path)) {
    let place = Place::new();
    let (tree, copy) = (place.path("tree"), place.path("copy"));
    fs::create_dir(&tree).unwrap();
    grow(&tree);
    tool("cp", &["-a", tree.to_str().unwrap(), copy.to_str().unwrap()]);
    assert_eq!(rsync(&copy, &tree), "", "the copy is not the tree");
    let entries = there_and_back(&place);
    assert_eq!(rsync(&copy, &tree), "", "{what}");
    println!("soak: round trip of {what}: {entries} entries, no difference");
    // A comparison that finds nothing must be able to find something.
    File::open(&tree).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_ne!(rsync(&copy, &tree), "");
}

/// Backs `tree` up, verifies, removes it, and restores it where it was.
fn there_and_back(place: &Place) -> u64 {
    let made = place.json(0, &["create", "./tree", "--to", "./b"]);
    place.expect(0, &["verify", "--from", "./b"]);
    let device = fs::read_dir(place.path("tree")).unwrap().any(|item| {
        let kind = item.unwrap().file_type().unwrap();
        kind.is_block_device() || kind.is_char_device()
    });
    tool("rm", &["-rf", place.path("tree").to_str().unwrap()]);
    let mut restore = vec!["restore", "latest", "--from", "./b"];
    if device {
        place.expect(6, &restore);
        assert!(!place.path("tree").exists());
        restore.extend(["--accept", "devices"]);
    }
    place.expect(0, &restore);
    let components = made["results"][0]["report"]["components"].as_array().unwrap();
    components.iter().filter_map(|c| c["entries"].as_u64()).sum()
}

/// What rsync would change to make the second what the first is.
fn rsync(from: &Path, to: &Path) -> String {
    let (from, to) = (format!("{}/", from.display()), format!("{}/", to.display()));
    tool("rsync", &["-aHAXSni", "--modify-window=-1", "--checksum", "--delete", &from, &to])
}
