//! Everything that is printed: results to stdout, the rest to stderr.

pub(crate) mod error;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod lines;
pub(crate) mod plan;
pub(crate) mod printable;
pub(crate) mod progress;
pub(crate) mod repeated;
pub(crate) mod terminal;

use crate::failure::{Failure, Result};
use backup_kit::ArchiveSpec;
use serde_json::Value;
use std::io::Write;

/// How this run prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// One final object on stdout instead of text.
    pub(crate) json: bool,
    /// Events as JSON lines on stderr.
    pub(crate) events: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
    /// stderr is a terminal.
    pub(crate) terminal: bool,
    pub(crate) colour: bool,
}

impl Output {
    /// For what goes wrong before the arguments are known.
    pub(crate) fn only_json() -> Self {
        Output { json: true, events: false, quiet: false, verbose: false, terminal: false, colour: false }
    }

    /// A result for people; not with `--json` or `--quiet`. What was done stays done when nobody reads it.
    pub(crate) fn result(self, text: &str) -> Result<()> {
        if self.json || self.quiet { Ok(()) } else { unread_is_fine(self.always(text)) }
    }

    /// A result of one line, whatever names are in it.
    pub(crate) fn result_line(self, text: &str) -> Result<()> {
        self.result(&printable::line(text))
    }

    /// The result of a run that wrote an archive; if that went to stdout, this goes to stderr.
    pub(crate) fn beside(self, archive: &ArchiveSpec, text: &str) -> Result<()> {
        if archive.is_pipe() {
            text.lines().for_each(|line| self.info(line));
            return Ok(());
        }
        self.result(text)
    }

    /// What was asked for itself (a listing): also with `--quiet`.
    pub(crate) fn always(self, text: &str) -> Result<()> {
        self.write(&printable::text(text))
    }

    fn write(self, text: &str) -> Result<()> {
        let mut out = terminal::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    /// What must be seen even with `--quiet`; `--json` says it in its object.
    pub(crate) fn always_unless_json(self, text: &str) -> Result<()> {
        if self.json { Ok(()) } else { unread_is_fine(self.always(text)) }
    }

    /// The final object, if one is wanted.
    pub(crate) fn object(self, code: u8, object: Value) -> Result<()> {
        if !self.json {
            return Ok(());
        }
        unread_is_fine(self.write(&printable::json(&json::with_code(code, object).to_string())))
    }

    pub(crate) fn info(self, text: impl AsRef<str>) {
        if !self.quiet && !self.events {
            lines::print(self, lines::Level::Info, text.as_ref());
        }
    }

    /// For logs: on a terminal the result says it.
    pub(crate) fn success(self, text: impl AsRef<str>) {
        if !self.quiet && !self.events && !self.terminal {
            lines::print(self, lines::Level::Success, text.as_ref());
        }
    }

    pub(crate) fn warning(self, text: impl AsRef<str>) {
        lines::print(self, lines::Level::Warning, text.as_ref());
    }
}

/// The exit code says how a run ended; that the reader of its report has gone away does not change it.
fn unread_is_fine(written: Result<()>) -> Result<()> {
    match written {
        Err(Failure::ReaderGone) => Ok(()),
        other => other,
    }
}
