//! POSIX ACLs: Linux' binary extended attribute, and the text that tar archives carry.

use super::number::{Decimal, decimal};

/// The extended attribute that holds a file's ACL.
pub const POSIX_ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// The extended attribute that holds the ACL which new files in a directory get.
pub const POSIX_ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: [u8; 4] = 2u32.to_le_bytes();
const NO_ID: u32 = u32::MAX;
const TAGS: [(u16, &str, bool); 6] = [
    (0x01, "user", false),
    (0x02, "user", true),
    (0x04, "group", false),
    (0x08, "group", true),
    (0x10, "mask", false),
    (0x20, "other", false),
];

/// Text of a binary ACL, ids as numbers, one entry a line; `None` if it is not an ACL of version 2.
pub fn acl_to_text(binary: &[u8]) -> Option<Vec<u8>> {
    let entries = binary.strip_prefix(&VERSION)?;
    if entries.is_empty() || entries.len() % 8 != 0 {
        return None;
    }
    let mut text = Vec::with_capacity(entries.len() * 3);
    for entry in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let permissions = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let (_, word, has_id) = TAGS.iter().find(|(number, ..)| *number == tag)?;
        if permissions > 7 {
            return None;
        }
        text.extend_from_slice(word.as_bytes());
        text.push(b':');
        if *has_id {
            text.extend_from_slice(Decimal::new(u64::from(id)).bytes());
        }
        text.push(b':');
        for (bit, letter) in [(4, b'r'), (2, b'w'), (1, b'x')] {
            text.push(if permissions & bit != 0 { letter } else { b'-' });
        }
        text.push(b'\n');
    }
    Some(text)
}

/// Why the text of an ACL gave no binary form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclTextError {
    /// It is not the text of an ACL.
    Malformed,
    /// `resolve` does not know a name in it.
    UnknownName,
}

/// Binary form of an ACL's text: entries separated by commas or lines, with `#` comments, short or long words, names
/// or numbers, and star's fourth field with the number.
///
/// `resolve` turns the name of a user (`true`) or group (`false`) into its id.
pub fn acl_from_text(
    text: &[u8],
    resolve: &mut dyn FnMut(bool, &[u8]) -> Option<u32>,
) -> Result<Vec<u8>, AclTextError> {
    let mut entries: Vec<(u16, u32, u16)> = Vec::new();
    for line in text.split(|&b| b == b'\n') {
        let line = line.split(|&b| b == b'#').next().unwrap_or_default();
        for entry in line.split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
            entries.push(parse_entry(entry, resolve)?);
        }
    }
    // The kernel wants them in this order.
    entries.sort_unstable();
    if entries.is_empty() || entries.windows(2).any(|pair| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1)) {
        return Err(AclTextError::Malformed);
    }
    let mut binary = VERSION.to_vec();
    for (tag, id, permissions) in entries {
        binary.extend_from_slice(&tag.to_le_bytes());
        binary.extend_from_slice(&permissions.to_le_bytes());
        binary.extend_from_slice(&id.to_le_bytes());
    }
    Ok(binary)
}

fn parse_entry(
    entry: &[u8],
    resolve: &mut dyn FnMut(bool, &[u8]) -> Option<u32>,
) -> Result<(u16, u32, u16), AclTextError> {
    let mut fields = entry.split(|&b| b == b':').map(<[u8]>::trim_ascii);
    let word = fields.next().unwrap_or_default();
    let mut second = fields.next().ok_or(AclTextError::Malformed)?;
    let mut third = fields.next();
    // Solaris and star write "mask:rwx" and "other:rwx".
    if third.is_none() && matches!(word, b"m" | b"mask" | b"o" | b"other") {
        third = Some(std::mem::take(&mut second));
    }
    let letters = third.ok_or(AclTextError::Malformed)?;
    let (tag, user) = match (word, second.is_empty()) {
        (b"user" | b"u", true) => (0x01, true),
        (b"user" | b"u", false) => (0x02, true),
        (b"group" | b"g", true) => (0x04, false),
        (b"group" | b"g", false) => (0x08, false),
        (b"mask" | b"m", true) => (0x10, false),
        (b"other" | b"o", true) => (0x20, false),
        _ => return Err(AclTextError::Malformed),
    };
    let mut permissions = 0;
    for letter in letters {
        permissions |= match letter {
            b'r' => 4,
            b'w' => 2,
            b'x' => 1,
            b'-' => 0,
            _ => return Err(AclTextError::Malformed),
        };
    }
    let number = |text: &[u8]| decimal(text).and_then(|id| u32::try_from(id).ok());
    let id = if second.is_empty() {
        NO_ID
    } else if let Some(id) = number(second).or_else(|| fields.next().and_then(number)) {
        id
    } else {
        resolve(user, second).ok_or(AclTextError::UnknownName)?
    };
    Ok((tag, id, permissions))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody(_: bool, _: &[u8]) -> Option<u32> {
        None
    }

    #[test]
    fn text_and_binary_turn_into_each_other() {
        let text = b"user::rw-\nuser:1000:r--\nuser:4000000000:rwx\ngroup::r-x\ngroup:7:---\nmask::rwx\nother::---\n";
        let binary = acl_from_text(text, &mut nobody).unwrap();
        assert_eq!(binary.len(), 4 + 7 * 8);
        assert_eq!(acl_to_text(&binary).unwrap(), text);
        let other = b"other::---,g:7:-,g::rx,m:rwx,u:joe:rwx:4000000000,u:1000:r,user::rw-\t#effective:r--";
        assert_eq!(acl_from_text(other, &mut nobody).unwrap(), binary);
    }

    #[test]
    fn names_are_asked_for() {
        let text = b"user::rw-,user:joe:r--,group::r--,mask::r--,other::r--";
        assert_eq!(acl_from_text(text, &mut nobody), Err(AclTextError::UnknownName));
        let mut joe = |user: bool, name: &[u8]| (user && name == b"joe").then_some(1000);
        assert!(
            acl_to_text(&acl_from_text(text, &mut joe).unwrap())
                .unwrap()
                .windows(9)
                .any(|w| w == b"user:1000")
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [&b""[..], b"user", b"user:", b"user::q", b"x::rwx", b"mask:1:rwx", b"user::r,user::w"] {
            assert_eq!(
                acl_from_text(text, &mut nobody),
                Err(AclTextError::Malformed),
                "{}",
                text.escape_ascii()
            );
        }
        for binary in [
            &b""[..],
            &VERSION,
            b"\x02\0\0\0\x03\0\x07\0\0\0\0\0",
            b"\x02\0\0\0\x01\0\x08\0\0\0\0\0",
            b"\x02\0\0\0\x01",
        ] {
            assert_eq!(acl_to_text(binary), None);
        }
    }
}
