//! The exchange of single tables with those beside them, its reverse, and the end of the old ones. Each is one transaction: whoever looks
//! later finds the schema of the old tables, or does not.
//!
//! Foreign keys and views of others lead to a table and not to a name. They are made anew in the same transaction.

use super::{
    beside::{Schemas, bring, by_schema, is_there},
    bound::{Surveyed, blocked, bound, fields, made_anew, numbers, regclasses},
    part::Part,
};
use crate::{
    catalog,
    client::{ClientError, Row, Session},
    error,
    quote::{ident, literal, qualified},
    server::{Server, major_version},
};
use backup_core::{Context, Error, ErrorKind, Result, Severity};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// One try to have the locks, and all of them.
const TRY: &str = "5s";
const TRIES: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
const LOCKED: [&str; 2] = ["55P03", "40P01"];
/// Rows of foreign keys are looked at.
const WORK: Duration = Duration::from_secs(24 * 3600);
/// Seconds that a statement waits for a lock that is no part of an exchange.
const LOCK: u32 = 60;

pub(super) struct Exchange<'a> {
    pub(super) server: &'a Server,
    pub(super) schemas: Schemas,
    pub(super) session: Session,
}

/// What is done in the place of the old tables.
pub(super) struct Published<'a> {
    pub(super) part: &'a Part,
    pub(super) surveyed: &'a Surveyed,
    /// Statements for when the tables have their places.
    pub(super) last: &'a str,
    pub(super) sequences: &'a str,
}

/// What was in a schema; the comment of the schema that keeps it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// The live one.
    schema: String,
    replaced: Vec<String>,
    appeared: Vec<String>,
    /// Foreign keys of the old tables to others, which would bind them: table, name, definition.
    foreign_keys: Vec<(String, String, String)>,
    /// What was bound to the restored tables as soon as they had their places: a partition that is one again. All else is made since.
    #[serde(default)]
    bound: Vec<String>,
}

/// An exchange that does not take place, for the reason that is told, or what it yields.
type Decided<T> = std::result::Result<T, String>;

/// Foreign keys and views of other tables that lead to tables.
struct Leading {
    /// Table, name, definition, comment.
    foreign_keys: Vec<[Option<String>; 4]>,
    /// Name, options, definition.
    views: Vec<[Option<String>; 3]>,
}

/// A foreign key that rows do not fit after an undo.
struct Unfit {
    name: String,
    /// It is not there, and this adds it. `None`: it is there, but NOT VALID.
    to_add: Option<String>,
}

/// A session with the database, whatever the user or the database has set for others.
pub(super) async fn session(server: &Server) -> Result<Session, ClientError> {
    let mut session = server.session().await?;
    let (major, _) = major_version(&mut session).await?;
    session.query(&catalog::settings(major, LOCK)).await?;
    Ok(session)
}

impl Exchange<'_> {
    pub(super) async fn publish(&mut self, what: &Published<'_>) -> Result<()> {
        let began = Instant::now();
        loop {
            let e = match self.try_publish(what).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => {
                    self.roll_back().await;
                    let e =
                        Error::new(ErrorKind::Refused, "exchange the tables", why).on(self.server.place());
                    return Err(e.hint("nothing is changed: make a new plan of the restore"));
                }
                Err(e) => e,
            };
            self.roll_back().await;
            if e.code().is_none_or(|code| !LOCKED.contains(&code)) || began.elapsed() > TRIES {
                let locked = e.code().is_some_and(|code| LOCKED.contains(&code));
                let e = error::target("exchange the tables", self.server)(e);
                return Err(match locked {
                    true => blocked(e, self.server, &what.part.names()).await,
                    false => e,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_publish(&mut self, what: &Published<'_>) -> Result<Decided<()>, ClientError> {
        self.begin().await?;
        let mut records = Vec::new();
        for (schema, tables) in by_schema(what.part) {
            let mut record = Record { schema: schema.to_owned(), ..Record::default() };
            for table in tables {
                let list = match is_there(&mut self.session, schema, table).await? {
                    true => &mut record.replaced,
                    false => &mut record.appeared,
                };
                list.push(table.to_owned());
            }
            records.push(record);
        }
        let old = names(&records, |record| &record.replaced);
        self.lock(&old).await?;
        if let Some(why) = self.changed_since(what, &old).await? {
            return Ok(Err(why));
        }
        let leading = self.leading_to(&old).await?;
        let of_old = self.foreign_keys(&old, false).await?;
        for [table, name, definition, _] in of_old.into_iter().map(|key| key.map(Option::unwrap_or_default)) {
            self.run(&format!("ALTER TABLE {table} DROP CONSTRAINT {}", ident(&name))).await?;
            // Every schema keeps its own; which one keeps it does not matter.
            if let Some(record) = records.first_mut() {
                record.foreign_keys.push((table, name, definition));
            }
        }
        self.part_from(&leading).await?;
        for (number, record) in records.iter().enumerate() {
            let (new, keep) = (self.schemas.new_one(number), self.schemas.old_one(number));
            let text = serde_json::to_string(record).unwrap_or_default();
            let sql =
                format!("CREATE SCHEMA {0}; COMMENT ON SCHEMA {0} IS {1}", ident(&keep), literal(&text));
            self.run(&sql).await?;
            for table in &record.replaced {
                bring(&mut self.session, (&record.schema, table), &keep).await?;
            }
            for table in record.replaced.iter().chain(&record.appeared) {
                bring(&mut self.session, (&new, table), &record.schema).await?;
            }
        }
        // Those that do not fit are an error here.
        let _none = self.lead_to_them(&leading, true).await?;
        self.run(what.last).await?;
        self.run(what.sequences).await?;
        let live = what.part.names();
        if let Some(record) = records.first_mut() {
            record.bound = bound(&mut self.session, &live).await?;
            let (text, keep) = (serde_json::to_string(record).unwrap_or_default(), self.schemas.old_one(0));
            self.run(&format!("COMMENT ON SCHEMA {} IS {}", ident(&keep), literal(&text))).await?;
        }
        self.run("COMMIT").await.map(Ok)
    }

    /// What is not as the plan says. The old tables are locked.
    async fn changed_since(
        &mut self,
        what: &Published<'_>,
        old: &[String],
    ) -> Result<Option<String>, ClientError> {
        let there = numbers(&mut self.session, what.part).await?;
        let surveyed = what.surveyed;
        let differ = |table: &&String| there.get(*table) != surveyed.get(*table);
        let names: BTreeSet<&String> = there.keys().chain(surveyed.keys()).filter(differ).collect();
        if !names.is_empty() {
            let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
            let names = names.join(", ");
            return Ok(Some(format!(
                "made, dropped or exchanged by somebody else during the restore: {names}"
            )));
        }
        let bound = bound(&mut self.session, old).await?;
        let text = "bound to the old tables by somebody else during the restore";
        Ok((!bound.is_empty()).then(|| format!("{text}: {}", bound.join(", "))))
    }

    /// Whether the exchange has taken place. An error if it has, and cannot be undone.
    pub(super) async fn check_revert(&mut self) -> Result<bool> {
        let failed = || error::target("look for the previous tables", self.server);
        let records = self.records().await.map_err(failed())?;
        if records.is_empty() {
            return Ok(false);
        }
        let live = self.live(&records).await.map_err(failed())?;
        match self.made_since(&records, &live).await.map_err(failed())? {
            Some(why) => Err(self.not_undone(why)),
            None => Ok(true),
        }
    }

    fn not_undone(&self, why: String) -> Error {
        let e = Error::new(ErrorKind::Refused, "bring the previous tables back", why).on(self.server.place());
        e.hint("drop what is named, or what of it you can do without, and try again")
    }

    /// Schemas and names of the tables that were published, as far as they are there.
    async fn live(&mut self, records: &[Record]) -> Result<Vec<(String, String)>, ClientError> {
        let mut live = Vec::new();
        for record in records {
            for table in record.replaced.iter().chain(&record.appeared) {
                if is_there(&mut self.session, &record.schema, table).await? {
                    live.push((record.schema.clone(), table.clone()));
                }
            }
        }
        Ok(live)
    }

    /// What would go with the restored tables, and is no part of the restore.
    async fn made_since(
        &mut self,
        records: &[Record],
        live: &[(String, String)],
    ) -> Result<Option<String>, ClientError> {
        let all: Vec<String> = live.iter().map(|(s, t)| qualified(s, t)).collect();
        let known: BTreeSet<&String> = records.iter().flat_map(|record| &record.bound).collect();
        let mut made = bound(&mut self.session, &all).await?;
        made.retain(|what| !known.contains(what));
        // Nothing takes the place of these.
        let mut appeared = names(records, |record| &record.appeared);
        appeared.retain(|table| all.contains(table));
        made.extend(made_anew(&mut self.session, &appeared, &all).await?);
        let text = "these were made since, and need the restored tables";
        Ok((!made.is_empty()).then(|| format!("{text}: {}", made.join(", "))))
    }

    /// The old tables come back, if they were exchanged; those beside are dropped.
    pub(super) async fn revert(&mut self, cx: &Context, component: &str) -> Result<()> {
        let failed = || error::target("bring the previous tables back", self.server);
        let began = Instant::now();
        loop {
            match self.try_revert().await {
                Ok(Err(why)) => {
                    self.roll_back().await;
                    return Err(self.not_undone(why));
                }
                Ok(Ok(unfit)) => {
                    for key in unfit {
                        let text = match key.to_add {
                            None => {
                                "rows that were written meanwhile do not fit it: it is there, but NOT VALID"
                                    .to_owned()
                            }
                            Some(sql) => format!(
                                "rows that were written or deleted meanwhile do not fit it, and it is not there any more: {sql}"
                            ),
                        };
                        cx.note(Severity::Warning, component, format!("foreign key {}", key.name), text);
                    }
                    break;
                }
                Err(e) if e.code().is_some_and(|c| LOCKED.contains(&c)) && began.elapsed() < TRIES => {
                    self.roll_back().await;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(e) => {
                    // The server has said no: nothing of the transaction is done.
                    let refused = self.session.is_clean();
                    let locked = e.code().is_some_and(|code| LOCKED.contains(&code));
                    self.roll_back().await;
                    let e = failed()(e);
                    return Err(match (refused, locked) {
                        (true, true) => self.held_up(e).await,
                        (true, false) => e.with_kind(ErrorKind::Refused),
                        (false, _) => e,
                    });
                }
            }
        }
        self.drop_schemas("new").await.map_err(failed())
    }

    /// An undo that has waited in vain.
    async fn held_up(&mut self, e: Error) -> Error {
        let e = e.with_kind(ErrorKind::Refused);
        let Ok(records) = self.records().await else { return e };
        let live = self.live(&records).await.unwrap_or_default();
        let names: Vec<String> = live.iter().map(|(s, t)| qualified(s, t)).collect();
        blocked(e, self.server, &names).await
    }

    /// The foreign keys that rows do not fit.
    async fn try_revert(&mut self) -> Result<Decided<Vec<Unfit>>, ClientError> {
        let records = self.records().await?;
        if records.is_empty() {
            return Ok(Ok(Vec::new()));
        }
        self.begin().await?;
        let live = self.live(&records).await?;
        let live_names: Vec<String> = live.iter().map(|(s, t)| qualified(s, t)).collect();
        self.lock(&live_names).await?;
        if let Some(why) = self.made_since(&records, &live).await? {
            return Ok(Err(why));
        }
        let leading = self.leading_to(&live_names).await?;
        self.part_from(&leading).await?;
        for (number, record) in records.iter().enumerate() {
            let (new, keep) = (self.schemas.new_one(number), self.schemas.old_one(number));
            self.run(&format!("CREATE SCHEMA IF NOT EXISTS {}", ident(&new))).await?;
            for (schema, table) in live.iter().filter(|(schema, _)| *schema == record.schema) {
                bring(&mut self.session, (schema, table), &new).await?;
            }
            for table in &record.replaced {
                bring(&mut self.session, (&keep, table), &record.schema).await?;
            }
            self.run(&format!("DROP SCHEMA {}", ident(&keep))).await?;
        }
        let mut unfit = Vec::new();
        for (table, name, definition) in records.iter().flat_map(|record| &record.foreign_keys) {
            unfit.extend(self.add_key(table, name, definition, false).await?);
        }
        unfit.extend(self.lead_to_them(&leading, false).await?);
        self.run("COMMIT").await?;
        Ok(Ok(unfit))
    }

    /// Drops the old tables.
    pub(super) async fn settle(&mut self) -> Result<()> {
        let failed = || error::target("drop the previous tables", self.server);
        for what in ["new", "old"] {
            self.drop_schemas(what).await.map_err(failed())?;
        }
        Ok(())
    }

    async fn begin(&mut self) -> Result<(), ClientError> {
        self.run(&format!("BEGIN; SET LOCAL lock_timeout = '{TRY}'; SET LOCAL search_path = ''")).await
    }

    async fn run(&mut self, sql: &str) -> Result<(), ClientError> {
        if sql.trim().is_empty() {
            return Ok(());
        }
        self.session.query_within(WORK, sql).await.map(drop)
    }

    async fn roll_back(&mut self) {
        if self.session.is_clean() {
            // What failed is what counts; a session that cannot roll back is closed.
            let _ = self.session.query("ROLLBACK").await;
        } else if let Ok(session) = session(self.server).await {
            self.session = session;
        }
    }

    async fn lock(&mut self, tables: &[String]) -> Result<(), ClientError> {
        if tables.is_empty() {
            return Ok(());
        }
        self.run(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", tables.join(", "))).await
    }

    /// Foreign keys between these tables and others: that lead to these, or from these.
    async fn foreign_keys(
        &mut self,
        tables: &[String],
        to_these: bool,
    ) -> Result<Vec<[Option<String>; 4]>, ClientError> {
        let these = regclasses(tables);
        let (there, here) =
            if to_these { ("k.confrelid", "k.conrelid") } else { ("k.conrelid", "k.confrelid") };
        let sql = format!(
            "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), k.conname, pg_catalog.pg_get_constraintdef(k.oid),
               pg_catalog.obj_description(k.oid, 'pg_constraint')
             FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE k.contype = 'f' AND k.conparentid = 0 AND {there} = ANY ({these}) AND NOT {here} = ANY ({these}) ORDER BY 1, 2"
        );
        Ok(self.session.query(&sql).await?.into_iter().map(fields).collect())
    }

    async fn leading_to(&mut self, tables: &[String]) -> Result<Leading, ClientError> {
        let foreign_keys = self.foreign_keys(tables, true).await?;
        let sql = format!(
            "SELECT DISTINCT pg_catalog.format('%I.%I', n.nspname, v.relname), pg_catalog.array_to_string(v.reloptions, ', '), pg_catalog.pg_get_viewdef(v.oid)
             FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
             JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind = 'v' JOIN pg_catalog.pg_namespace n ON n.oid = v.relnamespace
             WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY ({}) ORDER BY 1",
            regclasses(tables)
        );
        let views = self.session.query(&sql).await?.into_iter().map(fields).collect();
        Ok(Leading { foreign_keys, views })
    }

    async fn part_from(&mut self, leading: &Leading) -> Result<(), ClientError> {
        for key in &leading.foreign_keys {
            let [table, name, ..] = key.clone().map(Option::unwrap_or_default);
            self.run(&format!("ALTER TABLE {table} DROP CONSTRAINT {}", ident(&name))).await?;
        }
        Ok(())
    }

    /// Foreign keys and views lead to what has the names now. The keys that rows do not fit, if that is no error.
    async fn lead_to_them(&mut self, leading: &Leading, checked: bool) -> Result<Vec<Unfit>, ClientError> {
        let mut unfit = Vec::new();
        for key in &leading.foreign_keys {
            let [table, name, definition, comment] = key.clone().map(Option::unwrap_or_default);
            let added = self.add_key(&table, &name, &definition, checked).await?;
            let is_there = added.as_ref().is_none_or(|key| key.to_add.is_none());
            unfit.extend(added);
            if is_there && !comment.is_empty() {
                let on =
                    format!("COMMENT ON CONSTRAINT {} ON {table} IS {}", ident(&name), literal(&comment));
                self.run(&on).await?;
            }
        }
        for [name, options, definition] in leading.views.iter().cloned() {
            let with = options.filter(|o| !o.is_empty()).map(|o| format!(" WITH ({o})")).unwrap_or_default();
            let (name, definition) = (name.unwrap_or_default(), definition.unwrap_or_default());
            self.run(&format!("CREATE OR REPLACE VIEW {name}{with} AS {definition}")).await?;
        }
        Ok(unfit)
    }

    /// Adds a foreign key. Unless it must be valid, rows that do not fit it leave it NOT VALID, or out.
    async fn add_key(
        &mut self,
        table: &str,
        name: &str,
        definition: &str,
        must_be_valid: bool,
    ) -> Result<Option<Unfit>, ClientError> {
        let quoted = ident(name);
        let add = format!("ALTER TABLE {table} ADD CONSTRAINT {quoted} {definition}");
        // What is not enforced (PostgreSQL 18) is never checked.
        if must_be_valid || ["NOT VALID", "NOT ENFORCED"].iter().any(|end| definition.ends_with(end)) {
            self.run(&add).await?;
            return Ok(None);
        }
        let partitioned = format!(
            "SELECT relkind = 'p' FROM pg_catalog.pg_class WHERE oid = {}::pg_catalog.regclass",
            literal(table)
        );
        // One on a partitioned table cannot be NOT VALID before PostgreSQL 18.
        let (first, checked, to_add) = match self.session.value(&partitioned).await?.as_deref() == Some("t") {
            true => ("SAVEPOINT checked".to_owned(), add.clone(), Some(add)),
            false => {
                let validate = format!("ALTER TABLE {table} VALIDATE CONSTRAINT {quoted}");
                (format!("{add} NOT VALID; SAVEPOINT checked"), validate, None)
            }
        };
        self.run(&first).await?;
        match self.run(&checked).await {
            Ok(()) => Ok(None),
            Err(e) if e.code() == Some("23503") => {
                self.run("ROLLBACK TO SAVEPOINT checked").await?;
                Ok(Some(Unfit { name: format!("{name} of {table}"), to_add }))
            }
            Err(e) => Err(e),
        }
    }

    async fn records(&mut self) -> Result<Vec<Record>, ClientError> {
        let sql = format!(
            "SELECT pg_catalog.obj_description(oid, 'pg_namespace') FROM pg_catalog.pg_namespace WHERE nspname LIKE {}
             ORDER BY pg_catalog.length(nspname), nspname",
            self.schemas.pattern("old")
        );
        let rows = self.session.query(&sql).await?;
        let record = |row: Row| {
            let [text] = fields(row).map(Option::unwrap_or_default);
            let read = serde_json::from_str(&text);
            read.map_err(|e| ClientError::Protocol(format!("the record of the previous tables: {e}")))
        };
        rows.into_iter().map(record).collect()
    }

    /// Drops all schemas of this restore, and the tables in them; what others have made to need them keeps them.
    async fn drop_schemas(&mut self, what: &str) -> Result<(), ClientError> {
        let pattern = self.schemas.pattern(what);
        let tables = format!(
            "SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname LIKE {pattern} AND c.relkind IN ('r', 'p') ORDER BY 1, 2"
        );
        let tables = self.session.query(&tables).await?.into_iter().map(fields);
        let tables = tables.map(|row| row.map(Option::unwrap_or_default));
        let tables: Vec<String> = tables.map(|[schema, table]| qualified(&schema, &table)).collect();
        // All at once: foreign keys lead from one to another.
        if !tables.is_empty() {
            self.run(&format!("DROP TABLE {}", tables.join(", "))).await?;
        }
        let schemas =
            format!("SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname LIKE {pattern} ORDER BY 1");
        for row in self.session.query(&schemas).await? {
            let [schema] = fields(row).map(Option::unwrap_or_default);
            self.run(&format!("DROP SCHEMA {}", ident(&schema))).await?;
        }
        Ok(())
    }
}

/// `"schema"."table"` of all that each record lists.
fn names(records: &[Record], of: impl Fn(&Record) -> &Vec<String>) -> Vec<String> {
    records.iter().flat_map(|r| of(r).iter().map(|table| qualified(&r.schema, table))).collect()
}
