use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use backup_core::tar::{
    Extent, Member, MemberKind, POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT, acl_from_text, encode_sparse_map,
};

use crate::common::{archive, must_be_root, run};

fn member(path: &[u8], kind: MemberKind) -> Member {
    let mode = if kind == MemberKind::Directory { 0o750 } else { 0o640 };
    let mtime = (1_600_000_000, 123_456_789);
    Member { path: path.to_vec(), kind, mode, uid: 1234, gid: 4321, mtime, ..Member::default() }
}

fn file(path: &[u8], data: &[u8]) -> (Member, Vec<u8>) {
    (Member { size: data.len() as u64, ..member(path, MemberKind::File) }, data.to_vec())
}

fn acl(text: &str) -> Vec<u8> {
    acl_from_text(text.as_bytes(), &mut |_, _| None).unwrap()
}

fn long_path() -> Vec<u8> {
    [&[b'l'; 200][..], b"/", &[b'm'; 99]].concat()
}

const XATTRS: [(&[u8], &[u8]); 4] = [
    (b"user.plain", b"value"),
    (b"user.a=b%c", b"two\nlines = 1\n"),
    (b"user.nul", b"a\0b\0"),
    (b"user.empty", b""),
];

/// All but the sparse files, which the tar crate does not understand.
fn ordinary() -> Vec<(Member, Vec<u8>)> {
    let text = |value: &[u8]| value.to_vec();
    let mut all = vec![
        (member(b"folder", MemberKind::Directory), vec![]),
        file(b"folder/plain", b"content"),
        file(b"folder/empty", b""),
        file(b"folder/new\nline", b"1"),
        file(b"folder/raw\xff\xfe", b"2"),
        file("folder/umlaut-ä".as_bytes(), b"3"),
        (member(&[b'l'; 200], MemberKind::Directory), vec![]),
        file(&long_path(), &[4; 1000]),
        file(&[b'h'; 100], b"5"),
        (Member { link: long_path(), ..member(b"hard", MemberKind::HardLink) }, vec![]),
        (Member { link: text(b"folder/raw\xff\xfe"), ..member(b"hard2", MemberKind::HardLink) }, vec![]),
        (Member { link: vec![b's'; 222], mode: 0o777, ..member(b"soft", MemberKind::Symlink) }, vec![]),
        (member(b"fifo", MemberKind::Fifo), vec![]),
        (Member { device: Some((1, 3)), ..member(b"null", MemberKind::CharDevice) }, vec![]),
        (Member { device: Some((259, 1_000_000)), ..member(b"disk", MemberKind::BlockDevice) }, vec![]),
        file(b"before1970", b""),
        file(b"long-before1970", b""),
        file(b"large-ids", b""),
        file(b"xattrs", b"with"),
        file(b"acl", b"a"),
        (member(b"acl-folder", MemberKind::Directory), vec![]),
        (Member { mode: 0o6755, ..member(b"setid", MemberKind::File) }, vec![]),
    ];
    for (member, _) in &mut all {
        match &member.path[..] {
            b"before1970" => member.mtime = (-1, 250_000_000),
            b"long-before1970" => member.mtime = (-1_000_000, 1),
            b"large-ids" => (member.uid, member.gid) = (4_000_000_000, 3_000_000),
            b"xattrs" => member.xattrs = XATTRS.map(|(name, value)| (text(name), text(value))).to_vec(),
            b"acl" => {
                let acl = acl("user::rw-,user:4242:r--,group::r--,group:2424:rw-,mask::rw-,other::---");
                member.xattrs = vec![(text(POSIX_ACL_ACCESS), acl)];
                member.mode = 0o660;
            }
            b"acl-folder" => {
                let acl = acl("user::rwx,user:4242:r-x,group::r-x,mask::r-x,other::---");
                member.xattrs = vec![(text(POSIX_ACL_DEFAULT), acl)];
            }
            _ => {}
        }
    }
    all
}

fn sparse(path: &[u8], extents: &[Extent], size: u64) -> (Member, Vec<u8>) {
    let mut data = Vec::new();
    encode_sparse_map(extents, size, &mut data);
    for (i, extent) in extents.iter().enumerate() {
        data.resize(data.len() + extent.length as usize, b'a' + (i % 26) as u8);
    }
    (Member { sparse_size: Some(size), ..file(path, &data).0 }, data)
}

fn sparse_files() -> Vec<(Member, Vec<u8>, Vec<Extent>)> {
    let many: Vec<Extent> =
        (0..300).map(|i| Extent { offset: 65_536 * i + 4096, length: 512 * (1 + i % 20) }).collect();
    let deep = [&[b'p'; 99][..], b"/", &[b'q'; 120]].concat();
    let one = |offset, length| vec![Extent { offset, length }];
    [
        (&b"sparse-head"[..], one(1 << 20, 5000), (1 << 20) + 5000),
        (b"sparse-tail", one(0, 5000), 1 << 20),
        (b"sparse-hole", vec![], 1 << 20),
        (b"sparse-many", many, 65_536 * 300),
        (b"sparse-\xff\n", one(4096, 1), 1 << 20),
        (&deep, one(8192, 4096), 1 << 20),
    ]
    .map(|(path, extents, size)| {
        let (member, data) = sparse(path, &extents, size);
        (member, data, extents)
    })
    .to_vec()
}

fn at(root: &Path, path: &[u8]) -> (PathBuf, Metadata) {
    let path = root.join(OsStr::from_bytes(path));
    let metadata = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (path, metadata)
}

#[test]
fn gnu_tar_restores_everything_we_write() {
    must_be_root();
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let (members, sparse) = (ordinary(), sparse_files());
    let mut all = members.clone();
    all.push((member(&[b'p'; 99], MemberKind::Directory), vec![]));
    all.extend(sparse.iter().map(|(member, data, _)| (member.clone(), data.clone())));
    fs::write(root.join("archive.tar"), archive(&all)).unwrap();
    fs::create_dir(root.join("out")).unwrap();
    run(
        "tar",
        root,
        [
            "-xp",
            "--warning=no-timestamp",
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--numeric-owner",
            "-f",
            "archive.tar",
            "-C",
            "out",
        ],
    );
    let out = root.join("out");

    for (member, data) in &members {
        let (path, found) = at(&out, &member.path);
        let name = member.path.escape_ascii().to_string();
        let of_target = member.kind == MemberKind::HardLink;
        assert_eq!(
            (found.mtime(), found.mtime_nsec()),
            (member.mtime.0, i64::from(member.mtime.1)),
            "{name}"
        );
        assert_eq!((u64::from(found.uid()), u64::from(found.gid())), (member.uid, member.gid), "{name}");
        assert!(of_target || found.mode() & 0o7777 == member.mode, "{name}: {:o}", found.mode());
        let kind = found.file_type();
        match member.kind {
            MemberKind::File => assert_eq!(&fs::read(&path).unwrap(), data, "{name}"),
            MemberKind::Directory => assert!(kind.is_dir()),
            MemberKind::Symlink => {
                assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), member.link)
            }
            MemberKind::HardLink => assert_eq!(found.ino(), at(&out, &member.link).1.ino(), "{name}"),
            MemberKind::Fifo => assert!(kind.is_fifo()),
            MemberKind::CharDevice | MemberKind::BlockDevice => {
                assert_eq!(kind.is_char_device(), member.kind == MemberKind::CharDevice);
                let device = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
                assert_eq!(Some(device), member.device);
            }
            MemberKind::Other(_) => unreachable!(),
        }
        for (xattr, value) in &member.xattrs {
            let mut buf = [0; 1000];
            let length = rustix::fs::lgetxattr(&path, OsStr::from_bytes(xattr), &mut buf[..])
                .unwrap_or_else(|error| panic!("{name}: {}: {error}", xattr.escape_ascii()));
            assert_eq!(&buf[..length], value, "{name}: {}", xattr.escape_ascii());
        }
    }
    let acl = run("getfacl", &out, ["-n", "acl"]);
    for line in ["user:4242:r--", "group:2424:rw-", "mask::rw-", "other::---"] {
        assert!(acl.lines().any(|l| l == line), "{acl}");
    }
    let acl = run("getfacl", &out, ["-n", "acl-folder"]);
    assert!(acl.lines().any(|l| l == "default:user:4242:r-x"), "{acl}");

    for (member, packed, extents) in &sparse {
        let (path, found) = at(&out, &member.path);
        let mut expected = vec![0; member.sparse_size.unwrap() as usize];
        let mut packed = &packed[packed.len() - extents.iter().map(|e| e.length as usize).sum::<usize>()..];
        for extent in extents {
            let (now, rest) = packed.split_at(extent.length as usize);
            expected[extent.offset as usize..][..now.len()].copy_from_slice(now);
            packed = rest;
        }
        assert!(fs::read(&path).unwrap() == expected, "{}", path.display());
        assert_eq!((found.mtime(), found.mtime_nsec()), (1_600_000_000, 123_456_789));
        assert!(found.blocks() * 512 < found.size() / 2, "{}: {} blocks", path.display(), found.blocks());
    }
}

#[test]
fn the_acl_alone_is_restored_from_its_text() {
    must_be_root();
    let root = tempfile::tempdir().unwrap();
    let members: Vec<_> = ordinary().into_iter().filter(|(member, _)| member.path == b"acl").collect();
    fs::write(root.path().join("archive.tar"), archive(&members)).unwrap();
    run("tar", root.path(), ["-xp", "--acls", "-f", "archive.tar"]);
    let acl = run("getfacl", root.path(), ["-n", "acl"]);
    assert!(acl.lines().any(|line| line == "user:4242:r--"), "{acl}");
}

#[test]
fn gnu_tar_lists_sizes_over_8_gib() {
    let root = tempfile::tempdir().unwrap();
    let mut head = Vec::new();
    let huge = Member { size: 9 << 30, ..member(b"huge", MemberKind::File) };
    huge.encode(&mut head);
    // A hole in place of the data.
    let archive = fs::File::create(root.path().join("archive.tar")).unwrap();
    std::io::Write::write_all(&mut &archive, &head).unwrap();
    archive.set_len(head.len() as u64 + (9 << 30) + 1024).unwrap();
    let listed = run("tar", root.path(), ["-tvf", "archive.tar"]);
    assert!(listed.contains("9663676416") && listed.ends_with("huge\n"), "{listed}");
}

#[test]
fn the_tar_crate_reads_what_we_write() {
    let members = ordinary();
    let bytes = archive(&members);
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut count = 0;
    for (entry, (member, data)) in archive.entries().unwrap().zip(&members) {
        let mut entry = entry.unwrap();
        let name = member.path.escape_ascii().to_string();
        let path = entry.path_bytes().into_owned();
        assert_eq!(path.strip_suffix(b"/").unwrap_or(&path), member.path);
        assert_eq!(entry.link_name_bytes().unwrap_or_default(), member.link, "{name}");
        assert_eq!(entry.header().mode().unwrap(), member.mode, "{name}");
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        assert_eq!(&content, data, "{name}");
        if let Some((major, minor)) = member.device {
            let header = entry.header();
            assert_eq!(
                (header.device_major().unwrap(), header.device_minor().unwrap()),
                (Some(major), Some(minor))
            );
        }
        if member.mtime.0 >= 0 {
            assert_eq!(entry.header().mtime().unwrap(), member.mtime.0 as u64);
        }
        if name == "large-ids" {
            let extensions: Vec<_> = entry.pax_extensions().unwrap().unwrap().map(|e| e.unwrap()).collect();
            assert!(extensions.iter().any(|e| e.key() == Ok("uid") && e.value() == Ok("4000000000")));
        }
        count += 1;
    }
    assert_eq!(count, members.len());
}
