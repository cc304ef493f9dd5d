//! The database that is filled beside the old one.

use super::{
    Choice,
    beside::Schemas,
    indexes::{Indexes, NotBegun},
    maintenance::Maintenance,
    present,
    put::{Loaded, Received},
    statements::Statements,
};
use crate::{
    catalog,
    client::Session,
    error, layout,
    properties::Properties,
    quote::{literal, qualified},
    server::Server,
    tools::Tools,
};
use backup_core::{Context, Error, ErrorKind, Fact, Facts, Result, Severity};
use futures::StreamExt;
use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{OnceCell, Semaphore};

/// Making a database and its definitions, filling views, counting rows: work of the server whose length nobody knows. A
/// cancellation ends it.
pub(super) const WORK: Duration = Duration::from_secs(24 * 3600);

/// A new database, which is nobody's until it is published.
pub(super) struct Shadow {
    /// With the database whose place it takes.
    pub(super) server: Server,
    pub(super) name: String,
    pub(super) component: String,
    /// For notes: the database, if it is one of several.
    among: String,
    major: u32,
    pub(super) tools: Tools,
    pub(super) maintenance: Maintenance,
    pub(super) choice: Choice,
    /// It is no database of its own: tables beside others.
    pub(super) beside: Option<Schemas>,
    /// Statements for when they have their places.
    last: Mutex<(String, String)>,
    pub(super) cx: Context,
    pub(super) received: Mutex<Received>,
    opened: OnceCell<Opened>,
    idle: Mutex<Vec<Session>>,
    /// Others are filled: no session is kept for later.
    rests: AtomicBool,
    permits: Arc<Semaphore>,
    pub(super) facts: Mutex<Facts>,
    /// By schema and name of the table.
    pub(super) loaded: Mutex<BTreeMap<(String, String), Loaded>>,
    pub(super) indexes: Indexes,
    /// All of it came as one archive of pg_dump.
    pub(super) dumped: AtomicBool,
}

/// The database is there, with its definitions.
pub(super) struct Opened {
    tables: HashSet<(String, String)>,
    pub(super) properties: Properties,
}

impl Opened {
    pub(super) fn has(&self, schema: &str, table: &str) -> bool {
        self.tables.contains(&(schema.to_owned(), table.to_owned()))
    }
}

impl Shadow {
    pub(super) async fn new(
        server: Server,
        (tools, major, maintenance): (&Tools, u32, &Maintenance),
        (name, among, component): (&str, &str, &str),
        (choice, beside): (Choice, Option<Schemas>),
        cx: &Context,
    ) -> Result<Self> {
        let received = match server.config.data_only {
            true => present::definitions(&server, tools, major).await?,
            false => Received::default(),
        };
        Ok(Shadow {
            name: name.to_owned(),
            component: component.to_owned(),
            among: among.to_owned(),
            major,
            choice,
            beside,
            last: Mutex::default(),
            cx: cx.clone(),
            received: Mutex::new(received),
            opened: OnceCell::new(),
            idle: Mutex::default(),
            rests: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(cx.tasks)),
            facts: Mutex::default(),
            loaded: Mutex::default(),
            indexes: Indexes::new(tools.clone(), name, (server.config.no_owner, maintenance), cx),
            dumped: AtomicBool::new(false),
            tools: tools.clone(),
            maintenance: maintenance.clone(),
            server,
        })
    }

    /// Makes the database with its definitions, once. `None`: no definitions have come.
    pub(super) async fn opened(&self) -> Result<Option<&Opened>> {
        if let Some(opened) = self.opened.get() {
            return Ok(Some(opened));
        }
        let (properties, schema) = {
            let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            (received.properties.clone(), received.schema.clone())
        };
        let (Some(properties), Some(schema)) = (properties, schema) else { return Ok(None) };
        self.opened.get_or_try_init(|| self.open(properties, Some(schema))).await.map(Some)
    }

    /// The same, empty: its definitions come with its rows.
    pub(super) async fn opened_for_dump(&self) -> Result<Option<&Opened>> {
        let properties = self.received.lock().unwrap_or_else(PoisonError::into_inner).properties.clone();
        let Some(properties) = properties else { return Ok(None) };
        self.opened.get_or_try_init(|| self.open(properties, None)).await.map(Some)
    }

    async fn open(
        &self,
        properties: Properties,
        schema: Option<Arc<tempfile::NamedTempFile>>,
    ) -> Result<Opened> {
        let failed = || error::target("make the database", &self.server);
        if properties.server > self.major {
            let message = format!(
                "the backup is of PostgreSQL {}, and the server is PostgreSQL {}: definitions of a newer version are not understood",
                properties.server, self.major
            );
            return Err(Error::new(ErrorKind::Unsupported, "restore", message).on(self.server.place()));
        }
        if let (Some(schemas), Some(part), Some(schema)) = (&self.beside, &self.choice.part, &schema) {
            self.make_beside(schemas, part, schema.path()).await?;
            return Ok(Opened { tables: part.tables.iter().cloned().collect(), properties });
        }
        let mut session = self.server.maintenance_session().await.map_err(failed())?;
        let wanted = format!(
            "SELECT count(*) FROM pg_catalog.pg_tablespace WHERE spcname = {}",
            literal(&properties.tablespace)
        );
        let tablespace = session.number(&wanted).await.map_err(failed())? == 1;
        if !tablespace {
            let text = format!(
                "tablespace {} is not on this server: the database is in the default one",
                properties.tablespace
            );
            self.cx.note(Severity::Warning, &self.component, &*self.among, text);
        }
        let create =
            properties.create(&self.name, self.major, tablespace && properties.tablespace != "pg_default");
        session.query_within(WORK, &create).await.map_err(failed())?;
        session.close().await;
        if let Some(schema) = schema {
            let items = self.choice.part.as_ref().map(|part| &*part.before);
            self.vendor_restore(schema.path(), &["--section=pre-data"], items, 1).await?;
        }
        if self.server.config.data_only {
            self.take_over_sequences().await?;
        }
        let mut inside = self.session().await?;
        let tables = catalog::tables(&mut inside, catalog::Sizes::Estimated).await.map_err(failed())?;
        inside.close().await;
        let tables = tables.into_iter().map(|table| (table.schema, table.name)).collect();
        Ok(Opened { tables, properties })
    }

    async fn vendor_restore(
        &self,
        archive: &Path,
        section: &[&str],
        items: Option<&[u32]>,
        jobs: usize,
    ) -> Result<()> {
        let mut arguments = section.to_vec();
        if self.server.config.no_owner {
            arguments.extend(["--no-owner", "--no-privileges"]);
        }
        let settings = self.maintenance.options();
        let restoring = self.tools.restore(&self.name, archive, &arguments, items, (jobs, &settings));
        let restored = tokio::select! {
            restored = restoring => restored,
            () = self.cx.cancel.cancelled() => return Err(Error::cancelled()),
        };
        restored.map_err(|e| self.refused("restore the definitions", e))
    }

    /// A session with the new database.
    pub(super) async fn session(&self) -> Result<Session> {
        let failed = || error::target("connect to the new database", &self.server);
        let mut session = Session::connect(&self.server.endpoint, &self.name).await.map_err(failed())?;
        session.query(&catalog::settings(self.major, 0)).await.map_err(failed())?;
        session.query(&self.maintenance.statements()).await.map_err(failed())?;
        Ok(session)
    }

    /// One that speaks the encoding of the database, as the session did that the rows came from.
    async fn rows_session(&self) -> Result<Session> {
        let mut session = self.session().await?;
        let done = session.query(crate::client::SPEAK_AS_THE_DATABASE).await;
        done.map_err(error::target("connect to the new database", &self.server))?;
        Ok(session)
    }

    /// Runs work on rows with a session of the new database; of at most as many at once as the run has tasks.
    pub(super) async fn with_session<T>(
        &self,
        work: impl AsyncFnOnce(&mut Session) -> Result<T>,
    ) -> Result<T> {
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|_| Error::new(ErrorKind::Target, "restore", "the restore is over"))?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut session = match idle {
            Some(session) => session,
            None => self.rows_session().await?,
        };
        let done = work(&mut session).await;
        if session.is_clean() && !self.rests.load(Relaxed) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
        done
    }

    /// Nothing comes for it at the moment: its sessions are ended, for others may need as many.
    pub(super) async fn rest(&self) {
        self.rests.store(true, Relaxed);
        self.end_idle().await;
    }

    /// Something comes for it.
    pub(super) fn wake(&self) {
        self.rests.store(false, Relaxed);
    }

    async fn end_idle(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        futures::future::join_all(idle.into_iter().map(Session::close)).await;
    }

    /// Runs statements in the new database.
    pub(super) async fn run(&self, operation: &'static str, sql: &str) -> Result<()> {
        let mut session = self.session().await?;
        let done = tokio::select! {
            done = session.query_within(WORK, sql) => done.map(drop).map_err(error::target(operation, &self.server)),
            () = self.cx.cancel.cancelled() => Err(Error::cancelled()),
        };
        session.close().await;
        done
    }

    /// Ends all sessions: nobody may be in a database that is renamed or dropped.
    pub(super) async fn close(&self) {
        self.permits.close();
        self.indexes.end().await;
        self.end_idle().await;
    }

    /// Completes, proves and seals it. `empty`: nothing at all has come.
    pub(super) async fn finish(&self, empty: bool) -> Result<Facts> {
        self.wake();
        let mut facts = match self.opened().await? {
            Some(opened) => self.complete(opened).await?,
            None if empty => Facts::new(),
            None => {
                let message = format!("{} or {} is not in the backup", layout::SCHEMA, layout::PROPERTIES);
                return Err(Error::damaged("restore", message).on(self.server.place()));
            }
        };
        facts.add_missing(self.facts.lock().unwrap_or_else(PoisonError::into_inner).clone());
        self.close().await;
        Ok(facts)
    }

    async fn complete(&self, opened: &Opened) -> Result<Facts> {
        if self.choice.rehearsed {
            // Indexes, triggers and materialized views may need the rows, and room.
            return self.set_properties(&opened.properties).await;
        }
        let (schema, sequences, refresh) = {
            let received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
            (received.schema.clone(), received.sequences.clone(), received.refresh.clone())
        };
        if let (Some(schemas), Some(part), Some(schema)) = (&self.beside, &self.choice.part, &schema) {
            let last = self.finishing(part, schema.path()).await?;
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = (last, sequences.unwrap_or_default());
            self.count_loaded().await?;
            self.analyze_beside(schemas, part).await?;
            return Ok(Facts::new());
        }
        if let Some(sql) = sequences {
            let sql = if self.server.config.data_only { self.known_sequences(&sql).await? } else { sql };
            self.run("set the sequences", &sql).await?;
        }
        if let Some(schema) = schema {
            self.post_data(schema.path()).await?;
        }
        self.detach_subscriptions().await?;
        let mut facts = self.count().await?;
        if self.dumped.load(Relaxed) {
            facts.add_missing(self.count_dumped().await?);
        }
        if let Some(sql) = refresh.filter(|_| self.choice.part.is_none()) {
            self.fill_views(&sql).await?;
        }
        self.gather_statistics().await?;
        match self.choice.part {
            None => facts.add_missing(self.set_properties(&opened.properties).await?),
            Some(_) => self.keep_properties(&opened.properties).await?,
        }
        // What a backup counts as a whole is not counted of a part of it.
        Ok(if self.choice.selective { Facts::new() } else { facts })
    }

    /// Sequences go on where they are in the database that is there: the backup sets those that it knows later.
    async fn take_over_sequences(&self) -> Result<()> {
        let failed = || error::target("read the sequences that are there", &self.server);
        let mut old = self.server.session().await.map_err(failed())?;
        old.query(&catalog::settings(self.major, 30)).await.map_err(failed())?;
        let sql = catalog::sequences(&mut old).await.map_err(failed())?;
        old.close().await;
        match self.known_sequences(&sql).await? {
            sql if sql.is_empty() => Ok(()),
            sql => self.run("set the sequences", &sql).await,
        }
    }

    /// Of statements that set sequences, those whose sequence is there.
    async fn known_sequences(&self, sql: &str) -> Result<String> {
        let failed = || error::target("look for the sequences", &self.server);
        let mut session = self.session().await?;
        let there = catalog::sequence_names(&mut session).await.map_err(failed())?;
        session.close().await;
        let there: Vec<String> = there.iter().map(|name| catalog::setting_of(name)).collect();
        let (known, unknown): (Vec<&str>, Vec<&str>) =
            sql.lines().partition(|line| there.iter().any(|setting| line.starts_with(setting)));
        if !unknown.is_empty() {
            let text = format!("{} sequences of the backup are not there, and are left out", unknown.len());
            self.cx.note(Severity::Warning, &self.component, &*self.among, text);
        }
        Ok(known.join("\n"))
    }

    /// What belongs to full tables, as far as it was not built while others were loaded.
    async fn post_data(&self, archive: &Path) -> Result<()> {
        let (section, tasks) = (["--section=post-data"], self.cx.tasks);
        if let Some(part) = &self.choice.part {
            return match part.after.is_empty() {
                true => Ok(()),
                false => self.vendor_restore(archive, &section, Some(&part.after), tasks).await,
            };
        }
        let Some(not_begun) = self.indexes.not_begun() else {
            return self.vendor_restore(archive, &section, None, tasks).await;
        };
        let made = match Statements::read(self, archive, &not_begun).await {
            Some(statements) => statements.make(tasks).await,
            None => {
                let NotBegun { keys, indexes, .. } = not_begun;
                for items in [&keys, &indexes].into_iter().filter(|items| !items.is_empty()) {
                    let free = (tasks - self.indexes.running().min(tasks / 2)).max(1);
                    self.vendor_restore(archive, &section, Some(items), free).await?;
                }
                [keys, indexes].concat()
            }
        };
        let rest = self.indexes.rest(&made).await;
        match rest.is_empty() {
            true => Ok(()),
            false => self.vendor_restore(archive, &section, Some(&rest), tasks).await,
        }
    }

    /// What the planner of queries needs, so that the first queries after a restore are no slower than later ones.
    async fn gather_statistics(&self) -> Result<()> {
        let failed = || error::target("gather statistics", &self.server);
        let mut session = self.session().await?;
        let analyses = catalog::analyses(&mut session).await.map_err(failed())?;
        session.close().await;
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_known = |analysis: &catalog::Analysis| {
            let table = (analysis.schema.clone(), analysis.table.clone());
            !analysis.looks_beyond && loaded.get(&table).is_some_and(|loaded| loaded.is_analyzed)
        };
        let statements = analyses.into_iter().filter(|a| !is_known(a)).map(|a| a.statement);
        let gathering = statements.map(|sql| async move {
            self.with_session(async |session| {
                tokio::select! {
                    done = session.query_within(WORK, &sql) => done.map(drop).map_err(failed()),
                    () = self.cx.cancel.cancelled() => Err(Error::cancelled()),
                }
            })
            .await
        });
        let mut gathering = futures::stream::iter(gathering).buffer_unordered(self.cx.tasks);
        while let Some(gathered) = gathering.next().await {
            gathered?;
        }
        Ok(())
    }

    /// What is to be run when the tables beside have their places: all else of them, and their sequences.
    pub(super) fn finishing_statements(&self) -> (String, String) {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts on the server what was loaded: what a rule or a broken disk swallowed would be missing here.
    async fn count_loaded(&self) -> Result<()> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let of_user = loaded.iter().filter(|(_, loaded)| !loaded.of_extension);
        let counting = of_user.map(|((schema, name), Loaded { rows, .. })| async move {
            let counted = self.count_of(schema, name).await?;
            if counted == *rows {
                return Ok(());
            }
            let message = format!("{rows} rows were loaded, and {counted} are there");
            Err(Error::damaged("count the rows", message).on(qualified(schema, name)))
        });
        let mut counting = futures::stream::FuturesUnordered::from_iter(counting);
        while let Some(counted) = counting.next().await {
            counted?;
        }
        Ok(())
    }

    async fn count(&self) -> Result<Facts> {
        self.count_loaded().await?;
        let objects = self
            .with_session(async |session| {
                catalog::large_objects(session)
                    .await
                    .map_err(error::target("count the large objects", &self.server))
            })
            .await?;
        Ok(Facts::new().with("large objects", "count", Fact::Count(objects)))
    }

    pub(super) async fn count_of(&self, schema: &str, name: &str) -> Result<u64> {
        let failed = || error::target("count the rows", &self.server);
        let sql = format!("SELECT count(*) FROM ONLY {}", in_ascii(schema, name));
        let counted = self
            .with_session(async |session| {
                tokio::select! {
                    rows = session.query_within(WORK, &sql) => rows.map_err(failed()),
                    () = self.cx.cancel.cancelled() => Err(Error::cancelled()),
                }
            })
            .await?;
        let counted = counted.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
        counted.ok_or_else(|| Error::damaged("count the rows", "no number came").on(qualified(schema, name)))
    }

    /// A part says nothing of the database: that whose place it takes keeps what is its own.
    async fn keep_properties(&self, of_backup: &Properties) -> Result<()> {
        let failed = || error::target("read the properties that are there", &self.server);
        let mut session = self.server.maintenance_session().await.map_err(failed())?;
        let live =
            Properties::read(&mut session, &self.server.database, self.major).await.map_err(failed())?;
        session.close().await;
        let Some(live) = live else { return Ok(()) };
        if !live.is_made_like(of_backup) {
            let text = "encoding and locale of the database are those of the backup now";
            self.cx.note(Severity::Warning, &self.component, &*self.among, text);
        }
        self.set_properties(&live).await.map(drop)
    }

    async fn set_properties(&self, wanted: &Properties) -> Result<Facts> {
        let failed = || error::target("set the properties of the database", &self.server);
        let with_owner = !self.server.config.no_owner;
        let mut session = self.server.maintenance_session().await.map_err(failed())?;
        for sql in wanted.apply(&self.name, with_owner) {
            session.query(&sql).await.map_err(failed())?;
        }
        let there = Properties::read(&mut session, &self.name, self.major).await.map_err(failed())?;
        session.close().await;
        let fact = match (there, with_owner) {
            _ if self.server.config.data_only => Fact::Unsupported("those that are there stay".into()),
            (_, false) => Fact::Unsupported("no_owner leaves out owner and privileges".into()),
            // A server that is newer has properties of its own, which the backup does not know.
            (Some(there), true) => Fact::Digest(there.digest()?),
            (None, true) => {
                return Err(Error::damaged("read the properties", "the new database is gone").on(&self.name));
            }
        };
        Ok(Facts::new().with("database", "properties", fact))
    }
}

fn in_ascii(schema: &str, name: &str) -> String {
    use crate::quote::ident_in_ascii;
    format!("{}.{}", ident_in_ascii(schema), ident_in_ascii(name))
}
