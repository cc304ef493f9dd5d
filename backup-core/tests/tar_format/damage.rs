use std::io::{self, Read};

use backup_core::tar::{Extent, Limits, Member, MemberKind, TarFault, TarReader, encode_sparse_map};

use crate::common::{archive, read_all, strict};

fn small_archive() -> Vec<u8> {
    let name = |path: &[u8]| Member { path: path.to_vec(), mode: 0o644, ..Member::default() };
    let extents = [Extent { offset: 4096, length: 5 }, Extent { offset: 9000, length: 3 }];
    let mut sparse = Vec::new();
    encode_sparse_map(&extents, 10_000, &mut sparse);
    sparse.extend_from_slice(b"abcdefgh");
    let mut members = vec![
        (Member { kind: MemberKind::Directory, mtime: (1, 5), ..name(b"folder") }, vec![]),
        (
            Member { xattrs: vec![(b"user.a=b".to_vec(), b"x\ny\0".to_vec())], ..name(b"folder/file") },
            vec![7; 600],
        ),
        (Member { uid: 1 << 40, mtime: (-7, 1), ..name(&[b'n'; 300]) }, b"hello".to_vec()),
        (Member { kind: MemberKind::HardLink, link: b"folder/file".to_vec(), ..name(b"hard") }, vec![]),
        (Member { kind: MemberKind::Symlink, link: vec![b's'; 150], ..name(b"soft") }, vec![]),
        (Member { sparse_size: Some(10_000), ..name(b"sparse") }, sparse),
        (
            Member {
                sparse_size: Some(10_000),
                sparse_map: Some(extents.to_vec()),
                mtime: (3, 3),
                ..name(b"sparse0.1")
            },
            b"abcdefgh".to_vec(),
        ),
        (Member { kind: MemberKind::CharDevice, device: Some((1, 3)), ..name(b"null") }, vec![]),
    ];
    for (member, data) in &mut members {
        member.size = data.len() as u64;
    }
    archive(&members)
}

#[test]
fn every_truncation_is_an_error() {
    let tar = small_archive();
    read_all(&tar[..], strict()).unwrap();
    for cut in 0..tar.len() {
        let error = read_all(&tar[..cut], strict()).unwrap_err();
        assert!(matches!(error.fault, TarFault::Truncated | TarFault::NoEnd), "cut at {cut}: {error}");
        assert!(error.to_string().contains("cut short"), "{error}");
    }
}

#[test]
fn every_changed_byte_is_an_error_or_shows() {
    let tar = small_archive();
    let whole = read_all(&tar[..], strict()).unwrap();
    let headers: Vec<usize> =
        (0..tar.len()).step_by(512).filter(|&at| &tar[at + 257..at + 262] == b"ustar").collect();
    // The number of extents stands beside the list of them; a key that nobody knows is passed over.
    let key = b"GNU.sparse.numblocks=3";
    let spare = tar.windows(key.len()).position(|window| window == key).unwrap();
    let mut unnoticed = 0;
    for at in 0..tar.len() {
        let mut changed = tar.clone();
        for change in [0x01, 0x20, 0xff] {
            changed[at] = tar[at] ^ change;
            if read_all(&changed[..], strict()).is_ok_and(|members| members == whole) {
                // A checksum may begin with zeros or spaces, and end with NULs or spaces.
                let in_checksum = headers.iter().any(|header| (148..156).contains(&at.wrapping_sub(*header)));
                assert!(in_checksum || (spare..spare + key.len()).contains(&at), "byte {at}, {change}");
                unnoticed += 1;
            }
        }
        let _ = read_all(&changed[..], Limits::default());
        let _ = Member::decode(&changed[at / 512 * 512..]);
    }
    assert!(unnoticed <= headers.len() * 5 + key.len() * 3);
}

#[test]
fn data_left_unread_are_skipped_and_their_end_is_checked() {
    let tar = small_archive();
    let mut reader = TarReader::new(&tar[..], strict());
    let mut count = 0;
    while let Some((_, start, data)) = reader.next_member().unwrap() {
        let (member, used) = Member::decode(&tar[start as usize..]).unwrap().unwrap();
        assert_eq!((start + used as u64, member.path.is_empty()), (data, false));
        count += 1;
    }
    assert_eq!(count, 8);
    assert_eq!(reader.finish().unwrap(), 0);

    let mut padded = tar.clone();
    padded.resize(tar.len() + 9000, 0);
    assert_eq!(TarReader::new(&padded[..], strict()).finish().unwrap(), 9000);
    padded[tar.len() + 8999] = 1;
    assert_eq!(TarReader::new(&padded[..], Limits::default()).finish().unwrap(), 9000);
    let error = TarReader::new(&padded[..], strict()).finish().unwrap_err();
    assert!(matches!(error.fault, TarFault::Trailing), "{error}");
}

#[test]
fn after_an_error_nothing_more_is_read() {
    let mut tar = small_archive();
    tar[3] ^= 1;
    let mut reader = TarReader::new(&tar[..], strict());
    assert!(matches!(reader.next_member().unwrap_err().fault, TarFault::Checksum));
    assert!(matches!(reader.next_member().unwrap_err().fault, TarFault::Failed));
    assert!(matches!(reader.read_data(&mut [0; 9]).unwrap_err().fault, TarFault::Failed));
}

/// Gives a byte at a time, after an interruption each, and fails at the end if told to.
struct Slow<'a> {
    bytes: &'a [u8],
    interrupted: bool,
    fails: bool,
}

impl Read for Slow<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.interrupted = !self.interrupted;
        if self.interrupted {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.fails && self.bytes.is_empty() {
            return Err(io::Error::other("the disk is gone"));
        }
        let length = buf.len().min(1);
        self.bytes.read(&mut buf[..length])
    }
}

#[test]
fn short_reads_change_nothing_and_errors_come_through() {
    let tar = small_archive();
    let slow = |bytes, fails| Slow { bytes, interrupted: false, fails };
    assert_eq!(read_all(slow(&tar, false), strict()).unwrap(), read_all(&tar[..], strict()).unwrap());
    for cut in [0, 100, 512, 2000, tar.len()] {
        let error = read_all(slow(&tar[..cut], true), strict()).unwrap_err();
        assert!(error.to_string().ends_with("cannot read: the disk is gone"), "{error}");
    }
}

#[test]
fn padding_is_looked_at_when_strict() {
    let member = Member { path: b"f".to_vec(), mtime: (0, 1), size: 3, ..Member::default() };
    let tar = archive(&[(member, b"abc".to_vec())]);
    let (pax_padding, data_padding) = (1023, 512 * 3 + 3);
    for at in [pax_padding, data_padding] {
        let mut changed = tar.clone();
        changed[at] = 1;
        let error = read_all(&changed[..], strict()).unwrap_err();
        assert!(matches!(error.fault, TarFault::Padding), "{error}");
        assert_eq!(read_all(&changed[..], Limits::default()).unwrap()[0].1, b"abc");
    }
}
