//! What a component of PostgreSQL consists of. Its RESTORE.md describes the same for people.

use crate::catalog::{Format, Table};
use backup_core::{Entry, Stage};
use serde::{Deserialize, Serialize};

/// The folder of all that is no rows of a table. It has no dot, the folder of a table has one.
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

/// All of the database, as `pg_dump -Fc` writes it: the one file outside of any folder.
pub(crate) fn dump_path(database: &str) -> String {
    let name = crate::quote::path_part(database);
    if name.len() <= 240 { format!("{name}.dump") } else { "database.dump".to_owned() }
}

/// Whether this is the path of such a file.
pub(crate) fn is_dump(path: &str) -> bool {
    !path.contains('/') && path.ends_with(".dump")
}

/// What a part of a database means nothing without.
pub(crate) fn goes_along(path: &[u8]) -> bool {
    [PROPERTIES, SCHEMA, SEQUENCES].iter().any(|p| p.as_bytes() == path)
}

/// Rows, large objects and what they have made of the database, but not the dump that has all in one file.
pub(crate) fn is_data(path: &[u8]) -> bool {
    let states = [LARGE_OBJECTS, SEQUENCES, REFRESH].iter().any(|p| p.as_bytes() == path);
    states || path.ends_with(b".copy") || path.ends_with(b".copybin")
}

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
    /// Numbers that its keys and its other indexes have in the definitions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) indexes: Vec<u32>,
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
