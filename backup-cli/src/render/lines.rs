//! Plain lines: `2025-08-11 11:16:28 [INFO] text`; on a terminal without the time.

use super::{Output, printable, terminal};
use jiff::Zoned;

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

/// To stderr. Only an error has several lines.
pub(crate) fn print(output: Output, level: Level, text: &str) {
    if output.events {
        // Whoever reads the events line by line must not meet another language.
        let line =
            serde_json::json!({ "event": "message", "level": level.word().to_lowercase(), "text": text });
        terminal::tell(&format!("{}\n", printable::json(&line.to_string())));
        return;
    }
    let text = match level {
        Level::Error => printable::text(text),
        _ => printable::line(text),
    };
    let line = match (output.terminal, level) {
        (false, _) => format!("{} [{}] {text}\n", Zoned::now().strftime("%Y-%m-%d %H:%M:%S"), level.word()),
        (true, Level::Info) => format!("{text}\n"),
        (true, _) if output.colour => {
            format!("{}{}:\x1b[0m {text}\n", level.colour(), level.word().to_lowercase())
        }
        (true, _) => format!("{}: {text}\n", level.word().to_lowercase()),
    };
    terminal::tell(&line);
}
