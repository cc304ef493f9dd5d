//! How a portable archive is written.

use super::{Compression, name};
use crate::{
    Error, Result,
    encryption::{Identities, Recipients},
};

/// How a portable archive is written. The defaults are measured ones.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PortableOptions {
    /// Of new backups in a folder; a single file tells by its name.
    pub compression: Compression,
    /// Of the compression; `None`: its default (zstd: 3, gzip and xz: 6).
    pub level: Option<i32>,
    /// To whom new backups are encrypted; nobody: they are not.
    pub recipients: Recipients,
    /// With what encrypted backups are read.
    pub identities: Identities,
    /// Why no backup may be made here now, known to whoever opens it.
    pub refused: Option<Error>,
    /// Of file names in a folder: `{module}`, `{date}`, `{time}` (UTC), `{id}`.
    pub name_template: String,
    /// Bytes of a frame before compression. 4 MiB cost 1.2 % of size against one stream of zstd.
    pub(super) frame: usize,
    /// Bytes of a segment of a stream of unknown length; the first ones are half as long. What is shorter goes into the tar as a whole.
    pub(super) segment: usize,
    /// Frames compressed at the same time.
    pub(super) threads: usize,
}

impl Default for PortableOptions {
    fn default() -> Self {
        PortableOptions {
            compression: Compression::default(),
            level: None,
            recipients: Recipients::default(),
            identities: Identities::default(),
            refused: None,
            name_template: name::DEFAULT_TEMPLATE.to_owned(),
            frame: 4 << 20,
            segment: 8 << 20,
            threads: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 16),
        }
    }
}

impl PortableOptions {
    /// Smaller frames and segments, in bytes: less memory, worse compression. For tests and small machines.
    #[must_use]
    pub fn with_sizes(mut self, frame: usize, segment: usize) -> Self {
        (self.frame, self.segment) = (frame.clamp(4096, 16 << 20), segment.clamp(4096, 64 << 20));
        self
    }

    /// The ending of the names of new backups, without the leading dot.
    pub(super) fn extension(&self) -> String {
        let encrypted = if self.recipients.is_empty() { "" } else { name::ENCRYPTED };
        format!("{}{encrypted}", self.compression.extension())
    }

    pub(super) fn check(&self) -> Result<()> {
        name::check_template(&self.name_template)?;
        self.level.map_or(Ok(()), |level| self.compression.check_level(level))
    }
}
