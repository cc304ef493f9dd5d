//! Foreign keys that lead out of what is restored, to a table that stays where it is.
//!
//! The server lets such a key act wherever its table is: a row that is deleted there takes rows of the shadow, or of an old table that is
//! kept, along (`CASCADE`), or cannot be deleted because of them. So they are only on tables that are in their place. Those of the shadow
//! are tried, written down and dropped again; the new tables get them in the exchange, and the old ones lose theirs. What goes back gets
//! them back.

use super::{
    data_only::NOT_THERE,
    journal::{Journal, Move, Restored},
    publish::Publisher,
    sink::ShadowSink,
};
use crate::{
    catalog::fields,
    client::{Session, WORK},
    ddl::{led_to, referring, split_table},
    error::ClientError,
    quote::{ident, qualified, text},
};
use backup_core::{Context, Result, Severity};

/// A foreign key, as it is added to its table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OutwardKey {
    pub(super) database: usize,
    pub(super) table: String,
    pub(super) name: String,
    /// `ADD CONSTRAINT …`, with the database of the table that it leads to.
    pub(super) clause: String,
}

impl OutwardKey {
    fn added_to(&self, schema: &str) -> String {
        format!("ALTER TABLE {} {}", qualified(schema, &self.table), self.clause)
    }

    fn dropped_from(&self, schema: &str) -> String {
        format!("ALTER TABLE {} DROP FOREIGN KEY {}", qualified(schema, &self.table), ident(&self.name))
    }
}

/// Foreign keys of a schema's tables of which `is_outward` says so: table, schema and table that it leads to.
async fn found(
    session: &mut Session,
    schema: &str,
    database: usize,
    is_outward: &(dyn Fn(&str, &str, &str) -> bool + Sync),
) -> std::result::Result<Vec<OutwardKey>, ClientError> {
    let sql = format!(
        "SELECT TABLE_NAME, CONSTRAINT_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS \
         WHERE CONSTRAINT_SCHEMA = {} ORDER BY TABLE_NAME, CONSTRAINT_NAME",
        text(schema)
    );
    let (mut keys, mut shown) = (Vec::new(), (String::new(), Vec::new()));
    for row in session.rows(&sql).await? {
        let [table, name, to_schema, to_table] = fields(row);
        if !is_outward(&table, &to_schema, &to_table) {
            continue;
        }
        if shown.0 != table {
            let row = session.first(&format!("SHOW CREATE TABLE {}", qualified(schema, &table))).await?;
            let create = row.and_then(|row| row.into_iter().nth(1).flatten()).unwrap_or_default();
            shown = (table.clone(), split_table(&create, false).foreign_keys);
        }
        let begins = format!("ADD CONSTRAINT {} ", ident(&name));
        let Some(clause) = shown.1.iter().find(|clause| clause.starts_with(&begins)) else {
            let message = format!("the foreign key `{name}` of `{table}` is not in the table's definition");
            return Err(ClientError::Lost(message));
        };
        // In its own schema the server leaves the name of it out.
        let clause = referring(clause, &|named, _| named.is_none().then(|| ident(schema)));
        keys.push(OutwardKey { database, table, name, clause });
    }
    Ok(keys)
}

/// Says so if rows lead to none. They are there nevertheless: the server checks what is written, not what is there.
async fn warn_of_orphans(
    session: &mut Session,
    schema: &str,
    key: &OutwardKey,
    component: &str,
    cx: &Context,
) {
    let of = format!(
        "CONSTRAINT_SCHEMA = {} AND TABLE_NAME = {} AND CONSTRAINT_NAME = {}",
        text(schema),
        text(&key.table),
        text(&key.name)
    );
    let sql = format!(
        "SELECT COLUMN_NAME, REFERENCED_COLUMN_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE WHERE {of} ORDER BY ORDINAL_POSITION"
    );
    let Ok(columns) = session.rows(&sql).await else { return };
    let (mut given, mut same, mut led_to) = (Vec::new(), Vec::new(), String::new());
    for [column, referenced, to_schema, to_table] in columns.into_iter().map(fields) {
        given.push(format!("c.{} IS NOT NULL", ident(&column)));
        same.push(format!("p.{} = c.{}", ident(&referenced), ident(&column)));
        led_to = qualified(&to_schema, &to_table);
    }
    if given.is_empty() {
        return;
    }
    let sql = format!(
        "SELECT COUNT(*) FROM {} c WHERE {} AND NOT EXISTS (SELECT 1 FROM {led_to} p WHERE {})",
        qualified(schema, &key.table),
        given.join(" AND "),
        same.join(" AND ")
    );
    let rows = match session.count_within(&sql, WORK).await {
        Ok(0) => return,
        Ok(1) => "a row leads".to_owned(),
        Ok(n) => format!("{n} rows lead"),
        // Who may not read that table, or has none, is told nothing.
        Err(_) => return,
    };
    let message = format!("{rows} to a row that is not in {led_to}");
    cx.note(Severity::Warning, component, format!("foreign key {} of {}", key.name, key.table), message);
}

impl ShadowSink {
    /// Writes down the outward keys of the shadow, which have been tried by making them, and drops them there.
    pub(super) async fn keep_outward_keys(&self, control: &mut Session, restored: &[Restored]) -> Result<()> {
        let failed = |e: ClientError| self.failed(e, "take foreign keys down for the exchange", "");
        let shadows: Vec<String> = restored.iter().map(|r| self.place.shadow(r.number)).collect();
        for (r, shadow) in restored.iter().zip(&shadows) {
            let out = |_: &str, schema: &str, _: &str| !shadows.iter().any(|s| s == schema);
            let keys = found(control, shadow, r.number, &out).await.map_err(failed)?;
            let mut kept = Vec::new();
            for key in keys {
                if let Some(lacking) = self.lacks(control, r, &key).await.map_err(failed)? {
                    let what = format!("foreign key {} of {}", key.name, key.table);
                    let why = format!("it is left out: {lacking} is neither restored nor there");
                    self.cx.note(Severity::Warning, &self.place.component, what, why);
                } else {
                    warn_of_orphans(control, shadow, &key, &self.place.component, &self.cx).await;
                    kept.push(key.clone());
                }
                control.run_within(&key.dropped_from(shadow), WORK).await.map_err(failed)?;
            }
            Journal::of(&self.place).write_outward_keys(control, false, &kept).await.map_err(failed)?;
        }
        Ok(())
    }

    /// The table of the same database that a key of a part leads to, if there is none. A key into another database stays: that may come
    /// later.
    async fn lacks(
        &self,
        control: &mut Session,
        r: &Restored,
        key: &OutwardKey,
    ) -> std::result::Result<Option<String>, ClientError> {
        let Some(table) = led_to(&key.clause, &r.target).filter(|_| !r.whole) else { return Ok(None) };
        let lacking = format!("{}.{table}", ident(&r.target));
        match control.first(&format!("SHOW CREATE TABLE {lacking}")).await {
            Ok(_) => Ok(None),
            Err(e) if e.code().is_some_and(|code| NOT_THERE.contains(&code)) => Ok(Some(lacking)),
            Err(e) => Err(e),
        }
    }
}

impl Publisher<'_> {
    /// Outward keys of what is replaced: written down before anything is changed.
    pub(super) async fn write_outward_keys(&mut self, restored: &[Restored], moves: &[Move]) -> Result<()> {
        let moved = |schema: &str, table: &str| {
            let of = |r: &Restored| {
                r.target == schema
                    && moves.iter().any(|m| m.database == r.number && m.table == table && m.had_old)
            };
            restored.iter().any(of)
        };
        for r in restored {
            let out = |table: &str, to_schema: &str, to_table: &str| {
                moved(&r.target, table) && !moved(to_schema, to_table)
            };
            let keys = found(self.session, &r.target, r.number, &out).await;
            let keys = keys.map_err(|e| self.failed(e, "look at the old data"))?;
            let written = Journal::of(self.place).write_outward_keys(self.session, true, &keys).await;
            written.map_err(|e| self.failed(e, "write the record of the restore"))?;
        }
        Ok(())
    }

    async fn outward_keys(&mut self, old: bool) -> Result<Vec<OutwardKey>> {
        let keys = Journal::of(self.place).outward_keys(self.session, old).await;
        keys.map_err(|e| self.failed(e, "read the record of the restore"))
    }

    /// The tables have changed places: now the keys do.
    pub(super) async fn exchange_outward_keys(&mut self, restored: &[Restored]) -> Result<()> {
        for key in self.outward_keys(false).await? {
            let Some(r) = restored.iter().find(|r| r.number == key.database) else { continue };
            let sql = key.added_to(&r.target);
            self.against_sessions(&sql, &[&r.target], "add a foreign key").await?;
        }
        for key in self.outward_keys(true).await? {
            let Some(r) = restored.iter().find(|r| r.number == key.database) else { continue };
            let sql = key.dropped_from(&self.place.previous(r.number));
            self.against_sessions(&sql, &[&r.target], "drop a foreign key of the old data").await?;
        }
        Ok(())
    }

    /// The old tables are back: they get the keys that they have lost, which are those that are not there.
    pub(super) async fn bring_outward_keys_back(&mut self, restored: &[Restored]) -> Result<()> {
        let lost = self.outward_keys(true).await?;
        for r in restored.iter().filter(|r| lost.iter().any(|key| key.database == r.number)) {
            let sql = format!(
                "SELECT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = {}",
                text(&r.target)
            );
            let there = self.session.rows(&sql).await.map_err(|e| self.failed(e, "look for foreign keys"))?;
            let there: Vec<[String; 2]> = there.into_iter().map(fields).collect();
            for key in lost.iter().filter(|key| key.database == r.number) {
                if there.iter().any(|[table, name]| *table == key.table && *name == key.name) {
                    continue;
                }
                let sql = key.added_to(&r.target);
                self.against_sessions(&sql, &[&r.target], "add a foreign key again").await?;
                warn_of_orphans(self.session, &r.target, key, &self.place.component, self.cx).await;
            }
        }
        Ok(())
    }
}
