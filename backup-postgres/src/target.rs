//! Databases that are being restored: each as a shadow beside the old one, all exchanged with the old ones by renaming.

mod beside;
mod bound;
mod coming;
mod databases;
mod dump;
mod exchange;
mod globals;
mod indexes;
mod maintenance;
mod merging;
mod part;
mod present;
mod publish;
mod put;
mod shadow;
mod statements;
mod subscriptions;
mod survey;
mod views;

use crate::{
    PostgresConfig,
    client::Session,
    error,
    server::{Server, major_version, minor_version},
    tools::Tools,
};
use async_trait::async_trait;
use backup_core::{
    ContainerEngine, Context, Error, ErrorKind, Incoming, Result, Selection, Sink, Survey, Target,
};
use beside::Schemas;
use bound::Surveyed;
use coming::{Coming, Heirs};
use databases::Databases;
use exchange::{Exchange, Published};
use maintenance::Maintenance;
use part::Part;
use publish::Swap;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shadow::Shadow;
use std::{fmt, sync::Arc};

const UNDO_VERSION: u32 = 1;

/// What a later process needs to undo or settle.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Undo {
    version: u32,
    component: String,
    config: PostgresConfig,
    /// Part of the names of the shadows and of the old databases.
    id: String,
    /// The databases, if the backup is of several; none: the one of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    databases: Vec<String>,
    /// Those that are there and are dropped before they are restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    in_place: Vec<String>,
}

/// The name of a database, and those that it has while it is nobody's. These nobody else uses.
#[derive(Clone, Debug)]
struct Names {
    live: String,
    shadow: String,
    old: String,
}

impl Names {
    fn new(id: &str, live: &str, number: usize) -> Self {
        let id = if number == 0 { id.to_owned() } else { format!("{id}_{number}") };
        Names { live: live.to_owned(), shadow: format!("backup_new_{id}"), old: format!("backup_old_{id}") }
    }
}

/// What the plan has found of a database.
struct Planned {
    folder: Option<String>,
    /// The one that it replaces; 0: none is there.
    number: u64,
    /// Tables that it replaces, where others stay.
    tables: Surveyed,
    choice: Choice,
}

/// What of a backup is restored.
#[derive(Clone, Debug, Default)]
struct Choice {
    /// Not all that the component has.
    selective: bool,
    /// Of its definitions only these.
    part: Option<Part>,
    /// They go into the database that is there, whose other tables stay.
    merge: bool,
    /// Only what can be known without rows is tried.
    rehearsed: bool,
}

pub(crate) struct PostgresTarget {
    undo: Undo,
    engine: Arc<dyn ContainerEngine>,
    server: Option<Server>,
    heirs: Heirs,
    planned: Vec<Planned>,
    /// The backup was made by pg_dump alone.
    dumped: bool,
    sink: Option<Arc<Databases>>,
}

impl PostgresTarget {
    pub(crate) fn new(component: &str, config: PostgresConfig, engine: Arc<dyn ContainerEngine>) -> Self {
        let id = ulid::Ulid::generate().to_string().to_lowercase();
        let (component, databases, in_place) = (component.to_owned(), Vec::new(), Vec::new());
        Self::of(Undo { version: UNDO_VERSION, component, config, id, databases, in_place }, engine)
    }

    pub(crate) fn recover(undo: Value, engine: Arc<dyn ContainerEngine>) -> Result<Self> {
        let wrong = |message: String| Error::new(ErrorKind::Usage, "read how to undo a restore", message);
        let undo: Undo = serde_json::from_value(undo).map_err(|e| wrong(e.to_string()))?;
        let is_id = undo.id.len() == 26 && undo.id.bytes().all(|b| b.is_ascii_alphanumeric());
        if undo.version != UNDO_VERSION || !is_id {
            return Err(wrong(format!("version {} is not known", undo.version)));
        }
        Ok(Self::of(undo, engine))
    }

    fn of(undo: Undo, engine: Arc<dyn ContainerEngine>) -> Self {
        PostgresTarget {
            undo,
            engine,
            server: None,
            heirs: Heirs::default(),
            planned: Vec::new(),
            dumped: false,
            sink: None,
        }
    }

    /// The server, found out once.
    async fn server(&mut self) -> Result<Server> {
        let mut server = match &self.server {
            Some(server) => server.clone(),
            None => Server::resolve(&self.undo.config, &self.undo.component, &self.engine).await?,
        };
        // Sessions of ours are known by it, also those that a killed process left behind.
        server.endpoint.application = format!("backup restore {}", self.undo.id);
        server.together = self.undo.databases.clone().into();
        self.server = Some(server.clone());
        Ok(server)
    }

    /// The databases, each with its names.
    fn names(&self, server: &Server) -> Vec<Names> {
        let one = std::slice::from_ref(&server.database);
        let live = if self.undo.databases.is_empty() { one } else { &*self.undo.databases };
        live.iter().enumerate().map(|(number, name)| Names::new(&self.undo.id, name, number)).collect()
    }

    async fn swap(&mut self, operation: &'static str) -> Result<Swap> {
        let server = self.server().await?;
        let session = maintenance(&server, operation).await?;
        let databases = self.names(&server);
        Ok(Swap { id: self.undo.id.clone(), server: shown(&server, &databases), databases, session })
    }

    /// Looks at the place of each database that is coming.
    async fn survey_each(
        &mut self,
        server: &Server,
        (session, major): (&mut Session, u32),
        names: &[String],
        coming: &[Coming<'_>],
    ) -> Result<Vec<Survey>> {
        let mut surveys = Vec::new();
        let mut may_create = false;
        self.planned.clear();
        for (coming, name) in coming.iter().zip(names) {
            let server = server.of(name);
            let choice = survey::choice(&server, coming).await?;
            let merged = choice.part.as_ref().filter(|_| choice.merge);
            let (mut survey, number, tables) = match merged {
                Some(part) => merging::survey(&server, major, part, &coming.without_rows()).await?,
                None => {
                    if !may_create {
                        survey::may_create(session, &server).await?;
                        may_create = true;
                    }
                    let looked = survey::survey((&mut *session, major), &server, coming, &choice).await?;
                    (looked.0, looked.1, Surveyed::new())
                }
            };
            survey.refusals.extend(merging::impossible(&server, choice.selective, choice.part.as_ref()));
            surveys.push(survey);
            self.planned.push(Planned { folder: coming.folder.clone(), number, tables, choice });
        }
        Ok(surveys)
    }
}

impl PostgresTarget {
    /// `rehearsed`: only what can be known without rows is tried.
    async fn fill(&mut self, rehearsed: bool, cx: &Context) -> Result<Arc<dyn Sink>> {
        if self.planned.is_empty() {
            return Err(Error::contract("a restore is prepared that was not surveyed"));
        }
        let server = self.server().await?;
        let failed = || error::target("prepare the restore", &server);
        let mut session = server.maintenance_session().await.map_err(failed())?;
        let (major, _) = major_version(&mut session).await.map_err(failed())?;
        let minor = minor_version(&mut session).await.map_err(failed())?;
        let maintenance = Maintenance::ask(&mut session, major).await;
        session.close().await;
        let tools = Tools::find_exactly(&server, (major, minor)).await?;
        let component = &*self.undo.component;
        let mut list = Vec::new();
        for (planned, names) in self.planned.iter().zip(self.names(&server)) {
            let choice = Choice { rehearsed, ..planned.choice.clone() };
            let (name, beside) = match choice.merge {
                true => (&names.live, Some(Schemas::new(&self.undo.id))),
                false => (&names.shadow, None),
            };
            let among = if planned.folder.is_some() { &*names.live } else { "" };
            let (server, called) = (server.of(&names.live), (&**name, among, component));
            let shadow =
                Shadow::new(server, (&tools, major, &maintenance), called, (choice, beside), cx).await?;
            list.push((planned.folder.clone(), Arc::new(shadow)));
        }
        let server = shown(&server, &self.names(&server));
        let sink = Arc::new(Databases::new(server, (&self.undo.id, component), list, cx));
        self.sink = Some(sink.clone());
        Ok(sink)
    }

    /// For tables in the database that is there; `None`: this is no merge, or there is no database.
    async fn exchange<'a>(&self, server: &'a Server) -> Result<Option<Exchange<'a>>> {
        if !self.undo.config.merge {
            return Ok(None);
        }
        let session = match exchange::session(server).await {
            Err(e) if e.code() == Some("3D000") => return Ok(None),
            session => session.map_err(error::target("look for the tables", server))?,
        };
        Ok(Some(Exchange { server, schemas: Schemas::new(&self.undo.id), session }))
    }

    /// The server, with the database whose tables are exchanged: there is no more than one.
    async fn merged(&mut self) -> Result<Server> {
        let server = self.server().await?;
        Ok(self.names(&server).first().map_or_else(|| server.clone(), |names| server.of(&names.live)))
    }

    fn surveyed(&self) -> Vec<u64> {
        self.planned.iter().map(|planned| planned.number).collect()
    }

    async fn drop_what_is_there(&mut self) -> Result<()> {
        let surveyed = self.surveyed();
        let mut swap = self.swap("drop the database").await?;
        let done = swap.clear(&surveyed).await;
        swap.session.close().await;
        for (planned, number) in self.planned.iter_mut().zip(done?) {
            planned.number = number;
        }
        Ok(())
    }

    async fn take_effect(&mut self) -> Result<()> {
        if self.merges() {
            return self.exchange_tables().await;
        }
        let surveyed = self.surveyed();
        let mut swap = self.swap("publish the restored database").await?;
        let done = swap.publish(&surveyed).await;
        swap.session.close().await;
        done
    }

    async fn exchange_tables(&mut self) -> Result<()> {
        let server = self.merged().await?;
        let shadow = self.sink.iter().find_map(|sink| sink.each().next().cloned());
        let planned = self.planned.first().and_then(|p| Some((p.choice.part.clone()?, p.tables.clone())));
        let (Some(shadow), Some((part, surveyed))) = (shadow, planned) else {
            let message = "there is nothing beside the old tables";
            return Err(Error::new(ErrorKind::Target, "exchange the tables", message).on(server.place()));
        };
        let gone = || Error::new(ErrorKind::Target, "exchange the tables", "the database is gone");
        let mut exchange = self.exchange(&server).await?.ok_or_else(gone)?;
        let (last, sequences) = shadow.finishing_statements();
        let what = Published { part: &part, surveyed: &surveyed, last: &last, sequences: &sequences };
        let done = exchange.publish(&what).await;
        exchange.session.close().await;
        done
    }

    fn merges(&self) -> bool {
        self.planned.iter().any(|planned| planned.choice.merge)
    }

    async fn close(&self) {
        if let Some(sink) = &self.sink {
            sink.close().await;
        }
    }
}

async fn maintenance(server: &Server, operation: &'static str) -> Result<Session> {
    server.maintenance_session().await.map_err(error::target(operation, server))
}

/// The same server, whose place is that of all these databases.
fn shown(server: &Server, databases: &[Names]) -> Server {
    let names: Vec<&str> = databases.iter().map(|names| names.live.as_str()).collect();
    server.of(&names.join("+"))
}

impl fmt::Display for PostgresTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.undo.config)
    }
}

#[async_trait]
impl Target for PostgresTarget {
    async fn widened(&mut self, incoming: &Incoming, cx: &Context) -> Result<Selection> {
        let (selection, heirs) = coming::widened(incoming, &self.undo.config, cx).await?;
        self.heirs = heirs;
        Ok(selection)
    }

    async fn survey(&mut self, incoming: &Incoming, cx: &Context) -> Result<Survey> {
        self.undo.databases.clear();
        self.undo.in_place.clear();
        self.dumped = coming::is_dumped(incoming);
        let coming = Coming::all(incoming, cx).await?;
        let server = self.server().await?;
        let names = match coming::named(&self.undo.config, &server, &coming) {
            Ok(names) => names,
            Err(refused) => {
                self.planned.clear();
                return Ok(Survey { place: server.place(), refusals: vec![refused], ..Survey::default() });
            }
        };
        if coming.iter().any(|coming| coming.folder.is_some()) {
            self.undo.databases.clone_from(&names);
        }
        let server = self.server().await?;
        let failed = || error::target("look at the target", &server);
        let mut session = server.maintenance_session().await.map_err(failed())?;
        let (major, untested) = major_version(&mut session).await.map_err(failed())?;
        let surveys = self.survey_each(&server, (&mut session, major), &names, &coming).await?;
        session.close().await;
        let place = shown(&server, &self.names(&server)).place();
        let mut survey = survey::together(place, &coming, surveys);
        if survey.in_place {
            let there = names.iter().zip(&self.planned).filter(|(_, planned)| planned.number != 0);
            self.undo.in_place = there.map(|(name, _)| name.clone()).collect();
        }
        if self.undo.config.in_place && !incoming.selection.is_all() {
            survey.refusals.push(survey::part_in_place());
        }
        survey.notes.extend(self.heirs.notes());
        survey.notes.extend(untested);
        survey.refusals.extend(survey::newer(incoming, major));
        let (notes, refused) = globals::survey(&server, survey.replaces, incoming).await?;
        survey.notes.extend(notes);
        survey.refusals.extend(refused);
        Ok(survey)
    }

    fn undo(&self) -> Value {
        // A struct of texts.
        serde_json::to_value(&self.undo).unwrap_or_default()
    }

    async fn prepare(&mut self, cx: &Context) -> Result<Arc<dyn Sink>> {
        self.fill(false, cx).await
    }

    async fn rehearse(&mut self, cx: &Context) -> Result<Option<Arc<dyn Sink>>> {
        // A dump has the rows among its definitions.
        if self.dumped { Ok(None) } else { self.fill(true, cx).await.map(Some) }
    }

    async fn clear(&mut self, cx: &Context) -> Result<()> {
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => Err(Error::cancelled()),
            done = self.drop_what_is_there() => done,
        }
    }

    async fn publish(&mut self, cx: &Context) -> Result<()> {
        self.close().await;
        // It waits for others, up to a minute. What the server still does of a statement that was given up is for the revert: that ends
        // all sessions of this restore first, and looks what is there.
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => Err(Error::cancelled()),
            done = self.take_effect() => done,
        }
    }

    async fn check_revert(&mut self, _cx: &Context) -> Result<()> {
        let server = self.merged().await?;
        if let Some(mut exchange) = self.exchange(&server).await? {
            let published = exchange.check_revert().await;
            exchange.session.close().await;
            if published? {
                return Ok(());
            }
        }
        let mut swap = self.swap("look for the previous database").await?;
        swap.check_revert(&self.undo.in_place).await
    }

    async fn revert(&mut self, cx: &Context) -> Result<()> {
        self.close().await;
        self.sink = None;
        let mut swap = self.swap("bring the previous database back").await?;
        // It also ends the sessions of a killed process.
        let done = swap.revert().await;
        swap.session.close().await;
        done?;
        let server = self.merged().await?;
        if let Some(mut exchange) = self.exchange(&server).await? {
            let done = exchange.revert(cx, &self.undo.component).await;
            exchange.session.close().await;
            done?;
        }
        if globals::are_made(&server) {
            let server = self.server().await?;
            let mut session = maintenance(&server, "take away the roles that were made").await?;
            let who = (&*self.undo.id, &*self.undo.component);
            globals::take_away(&server, who, &mut session, cx).await?;
            session.close().await;
        }
        Ok(())
    }

    async fn settle(&mut self, _cx: &Context) -> Result<()> {
        self.close().await;
        self.sink = None;
        let mut swap = self.swap("drop the previous database").await?;
        let done = swap.settle().await;
        swap.session.close().await;
        done?;
        let server = self.merged().await?;
        if let Some(mut exchange) = self.exchange(&server).await? {
            let done = exchange.settle().await;
            exchange.session.close().await;
            done?;
        }
        if globals::are_made(&server) {
            let server = self.server().await?;
            let mut session = maintenance(&server, "let the roles be that were made").await?;
            globals::let_be(&server, &self.undo.id, &mut session).await?;
            session.close().await;
        }
        Ok(())
    }
}
