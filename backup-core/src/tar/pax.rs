//! Pax records: `LENGTH KEY=VALUE\n`, where LENGTH counts itself.

use super::error::TarFault;
use super::number::{Decimal, decimal};

/// Appends a record whose key is `prefix` and `key` in one.
pub(super) fn put_record(out: &mut Vec<u8>, prefix: &[u8], key: &[u8], value: &[u8]) {
    let rest = prefix.len() + key.len() + value.len() + 3;
    let mut length = rest + 1;
    loop {
        let digits = Decimal::new(length as u64).bytes().len();
        if rest + digits == length {
            break;
        }
        length = rest + digits;
    }
    out.reserve(length);
    out.extend_from_slice(Decimal::new(length as u64).bytes());
    out.push(b' ');
    out.extend_from_slice(prefix);
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Appends a record with a number.
pub(super) fn put_number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    put_record(out, b"", key, Decimal::new(value).bytes());
}

/// Splits records into keys and values.
pub(super) struct Records<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), TarFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.split();
        if record.is_err() {
            self.0 = &[];
        }
        Some(record)
    }
}

impl<'a> Records<'a> {
    fn split(&mut self) -> Result<(&'a [u8], &'a [u8]), TarFault> {
        // A length has at most 20 digits.
        let space = self.0.iter().take(21).position(|&b| b == b' ').ok_or(TarFault::Pax("no length"))?;
        let length = decimal(&self.0[..space]).ok_or(TarFault::Pax("its length is not a number"))?;
        let length = usize::try_from(length).ok().filter(|&length| length <= self.0.len());
        let length = length.ok_or(TarFault::Pax("its length reaches beyond the header"))?;
        let Some((&b'\n', body)) = self.0.get(space + 1..length).and_then(|body| body.split_last()) else {
            return Err(TarFault::Pax("no newline where its length says"));
        };
        let equals = body.iter().position(|&b| b == b'=').ok_or(TarFault::Pax("no equals sign"))?;
        if equals == 0 {
            return Err(TarFault::Pax("no key"));
        }
        self.0 = &self.0[length..];
        Ok((&body[..equals], &body[equals + 1..]))
    }
}

/// A time as decimal seconds, at most 31 bytes.
pub(super) fn put_time(out: &mut Vec<u8>, key: &[u8], (seconds, nanoseconds): (i64, u32)) {
    let nanoseconds = nanoseconds.min(999_999_999);
    let mut text = [0u8; 32];
    let mut length = 0;
    let mut add = |bytes: &[u8]| {
        text[length..length + bytes.len()].copy_from_slice(bytes);
        length += bytes.len();
    };
    // Half a second before 1970 is (-1, 500000000) here and "-0.5" there.
    let (whole, fraction) = if seconds < 0 && nanoseconds > 0 {
        ((seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds)
    } else {
        (seconds.unsigned_abs(), nanoseconds)
    };
    if seconds < 0 {
        add(b"-");
    }
    add(Decimal::new(whole).bytes());
    if fraction > 0 {
        // A one before the nine digits keeps their leading zeros.
        let digits = Decimal::new(u64::from(fraction) + 1_000_000_000);
        let digits = &digits.bytes()[1..];
        let kept = digits.iter().rposition(|&d| d != b'0').map_or(0, |last| last + 1);
        add(b".");
        add(&digits[..kept]);
    }
    put_record(out, b"", key, &text[..length]);
}

/// Reads decimal seconds; what is finer than a nanosecond is rounded down.
pub(super) fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |&b| b == b'.');
    let whole = i128::from(decimal(parts.next()?)?);
    let fraction = parts.next().unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = (0..9)
        .fold(0i128, |value, i| value * 10 + i128::from(fraction.get(i).map_or(0, |digit| digit - b'0')));
    if negative && fraction.iter().skip(9).any(|&digit| digit != b'0') {
        nanoseconds += 1;
    }
    let total = whole * 1_000_000_000 + nanoseconds;
    let total = if negative { -total } else { total };
    let seconds = i64::try_from(total.div_euclid(1_000_000_000)).ok()?;
    Some((seconds, total.rem_euclid(1_000_000_000) as u32))
}

/// Escapes the name of an extended attribute as GNU tar does: a key ends at the first equals sign.
pub(super) fn escape_key(name: &[u8]) -> Option<Vec<u8>> {
    if !name.iter().any(|b| matches!(b, b'%' | b'=')) {
        return None;
    }
    let mut escaped = Vec::with_capacity(name.len() + 8);
    for &byte in name {
        match byte {
            b'%' => escaped.extend_from_slice(b"%25"),
            b'=' => escaped.extend_from_slice(b"%3D"),
            other => escaped.push(other),
        }
    }
    Some(escaped)
}

/// Undoes [`escape_key`]; any other percent sign stays.
pub(super) fn unescape_key(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, used) = match rest.get(..3) {
            Some(b"%3D") => (b'=', 3),
            Some(b"%25") => (b'%', 3),
            _ => (first, rest.len() - after.len()),
        };
        name.push(byte);
        rest = &rest[used..];
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_records_length_counts_itself() {
        for size in 0..1200 {
            let value = vec![b'v'; size];
            let mut out = Vec::new();
            put_record(&mut out, b"p.", b"k", &value);
            assert!(out.starts_with(out.len().to_string().as_bytes()), "{size}");
            let records: Vec<_> = Records(&out).map(Result::unwrap).collect();
            assert_eq!(records, [(&b"p.k"[..], &value[..])]);
        }
    }

    #[test]
    fn lying_records_are_errors() {
        let cases: [&[u8]; 12] = [
            b"6 a=b",
            b"7 a=b\n",
            b"5 a=b\n",
            b"0 a=b\n",
            b"2 ",
            b" a=b\n",
            b"x a=b\n",
            b"6  ab \n",
            b"5 =b\n",
            b"99999999999999999999 a=b\n",
            b"18446744073709551616 a=b\n",
            b"000000000000000000000000006 a=b\n",
        ];
        for case in cases {
            assert!(Records(case).any(|record| record.is_err()), "{}", case.escape_ascii());
        }
    }

    #[test]
    fn times_keep_every_nanosecond_on_both_sides_of_1970() {
        let cases: [((i64, u32), &[u8]); 8] = [
            ((0, 0), b"8 t=0\n"),
            ((1, 5), b"17 t=1.000000005\n"),
            ((-1, 500_000_000), b"9 t=-0.5\n"),
            ((-1, 0), b"8 t=-1\n"),
            ((-1, 999_999_999), b"18 t=-0.000000001\n"),
            ((-2, 1), b"18 t=-1.999999999\n"),
            ((i64::MAX, 999_999_999), b""),
            ((i64::MIN, 1), b""),
        ];
        for (time, text) in cases {
            let mut out = Vec::new();
            put_time(&mut out, b"t", time);
            if !text.is_empty() {
                let length = text.len() - text.iter().position(|&b| b == b' ').unwrap();
                assert!(out.ends_with(&text[text.len() - length..]), "{}", out.escape_ascii());
            }
            let (_, value) = Records(&out).next().unwrap().unwrap();
            assert_eq!(parse_time(value), Some(time));
        }
        assert_eq!(parse_time(b"-0.0000000001"), Some((-1, 999_999_999)));
        for bad in [&b""[..], b"-", b".5", b"1.x", b"1.2.3", b"99999999999999999999", b"9223372036854775808"]
        {
            assert_eq!(parse_time(bad), None);
        }
    }

    #[test]
    fn attribute_names_are_escaped_both_ways() {
        for name in [&b"user.a=b%c"[..], b"user.%3D", b"=%=%", b"user.plain", b"%", b"a%2"] {
            let escaped = escape_key(name).unwrap_or(name.to_vec());
            assert!(!escaped.contains(&b'='));
            assert_eq!(unescape_key(&escaped), name);
        }
    }
}
