//! Where in the file something is, and what was probably meant.

use backup_core::{Error, ErrorKind, without_secrets};
use std::{fmt::Display, ops::Range, path::Path};

/// The file as text, for complaints with a line number.
pub(super) struct Text<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Text<'_> {
    /// A complaint about what is at this span.
    pub(super) fn error_in(&self, span: Range<usize>, message: impl Display) -> Error {
        let line = self.text.get(..span.start).unwrap_or_default().matches('\n').count() + 1;
        self.error(Some(line), message)
    }

    /// A complaint about the key or table at this path.
    pub(super) fn error_at(&self, path: &[&str], message: impl Display) -> Error {
        match self.span_of(path) {
            Some(span) => self.error_in(span, message),
            None => self.error(None, message),
        }
    }

    /// A complaint about a key that does not exist.
    pub(super) fn unknown_key<'k>(
        &self,
        path: &[&str],
        key: &str,
        table: &str,
        known: impl Iterator<Item = &'k str>,
    ) -> Error {
        self.error_at(path, unknown(key, table, known))
    }

    /// A complaint of the parser or of serde, with the nearest key if it is about an unknown one.
    pub(super) fn toml_error(&self, e: &toml::de::Error) -> Error {
        let first = e.message().lines().next().unwrap_or_default();
        let message = match first.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
            Some((key, rest)) => unknown(key, "", rest.split('`').skip(1).step_by(2)),
            None => self.without_value(first, e.span()),
        };
        match e.span() {
            Some(span) => self.error_in(span, message),
            None => self.error(None, message),
        }
    }

    /// What is wrong, without the value: it may have come from the environment, and may be a password in the wrong place.
    fn without_value(&self, message: &str, span: Option<Range<usize>>) -> String {
        let (start, end) = match message {
            m if m.starts_with("invalid ") => (m.find('"'), m.rfind('"')),
            m if m.starts_with("unknown variant ") => {
                let written = span.and_then(|s| self.text.get(s)).unwrap_or_default();
                let end = m.rfind("`, expected").filter(|_| written.contains("${"));
                (m.find('`'), end)
            }
            _ => (None, None),
        };
        match start.zip(end) {
            Some((start, end)) if start < end => {
                format!("{} {}", message[..start].trim_end(), &message[end + 1..]).replace(" ,", ",")
            }
            _ => message.to_owned(),
        }
    }

    fn error(&self, line: Option<usize>, message: impl Display) -> Error {
        let at = line.map(|l| format!(":{l}")).unwrap_or_default();
        Error::new(ErrorKind::Usage, "read the configuration", without_secrets(&message.to_string()))
            .on(format!("{}{at}", self.file.display()))
    }

    fn span_of(&self, path: &[&str]) -> Option<Range<usize>> {
        let root = toml::de::DeTable::parse(self.text).ok()?;
        let mut table = root.into_inner();
        let mut span = None;
        for name in path {
            let (key, value) = table.into_iter().find(|(key, _)| key.get_ref() == name)?;
            span = Some(key.span());
            table = match value.into_inner() {
                toml::de::DeValue::Table(inner) => inner,
                _ => return span,
            };
        }
        span
    }
}

fn unknown<'k>(key: &str, table: &str, known: impl Iterator<Item = &'k str>) -> String {
    let known: Vec<&str> = known.collect();
    let within = if table.is_empty() { String::new() } else { format!(" in [{table}]") };
    match nearest(key, known.iter().copied()) {
        Some(close) => format!("unknown key `{key}`{within}; did you mean `{close}`?"),
        None => format!("unknown key `{key}`{within}; there are: {}", known.join(", ")),
    }
}

/// The known name that is most like this one, if any is like it at all.
pub(super) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    known
        .map(|k| (!is_shortened(name, k), strsim::damerau_levenshtein(name, k), k))
        .filter(|(other, distance, k)| !other || *distance <= k.len().max(name.len()) / 2)
        .min()
        .map(|(_, _, k)| k)
}

/// Whether one of them lacks words of the other at its end: `lock_timeout` and `lock_timeout_seconds`.
fn is_shortened(name: &str, known: &str) -> bool {
    let more = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('_'));
    more(known, name) || more(name, known)
}
