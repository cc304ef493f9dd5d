//! What is in a database, asked of its catalog.

use crate::{
    client::{ClientError, Row, Session},
    quote::{ident_in_ascii, literal, qualified, table_folder},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// As `pg_dump` sets them: values that are the same whatever the server, database or user prefers, and no limit that could end a
/// long COPY. `row_security = off` turns rows that would be hidden into an error.
pub(crate) fn settings(major: u32, lock_timeout: u32) -> String {
    let mut out = format!(
        "SET statement_timeout = 0; SET lock_timeout = '{lock_timeout}s'; SET idle_in_transaction_session_timeout = 0; \
         SET row_security = off; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = postgres; SET extra_float_digits = 3; \
         SET bytea_output = hex; SET standard_conforming_strings = on; SET synchronize_seqscans = off; SET search_path = ''; \
         SET default_transaction_read_only = off; SET xmloption = content"
    );
    if major >= 14 {
        out += "; SET idle_session_timeout = 0";
    }
    if major >= 17 {
        out += "; SET transaction_timeout = 0";
    }
    out
}

/// Types whose binary form is the same on every server that has them. Not those that hold numbers of the catalog
/// (`regclass`), which mean something else elsewhere.
const BINARY_TYPES: &str = "16,17,18,19,20,21,23,25,114,600,601,602,603,604,628,650,700,701,718,774,829,869,1042,1043,1082,1083,\
    1114,1184,1186,1266,1560,1562,1700,2950,3802,3904,3906,3908,3910,3912,3926,4451,4532,4533,4534,4535,4536";

/// An index over expressions, or of documents, lists or places, takes as long to build as reading so many times its table.
const SLOW_INDEX: u32 = 8;

/// How the rows of a table are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Text,
    Binary,
}

/// Where the sizes of tables come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// What the last ANALYZE saw.
    Estimated,
    /// What is there.
    Exact,
}

/// A table with rows of its own.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// Without generated columns.
    pub(crate) columns: Vec<String>,
    pub(crate) format: Format,
    pub(crate) pages: u64,
    /// With what is stored out of line.
    pub(crate) bytes: u64,
    /// Of a configuration table of an extension: which rows are the user's.
    pub(crate) condition: Option<String>,
    /// Of an extension: its script may have put rows there already.
    pub(crate) of_extension: bool,
    /// Numbers of its primary, unique and exclusion constraints.
    pub(crate) keys: Vec<u32>,
    /// Numbers of its other indexes, those first that take longest to build.
    pub(crate) indexes: Vec<u32>,
    /// What building all of them takes, in bytes read and written, roughly.
    pub(crate) work: u64,
    /// One of them is over expressions.
    pub(crate) has_expressions: bool,
    pub(crate) denied: Option<Denied>,
}

/// Why this user cannot read a table whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Select,
    Usage,
    RowSecurity,
}

impl Table {
    pub(crate) fn qualified(&self) -> String {
        qualified(&self.schema, &self.name)
    }

    pub(crate) fn display(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    pub(crate) fn folder(&self) -> String {
        table_folder(&self.schema, &self.name, self.oid)
    }

    /// `COPY … TO STDOUT` of some of its pages.
    pub(crate) fn copy_out(&self, pages: Option<(u64, Option<u64>)>) -> String {
        let name = format!("{}.{}", ident_in_ascii(&self.schema), ident_in_ascii(&self.name));
        let columns = column_list(&self.columns);
        let mut conditions = Vec::new();
        if let Some((from, to)) = pages {
            conditions.push(format!("ctid >= '({from},0)'::pg_catalog.tid"));
            conditions.extend(to.map(|to| format!("ctid < '({to},0)'::pg_catalog.tid")));
        }
        conditions
            .extend(self.condition.as_ref().map(|c| format!("({})", c.trim_start_matches("WHERE").trim())));
        let what = match (conditions.is_empty(), columns.is_empty()) {
            (true, true) => name,
            (true, false) => format!("{name} ({columns})"),
            (false, _) => format!("(SELECT {columns} FROM ONLY {name} WHERE {})", conditions.join(" AND ")),
        };
        format!("COPY {what} TO STDOUT{}", with(self.format))
    }
}

/// `COPY … FROM STDIN`.
pub(crate) fn copy_in(schema: &str, name: &str, columns: &[String], format: Format) -> String {
    let list = match columns.is_empty() {
        true => String::new(),
        false => format!(" ({})", column_list(columns)),
    };
    format!("COPY {}.{}{list} FROM STDIN{}", ident_in_ascii(schema), ident_in_ascii(name), with(format))
}

/// Gives back the room that a table takes, at once. Not TRUNCATE, whose new indexes need room.
pub(crate) fn drop_table(schema: &str, name: &str) -> String {
    format!("DROP TABLE IF EXISTS {}.{} CASCADE", ident_in_ascii(schema), ident_in_ascii(name))
}

fn column_list(columns: &[String]) -> String {
    columns.iter().map(|c| ident_in_ascii(c)).collect::<Vec<_>>().join(", ")
}

fn with(format: Format) -> &'static str {
    match format {
        Format::Text => "",
        Format::Binary => " WITH (FORMAT binary)",
    }
}

/// All tables with rows of their own: no views, no partitioned parents, no foreign or temporary tables; of extensions only what
/// they say is the user's. Exact sizes take a lock on each table: for sessions that have it.
pub(crate) async fn tables(session: &mut Session, sizes: Sizes) -> Result<Vec<Table>, ClientError> {
    let (pages, bytes) = match sizes {
        Sizes::Exact => (
            "pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int8",
            "pg_catalog.pg_table_size(c.oid)",
        ),
        Sizes::Estimated => (
            "greatest(c.relpages, 0)",
            "greatest(c.relpages, 0) * pg_catalog.current_setting('block_size')::int8",
        ),
    };
    let is_slow = "(i.indexprs IS NOT NULL OR m.amname NOT IN ('btree', 'hash', 'brin'))";
    let indexes = "FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
            JOIN pg_catalog.pg_am m ON m.oid = x.relam WHERE i.indrelid = c.oid";
    let sql = format!(
        "SELECT c.oid, n.nspname, c.relname,
          (SELECT coalesce(json_agg(a.attname ORDER BY a.attnum), '[]') FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''),
          NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
              AND NOT (t.oid IN ({BINARY_TYPES}) OR t.typcategory = 'A' AND t.oid < 16384 AND t.typelem IN ({BINARY_TYPES}))),
          {pages}, {bytes}, e.condition, e.member,
          (SELECT coalesce(json_agg(k.oid::int8 ORDER BY k.oid), '[]') FROM pg_catalog.pg_constraint k
            WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')),
          (SELECT coalesce(json_agg(i.indexrelid::int8 ORDER BY {is_slow} DESC, greatest(x.relpages, 0) DESC, i.indexrelid), '[]')
            {indexes} AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k
              WHERE k.conrelid = c.oid AND k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))),
          (SELECT coalesce(sum(greatest(x.relpages, 0) * pg_catalog.current_setting('block_size')::int8
              + CASE WHEN {is_slow} THEN {SLOW_INDEX} * ({bytes}) ELSE 0 END), 0)::int8 {indexes}),
          EXISTS (SELECT {indexes} AND i.indexprs IS NOT NULL),
          CASE WHEN NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') THEN 'usage'
            WHEN NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') THEN 'select'
            WHEN c.relrowsecurity AND pg_catalog.row_security_active(c.oid) THEN 'rows' END
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN LATERAL (
          SELECT true AS member, x.extconfig IS NOT NULL AND c.oid = ANY (x.extconfig) AS config,
            x.extcondition[pg_catalog.array_position(x.extconfig, c.oid)] AS condition
          FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
          WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
            AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
        ) e ON true
        WHERE c.relkind = 'r' AND c.relpersistence IN ('p', 'u') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
          AND (e.member IS NULL OR e.config)
        ORDER BY n.nspname, c.relname"
    );
    session.query(&sql).await?.into_iter().map(table).collect()
}

fn table(row: Row) -> Result<Table, ClientError> {
    let mut fields = row.into_iter();
    let mut next = || fields.next().flatten();
    let number = |text: Option<String>| {
        let number = text.as_deref().and_then(|t| t.parse::<u64>().ok());
        number.ok_or_else(|| ClientError::Protocol(format!("the list of tables has {text:?} for a number")))
    };
    let oid = number(next())?;
    let (schema, name) = (next().unwrap_or_default(), next().unwrap_or_default());
    let columns = serde_json::from_str(&next().unwrap_or_default())
        .map_err(|e| ClientError::Protocol(format!("the columns of {schema}.{name}: {e}")))?;
    let format = if next().as_deref() == Some("t") { Format::Binary } else { Format::Text };
    let (pages, bytes) = (number(next())?, number(next())?);
    let condition = next().filter(|c| !c.trim().is_empty());
    let of_extension = next().is_some();
    let numbers = |text: Option<String>| {
        let read = serde_json::from_str::<Vec<u32>>(&text.unwrap_or_default());
        read.map_err(|e| ClientError::Protocol(format!("the indexes of a table: {e}")))
    };
    let (keys, indexes, work) = (numbers(next())?, numbers(next())?, number(next())?);
    let has_expressions = next().as_deref() == Some("t");
    let denied = next().map(|why| match &*why {
        "usage" => Denied::Usage,
        "select" => Denied::Select,
        _ => Denied::RowSecurity,
    });
    let oid = u32::try_from(oid).map_err(|e| ClientError::Protocol(format!("table number {oid}: {e}")))?;
    Ok(Table {
        oid,
        schema,
        name,
        columns,
        format,
        pages,
        bytes,
        condition,
        of_extension,
        keys,
        indexes,
        work,
        has_expressions,
        denied,
    })
}

/// `"schema"."name"` of all sequences of the user.
pub(crate) async fn sequence_names(session: &mut Session) -> Result<Vec<String>, ClientError> {
    let names = session
        .query(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
                 WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                   AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                   AND d.deptype = 'e' AND NOT c.oid = ANY (coalesce(x.extconfig, '{}')))
             ORDER BY 1, 2",
        )
        .await?;
    let names = names.into_iter().filter_map(|row| {
        let mut row = row.into_iter();
        Some(qualified(&row.next()??, &row.next()??))
    });
    Ok(names.collect())
}

/// Schemas and names of all relations of the user that hold rows or show them.
pub(crate) async fn relations(session: &mut Session) -> Result<BTreeSet<(String, String)>, ClientError> {
    let rows = session
        .query(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'",
        )
        .await?;
    let names = rows.into_iter().filter_map(|row| {
        let mut row = row.into_iter();
        Some((row.next()??, row.next()??))
    });
    Ok(names.collect())
}

/// How a statement begins that sets this sequence.
pub(crate) fn setting_of(sequence: &str) -> String {
    format!("SELECT pg_catalog.setval({}, ", literal(sequence))
}

/// The state of all sequences, as statements that set it. Read outside of any moment: a sequence is never behind the rows.
pub(crate) async fn sequences(session: &mut Session) -> Result<String, ClientError> {
    let names = sequence_names(session).await?;
    let mut out = String::new();
    for some in names.chunks(200) {
        let each =
            some.iter().map(|name| format!("SELECT {}, last_value, is_called FROM {name}", literal(name)));
        for row in session.query(&each.collect::<Vec<_>>().join(" UNION ALL ")).await? {
            let [Some(name), Some(value), Some(called)] = row.as_slice() else {
                return Err(ClientError::Protocol(format!("a sequence without its state: {row:?}")));
            };
            let called = called == "t";
            out.push_str(&format!("{}{value}, {called});\n", setting_of(name)));
        }
    }
    Ok(out)
}

/// The statement that fills this view.
pub(crate) fn refresh_of(view: &str) -> String {
    format!("REFRESH MATERIALIZED VIEW {view};")
}

/// The view that such a statement fills, for people.
pub(crate) fn refreshed_by(statement: &str) -> String {
    let name = statement.trim_start_matches("REFRESH MATERIALIZED VIEW ").trim_end_matches(';');
    name.trim_matches('"').replace("\".\"", ".").replace("\"\"", "\"")
}

/// Statements that fill the materialized views, or those that are filled, in an order in which each finds what it needs.
pub(crate) async fn refreshes(session: &mut Session, filled_only: bool) -> Result<String, ClientError> {
    let views = session
        .query(
            "SELECT c.oid, n.nspname, c.relname, c.relkind, c.relispopulated FROM pg_catalog.pg_class c
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('m', 'v') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 2, 3",
        )
        .await?;
    let needs = session
        .query(
            "SELECT DISTINCT r.ev_class, d.refobjid FROM pg_catalog.pg_rewrite r
             JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
             JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.relkind IN ('m', 'v')
             WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid <> r.ev_class",
        )
        .await?;
    let mut above: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in needs {
        if let [Some(view), Some(needed)] = row.as_slice() {
            above.entry(view.clone()).or_default().push(needed.clone());
        }
    }
    let (mut filled, mut names) = (BTreeSet::new(), Vec::new());
    for row in views {
        if let [Some(oid), Some(schema), Some(name), Some(kind), Some(populated)] = row.as_slice() {
            let name = (kind == "m" && (populated == "t" || !filled_only)).then(|| qualified(schema, name));
            names.push((oid.clone(), name));
        }
    }
    let by_oid: BTreeMap<&String, &Option<String>> = names.iter().map(|(oid, name)| (oid, name)).collect();
    let mut out = String::new();
    for (oid, _) in &names {
        // Depth first, without recursion: a chain of views may be long.
        let mut stack = vec![(oid.clone(), false)];
        while let Some((oid, done)) = stack.pop() {
            if done {
                if let Some(Some(name)) = by_oid.get(&oid) {
                    out.push_str(&format!("{}\n", refresh_of(name)));
                }
            } else if filled.insert(oid.clone()) {
                stack.push((oid.clone(), true));
                stack.extend(above.get(&oid).into_iter().flatten().map(|needed| (needed.clone(), false)));
            }
        }
    }
    Ok(out)
}

/// Gathers the statistics of a table.
pub(crate) struct Analysis {
    pub(crate) schema: String,
    pub(crate) table: String,
    pub(crate) statement: String,
    /// What it is about is not there as soon as the rows are: expressions of an index, statistics of several columns together, tables
    /// that inherit.
    pub(crate) looks_beyond: bool,
}

/// Of all tables, the longest first. Where an index is over expressions the columns are named: the server then leaves the expressions,
/// which can take longer than all columns, to its autovacuum, and that comes to a table of which not all was looked at.
pub(crate) async fn analyses(session: &mut Session) -> Result<Vec<Analysis>, ClientError> {
    let rows = session
        .query(
            "SELECT n.nspname, c.relname, CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indexprs IS NOT NULL)
               THEN (SELECT json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) END,
               c.relhassubclass OR EXISTS (SELECT FROM pg_catalog.pg_statistic_ext s WHERE s.stxrelid = c.oid)
             FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
             ORDER BY c.relpages DESC, 1, 2",
        )
        .await?;
    rows.into_iter()
        .map(|row| {
            let [Some(schema), Some(table), columns, Some(looks_beyond)] = row.as_slice() else {
                return Err(ClientError::Protocol(format!("a table without a name: {row:?}")));
            };
            let columns: Vec<String> = serde_json::from_str(columns.as_deref().unwrap_or("[]"))
                .map_err(|e| ClientError::Protocol(format!("the columns of {schema}.{table}: {e}")))?;
            Ok(Analysis {
                statement: analyze(schema, table, &columns),
                looks_beyond: looks_beyond == "t" || !columns.is_empty(),
                schema: schema.clone(),
                table: table.clone(),
            })
        })
        .collect()
}

/// Gathers the statistics of a table: of these columns, if there are any, and then its autovacuum still comes for the rest; else all.
pub(crate) fn analyze(schema: &str, table: &str, columns: &[String]) -> String {
    let columns = if columns.is_empty() { String::new() } else { format!(" ({})", column_list(columns)) };
    format!("ANALYZE {}.{}{columns}", ident_in_ascii(schema), ident_in_ascii(table))
}

/// Numbers of constraints, each with the numbers of what its index is made of (operator classes, functions) or of the extensions that
/// this is of: `pg_dump` names neither of a constraint, for of a whole database they are there.
pub(crate) async fn needs_of_keys(session: &mut Session) -> Result<Vec<(String, String)>, ClientError> {
    let rows = session
        .query(
            "SELECT k.oid, pg_catalog.string_agg(DISTINCT coalesce(e.refobjid, d.refobjid)::text, ' ')
             FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_depend d ON d.objid = k.conindid
               AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid NOT IN
               ('pg_catalog.pg_class'::pg_catalog.regclass, 'pg_catalog.pg_constraint'::pg_catalog.regclass)
             LEFT JOIN pg_catalog.pg_depend e ON e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'
             WHERE k.contype IN ('p', 'u', 'x') GROUP BY k.oid ORDER BY k.oid",
        )
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            let mut row = row.into_iter();
            Some((row.next()??, row.next()??))
        })
        .collect())
}

/// How many large objects there are.
pub(crate) async fn large_objects(session: &mut Session) -> Result<u64, ClientError> {
    session.number("SELECT count(*) FROM pg_catalog.pg_largeobject_metadata").await
}

/// What of the database is not in a backup of it, for people.
pub(crate) async fn not_captured(session: &mut Session) -> Result<Vec<String>, ClientError> {
    let mut out = Vec::new();
    let foreign = "SELECT count(*) FROM pg_catalog.pg_class WHERE relkind = 'f'";
    match session.value(foreign).await?.as_deref() {
        Some("0") | None => {}
        Some(n) => out.push(format!("the rows of {n} foreign tables, which are another server's")),
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            oid: 1,
            schema: "s".into(),
            name: "t".into(),
            columns: vec!["a".into(), "B".into()],
            format: Format::Binary,
            pages: 0,
            bytes: 0,
            condition: None,
            of_extension: false,
            keys: vec![],
            indexes: vec![],
            work: 0,
            has_expressions: false,
            denied: None,
        }
    }

    #[test]
    fn a_copy_names_its_columns_and_pages() {
        let t = table();
        assert_eq!(t.copy_out(None), "COPY \"s\".\"t\" (\"a\", \"B\") TO STDOUT WITH (FORMAT binary)");
        let some = t.copy_out(Some((5, Some(9))));
        assert!(
            some.contains("FROM ONLY \"s\".\"t\" WHERE ctid >= '(5,0)'") && some.contains("ctid < '(9,0)'"),
            "{some}"
        );
        let of_extension = Table { condition: Some("WHERE a > 1".into()), ..table() };
        assert!(of_extension.copy_out(None).contains("WHERE (a > 1)"));
        let bare = Table { columns: vec![], format: Format::Text, ..table() };
        assert_eq!(bare.copy_out(None), "COPY \"s\".\"t\" TO STDOUT");
        assert_eq!(copy_in("s", "t", &[], Format::Text), "COPY \"s\".\"t\" FROM STDIN");
    }
}
