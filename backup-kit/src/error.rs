//! What the calls of this crate return when they do not return what was asked for.

use crate::CopyReport;
use backup_core::{ErrorKind, Report, RestoreReport};
use std::fmt;

/// The result of the calls of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call did not give what was asked for. A partial result is an error too, and carries its report.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The call failed; `kind` says how.
    Failed(backup_core::Error),
    /// There is a backup, but not everything is in it.
    Partial(Box<Report>),
    /// There is a backup, complete or partial as its report says, but not at every place where it was to be.
    NotEverywhere(Box<Report>),
    /// The restore took effect, but not everything could be restored as it was.
    RestoredPartly(Box<RestoreReport>),
    /// What is intact of a damaged backup is restored; the notes of the report name what is lost, if anything is.
    Salvaged(Box<RestoreReport>),
    /// Of several backups some could not be copied; the others are at their new place.
    CopiedPartly(Box<CopyReport>),
}

impl Error {
    /// What a program needs to know.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Failed(e) => e.kind(),
            Error::Partial(_) | Error::RestoredPartly(_) => ErrorKind::Partial,
            Error::Salvaged(_) => ErrorKind::Damaged,
            Error::NotEverywhere(_) => ErrorKind::Destination,
            Error::CopiedPartly(report) => {
                report.failures().next().map_or(ErrorKind::Partial, |(_, e)| e.kind())
            }
        }
    }

    /// The error underneath, if the call failed outright.
    pub fn failed(&self) -> Option<&backup_core::Error> {
        match self {
            Error::Failed(e) => Some(e),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Failed(e) => e.fmt(f),
            Error::Partial(report) => write!(f, "{}: the backup {} is partial", report.module, report.id),
            Error::NotEverywhere(report) => {
                let failed = report.places.iter().filter(|p| p.error.is_some()).count();
                let all = report.places.len();
                write!(f, "{}: the backup {} is not at {failed} of {all} places", report.module, report.id)
            }
            Error::RestoredPartly(report) => write!(f, "the restore of {} is partial", report.backup),
            Error::Salvaged(report) => write!(f, "only a part of {} is intact and restored", report.backup),
            Error::CopiedPartly(report) => {
                write!(f, "{} backups could not be copied to {}", report.failures().count(), report.to)
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Failed(e) => e.source(),
            _ => None,
        }
    }
}

impl From<backup_core::Error> for Error {
    fn from(e: backup_core::Error) -> Self {
        Error::Failed(e)
    }
}
