//! What was counted and hashed, on both sides, and where the two differ.

use crate::{Entry, Kind};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt};

/// A sha256.
pub type Sha = [u8; 32];

/// Measure of the note of subject "all" in which a source says what was left out of it on purpose: the plan of a restore repeats
/// it, because what is left out does not come back.
pub const EXCLUDED: &str = "excluded";

/// Subject under which a source with exclude patterns notes, as `EXCLUDED`, how many paths match them: none, too.
pub const PATTERNS: &str = "patterns";

/// One fact about a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fact {
    /// Must be equal on both sides.
    Count(u64),
    /// Must be equal on both sides.
    Digest(String),
    /// For people: a position in a log, a version, how it was read. Never compared.
    Note(String),
    /// This side cannot hold or count it; passes only if the plan announced it and it was confirmed.
    Unsupported(String),
}

/// Facts by subject ("table public.events", "all") and measure ("rows", "bytes").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<(String, String), Fact>);

impl Facts {
    /// No facts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says a fact; a later one of the same subject and measure wins.
    pub fn insert(&mut self, subject: impl Into<String>, measure: impl Into<String>, fact: Fact) {
        self.0.insert((subject.into(), measure.into()), fact);
    }

    /// The same, in a chain.
    #[must_use]
    pub fn with(mut self, subject: impl Into<String>, measure: impl Into<String>, fact: Fact) -> Self {
        self.insert(subject, measure, fact);
        self
    }

    /// One fact.
    pub fn get(&self, subject: &str, measure: &str) -> Option<&Fact> {
        self.0.get(&(subject.to_owned(), measure.to_owned()))
    }

    /// A count, 0 if there is none.
    pub fn count(&self, subject: &str, measure: &str) -> u64 {
        match self.get(subject, measure) {
            Some(Fact::Count(n)) => *n,
            _ => 0,
        }
    }

    /// All, in the order of subject and measure.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Fact)> {
        self.0.iter().map(|((s, m), f)| (s.as_str(), m.as_str(), f))
    }

    /// Adds what is not said here yet.
    pub fn add_missing(&mut self, other: Facts) {
        for (key, fact) in other.0 {
            self.0.entry(key).or_insert(fact);
        }
    }

    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

// As a list of triples: JSON keys cannot be pairs, and a list keeps the order.
impl Serialize for Facts {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(self.0.iter().map(|((subject, measure), fact)| (subject, measure, fact)))
    }
}
impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let list: Vec<(String, String, Fact)> = Deserialize::deserialize(d)?;
        Ok(Facts(list.into_iter().map(|(s, m, f)| ((s, m), f)).collect()))
    }
}

/// What one side says of itself.
pub type Proof = Facts;

/// Where two proofs differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// Expected, and not counted on the other side.
    Missing(String, String),
    /// Counted there, and not expected.
    Extra(String, String),
    /// Both sides say it, and not the same: expected, found.
    Unequal(String, String, Fact, Fact),
    /// The other side cannot hold it: why.
    Unsupported(String, String, String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |fact: &Fact| match fact {
            Fact::Count(n) => n.to_string(),
            Fact::Digest(t) | Fact::Note(t) | Fact::Unsupported(t) => t.clone(),
        };
        match self {
            Difference::Missing(s, m) => write!(f, "{s}: {m} expected, but not counted"),
            Difference::Extra(s, m) => write!(f, "{s}: {m} not expected"),
            Difference::Unequal(s, m, a, b) => write!(f, "{s}: {m} should be {}, is {}", show(a), show(b)),
            Difference::Unsupported(s, m, why) => write!(f, "{s}: {m} cannot be kept: {why}"),
        }
    }
}

/// Compares what was counted when dumping with what was counted after the restore. `accepted` says what the plan announced
/// and the person confirmed.
pub fn compare(expected: &Proof, there: &Proof, accepted: &dyn Fn(&str, &str) -> bool) -> Vec<Difference> {
    let mut out = Vec::new();
    for ((s, m), seen) in &expected.0 {
        if matches!(seen, Fact::Note(_) | Fact::Unsupported(_)) {
            continue;
        }
        match there.0.get(&(s.clone(), m.clone())) {
            None => out.push(Difference::Missing(s.clone(), m.clone())),
            Some(Fact::Unsupported(why)) => {
                if !accepted(s, m) {
                    out.push(Difference::Unsupported(s.clone(), m.clone(), why.clone()));
                }
            }
            Some(found) if found != seen => {
                out.push(Difference::Unequal(s.clone(), m.clone(), seen.clone(), found.clone()));
            }
            Some(_) => {}
        }
    }
    for ((s, m), fact) in &there.0 {
        let counted = matches!(fact, Fact::Count(1..) | Fact::Digest(_));
        if counted && !expected.0.contains_key(&(s.clone(), m.clone())) && !accepted(s, m) {
            out.push(Difference::Extra(s.clone(), m.clone()));
        }
    }
    out
}

/// What the two sides of every store count alike: entries, bytes and an order-independent digest of path, kind, content and
/// link text. Constant memory, the same result for any concurrency.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    entries: u64,
    bytes: u64,
    set: [u64; 4],
}

impl Tally {
    /// Counts one entry whose content delivered these bytes and has this sha256. A size that the entry promises wins: of a
    /// sparse file the content delivers only the data, and what counts is the size with its holes.
    pub fn add(&mut self, entry: &Entry, delivered: u64, content: &Sha) {
        let mut h = Sha256::new();
        h.update((entry.path.len() as u64).to_le_bytes());
        h.update(&entry.path);
        h.update([entry.kind as u8]);
        h.update(entry.link.as_deref().unwrap_or_default());
        if entry.kind == Kind::File {
            h.update(content);
        }
        let digest: Sha = h.finalize().into();
        // A sum of 256-bit numbers: commutative, and one entry changed changes the sum.
        let mut carry = 0u128;
        for (i, word) in self.set.iter_mut().enumerate() {
            let mut le = [0u8; 8];
            le.copy_from_slice(&digest[i * 8..i * 8 + 8]);
            let sum = u128::from(*word) + u128::from(u64::from_le_bytes(le)) + carry;
            *word = sum as u64;
            carry = sum >> 64;
        }
        self.entries += 1;
        // What a backup claims may be anything.
        self.bytes = self.bytes.saturating_add(entry.size.unwrap_or(delivered));
    }

    /// The facts of a whole component.
    pub fn facts(&self) -> Facts {
        let digest = self.set.iter().map(|w| format!("{w:016x}")).collect();
        Facts::new()
            .with("all", "entries", Fact::Count(self.entries))
            .with("all", "bytes", Fact::Count(self.bytes))
            .with("all", "digest", Fact::Digest(digest))
    }

    /// Entries counted so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Bytes counted so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_extra_and_unequal_facts_are_differences_and_notes_are_not() {
        let a = Facts::new()
            .with("t", "rows", Fact::Count(3))
            .with("t", "sha", Fact::Digest("x".into()))
            .with("t", "lsn", Fact::Note("1/2".into()));
        let b = Facts::new().with("t", "rows", Fact::Count(2)).with("u", "rows", Fact::Count(1)).with(
            "v",
            "rows",
            Fact::Count(0),
        );
        let found: Vec<String> = compare(&a, &b, &|_, _| false).iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            ["t: rows should be 3, is 2", "t: sha expected, but not counted", "u: rows not expected"]
        );
        assert!(compare(&a, &a, &|_, _| false).is_empty());
    }

    #[test]
    fn what_the_target_cannot_hold_passes_only_when_it_was_accepted() {
        let a = Facts::new().with("t", "grants", Fact::Count(1));
        let b = Facts::new().with("t", "grants", Fact::Unsupported("no roles here".into()));
        assert_eq!(compare(&a, &b, &|_, _| false).len(), 1);
        assert!(compare(&a, &b, &|s, m| (s, m) == ("t", "grants")).is_empty());
    }

    #[test]
    fn a_tally_does_not_depend_on_the_order() {
        let e = |p: &'static str| Entry::file(p, crate::Stage::Data);
        let (mut x, mut y) = (Tally::default(), Tally::default());
        x.add(&e("a"), 1, &[1; 32]);
        x.add(&e("b"), 2, &[2; 32]);
        y.add(&e("b"), 2, &[2; 32]);
        y.add(&e("a"), 1, &[1; 32]);
        assert_eq!(x.facts(), y.facts());
        y.add(&e("c"), 0, &[0; 32]);
        assert_ne!(x.facts(), y.facts());
    }
}
