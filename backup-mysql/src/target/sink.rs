//! The shadow: schemas beside the databases, filled with what is put.

use super::{
    accounts,
    insert::{NotInserted, insert},
    journal::{Journal, Restored},
    loaders::{Loader, Loaders},
    place::Place,
    publish::database_exists,
    refusal, rehearse,
};
use crate::{
    catalog::{Database, Version},
    client::{NotLoaded, Session, WORK},
    ddl::{clauses, trigger_name},
    definitions::Definition,
    error::ClientError,
    quote::{ident, qualified},
    server::Server,
    source::{definitions::load_statement, subject},
    stored::{Object, Stored},
};
use async_trait::async_trait;
use backup_core::{
    Content, Context, Entry, Error, ErrorKind, Fact, Proof, Put, Result, Severity, Sink, Stage, Tally,
};
use futures::{StreamExt, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Mutex as AsyncMutex;

/// Statements of one entry are held in memory; none that a server takes is longer.
const LONGEST: usize = 32 << 20;

/// Bytes of rows that are put in as they come, and not sorted first.
const FEW_ROWS: u64 = 256 << 10;

/// A session that changes what is there, shared by sink and target.
pub(super) type Control = Arc<AsyncMutex<Session>>;

/// What the server is, and what may be done with it.
pub(super) struct Abilities {
    pub(super) version: Version,
    /// It takes `LOAD DATA LOCAL`.
    pub(super) infile: bool,
    /// It may be given what one of the other vendor made.
    pub(super) other_vendor: bool,
    /// The facts of the backup name tables without the backquotes in their names.
    pub(super) bare_subjects: bool,
}

/// A table in the shadow: number of its database and name.
pub(super) type TableKey = (usize, String);

pub(super) struct ShadowSink {
    pub(super) place: Place,
    pub(super) server: Server,
    pub(super) of: Abilities,
    pub(super) control: Control,
    pub(super) cx: Context,
    loaders: Loaders,
    pub(super) databases: AsyncMutex<Vec<Filled>>,
    pub(super) tables: Mutex<BTreeMap<TableKey, Filling>>,
    /// Tables with defaults that name sequences: made when all sequences are there.
    deferred: AsyncMutex<Vec<(usize, String, String)>>,
    tally: Mutex<Tally>,
    finished: std::sync::atomic::AtomicBool,
    /// What is there of a database is dropped when something comes for it.
    pub(super) clears: std::sync::atomic::AtomicBool,
}

/// A database of the backup and its shadow.
pub(super) struct Filled {
    pub(super) restored: Restored,
    /// How many tables and sequences it had.
    tables: Option<u64>,
    /// The table, and what adds the key to it.
    pub(super) foreign_keys: Vec<(String, String)>,
    /// It came as a whole, foreign keys included.
    pub(super) dumped: bool,
}

#[derive(Default)]
pub(super) struct Filling {
    rows: bool,
    history: bool,
}

impl ShadowSink {
    pub(super) fn new(place: Place, server: Server, of: Abilities, control: Control, cx: &Context) -> Self {
        ShadowSink {
            server,
            of,
            place,
            control,
            cx: cx.clone(),
            loaders: Loaders::new(cx.tasks.clamp(1, 16)),
            databases: AsyncMutex::default(),
            tables: Mutex::default(),
            deferred: AsyncMutex::default(),
            tally: Mutex::default(),
            finished: false.into(),
            clears: false.into(),
        }
    }

    /// The subject of a table's facts, as the backup has it.
    fn subject(&self, database: &str, table: &str) -> String {
        let subject = subject(database, table);
        if self.of.bare_subjects { subject.replace('`', "") } else { subject }
    }

    pub(super) fn failed(&self, e: ClientError, operation: &'static str, what: &str) -> Error {
        let e = e.during(ErrorKind::Target, operation);
        if what.is_empty() { e.on(self.place.config.place()) } else { e.on(what) }
    }

    async fn loader(&self) -> Result<Loader<'_>> {
        let make = async || {
            let made = self.place.loader(&self.server.endpoint).await;
            made.map_err(|e| self.failed(e, "connect", ""))
        };
        self.loaders.take(make).await
    }

    /// Runs statements in a shadow, one after another.
    pub(super) async fn run(&self, number: usize, statements: &[String], what: &str) -> Result<()> {
        let mut loader = self.loader().await?;
        let failed = |e| self.failed(e, "make it beside the old data", what);
        loader.enter(&self.place.shadow(number)).await.map_err(failed)?;
        let session = loader.session()?;
        for statement in statements {
            session.run_within(statement, WORK).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Makes the tables that had to wait. Called when nothing of the stage before is open any more.
    async fn make_deferred(&self) -> Result<()> {
        let mut deferred = self.deferred.lock().await;
        while let Some((number, what, statement)) = deferred.pop() {
            self.run(number, &[statement], &what).await?;
        }
        Ok(())
    }

    /// The number of a database of the backup; its shadow is made if there is none yet.
    async fn database(&self, stored: &Stored) -> Result<usize> {
        let mut list = self.databases.lock().await;
        if let Some(d) = list.iter().find(|d| d.restored.source == stored.database) {
            return Ok(d.restored.number);
        }
        admit(&stored.server, &self.of)?;
        let refused = |message: String| Err(Error::new(ErrorKind::Refused, "restore", message));
        let target = match self.server.names.as_deref() {
            None => stored.database.clone(),
            Some(names) if names.contains(&stored.database) => stored.database.clone(),
            Some([one]) if list.is_empty() => one.clone(),
            Some([one]) => {
                return refused(format!(
                    "the backup holds several databases, and only `{one}` is named as a target"
                ));
            }
            Some(_) => {
                return refused(format!("the database `{}` is none of those of the target", stored.database));
            }
        };
        if !Database::is_for_backup(&target) {
            return refused(format!("`{target}` is a database of the server itself"));
        }
        let number = list.len();
        let mut control = self.control.lock().await;
        self.cleared(&mut control, &target).await?;
        let make = format!("CREATE DATABASE {}", ident(&self.place.shadow(number)));
        control.run(&make).await.map_err(|e| self.failed(e, "make a schema beside the database", &target))?;
        let restored = Restored {
            number,
            source: stored.database.clone(),
            target,
            whole: false,
            charset: String::new(),
            collation: String::new(),
            old_charset: String::new(),
            old_collation: String::new(),
        };
        list.push(Filled { restored, tables: None, foreign_keys: Vec::new(), dumped: false });
        Ok(number)
    }

    async fn take(&self, stored: &Stored, number: usize, bytes: &[u8]) -> Result<()> {
        let what = subject(&stored.database, &stored.name);
        let statements: Vec<String> = stored.statements_in(bytes)?.into_iter().map(str::to_owned).collect();
        let key = (number, stored.name.clone());
        let kept = self.place.config.data_only;
        match stored.object {
            Object::Database if kept => Ok(()),
            Object::Keys | Object::ForeignKeys if kept => Ok(()),
            Object::Database => {
                let Some(properties) = &stored.properties else { return Ok(()) };
                let mut list = self.databases.lock().await;
                let Some(d) = list.get_mut(number) else { return Ok(()) };
                d.restored.charset.clone_from(&properties.charset);
                d.restored.collation.clone_from(&properties.collation);
                d.tables = Some(properties.tables);
                let sql = format!(
                    "ALTER DATABASE {} CHARACTER SET {} COLLATE {}",
                    ident(&self.place.shadow(number)),
                    word(&properties.charset)?,
                    word(&properties.collation)?
                );
                let altered = self.control.lock().await.run(&sql).await;
                altered.map(drop).map_err(|e| self.failed(e, "set the character set", &stored.database))
            }
            Object::Sequence | Object::Table if self.place.config.data_only => {
                self.make_like_live(stored, number, &statements, &what).await
            }
            Object::Sequence | Object::Table => {
                let mut statements = statements;
                if stored.object == Object::Sequence && self.place.config.schema_only {
                    // The one after it sets the next number, which is data.
                    statements.truncate(1);
                }
                if stored.sequence_defaults.is_empty() {
                    self.run(number, &statements, &what).await?;
                } else {
                    self.deferred
                        .lock()
                        .await
                        .extend(statements.into_iter().map(|s| (number, what.clone(), s)));
                }
                self.tables.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default();
                let mut control = self.control.lock().await;
                for (column, expression) in &stored.sequence_defaults {
                    let journal = Journal::of(&self.place);
                    let written =
                        journal.write_default(&mut control, number, &stored.name, column, expression).await;
                    written.map_err(|e| self.failed(e, "write the record of the restore", &what))?;
                }
                Ok(())
            }
            Object::Keys => self.run(number, &statements, &what).await,
            Object::ForeignKeys => {
                // When all keys are there that they lead to.
                let mut list = self.databases.lock().await;
                if let Some(d) = list.get_mut(number) {
                    let keys = statements.iter().flat_map(|statement| clauses(statement));
                    d.foreign_keys.extend(keys.map(|key| (stored.name.clone(), key.to_owned())));
                }
                Ok(())
            }
            Object::Guide | Object::Script | Object::Rows | Object::Dump | Object::Users => Ok(()),
            _ if kept => Ok(()),
            _ => self.keep_definitions(stored, number, &statements).await,
        }
    }

    async fn keep_definitions(&self, stored: &Stored, number: usize, statements: &[String]) -> Result<()> {
        let mut control = self.control.lock().await;
        for (i, statement) in statements.iter().enumerate() {
            let context = stored.contexts.get(i).or(stored.contexts.first()).cloned().unwrap_or_default();
            let triggers = stored.object == Object::Triggers;
            let name = match triggers {
                true => trigger_name(statement).ok_or_else(|| {
                    Error::damaged("read the triggers", "a statement makes none").on(&stored.name)
                })?,
                false => stored.name.clone(),
            };
            let definition = Definition {
                object: stored.object,
                name,
                table: if triggers { stored.name.clone() } else { String::new() },
                statement: Ok(statement.clone()),
                context,
            };
            let written = Journal::of(&self.place)
                .write_definition(&mut control, false, number, &definition, statement)
                .await;
            written.map_err(|e| self.failed(e, "write the record of the restore", &stored.name))?;
        }
        Ok(())
    }

    /// Users and grants, if they are asked for. Nothing is made of them before all else is published.
    async fn keep_accounts(&self, stored: &Stored, bytes: &[u8]) -> Result<()> {
        if !accounts::are_made(&self.place.config, &stored.server, &self.of.version) {
            return Ok(());
        }
        let statements = stored.statements_in(bytes)?;
        if statements.len() != stored.accounts.len() {
            return Err(Error::damaged("read users and grants", "not every statement is somebody's"));
        }
        let mut control = self.control.lock().await;
        for (of, statement) in stored.accounts.iter().zip(statements) {
            let written = Journal::of(&self.place).write_account(&mut control, of, statement).await;
            written.map_err(|e| self.failed(e, "write the record of the restore", "users"))?;
        }
        Ok(())
    }

    /// Loads rows. `Ok(Some)`: the content failed, and nothing of it is in the table.
    async fn load(
        &self,
        stored: &Stored,
        number: usize,
        content: &mut Content,
        size: Option<u64>,
    ) -> Result<Option<Error>> {
        let what = self.subject(&stored.database, &stored.name);
        let table = qualified(&self.place.shadow(number), &stored.name);
        let small = size.filter(|n| *n <= FEW_ROWS);
        let (_held, mut few) = match small {
            None => (None, None),
            // In one piece: each hand that rows go through costs more than the rows.
            Some(n) => {
                let held = self.cx.budget.reserve(n as usize).await?;
                match gathered(content, n as usize).await {
                    Ok(bytes) => (Some(held), Some(Content::whole(bytes))),
                    Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                    Err(e) => return Ok(Some(e)),
                }
            }
        };
        let mut loader = self.loader().await?;
        let failed = |e| self.failed(e, "load the rows", &what);
        loader.check_unique(small.is_some()).await.map_err(failed)?;
        let session = loader.session()?;
        let rows_of = few.as_mut().unwrap_or(content);
        let history = |on: u8| format!("SET SESSION system_versioning_insert_history = {on}");
        if stored.history {
            session.run(&history(1)).await.map_err(failed)?;
        }
        let loaded = if self.of.infile {
            let sql = load_statement(&table, "data.tsv", &stored.columns);
            match session.load(&sql, rows_of, WORK).await {
                Ok(done) => {
                    if done.warnings > 0 {
                        warned(session, stored).await.map_err(|e| e.on(&what))?;
                    }
                    Ok(done.affected)
                }
                Err(NotLoaded::Content(e)) => Err(NotInserted::Content(e)),
                Err(NotLoaded::Server(e)) => Err(NotInserted::Server(e)),
            }
        } else {
            insert(session, &table, stored, rows_of).await
        };
        // Others use the session after this, unless the restore ends here.
        let goes_on = match &loaded {
            Ok(_) => true,
            Err(NotInserted::Content(e)) => e.kind() != ErrorKind::Cancelled,
            Err(_) => false,
        };
        if stored.history && goes_on {
            session.run(&history(0)).await.map_err(failed)?;
        }
        let rows = match loaded {
            Ok(rows) => rows,
            Err(NotInserted::Server(e)) => return Err(failed(e)),
            Err(NotInserted::Bent(e)) => return Err(e.on(&what)),
            Err(NotInserted::Content(e)) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(NotInserted::Content(e)) => {
                let emptied = empty(session, &table, stored.history).await;
                emptied.map_err(|e| self.failed(e, "empty the table again", &what))?;
                return Ok(Some(e));
            }
        };
        let promised = content.facts().map(|f| f.get(&what, "rows").cloned());
        if let Some(Some(Fact::Count(promised))) = promised
            && promised != rows
        {
            let message = format!("the server took {rows} rows, {promised} were backed up");
            return Err(Error::new(ErrorKind::Target, "load the rows", message).on(&what));
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let filling = tables.entry((number, stored.name.clone())).or_default();
        (filling.rows, filling.history) = (true, stored.history);
        Ok(None)
    }

    /// The tables of a database that came as a whole.
    pub(super) async fn dumped(&self, number: usize, names: BTreeSet<String>, database: &str) -> Result<()> {
        let mut list = self.databases.lock().await;
        let expected = list.get_mut(number).and_then(|d| {
            d.dumped = true;
            d.tables
        });
        if let Some(expected) = expected.filter(|n| *n != names.len() as u64) {
            let message =
                format!("the dump made {} tables and sequences, there were {expected}", names.len());
            return Err(Error::new(ErrorKind::Target, "load the dump", message).on(database));
        }
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.extend(names.into_iter().map(|name| ((number, name), Filling::default())));
        Ok(())
    }

    async fn conclude(&self) -> Result<Proof> {
        self.make_deferred().await?;
        let list = self.databases.lock().await;
        let tables: Vec<(TableKey, bool, bool)> = {
            let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
            tables.iter().map(|(key, t)| (key.clone(), t.rows, t.history)).collect()
        };
        let at_once = self.loaders.free().max(1);
        let keys = self.lead_keys(&list, &tables).await?;
        let adding = stream::iter(keys)
            .map(|(number, sql)| async move { self.run(number, &[sql], "foreign keys").await })
            .buffer_unordered(at_once);
        for added in adding.collect::<Vec<_>>().await {
            added?;
        }
        let mut proof = self.tally.lock().unwrap_or_else(PoisonError::into_inner).facts();
        let sources: Vec<String> = list.iter().map(|d| d.restored.source.clone()).collect();
        let with_rows: Vec<_> = tables.iter().filter(|(_, rows, _)| *rows).cloned().collect();
        let counting = stream::iter(with_rows)
            .map(|((number, name), _, history)| async move {
                let rows = self.count(number, &name, history).await;
                (number, name, rows)
            })
            .buffer_unordered(at_once);
        for (number, name, rows) in counting.collect::<Vec<_>>().await {
            let source = sources.get(number).map(String::as_str).unwrap_or_default();
            proof.insert(self.subject(source, &name), "rows", Fact::Count(rows?));
        }
        self.write_record(&list, &tables).await?;
        Ok(proof)
    }

    async fn count(&self, number: usize, name: &str, history: bool) -> Result<u64> {
        let mut loader = self.loader().await?;
        let session = loader.session()?;
        let all = if history { " FOR SYSTEM_TIME ALL" } else { "" };
        let sql = format!("SELECT COUNT(*) FROM {}{all}", qualified(&self.place.shadow(number), name));
        session.count_within(&sql, WORK).await.map_err(|e| self.failed(e, "count the rows", name))
    }

    /// A part of a database that brings its properties along is still a part.
    pub(super) fn is_whole(&self, d: &Filled, tables: &[(TableKey, bool, bool)]) -> bool {
        let stays = self.place.config.merge || self.place.config.data_only;
        let here = tables.iter().filter(|((n, _), ..)| *n == d.restored.number).count();
        !stays && d.tables == Some(here as u64)
    }

    /// What is to be published; then everything that can be tried beforehand is tried in the shadow.
    async fn write_record(&self, list: &[Filled], tables: &[(TableKey, bool, bool)]) -> Result<()> {
        let mut control = self.control.lock().await;
        let journal = Journal::of(&self.place);
        let failed = |e| self.failed(e, "write the record of the restore", "");
        let mut restored = Vec::new();
        let mut moves = Vec::new();
        for d in list {
            let names: BTreeSet<&String> = tables
                .iter()
                .filter(|((n, _), ..)| *n == d.restored.number)
                .map(|((_, name), ..)| name)
                .collect();
            let mut r = d.restored.clone();
            r.whole = self.is_whole(d, tables);
            let here = names.into_iter().map(|name| super::journal::Move {
                database: r.number,
                table: name.clone(),
                had_old: false,
                has_new: true,
            });
            moves.extend(here);
            restored.push(r);
        }
        if self.place.config.data_only {
            for r in &restored {
                self.keep_live_triggers(&mut control, r, tables).await?;
            }
        }
        journal.write_databases(&mut control, &restored).await.map_err(failed)?;
        journal.write_moves(&mut control, &moves).await.map_err(failed)?;
        for r in &restored {
            let definitions = journal.definitions(&mut control, false, r.number).await.map_err(failed)?;
            rehearse::rehearse(&mut control, &self.place, r, &definitions).await?;
            let alone = !r.whole && !database_exists(&mut control, &r.target).await.map_err(failed)?;
            for d in &definitions {
                if let Some(note) = rehearse::names_the_old_database(d, r) {
                    self.cx.note(Severity::Warning, &self.place.component, &d.name, note);
                }
                if alone && d.object == Object::Triggers {
                    let note =
                        format!("this trigger comes along with `{}`: what it uses must be there", d.table);
                    self.cx.note(Severity::Warning, &self.place.component, &d.name, note);
                }
            }
        }
        journal.set(&mut control, "filled", "1").await.map_err(failed)
    }
}

/// What an archive says to be a character set is one word.
fn word(text: &str) -> Result<&str> {
    let is_word = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_word.then_some(text).ok_or_else(|| Error::damaged("read the character set", "it is no name"))
}

/// Whether a server can hold what another made: an entry may say something else than the manifest.
fn admit(stored: &Version, server: &Abilities) -> Result<()> {
    let refusal = refusal(stored, &server.version);
    match refusal.filter(|r| r.accept.is_none() || !server.other_vendor) {
        None => Ok(()),
        Some(r) => Err(Error::new(ErrorKind::Refused, "restore", r.why).hint(r.hint)),
    }
}

/// All of a content of so many bytes.
async fn gathered(content: &mut Content, size: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(size);
    while let Some(more) = content.next().await? {
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// Takes out again what came in of a content that failed. Where there is no table, nothing came in.
async fn empty(session: &mut Session, table: &str, history: bool) -> Result<(), ClientError> {
    let statements = match history {
        true => vec![format!("DELETE FROM {table}"), format!("DELETE HISTORY FROM {table}")],
        false => vec![format!("TRUNCATE TABLE {table}")],
    };
    for statement in statements {
        match session.run_within(&statement, WORK).await {
            Err(e) if e.code() != Some(1146) => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// A warning of a load is a value that is not what was backed up. One is not: the empty label that a server keeps for a wrong one.
pub(super) async fn warned(session: &mut Session, stored: &Stored) -> Result<()> {
    let list = session.rows("SHOW WARNINGS LIMIT 65535").await;
    let list = list.map_err(|e| e.during(ErrorKind::Target, "read the warnings"))?;
    let labels: Vec<String> =
        stored.columns.iter().filter(|c| c.labels).map(|c| format!("for column '{}'", c.name)).collect();
    let harmless = |message: &str| labels.iter().any(|l| message.contains(l.as_str()));
    let bad = list
        .into_iter()
        .map(crate::catalog::fields)
        .find(|[level, code, message]| level != "Note" && !(code == "1265" && harmless(message)));
    match bad {
        None => Ok(()),
        Some([_, code, message]) => {
            let message = format!("the server took a value in another form: {message} ({code})");
            Err(Error::new(ErrorKind::Target, "load the rows", message))
        }
    }
}

impl fmt::Display for ShadowSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shadow of {}", self.place.config.place())
    }
}

#[async_trait]
impl Sink for ShadowSink {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        if self.finished.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(Error::contract("a put after the end").on(self.place.config.place()));
        }
        let stored = Stored::of(&entry)?;
        let mut content = content.hashed(&entry);
        let discarded = |e: Error| match e.kind() {
            ErrorKind::Cancelled => Err(e),
            _ => Ok(Put::Discarded(e.to_string().into())),
        };
        let of_the_server = stored.object == Object::Users;
        let number = if of_the_server { 0 } else { self.database(&stored).await? };
        if entry.stage > Stage::Prepare {
            self.make_deferred().await?;
        }
        if stored.object == Object::Rows {
            if let Some(e) = self.load(&stored, number, &mut content, entry.size).await? {
                return discarded(e);
            }
        } else if stored.object == Object::Dump {
            match self.load_dump(&stored, number, content).await? {
                Ok(read) => content = read,
                Err(e) => return discarded(e),
            }
        } else {
            let reservation = self
                .cx
                .budget
                .reserve(entry.size.map_or(64 << 10, |s| s.min(LONGEST as u64) as usize))
                .await?;
            let mut bytes = Vec::new();
            loop {
                match content.next().await {
                    Ok(Some(more)) if bytes.len() + more.len() > LONGEST => {
                        let e =
                            Error::damaged("read the statements", "they are longer than any server takes");
                        return discarded(e.on(entry.display_path()));
                    }
                    Ok(Some(more)) => bytes.extend_from_slice(&more),
                    Ok(None) => break,
                    Err(e) => return discarded(e),
                }
            }
            match of_the_server {
                true => self.keep_accounts(&stored, &bytes).await?,
                false => self.take(&stored, number, &bytes).await?,
            }
            drop(reservation);
        }
        let digest = content.digest().unwrap_or_default();
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&entry, content.delivered(), &digest);
        Ok(Put::Stored)
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.finished.store(true, std::sync::atomic::Ordering::Relaxed);
        let proof = tokio::select! {
            biased;
            () = cx.cancel.cancelled() => return Err(Error::cancelled()),
            proof = self.conclude() => proof?,
        };
        self.loaders.close().await;
        Ok(proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_server_or_another_vendor_is_refused_with_the_reason() {
        let v = |mariadb, major, minor| Version { mariadb, number: (major, minor, 1) };
        let admitted = |from: Version, to: Version, other_vendor| {
            admit(&from, &Abilities { version: to, infile: true, other_vendor, bare_subjects: false })
        };
        assert!(admitted(v(true, 10, 11), v(true, 11, 8), false).is_ok());
        let older = admitted(v(true, 11, 8), v(true, 10, 11), true).unwrap_err();
        assert!(older.to_string().contains("older"), "{older}");
        assert_eq!(admitted(v(false, 9, 1), v(true, 11, 8), false).unwrap_err().kind(), ErrorKind::Refused);
        assert!(admitted(v(false, 9, 1), v(true, 11, 8), true).is_ok());
    }
}
