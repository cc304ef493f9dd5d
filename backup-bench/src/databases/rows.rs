//! The rows of the four tables, the same on every machine and for every server.
//!
//! Many small rows, rows with documents and lists, longer texts, and bytes that nothing makes smaller: what an application has.
//! For 1,000 MB as text: 3,000,000 events, 600,000 users, 80,000 documents, 20,000 attachments.

use crate::generate::{Generator, Kind, Random};
use std::io::Result;

/// A value, to be written as a server takes it.
pub(super) enum Value<'a> {
    Null,
    Number(i64),
    /// Of this many hundredths.
    Decimal(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Yes(bool),
    /// Seconds since 1970.
    Time(i64),
    Json(&'a str),
    List(&'a [&'a str]),
}

/// A table of all servers. Further columns, keys and indexes are theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    Events,
    Users,
    Documents,
    Attachments,
}

impl Table {
    pub(super) const ALL: [Table; 4] = [Table::Users, Table::Events, Table::Documents, Table::Attachments];

    pub(super) fn name(self) -> &'static str {
        match self {
            Table::Events => "events",
            Table::Users => "users",
            Table::Documents => "documents",
            Table::Attachments => "attachments",
        }
    }

    /// The columns that have rows of `write`.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Table::Events => &["id", "user_id", "at", "kind", "amount", "address", "path", "session"],
            Table::Users => &["id", "email", "name", "profile", "tags", "created", "active"],
            Table::Documents => &["id", "user_id", "title", "body", "changed"],
            Table::Attachments => &["id", "document_id", "name", "data"],
        }
    }

    fn rows(self, megabytes: u64) -> u64 {
        let of_thousand = match self {
            Table::Events => 3_000_000,
            Table::Users => 600_000,
            Table::Documents => 80_000,
            Table::Attachments => 20_000,
        };
        (of_thousand * megabytes / 1000).max(10)
    }

    /// Gives every row to `each`, in the order of `columns`.
    pub(super) fn write(
        self,
        megabytes: u64,
        each: &mut dyn FnMut(&[Value<'_>]) -> Result<()>,
    ) -> Result<()> {
        let generator = Generator::new(11);
        let mut random = Random::new(self as u64 + 1);
        let count = |table: Table| usize::try_from(table.rows(megabytes)).unwrap_or(usize::MAX);
        let mut rows = Maker { generator: &generator, random: &mut random, each };
        for id in 1..=i64::try_from(self.rows(megabytes)).unwrap_or(i64::MAX) {
            match self {
                Table::Events => rows.event(id, count(Table::Users))?,
                Table::Users => rows.user(id)?,
                Table::Documents => rows.document(id, count(Table::Users))?,
                Table::Attachments => rows.attachment(id, count(Table::Documents))?,
            }
        }
        Ok(())
    }
}

struct Maker<'a> {
    generator: &'a Generator,
    random: &'a mut Random,
    each: &'a mut dyn FnMut(&[Value<'_>]) -> Result<()>,
}

const KINDS: [&str; 8] = ["view", "click", "search", "login", "logout", "purchase", "refund", "error"];

impl Maker<'_> {
    fn word(&mut self) -> &str {
        self.generator.word(self.random)
    }

    fn number(&mut self, below: usize) -> i64 {
        i64::try_from(self.random.below(below.max(1))).unwrap_or(0)
    }

    /// Of one of the rows before.
    fn of(&mut self, rows: usize) -> i64 {
        1 + self.number(rows)
    }

    fn time(&mut self) -> i64 {
        1_600_000_000 + self.number(150_000_000)
    }

    fn event(&mut self, id: i64, users: usize) -> Result<()> {
        let (user, kind) = (self.of(users), KINDS[self.random.below(KINDS.len())]);
        let address = format!("10.{}.{}.{}", self.number(256), self.number(256), self.number(256));
        let path = format!("/{}/{}/{}", self.word().to_owned(), self.word().to_owned(), self.number(100_000));
        let session = format!("{:016x}", self.random.next());
        let amount = match kind {
            "purchase" | "refund" => Value::Decimal(self.number(10_000_000)),
            _ => Value::Null,
        };
        (self.each)(&[
            Value::Number(id),
            Value::Number(user),
            Value::Time(1_600_000_000 + id * 40),
            Value::Text(kind),
            amount,
            Value::Text(&address),
            Value::Text(&path),
            Value::Text(&session),
        ])
    }

    fn user(&mut self, id: i64) -> Result<()> {
        let (first, last) = (self.word().to_owned(), self.word().to_owned());
        let email = format!("{first}.{last}{id}@{}.example", self.word());
        let name = format!("{first} {last}");
        let profile = format!(
            r#"{{"city": "{}", "plan": "{}", "score": {}, "languages": ["{}", "{}"], "newsletter": {}, "about": "{} {} {}"}}"#,
            self.word().to_owned(),
            ["free", "basic", "team", "large"][self.random.below(4)],
            self.number(1000),
            self.word().to_owned(),
            self.word().to_owned(),
            self.random.below(2) == 0,
            self.word().to_owned(),
            self.word().to_owned(),
            self.word().to_owned(),
        );
        let tags: Vec<String> = (0..self.random.below(5)).map(|_| self.word().to_owned()).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let (created, active) = (self.time(), self.random.below(10) != 0);
        (self.each)(&[
            Value::Number(id),
            Value::Text(&email),
            Value::Text(&name),
            Value::Json(&profile),
            Value::List(&tags),
            Value::Time(created),
            Value::Yes(active),
        ])
    }

    fn document(&mut self, id: i64, users: usize) -> Result<()> {
        let (user, changed) = (self.of(users), self.time());
        let title = format!("{} {} {}", self.word().to_owned(), self.word().to_owned(), id);
        let size = 800 + self.random.below(1400);
        let body = self.generator.content(Kind::Text, size, self.random);
        (self.each)(&[
            Value::Number(id),
            Value::Number(user),
            Value::Text(&title),
            Value::Text(&String::from_utf8_lossy(&body)),
            Value::Time(changed),
        ])
    }

    fn attachment(&mut self, id: i64, documents: usize) -> Result<()> {
        let (document, name) = (self.of(documents), format!("{}.bin", self.word()));
        let data = self.generator.content(Kind::Random, 10_000, self.random);
        (self.each)(&[Value::Number(id), Value::Number(document), Value::Text(&name), Value::Bytes(&data)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_same_each_time_and_have_a_value_for_every_column() {
        for table in Table::ALL {
            let make = || {
                let (mut rows, mut numbers) = (0, 0);
                let mut each = |row: &[Value<'_>]| {
                    assert_eq!(row.len(), table.columns().len(), "{table:?}");
                    rows += 1;
                    for value in row {
                        if let Value::Number(n) | Value::Time(n) = value {
                            numbers += n;
                        }
                    }
                    Ok(())
                };
                table.write(1, &mut each).unwrap();
                (rows, numbers)
            };
            let made = make();
            assert_eq!((made, made.0), (make(), table.rows(1)), "{table:?}");
        }
    }
}
