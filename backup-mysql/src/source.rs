//! Databases that are read.

mod accounts;
mod ahead;
pub(crate) mod definitions;
mod dump;
mod guide;
mod ranges;
mod readers;
mod rows;
mod side_by_side;
mod visible;

use crate::{
    Method, MysqlConfig,
    catalog::{Database, Table, Version, list},
    client::{Session, connect},
    quote::file_name,
    server::Server,
    snapshot::{self, READING, Snapshot},
    stored::{DatabaseProperties, Object, SqlFile, Stored},
    vendor,
};
use async_trait::async_trait;
use backup_core::{
    ContainerEngine, Content, Context, Entry, Error, ErrorKind, Fact, Facts, Moment, Ready, Result, Severity,
    Sink, Source, Stage, Stillness, View, put_stage,
};
use dump::Dumper;
use futures::{Stream, StreamExt, stream};
use ranges::LARGE;
use readers::Readers;
use rows::RowsOf;
use serde_json::Value;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Sessions that read at the same time; more gain nothing.
const MOST_SESSIONS: usize = 16;

/// Databases of a server, as a source.
pub(crate) struct MysqlSource {
    component: String,
    config: MysqlConfig,
    engine: Arc<dyn ContainerEngine>,
}

impl MysqlSource {
    pub(crate) fn new(component: &str, config: MysqlConfig, engine: Arc<dyn ContainerEngine>) -> Self {
        MysqlSource { component: component.to_owned(), config, engine }
    }
}

impl fmt::Display for MysqlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.config.place())
    }
}

#[async_trait]
impl Source for MysqlSource {
    async fn connect(&self, cx: &Context) -> Result<Box<dyn Ready>> {
        let place = self.config.place();
        tokio::select! {
            ready = open(self, cx) => Ok(Box::new(ready.map_err(|e| e.on(&place))?)),
            () = cx.cancel.cancelled() => Err(Error::cancelled()),
        }
    }

    fn origin(&self) -> Value {
        // Who backs users up has not asked for their restore.
        MysqlConfig { globals: None, ..self.config.clone() }.to_value()
    }
}

async fn open(source: &MysqlSource, cx: &Context) -> Result<MysqlReady> {
    let MysqlSource { component, config, engine } = source;
    let server = Server::resolve(config, component, engine).await?;
    if config.container.is_some() {
        cx.note(Severity::Note, component, "", format!("reached by {}", server.rung));
    }
    let (endpoint, names) = (&server.endpoint, &server.names);
    let reading = async || {
        let mut session = connect(endpoint).await.map_err(|e| e.during(ErrorKind::Source, "connect"))?;
        let set = session.try_set(READING).await;
        set.map_err(|e| e.during(ErrorKind::Source, "set up a session"))?;
        Ok::<Session, Error>(session)
    };
    let mut control = reading().await?;
    let failed = |e: crate::error::ClientError| e.during(ErrorKind::Source, "list the tables");
    let version = Version::of(&mut control).await.map_err(failed)?;
    let databases = list(&mut control, names.as_deref(), config, &version).await.map_err(failed)?;
    for name in names.iter().flatten() {
        if !databases.iter().any(|d| d.name == *name) {
            let message = format!("there is no database `{name}`, or this user may not see it");
            return Err(Error::new(ErrorKind::NotFound, "find the database", message)
                .hint("`SHOW DATABASES` lists those that this user may see"));
        }
    }
    exclusions_match(config, &databases)?;
    let all = databases.iter().map(|d| &*d.name);
    visible::look(&mut control, all, &version, (component, cx)).await.map_err(failed)?;
    let users = accounts::are_read(&mut control, config.reads_globals(), component, cx).await?;
    let (dumper, wanted) = match config.method {
        Method::Native => (None, cx.tasks.min(MOST_SESSIONS).min(of_use(&databases)).max(1)),
        Method::Dump => (Some(Dumper::find(&server, &version, config, &**engine).await?), 0),
    };
    let mut sessions = Vec::new();
    for opened in futures::future::join_all((0..wanted).map(|_| reading())).await {
        sessions.push(opened?);
    }
    Ok(MysqlReady {
        component: component.clone(),
        config: config.clone(),
        server,
        version,
        control,
        sessions,
        databases,
        users,
        dumper,
    })
}

/// Sessions that have something to read: one for each table, and more for large ones.
fn of_use(databases: &[Database]) -> usize {
    let tables = databases.iter().flat_map(|d| &d.tables);
    tables
        .map(|t| 1 + usize::try_from(t.size / LARGE).unwrap_or(MOST_SESSIONS))
        .fold(0, usize::saturating_add)
}

/// A pattern that names no table is a mistake: what was to be left out would be in the backup.
fn exclusions_match(config: &MysqlConfig, databases: &[Database]) -> Result<()> {
    for pattern in config.exclude_tables.iter().chain(&config.exclude_data) {
        let named = databases.iter().any(|d| {
            let tables = d.tables.iter().map(|t| &t.name).chain(&d.sequences).chain(&d.left_out);
            tables.into_iter().any(|t| MysqlConfig::pattern_names(pattern, &d.name, t))
        });
        if !named {
            let message = format!("no table is called `{pattern}`");
            return Err(Error::new(ErrorKind::NotFound, "leave out tables", message)
                .hint("`table` or `database.table`; `*` stands for any characters"));
        }
    }
    Ok(())
}

struct MysqlReady {
    component: String,
    config: MysqlConfig,
    server: Server,
    version: Version,
    control: Session,
    sessions: Vec<Session>,
    databases: Vec<Database>,
    /// Users and grants are read, too.
    users: bool,
    /// The vendor's program, if that is to read them.
    dumper: Option<Dumper>,
}

#[async_trait]
impl Ready for MysqlReady {
    fn stillness(&self) -> Stillness {
        Stillness::None
    }

    fn estimate(&self) -> Option<u64> {
        Some(self.databases.iter().flat_map(|d| &d.tables).map(|t| t.size).sum())
    }

    async fn fix(self: Box<Self>, cx: &Context) -> Result<Box<dyn View>> {
        let me = *self;
        let place = me.config.place();
        if me.dumper.is_some() {
            // The program fixes it when it begins.
            let snapshot = Snapshot::of_a_program(me.control, me.databases);
            let MysqlReady { component, config, server, version, users, dumper, .. } = me;
            return Ok(Box::new(MysqlView { component, config, server, version, snapshot, users, dumper }));
        }
        let fixing = snapshot::fix(
            me.sessions,
            me.control,
            me.databases,
            me.server.names.as_deref(),
            &me.config,
            &me.version,
            cx,
        );
        let snapshot = tokio::select! {
            () = cx.cancel.cancelled() => return Err(Error::cancelled()),
            snapshot = fixing => snapshot.map_err(|e| e.on(&place))?,
        };
        for warning in &snapshot.warnings {
            cx.note(Severity::Warning, &me.component, "", warning);
        }
        Ok(Box::new(MysqlView {
            component: me.component,
            config: me.config,
            server: me.server,
            version: me.version,
            snapshot,
            users: me.users,
            dumper: None,
        }))
    }
}

struct MysqlView {
    component: String,
    config: MysqlConfig,
    server: Server,
    version: Version,
    snapshot: Snapshot,
    users: bool,
    dumper: Option<Dumper>,
}

#[async_trait]
impl View for MysqlView {
    fn moment(&self) -> Moment {
        Moment { first: self.snapshot.first, last: self.snapshot.last }
    }

    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
        let MysqlView { component, config, server, version, snapshot, users, dumper } = *self;
        let Snapshot { sessions, mut control, databases, notes, .. } = snapshot;
        let mut facts = Facts::new().with("server", "version", Fact::Note(version.to_string()));
        facts.insert("server", "reached", Fact::Note(server.rung.clone()));
        for (measure, what) in notes {
            facts.insert("all", measure, Fact::Note(what));
        }
        let peculiar = vendor::look(&mut control, &databases, &version).await;
        let looking = "look for what the other vendor does not know";
        for (subject, measure, fact) in peculiar.map_err(|e| e.during(ErrorKind::Source, looking))?.facts() {
            facts.insert(subject, measure, fact);
        }
        // Never more open contents than sessions: each must come to its end without any other.
        let mut cx = cx.clone();
        cx.tasks = cx.tasks.min(sessions.len().max(1));
        let with_rows = databases.iter().map(|d| d.tables.iter().filter(|t| has_rows(&config, d, t)).count());
        let pour = Pour {
            readers: Readers::new(sessions, with_rows.sum(), server.endpoint, cx.budget.clone()),
            control: Arc::new(tokio::sync::Mutex::new(control)),
            facts: Arc::new(Mutex::new(facts)),
            component,
            config,
            version,
            users,
        };
        let poured = match &dumper {
            Some(dumper) => pour.dump_all(dumper, &databases, &sink, &cx).await,
            None => pour.all(&databases, &sink, &cx).await,
        };
        pour.readers.close().await;
        poured?;
        let facts = pour.facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(facts)
    }
}

/// What all steps of a pour share.
struct Pour {
    readers: Arc<Readers>,
    control: Arc<tokio::sync::Mutex<Session>>,
    facts: Arc<Mutex<Facts>>,
    component: String,
    config: MysqlConfig,
    version: Version,
    users: bool,
}

impl Pour {
    async fn all(&self, databases: &[Database], sink: &Arc<dyn Sink>, cx: &Context) -> Result<()> {
        self.say_what_is_not_of_the_moment(databases, cx);
        let prepare = stream::iter(databases).flat_map(|d| {
            let properties = stream::iter([Ok(self.guide(d)), Ok(self.properties(d))]);
            let sequences = stream::iter(&d.sequences).then(move |s| self.sequence(d, s));
            let tables = stream::iter(&d.tables).then(move |t| self.table(d, t)).flat_map(|entries| {
                stream::iter(match entries {
                    Ok(list) => list.into_iter().map(Ok).collect(),
                    Err(e) => vec![Err(e)],
                })
            });
            properties.chain(sequences).chain(tables)
        });
        put_stage(sink, cx, prepare).await?;
        put_stage(sink, cx, stream::iter(self.all_rows(databases).into_iter().map(Ok))).await?;
        let complete = stream::iter(databases).flat_map(|d| {
            let keys = stream::iter(&d.tables).then(move |t| self.keys(d, t)).flat_map(|entries| {
                stream::iter(match entries {
                    Ok(list) => list.into_iter().map(Ok).collect(),
                    Err(e) => vec![Err(e)],
                })
            });
            let definitions = stream::once(self.definitions(d)).flat_map(|entries| {
                stream::iter(match entries {
                    Ok(list) => list.into_iter().map(Ok).collect(),
                    Err(e) => vec![Err(e)],
                })
            });
            keys.chain(definitions)
        });
        put_stage(sink, cx, complete.chain(self.users_if_wanted(cx))).await
    }

    fn users_if_wanted<'a>(&'a self, cx: &'a Context) -> impl Stream<Item = Result<(Entry, Content)>> + 'a {
        stream::iter(self.users.then_some(())).then(move |()| self.users(cx))
    }

    fn say_what_is_not_of_the_moment(&self, databases: &[Database], cx: &Context) {
        for database in databases {
            for table in &database.tables {
                let path = format!("{}.{}", database.name, table.name);
                if !table.is_transactional() {
                    let text = format!(
                        "tables of the engine {} are not part of a snapshot: it is as it was while it was read",
                        table.engine
                    );
                    cx.note(Severity::Warning, &self.component, path, text);
                } else if let Some(why) = rows::history_is_lost(table, &self.version) {
                    cx.note(Severity::Warning, &self.component, path, why);
                }
            }
        }
        let left_out: Vec<&str> =
            self.config.exclude_tables.iter().chain(&self.config.exclude_data).map(String::as_str).collect();
        if !left_out.is_empty() {
            let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
            facts.insert("all", backup_core::EXCLUDED, Fact::Note(left_out.join(", ")));
        }
    }

    /// What goes with an excluded table: said where the exclusions are, for the plan of a restore repeats them.
    fn also_left_out(&self, what: &str) {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        let said = match facts.get("all", backup_core::EXCLUDED) {
            Some(Fact::Note(said)) => format!("{said}, {what}"),
            _ => what.to_owned(),
        };
        facts.insert("all", backup_core::EXCLUDED, Fact::Note(said));
    }

    fn guide(&self, d: &Database) -> (Entry, Content) {
        let text = guide::text(&d.name, &self.version);
        let stored = Stored::new(Object::Guide, &d.name, "", &self.version);
        let entry = stored.entry(format!("{}/RESTORE.md", file_name(&d.name)), Stage::Prepare);
        (entry.sized(text.len() as u64), Content::whole(text.into_bytes()))
    }

    fn properties(&self, d: &Database) -> (Entry, Content) {
        let mut stored = Stored::new(Object::Database, &d.name, "", &self.version);
        stored.properties = Some(DatabaseProperties {
            charset: d.charset.clone(),
            collation: d.collation.clone(),
            tables: (d.tables.len() + d.sequences.len()) as u64,
        });
        let mut file = SqlFile::default();
        file.push(&format!(
            "CREATE DATABASE IF NOT EXISTS {} CHARACTER SET {} COLLATE {}",
            crate::quote::ident(&d.name),
            d.charset,
            d.collation
        ));
        file.finish(stored, format!("{}/database.sql", file_name(&d.name)), Stage::Prepare)
    }

    /// The rows of all tables, the largest first: the last stream is then a short one.
    fn all_rows(&self, databases: &[Database]) -> Vec<(Entry, Content)> {
        let mut list: Vec<_> = databases.iter().flat_map(|d| d.tables.iter().map(move |t| (d, t))).collect();
        list.retain(|(d, t)| has_rows(&self.config, d, t));
        list.sort_by(|(_, a), (_, b)| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
        let rows = list.into_iter().map(|(d, t)| {
            let rows = RowsOf::new(&d.name, t, &self.version);
            let mut entry =
                rows.stored().entry(format!("{}/data.tsv", table_folder(d, &t.name)), Stage::Data);
            entry.slow = t.size > (1 << 20);
            let (readers, facts) = (self.readers.clone(), self.facts.clone());
            (entry, Content::produce(move |feed| rows.pour(readers, facts, feed)))
        });
        rows.collect()
    }
}

/// Whether its rows are wanted.
fn has_rows(config: &MysqlConfig, d: &Database, t: &Table) -> bool {
    !MysqlConfig::excludes(&config.exclude_data, &d.name, &t.name)
}

/// Where the entries of a table are.
pub(crate) fn table_folder(d: &Database, table: &str) -> String {
    format!("{}.{}", file_name(&d.name), file_name(table))
}

/// The subject of a table's facts. Earlier versions left backquotes in names out.
pub(crate) fn subject(database: &str, table: &str) -> String {
    format!("table {database}.{table}")
}
