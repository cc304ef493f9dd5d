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

/// The same text with `***` instead of the user and password of every URL in it, and of the options behind its `?` that are
/// secrets by their names (`password`, `secret_access_key`, `token` …). What may be a password is taken for one: an `@` in a path
/// after a port is hidden with what stands before it.
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    // First the options: a password there may hold an `@`, too.
    let Some(options) = without_options(text) else { return without_users(text) };
    Cow::Owned(without_users(&options).into_owned())
}

/// What is part of the name of an option that holds a secret.
const SECRET_NAMES: [&str; 11] =
    ["pass", "pwd", "secret", "key", "token", "credential", "auth", "signature", "sig", "sas", "identity"];

/// Hides the values of secret options; `None` if there are none.
fn without_options(text: &str) -> Option<String> {
    let mut out = String::new();
    let (mut done, mut at) = (0, text.find("://")?);
    while let Some(found) = text[at..].find(['?', '&', ';', ':']) {
        let begin = at + found + 1;
        at = begin;
        if text[begin - 1..].starts_with(':') {
            if let Some(after) = text[begin..].strip_prefix("//") {
                at = text.len() - after.len() + password_end(after);
            }
            continue;
        }
        let is_name = |c: char| c.is_alphanumeric() || "%_-.+[]".contains(c);
        let length = text[begin..].find(|c| !is_name(c)).unwrap_or(text.len() - begin);
        let Some(value) = text[begin + length..].strip_prefix('=') else { continue };
        if is_secret(&text[begin..begin + length]) {
            out.push_str(&text[done..=begin + length]);
            out.push_str("***");
            at = text.len() - value.len() + value_end(value);
            done = at;
        }
    }
    (done > 0).then(|| out + &text[done..])
}

/// Where a password ends that holds the `?` which should have been encoded; 0 if there is none.
fn password_end(after: &str) -> usize {
    let authority = &after[..after.find(['/', '?', '#']).unwrap_or(after.len())];
    if authority.contains('@') { 0 } else { userinfo_end(after) }
}

fn is_secret(name: &str) -> bool {
    let plain = percent_encoding::percent_decode_str(name).decode_utf8_lossy().to_lowercase();
    SECRET_NAMES.iter().any(|part| plain.contains(part))
}

/// Where the value of an option ends: a quote around the URL is none of it, one within it is.
fn value_end(value: &str) -> usize {
    let end = value.find(|c: char| c == '&' || c.is_whitespace()).unwrap_or(value.len());
    let word = &value[..end];
    let bare = word.trim_end_matches([',', '.', ':', ';', ')']);
    bare.strip_suffix(['`', '"', '\'']).map_or(end, str::len)
}

fn without_users(text: &str) -> Cow<'_, str> {
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
    fn options_of_a_url_that_are_secrets_by_name_are_never_shown() {
        for (text, shown) in [
            ("s3://b/x?region=eu&secret_access_key=HIDDEN", "s3://b/x?region=eu&secret_access_key=***"),
            ("s3://b?access_key_id=A&endpoint=http://h:1/", "s3://b?access_key_id=***&endpoint=http://h:1/"),
            ("webdavs://u@h/x?password=HID@DEN/#?x", "webdavs://***@h/x?password=***"),
            ("x://h?PassWord=a&Api-Token=b&passphrase=c", "x://h?PassWord=***&Api-Token=***&passphrase=***"),
            ("x://h?p%61ssword=HIDDEN&%53ECRET=HIDDEN", "x://h?p%61ssword=***&%53ECRET=***"),
            ("x://h?a=1;pwd=HIDDEN is wrong", "x://h?a=1;pwd=*** is wrong"),
            ("`x://h?token=HID`DEN`, \"y://h?key=HIDDEN\": no", "`x://h?token=***`, \"y://h?key=***\": no"),
            ("x://u:HIDDEN?key=HIDDEN@h/db", "x://***@h/db"),
            ("x://h?secret=", "x://h?secret=***"),
            ("x://h?host=a&sslmode=b?c", "x://h?host=a&sslmode=b?c"),
            ("/srv/what?key=a", "/srv/what?key=a"),
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
