//! What only one of the two vendors knows: looked for when a backup is made, so that the plan of a restore to the other vendor's server
//! can list it.

use crate::{
    catalog::{Database, Version, fields},
    client::Session,
    error::ClientError,
    quote::texts,
};
use backup_core::{Fact, Incoming};
use std::collections::{BTreeMap, BTreeSet};

/// The subject of the notes: what it is, and what uses it.
const SUBJECT: &str = "other vendor";
/// So many users of one thing are named.
const NAMED: usize = 20;

/// What these databases use that the other vendor's servers do not know, or take for something else.
#[derive(Default)]
pub(crate) struct Peculiar(BTreeMap<&'static str, BTreeSet<String>>);

impl Peculiar {
    fn add(&mut self, what: &'static str, user: String) {
        self.0.entry(what).or_default().insert(user);
    }

    /// What it is, and who uses it, for the facts of a backup.
    pub(crate) fn facts(&self) -> impl Iterator<Item = (&'static str, &'static str, Fact)> + '_ {
        self.0.iter().map(|(what, users)| {
            let mut said = users.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
            if users.len() > NAMED {
                said.push_str(&format!(" and {} more", users.len() - NAMED));
            }
            (SUBJECT, *what, Fact::Note(said))
        })
    }
}

/// As the plan says it.
pub(crate) fn listed(incoming: &Incoming) -> Vec<String> {
    let facts = incoming.component.proof.iter().filter(|(subject, ..)| *subject == SUBJECT);
    let lines = facts.filter_map(|(_, what, fact)| match fact {
        Fact::Note(users) => Some(format!("does not map: {what}: {users}")),
        _ => None,
    });
    lines.collect()
}

/// Looks for it.
pub(crate) async fn look(
    session: &mut Session,
    databases: &[Database],
    version: &Version,
) -> Result<Peculiar, ClientError> {
    let mut found = Peculiar::default();
    if databases.is_empty() {
        return Ok(found);
    }
    for d in databases {
        if let Some(what) = of_collation(&d.collation) {
            found.add(what, d.name.clone());
        }
        for sequence in &d.sequences {
            found.add("sequences", format!("{}.{sequence}", d.name));
        }
        for table in &d.tables {
            let name = format!("{}.{}", d.name, table.name);
            if table.period.is_some() {
                found.add("system versioning", name.clone());
            }
            let engine = table.engine.to_ascii_lowercase();
            if version.mariadb
                && !["innodb", "myisam", "memory", "csv", "archive", "mrg_myisam"].contains(&&*engine)
            {
                found.add("storage engines of MariaDB", format!("{name} ({})", table.engine));
            }
        }
    }
    let names = texts(databases.iter().map(|d| &d.name));
    let columns = format!(
        "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, '.', COLUMN_NAME), DATA_TYPE, COLLATION_NAME, EXTRA, COLUMN_TYPE \
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA IN ({names}) AND (DATA_TYPE IN ('json', 'uuid', 'inet4', 'inet6', 'vector') \
         OR COLLATION_NAME LIKE '%\\_0900\\_%' OR COLLATION_NAME LIKE '%uca1400%' OR COLLATION_NAME LIKE '%nopad%' OR EXTRA LIKE '%INVISIBLE%' \
         OR COLUMN_TYPE LIKE '%COMPRESSED%')"
    );
    for row in session.rows(&columns).await? {
        let [column, data_type, collation, extra, column_type] = fields(row);
        let by_type = match (data_type.to_ascii_lowercase().as_str(), version.mariadb) {
            ("json", false) => Some("JSON columns (MariaDB keeps them as texts)"),
            ("uuid" | "inet4" | "inet6", true) => Some("types uuid, inet4, inet6"),
            ("vector", _) => Some("vectors"),
            _ => None,
        };
        let invisible = extra.to_ascii_uppercase().contains("INVISIBLE") && !version.mariadb;
        let compressed = version.mariadb && column_type.to_ascii_uppercase().contains("COMPRESSED");
        let found_here = [
            by_type,
            of_collation(&collation),
            invisible.then_some("invisible columns (visible on MariaDB)"),
            compressed.then_some("compressed columns"),
        ];
        for what in found_here.into_iter().flatten() {
            found.add(what, column.clone());
        }
    }
    let others = match version.mariadb {
        true => vec![(
            "packages",
            format!(
                "SELECT CONCAT(ROUTINE_SCHEMA, '.', ROUTINE_NAME) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA IN ({names}) AND ROUTINE_TYPE LIKE 'PACKAGE%'"
            ),
        )],
        false => vec![
            (
                "functional key parts",
                format!(
                    "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, '.', INDEX_NAME) FROM information_schema.STATISTICS WHERE TABLE_SCHEMA IN ({names}) AND EXPRESSION IS NOT NULL"
                ),
            ),
            (
                "reference systems of geometries",
                format!(
                    "SELECT CONCAT(TABLE_SCHEMA, '.', TABLE_NAME, '.', COLUMN_NAME) FROM information_schema.COLUMNS WHERE TABLE_SCHEMA IN ({names}) AND SRS_ID IS NOT NULL"
                ),
            ),
        ],
    };
    for (what, sql) in others {
        match session.rows(&sql).await {
            Ok(rows) => rows.into_iter().map(fields::<1>).for_each(|[name]| found.add(what, name)),
            Err(e) if e.is_lost() => return Err(e),
            // An older server has no such column, and no such thing.
            Err(_) => {}
        }
    }
    Ok(found)
}

fn of_collation(collation: &str) -> Option<&'static str> {
    if collation.contains("_0900_") {
        Some("collations of MySQL (utf8mb4_0900_…)")
    } else if collation.contains("uca1400") || collation.contains("nopad") {
        Some("collations of MariaDB (uca1400, nopad)")
    } else {
        None
    }
}
