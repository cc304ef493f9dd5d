//! What everything that reads a source shares: for whom it reads, and what must be said.

use crate::source::retrying::Retries;
use backup_core::{Context, Error, ErrorKind, Severity, display_path};
use std::{io, path::PathBuf, time::Duration};

/// One pour of one source.
pub(crate) struct Run {
    pub(crate) component: String,
    pub(crate) cx: Context,
    /// Canonical.
    pub(crate) root: PathBuf,
    pub(crate) strict: bool,
    pub(crate) busy_limit: Duration,
    pub(crate) retries: Retries,
}

impl Run {
    /// Worth knowing.
    pub(crate) fn note(&self, path: &[u8], text: &str) {
        self.cx.note(Severity::Note, &self.component, display_path(path), text);
    }

    /// Worth acting on; with `strict`, a loss.
    pub(crate) fn warn(&self, path: &[u8], text: &str) {
        let severity = if self.strict { Severity::Lost } else { Severity::Warning };
        self.cx.note(severity, &self.component, display_path(path), text);
    }

    /// Missing from the backup.
    pub(crate) fn lost(&self, path: &[u8], text: &str) {
        self.cx.note(Severity::Lost, &self.component, display_path(path), text);
    }

    /// Why something of this source cannot be read.
    pub(crate) fn unreadable(&self, path: &[u8], operation: &'static str, e: io::Error) -> Error {
        Error::io(ErrorKind::Source, operation, e).on(display_path(path))
    }
}
