//! What a component of PostgreSQL consists of. Its RESTORE.md describes the same for people.

use crate::{
    catalog::{Format, Table},
    quote,
};
use backup_core::{EXCLUDED, Entry, Facts, Stage};
use serde::{Deserialize, Serialize};

/// What is in the folder of all that is no rows of a table. It has no dot, the folder of a table has one.
const OWN: [&str; 7] = [PROPERTIES, SCHEMA, LARGE_OBJECTS, SEQUENCES, REFRESH, LOAD, GUIDE];
/// The names of several databases, as a list in JSON. Then each has a folder of its name, in which all of it is as it is of a single one.
pub(crate) const DATABASES: &str = "databases.json";
pub(crate) const PROPERTIES: &str = "database/properties.json";
/// `pg_dump -Fc --schema-only`.
pub(crate) const SCHEMA: &str = "database/schema.dump";
/// `pg_dump -Fc` of large objects alone.
pub(crate) const LARGE_OBJECTS: &str = "database/large-objects.dump";
/// Statements that set the sequences.
pub(crate) const SEQUENCES: &str = "database/sequences.sql";
/// Statements that fill materialized views.
pub(crate) const REFRESH: &str = "database/refresh.sql";
/// A script for `psql` that loads all rows: for people who restore by hand.
pub(crate) const LOAD: &str = "database/load.sql";

/// The folder of a database among several: without a dot, which every folder of a table has.
pub(crate) fn folder_of(database: &str) -> String {
    quote::path_part(database)
}

/// The folder of a database among several, and the path in it; no folder: there are not several, or it is theirs together.
pub(crate) fn split(path: &str) -> (Option<&str>, &str) {
    match path.split_once('/') {
        Some((first, rest)) if !first.contains('.') && !OWN.contains(&path) => (Some(first), rest),
        _ => (None, path),
    }
}

/// A path of a database that may be one of several.
pub(crate) fn path_in(folder: Option<&str>, path: &str) -> String {
    folder.map_or_else(|| path.to_owned(), |folder| format!("{folder}/{path}"))
}

/// Facts of a database that may be one of several; what was left out is said of all together.
pub(crate) fn facts_in(folder: Option<&str>, facts: Facts) -> Facts {
    let Some(_) = folder else { return facts };
    let mut out = Facts::new();
    for (subject, measure, fact) in facts.iter() {
        let of_all = (subject, measure) == ("all", EXCLUDED);
        let subject = if of_all { subject.to_owned() } else { path_in(folder, subject) };
        out.insert(subject, measure, fact.clone());
    }
    out
}

/// All of the database, as `pg_dump -Fc` writes it: the one file outside of any folder.
pub(crate) fn dump_path(database: &str) -> String {
    let name = quote::path_part(database);
    if name.len() <= 240 { format!("{name}.dump") } else { "database.dump".to_owned() }
}

/// Whether this is the path of such a file.
pub(crate) fn is_dump(path: &str) -> bool {
    !path.contains('/') && path.ends_with(".dump")
}

/// What a part of a database means nothing without.
pub(crate) fn goes_along(path: &[u8]) -> bool {
    below(path).is_some_and(|path| [PROPERTIES, SCHEMA, SEQUENCES].contains(&path))
}

/// Rows, large objects and what they have made of the database, but not the dump that has all in one file.
pub(crate) fn is_data(path: &[u8]) -> bool {
    let states = below(path).is_some_and(|path| [LARGE_OBJECTS, SEQUENCES, REFRESH].contains(&path));
    states || path.ends_with(b".copy") || path.ends_with(b".copybin")
}

/// The path in the folder of its database, if it has one.
fn below(path: &[u8]) -> Option<&str> {
    std::str::from_utf8(path).ok().map(|path| split(path).1)
}

/// The subject of notes that say what constraints need by their indexes, each by its number in the definitions: numbers in these.
pub(crate) const KEYS_NEED: &str = "constraints need";

/// The subject and measure of the rows of a table in a dump.
pub(crate) fn dumped_rows_fact(schema: &str, table: &str) -> (String, &'static str) {
    (format!("table {schema}.{table}"), "rows")
}

/// How to do it by hand.
pub(crate) const GUIDE: &str = "database/RESTORE.md";

/// What an entry with rows says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowsOf {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
    pub(crate) format: Format,
    /// Its extension may have put rows there already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) of_extension: bool,
    /// Into how many entries its rows are cut; 0: that is not known.
    #[serde(default)]
    pub(crate) pieces: usize,
    /// Numbers that its keys and its other indexes have in the definitions; of these those first that take longest to build.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) indexes: Vec<u32>,
    /// One of them is over expressions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) has_expressions: bool,
}

/// The path of a piece of a table.
pub(crate) fn rows_path(table: &Table, piece: usize) -> String {
    let ending = match table.format {
        Format::Text => "copy",
        Format::Binary => "copybin",
    };
    format!("{}/{piece:05}.{ending}", table.folder())
}

/// An entry with rows of a table, one of so many.
pub(crate) fn rows_entry(table: &Table, piece: usize, pieces: usize) -> Entry {
    let of = RowsOf {
        schema: table.schema.clone(),
        table: table.name.clone(),
        columns: table.columns.clone(),
        format: table.format,
        of_extension: table.of_extension,
        pieces,
        keys: table.keys.clone(),
        indexes: table.indexes.clone(),
        has_expressions: table.has_expressions,
    };
    // A struct of strings.
    let store = serde_json::to_value(of).ok();
    Entry { store, ..Entry::file(rows_path(table, piece), Stage::Data) }
}

/// The subject of the facts of a table, and the measure of one piece of it.
pub(crate) fn rows_fact(schema: &str, table: &str, path: &str) -> (String, String) {
    let piece = path.rsplit('/').next().unwrap_or(path);
    let piece = piece.split('.').next().unwrap_or(piece);
    (format!("table {schema}.{table}"), format!("rows in {piece}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::Fact;

    #[test]
    fn the_folder_of_a_database_is_told_from_all_that_a_single_one_has() {
        for of_one in [
            PROPERTIES,
            GUIDE,
            LARGE_OBJECTS,
            "public.t/00000.copy",
            "table.17/00000.copybin",
            "app.dump",
            DATABASES,
        ] {
            assert_eq!(split(of_one), (None, of_one));
            for name in ["app", "database", "a b", "a%2Eb"] {
                assert_eq!(split(&path_in(Some(name), of_one)), (Some(name), of_one), "{name}");
            }
        }
        assert!(goes_along(b"app/database/schema.dump") && goes_along(b"database/schema.dump"));
        assert!(!goes_along(b"app/database/refresh.sql") && is_data(b"app/database/refresh.sql"));
        assert_eq!(folder_of("a.b/c"), "a%2Eb%2Fc");
    }

    #[test]
    fn facts_of_several_databases_do_not_meet() {
        let facts = Facts::new().with("table s.t", "rows", Fact::Count(1)).with(
            "all",
            EXCLUDED,
            Fact::Note("x".into()),
        );
        assert_eq!(facts_in(None, facts.clone()), facts);
        let of_app = facts_in(Some("app"), facts);
        assert_eq!((of_app.count("app/table s.t", "rows"), of_app.get("all", EXCLUDED).is_some()), (1, true));
    }
}
