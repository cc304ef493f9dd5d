//! Why a race ended without a result.

use std::fmt;

/// Exit code: all bars are met.
pub(crate) const PASS: u8 = 0;
/// Exit code: a bar is missed, or a side failed.
pub(crate) const FAIL: u8 = 1;
/// Exit code: wrong call, or the machine lacks something.
pub(crate) const USAGE: u8 = 2;
/// Exit code: the machine was not quiet, so nothing is judged.
pub(crate) const NO_VERDICT: u8 = 3;

#[derive(Debug)]
pub(crate) enum Failure {
    /// A side failed, or a file could not be written.
    Failed(String),
    /// Wrong call, or the machine lacks something.
    Usage(String),
    /// The machine is not quiet.
    Loaded(String),
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) => FAIL,
            Failure::Usage(_) => USAGE,
            Failure::Loaded(_) => NO_VERDICT,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(why) | Failure::Usage(why) => f.write_str(why),
            Failure::Loaded(why) => {
                write!(
                    f,
                    "the machine is not quiet: {why}; --loaded measures all the same, without a verdict"
                )
            }
        }
    }
}

/// Says what was being done when an operation failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: fmt::Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Failure::Failed(format!("{what}: {e}")))
    }
}
