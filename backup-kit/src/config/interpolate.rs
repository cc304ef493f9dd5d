//! `${VAR}`, `${VAR:-default}` and `${VAR:?why}` in every string of the configuration; `$$` is one `$`.

use super::mistakes::Mistakes;
use std::{borrow::Cow, ops::Range};
use toml::de::{DeTable, DeValue};

/// Replaces the variables in all strings. Each that is not set is a mistake, told with its line.
pub(super) fn table(
    table: &mut DeTable<'_>,
    path: &[String],
    var: &dyn Fn(&str) -> Option<String>,
    mistakes: &mut Mistakes<'_>,
) {
    for (key, item) in table.iter_mut() {
        let (path, span) = ([path, &[key.get_ref().to_string()]].concat(), item.span());
        value(item.get_mut(), &path, span, var, mistakes);
    }
}

fn value(
    item: &mut DeValue<'_>,
    path: &[String],
    span: Range<usize>,
    var: &dyn Fn(&str) -> Option<String>,
    mistakes: &mut Mistakes<'_>,
) {
    match item {
        DeValue::String(s) if s.contains('$') => match expand(s, var) {
            Ok(done) => *s = Cow::Owned(done),
            Err(Unknown::NotSet(message)) => mistakes.not_set(path.to_vec(), span, &message),
            Err(Unknown::Wrong(message)) => mistakes.unknown_value(path.to_vec(), span, &message),
        },
        DeValue::Array(list) => {
            for inner in list.iter_mut() {
                let span = inner.span();
                value(inner.get_mut(), path, span, var, mistakes);
            }
        }
        DeValue::Table(inner) => table(inner, path, var, mistakes),
        _ => {}
    }
}

/// Why a text has no value.
#[derive(Debug, PartialEq, Eq)]
enum Unknown {
    /// A variable is not set: it would have one elsewhere.
    NotSet(String),
    /// It can have none anywhere.
    Wrong(String),
}

fn expand(text: &str, var: &dyn Fn(&str) -> Option<String>) -> Result<String, Unknown> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let (inside, after) =
                after.split_once('}').ok_or_else(|| Unknown::Wrong("`${` without `}`".into()))?;
            out.push_str(&one(inside, var)?);
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn one(inside: &str, var: &dyn Fn(&str) -> Option<String>) -> Result<String, Unknown> {
    let end = inside.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Unknown::Wrong(format!("`${{{inside}}}` names no variable")));
    }
    let found = var(name);
    let not_set = |why: &str| Unknown::NotSet(format!("the variable {name} is not set{why}"));
    match rest.split_at_checked(2) {
        _ if rest.is_empty() => found.ok_or_else(|| not_set("")),
        Some((":-", default)) => Ok(found.filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())),
        Some((":?", why)) => found.filter(|v| !v.is_empty()).ok_or_else(|| not_set(&format!(": {why}"))),
        _ => {
            let message = format!("`${{{inside}}}`: after the name only `:-default` and `:?why` are known");
            Err(Unknown::Wrong(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Unknown, expand};

    fn var(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/me".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn variables_defaults_and_dollars() {
        for (text, expected) in [
            ("${HOME}/b", "/home/me/b"),
            ("${NO:-x y}${EMPTY:-e}", "x ye"),
            ("a${EMPTY}b", "ab"),
            ("$$HOME $HOME 5$", "$HOME $HOME 5$"),
            ("${HOME:?needed}", "/home/me"),
            ("${NO:-}", ""),
        ] {
            assert_eq!(expand(text, &var), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_not_set_or_not_closed_is_an_error() {
        for (text, part) in [
            ("${NO}", "NO is not set"),
            ("${NO:?say where}", "say where"),
            ("${EMPTY:?x}", "EMPTY is not set"),
            ("${HOME", "without"),
            ("${}", "names no variable"),
            ("${HOME+x}", "only"),
        ] {
            let (Unknown::NotSet(e) | Unknown::Wrong(e)) = expand(text, &var).unwrap_err();
            assert!(e.contains(part), "{text}: {e}");
        }
    }
}
