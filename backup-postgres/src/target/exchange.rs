//! The exchange of single tables with those beside them, its reverse, and the end of the old ones. Each is one transaction: whoever looks
//! later finds the schema of the old tables, or does not.
//!
//! Foreign keys and views of others lead to a table and not to a name. They are made anew in the same transaction.

use super::{
    beside::{Schemas, bring, by_schema, is_there},
    part::Part,
};
use crate::{
    client::{ClientError, Row, Session},
    error,
    quote::{ident, literal, qualified},
    server::Server,
};
use backup_core::{Context, Result, Severity};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// One try to have the locks, and all of them.
const TRY: &str = "5s";
const TRIES: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
const LOCKED: [&str; 2] = ["55P03", "40P01"];
/// Rows of foreign keys are looked at.
const WORK: Duration = Duration::from_secs(24 * 3600);

pub(super) struct Exchange<'a> {
    pub(super) server: &'a Server,
    pub(super) schemas: Schemas,
    pub(super) session: Session,
}

/// What is done in the place of the old tables.
pub(super) struct Published<'a> {
    pub(super) part: &'a Part,
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
}

/// Foreign keys and views of other tables that lead to tables.
struct Leading {
    /// Table, name, definition, comment.
    foreign_keys: Vec<[Option<String>; 4]>,
    /// Name, options, definition.
    views: Vec<[Option<String>; 3]>,
}

impl Exchange<'_> {
    pub(super) async fn publish(&mut self, what: &Published<'_>) -> Result<()> {
        let began = Instant::now();
        loop {
            let done = self.try_publish(what).await;
            let Err(e) = done else { return Ok(()) };
            self.roll_back().await;
            if e.code().is_none_or(|code| !LOCKED.contains(&code)) || began.elapsed() > TRIES {
                let locked = e.code().is_some_and(|code| LOCKED.contains(&code));
                let e = error::target("exchange the tables", self.server)(e);
                return Err(match locked {
                    true => e.hint("a table is in use by a long transaction: try again when it is over"),
                    false => e,
                });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_publish(&mut self, what: &Published<'_>) -> Result<(), ClientError> {
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
        self.run("COMMIT").await
    }

    /// Whether the exchange has taken place.
    pub(super) async fn is_published(&mut self) -> Result<bool> {
        let records = self.records().await;
        Ok(!records.map_err(error::target("look for the previous tables", self.server))?.is_empty())
    }

    /// The old tables come back, if they were exchanged; those beside are dropped.
    pub(super) async fn revert(&mut self, cx: &Context, component: &str) -> Result<()> {
        let failed = || error::target("bring the previous tables back", self.server);
        let began = Instant::now();
        loop {
            match self.try_revert().await {
                Ok(unchecked) => {
                    for name in unchecked {
                        let text =
                            "rows that were written meanwhile do not fit it: it is there, but NOT VALID";
                        cx.note(Severity::Warning, component, format!("foreign key {name}"), text);
                    }
                    break;
                }
                Err(e) if e.code().is_some_and(|c| LOCKED.contains(&c)) && began.elapsed() < TRIES => {
                    self.roll_back().await;
                    tokio::time::sleep(PAUSE).await;
                }
                Err(e) => {
                    self.roll_back().await;
                    return Err(failed()(e));
                }
            }
        }
        for what in ["new", "aside"] {
            self.drop_schemas(what, true).await.map_err(failed())?;
        }
        Ok(())
    }

    /// Names of foreign keys that could not be checked.
    async fn try_revert(&mut self) -> Result<Vec<String>, ClientError> {
        let records = self.records().await?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.begin().await?;
        let mut live = Vec::new();
        for record in &records {
            for table in record.replaced.iter().chain(&record.appeared) {
                if is_there(&mut self.session, &record.schema, table).await? {
                    live.push((record.schema.clone(), table.clone()));
                }
            }
        }
        let live_names: Vec<String> = live.iter().map(|(s, t)| qualified(s, t)).collect();
        self.lock(&live_names).await?;
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
        let mut unchecked = Vec::new();
        for (table, name, definition) in records.iter().flat_map(|record| &record.foreign_keys) {
            unchecked.extend(self.add_key(table, name, definition, false).await?);
        }
        unchecked.extend(self.lead_to_them(&leading, false).await?);
        self.run("COMMIT").await?;
        Ok(unchecked)
    }

    /// Drops the old tables.
    pub(super) async fn settle(&mut self) -> Result<()> {
        let failed = || error::target("drop the previous tables", self.server);
        for what in ["new", "aside", "old"] {
            self.drop_schemas(what, what != "old").await.map_err(failed())?;
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
        } else if let Ok(session) = self.server.session().await {
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

    /// Foreign keys and views lead to what has the names now. Names of keys that could not be checked, if that is no error.
    async fn lead_to_them(&mut self, leading: &Leading, checked: bool) -> Result<Vec<String>, ClientError> {
        let mut unchecked = Vec::new();
        for key in &leading.foreign_keys {
            let [table, name, definition, comment] = key.clone().map(Option::unwrap_or_default);
            unchecked.extend(self.add_key(&table, &name, &definition, checked).await?);
            if !comment.is_empty() {
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
        Ok(unchecked)
    }

    /// Adds a foreign key. Unless it must be valid, rows that do not fit it leave it NOT VALID; its name is returned then.
    async fn add_key(
        &mut self,
        table: &str,
        name: &str,
        definition: &str,
        must_be_valid: bool,
    ) -> Result<Option<String>, ClientError> {
        let quoted = ident(name);
        let add = format!("ALTER TABLE {table} ADD CONSTRAINT {quoted} {definition}");
        if must_be_valid || definition.ends_with("NOT VALID") {
            self.run(&add).await?;
            return Ok(None);
        }
        self.run(&format!("{add} NOT VALID; SAVEPOINT checked")).await?;
        match self.run(&format!("ALTER TABLE {table} VALIDATE CONSTRAINT {quoted}")).await {
            Ok(()) => Ok(None),
            Err(e) if e.code() == Some("23503") => {
                self.run("ROLLBACK TO SAVEPOINT checked").await?;
                Ok(Some(format!("{name} of {table}")))
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

    /// Drops all schemas of this restore; what others have made to need them keeps them, unless they are `ours` alone.
    async fn drop_schemas(&mut self, what: &str, ours: bool) -> Result<(), ClientError> {
        let sql = format!(
            "SELECT nspname FROM pg_catalog.pg_namespace WHERE nspname LIKE {} ORDER BY 1",
            self.schemas.pattern(what)
        );
        for row in self.session.query(&sql).await? {
            let [schema] = fields(row).map(Option::unwrap_or_default);
            let tables = format!(
                "SELECT c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = {} AND c.relkind IN ('r', 'p')",
                literal(&schema)
            );
            let rows = self.session.query(&tables).await?;
            let names: Vec<String> = rows
                .into_iter()
                .map(|row| {
                    let [table] = fields(row).map(Option::unwrap_or_default);
                    qualified(&schema, &table)
                })
                .collect();
            if !names.is_empty() && !ours {
                self.run(&format!("DROP TABLE {}", names.join(", "))).await?;
            }
            let cascade = if ours { " CASCADE" } else { "" };
            self.run(&format!("DROP SCHEMA {}{cascade}", ident(&schema))).await?;
        }
        Ok(())
    }
}

/// `"schema"."table"` of all that each record lists.
fn names(records: &[Record], of: impl Fn(&Record) -> &Vec<String>) -> Vec<String> {
    records.iter().flat_map(|r| of(r).iter().map(|table| qualified(&r.schema, table))).collect()
}

/// A list of numbers of tables.
fn regclasses(tables: &[String]) -> String {
    let each: Vec<String> = tables
        .iter()
        .map(|table| format!("{}::pg_catalog.regclass::pg_catalog.oid", literal(table)))
        .collect();
    format!("ARRAY[{}]::pg_catalog.oid[]", each.join(", "))
}

/// So many fields of a row.
fn fields<const N: usize>(row: Row) -> [Option<String>; N] {
    let mut row = row.into_iter();
    std::array::from_fn(|_| row.next().flatten())
}

/// What leads to tables, or is bound to them, in a way that cannot be made anew: for people.
pub(super) async fn bound(session: &mut Session, tables: &[String]) -> Result<Vec<String>, ClientError> {
    let these = regclasses(tables);
    let sql = format!(
        "SELECT DISTINCT pg_catalog.pg_describe_object(d.classid, d.objid, 0) FROM pg_catalog.pg_depend d
         LEFT JOIN pg_catalog.pg_constraint k ON d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND k.oid = d.objid
         LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND r.oid = d.objid
         LEFT JOIN pg_catalog.pg_class v ON v.oid = r.ev_class
         LEFT JOIN pg_catalog.pg_trigger t ON d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass AND t.oid = d.objid
         LEFT JOIN pg_catalog.pg_policy p ON d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass AND p.oid = d.objid
         LEFT JOIN pg_catalog.pg_attrdef a ON d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = d.objid
         WHERE d.deptype = 'n'
           AND (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY ({these})
             OR d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass AND d.refobjid IN
               (SELECT y.oid FROM pg_catalog.pg_type y JOIN pg_catalog.pg_type e ON y.oid = e.oid OR y.typelem = e.oid WHERE e.typrelid = ANY ({these})))
           AND NOT (k.oid IS NOT NULL AND (k.contype = 'f' OR k.conrelid = ANY ({these})))
           AND NOT (r.oid IS NOT NULL AND (r.ev_class = ANY ({these}) OR v.relkind = 'v' AND r.ev_type = '1'))
           AND NOT coalesce(t.tgrelid = ANY ({these}), false) AND NOT coalesce(p.polrelid = ANY ({these}), false)
           AND NOT coalesce(a.adrelid = ANY ({these}), false)
           AND NOT (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = ANY ({these}))
         UNION SELECT 'publication ' || b.pubname FROM pg_catalog.pg_publication_rel l JOIN pg_catalog.pg_publication b ON b.oid = l.prpubid WHERE l.prrelid = ANY ({these})
         UNION SELECT 'inheritance or partitions of ' || i.inhrelid::pg_catalog.regclass::text FROM pg_catalog.pg_inherits i
           WHERE i.inhrelid = ANY ({these}) OR i.inhparent = ANY ({these}) ORDER BY 1"
    );
    let rows = session.query(&sql).await?;
    Ok(rows
        .into_iter()
        .map(|row| fields::<1>(row).map(Option::unwrap_or_default))
        .map(|[text]| text)
        .collect())
}

/// Views and foreign keys of others that are made anew: for people.
pub(super) async fn made_anew(session: &mut Session, tables: &[String]) -> Result<Vec<String>, ClientError> {
    let these = regclasses(tables);
    let sql = format!(
        "SELECT DISTINCT 'view ' || v.oid::pg_catalog.regclass::text FROM pg_catalog.pg_depend d
         JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND d.objid = r.oid
         JOIN pg_catalog.pg_class v ON v.oid = r.ev_class AND v.relkind = 'v'
         WHERE d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjid = ANY ({these})
         UNION SELECT 'foreign key ' || k.conname || ' of ' || k.conrelid::pg_catalog.regclass::text FROM pg_catalog.pg_constraint k
         WHERE k.contype = 'f' AND k.conparentid = 0 AND k.confrelid = ANY ({these}) AND NOT k.conrelid = ANY ({these}) ORDER BY 1"
    );
    let rows = session.query(&sql).await?;
    Ok(rows
        .into_iter()
        .map(|row| fields::<1>(row).map(Option::unwrap_or_default))
        .map(|[text]| text)
        .collect())
}
