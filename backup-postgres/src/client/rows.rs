//! Counts rows in the stream of a COPY, to be compared with what the server says.

/// Eleven bytes of signature, four of flags, four for the length of an extension.
const HEADER: usize = 19;
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";

/// Counts rows of one COPY, in whatever pieces it comes.
pub(crate) struct RowCounter {
    rows: u64,
    state: State,
}

enum State {
    /// Every row ends with a line feed; those inside of values are written as `\n`.
    Text {
        ended: bool,
    },
    Header(Vec<u8>),
    /// So many bytes that do not matter, then this.
    Skip(u64, Next),
    /// A number of so many bytes, as far as it has come.
    Number {
        bytes: usize,
        read: usize,
        value: u32,
        left: u32,
    },
    End,
}

#[derive(Clone, Copy)]
enum Next {
    Row,
    Field(u32),
}

impl RowCounter {
    pub(crate) fn new(binary: bool) -> Self {
        let state = if binary { State::Header(Vec::new()) } else { State::Text { ended: true } };
        RowCounter { rows: 0, state }
    }

    /// The next piece.
    pub(crate) fn see(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        if let State::Text { ended } = &mut self.state {
            if let Some(last) = bytes.last() {
                *ended = *last == b'\n';
            }
            self.rows += bytes.iter().filter(|b| **b == b'\n').count() as u64;
            return Ok(());
        }
        while !bytes.is_empty() {
            if let State::Number { bytes: 2, read: 0, .. } = self.state {
                bytes = self.whole_rows(bytes);
                if bytes.is_empty() {
                    return Ok(());
                }
            }
            match &mut self.state {
                State::Header(read) => {
                    let n = bytes.len().min(HEADER - read.len());
                    read.extend_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                    if read.len() == HEADER {
                        if !read.starts_with(SIGNATURE) {
                            return Err("this is no binary COPY");
                        }
                        let extension = read[15..].iter().fold(0, |n, b| n << 8 | u64::from(*b));
                        self.state = State::Skip(extension, Next::Row).or_number();
                    }
                }
                State::Skip(left, next) => {
                    let n = (*left).min(bytes.len() as u64);
                    *left -= n;
                    bytes = &bytes[n as usize..];
                    let next = *next;
                    if *left == 0 {
                        self.state = State::number(next);
                    }
                }
                State::Number { bytes: wanted, read, value, left } => {
                    *value = *value << 8 | u32::from(bytes[0]);
                    *read += 1;
                    bytes = &bytes[1..];
                    if read == wanted {
                        let (wanted, value, left) = (*wanted, *value, *left);
                        self.number(wanted == 2, value, left);
                    }
                }
                State::End => return Err("bytes after the end of a binary COPY"),
                State::Text { .. } => {}
            }
        }
        Ok(())
    }

    /// The quick way through rows that are whole in these bytes, as they mostly are; the rest is not.
    fn whole_rows<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        while let Some(rest) = after_row(bytes) {
            self.rows += 1;
            bytes = rest;
        }
        bytes
    }

    fn number(&mut self, of_row: bool, value: u32, left: u32) {
        if of_row {
            if value == 0xffff {
                self.state = State::End;
                return;
            }
            self.rows += 1;
            self.state = State::number(if value == 0 { Next::Row } else { Next::Field(value) });
            return;
        }
        let next = if left <= 1 { Next::Row } else { Next::Field(left - 1) };
        // -1 is NULL: no bytes follow.
        let length = if value == u32::MAX { 0 } else { u64::from(value) };
        self.state = State::Skip(length, next).or_number();
    }

    /// Rows so far; once the stream has ended, an error if it ended in the middle of one.
    pub(crate) fn rows(&self) -> Result<u64, &'static str> {
        match self.state {
            State::Text { ended: true } | State::End => Ok(self.rows),
            _ => Err("the COPY ended in the middle of a row"),
        }
    }
}

/// What follows a row that is whole; `None`: it is not, or it is the end.
fn after_row(bytes: &[u8]) -> Option<&[u8]> {
    let (fields, mut rest) = bytes.split_first_chunk::<2>()?;
    let fields = u16::from_be_bytes(*fields);
    if fields == 0xffff {
        return None;
    }
    for _ in 0..fields {
        let (length, value) = rest.split_first_chunk::<4>()?;
        let length = match u32::from_be_bytes(*length) {
            u32::MAX => 0,
            length => usize::try_from(length).ok()?,
        };
        rest = value.get(length..)?;
    }
    Some(rest)
}

impl State {
    fn number(next: Next) -> Self {
        match next {
            Next::Row => State::Number { bytes: 2, read: 0, value: 0, left: 0 },
            Next::Field(left) => State::Number { bytes: 4, read: 0, value: 0, left },
        }
    }

    fn or_number(self) -> Self {
        match self {
            State::Skip(0, next) => Self::number(next),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary() -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend([0, 0, 0, 0, 0, 0, 0, 0]);
        out.extend([0, 2, 0, 0, 0, 3, b'a', b'\n', 0xff, 0xff, 0xff, 0xff, 0xff]);
        out.extend([0, 0]);
        out.extend([0, 1, 0, 0, 0, 0]);
        out.extend([0xff, 0xff]);
        out
    }

    #[test]
    fn rows_are_counted_whatever_pieces_they_come_in() {
        for (is_binary, bytes, rows) in
            [(true, binary(), 3), (false, b"a\tb\n\\n\n\n".to_vec(), 3), (false, vec![], 0)]
        {
            for piece in 1..=bytes.len().max(1) {
                let mut counter = RowCounter::new(is_binary);
                bytes.chunks(piece).try_for_each(|c| counter.see(c)).unwrap();
                assert_eq!(counter.rows(), Ok(rows), "in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_stream_that_ends_in_a_row_is_an_error() {
        let bytes = binary();
        for length in 0..bytes.len() {
            let mut counter = RowCounter::new(true);
            counter.see(&bytes[..length]).unwrap();
            assert!(counter.rows().is_err(), "{length}");
        }
        let mut counter = RowCounter::new(false);
        counter.see(b"whole\nhalf").unwrap();
        assert!(counter.rows().is_err());
    }
}
