//! A value that never shows itself.

use std::{borrow::Cow, fmt};

/// A password, key or passphrase. Prints as `***` in every format; deliberately not `Serialize`.
#[derive(Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value that must not be shown.
    pub fn new(value: impl Into<String>) -> Self {
        Secret(value.into())
    }

    /// The value itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The same text with `***` instead of the user and password of every URL in it. What may be a password is taken for one: an
/// `@` in a path after a port is hidden with what stands before it.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        rest = &after[userinfo_end(after)..];
        if rest.len() < after.len() {
            out.push_str("***");
        }
    }
    if out.is_empty() {
        return Cow::Borrowed(text);
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Where the `@` after user and password is; 0 if there are none.
fn userinfo_end(after: &str) -> usize {
    let one = &after[..after.find("://").unwrap_or(after.len())];
    let word = &one[..one.find(char::is_whitespace).unwrap_or(one.len())];
    let authority = &word[..word.find(['/', '?', '#']).unwrap_or(word.len())];
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    match (authority.contains('@'), port) {
        (false, None) => 0,
        (true, _) => word.rfind('@').unwrap_or(0),
        // A password may hold what ends an authority, although it should be encoded.
        (false, Some(port)) => match word.rfind('@') {
            None if !port.bytes().all(|b| b.is_ascii_digit()) => one.rfind('@').unwrap_or(0),
            found => found.unwrap_or(0),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Secret, without_secrets};

    #[test]
    fn user_and_password_of_a_url_are_never_shown() {
        for (text, shown) in [
            ("postgres://u:hunter2@h/db", "postgres://***@h/db"),
            ("`s3://key@h`, https://a:b@c/d", "`s3://***@h`, https://***@c/d"),
            ("x://u:hun@ter2@h", "x://***@h"),
            ("x://u:hun/ter#2@h/db", "x://***@h/db"),
            ("x://u:hun ter@h/db", "x://***@h/db"),
            ("x://h:80/db and y://z", "x://h:80/db and y://z"),
            ("x://h/a@b", "x://h/a@b"),
            ("/srv/a@b:c", "/srv/a@b:c"),
            ("://", "://"),
        ] {
            assert_eq!(without_secrets(text), shown, "{text}");
        }
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let s = Secret::new("hunter2");
        assert_eq!(format!("{s} {s:?} {:#?}", Some(&s)), "*** *** Some(\n    ***,\n)");
        assert_eq!(s.expose(), "hunter2");
    }
}
