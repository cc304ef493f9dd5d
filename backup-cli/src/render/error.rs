//! An error is four lines: what, cause, hint, and the state of things.

use super::{Output, lines, printable};
use backup_kit::{CoreError, Error, ErrorKind};
use std::error::Error as _;

/// Prints an error to stderr.
pub(crate) fn print(output: Output, error: &Error, state: Option<&str>) {
    lines::print(output, lines::Level::Error, &text(error, state));
}

fn text(error: &Error, state: Option<&str>) -> String {
    let (what, cause, hint) = match error.failed() {
        Some(e) if e.kind() == ErrorKind::Cancelled => ("interrupted".to_owned(), String::new(), None),
        Some(e) => (what(e), cause(e), e.hint_text().map(str::to_owned)),
        None => (error.to_string(), String::new(), None),
    };
    // What it is about may be a name that somebody else has chosen.
    let mut out = printable::line(&what).into_owned();
    let state = state.map(str::to_owned).or_else(|| {
        default_state(error.kind(), error.failed().map_or("", |e| e.operation())).map(str::to_owned)
    });
    for (label, line) in [("cause", Some(cause)), ("hint", hint), ("state", state)] {
        if let Some(line) = line.filter(|l| !l.is_empty()) {
            out.push_str(&format!("\n  {:<6} {}", format!("{label}:"), line.replace('\n', "\n         ")));
        }
    }
    out
}

fn what(e: &CoreError) -> String {
    match e.subject() {
        Some(subject) => format!("{subject}: cannot {}", e.operation()),
        None => format!("cannot {}", e.operation()),
    }
}

/// The message and the errors under it, each said once.
fn cause(e: &CoreError) -> String {
    // The state of things has a line of its own.
    let mut out = e.message().trim_end_matches("; everything is as it was before").to_owned();
    let mut under = e.source();
    while let Some(inner) = under {
        let text = inner.to_string();
        if !out.contains(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        under = inner.source();
    }
    out
}

fn default_state(kind: ErrorKind, operation: &str) -> Option<&'static str> {
    Some(match kind {
        ErrorKind::Usage | ErrorKind::NotFound | ErrorKind::Refused | ErrorKind::AlreadyRunning => {
            "nothing was touched"
        }
        ErrorKind::RolledBack => "everything is as it was before",
        ErrorKind::NotRolledBack if operation == "begin the restore" => "nothing was touched",
        ErrorKind::NotRolledBack if operation == "restore in place" => {
            "over: nothing is left to heal, and nothing brings back what is gone"
        }
        ErrorKind::NotRolledBack => "some targets may be old and some new: run `backup heal`",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_the_way_out_and_how_things_are() {
        let e = CoreError::new(ErrorKind::Destination, "write the archive", "no space")
            .on("db")
            .hint("make room");
        assert_eq!(
            text(&e.into(), Some("nothing is stored")),
            "db: cannot write the archive\n  cause: no space\n  hint:  make room\n  state: nothing is stored"
        );
    }
}
