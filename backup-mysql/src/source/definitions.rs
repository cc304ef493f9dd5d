//! What databases are made of besides rows: the statements that make them again.

use super::{Pour, table_folder};
use crate::{
    catalog::{Database, Table},
    client::Session,
    ddl::{led_to, reads_table, split_table, unqualified},
    definitions::{self, Definition, settings},
    error::ClientError,
    quote::{file_name, ident, qualified, text},
    stored::{Object, SqlFile, Stored, StoredColumn},
};
use backup_core::{Content, Entry, ErrorKind, Result, Stage};

/// Before statements that people's clients run.
pub(super) const HEAD: &str = "SET NAMES utf8mb4, time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO', foreign_key_checks = 0, unique_checks = 0;\n";

/// Bytes of a table that is loaded with all its keys in place.
const SMALL_TABLE: u64 = 1 << 20;

pub(super) type Item = (Entry, Content);

impl Pour {
    pub(super) async fn sequence(&self, d: &Database, name: &str) -> Result<Item> {
        let stored = Stored::new(Object::Sequence, &d.name, name, &self.version);
        let path = format!("{}/sequence.sql", table_folder(d, name));
        let mut control = self.control.lock().await;
        let made: Result<_, ClientError> = async {
            let place = qualified(&d.name, name);
            let create = created(&mut control, &format!("SHOW CREATE SEQUENCE {place}"), 1).await?;
            let next = control.value(&format!("SELECT next_not_cached_value FROM {place}")).await?;
            Ok((create, next.unwrap_or_default()))
        }
        .await;
        match made {
            Ok((create, next)) => {
                let mut file = SqlFile::with(HEAD);
                file.push(&create);
                file.push(&format!("DO SETVAL({}, {next}, 0)", ident(name)));
                Ok(file.finish(stored, path, Stage::Prepare))
            }
            Err(e) => unreadable(e, stored, path, Stage::Prepare),
        }
    }

    /// The table with its primary key, and how its rows are loaded by hand.
    pub(super) async fn table(&self, d: &Database, t: &Table) -> Result<Vec<Item>> {
        let mut stored = Stored::new(Object::Table, &d.name, &t.name, &self.version);
        let folder = table_folder(d, &t.name);
        let path = format!("{folder}/table.sql");
        let create = match self.create_table(d, t).await {
            Ok(create) => create,
            Err(e) => return Ok(vec![unreadable(e, stored, path, Stage::Prepare)?]),
        };
        let with_default = t.columns.iter().filter_map(|c| {
            let default = unqualified(c.sequence_default.as_deref()?, &d.name);
            Some((c.name.clone(), default))
        });
        stored.sequence_defaults = with_default.collect();
        let mut file = SqlFile::with(HEAD);
        file.push(&split_table(&create, keys_come_later(t)).table);
        let mut items = vec![file.finish(stored, path, Stage::Prepare)];
        if !crate::MysqlConfig::excludes(&self.config.exclude_data, &d.name, &t.name) {
            let rows = super::RowsOf::new(&d.name, t, &self.version).stored();
            let stored = Stored::new(Object::Script, &d.name, &t.name, &self.version);
            let mut file = SqlFile::with(HEAD);
            if rows.history {
                file.aside("SET system_versioning_insert_history = 1;");
            }
            file.push(&load_statement(&ident(&t.name), "data.tsv", &rows.columns));
            items.push(file.finish(stored, format!("{folder}/load.sql"), Stage::Prepare));
        }
        Ok(items)
    }

    async fn create_table(&self, d: &Database, t: &Table) -> Result<String, ClientError> {
        let mut control = self.control.lock().await;
        let create =
            created(&mut control, &format!("SHOW CREATE TABLE {}", qualified(&d.name, &t.name)), 1).await?;
        // Defaults name the sequence with its database; it may be restored under another name.
        let names_sequences = t.columns.iter().any(|c| c.sequence_default.is_some());
        Ok(if names_sequences { unqualified(&create, &d.name) } else { create })
    }

    /// Secondary keys and foreign keys.
    pub(super) async fn keys(&self, d: &Database, t: &Table) -> Result<Vec<Item>> {
        let folder = table_folder(d, &t.name);
        let split = match self.create_table(d, t).await {
            Ok(create) => split_table(&create, keys_come_later(t)),
            Err(e) => {
                let stored = Stored::new(Object::Keys, &d.name, &t.name, &self.version);
                return Ok(vec![unreadable(e, stored, format!("{folder}/keys.sql"), Stage::Complete)?]);
            }
        };
        let mut items = Vec::new();
        let alter = format!("ALTER TABLE {}", ident(&t.name));
        if !split.keys.is_empty() {
            let mut file = SqlFile::with(HEAD);
            // One scan makes all that can be made together; these are made one by one.
            let (alone, together): (Vec<_>, Vec<_>) = split.keys.iter().partition(|k| {
                ["ADD FULLTEXT", "ADD SPATIAL", "ADD VECTOR"].iter().any(|a| k.starts_with(a))
            });
            if !together.is_empty() {
                let list: Vec<&str> = together.into_iter().map(String::as_str).collect();
                file.push(&format!("{alter} {}", list.join(", ")));
            }
            for key in alone {
                file.push(&format!("{alter} {key}"));
            }
            let stored = Stored::new(Object::Keys, &d.name, &t.name, &self.version);
            items.push(file.finish(stored, format!("{folder}/keys.sql"), Stage::Complete));
        }
        let (dangling, foreign_keys): (Vec<_>, Vec<_>) =
            split.foreign_keys.into_iter().partition(|key| leads_to_what_is_left_out(key, d));
        for key in dangling {
            let words =
                key.trim_start_matches("ADD CONSTRAINT ").split(" REFERENCES ").next().unwrap_or(&key);
            self.also_left_out(&format!("foreign key {words} of {}", t.name));
        }
        if !foreign_keys.is_empty() {
            let mut file = SqlFile::with(HEAD);
            file.push(&format!("{alter} {}", foreign_keys.join(", ")));
            let stored = Stored::new(Object::ForeignKeys, &d.name, &t.name, &self.version);
            items.push(file.finish(stored, format!("{folder}/foreign-keys.sql"), Stage::Complete));
        }
        Ok(items)
    }

    /// Routines, views, triggers and events, in the order in which they can be made.
    pub(super) async fn definitions(&self, d: &Database) -> Result<Vec<Item>> {
        let mut control = self.control.lock().await;
        let mut found = definitions::list(&mut control, &d.name, &self.version).await?;
        drop(control);
        let without = views_without_their_tables(&found, d);
        found.retain(|f| f.object != Object::View || !without.contains(&f.name));
        for view in &without {
            self.also_left_out(&format!("view {}.{view}", d.name));
        }
        let base = file_name(&d.name);
        let (mut items, mut views) = (Vec::new(), 0);
        let mut triggers: Option<(Stored, SqlFile)> = None;
        for found in found {
            if found.object == Object::Triggers {
                if d.left_out.contains(&found.table) {
                    continue;
                }
                if triggers.as_ref().is_none_or(|(stored, _)| stored.name != found.table) {
                    items.extend(triggers.take().map(|t| triggers_item(d, t)));
                    let stored = Stored::new(Object::Triggers, &d.name, &found.table, &self.version);
                    triggers = Some((stored, SqlFile::with(HEAD)));
                }
                if let (Some((stored, file)), Ok(create)) = (&mut triggers, &found.statement) {
                    file.aside(&settings(&found.context));
                    file.push_body(create);
                    stored.contexts.push(found.context);
                }
                continue;
            }
            let name = file_name(&found.name);
            let path = match found.object {
                Object::View => {
                    views += 1;
                    format!("{base}/views/{views:05}-{name}.sql")
                }
                Object::Event => format!("{base}/events/{name}.sql"),
                Object::Function => format!("{base}/routines/function-{name}.sql"),
                Object::Package => format!("{base}/routines/package-{name}.sql"),
                Object::PackageBody => format!("{base}/routines/packagebody-{name}.sql"),
                _ => format!("{base}/routines/procedure-{name}.sql"),
            };
            let mut stored = Stored::new(found.object, &d.name, &found.name, &self.version);
            items.push(match found.statement {
                Ok(create) => {
                    let mut file = SqlFile::with(HEAD);
                    file.aside(&settings(&found.context));
                    file.push_body(&create);
                    stored.contexts.push(found.context);
                    file.finish(stored, path, Stage::Complete)
                }
                Err(e) => (stored.entry(path, Stage::Complete), Content::failed(e)),
            });
        }
        items.extend(triggers.map(|t| triggers_item(d, t)));
        Ok(items)
    }
}

fn leads_to_what_is_left_out(foreign_key: &str, d: &Database) -> bool {
    led_to(foreign_key, &d.name).is_some_and(|table| d.left_out.iter().any(|l| ident(l) == table))
}

/// Views that read what is left out, also by other views. They could not be made again.
pub(super) fn views_without_their_tables(found: &[Definition], d: &Database) -> Vec<String> {
    let mut without: Vec<String> = Vec::new();
    loop {
        let more = found.iter().find(|f| {
            let reads = |table: &String| f.statement.as_ref().is_ok_and(|s| reads_table(s, &d.name, table));
            f.object == Object::View
                && !without.contains(&f.name)
                && d.left_out.iter().chain(&without).any(reads)
        });
        match more {
            Some(view) => without.push(view.name.clone()),
            None => return without,
        }
    }
}

fn triggers_item(d: &Database, (stored, file): (Stored, SqlFile)) -> Item {
    let path = format!("{}/triggers.sql", table_folder(d, &stored.name));
    file.finish(stored, path, Stage::Complete)
}

/// Whether secondary keys are made after the rows are loaded. For a small table that would cost the server more than it saves.
fn keys_come_later(t: &Table) -> bool {
    t.engine.eq_ignore_ascii_case("innodb") && t.size > SMALL_TABLE
}

/// One column of the answer of a `SHOW CREATE`.
async fn created(control: &mut Session, sql: &str, column: usize) -> Result<String, ClientError> {
    let row = control.first(sql).await?.unwrap_or_default();
    Ok(row.into_iter().nth(column).flatten().unwrap_or_default())
}

/// Put so that it is counted as lost; a lost connection ends everything.
pub(super) fn unreadable(e: ClientError, stored: Stored, path: String, stage: Stage) -> Result<Item> {
    let lost = e.is_lost();
    let e = e.during(ErrorKind::Source, "read a definition").on(&path);
    match lost {
        true => Err(e),
        false => Ok((stored.entry(path, stage), Content::failed(e))),
    }
}

/// Loads lines of this form. Used by people with the file beside it, and by a restore with a stream.
pub(crate) fn load_statement(table: &str, file: &str, columns: &[StoredColumn]) -> String {
    let mut names = Vec::new();
    let mut set = Vec::new();
    let computes = columns.iter().any(|c| c.base64);
    for (i, c) in columns.iter().enumerate() {
        let name = ident(&c.name);
        if c.base64 {
            names.push(format!("@v{i}"));
            set.push(format!("{name} = FROM_BASE64(@v{i})"));
        } else if c.automatic && computes {
            // With a SET, MariaDB takes a zero in the list for none given, whatever the sql_mode; not one that is SET itself.
            names.push(format!("@v{i}"));
            set.push(format!("{name} = @v{i}"));
        } else {
            names.push(name);
        }
    }
    if names.is_empty() {
        names.push("@nothing".to_owned());
    }
    let set = if set.is_empty() { String::new() } else { format!(" SET {}", set.join(", ")) };
    format!(
        "LOAD DATA LOCAL INFILE {} INTO TABLE {table} CHARACTER SET utf8mb4 FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' ({}){set}",
        text(file),
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Form;

    #[test]
    fn binary_columns_are_decoded_while_they_are_loaded() {
        let column =
            |name: &str, base64| StoredColumn { name: name.into(), base64, automatic: false, labels: false };
        let sql = load_statement("`t`", "data.tsv", &[column("id", false), column("b`", true)]);
        assert!(sql.ends_with("(`id`, @v1) SET `b``` = FROM_BASE64(@v1)"), "{sql}");
    }

    #[test]
    fn a_form_is_chosen_by_what_survives_it() {
        let column = |data_type: &str, charset: Option<&str>| crate::catalog::Column {
            name: "c".into(),
            data_type: data_type.into(),
            charset: charset.map(str::to_owned),
            automatic: false,
            sequence_default: None,
        };
        assert_eq!(column("varchar", Some("latin1")).form(), Form::Text);
        assert_eq!(column("varchar", Some("sjis")).form(), Form::Base64);
        assert_eq!(column("float", None).form(), Form::Float);
        assert_eq!(column("json", None).form(), Form::Text);
    }
}
