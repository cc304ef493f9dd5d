//! Foreign keys that lead out of what is restored, to a table that stays where it is.
//!
//! The server lets such a key act wherever its table is: a row that is deleted there takes rows of the shadow, or of an old table that is
//! kept, along (`CASCADE`), or cannot be deleted because of them. So they are only on tables that are in their place. The shadow never has
//! them: they are tried on an empty table. The new tables get them in the exchange, and the old ones lose theirs. What goes back gets them
//! back.

use super::{
    data_only::NOT_THERE,
    journal::{Journal, Move, Restored},
    publish::Publisher,
    sink::{Filled, ShadowSink, TableKey},
};
use crate::{
    catalog::fields,
    client::{Session, WORK, connect},
    ddl::{constraint_name, leads_to, led_into, led_to, split_table},
    error::{ClientError, DEADLOCK, LOCK_WAIT},
    quote::{ident, qualified, text, unquoted},
};
use backup_core::{Error, ErrorKind, Result, Severity};
use std::time::{Duration, Instant};

/// Rows that lead to none are looked for so long, while others wait for the end of the restore.
const LOOK: Duration = Duration::from_secs(10);

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

    /// For people.
    fn title(&self) -> String {
        format!("foreign key {} of {}", self.name, self.table)
    }
}

/// Foreign keys of a schema's tables of which `is_outward` says so: table, schema and table that it leads to. One that leads to its own
/// schema is led to `home`.
async fn found(
    session: &mut Session,
    (schema, home): (&str, &str),
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
        let named = ident(&name);
        let Some(clause) = shown.1.iter().find(|clause| constraint_name(clause) == Some(&*named)) else {
            let message = format!("the foreign key `{name}` of `{table}` is not in the table's definition");
            return Err(ClientError::Lost(message));
        };
        // The server leaves the name of the table's own schema out.
        let clause = match leads_to(clause) {
            Some((None, _)) => led_into(clause, home),
            _ => clause.clone(),
        };
        keys.push(OutwardKey { database, table, name, clause });
    }
    Ok(keys)
}

/// How many rows lead to none, and the table that they should lead to; `None` if nothing is to be said.
async fn orphans(session: &mut Session, schema: &str, key: &OutwardKey) -> Option<(u64, String)> {
    let sql = format!(
        "SELECT COLUMN_NAME, REFERENCED_COLUMN_NAME, REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE \
         WHERE CONSTRAINT_SCHEMA = {} AND TABLE_NAME = {} AND CONSTRAINT_NAME = {} AND REFERENCED_TABLE_NAME IS NOT NULL ORDER BY ORDINAL_POSITION",
        text(schema),
        text(&key.table),
        text(&key.name)
    );
    let (mut given, mut same, mut led_to) = (Vec::new(), Vec::new(), String::new());
    for [column, referenced, to_schema, to_table] in session.rows(&sql).await.ok()?.into_iter().map(fields) {
        given.push(format!("c.{} IS NOT NULL", ident(&column)));
        same.push(format!("p.{} = c.{}", ident(&referenced), ident(&column)));
        led_to = qualified(&to_schema, &to_table);
    }
    if given.is_empty() {
        return None;
    }
    let sql = format!(
        "SELECT COUNT(*) FROM {} c WHERE {} AND NOT EXISTS (SELECT 1 FROM {led_to} p WHERE {})",
        qualified(schema, &key.table),
        given.join(" AND "),
        same.join(" AND ")
    );
    Some((session.count_within(&sql, LOOK).await.ok()?, led_to))
}

impl ShadowSink {
    /// Says of each foreign key whether it leads to what is restored with it, or out of it. The statements are for those of the first kind,
    /// each for the shadow of a database; the others are tried and written down for the exchange.
    pub(super) async fn lead_keys(
        &self,
        list: &[Filled],
        tables: &[(TableKey, bool, bool)],
    ) -> Result<Vec<(usize, String)>> {
        let mut control = self.control.lock().await;
        let failed = |e: ClientError| self.failed(e, "look at the foreign keys", "");
        let case = control.value("SELECT @@lower_case_table_names").await.map_err(failed)?;
        let same = |a: &str, b: &str| match case.as_deref() {
            Some("0") => a == b,
            _ => a.eq_ignore_ascii_case(b),
        };
        let is_restored = |number: usize, quoted: &str| {
            tables.iter().any(|((n, t), ..)| *n == number && same(&ident(t), quoted))
        };
        let (mut inward, mut outward) = (Vec::new(), Vec::new());
        for d in list {
            let r = &d.restored;
            let mut of_tables = Vec::<(&String, Vec<String>)>::new();
            for (i, (table, clause)) in d.foreign_keys.iter().enumerate() {
                let damaged = || Error::damaged("read the foreign keys", "one leads nowhere").on(table);
                let (named, to) = leads_to(clause).ok_or_else(damaged)?;
                // Definitions that are in the target already name what is there.
                let is_of = |r: &Restored, named| match self.place.config.data_only {
                    true => same(&ident(&r.target), named),
                    false => same(&ident(&r.source), named),
                };
                let other = match named {
                    None => Some(r),
                    Some(named) => list.iter().map(|d| &d.restored).find(|r| is_of(r, named)),
                };
                let clause = match (other, named) {
                    (Some(other), _) if is_restored(other.number, to) => {
                        let clause = match named {
                            None => clause.clone(),
                            Some(_) => led_into(clause, &self.place.shadow(other.number)),
                        };
                        match of_tables.last_mut() {
                            Some((of, clauses)) if *of == table => clauses.push(clause),
                            _ => of_tables.push((table, vec![clause])),
                        }
                        continue;
                    }
                    (Some(other), _) => led_into(clause, &other.target),
                    (None, _) => clause.clone(),
                };
                let name = constraint_name(&clause).map_or_else(|| format!("#{i}"), unquoted);
                let key = OutwardKey { database: r.number, table: table.clone(), name, clause };
                let lacking = match self.is_whole(d, tables) {
                    // What it had, it gets, whatever that leads to.
                    true => None,
                    false => lacks(&mut control, r, &key).await.map_err(failed)?,
                };
                if let Some(lacking) = lacking {
                    let why = format!("it is left out: {lacking} is neither restored nor there");
                    self.cx.note(Severity::Warning, &self.place.component, key.title(), why);
                } else {
                    self.try_on_an_empty_table(&mut control, &key).await?;
                    outward.push(key);
                }
            }
            let statement = |(table, clauses): (&String, Vec<String>)| {
                (r.number, format!("ALTER TABLE {} {}", ident(table), clauses.join(", ")))
            };
            inward.extend(of_tables.into_iter().map(statement));
            if d.dumped {
                // The vendor's program has made them already.
                let shadow = self.place.shadow(r.number);
                let out = |_: &str, schema: &str, table: &str| {
                    let of = list.iter().find(|d| self.place.shadow(d.restored.number) == schema);
                    !of.is_some_and(|d| is_restored(d.restored.number, &ident(table)))
                };
                let made = found(&mut control, (&shadow, &r.target), r.number, &out).await.map_err(failed)?;
                for key in made {
                    control.run_within(&key.dropped_from(&shadow), WORK).await.map_err(failed)?;
                    outward.push(key);
                }
            }
        }
        let written = Journal::of(&self.place).write_outward_keys(&mut control, false, &outward).await;
        written.map_err(|e| self.failed(e, "write foreign keys down for the exchange", ""))?;
        Ok(inward)
    }

    async fn try_on_an_empty_table(&self, control: &mut Session, key: &OutwardKey) -> Result<()> {
        let failed = |e: ClientError| self.failed(e, "make the foreign key", &key.title());
        let twin = OutwardKey { table: "tried".to_owned(), ..key.clone() };
        let journal = self.place.journal();
        let at = qualified(&journal, &twin.table);
        let like = qualified(&self.place.shadow(key.database), &key.table);
        control.run(&format!("CREATE TABLE {at} LIKE {like}")).await.map_err(failed)?;
        let tried = control.run_within(&twin.added_to(&journal), WORK).await;
        control.run(&format!("DROP TABLE {at}")).await.map_err(failed)?;
        match tried {
            // Somebody is at work on the table that it leads to: that says nothing against the key.
            Err(e) if !matches!(e.code(), Some(LOCK_WAIT | DEADLOCK)) => Err(failed(e)),
            _ => Ok(()),
        }
    }
}

/// The table of the same database that a key of a part leads to, if there is none. A key into another database stays: that may come later.
async fn lacks(
    control: &mut Session,
    r: &Restored,
    key: &OutwardKey,
) -> std::result::Result<Option<String>, ClientError> {
    let Some(table) = led_to(&key.clause, &r.target) else { return Ok(None) };
    let lacking = format!("{}.{table}", ident(&r.target));
    match control.first(&format!("SHOW CREATE TABLE {lacking}")).await {
        Ok(_) => Ok(None),
        Err(e) if e.code().is_some_and(|code| NOT_THERE.contains(&code)) => Ok(Some(lacking)),
        Err(e) => Err(e),
    }
}

impl Publisher<'_> {
    /// Outward keys of what is replaced: written down before anything is changed. Refuses new ones whose names are not free.
    pub(super) async fn write_outward_keys(&mut self, restored: &[Restored], moves: &[Move]) -> Result<()> {
        let moved = |schema: &str, table: &str| {
            let of = |r: &Restored| {
                r.target == schema
                    && moves.iter().any(|m| m.database == r.number && m.table == table && m.had_old)
            };
            restored.iter().any(of)
        };
        let new = self.outward_keys(false).await?;
        for r in restored {
            for [table, name] in self.keys_of(&r.target).await? {
                let taken =
                    |key: &&OutwardKey| key.database == r.number && key.name.eq_ignore_ascii_case(&name);
                if let Some(key) = new.iter().find(taken).filter(|_| !moved(&r.target, &table)) {
                    let message = format!(
                        "the {} has the name of one of `{table}`, which stays: a database has each name once",
                        key.title()
                    );
                    return Err(Error::new(ErrorKind::Refused, "restore", message)
                        .on(&r.target)
                        .hint(format!("restore `{table}` with it, or give that foreign key another name")));
                }
            }
            let out = |table: &str, to_schema: &str, to_table: &str| {
                moved(&r.target, table) && !moved(to_schema, to_table)
            };
            let keys = found(self.session, (&r.target, &r.target), r.number, &out).await;
            let keys = keys.map_err(|e| self.failed(e, "look at the old data"))?;
            let written = Journal::of(self.place).write_outward_keys(self.session, true, &keys).await;
            written.map_err(|e| self.failed(e, "write the record of the restore"))?;
        }
        Ok(())
    }

    /// Tables and foreign keys of a database.
    async fn keys_of(&mut self, database: &str) -> Result<Vec<[String; 2]>> {
        let sql = format!(
            "SELECT TABLE_NAME, CONSTRAINT_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = {}",
            text(database)
        );
        let rows = self.session.rows(&sql).await.map_err(|e| self.failed(e, "look for foreign keys"))?;
        Ok(rows.into_iter().map(fields).collect())
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

    /// The server checks what is written, not what is there: rows of the new tables that lead to none are counted, and said.
    pub(super) async fn look_for_orphans(&mut self, restored: &[Restored]) -> Result<()> {
        let keys = self.outward_keys(false).await?;
        self.warn_of_orphans(restored, &keys).await;
        Ok(())
    }

    /// By a session of its own, which is given up when it takes long.
    async fn warn_of_orphans(&mut self, restored: &[Restored], keys: &[OutwardKey]) {
        if keys.is_empty() {
            return;
        }
        let Ok(server) = self.place.server().await else { return };
        let Ok(mut session) = connect(&server.endpoint).await else { return };
        // The one of MySQL, the other of MariaDB.
        let limits = [
            format!("max_execution_time = {}", LOOK.as_millis()),
            format!("max_statement_time = {}", LOOK.as_secs()),
        ];
        let limited = session.try_set(&[&limits[0], &limits[1]]).await;
        let begun = Instant::now();
        for key in keys {
            let Some(r) = restored.iter().find(|r| r.number == key.database) else { continue };
            if limited.is_err() || begun.elapsed() > LOOK || !session.is_sound() {
                break;
            }
            // Who may not read that table, or has none, is told nothing.
            let rows = match orphans(&mut session, &r.target, key).await {
                None | Some((0, _)) => continue,
                Some((1, to)) => format!("a row leads to a row that is not in {to}"),
                Some((n, to)) => format!("{n} rows lead to rows that are not in {to}"),
            };
            self.cx.note(Severity::Warning, &self.place.component, key.title(), rows);
        }
        session.close().await;
    }

    /// The old tables are back: they get the keys that they have lost, which are those that are not there. One that cannot be added any
    /// more, because what it leads to is another by now, is said, with its statement: that keeps nobody from the old data.
    pub(super) async fn bring_outward_keys_back(&mut self, restored: &[Restored]) -> Result<()> {
        let lost = self.outward_keys(true).await?;
        let mut added = Vec::new();
        for r in restored.iter().filter(|r| lost.iter().any(|key| key.database == r.number)) {
            let there = self.keys_of(&r.target).await?;
            for key in lost.iter().filter(|key| key.database == r.number) {
                if there.iter().any(|[table, name]| *table == key.table && *name == key.name) {
                    continue;
                }
                let indexes = self.indexes_of(&r.target, &key.table).await?;
                let sql = key.added_to(&r.target);
                match self.against_sessions(&sql, &[&r.target], "add a foreign key again").await {
                    Ok(()) => {
                        self.name_index_again(&r.target, &key.table, &indexes).await?;
                        added.push(key.clone());
                    }
                    Err(e) if !self.session.is_sound() => return Err(e),
                    Err(e) => {
                        let why = format!("it could not be added again ({}): {sql}", e.message());
                        self.cx.note(Severity::Warning, &self.place.component, key.title(), why);
                    }
                }
            }
        }
        self.warn_of_orphans(restored, &added).await;
        Ok(())
    }

    async fn indexes_of(&mut self, database: &str, table: &str) -> Result<Vec<String>> {
        let sql = format!(
            "SELECT DISTINCT INDEX_NAME FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            text(database),
            text(table)
        );
        let rows = self.session.rows(&sql).await.map_err(|e| self.failed(e, "look at the indexes"))?;
        Ok(rows.into_iter().map(fields::<1>).map(|[name]| name).collect())
    }

    /// An index that the server had made for a key is replaced by one with the name of the key when that is added again.
    async fn name_index_again(&mut self, database: &str, table: &str, before: &[String]) -> Result<()> {
        let now = self.indexes_of(database, table).await?;
        let gone: Vec<_> = before.iter().filter(|name| !now.contains(name)).collect();
        let new: Vec<_> = now.iter().filter(|name| !before.contains(name)).collect();
        if let ([gone], [new]) = (&gone[..], &new[..]) {
            let sql = format!(
                "ALTER TABLE {} RENAME INDEX {} TO {}",
                qualified(database, table),
                ident(new),
                ident(gone)
            );
            self.against_sessions(&sql, &[database], "give an index its name again").await?;
        }
        Ok(())
    }
}
