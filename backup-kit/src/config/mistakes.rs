//! All mistakes of a configuration, not only the first: what is wrong is told and left out, and the rest is looked at.

use super::{
    below,
    place::{Text, nearest},
};
use backup_core::{Backend, Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::{ops::Range, path::Path};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// The mistakes so far.
pub(super) struct Mistakes<'t> {
    text: &'t Text<'t>,
    list: Vec<Error>,
    /// Keys whose values are not known, by their paths.
    unknown: Vec<Vec<String>>,
    /// Those of them that are only to be set.
    not_set: NotSet,
    /// Without them it cannot be told whether everything else is right.
    not_set_matters: bool,
}

/// Variables that are not set: the path of the key that needs one, and the complaint.
pub(super) type NotSet = Vec<(Vec<String>, Error)>;

impl<'t> Mistakes<'t> {
    pub(super) fn new(text: &'t Text<'t>) -> Self {
        Mistakes { text, list: Vec::new(), unknown: Vec::new(), not_set: Vec::new(), not_set_matters: false }
    }

    pub(super) fn push(&mut self, e: Error) {
        self.list.push(e);
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.list.len()
    }

    /// This value could not be found out: a mistake on the line `span` is in, and what depends on the value cannot be tried.
    pub(super) fn unknown_value(&mut self, path: Vec<String>, span: Range<usize>, message: &str) {
        self.list.push(self.text.error_in(span, message));
        self.unknown.push(path);
    }

    /// The same of one whose variable is not set: a mistake for what needs it.
    pub(super) fn not_set(&mut self, path: Vec<String>, span: Range<usize>, message: &str) {
        self.not_set.push((path.clone(), self.text.error_in(span, message)));
        self.unknown.push(path);
    }

    /// Whether all values at and below this path are known.
    pub(super) fn knows(&self, path: &[&str]) -> bool {
        let is_below = |unknown: &Vec<String>| {
            unknown.len() >= path.len() && unknown.iter().zip(path).all(|(a, b)| a == b)
        };
        !self.unknown.iter().any(is_below)
    }

    /// Reads the file without the keys and values that cannot be taken: each of them is a mistake.
    pub(super) fn read<T: DeserializeOwned + Default>(&mut self, mut file: Spanned<DeTable<'_>>) -> T {
        let line = |e: &Error| e.subject().map(str::to_owned);
        let told: Vec<Option<String>> = self.list.iter().map(line).collect();
        let not_set: Vec<Option<String>> = self.not_set.iter().map(|(_, e)| line(e)).collect();
        let mut left_out: Vec<Vec<String>> = Vec::new();
        loop {
            let e = match T::deserialize(toml::de::Deserializer::from(file.clone())) {
                Ok(read) => return read,
                Err(e) => e,
            };
            let mistake = self.text.toml_error(&e);
            let Some(path) = e.span().and_then(|span| take_out(file.get_mut(), &span)) else {
                self.list.push(mistake);
                return T::default();
            };
            let missing = e.message().strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            // What stood there, or was meant to, was left out; or the line is wrong already.
            let is_meant = |out: &Vec<String>, name: &str| match out.split_last() {
                Some((key, table)) => table == path && nearest(key, std::iter::once(name)).is_some(),
                None => false,
            };
            let follows = missing.is_some_and(|name| left_out.iter().any(|out| is_meant(out, name)))
                || told.iter().any(|line| line.as_deref() == mistake.subject());
            let in_doubt = not_set.iter().any(|line| line.as_deref() == mistake.subject());
            self.not_set_matters |= in_doubt;
            let follows = follows || in_doubt;
            if !follows {
                self.list.push(mistake);
            }
            left_out.push(path);
        }
    }

    /// Tries a source; whatever is wrong with a value of it is told with the line of that value.
    pub(super) fn try_source(
        &mut self,
        path: &[&str],
        backend: &dyn Backend,
        mut source: Map<String, Value>,
    ) {
        let component = path.last().copied().unwrap_or_default();
        let wrong = |source: &Map<String, Value>| {
            backend.source(component, Value::Object(source.clone())).err().map(|e| e.message().to_owned())
        };
        let mut left_out: Vec<String> = Vec::new();
        while let Some(message) = wrong(&source) {
            // It asks for what was left out, and is not told what it might have been instead.
            let follows =
                |key: &String| message.contains(&format!("`{key}`")) && !message.starts_with("unknown field");
            if left_out.iter().any(follows) {
                return;
            }
            let culprit = source.keys().find(|key| {
                let mut without = source.clone();
                without.remove(*key);
                wrong(&without).is_none_or(|other| other != message)
            });
            let Some(key) = culprit.cloned() else {
                self.list.push(self.text.error_at(path, message));
                return;
            };
            self.list.push(self.text.error_at(&below(path, &key), message));
            source.remove(&key);
            left_out.push(key);
        }
    }

    /// One error of all of them; if nothing is wrong but that variables are not set, those.
    pub(super) fn conclude(mut self, file: &Path) -> Result<NotSet> {
        if self.list.is_empty() && !self.not_set_matters {
            return Ok(self.not_set);
        }
        self.list.extend(self.not_set.into_iter().map(|(_, e)| e));
        one_of_all(self.list, file).map_or(Ok(NotSet::new()), Err)
    }
}

/// One error of all, in the order of their lines; what is alone speaks for itself.
pub(super) fn one_of_all(mut list: Vec<Error>, file: &Path) -> Option<Error> {
    if list.len() < 2 {
        return list.pop();
    }
    let line = |e: &Error| -> usize {
        let number = e.subject().and_then(|subject| subject.rsplit_once(':')?.1.parse().ok());
        number.unwrap_or(0)
    };
    list.sort_by_key(line);
    let told = |e: &Error| format!("{}: {}", e.subject().unwrap_or_default(), e.message());
    let mut lines: Vec<String> = list.iter().map(told).collect();
    lines.dedup();
    let message = format!("it has {} mistakes\n{}", lines.len(), lines.join("\n"));
    Some(Error::new(ErrorKind::Usage, "read the configuration", message).on(file.display()))
}

/// Takes the innermost key away whose name or value is there, or holds what is there; its path.
fn take_out(file: &mut DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    let is_it = |at: &Range<usize>| at == span;
    let holds_it = |at: &Range<usize>| at.start <= span.start && span.end <= at.end;
    let path = find(file, &is_it).or_else(|| find(file, &holds_it))?;
    remove(file, &path);
    Some(path)
}

fn find(table: &DeTable<'_>, fits: &dyn Fn(&Range<usize>) -> bool) -> Option<Vec<String>> {
    for (key, value) in table {
        let name = key.get_ref().to_string();
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(below) = find(inner, fits)
        {
            return Some([vec![name], below].concat());
        }
        if fits(&key.span()) || fits(&value.span()) {
            return Some(vec![name]);
        }
    }
    None
}

fn remove(table: &mut DeTable<'_>, path: &[String]) {
    match path {
        [] => {}
        [last] => drop(table.remove(last.as_str())),
        [first, rest @ ..] => {
            if let Some(DeValue::Table(inner)) = table.get_mut(first.as_str()).map(Spanned::get_mut) {
                remove(inner, rest);
            }
        }
    }
}
