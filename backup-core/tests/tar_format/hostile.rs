use std::io::{Cursor, Read, repeat};

use backup_core::tar::{Limits, Member, MemberKind, TarError, TarFault, TarReader};

use crate::common::{read_all, strict};

/// A header block with any type and size.
fn block(path: &[u8], typeflag: u8, size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let member = Member { path: path.to_vec(), kind: MemberKind::Other(typeflag), size, ..Member::default() };
    member.encode(&mut out);
    out.split_off(out.len() - 512)
}

/// Sets bytes of a header block and mends its checksum.
fn patched(mut block: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    block[at..at + bytes.len()].copy_from_slice(bytes);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn extended(typeflag: u8, data: &[u8]) -> Vec<u8> {
    let mut out = block(b"extended", typeflag, data.len() as u64);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

fn record(key: &str, value: &str) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap();
    format!("{length} {key}={value}\n").into_bytes()
}

fn first_error(tar: &[u8]) -> TarError {
    let tar = [tar, &[0; 1024]].concat();
    let error = read_all(&tar[..], strict()).unwrap_err();
    // The slice reader agrees.
    assert!(
        !matches!(Member::decode(&tar), Ok(Some(_))) || matches!(error.fault, TarFault::Sparse(_)),
        "{error}"
    );
    error
}

fn with_pax(records: &[(&str, &str)], member: Vec<u8>) -> Vec<u8> {
    let data: Vec<u8> = records.iter().flat_map(|(key, value)| record(key, value)).collect();
    [extended(b'x', &data), member].concat()
}

#[test]
fn a_pax_header_of_8_gib_is_refused_at_once() {
    for typeflag in [b'x', b'g', b'L', b'K', b'X'] {
        let mut tar = block(b"bomb", typeflag, (8 << 30) - 1);
        tar = patched(tar, 0, b"bomb");
        let error = TarReader::new(Cursor::new(tar).chain(repeat(b'a')), strict()).next_member().unwrap_err();
        assert!(
            matches!(error.fault, TarFault::HeaderTooLarge { size: 8_589_934_591, limit: 1_048_576 }),
            "{error}"
        );
    }
    // Just inside the limit it is read, and the limit is the caller's.
    let small = Limits { max_pax_bytes: 100, ..strict() };
    let tar = with_pax(&[("comment", &"c".repeat(100))], block(b"f", b'0', 0));
    assert!(TarReader::new(&tar[..], strict()).next_member().is_ok());
    assert!(TarReader::new(&tar[..], small).next_member().is_err());
}

#[test]
fn endless_sparse_maps_are_refused() {
    let limits = || Limits { max_sparse_extents: 1000, ..strict() };
    // Sparse 1.0, with a count that lies high, and one that is far too high for the limit.
    let sparse = |size: &str| {
        with_pax(
            &[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.realsize", "9000000000000000000"),
                ("size", size),
            ],
            block(b"f", b'0', 0),
        )
    };
    for (count, expected) in [("1001\n", true), ("18446744073709551615\n", true), ("1000\n", false)] {
        let stream = Cursor::new([sparse("8000000000000000000"), count.as_bytes().to_vec()].concat());
        let mut reader = TarReader::new(stream.chain(Numbers::default()), limits());
        let (member, ..) = reader.next_member().unwrap().unwrap();
        let error = reader.read_sparse_map(&member).unwrap_err();
        assert_eq!(matches!(error.fault, TarFault::TooManyExtents(1000)), expected, "{error}");
    }
    // Sparse 0.1 and 0.0.
    let map = (0..1001).map(|i| format!("{},1", 2 * i)).collect::<Vec<_>>().join(",");
    let mut old = vec![("GNU.sparse.size", "100000")];
    for _ in 0..1001 {
        old.extend([("GNU.sparse.offset", "0"), ("GNU.sparse.numbytes", "0")]);
    }
    for records in [vec![("GNU.sparse.size", "100000"), ("GNU.sparse.map", &map)], old] {
        let tar = with_pax(&records, block(b"f", b'0', 1001));
        let error = TarReader::new(&tar[..], limits()).next_member().unwrap_err();
        assert!(matches!(error.fault, TarFault::TooManyExtents(1000)), "{error}");
    }
    // Old GNU headers that go on for ever, with extents and without.
    let head = patched(patched(block(b"f", b'S', 0), 482, &[1]), 483, b"77777777777\0");
    for fill in [0, 1] {
        let mut more = vec![0; 512];
        for entry in more[..504].chunks_exact_mut(12) {
            entry[0] = fill * b'0';
        }
        more[504] = 1;
        let tar = [head.clone(), more.repeat(2000)].concat();
        let error = TarReader::new(&tar[..], limits()).next_member().unwrap_err();
        assert!(matches!(error.fault, TarFault::TooManyExtents(1000)), "{error}");
    }
}

/// Lines "1", "1", … for ever.
#[derive(Default)]
struct Numbers(usize);

impl Read for Numbers {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        for byte in buf.iter_mut() {
            *byte = b"1\n"[self.0 % 2];
            self.0 += 1;
        }
        Ok(buf.len())
    }
}

#[test]
fn every_malformed_member_is_a_clear_error() {
    let file = || block(b"f", b'0', 0);
    let pax = |key: &str, value: &str| with_pax(&[(key, value)], file());
    let sparse = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "100")];
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (patched(file(), 124, b"0000000009\0"), "bad number in header field size"),
        (patched(file(), 124, &[0xff; 12]), "bad number in header field size"),
        (patched(file(), 124, &[0x80, 0x70, 1, 1]), "bad number in header field size"),
        (patched(file(), 100, b"rwx"), "bad number in header field mode"),
        (patched(block(b"d", b'3', 0), 329, b"8"), "bad number in header field devmajor"),
        (patched(file(), 0, &[0; 100]), "the path is empty"),
        (pax("path", ""), "bad value in pax record path"),
        (pax("path", "a\0b"), "the path has a NUL"),
        (pax("size", ""), "bad value in pax record size"),
        (pax("size", "-1"), "bad value in pax record size"),
        (pax("size", "9223372036854775808"), "the size is out of range"),
        (pax("size", "18446744073709551616"), "bad value in pax record size"),
        (pax("mtime", "1.2.3"), "bad value in pax record mtime"),
        (pax("uid", "root"), "bad value in pax record uid"),
        (pax("SCHILY.xattr.", "x"), "bad name of an extended attribute"),
        (pax("SCHILY.acl.access", "user::rwz"), "bad ACL"),
        (with_pax(&[("SCHILY.xattr.a", "1"), ("SCHILY.xattr.a", "2")], file()), "twice"),
        (extended(b'x', b"18446744073709551615 a=b\n"), "reaches beyond the header"),
        (extended(b'x', b"99999999999999999999999 a=b\n"), "no length"),
        (extended(b'x', b"7 a=b\n"), "reaches beyond the header"),
        (extended(b'x', b"5 a=b\n"), "no newline"),
        (extended(b'x', b"6 abc\n"), "no equals sign"),
        (extended(b'x', b"\0\0\0\0"), "no length"),
        (extended(b'x', &record("mtime", "1")), "followed by no member"),
        ([extended(b'x', b""), extended(b'x', b"")].concat(), "two pax headers"),
        ([extended(b'L', b"a\0"), extended(b'L', b"a\0")].concat(), "two long name headers"),
        ([extended(b'L', b"\0"), file()].concat(), "the path is empty"),
        ([extended(b'L', b"a\0b\0"), file()].concat(), "the path has a NUL"),
        ([extended(b'g', &record("path", "x")), file()].concat(), "only one member can have"),
        (block(b"l", b'1', 0), "a link without target"),
        (block(b"l", b'2', 0), "a link without target"),
        (patched(block(b"l", b'1', 5), 157, b"target"), "claims 5 bytes of data"),
        (block(b"d", b'5', 5), "claims 5 bytes of data"),
        ([vec![0; 512], file()].concat(), "zeros"),
        (with_pax(&sparse, block(b"f", b'5', 0)), "not a file"),
        (with_pax(&sparse[..2], file()), "its size is missing"),
        (
            with_pax(
                &[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "1")],
                file(),
            ),
            "unknown version",
        ),
        (with_pax(&[("GNU.sparse.map", "0,5"), ("GNU.sparse.size", "4")], file()), "beyond the file"),
        (with_pax(&[("GNU.sparse.map", "0,5"), ("GNU.sparse.size", "9")], file()), "do not add up"),
        (with_pax(&[("GNU.sparse.map", "0,5,3,5"), ("GNU.sparse.size", "9")], file()), "overlap"),
        (with_pax(&[("GNU.sparse.map", "0,5,3"), ("GNU.sparse.size", "9")], file()), "GNU.sparse.map"),
        (with_pax(&[("GNU.sparse.numbytes", "5"), ("GNU.sparse.size", "9")], file()), "without an offset"),
        (with_pax(&sparse, file()), "the map is longer than the data"),
    ];
    for (tar, message) in cases {
        let error = first_error(&tar);
        assert!(error.to_string().contains(message), "{message}: {error}");
        assert!(error.to_string().starts_with("tar: byte "), "{error}");
    }
}

#[test]
fn an_error_names_the_place_and_the_member() {
    let mut tar = block(b"good", b'0', 0);
    tar.extend(patched(block(b"evil\n\x1b", b'0', 0), 100, b"rwx"));
    let error = read_all(&tar[..], strict()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tar: byte 512, member \"evil\\n\\u{1b}\": bad number in header field mode"
    );
}

#[test]
fn what_old_and_foreign_programs_write_is_understood() {
    let mut tar = extended(b'L', &[&[b'n'; 200][..], b"\0"].concat());
    tar.extend(extended(b'K', &[&[b'k'; 200][..], b"\0"].concat()));
    tar.extend(patched(block(b"short", b'2', 0), 157, b"short"));
    tar.extend(extended(
        b'g',
        &[record("uid", "7"), record("mtime", "5.5"), record("comment", "x")].concat(),
    ));
    tar.extend(patched(block(b"seven", b'7', 0), 136, &[0xff; 12]));
    tar.extend(with_pax(&[("uid", ""), ("mtime", "9")], block(b"old", 0, 0)));
    tar.extend(block(b"folder", 0, 0));
    tar.extend(patched(block(b"f", 0, 0), 0, b"slash/"));
    tar.extend(with_pax(
        &[
            ("SCHILY.acl.access", "user::rw-,user:joe:r--:1000,group::r--,mask::r--,other::---"),
            ("SCHILY.acl.default", "user:ann:r"),
        ],
        block(b"acl", b'0', 0),
    ));
    tar.extend([0; 1024]);
    let members: Vec<Member> =
        read_all(&tar[..], strict()).unwrap().into_iter().map(|(member, _)| member).collect();
    assert_eq!((&members[0].path[..], &members[0].link[..]), (&[b'n'; 200][..], &[b'k'; 200][..]));
    assert_eq!((members[1].kind, members[1].uid, members[1].mtime), (MemberKind::File, 7, (5, 500_000_000)));
    assert_eq!((members[2].kind, members[2].uid, members[2].mtime), (MemberKind::File, 0, (9, 0)));
    assert_eq!(members[3].kind, MemberKind::File);
    assert_eq!((&members[4].path[..], members[4].kind), (&b"slash"[..], MemberKind::Directory));
    assert_eq!(members[5].xattrs.len(), 1);
    assert_eq!(members[5].named_acls, [(b"system.posix_acl_default".to_vec(), b"user:ann:r".to_vec())]);
}
