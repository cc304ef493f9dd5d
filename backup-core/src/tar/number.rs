//! Numbers in header blocks: octal text, or base-256 as GNU tar writes what octal cannot hold.

use super::error::TarFault;

/// Fills `field` with octal digits and a NUL. A value too large for the field becomes the largest that fits: pax
/// holds the truth, and a program that ignores pax must not read a small number (owner 0 above all).
pub(super) fn put_octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let mut rest = value.min(largest_octal(field.len()));
    for byte in field[..digits].iter_mut().rev() {
        *byte = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
    field[digits] = 0;
}

/// The largest number that octal digits and a NUL in `field_length` bytes can hold.
pub(super) const fn largest_octal(field_length: usize) -> u64 {
    (1 << (3 * (field_length - 1))) - 1
}

/// Fills `field` in base 256.
pub(super) fn put_base256(field: &mut [u8], value: u64) {
    field.fill(0);
    for (byte, digit) in field.iter_mut().rev().zip(value.to_le_bytes()) {
        *byte = digit;
    }
    field[0] |= 0x80;
}

/// Reads octal or base-256; a blank field is zero, as old programs leave what does not apply.
pub(super) fn signed(field: &[u8], name: &'static str) -> Result<i64, TarFault> {
    let value = match field.first() {
        Some(&first) if first & 0x80 != 0 => base256(field, first),
        _ => octal(field).and_then(|value| i64::try_from(value).ok()),
    };
    value.ok_or(TarFault::Number(name))
}

/// Like [`signed`], for what cannot be negative.
pub(super) fn unsigned(field: &[u8], name: &'static str) -> Result<u64, TarFault> {
    u64::try_from(signed(field, name)?).map_err(|_| TarFault::Number(name))
}

fn base256(field: &[u8], first: u8) -> Option<i64> {
    // Two's complement; the top bit is the mark, the next one the sign.
    let negative = first & 0x40 != 0;
    let mut value: i128 = if negative { i128::from(first) - 0x100 } else { i128::from(first & 0x3f) };
    for &byte in &field[1..] {
        value = value.checked_mul(256)? + i128::from(byte);
    }
    i64::try_from(value).ok()
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = field.trim_ascii_start();
    let end = text.iter().position(|b| !(b'0'..=b'7').contains(b)).unwrap_or(text.len());
    if !text[end..].iter().all(|&b| b == 0 || b == b' ') {
        return None;
    }
    text[..end]
        .iter()
        .try_fold(0u64, |value, &digit| value.checked_mul(8)?.checked_add(u64::from(digit - b'0')))
}

/// Reads a decimal number, digits only.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u64, |value, &byte| {
        if !byte.is_ascii_digit() {
            return None;
        }
        value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))
    })
}

/// Decimal digits of a number, without an allocation.
pub(super) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(super) fn new(mut value: u64) -> Decimal {
        let (mut digits, mut start) = ([0; 20], 20);
        loop {
            start -= 1;
            digits[start] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return Decimal { digits, start };
            }
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_is_read_with_any_usual_ending() {
        for field in [&b"0000644\0"[..], b"   644 \0", b"644     ", b"00000644", b"644\0\0\0\0\0"] {
            assert_eq!(signed(field, "mode").unwrap(), 0o644);
        }
        assert_eq!(signed(&[0; 8], "mode").unwrap(), 0);
        for field in [&b"0000648\0"[..], b"-000644\0", b"6 44\0\0\0\0", b"12\x0034\0\0\0"] {
            assert!(signed(field, "mode").is_err(), "{field:?}");
        }
    }

    #[test]
    fn base256_holds_large_and_negative_numbers() {
        assert_eq!(signed(&[0x80, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 1], "size").unwrap(), (2i64 << 56) + 1);
        assert_eq!(signed(&[0xff; 12], "mtime").unwrap(), -1);
        assert!(unsigned(&[0xff; 12], "size").is_err());
        assert!(signed(&[0x80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], "size").is_err());
        let mut field = [0; 8];
        put_base256(&mut field, u64::from(u32::MAX));
        assert_eq!(unsigned(&field, "devminor").unwrap(), u64::from(u32::MAX));
    }

    #[test]
    fn what_octal_cannot_hold_becomes_its_largest() {
        let mut field = [0; 8];
        put_octal(&mut field, u64::MAX);
        assert_eq!(&field, b"7777777\0");
    }
}
