//! Why a command ended without what was asked for.

use crate::exit;
use backup_kit::{CoreError, Error, ErrorKind};
use std::{fmt, io};

/// An error with the state of things after it; or the reader of stdout has gone away, which is nobody's fault.
#[derive(Debug)]
pub(crate) enum Failure {
    Error { error: Error, state: Option<String> },
    ReaderGone,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    pub(crate) fn usage(
        operation: &'static str,
        message: impl fmt::Display,
        hint: impl fmt::Display,
    ) -> Self {
        CoreError::new(ErrorKind::Usage, operation, message).hint(hint).into()
    }

    /// Says the state of things, if it is not said yet.
    pub(crate) fn state(self, text: impl Into<String>) -> Self {
        match self {
            Failure::Error { error, state: None } => Failure::Error { error, state: Some(text.into()) },
            other => other,
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Error { error, .. } => exit::of(error),
            Failure::ReaderGone => exit::COMPLETE,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error { error, state: None }
    }
}

impl From<CoreError> for Failure {
    fn from(error: CoreError) -> Self {
        Error::from(error).into()
    }
}

impl From<io::Error> for Failure {
    /// Of writing to stdout.
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => CoreError::io(ErrorKind::Target, "write to stdout", e).into(),
        }
    }
}
