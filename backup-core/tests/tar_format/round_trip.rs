use backup_core::tar::{
    Extent, Member, MemberKind, POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT, acl_from_text, is_safe_path,
};

use crate::common::{Random, archive, read_all, strict};

const ODD: &[u8] = b"aaabbbccc/./ \n=%25\xff\xc3\xa4\\:,\x01\x7f";

fn random_member(random: &mut Random) -> Member {
    let kind = match random.below(9) {
        0 => MemberKind::Directory,
        1 => MemberKind::Symlink,
        2 => MemberKind::HardLink,
        3 => MemberKind::Fifo,
        4 => MemberKind::CharDevice,
        5 => MemberKind::BlockDevice,
        6 => MemberKind::Other(b"DVMNZ"[random.below(5) as usize]),
        _ => MemberKind::File,
    };
    let longest = [10, 101, 400][random.below(3) as usize];
    let mut path = random.bytes(longest, ODD);
    while path.last() == Some(&b'/') {
        path.pop();
    }
    path.push(b'e');
    let mut member = Member {
        path,
        kind,
        mode: random.below(0o10000) as u32,
        uid: random.any_size(),
        gid: random.any_size(),
        mtime: (random.any_size() as i64 ^ -(random.below(2) as i64), random.below(1_000_000_000) as u32),
        ..Member::default()
    };
    if random.below(3) == 0 {
        member.mtime.1 = 0;
    }
    match kind {
        MemberKind::File | MemberKind::Other(_) => member.size = random.any_size() >> 1,
        MemberKind::Symlink | MemberKind::HardLink => member.link = random.bytes(longest, ODD),
        MemberKind::CharDevice | MemberKind::BlockDevice => {
            member.device = Some((random.any_size() as u32, random.any_size() as u32));
        }
        _ => {}
    }
    if kind == MemberKind::File {
        match random.below(4) {
            0 => member.sparse_size = Some(random.any_size() >> 1),
            1 => {
                let (mut offset, mut map) = (0, Vec::new());
                for _ in 0..random.below(30) {
                    offset += random.below(1 << 40);
                    let length = 1 + random.below(1 << 40);
                    map.push(Extent { offset, length });
                    offset += length;
                }
                member.size = map.iter().map(|extent| extent.length).sum();
                member.sparse_size = Some(offset + random.below(2) * random.below(1 << 40));
                member.sparse_map = Some(map);
            }
            _ => {}
        }
    }
    for i in 0..random.below(4) {
        let name = [format!("user.{i}").as_bytes(), &random.bytes(20, ODD)].concat();
        let value = (0..random.below(300)).map(|_| random.next() as u8).collect();
        member.xattrs.push((name, value));
    }
    let acl = format!("user::rw-,user:{}:r--,group::---,mask::r-x,other::--x", random.next() as u32);
    for name in [POSIX_ACL_ACCESS, POSIX_ACL_DEFAULT] {
        match random.below(8) {
            0 => {
                let binary = acl_from_text(acl.as_bytes(), &mut |_, _| None).unwrap();
                member.xattrs.push((name.to_vec(), binary));
            }
            1 => member.xattrs.push((name.to_vec(), b"not an ACL".to_vec())),
            2 => member.named_acls.push((name.to_vec(), b"user:joe:r--\nother::r--\n".to_vec())),
            _ => {}
        }
    }
    member
}

#[test]
fn random_members_come_back_as_they_were() {
    let mut random = Random(20_240_229);
    for round in 0..20_000 {
        let member = random_member(&mut random);
        let mut headers = Vec::new();
        member.encode(&mut headers);
        assert_eq!(headers.len() % 512, 0);
        let length = headers.len();
        headers.extend_from_slice(b"data");
        let (back, used) = Member::decode(&headers).unwrap().unwrap();
        assert_eq!(back, member, "round {round}");
        assert_eq!(used, length);
        for cut in [0, 1, 511, length / 2, length - 1] {
            assert!(Member::decode(&headers[..cut]).unwrap().is_none(), "round {round}, cut at {cut}");
        }
    }
}

#[test]
fn directories_are_written_with_a_slash_and_read_without() {
    for path in [&b"d"[..], b"d/", b"d//", &[b'd'; 100], &[b'd'; 300], b".", b"./"] {
        let member =
            Member { path: path.to_vec(), kind: MemberKind::Directory, mode: 0o755, ..Member::default() };
        let tar = archive(&[(member, Vec::new())]);
        let members = read_all(&tar[..], strict()).unwrap();
        let bare = path.strip_suffix(b"//").or(path.strip_suffix(b"/")).unwrap_or(path);
        assert_eq!(members[0].0.path, bare);
        let with_slash = [bare, b"/"].concat();
        assert!(tar.windows(with_slash.len()).any(|window| window == with_slash));
    }
}

#[test]
fn only_paths_that_stay_inside_are_safe() {
    for path in [&b"a"[..], b"a/b", b"...", b"a/..b", b"-", b"\xff\n"] {
        assert!(is_safe_path(path), "{}", path.escape_ascii());
    }
    for path in [&b""[..], b"/", b"/a", b"a/", b"a//b", b".", b"./a", b"a/.", b"..", b"a/../b", b"a\0b"] {
        assert!(!is_safe_path(path), "{}", path.escape_ascii());
    }
}
