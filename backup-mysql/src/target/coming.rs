//! What a backup brings for which database: known before anything is poured, so that the plan can refuse.

use super::{MOST_NAMED, data_only::WITHOUT, publish::foreign_key_from_outside};
use crate::{
    MysqlConfig,
    catalog::{Database, fields},
    client::Session,
    error::ClientError,
    quote::texts,
    stored::{Object, Stored},
};
use backup_core::{Context, Entry, Incoming, Refusal, Result};
use std::collections::{BTreeMap, BTreeSet};

/// The databases of a backup, by their names in it.
#[derive(Default)]
pub(super) struct Coming(BTreeMap<String, OfDatabase>);

/// What comes of a database.
#[derive(Default)]
struct OfDatabase {
    tables: BTreeSet<String>,
    sequences: BTreeSet<String>,
    /// How many tables and sequences it had, if its properties come.
    had: Option<u64>,
    /// By the vendor's program: which tables is not known.
    dumped: bool,
}

impl OfDatabase {
    /// As a restore decides it: tables that the backup lacks go.
    fn is_whole(&self) -> bool {
        self.dumped || self.had == Some((self.tables.len() + self.sequences.len()) as u64)
    }
}

impl Coming {
    /// Reads the list of entries. `None`: all of the backup is restored, and nothing of the target stays.
    pub(super) async fn read(
        incoming: &Incoming,
        config: &MysqlConfig,
        cx: &Context,
    ) -> Result<Option<Self>> {
        if incoming.selection.is_all() && !config.merge && !config.data_only {
            return Ok(None);
        }
        let mut coming = Coming::default();
        let look = |entry: &Entry, selected: bool| {
            let Some(stored) = Stored::of(entry).ok().filter(|_| selected) else { return false };
            let of = coming.0.entry(stored.database).or_default();
            match stored.object {
                Object::Table | Object::Rows => of.tables.insert(stored.name),
                Object::Sequence => of.sequences.insert(stored.name),
                Object::Database => {
                    of.had = stored.properties.map(|p| p.tables);
                    false
                }
                Object::Dump => {
                    of.dumped = true;
                    false
                }
                _ => false,
            };
            false
        };
        incoming.count_of_all(look, cx).await?;
        Ok(Some(coming))
    }

    /// For the plan: which tables a part is of.
    pub(super) fn described(&self) -> Option<String> {
        let tables = self.0.iter().flat_map(|(d, of)| of.tables.iter().map(move |t| format!("{d}.{t}")));
        let named: Vec<String> = tables.clone().take(MOST_NAMED).collect();
        let more = tables.count().saturating_sub(MOST_NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let said = || format!("of the backup these tables are restored: {}{more}", named.join(", "));
        (!named.is_empty()).then(said)
    }

    /// What comes for a database of the server.
    fn of(&self, database: &str, names: Option<&[String]>) -> Option<&OfDatabase> {
        match names {
            Some([one]) if one == database && !self.0.contains_key(one) => self.0.values().next(),
            _ => self.0.get(database),
        }
    }

    /// Tables and sequences of the backup that are not there: nothing could take their rows.
    pub(super) fn refuse_what_lacks(
        &self,
        databases: &[Database],
        names: Option<&[String]>,
    ) -> Option<Refusal> {
        let is_there = |source: &str, table: &str| {
            databases.iter().any(|d| {
                let is_it = d.name == source || matches!(names, Some([one]) if d.name == *one);
                is_it && d.tables.iter().any(|t| t.name == table)
            })
        };
        let tables = self.0.iter().flat_map(|(d, of)| of.tables.iter().map(move |t| (d, t)));
        let lacking: Vec<_> = tables.filter(|(d, t)| !is_there(d, t)).collect();
        let (database, table) = lacking.first()?;
        let more = if lacking.len() > 1 { format!(" and {} more", lacking.len() - 1) } else { String::new() };
        let why =
            format!("the table {database}.{table}{more} is not there, and definitions are not restored");
        Some(Refusal::new(why, WITHOUT))
    }
}

/// Foreign keys of tables that stay, to tables that do not: they would follow the old ones. The first is told.
pub(super) async fn foreign_keys_from_outside(
    session: &mut Session,
    coming: Option<&Coming>,
    (databases, names): (&[Database], Option<&[String]>),
    stays: bool,
) -> std::result::Result<Option<Refusal>, ClientError> {
    if databases.is_empty() {
        return Ok(None);
    }
    let goes = |schema: &str, table: &str| {
        databases.iter().any(|d| d.name == schema)
            && match coming {
                None => true,
                Some(coming) => coming
                    .of(schema, names)
                    .is_some_and(|of| of.tables.contains(table) || (!stays && of.is_whole())),
            }
    };
    let sql = format!(
        "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME \
         FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE UNIQUE_CONSTRAINT_SCHEMA IN ({})",
        texts(databases.iter().map(|d| &d.name))
    );
    let rows = session.rows(&sql).await?;
    let found = rows
        .into_iter()
        .map(fields)
        .find(|[schema, table, _, to_schema, to_table]| goes(to_schema, to_table) && !goes(schema, table));
    Ok(found.map(|[schema, table, constraint, _, referenced]| {
        let e = foreign_key_from_outside(&schema, &table, &constraint, &referenced);
        Refusal::new(e.message(), e.hint_text().unwrap_or_default())
    }))
}
