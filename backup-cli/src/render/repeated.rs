//! Warnings while something goes on: of many of one kind the first three are told, the others counted.

use super::human;
use backup_kit::Note;
use std::collections::BTreeMap;

/// Kinds that are counted; of more than these every note is told, because memory does not grow with what goes wrong.
const MOST_KINDS: usize = 1000;

/// What was told so far.
#[derive(Default)]
pub(crate) struct Repeated {
    kinds: BTreeMap<String, Kind>,
}

#[derive(Default)]
struct Kind {
    times: u64,
    /// The line of the last one that was not told.
    held: Option<String>,
}

impl Repeated {
    /// The line to be told now, if it is one of the first of its kind.
    pub(crate) fn tell(&mut self, note: &Note) -> Option<String> {
        let (line, kind) = (human::note(note), kind(note));
        if self.kinds.len() >= MOST_KINDS && !self.kinds.contains_key(&kind) {
            return Some(line);
        }
        let kind = self.kinds.entry(kind).or_default();
        kind.times += 1;
        if kind.times <= human::TOLD_OF_A_KIND as u64 {
            return Some(line);
        }
        kind.held = Some(line);
        None
    }

    /// What was not told, a line for each kind; it begins anew then.
    pub(crate) fn end(&mut self) -> Vec<String> {
        let told = human::TOLD_OF_A_KIND as u64;
        let rest = std::mem::take(&mut self.kinds).into_iter().filter_map(|(text, kind)| match kind.times {
            // "and 1 more" takes a line, too.
            times if times == told + 1 => kind.held,
            times if times > told => Some(format!("and {} more: {text}", times - told)),
            _ => None,
        });
        rest.collect()
    }
}

/// What notes of different paths have in common.
fn kind(note: &Note) -> String {
    let text = note.text.as_str();
    let without = [format!("{}/{}: ", note.component, note.path), format!("{}: ", note.path)]
        .iter()
        .find_map(|subject| text.strip_prefix(subject));
    without.unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_kit::Severity;

    fn note(path: &str, text: &str) -> Note {
        Note { severity: Severity::Lost, component: "c".into(), path: path.into(), text: text.into() }
    }

    #[test]
    fn of_many_of_one_kind_three_are_told_and_the_others_counted() {
        let mut repeated = Repeated::default();
        let told: Vec<String> = (0..300)
            .filter_map(|n| {
                let path = format!("dir/{n:03}");
                repeated.tell(&note(&path, &format!("{path}: frame 0 is damaged")))
            })
            .collect();
        let first = |n| format!("c/dir/00{n}: dir/00{n}: frame 0 is damaged");
        assert_eq!(told, [first(0), first(1), first(2)]);
        assert!(repeated.tell(&note("x", "something else")).is_some());
        assert_eq!(repeated.end(), ["and 297 more: frame 0 is damaged"]);
        // Of four all are told.
        let told = (0..4).filter_map(|n| repeated.tell(&note(&n.to_string(), "it is damaged"))).count();
        assert_eq!((told, repeated.end()), (3, vec!["c/3: it is damaged".to_owned()]));
        assert!(repeated.end().is_empty());
    }

    #[test]
    fn what_is_remembered_does_not_grow_with_what_goes_wrong() {
        let mut repeated = Repeated::default();
        let told = (0..5000).filter(|n| repeated.tell(&note("x", &format!("error {n}"))).is_some()).count();
        assert_eq!((told, repeated.kinds.len()), (5000, MOST_KINDS));
    }
}
