//! Pulling members out of a stream that is not to be trusted.

use std::io::{ErrorKind, Read};

use super::assemble::{Overrides, Preceding, old_gnu_extents, old_gnu_size, set_old_gnu_map};
use super::error::{TarError, TarFault};
use super::header::Header;
use super::member::{BLOCK, Extent, Member, padded};
use super::sparse::{Extents, SparseMapDecoder};

/// How much a reader lets an archive take, and how particular it is.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest pax header or GNU long name, in bytes; held in memory about twice.
    pub max_pax_bytes: u64,
    /// Most extents of a sparse file; 16 bytes of memory each.
    pub max_sparse_extents: usize,
    /// Whether padding, and what follows the end of the archive, must be zeros.
    pub strict: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_pax_bytes: 1 << 20, max_sparse_extents: 1 << 20, strict: false }
    }
}

/// A reader of tar archives: members in the order of the stream, each with its data before the next.
///
/// Memory is bounded by the [`Limits`]. After an error nothing more can be read.
pub struct TarReader<R> {
    input: Input<R>,
    limits: Limits,
    global: Overrides,
    member: Option<Vec<u8>>,
    data: u64,
    padding: u64,
    state: State,
    scratch: Box<[u8]>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Reading,
    Ended,
    Failed,
}

impl<R: Read> TarReader<R> {
    /// Reads an archive that starts where `reader` is. The reads are as small as the headers: buffer what is slow.
    pub fn new(reader: R, limits: Limits) -> TarReader<R> {
        TarReader {
            input: Input { inner: reader, offset: 0 },
            limits,
            global: Overrides::default(),
            member: None,
            data: 0,
            padding: 0,
            state: State::Reading,
            scratch: vec![0; 16 << 10].into_boxed_slice(),
        }
    }

    /// The next member with the offsets of its first header and of its data; `None` at the end of the archive. Data
    /// of the last one that were not read are skipped.
    pub fn next_member(&mut self) -> Result<Option<(Member, u64, u64)>, TarError> {
        match self.state {
            State::Reading => {}
            State::Ended => return Ok(None),
            State::Failed => return Err(self.fail(TarFault::Failed)),
        }
        self.skip_data()?;
        self.member = None;
        let start = self.input.offset;
        match read_headers(&mut self.input, &self.limits, &mut self.global, &mut self.member) {
            Ok(Some(member)) => {
                self.data = member.size;
                self.padding = padded(member.size) - member.size;
                Ok(Some((member, start, self.input.offset)))
            }
            Ok(None) => {
                self.state = State::Ended;
                Ok(None)
            }
            Err(fault) => Err(TarError { offset: start, ..self.fail(fault) }),
        }
    }

    /// Reads data of the current member into `buf`; 0 at their end.
    pub fn read_data(&mut self, buf: &mut [u8]) -> Result<usize, TarError> {
        if self.state == State::Failed {
            return Err(self.fail(TarFault::Failed));
        }
        let wanted = buf.len().min(usize::try_from(self.data).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        match self.input.read(&mut buf[..wanted]) {
            Ok(0) => Err(self.fail(TarFault::Truncated)),
            Ok(read) => {
                self.data -= read as u64;
                Ok(read)
            }
            Err(fault) => Err(self.fail(fault)),
        }
    }

    /// Where the data of `member` belong, if it is sparse and the current one with nothing read: reads the map if it
    /// stands before the data, so that the extents' bytes come next.
    pub fn read_sparse_map(&mut self, member: &Member) -> Result<Option<Vec<Extent>>, TarError> {
        let Some(real_size) = member.sparse_size else { return Ok(None) };
        if let Some(map) = &member.sparse_map {
            return Ok(Some(map.clone()));
        }
        let mut decoder = SparseMapDecoder::new(member.size, real_size, self.limits.max_sparse_extents);
        loop {
            let mut block = [0; BLOCK];
            let mut filled = 0;
            while filled < BLOCK {
                match self.read_data(&mut block[filled..])? {
                    0 => return Err(self.fail(TarFault::Sparse("the map is longer than the data"))),
                    read => filled += read,
                }
            }
            match decoder.push(&block) {
                Ok(true) => break,
                Ok(false) => {}
                Err(fault) => return Err(self.fail(fault)),
            }
        }
        decoder.finish().map(|(extents, _)| Some(extents)).map_err(|fault| self.fail(fault))
    }

    /// Reads what is left: members not yet asked for, then everything behind the end of the archive. Returns how many
    /// bytes stood behind it; if reading strictly, they must be zeros (programs pad to 10 KiB and more).
    pub fn finish(mut self) -> Result<u64, TarError> {
        while self.next_member()?.is_some() {}
        let end = self.input.offset;
        loop {
            let read = self.input.read(&mut self.scratch).map_err(|fault| self.fail(fault))?;
            if read == 0 {
                return Ok(self.input.offset - end);
            }
            if self.limits.strict && self.scratch[..read].iter().any(|&b| b != 0) {
                return Err(TarError { offset: end, ..self.fail(TarFault::Trailing) });
            }
        }
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut result = Ok(1);
        while self.data > 0 && result.is_ok() {
            result = self.read_data(&mut scratch);
        }
        self.scratch = scratch;
        result?;
        let mut padding = [0; BLOCK];
        let padding = &mut padding[..self.padding as usize];
        self.padding = 0;
        self.input.fill(padding).map_err(|fault| self.fail(fault))?;
        if self.limits.strict && padding.iter().any(|&b| b != 0) {
            return Err(self.fail(TarFault::Padding));
        }
        Ok(())
    }

    fn fail(&mut self, fault: TarFault) -> TarError {
        self.state = State::Failed;
        TarError { offset: self.input.offset, member: self.member.clone(), fault }
    }
}

impl Member {
    /// Reads the headers of the member that starts at the beginning of `bytes`: the member and the length of its
    /// headers, or `None` if more bytes are needed. [`Limits`] are the default ones.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Member, usize)>, TarError> {
        let mut input = Input { inner: bytes, offset: 0 };
        let mut path = None;
        match read_headers(&mut input, &Limits::default(), &mut Overrides::default(), &mut path) {
            Ok(Some(member)) => Ok(Some((member, bytes.len() - input.inner.len()))),
            Ok(None) => Err(TarError { offset: 0, member: None, fault: TarFault::End }),
            Err(TarFault::Truncated | TarFault::NoEnd) => Ok(None),
            Err(fault) => Err(TarError { offset: 0, member: path, fault }),
        }
    }
}

/// Reads header blocks up to a member's data; `None` at the end of the archive. `path` is set as soon as it is known.
fn read_headers<R: Read>(
    input: &mut Input<R>,
    limits: &Limits,
    global: &mut Overrides,
    path: &mut Option<Vec<u8>>,
) -> Result<Option<Member>, TarFault> {
    let mut preceding = Preceding::default();
    loop {
        let mut block = [0; BLOCK];
        match input.fill_or_end(&mut block)? {
            false if preceding.is_empty() => return Err(TarFault::NoEnd),
            false => return Err(TarFault::Truncated),
            true => {}
        }
        if block == [0; BLOCK] {
            if !preceding.is_empty() {
                return Err(TarFault::Dangling);
            }
            if !input.fill_or_end(&mut block)? {
                return Err(TarFault::NoEnd);
            }
            return if block == [0; BLOCK] { Ok(None) } else { Err(TarFault::LoneZeroBlock) };
        }
        let header = Header::new(&block)?;
        match header.typeflag() {
            // Sun's name for the same, before POSIX had one.
            b'x' | b'X' => {
                let data = extended(input, &header, limits)?;
                once(&mut preceding.local, Overrides::parse(&data, limits)?, "pax")?;
            }
            b'g' => {
                let data = extended(input, &header, limits)?;
                global.merge_global(Overrides::parse(&data, limits)?)?;
            }
            b'L' => once(&mut preceding.long_name, long_name(input, &header, limits)?, "long name")?,
            b'K' => once(&mut preceding.long_link, long_name(input, &header, limits)?, "long link")?,
            typeflag => {
                let known = preceding.path(&header);
                *path = Some(known.clone());
                let mut member = preceding.member(known, &header, global, limits)?;
                if typeflag == b'S' {
                    read_old_gnu_map(input, &block, &mut member, limits)?;
                }
                input.offset.checked_add(padded(member.size)).ok_or(TarFault::TooLarge)?;
                return Ok(Some(member));
            }
        }
    }
}

fn read_old_gnu_map<R: Read>(
    input: &mut Input<R>,
    block: &[u8; BLOCK],
    member: &mut Member,
    limits: &Limits,
) -> Result<(), TarFault> {
    let real_size = old_gnu_size(block)?;
    let mut extents = Extents::new(real_size, limits.max_sparse_extents);
    let mut more = old_gnu_extents(block, true, &mut extents)?;
    let mut blocks = 0;
    while more {
        let mut block = [0; BLOCK];
        input.fill(&mut block)?;
        more = old_gnu_extents(&block, false, &mut extents)?;
        // Blocks without extents would not run into the limit.
        blocks += 1;
        if blocks > limits.max_sparse_extents {
            return Err(TarFault::TooManyExtents(limits.max_sparse_extents));
        }
    }
    let map = extents.finish(member.size)?;
    set_old_gnu_map(member, real_size, map)
}

/// The data of an extended header.
fn extended<R: Read>(
    input: &mut Input<R>,
    header: &Header<'_>,
    limits: &Limits,
) -> Result<Vec<u8>, TarFault> {
    let (size, limit) = (header.size()?, limits.max_pax_bytes);
    let length = usize::try_from(size).ok().filter(|_| size <= limit);
    let length = length.ok_or(TarFault::HeaderTooLarge { size, limit })?;
    let mut data = vec![0; length.next_multiple_of(BLOCK)];
    input.fill(&mut data)?;
    if limits.strict && data[length..].iter().any(|&b| b != 0) {
        return Err(TarFault::Padding);
    }
    data.truncate(length);
    Ok(data)
}

fn long_name<R: Read>(
    input: &mut Input<R>,
    header: &Header<'_>,
    limits: &Limits,
) -> Result<Vec<u8>, TarFault> {
    let mut name = extended(input, header, limits)?;
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

fn once<T>(place: &mut Option<T>, value: T, what: &'static str) -> Result<(), TarFault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(TarFault::Repeated(what)),
    }
}

/// A stream and the place in it.
struct Input<R> {
    inner: R,
    offset: u64,
}

impl<R: Read> Input<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, TarFault> {
        loop {
            match self.inner.read(buf) {
                Ok(read) => {
                    self.offset += read as u64;
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(TarFault::Io(error)),
            }
        }
    }

    /// `false` if the stream ends before the first byte.
    fn fill_or_end(&mut self, buf: &mut [u8]) -> Result<bool, TarFault> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read(&mut buf[filled..])? {
                0 if filled == 0 => return Ok(false),
                0 => return Err(TarFault::Truncated),
                read => filled += read,
            }
        }
        Ok(true)
    }

    fn fill(&mut self, buf: &mut [u8]) -> Result<(), TarFault> {
        if self.fill_or_end(buf)? { Ok(()) } else { Err(TarFault::Truncated) }
    }
}
