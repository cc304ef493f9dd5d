//! Plain lines: `2025-08-11 11:16:28 [INFO] text`; on a terminal without the time.

use super::Output;
use jiff::Zoned;
use std::io::Write;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Success,
    Warning,
    Error,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Level::Info => "INFO",
            Level::Success => "SUCCESS",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Level::Info => "",
            Level::Success => "\x1b[32m",
            Level::Warning => "\x1b[33m",
            Level::Error => "\x1b[31m",
        }
    }
}

/// To stderr. A reader that has gone away is not our concern.
pub(crate) fn print(output: Output, level: Level, text: &str) {
    if output.events {
        // Whoever reads the events line by line must not meet another language.
        let line =
            serde_json::json!({ "event": "message", "level": level.word().to_lowercase(), "text": text });
        let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
        return;
    }
    let line = match (output.terminal, level) {
        (false, _) => format!("{} [{}] {text}\n", Zoned::now().strftime("%Y-%m-%d %H:%M:%S"), level.word()),
        (true, Level::Info) => format!("{text}\n"),
        (true, _) if output.colour => {
            format!("{}{}:\x1b[0m {text}\n", level.colour(), level.word().to_lowercase())
        }
        (true, _) => format!("{}: {text}\n", level.word().to_lowercase()),
    };
    let _ = std::io::stderr().write_all(line.as_bytes());
}
