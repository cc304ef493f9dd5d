//! Texts of others (a manifest, a name, a server's answer) as they may reach a terminal: no control character is printed, so that none
//! drives it, and none ends a line that is another's.

use std::{borrow::Cow, fmt};

/// Text of several lines: all control characters but the ends of lines and tabs come out as `\xNN`.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() && !matches!(c, '\n' | '\t'))
}

/// Text that is one line, or a part of one.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, char::is_control)
}

fn escaped(text: &str, drives: fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(drives) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match drives(c) {
            true => c.encode_utf8(&mut [0; 4]).bytes().for_each(|b| out.push_str(&format!("\\x{b:02x}"))),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// JSON as a terminal may get it, too: what JSON allows in a string and a terminal obeys is written as `\uNNNN`, which means the same.
pub(crate) fn json(text: &str) -> Cow<'_, str> {
    let drives = |c: char| c.is_control() && c != '\n';
    if !text.contains(drives) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match drives(c) {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Lines of a result: whatever is put into one, it stays one.
#[derive(Default)]
pub(crate) struct Rows(String);

impl Rows {
    pub(crate) fn row(&mut self, row: fmt::Arguments<'_>) {
        self.0.push_str(&line(&row.to_string()));
        self.0.push('\n');
    }

    pub(crate) fn rows(&mut self, rows: Rows) {
        self.0.push_str(&rows.0);
    }

    pub(crate) fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_drives_the_terminal() {
        assert_eq!(text("a\tb\nc\x1b[2J\r\u{9b}\x7f"), "a\tb\nc\\x1b[2J\\x0d\\xc2\\x9b\\x7f");
        assert_eq!(line("a\tb\n\u{e9}"), "a\\x09b\\x0a\u{e9}");
        let object = serde_json::json!({ "note": "\x1b\u{9b}\x7f\n" }).to_string();
        let shown = json(&object);
        assert!(!shown.contains(char::is_control), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap()["note"], "\x1b\u{9b}\x7f\n");
    }

    #[test]
    fn a_row_stays_one_line() {
        let mut rows = Rows::default();
        rows.row(format_args!("  note     {}", "a\n  state    verified"));
        assert_eq!(rows.into_text(), "  note     a\\x0a  state    verified\n");
    }
}
