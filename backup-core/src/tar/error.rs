//! What can be wrong with a tar archive.

use std::fmt;
use std::io;

/// A fault, with the place where it was met.
#[derive(Debug)]
pub struct TarError {
    /// Bytes from the start of the stream: of the member's first header for a fault in headers, of the current
    /// position for a fault in data.
    pub offset: u64,
    /// Path of the member where known.
    pub member: Option<Vec<u8>>,
    /// What is wrong.
    pub fault: TarFault,
}

impl fmt::Display for TarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tar: byte {}", self.offset)?;
        if let Some(member) = &self.member {
            // A hostile name may be a megabyte of control characters.
            let shown = &member[..member.len().min(200)];
            let more = if shown.len() < member.len() { "…" } else { "" };
            write!(f, ", member \"{}{more}\"", String::from_utf8_lossy(shown).escape_debug())?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl std::error::Error for TarError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.fault {
            TarFault::Io(error) => Some(error),
            _ => None,
        }
    }
}

/// What is wrong with an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarFault {
    /// The stream beneath failed.
    #[error("cannot read: {0}")]
    Io(io::Error),
    /// The stream ends within a header or data.
    #[error("the archive is cut short")]
    Truncated,
    /// The stream ends where a header or the end-of-archive blocks should be.
    #[error("the archive is cut short: its end-of-archive blocks are missing")]
    NoEnd,
    /// One block of zeros where a header should be, without a second.
    #[error("a block of zeros stands where a header should be")]
    LoneZeroBlock,
    /// The header's checksum is wrong.
    #[error("bad header checksum")]
    Checksum,
    /// A number in a header cannot be read or is out of range.
    #[error("bad number in header field {0}")]
    Number(&'static str),
    /// A pax header or long name is larger than allowed.
    #[error("an extended header claims {size} bytes, more than the limit of {limit}")]
    HeaderTooLarge {
        /// Bytes claimed.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A pax record is not as it should be.
    #[error("bad pax record: {0}")]
    Pax(&'static str),
    /// A pax record has a value that cannot be right.
    #[error("bad value in pax record {0}")]
    PaxValue(&'static str),
    /// Two extended headers of one sort precede a member.
    #[error("a member has two {0} headers")]
    Repeated(&'static str),
    /// An extended header precedes the end of the archive.
    #[error("an extended header is followed by no member")]
    Dangling,
    /// The path is empty.
    #[error("the path is empty")]
    EmptyPath,
    /// The path or link has a NUL in it.
    #[error("the {0} has a NUL byte in it")]
    Nul(&'static str),
    /// A link leads nowhere.
    #[error("a link without target")]
    EmptyLink,
    /// Programs disagree whether data follow such a header.
    #[error("a link, directory or special file claims {0} bytes of data")]
    DataWithoutFile(u64),
    /// Positions beyond 2^63 bytes.
    #[error("the size is out of range")]
    TooLarge,
    /// A sparse map is not as it should be.
    #[error("bad sparse file: {0}")]
    Sparse(&'static str),
    /// A sparse map has more extents than allowed.
    #[error("a sparse file has more than {0} extents, the limit")]
    TooManyExtents(usize),
    /// The text of an ACL cannot be read.
    #[error("bad ACL text")]
    Acl,
    /// Padding is not zero (only when reading strictly).
    #[error("the padding is not zero")]
    Padding,
    /// Something follows the end of the archive (only when reading strictly).
    #[error("data follow the end of the archive")]
    Trailing,
    /// A block of zeros was given to be decoded as a member.
    #[error("the end of the archive, where a member should be")]
    End,
    /// The reader has reported an error before and does not know where it is.
    #[error("reading has already failed")]
    Failed,
}
