//! What an archive knows of each entry, besides its bytes: enough to restore it without reading SQL.

use crate::{accounts::AccountStatement, catalog::Version};
use backup_core::{Content, Entry, Error, Result, Stage};
use serde::{Deserialize, Serialize};

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Object {
    /// Character set and collation of a database.
    Database,
    /// How the database is restored by hand.
    Guide,
    Sequence,
    /// A table with its primary key.
    Table,
    /// How the rows are loaded by hand.
    Script,
    /// The rows.
    Rows,
    /// What the vendor's program wrote of a whole database, all but events.
    Dump,
    /// Secondary keys.
    Keys,
    ForeignKeys,
    Function,
    Procedure,
    Package,
    PackageBody,
    View,
    /// All triggers of a table, in their order.
    Triggers,
    Event,
    /// Users, roles and grants of the server; of no database.
    Users,
}

/// What an archive keeps of an entry of this kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Stored {
    pub(crate) object: Object,
    pub(crate) database: String,
    /// Of the table or other object; empty for a database.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    /// The server that it was read from.
    pub(crate) server: Version,
    /// Where in the bytes the statements are: from, to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) statements: Vec<(u64, u64)>,
    /// What a definition meant when it was made; one for each statement, or one for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) contexts: Vec<DefinedIn>,
    /// Of the rows: column and whether its values are base64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) columns: Vec<StoredColumn>,
    /// Of the rows: old ones of a table that keeps its history are among them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) history: bool,
    /// Of a table: defaults that name sequences of its database, without its name: column and expression.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) sequence_defaults: Vec<(String, String)>,
    /// Of a database: character set, collation, and how many tables and sequences it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) properties: Option<DatabaseProperties>,
    /// Of users and grants: one for each statement.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) accounts: Vec<AccountStatement>,
}

/// A column of the rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredColumn {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) base64: bool,
    /// It numbers the rows by itself: zero must stay zero.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) automatic: bool,
    /// Its values are labels, of which the server knows one that it refuses to take without a warning.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) labels: bool,
}

/// Of a database as a whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DatabaseProperties {
    pub(crate) charset: String,
    pub(crate) collation: String,
    pub(crate) tables: u64,
}

/// The settings of the session in which a view, routine, trigger or event was made: they are a part of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DefinedIn {
    pub(crate) sql_mode: String,
    pub(crate) charset: String,
    pub(crate) collation: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) time_zone: String,
}

impl Stored {
    pub(crate) fn new(object: Object, database: &str, name: &str, server: &Version) -> Self {
        Stored {
            object,
            database: database.to_owned(),
            name: name.to_owned(),
            server: server.clone(),
            statements: Vec::new(),
            contexts: Vec::new(),
            columns: Vec::new(),
            history: false,
            sequence_defaults: Vec::new(),
            properties: None,
            accounts: Vec::new(),
        }
    }

    /// The entry of a path.
    pub(crate) fn entry(&self, path: String, stage: Stage) -> Entry {
        // A struct of strings, numbers and lists.
        let store = serde_json::to_value(self).ok();
        Entry { store, ..Entry::file(path, stage) }
    }

    /// What this entry says of itself.
    pub(crate) fn of(entry: &Entry) -> Result<Self> {
        let damaged =
            |e: String| Error::damaged("read what the archive says of it", e).on(entry.display_path());
        let store = entry.store.clone().ok_or_else(|| damaged("it says nothing".into()))?;
        serde_json::from_value(store).map_err(|e| damaged(e.to_string()))
    }

    /// The statements in these bytes.
    pub(crate) fn statements_in<'a>(&self, bytes: &'a [u8]) -> Result<Vec<&'a str>> {
        let damaged = || Error::damaged("find the statements", "they are not where the archive says");
        self.statements
            .iter()
            .map(|(from, to)| {
                let range = usize::try_from(*from).ok()?..usize::try_from(*to).ok()?;
                std::str::from_utf8(bytes.get(range)?).ok()
            })
            .map(|s| s.ok_or_else(damaged))
            .collect()
    }
}

/// A file of statements, as the vendor's client reads it, that knows where each of them is.
#[derive(Default)]
pub(crate) struct SqlFile {
    text: String,
    statements: Vec<(u64, u64)>,
}

impl SqlFile {
    /// With this before the first statement, for people and their client.
    pub(crate) fn with(head: &str) -> Self {
        SqlFile { text: head.to_owned(), statements: Vec::new() }
    }

    /// A statement that holds no `;` but in texts.
    pub(crate) fn push(&mut self, statement: &str) {
        self.put(statement);
        self.text.push_str(";\n");
    }

    /// A statement with a body.
    pub(crate) fn push_body(&mut self, statement: &str) {
        self.text.push_str("DELIMITER ;;\n");
        self.put(statement);
        self.text.push_str("\n;;\nDELIMITER ;\n");
    }

    /// Something that only people's clients run.
    pub(crate) fn aside(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn put(&mut self, statement: &str) {
        let from = self.text.len() as u64;
        self.text.push_str(statement);
        self.statements.push((from, self.text.len() as u64));
    }

    /// The entry and its content.
    pub(crate) fn finish(self, mut stored: Stored, path: String, stage: Stage) -> (Entry, Content) {
        stored.statements = self.statements;
        let entry = stored.entry(path, stage).sized(self.text.len() as u64);
        (entry, Content::whole(self.text.into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_found_where_the_file_has_them() {
        let version = Version { mariadb: true, number: (11, 8, 6) };
        let stored = Stored::new(Object::Function, "app", "f", &version);
        let mut file = SqlFile::with("-- head\n");
        file.push("SELECT ';'");
        file.push_body("CREATE FUNCTION f() RETURNS int BEGIN SELECT 1; END");
        let (entry, content) = file.finish(stored, "x.sql".into(), Stage::Complete);
        let bytes = futures::executor::block_on(async move {
            {
                let mut c = content;
                c.next().await.unwrap().unwrap()
            }
        });
        let read = Stored::of(&entry).unwrap();
        assert_eq!(
            read.statements_in(&bytes).unwrap(),
            ["SELECT ';'", "CREATE FUNCTION f() RETURNS int BEGIN SELECT 1; END"]
        );
        assert!(Stored::of(&Entry::file("y", Stage::Data)).is_err());
    }
}
