//! A database that is being restored: a shadow beside the old one, exchanged with it by renaming.

mod beside;
mod bound;
mod dump;
mod exchange;
mod globals;
mod indexes;
mod merging;
mod part;
mod present;
mod publish;
mod put;
mod shadow;
mod survey;

use crate::{PostgresConfig, client::Session, error, server::Server};
use async_trait::async_trait;
use backup_core::{ContainerEngine, Context, Error, ErrorKind, Incoming, Result, Sink, Survey, Target};
use beside::Schemas;
use bound::Surveyed;
use exchange::{Exchange, Published};
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
    /// Part of the names of the shadow and of the old database.
    id: String,
}

/// Names that nobody else uses.
#[derive(Clone, Debug)]
struct Names {
    id: String,
    shadow: String,
    old: String,
}

impl Names {
    fn new(id: &str) -> Self {
        Names { id: id.to_owned(), shadow: format!("backup_new_{id}"), old: format!("backup_old_{id}") }
    }
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
}

pub(crate) struct PostgresTarget {
    undo: Undo,
    names: Names,
    engine: Arc<dyn ContainerEngine>,
    server: Option<Server>,
    /// Number of the database that the plan replaces; 0: none is there.
    surveyed: Option<u64>,
    /// Tables that it replaces, where others stay.
    tables: Surveyed,
    choice: Choice,
    shadow: Option<Arc<Shadow>>,
}

impl PostgresTarget {
    pub(crate) fn new(component: &str, config: PostgresConfig, engine: Arc<dyn ContainerEngine>) -> Self {
        let id = ulid::Ulid::generate().to_string().to_lowercase();
        Self::of(Undo { version: UNDO_VERSION, component: component.to_owned(), config, id }, engine)
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
        let names = Names::new(&undo.id);
        PostgresTarget {
            undo,
            names,
            engine,
            server: None,
            surveyed: None,
            tables: Surveyed::new(),
            choice: Choice::default(),
            shadow: None,
        }
    }

    /// The server, found out once.
    async fn server(&mut self) -> Result<Server> {
        if let Some(server) = &self.server {
            return Ok(server.clone());
        }
        let mut server = Server::resolve(&self.undo.config, &self.undo.component, &self.engine).await?;
        // Sessions of ours are known by it, also those that a killed process left behind.
        server.endpoint.application = format!("backup restore {}", self.names.id);
        self.server = Some(server.clone());
        Ok(server)
    }

    async fn swap(&mut self, operation: &'static str) -> Result<Swap> {
        let server = self.server().await?;
        let session = maintenance(&server, operation).await?;
        Ok(Swap { server, names: self.names.clone(), session })
    }
}

impl PostgresTarget {
    /// For tables in the database that is there; `None`: this is no merge, or there is no database.
    async fn exchange<'a>(&self, server: &'a Server) -> Result<Option<Exchange<'a>>> {
        if !self.undo.config.merge {
            return Ok(None);
        }
        let session = match exchange::session(server).await {
            Err(e) if e.code() == Some("3D000") => return Ok(None),
            session => session.map_err(error::target("look for the tables", server))?,
        };
        Ok(Some(Exchange { server, schemas: Schemas::new(&self.names.id), session }))
    }

    async fn take_effect(&mut self) -> Result<()> {
        if self.choice.merge {
            return self.exchange_tables().await;
        }
        let surveyed = self.surveyed.unwrap_or(0);
        let mut swap = self.swap("publish the restored database").await?;
        let done = swap.publish(surveyed).await;
        swap.session.close().await;
        done
    }

    async fn exchange_tables(&mut self) -> Result<()> {
        let server = self.server().await?;
        let (Some(shadow), Some(part)) = (self.shadow.clone(), self.choice.part.clone()) else {
            let message = "there is nothing beside the old tables";
            return Err(Error::new(ErrorKind::Target, "exchange the tables", message).on(server.place()));
        };
        let gone = || Error::new(ErrorKind::Target, "exchange the tables", "the database is gone");
        let mut exchange = self.exchange(&server).await?.ok_or_else(gone)?;
        let (last, sequences) = shadow.finishing_statements();
        let surveyed = &self.tables;
        let what = Published { part: &part, surveyed, last: &last, sequences: &sequences };
        let done = exchange.publish(&what).await;
        exchange.session.close().await;
        done
    }
}

async fn maintenance(server: &Server, operation: &'static str) -> Result<Session> {
    server.maintenance_session().await.map_err(error::target(operation, server))
}

impl fmt::Display for PostgresTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.undo.config;
        let database = config.database.iter().map(|d| format!("/{d}")).collect::<String>();
        match (&config.url, &config.container) {
            (Some(url), _) => f.write_str(url),
            (None, name) => write!(f, "container://{}{database}", name.as_deref().unwrap_or_default()),
        }
    }
}

#[async_trait]
impl Target for PostgresTarget {
    async fn survey(&mut self, incoming: &Incoming, cx: &Context) -> Result<Survey> {
        let server = self.server().await?;
        self.choice = survey::choice(&server, incoming, cx).await?;
        let merged = self.choice.part.as_ref().filter(|_| self.choice.merge);
        let (mut survey, oid) = match merged {
            Some(part) => {
                let (survey, oid, tables) = merging::survey(&server, incoming, part).await?;
                self.tables = tables;
                (survey, oid)
            }
            None => survey::survey(&server, incoming, &self.choice).await?,
        };
        let choice = &self.choice;
        survey.refusals.extend(merging::impossible(&server, choice.selective, choice.part.as_ref()));
        let (notes, refused) = globals::survey(&server, incoming).await?;
        survey.notes.extend(notes);
        survey.refusals.extend(refused);
        self.surveyed = Some(oid);
        Ok(survey)
    }

    fn undo(&self) -> Value {
        // A struct of texts.
        serde_json::to_value(&self.undo).unwrap_or_default()
    }

    async fn prepare(&mut self, cx: &Context) -> Result<Arc<dyn Sink>> {
        let server = self.server().await?;
        let choice = self.choice.clone();
        let (name, beside) = match choice.merge {
            true => (server.database.clone(), Some(Schemas::new(&self.names.id))),
            false => (self.names.shadow.clone(), None),
        };
        let shadow =
            Shadow::new(server, &name, (&self.names.id, &self.undo.component), (choice, beside), cx).await?;
        let shadow = Arc::new(shadow);
        self.shadow = Some(shadow.clone());
        Ok(shadow)
    }

    async fn publish(&mut self, cx: &Context) -> Result<()> {
        if let Some(shadow) = &self.shadow {
            shadow.close().await;
        }
        // It waits for others, up to a minute. What the server still does of a statement that was given up is for the revert: that ends
        // all sessions of this restore first, and looks what is there.
        tokio::select! {
            biased;
            () = cx.cancel.cancelled() => Err(Error::cancelled()),
            done = self.take_effect() => done,
        }
    }

    async fn check_revert(&mut self, _cx: &Context) -> Result<()> {
        let server = self.server().await?;
        if let Some(mut exchange) = self.exchange(&server).await? {
            let published = exchange.check_revert().await;
            exchange.session.close().await;
            if published? {
                return Ok(());
            }
        }
        self.swap("look for the previous database").await?.check_revert().await
    }

    async fn revert(&mut self, cx: &Context) -> Result<()> {
        if let Some(shadow) = self.shadow.take() {
            shadow.close().await;
        }
        let mut swap = self.swap("bring the previous database back").await?;
        // It also ends the sessions of a killed process.
        let done = swap.revert().await;
        swap.session.close().await;
        done?;
        let server = self.server().await?;
        if let Some(mut exchange) = self.exchange(&server).await? {
            let done = exchange.revert(cx, &self.undo.component).await;
            exchange.session.close().await;
            done?;
        }
        if globals::are_made(&server) {
            let mut session = maintenance(&server, "take away the roles that were made").await?;
            let who = (&*self.names.id, &*self.undo.component);
            globals::take_away(&server, who, &mut session, cx).await?;
            session.close().await;
        }
        Ok(())
    }

    async fn settle(&mut self, _cx: &Context) -> Result<()> {
        if let Some(shadow) = self.shadow.take() {
            shadow.close().await;
        }
        let mut swap = self.swap("drop the previous database").await?;
        let done = swap.settle().await;
        swap.session.close().await;
        done?;
        let server = self.server().await?;
        if let Some(mut exchange) = self.exchange(&server).await? {
            let done = exchange.settle().await;
            exchange.session.close().await;
            done?;
        }
        if globals::are_made(&server) {
            let mut session = maintenance(&server, "let the roles be that were made").await?;
            globals::let_be(&server, &self.names.id, &mut session).await?;
            session.close().await;
        }
        Ok(())
    }
}
