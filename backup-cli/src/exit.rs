//! Exit codes: an interface of the program, documented in `docs/exit-codes.md`. A number never changes its meaning.

use backup_kit::{Error, ErrorKind, met_damage};

/// Everything was done, and is complete.
pub(crate) const COMPLETE: u8 = 0;
/// It failed; everything is as it was before.
pub(crate) const FAILED: u8 = 1;
/// The command line or configuration is wrong, or something needed is missing. Nothing was touched.
pub(crate) const USAGE: u8 = 2;
/// A source, backup, component or path does not exist.
pub(crate) const NOT_FOUND: u8 = 3;
/// The place where backups are kept cannot be written or read.
pub(crate) const DESTINATION: u8 = 4;
/// It was done, but not all of it.
pub(crate) const PARTIAL: u8 = 5;
/// Refused: not confirmed, the plan has changed, the target is not empty, another run goes on.
pub(crate) const REFUSED: u8 = 6;
/// What is stored is not what was written.
pub(crate) const VERIFICATION: u8 = 7;
/// It failed and could not be undone: run `backup heal`.
pub(crate) const NOT_UNDONE: u8 = 8;
/// Interrupted by a signal, and cleaned up.
pub(crate) const INTERRUPTED: u8 = 130;

/// From the worst to the best: of several outcomes the worst wins.
const WORST_FIRST: [u8; 10] = [
    NOT_UNDONE,
    INTERRUPTED,
    FAILED,
    NOT_FOUND,
    DESTINATION,
    VERIFICATION,
    PARTIAL,
    REFUSED,
    USAGE,
    COMPLETE,
];

/// The code of an error.
pub(crate) fn of(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Usage | ErrorKind::Unsupported => USAGE,
        ErrorKind::NotFound => NOT_FOUND,
        ErrorKind::Destination => DESTINATION,
        ErrorKind::Partial => PARTIAL,
        ErrorKind::Refused | ErrorKind::AlreadyRunning => REFUSED,
        ErrorKind::Damaged => VERIFICATION,
        // It is as it was, and what is to be done about the backup is what the code says.
        ErrorKind::RolledBack if error.failed().is_some_and(met_damage) => VERIFICATION,
        ErrorKind::NotRolledBack => NOT_UNDONE,
        ErrorKind::Cancelled => INTERRUPTED,
        // Denied, Source, Target, Cut, RolledBack, Contract, Budget, Panicked, and kinds that are not known yet.
        _ => FAILED,
    }
}

/// The worse of two.
pub(crate) fn worse(a: u8, b: u8) -> u8 {
    WORST_FIRST.into_iter().find(|code| *code == a || *code == b).unwrap_or(FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_wins() {
        assert_eq!([COMPLETE, PARTIAL, DESTINATION].into_iter().fold(COMPLETE, worse), DESTINATION);
        assert_eq!([FAILED, NOT_FOUND, NOT_UNDONE].into_iter().fold(COMPLETE, worse), NOT_UNDONE);
        assert_eq!(worse(NOT_FOUND, FAILED), FAILED);
        assert_eq!(worse(USAGE, COMPLETE), USAGE);
    }

    #[test]
    fn every_code_is_documented() {
        let doc = include_str!("../../docs/exit-codes.md");
        for code in WORST_FIRST {
            assert!(doc.contains(&format!("| {code} |")), "{code} is missing in docs/exit-codes.md");
        }
    }
}
