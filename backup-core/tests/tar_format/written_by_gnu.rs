use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use backup_core::tar::{Member, MemberKind, POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT, acl_to_text};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use crate::common::{must_be_root, read_all, run, strict};

fn make_tree(root: &Path) {
    let path = |name: &[u8]| root.join(OsStr::from_bytes(name));
    fs::create_dir(root).unwrap();
    fs::write(path(b"plain"), "content").unwrap();
    fs::write(path(b"new\nline"), "1").unwrap();
    fs::write(path(b"raw\xff"), "2").unwrap();
    fs::write(path("umlaut-ä".as_bytes()), "3").unwrap();
    fs::create_dir(path(&[b'l'; 200])).unwrap();
    let long = path(&[&[b'l'; 200][..], b"/", &[b'm'; 200]].concat());
    fs::write(&long, "4").unwrap();
    fs::hard_link(&long, path(b"hard")).unwrap();
    // Fits name and prefix of ustar.
    fs::create_dir(path(&[b'p'; 90])).unwrap();
    fs::write(path(&[&[b'p'; 90][..], b"/", &[b'n'; 90]].concat()), "5").unwrap();
    symlink("s".repeat(222), path(b"soft")).unwrap();
    let device = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, path(b"null"), FileType::CharacterDevice, Mode::RUSR, device).unwrap();
    rustix::fs::mknodat(CWD, path(b"fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::write(path(b"owned"), "").unwrap();
    chown(path(b"owned"), Some(4_000_000_000), Some(3_000_000)).unwrap();
    fs::set_permissions(path(b"owned"), fs::Permissions::from_mode(0o6711)).unwrap();

    for (name, extents, size) in [
        (&b"sparse-head"[..], vec![1u64 << 20], (1 << 20) + 4096),
        (b"sparse-tail", vec![0], 1 << 20),
        (b"sparse-hole", vec![], 1 << 20),
        (b"sparse-many", (0..200).map(|i| i * 65_536 + 8192).collect(), 200 * 65_536),
    ] {
        let file = fs::File::create(path(name)).unwrap();
        for (i, offset) in extents.into_iter().enumerate() {
            file.write_all_at(&[b'a' + (i % 26) as u8; 4096], offset).unwrap();
        }
        file.set_len(size).unwrap();
    }

    for (name, seconds, nanoseconds) in
        [(&b"plain"[..], 1_600_000_000, 5), (b"owned", -3, 250_000_000), (b"hard", -1, 0)]
    {
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn add_attributes(root: &Path) {
    run("setfattr", root, ["-n", "user.a=b%c", "-v", "0x780a00ff", "plain"]);
    let raw = rustix::fs::lsetxattr(root.join("plain"), "user.plain", b"value", XattrFlags::empty());
    raw.unwrap();
    run("setfacl", root, ["-m", "u:4242:r,g:2424:rw", "plain"]);
    run("setfacl", root, ["-d", "-m", "u:4242:rx", "l".repeat(200).as_str()]);
}

/// Compares an archive of `root`, made as `./…`, with the folder itself.
fn compare(tar: &[u8], root: &Path, nanoseconds: bool) -> BTreeMap<Vec<u8>, Member> {
    let mut members = BTreeMap::new();
    for (member, data) in read_all(tar, strict()).unwrap() {
        let name = member.path.escape_ascii().to_string();
        let path = root.join(OsStr::from_bytes(&member.path));
        let found = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(member.mode, found.mode() & 0o7777, "{name}");
        assert_eq!((member.uid, member.gid), (u64::from(found.uid()), u64::from(found.gid())), "{name}");
        let fraction = if nanoseconds { found.mtime_nsec() as u32 } else { 0 };
        assert_eq!(member.mtime, (found.mtime(), fraction), "{name}");
        match member.kind {
            MemberKind::File => assert!(data == fs::read(&path).unwrap(), "{name}"),
            MemberKind::Directory => assert!(found.is_dir(), "{name}"),
            MemberKind::Symlink => {
                assert_eq!(member.link, fs::read_link(&path).unwrap().as_os_str().as_bytes())
            }
            MemberKind::HardLink => {
                let target = fs::metadata(root.join(OsStr::from_bytes(&member.link))).unwrap();
                assert_eq!(target.ino(), found.ino(), "{name}");
            }
            MemberKind::Fifo => assert_eq!(name, "./fifo"),
            MemberKind::CharDevice => assert_eq!((name.as_str(), member.device), ("./null", Some((1, 3)))),
            other => panic!("{name}: {other:?}"),
        }
        members.insert(member.path.clone(), member);
    }
    members
}

fn written(root: &Path, options: &[&str]) -> Vec<u8> {
    let mut arguments = vec!["-cf", "archive.tar", "--numeric-owner"];
    arguments.extend(options);
    arguments.extend(["-C", "tree", "."]);
    run("tar", root, arguments);
    fs::read(root.join("archive.tar")).unwrap()
}

#[test]
fn what_gnu_tar_writes_is_read_as_it_was() {
    must_be_root();
    let root = tempfile::tempdir().unwrap();
    let tree = root.path().join("tree");
    make_tree(&tree);
    let count = 18;

    for (options, nanoseconds, map_in_data) in [
        (&["--format=pax"][..], true, None),
        (&["--format=gnu"], false, None),
        (&["--format=gnu", "--sparse"], false, Some(false)),
        (&["--format=pax", "--sparse", "--sparse-version=0.0"], true, Some(false)),
        (&["--format=pax", "--sparse", "--sparse-version=0.1"], true, Some(false)),
        (&["--format=pax", "--sparse", "--sparse-version=1.0"], true, Some(true)),
    ] {
        let tar = written(root.path(), options);
        let members = compare(&tar, &tree, nanoseconds);
        assert_eq!(members.len(), count, "{options:?}");
        for name in ["head", "tail", "hole", "many"] {
            let member = &members[format!("./sparse-{name}").as_bytes()];
            assert_eq!(member.sparse_size.is_some(), map_in_data.is_some(), "{options:?}, {name}");
            assert_eq!(member.sparse_map.is_some(), map_in_data == Some(false), "{options:?}, {name}");
            assert!(map_in_data.is_none() || member.size < 1 << 20, "{options:?}, {name}");
        }
        if map_in_data == Some(false) {
            assert_eq!(members[&b"./sparse-many"[..]].sparse_map.as_ref().unwrap().len(), 200);
        }
    }
}

#[test]
fn the_prefix_of_ustar_and_version_7_are_read() {
    must_be_root();
    let root = tempfile::tempdir().unwrap();
    let tree = root.path().join("tree");
    make_tree(&tree);
    let long = "l".repeat(200);
    for name in ["soft", "owned", "hard", &long] {
        fs::remove_file(tree.join(name)).or_else(|_| fs::remove_dir_all(tree.join(name))).unwrap();
    }
    assert_eq!(compare(&written(root.path(), &["--format=ustar"]), &tree, false).len(), 13);
    for name in ["null", "fifo", &"p".repeat(90)] {
        fs::remove_file(tree.join(name)).or_else(|_| fs::remove_dir_all(tree.join(name))).unwrap();
    }
    assert_eq!(compare(&written(root.path(), &["--format=v7"]), &tree, false).len(), 9);
}

#[test]
fn attributes_and_acls_of_gnu_tar_are_read() {
    must_be_root();
    let root = tempfile::tempdir().unwrap();
    let tree = root.path().join("tree");
    make_tree(&tree);
    add_attributes(&tree);
    let folder = [b"./", &[b'l'; 200][..]].concat();
    // With --acls alone only the text is there.
    for options in [&["--format=pax", "--xattrs", "--acls"][..], &["--format=pax", "--acls"]] {
        let members = compare(&written(root.path(), options), &tree, true);
        for (path, xattr, line) in [
            (&b"./plain"[..], POSIX_ACL_ACCESS, "user:4242:r--\n"),
            (&b"./plain"[..], POSIX_ACL_ACCESS, "group:2424:rw-\n"),
            (&folder, POSIX_ACL_DEFAULT, "user:4242:r-x\n"),
        ] {
            let member = &members[path];
            assert!(member.named_acls.is_empty());
            let binary = &member.xattrs.iter().find(|(name, _)| name == xattr).unwrap().1;
            let mut on_disk = [0; 1000];
            let file = tree.join(OsStr::from_bytes(path));
            let length = rustix::fs::lgetxattr(&file, OsStr::from_bytes(xattr), &mut on_disk[..]).unwrap();
            assert_eq!(binary, &on_disk[..length], "{options:?}");
            assert!(String::from_utf8(acl_to_text(binary).unwrap()).unwrap().contains(line));
        }
        let attributes: Vec<_> =
            members[&b"./plain"[..]].xattrs.iter().filter(|(name, _)| name.starts_with(b"user.")).collect();
        if options.contains(&"--xattrs") {
            assert_eq!(attributes.len(), 2);
            let odd = attributes.iter().find(|(name, _)| name == b"user.a=b%c").unwrap();
            assert_eq!(odd.1, b"x\n\0\xff");
        }
    }
}
