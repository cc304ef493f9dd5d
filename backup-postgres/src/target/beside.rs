//! Tables that are restored into a database whose other tables stay: made in schemas of our own beside the old ones.
//!
//! The vendor's statements name a table by its own schema. For the moment in which it is made an old one of its name stands aside, in the
//! same transaction, so that no statement is ever rewritten.

use super::{bound::blocked, part::Part, shadow::Shadow};
use crate::{
    client::{ClientError, Session},
    error,
    quote::{ident, literal, qualified},
};
use backup_core::{Error, Result};
use std::{collections::BTreeMap, path::Path};

/// How long a table that is in use is waited for, while it stands aside for a moment.
const ASIDE: &str = "10s";
/// What keeps somebody from having a lock.
const LOCKED: &str = "55P03";

/// Names of the schemas of one restore.
#[derive(Clone, Debug)]
pub(super) struct Schemas {
    id: String,
}

impl Schemas {
    pub(super) fn new(id: &str) -> Self {
        Schemas { id: id.to_owned() }
    }

    /// Where the tables of a live schema are made.
    pub(super) fn new_one(&self, number: usize) -> String {
        format!("backup_new_{}_{number}", self.id)
    }

    /// Where the old ones are kept.
    pub(super) fn old_one(&self, number: usize) -> String {
        format!("backup_old_{}_{number}", self.id)
    }

    fn aside(&self, number: usize) -> String {
        format!("backup_aside_{}_{number}", self.id)
    }

    /// Whether this is one of ours: the old ones, or any.
    pub(super) fn pattern(&self, what: &str) -> String {
        literal(&format!("backup\\_{what}\\_{}\\_%", self.id))
    }
}

/// The tables of a part by their schemas, which are numbered.
pub(super) fn by_schema(part: &Part) -> BTreeMap<&str, Vec<&str>> {
    let mut out: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (schema, table) in &part.tables {
        out.entry(schema).or_default().push(table);
    }
    out
}

/// What pg_restore writes for psql alone is no statement; locks are waited for as long as we say. The definitions are as they are,
/// whatever lines are in their texts.
fn statements(script: &str) -> String {
    let mut lines = script.split_inclusive('\n');
    let (mut out, mut closing) = (String::with_capacity(script.len()), None);
    for line in lines.by_ref() {
        if let Some(key) = line.strip_prefix("\\restrict ") {
            closing = Some(format!("\\unrestrict {key}"));
        } else if line.trim_end() != "SET lock_timeout = 0;" {
            out += line;
        }
        if line.starts_with("-- Name: ") {
            break;
        }
    }
    // The key is made by chance for each script.
    lines.filter(|line| closing.as_deref() != Some(*line)).for_each(|line| out += line);
    out
}

/// Brings a table, with its indexes, its own sequences and its statistics objects, into another schema.
pub(super) async fn bring(
    session: &mut Session,
    (from, table): (&str, &str),
    to: &str,
) -> Result<(), ClientError> {
    let name = literal(&qualified(from, table));
    let objects = format!(
        "SELECT n.nspname, s.stxname FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace
         WHERE s.stxrelid = {name}::pg_catalog.regclass"
    );
    for row in session.query(&objects).await? {
        if let [Some(schema), Some(object)] = row.as_slice() {
            let object = qualified(schema, object);
            session.query(&format!("ALTER STATISTICS {object} SET SCHEMA {}", ident(to))).await?;
        }
    }
    session.query(&format!("ALTER TABLE {} SET SCHEMA {}", qualified(from, table), ident(to))).await.map(drop)
}

/// Whether a table of this name is there.
pub(super) async fn is_there(session: &mut Session, schema: &str, table: &str) -> Result<bool, ClientError> {
    let sql = format!("SELECT pg_catalog.to_regclass({}) IS NOT NULL", literal(&qualified(schema, table)));
    Ok(session.value(&sql).await?.as_deref() == Some("t"))
}

impl Shadow {
    /// Makes the tables of the part, with their keys and indexes, empty.
    pub(super) async fn make_beside(&self, schemas: &Schemas, part: &Part, archive: &Path) -> Result<()> {
        let no_owner = self.server.config.no_owner;
        let script = self.tools.script(archive, &part.own, no_owner).await?;
        let mut session = self.session().await?;
        let made = make(&mut session, schemas, part, &statements(&script)).await;
        session.close().await;
        let Err(e) = made else { return Ok(()) };
        let (locked, missing) = (e.code() == Some(LOCKED), matches!(e.code(), Some("42704" | "42883")));
        let e = error::target("make the tables beside the old ones", &self.server)(e);
        if locked {
            return Err(blocked(e, &self.server, &part.names()).await);
        }
        Err(match missing && e.hint_text().is_none() {
            true => {
                e.hint("what the table is made of is not there: restore it into a database of its own (--to)")
            }
            false => e,
        })
    }

    /// Statements that are to be run when the tables have their places: triggers, foreign keys, privileges.
    pub(super) async fn finishing(&self, part: &Part, archive: &Path) -> Result<String> {
        if part.own_last.is_empty() {
            return Ok(String::new());
        }
        let script = self.tools.script(archive, &part.own_last, self.server.config.no_owner).await?;
        Ok(statements(&script))
    }

    /// Statistics of the tables that are beside.
    pub(super) async fn analyze_beside(&self, schemas: &Schemas, part: &Part) -> Result<()> {
        for (number, tables) in by_schema(part).into_values().enumerate() {
            for table in tables {
                let name = qualified(&schemas.new_one(number), table);
                self.run("gather statistics", &format!("ANALYZE {name}")).await?;
            }
        }
        Ok(())
    }

    /// Where the rows of a table go.
    pub(super) fn place_of(&self, schema: &str, table: &str) -> Result<String> {
        let Some(schemas) = &self.beside else { return Ok(schema.to_owned()) };
        let part = self.choice.part.as_ref();
        let number = part.and_then(|part| by_schema(part).keys().position(|s| *s == schema));
        let known = part.is_some_and(|p| p.tables.iter().any(|(s, t)| s == schema && t == table));
        match number.filter(|_| known) {
            Some(number) => Ok(schemas.new_one(number)),
            None => {
                let e =
                    Error::damaged("restore the rows", "the definition of the table is not in the backup");
                Err(e.on(format!("{schema}.{table}")))
            }
        }
    }
}

async fn make(session: &mut Session, schemas: &Schemas, part: &Part, sql: &str) -> Result<(), ClientError> {
    session.query(&format!("BEGIN; SET LOCAL lock_timeout = '{ASIDE}'")).await?;
    let by_schema = by_schema(part);
    let mut aside = Vec::new();
    for (number, (schema, tables)) in by_schema.iter().enumerate() {
        let (new, away) = (schemas.new_one(number), schemas.aside(number));
        session.query(&format!("CREATE SCHEMA {}; CREATE SCHEMA {}", ident(&new), ident(&away))).await?;
        for table in tables {
            if is_there(session, schema, table).await? {
                bring(session, (schema, table), &away).await?;
                aside.push((number, *schema, *table));
            }
        }
    }
    session.query_within(super::shadow::WORK, sql).await?;
    for (number, (schema, tables)) in by_schema.iter().enumerate() {
        for table in tables {
            bring(session, (schema, table), &schemas.new_one(number)).await?;
        }
    }
    for (number, schema, table) in aside {
        bring(session, (&schemas.aside(number), table), schema).await?;
    }
    for number in 0..by_schema.len() {
        session.query(&format!("DROP SCHEMA {}", ident(&schemas.aside(number)))).await?;
    }
    session.query("COMMIT").await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_script_the_head_is_ours_and_the_definitions_are_as_they_are() {
        let item = "-- Name: TABLE t; Type: COMMENT\n\nCOMMENT ON TABLE t IS 'a\r\nSET lock_timeout = 0;\n\\restrict x\n\\unrestrict x\nb\r\n';\n\n";
        let script = format!(
            "--\n\n\\restrict Kx9\n\nSET statement_timeout = 0;\nSET lock_timeout = 0;\n{item}\\unrestrict Kx9\n\n"
        );
        assert_eq!(statements(&script), format!("--\n\n\nSET statement_timeout = 0;\n{item}\n"));
        let none = "--\nSET lock_timeout = 0;\n\n-- Completed\n";
        assert_eq!(statements(none), "--\n\n-- Completed\n");
    }
}
