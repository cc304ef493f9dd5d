//! Putting the shadow in the place of the old data, and back.
//!
//! All tables change places in one `RENAME`, which a server does whole or not at all (MySQL 5.7: table by table). What is no table is
//! dropped before it and made after it, from a record that was written first. Going back looks at each table: nothing is concluded from
//! how far the way forth seems to have come.

use super::{
    accounts,
    journal::{Journal, Move, Phase, Restored},
    local_infile,
    place::Place,
    rehearse::{drop_all, make},
};
use crate::{
    catalog::{OURS, Version, fields},
    client::{Session, WORK, connect},
    definitions::{self, Definition},
    error::{ClientError, LOCK_WAIT},
    quote::{ident, qualified, text, texts},
};
use backup_core::{Context, Error, ErrorKind, Event, Result};
use std::{collections::BTreeSet, time::Duration};

/// Between two rounds of ending sessions of the application.
const ROUND: Duration = Duration::from_millis(200);
/// The rename is tried so often; each try waits for the locks as long as is configured, at most ten seconds.
const TRIES: usize = 3;

pub(super) struct Publisher<'a> {
    pub(super) place: &'a Place,
    pub(super) version: &'a Version,
    pub(super) session: &'a mut Session,
    pub(super) cx: &'a Context,
}

impl Publisher<'_> {
    pub(super) fn failed(&self, e: ClientError, operation: &'static str) -> Error {
        e.during(ErrorKind::Target, operation).on(self.place.config.place())
    }

    /// Puts the new data in place.
    pub(super) async fn publish(&mut self) -> Result<()> {
        let record = "write the record of the restore";
        let filled = Journal::of(self.place).get(self.session, "filled").await;
        if filled.map_err(|e| self.failed(e, record))?.is_none() {
            return Err(Error::contract("a publish of what was not finished").on(self.place.config.place()));
        }
        let (restored, moves) = self.write_what_is_there().await?;
        Journal::of(self.place)
            .enter(self.session, Phase::Publishing)
            .await
            .map_err(|e| self.failed(e, record))?;
        for r in restored.iter().filter(|r| r.old_charset.is_empty()) {
            let sql = format!(
                "CREATE DATABASE IF NOT EXISTS {}{}",
                ident(&r.target),
                character_set(&r.charset, &r.collation)
            );
            self.run(&sql, "make the database").await?;
        }
        for r in &restored {
            let old = self.definitions(true, r.number).await?;
            drop_all(self.session, &r.target, &old).await?;
        }
        self.rename(&forth(self.place, &restored, &moves), &restored).await?;
        self.exchange_outward_keys(&restored).await?;
        for r in &restored {
            if r.whole && !r.charset.is_empty() {
                let sql =
                    format!("ALTER DATABASE {}{}", ident(&r.target), character_set(&r.charset, &r.collation));
                self.run(&sql, "set the character set").await?;
            }
            self.set_sequence_defaults(r).await?;
            let new = self.definitions(false, r.number).await?;
            make(self.session, &r.target, &r.source, &new).await?;
        }
        // Last: they may be granted what has just been made.
        accounts::make(self.place, self.session, self.cx).await?;
        Journal::of(self.place)
            .enter(self.session, Phase::Published)
            .await
            .map_err(|e| self.failed(e, record))?;
        self.look_for_orphans(&restored).await
    }

    async fn run(&mut self, sql: &str, operation: &'static str) -> Result<()> {
        let ran = self.session.run_within(sql, WORK).await;
        ran.map(drop).map_err(|e| self.failed(e, operation))
    }

    async fn definitions(&mut self, old: bool, number: usize) -> Result<Vec<Definition>> {
        let read = Journal::of(self.place).definitions(self.session, old, number).await;
        read.map_err(|e| self.failed(e, "read the record of the restore"))
    }

    async fn set_sequence_defaults(&mut self, r: &Restored) -> Result<()> {
        let list = Journal::of(self.place).defaults(self.session, r.number).await;
        let list = list.map_err(|e| self.failed(e, "read the record of the restore"))?;
        if list.is_empty() {
            return Ok(());
        }
        self.run(&format!("USE {}", ident(&r.target)), "use the database").await?;
        for [table, column, expression] in list {
            let sql = format!(
                "ALTER TABLE {} ALTER COLUMN {} SET DEFAULT ({expression})",
                ident(&table),
                ident(&column)
            );
            self.run(&sql, "let a default name the sequence again").await?;
        }
        Ok(())
    }

    /// What is replaced: found now, and written down before anything is changed.
    async fn write_what_is_there(&mut self) -> Result<(Vec<Restored>, Vec<Move>)> {
        let looking = "look at the old data";
        let read = Journal::of(self.place).databases(self.session).await;
        let mut restored = read.map_err(|e| self.failed(e, looking))?;
        let read = Journal::of(self.place).moves(self.session).await;
        let mut moves = read.map_err(|e| self.failed(e, looking))?;
        for r in &mut restored {
            let sql = format!(
                "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
                text(&r.target)
            );
            let Some(row) = self.session.first(&sql).await.map_err(|e| self.failed(e, looking))? else {
                continue;
            };
            [r.old_charset, r.old_collation] = fields(row);
            for table in self.tables_of(&r.target).await? {
                match moves.iter_mut().find(|m| m.database == r.number && m.table == table) {
                    Some(m) => m.had_old = true,
                    None if r.whole => {
                        moves.push(Move { database: r.number, table, had_old: true, has_new: false });
                    }
                    None => {}
                }
            }
            let old = definitions::list(self.session, &r.target, self.version).await?;
            let new = self.definitions(false, r.number).await?;
            for d in old {
                let moved = moves.iter().any(|m| m.database == r.number && m.table == d.table);
                let in_the_way = new.iter().any(|n| n.is_named_as(&d) || n.takes_along(&d));
                if r.whole || moved || in_the_way {
                    // What cannot be read could not be brought back.
                    let statement = d.statement.clone().map_err(|e| e.with_kind(ErrorKind::Target))?;
                    let comes = new.iter().any(|n| n.is_named_as(&d));
                    // The body of a package whose declaration alone is replaced stays.
                    let lists = if r.whole || moved || comes { &[true][..] } else { &[true, false] };
                    for old in lists {
                        let written = Journal::of(self.place)
                            .write_definition(self.session, *old, r.number, &d, &statement)
                            .await;
                        written.map_err(|e| self.failed(e, "write the record of the restore"))?;
                    }
                }
            }
        }
        self.refuse_foreign_keys_from_outside(&restored, &moves).await?;
        self.write_outward_keys(&restored, &moves).await?;
        let journal = Journal::of(self.place);
        let written = match journal.write_databases(self.session, &restored).await {
            Ok(()) => journal.write_moves(self.session, &moves).await,
            e => e,
        };
        written.map_err(|e| self.failed(e, "write the record of the restore"))?;
        Ok((restored, moves))
    }

    /// Tables and sequences.
    async fn tables_of(&mut self, schema: &str) -> Result<BTreeSet<String>> {
        let sql = format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_TYPE <> 'VIEW'",
            text(schema)
        );
        let rows = self.session.rows(&sql).await.map_err(|e| self.failed(e, "list the tables"))?;
        Ok(rows.into_iter().map(fields::<1>).map(|[name]| name).collect())
    }

    /// A foreign key of a table that stays would follow the old table out of the database.
    async fn refuse_foreign_keys_from_outside(
        &mut self,
        restored: &[Restored],
        moves: &[Move],
    ) -> Result<()> {
        for r in restored {
            let sql = format!(
                "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, CONSTRAINT_NAME, REFERENCED_TABLE_NAME FROM information_schema.REFERENTIAL_CONSTRAINTS \
                 WHERE UNIQUE_CONSTRAINT_SCHEMA = {}",
                text(&r.target)
            );
            let rows = self.session.rows(&sql).await.map_err(|e| self.failed(e, "look for foreign keys"))?;
            for row in rows {
                let [schema, table, constraint, referenced] = fields(row);
                let is_moved = |schema: &str, table: &str| {
                    let r = restored.iter().find(|r| r.target == schema);
                    r.is_some_and(|r| {
                        moves.iter().any(|m| m.database == r.number && m.table == table && m.had_old)
                    })
                };
                if is_moved(&r.target, &referenced) && !is_moved(&schema, &table) {
                    return Err(foreign_key_from_outside(&schema, &table, &constraint, &referenced));
                }
            }
        }
        Ok(())
    }

    /// One statement for all tables. Sessions of the application are ended while it waits for them.
    async fn rename(&mut self, pairs: &[String], restored: &[Restored]) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let sql = format!("RENAME TABLE {}", pairs.join(", "));
        let targets: Vec<&str> = restored.iter().map(|r| r.target.as_str()).collect();
        self.against_sessions(&sql, &targets, "let the tables change places").await
    }

    /// Runs a statement that waits for the tables of these databases, and ends the sessions of the application meanwhile.
    pub(super) async fn against_sessions(
        &mut self,
        sql: &str,
        targets: &[&str],
        operation: &'static str,
    ) -> Result<()> {
        let endpoint = self.place.server().await?.endpoint;
        let mut helper = connect(&endpoint).await.map_err(|e| self.failed(e, "connect"))?;
        let ours = [self.session.id(), helper.id()];
        let mut last = None;
        for _ in 0..TRIES {
            let running = self.session.run_within(sql, WORK);
            let ending = async {
                loop {
                    end_sessions(&mut helper, targets, &ours, self.cx).await;
                    tokio::time::sleep(ROUND).await;
                }
            };
            let done = tokio::select! {
                done = running => done,
                () = ending => continue,
            };
            match done {
                Ok(_) => {
                    helper.close().await;
                    return Ok(());
                }
                Err(e) if matches!(e.code(), Some(LOCK_WAIT | crate::error::DEADLOCK)) => last = Some(e),
                Err(e) => return Err(self.failed(e, operation)),
            }
        }
        let e = last.unwrap_or(ClientError::Late(WORK));
        Err(self
            .failed(e, operation)
            .hint("a session that cannot be ended holds a table: stop the application"))
    }

    /// Brings back what was there, and takes away what was made.
    pub(super) async fn revert(&mut self) -> Result<()> {
        let looking = "look at the restore";
        if !Journal::of(self.place).exists(self.session).await.map_err(|e| self.failed(e, looking))? {
            return Ok(());
        }
        let phase = Journal::of(self.place).phase(self.session).await.map_err(|e| self.failed(e, looking))?;
        if phase >= Phase::Publishing {
            // What refuses it comes after the first changes.
            self.bring_back().await.map_err(|e| e.with_kind(ErrorKind::Target))?;
            accounts::take_away(self.place, self.session).await?;
        }
        self.put_settings_back().await?;
        self.drop_ours(false).await
    }

    async fn bring_back(&mut self) -> Result<()> {
        let looking = "look at the restore";
        let read = Journal::of(self.place).databases(self.session).await;
        let restored = read.map_err(|e| self.failed(e, looking))?;
        let read = Journal::of(self.place).moves(self.session).await;
        let moves = read.map_err(|e| self.failed(e, looking))?;
        let mut pairs = Vec::new();
        let mut lists = Vec::new();
        for r in &restored {
            let live = self.tables_of(&r.target).await?;
            let shadow = self.tables_of(&self.place.shadow(r.number)).await?;
            let previous = self.tables_of(&self.place.previous(r.number)).await?;
            let mine: Vec<&Move> = moves.iter().filter(|m| m.database == r.number).collect();
            let (old, new) =
                (self.definitions(true, r.number).await?, self.definitions(false, r.number).await?);
            let there =
                !live.is_empty() || !r.old_charset.is_empty() || self.database_exists(&r.target).await?;
            if there {
                // Of what is there now, all that may be new; the record has the old.
                let now = definitions::list(self.session, &r.target, self.version).await?;
                let ours = now.into_iter().filter(|d| {
                    r.whole
                        || old.iter().chain(&new).any(|o| o.is_named_as(d))
                        || mine.iter().any(|m| m.table == d.table)
                });
                drop_all(self.session, &r.target, &ours.collect::<Vec<_>>()).await?;
            }
            pairs.extend(back(self.place, r, &mine, &live, &shadow, &previous));
            lists.push((r, old));
        }
        // First what goes away, then what comes back.
        pairs.sort_by_key(|(comes_back, _)| *comes_back);
        let pairs: Vec<String> = pairs.into_iter().map(|(_, pair)| pair).collect();
        self.make_previous(&restored).await?;
        self.rename(&pairs, &restored).await?;
        for (r, old) in lists {
            if r.old_charset.is_empty() {
                self.run(
                    &format!("DROP DATABASE IF EXISTS {}", ident(&r.target)),
                    "drop the database that was made",
                )
                .await?;
                continue;
            }
            let sql = format!(
                "ALTER DATABASE {}{}",
                ident(&r.target),
                character_set(&r.old_charset, &r.old_collation)
            );
            self.run(&sql, "set the character set").await?;
            make(self.session, &r.target, &r.target, &old).await?;
        }
        // Last: it may not be possible any more, and all else is back then.
        self.bring_outward_keys_back(&restored).await
    }

    pub(super) async fn database_exists(&mut self, name: &str) -> Result<bool> {
        let there = database_exists(self.session, name).await;
        there.map_err(|e| self.failed(e, "look at the database"))
    }

    /// Makes room for the old tables, before anything is changed.
    pub(super) async fn prepare_previous(&mut self) -> Result<()> {
        let read = Journal::of(self.place).databases(self.session).await;
        let restored = read.map_err(|e| self.failed(e, "look at the restore"))?;
        self.make_previous(&restored).await
    }

    /// The schemas that tables are moved through.
    async fn make_previous(&mut self, restored: &[Restored]) -> Result<()> {
        for r in restored {
            for schema in [self.place.previous(r.number), self.place.shadow(r.number)] {
                self.run(&format!("CREATE DATABASE IF NOT EXISTS {}", ident(&schema)), "make a schema")
                    .await?;
            }
        }
        Ok(())
    }

    /// Whether going back would find the old data.
    pub(super) async fn check_revert(&mut self) -> Result<()> {
        let looking = "look at the restore";
        let refused =
            |message: String| Err(Error::new(ErrorKind::Refused, "bring the old data back", message));
        if !Journal::of(self.place).exists(self.session).await.map_err(|e| self.failed(e, looking))? {
            return refused("the server knows nothing of this restore any more".to_owned());
        }
        self.refuse_if_cleared().await?;
        let read = Journal::of(self.place).databases(self.session).await;
        let restored = read.map_err(|e| self.failed(e, looking))?;
        let read = Journal::of(self.place).moves(self.session).await;
        let moves = read.map_err(|e| self.failed(e, looking))?;
        for r in &restored {
            let previous = self.tables_of(&self.place.previous(r.number)).await?;
            let missing =
                moves.iter().find(|m| m.database == r.number && m.had_old && !previous.contains(&m.table));
            if let Some(m) = missing {
                return refused(format!("the old table `{}` of `{}` is gone", m.table, r.target));
            }
        }
        self.refuse_foreign_keys_from_outside(&restored, &moves).await
    }

    /// Lets the old data go.
    pub(super) async fn settle(&mut self) -> Result<()> {
        let looking = "look at the restore";
        if !Journal::of(self.place).exists(self.session).await.map_err(|e| self.failed(e, looking))? {
            return Ok(());
        }
        self.put_settings_back().await?;
        self.drop_ours(true).await
    }

    /// What was set for the whole server.
    pub(super) async fn put_settings_back(&mut self) -> Result<()> {
        let put_back = local_infile::put_back(self.place, self.session).await;
        put_back.map_err(|e| self.failed(e, "switch local_infile off again"))
    }

    /// The record goes last: as long as it is there, a later process goes on.
    async fn drop_ours(&mut self, with_old_data: bool) -> Result<()> {
        let prefix = format!("{}\\_", self.place.journal().replace('_', "\\_"));
        let sql = format!(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE {}",
            text(&format!("{prefix}%"))
        );
        let rows = self.session.rows(&sql).await.map_err(|e| self.failed(e, "look for what is left"))?;
        let old = format!("{}_old", self.place.journal());
        for [schema] in rows.into_iter().map(fields::<1>) {
            if !with_old_data && schema.starts_with(&old) && !self.tables_of(&schema).await?.is_empty() {
                let message = format!("the schema `{schema}` still holds tables");
                return Err(Error::new(ErrorKind::Target, "bring the old data back", message)
                    .on(self.place.config.place()));
            }
            self.run(&format!("DROP DATABASE IF EXISTS {}", ident(&schema)), "drop what the restore made")
                .await?;
        }
        self.run(
            &format!("DROP DATABASE IF EXISTS {}", ident(&self.place.journal())),
            "drop what the restore made",
        )
        .await
    }
}

pub(super) async fn database_exists(
    session: &mut Session,
    name: &str,
) -> std::result::Result<bool, ClientError> {
    let sql = format!("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}", text(name));
    Ok(session.first(&sql).await?.is_some())
}

pub(super) fn foreign_key_from_outside(
    schema: &str,
    table: &str,
    constraint: &str,
    referenced: &str,
) -> Error {
    let message = format!(
        "the foreign key `{constraint}` of `{schema}`.`{table}`, which is not restored, leads to `{referenced}`: it would follow the old table"
    );
    let hint = if schema.starts_with(OURS) {
        "an earlier restore keeps that table for its undo: settle that one first".to_owned()
    } else {
        format!("restore `{table}` with it, or drop that foreign key before and add it afterwards")
    };
    Error::new(ErrorKind::Refused, "restore", message).hint(hint)
}

fn character_set(charset: &str, collation: &str) -> String {
    match charset.is_empty() {
        true => String::new(),
        false => format!(" CHARACTER SET {charset} COLLATE {collation}"),
    }
}

/// All old tables out, then all new ones in.
fn forth(place: &Place, restored: &[Restored], moves: &[Move]) -> Vec<String> {
    let target = |m: &Move| restored.iter().find(|r| r.number == m.database).map(|r| r.target.as_str());
    let out = moves.iter().filter(|m| m.had_old).filter_map(|m| {
        let live = qualified(target(m)?, &m.table);
        Some(format!("{live} TO {}", qualified(&place.previous(m.database), &m.table)))
    });
    let into = moves.iter().filter(|m| m.has_new).filter_map(|m| {
        let live = qualified(target(m)?, &m.table);
        Some(format!("{} TO {live}", qualified(&place.shadow(m.database), &m.table)))
    });
    out.chain(into).collect()
}

/// What must move back, from where each table is now: `false` for those that go away, `true` for those that come back.
fn back(
    place: &Place,
    r: &Restored,
    moves: &[&Move],
    live: &BTreeSet<String>,
    shadow: &BTreeSet<String>,
    previous: &BTreeSet<String>,
) -> Vec<(bool, String)> {
    let mut pairs = Vec::new();
    for m in moves {
        let at = |schema: &str| qualified(schema, &m.table);
        let old_is_out = m.had_old && previous.contains(&m.table);
        // What is live is the new one, unless the old one has not gone yet.
        let new_is_in =
            m.has_new && live.contains(&m.table) && !shadow.contains(&m.table) && (old_is_out || !m.had_old);
        if new_is_in {
            pairs.push((false, format!("{} TO {}", at(&r.target), at(&place.shadow(r.number)))));
        }
        if old_is_out {
            pairs.push((true, format!("{} TO {}", at(&place.previous(r.number)), at(&r.target))));
        }
    }
    pairs
}

/// Sessions of the application that use one of these databases. What may not be ended is left; the lock then tells.
async fn end_sessions(helper: &mut Session, databases: &[&str], ours: &[u32], cx: &Context) {
    let sql =
        format!("SELECT ID, USER FROM information_schema.PROCESSLIST WHERE DB IN ({})", texts(databases));
    let Ok(rows) = helper.rows(&sql).await else { return };
    for [id, user] in rows.into_iter().map(fields) {
        if ours.iter().any(|o| o.to_string() == id) {
            continue;
        }
        if helper.run(&format!("KILL {id}")).await.is_err() {
            cx.emit(&Event::Waiting {
                reason: format!("session {id} of {user} uses the database and could not be ended"),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MysqlConfig;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    /// A server without atomic changes may stop anywhere in a rename of many tables.
    #[test]
    fn going_back_looks_at_each_table() {
        let place = Place::new(
            "db",
            MysqlConfig::url("mysql://h/app"),
            std::sync::Arc::new(backup_core::NoContainers),
        );
        let r = Restored {
            number: 0,
            source: "app".into(),
            target: "app".into(),
            whole: true,
            charset: String::new(),
            collation: String::new(),
            old_charset: "utf8mb4".into(),
            old_collation: "x".into(),
        };
        let both = Move { database: 0, table: "t".into(), had_old: true, has_new: true };
        let added = Move { database: 0, table: "n".into(), had_old: false, has_new: true };
        let gone = Move { database: 0, table: "g".into(), had_old: true, has_new: false };
        let pairs = |m: &Move, live: &[&str], shadow: &[&str], previous: &[&str]| {
            let found = back(&place, &r, &[m], &set(live), &set(shadow), &set(previous));
            found.into_iter().map(|(comes_back, _)| comes_back).collect::<Vec<_>>()
        };
        assert_eq!(pairs(&both, &["t"], &["t"], &[]), [false; 0], "nothing has moved");
        assert_eq!(pairs(&both, &[], &["t"], &["t"]), [true], "only the old one has moved");
        assert_eq!(pairs(&both, &["t"], &[], &["t"]), [false, true], "both have moved");
        assert_eq!(pairs(&both, &[], &["t"], &["t"]), [true], "the new one is back already");
        assert_eq!(pairs(&added, &["n"], &[], &[]), [false]);
        assert_eq!(pairs(&added, &[], &["n"], &[]), [false; 0]);
        assert_eq!(pairs(&gone, &[], &[], &["g"]), [true]);
        assert_eq!(pairs(&gone, &["g"], &[], &[]), [false; 0]);
    }
}
