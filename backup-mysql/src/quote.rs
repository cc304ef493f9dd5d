//! Names and texts in statements, and names in paths.

use std::fmt::Write;

/// `` `name` ``.
pub(crate) fn ident(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A name in backquotes without them.
pub(crate) fn unquoted(quoted: &str) -> String {
    let inner = quoted.strip_prefix('`').and_then(|q| q.strip_suffix('`'));
    inner.unwrap_or(quoted).replace("``", "`")
}

/// `` `database`.`name` ``.
pub(crate) fn qualified(database: &str, name: &str) -> String {
    format!("{}.{}", ident(database), ident(name))
}

/// `'text'`, for sessions in which a backslash escapes.
pub(crate) fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('\'');
    for c in value.chars() {
        match c {
            '\'' => out.push_str("\\'"),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\x1a' => out.push_str("\\Z"),
            c => out.push(c),
        }
    }
    out.push('\'');
    out
}

/// `'a','b'`.
pub(crate) fn texts<S: AsRef<str>>(values: impl IntoIterator<Item = S>) -> String {
    values.into_iter().map(|v| text(v.as_ref())).collect::<Vec<_>>().join(",")
}

/// A name as a part of a path: letters, digits, `_`, `-` and `$` as they are, everything else as `%` and two digits for each byte.
/// Points too: they part the database from the table.
pub(crate) fn file_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$') || (!c.is_ascii() && c.is_alphanumeric())
        {
            out.push(c);
        } else {
            for b in c.to_string().bytes() {
                // Writing to a String cannot fail.
                let _ = write!(out, "%{b:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_end_their_quotes() {
        assert_eq!(ident("a`b"), "`a``b`");
        assert_eq!(unquoted(&ident("`a``b")), "`a``b");
        assert_eq!(text("a'b\\\n\0"), "'a\\'b\\\\\\n\\0'");
    }

    #[test]
    fn names_in_paths_are_no_paths_and_no_patterns() {
        for (name, file) in [
            ("orders", "orders"),
            ("a.b", "a%2Eb"),
            ("../x", "%2E%2E%2Fx"),
            ("a*[?]{", "a%2A%5B%3F%5D%7B"),
            ("größe", "größe"),
        ] {
            assert_eq!(file_name(name), file);
        }
    }
}
