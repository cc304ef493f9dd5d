//! Promises of this folder. Those that need root say so and fail without.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use super::*;

fn root() -> (tempfile::TempDir, OwnedFd) {
    let folder = tempfile::tempdir().unwrap();
    let fd = open_dir(folder.path()).unwrap();
    (folder, fd)
}

fn parent(root: &OwnedFd, path: &str, create: bool) -> io::Result<(OwnedFd, Vec<u8>)> {
    open_parent_beneath(root.as_fd(), path.as_bytes(), create)
}

fn is_at(fd: BorrowedFd<'_>, path: &Path) -> bool {
    stat_fd(fd).unwrap().ino == path.metadata().unwrap().ino()
}

#[test]
fn what_a_name_is() {
    let (folder, fd) = root();
    fs::write(folder.path().join("file"), b"12345").unwrap();
    fs::set_permissions(folder.path().join("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(folder.path().join("file"), folder.path().join("second")).unwrap();
    symlink("file", folder.path().join("link")).unwrap();
    let stat = stat_at(fd.as_fd(), b"file").unwrap();
    assert_eq!((stat.kind, stat.mode, stat.size, stat.nlink), (Kind::File, 0o4751, 5, 2));
    let metadata = folder.path().join("file").metadata().unwrap();
    assert_eq!(stat.mtime, (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap()));
    assert_eq!(stat.ctime, change_time(&metadata));
    assert_eq!((stat.dev, stat.ino), identity(&metadata));
    assert_eq!(stat_at(fd.as_fd(), b"link").unwrap().kind, Kind::Symlink);
    assert_eq!(stat_at(fd.as_fd(), b"none").unwrap_err().kind(), io::ErrorKind::NotFound);
    let null = open_dir(Path::new("/dev")).unwrap();
    let null = stat_at(null.as_fd(), b"null").unwrap();
    assert_eq!((null.kind, null.rdev), (Kind::CharacterDevice, (1, 3)));
}

#[test]
fn names_are_raw_and_listed_again_from_the_start() {
    let (folder, fd) = root();
    let names: BTreeSet<Vec<u8>> =
        [b"plain".to_vec(), b"\xff\xfe".to_vec(), b"new\nline".to_vec(), b"...".to_vec()].into();
    for name in &names {
        File::create(folder.path().join(path_from_bytes(name.clone()))).unwrap();
    }
    for _ in 0..2 {
        let listed: BTreeSet<_> = read_dir(fd.as_fd()).unwrap().map(Result::unwrap).collect();
        assert_eq!(listed, names);
    }
}

#[test]
fn opening_never_follows_a_link_or_waits_for_a_fifo() {
    let (folder, fd) = root();
    fs::create_dir(folder.path().join("dir")).unwrap();
    symlink("dir", folder.path().join("to_dir")).unwrap();
    symlink("/etc/passwd", folder.path().join("to_file")).unwrap();
    assert!(open_dir_at(fd.as_fd(), b"to_dir").is_err());
    assert!(open_dir(&folder.path().join("to_dir")).is_err());
    assert!(open_file_at(fd.as_fd(), b"to_file").is_err());
    assert_eq!(read_link_at(fd.as_fd(), b"to_file").unwrap(), b"/etc/passwd");
    make_fifo(fd.as_fd(), b"fifo").unwrap();
    open_file_at(fd.as_fd(), b"fifo").unwrap();
}

#[test]
fn parents_are_made_for_their_owner_only_and_beneath_the_root_only() {
    let (folder, fd) = root();
    let (dir, name) = parent(&fd, "a/b/c", true).unwrap();
    assert_eq!(name, b"c");
    assert!(is_at(dir.as_fd(), &folder.path().join("a/b")));
    assert_eq!(stat_fd(dir.as_fd()).unwrap().mode, 0o700);
    let (dir, name) = parent(&fd, "top", false).unwrap();
    assert!(name == b"top" && is_at(dir.as_fd(), folder.path()));
    for bad in ["", "/", "/etc/x", "a/../x", "../x", "a//b", "a/", "a/.", "./a", "a/..", "a\0b/c"] {
        let error = parent(&fd, bad, true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
    }
    assert_eq!(parent(&fd, "none/x", false).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_planted_link_leads_nowhere() {
    let (folder, fd) = root();
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), folder.path().join("absolute")).unwrap();
    fs::create_dir_all(folder.path().join("real/deep")).unwrap();
    symlink("real", folder.path().join("inside")).unwrap();
    for create in [false, true] {
        for path in ["absolute/x", "absolute/y/x", "inside/x", "inside/deep/x"] {
            assert!(parent(&fd, path, create).is_err(), "{path}");
        }
        // As where there is no openat2.
        for path in [&[&b"absolute"[..]][..], &[b"absolute", b"y"], &[b"inside", b"deep"]] {
            assert!(beneath::step_by_step(fd.as_fd(), path, create).is_err(), "{path:?}");
        }
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let dir = beneath::step_by_step(fd.as_fd(), &[b"real", b"deep"], false).unwrap();
    assert!(is_at(dir.as_fd(), &folder.path().join("real/deep")));
}

#[test]
fn a_path_longer_than_the_kernel_takes_at_once() {
    let (_folder, fd) = root();
    let path = format!("{}x", format!("{}/", "d".repeat(200)).repeat(30));
    let (dir, _) = parent(&fd, &path, true).unwrap();
    create_file(dir.as_fd(), b"x").unwrap();
    let (dir, name) = parent(&fd, &path, false).unwrap();
    assert_eq!(stat_at(dir.as_fd(), &name).unwrap().kind, Kind::File);
    remove_tree_beneath(fd.as_fd(), "d".repeat(200).as_bytes()).unwrap();
}

#[test]
fn nothing_is_made_over_something_else() {
    let (folder, fd) = root();
    let dir = fd.as_fd();
    create_file(dir, b"file").unwrap().write_all(b"kept").unwrap();
    symlink("/nowhere", folder.path().join("link")).unwrap();
    assert_eq!(stat_at(dir, b"file").unwrap().mode, 0o600);
    for name in [&b"file"[..], b"link"] {
        let taken = |made: io::Result<()>| assert_eq!(made.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        taken(create_file(dir, name).map(drop));
        taken(make_dir(dir, name));
        taken(make_symlink(b"x", dir, name));
        taken(make_fifo(dir, name));
        taken(make_hard_link(dir, b"file", dir, name));
        taken(rename_noreplace(dir, b"file", dir, name));
    }
    for name in [&b""[..], b".", b"..", b"a/b"] {
        assert!(create_file(dir, name).is_err() && make_dir(dir, name).is_err());
    }
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"kept");
}

#[test]
fn links_exchange_and_rename() {
    let (folder, fd) = root();
    let dir = fd.as_fd();
    create_file(dir, b"one").unwrap().write_all(b"1").unwrap();
    create_file(dir, b"two").unwrap().write_all(b"2").unwrap();
    make_symlink(b"\xffanything", dir, b"link").unwrap();
    assert_eq!(read_link_at(dir, b"link").unwrap(), b"\xffanything");
    make_hard_link(dir, b"link", dir, b"link2").unwrap();
    assert_eq!(stat_at(dir, b"link2").unwrap().kind, Kind::Symlink);
    make_hard_link(dir, b"one", dir, b"uno").unwrap();
    assert_eq!(stat_at(dir, b"one").unwrap().nlink, 2);
    exchange(dir, b"one", dir, b"two").unwrap();
    assert_eq!(fs::read(folder.path().join("one")).unwrap(), b"2");
    rename(dir, b"one", dir, b"two").unwrap();
    assert_eq!(fs::read(folder.path().join("two")).unwrap(), b"2");
    fsync_dir(dir).unwrap();
    sync_filesystem(dir).unwrap();
}

#[test]
fn sparse_files_have_bounded_extents_that_cover_all_data() {
    let file = tempfile::tempfile().unwrap();
    let size = 64 << 20;
    file.set_len(size).unwrap();
    assert_eq!(data_extents(file.as_fd(), size, 10).unwrap(), Some(vec![]), "needs a file system with holes");
    let starts: Vec<u64> = (0..200).map(|i| i * 256 * 1024 + 4096).collect();
    for &start in &starts {
        file.write_all_at(&[1; 4096], start).unwrap();
    }
    let all = data_extents(file.as_fd(), size, 1000).unwrap().unwrap();
    assert_eq!(all.len(), 200);
    for most in [1, 2, 7, 50, 199, 200] {
        let extents = data_extents(file.as_fd(), size, most).unwrap().unwrap();
        assert!(extents.len() <= most && !extents.is_empty());
        assert!(
            extents.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0),
            "in order, with holes between"
        );
        for &start in &starts {
            assert!(extents.iter().any(|&(at, length)| at <= start && start + 4096 <= at + length));
        }
    }
    let dense = tempfile::tempfile().unwrap();
    dense.write_all_at(&[1; 10_000], 0).unwrap();
    assert_eq!(data_extents(dense.as_fd(), 10_000, 10).unwrap(), None);
    assert_eq!(data_extents(dense.as_fd(), 0, 10).unwrap(), None);
    assert_eq!(
        data_extents(dense.as_fd(), 99_999, 10).unwrap(),
        Some(vec![(0, 10_000)]),
        "shorter than promised"
    );
}

#[test]
fn extended_attributes_with_any_bytes() {
    let (_folder, fd) = root();
    let dir = fd.as_fd();
    let file = create_file(dir, b"file").unwrap();
    let wanted = vec![
        (b"user.a=b\n\xff".to_vec(), b"\0line\nline=\xff".to_vec()),
        (b"user.empty".to_vec(), Vec::new()),
        (b"user.long".to_vec(), vec![7; 3000]),
    ];
    for (name, value) in &wanted {
        set_xattr_at(dir, b"file", name, value).unwrap();
    }
    assert_eq!(list_xattrs(file.as_fd()).unwrap(), wanted);
    assert_eq!(list_xattrs_at(dir, b"file").unwrap(), wanted);
    set_xattr(file.as_fd(), b"user.empty", b"no more").unwrap();
    assert_eq!(list_xattrs(file.as_fd()).unwrap()[1].1, b"no more");
    // There are none in /proc.
    let proc = open_dir(Path::new("/proc")).unwrap();
    assert!(list_xattrs_at(proc.as_fd(), b"version").unwrap().is_empty());
}

#[test]
fn attributes_survive_each_other_as_root() {
    assert!(is_root(), "this test needs root");
    let (_folder, fd) = root();
    let dir = fd.as_fd();
    create_file(dir, b"file").unwrap();
    make_dir(dir, b"dir").unwrap();
    make_symlink(b"/etc/passwd", dir, b"link").unwrap();
    make_fifo(dir, b"fifo").unwrap();
    make_device(dir, b"null", Kind::CharacterDevice, 1, 3).unwrap();
    // cap_net_raw, and an ACL with rwx for user 1234 under the mask r-x.
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let acl = [
        &2_u32.to_le_bytes()[..],
        &[1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 7, 0, 210, 4, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255],
        &[16, 0, 5, 0, 255, 255, 255, 255, 32, 0, 1, 0, 255, 255, 255, 255],
    ]
    .concat();
    let mut xattrs = vec![
        (b"security.capability".to_vec(), capability),
        (b"system.posix_acl_access".to_vec(), acl),
        (b"user.note".to_vec(), b"x".to_vec()),
    ];
    let mtime = (1_234_567_890, 123_456_789);
    let attributes = Attributes {
        owner: Some((1234, 5678)),
        mode: Some(0o4751),
        mtime: Some(mtime),
        xattrs: xattrs.clone(),
    };
    let failed = apply_attributes(dir, b"file", &attributes);
    assert!(failed.is_empty(), "{failed:?}");
    let stat = stat_at(dir, b"file").unwrap();
    assert_eq!((stat.uid, stat.gid, stat.mode, stat.mtime), (1234, 5678, 0o4751, mtime));
    assert_eq!(list_xattrs_at(dir, b"file").unwrap(), xattrs);

    xattrs = vec![(b"trusted.note".to_vec(), b"of the link".to_vec())];
    let attributes = Attributes { xattrs: xattrs.clone(), ..attributes };
    let target = Path::new("/etc/passwd").metadata().unwrap();
    for name in [&b"dir"[..], b"link", b"fifo", b"null"] {
        let failed = apply_attributes(dir, name, &attributes);
        assert!(failed.is_empty(), "{}: {failed:?}", name.escape_ascii());
        let stat = stat_at(dir, name).unwrap();
        assert_eq!((stat.uid, stat.gid, stat.mtime), (1234, 5678, mtime));
        assert_eq!(stat.mode, if name == b"link" { 0o777 } else { 0o4751 });
        assert_eq!(list_xattrs_at(dir, name).unwrap(), xattrs);
    }
    assert_eq!(
        Path::new("/etc/passwd").metadata().unwrap().ctime_nsec(),
        target.ctime_nsec(),
        "through the link"
    );
    assert!(set_mode(dir, b"link", 0o600).is_err());
    assert_eq!(stat_at(dir, b"null").unwrap().rdev, (1, 3));
}

#[test]
fn what_cannot_be_set_is_named() {
    let (_folder, fd) = root();
    create_file(fd.as_fd(), b"file").unwrap();
    let attributes = Attributes {
        owner: Some((u32::MAX, 0)),
        mode: Some(0o640),
        xattrs: vec![(b"nonsense.x".to_vec(), vec![])],
        ..Attributes::default()
    };
    let failed: Vec<_> =
        apply_attributes(fd.as_fd(), b"file", &attributes).into_iter().map(|(what, _)| what).collect();
    assert_eq!(failed, ["owner", "xattr nonsense.x"]);
    assert_eq!(stat_at(fd.as_fd(), b"file").unwrap().mode, 0o640, "the rest is set");
}

#[test]
fn a_tree_is_removed_without_following_links() {
    let (folder, fd) = root();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), b"x").unwrap();
    let tree = folder.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    symlink(outside.path(), tree.join("a/link")).unwrap();
    for i in 0..3000 {
        fs::write(tree.join(format!("a/b/{i}")), b"").unwrap();
    }
    let mut deep = open_dir(&tree).unwrap();
    for _ in 0..500 {
        make_dir(deep.as_fd(), b"deep").unwrap();
        create_file(deep.as_fd(), b"removed-1").unwrap();
        deep = open_dir_at(deep.as_fd(), b"deep").unwrap();
    }
    remove_tree_beneath(fd.as_fd(), b"tree").unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(outside.path().join("kept").exists());
    remove_tree_beneath(fd.as_fd(), b"tree").unwrap();
    symlink(outside.path(), folder.path().join("link")).unwrap();
    remove_tree_beneath(fd.as_fd(), b"link").unwrap();
    assert!(outside.path().join("kept").exists() && !folder.path().join("link").is_symlink());
    assert!(remove_tree_beneath(fd.as_fd(), b"..").is_err());
}

#[test]
fn folders_without_permissions_are_removed_by_their_owner() {
    let (folder, fd) = root();
    fs::create_dir_all(folder.path().join("tree/a/b")).unwrap();
    fs::write(folder.path().join("tree/a/b/file"), b"").unwrap();
    for path in ["tree/a/b", "tree/a", "tree"] {
        fs::set_permissions(folder.path().join(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    remove_tree_beneath(fd.as_fd(), b"tree").unwrap();
    assert!(!folder.path().join("tree").exists());
}

/// Needs the right to mount.
#[test]
fn nothing_mounted_is_removed() {
    let (folder, fd) = root();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("kept"), b"x").unwrap();
    let target = folder.path().join("tree/mounted");
    fs::create_dir_all(&target).unwrap();
    assert!(!is_mount_point(&target).unwrap());
    // The same device: only the mount itself tells.
    let status = Command::new("mount").arg("--bind").args([outside.path(), &target]).status().unwrap();
    assert!(status.success(), "this test needs the right to mount");
    let mounted = is_mount_point(&target);
    let removed = remove_tree_beneath(fd.as_fd(), b"tree");
    let top = open_dir(&folder.path().join("tree")).unwrap();
    let removed_itself = remove_tree_beneath(top.as_fd(), b"mounted");
    drop(top);
    assert!(Command::new("umount").arg(&target).status().unwrap().success());
    assert!(mounted.unwrap());
    assert_eq!(removed.unwrap_err().kind(), io::ErrorKind::CrossesDevices);
    assert_eq!(removed_itself.unwrap_err().kind(), io::ErrorKind::CrossesDevices);
    assert!(outside.path().join("kept").exists());
}

#[test]
fn space_and_devices() {
    let (folder, _fd) = root();
    let space = free_space(folder.path()).unwrap();
    assert!(0 < space.free && space.free <= space.total);
    assert_eq!(device_id(folder.path()).unwrap(), folder.path().metadata().unwrap().dev());
    assert!(is_mount_point(Path::new("/")).unwrap() && is_mount_point(Path::new("/proc")).unwrap());
}

#[test]
fn a_name_whose_attributes_are_out_of_reach_has_not_vanished() {
    let (folder, fd) = root();
    symlink("nowhere", folder.path().join("link")).unwrap();
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let told = |name: &[u8]| super::xattr::if_it_vanished(missing(), fd.as_fd(), name).kind();
    assert_eq!((told(b"link"), told(b"gone")), (io::ErrorKind::Unsupported, io::ErrorKind::NotFound));
}
