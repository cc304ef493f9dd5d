//! The reading side: databases, each at one moment.

mod database;
mod dump;
mod exclude;
mod fix;
mod guide;
mod pool;
mod pour;
mod rows;
mod vendor;
mod watch;

use crate::{
    Method, PostgresConfig, catalog,
    client::Session,
    error,
    globals::passwords_are_readable,
    layout,
    server::{Server, major_version, minor_version},
    tools::Tools,
};
use async_trait::async_trait;
use backup_core::{
    ContainerEngine, Context, Error, ErrorKind, Ready, Result, Severity, Source, Stillness, View,
};
use serde_json::Value;
use std::{fmt, sync::Arc};

const LOCK_TIMEOUT: u32 = 30;

/// Databases to be backed up.
pub(crate) struct PostgresSource {
    component: String,
    config: PostgresConfig,
    engine: Arc<dyn ContainerEngine>,
}

impl PostgresSource {
    pub(crate) fn new(component: &str, config: PostgresConfig, engine: Arc<dyn ContainerEngine>) -> Self {
        PostgresSource { component: component.to_owned(), config, engine }
    }
}

impl fmt::Display for PostgresSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.config)
    }
}

#[async_trait]
impl Source for PostgresSource {
    async fn connect(&self, cx: &Context) -> Result<Box<dyn Ready>> {
        tokio::select! {
            ready = connect(self, cx) => Ok(Box::new(ready?)),
            () = cx.cancel.cancelled() => Err(Error::cancelled()),
        }
    }

    fn origin(&self) -> Value {
        let config = PostgresConfig {
            exclude_table_data: Vec::new(),
            exclude_tables: Vec::new(),
            lock_timeout: None,
            give_way_after: None,
            method: None,
            globals: None,
            ..self.config.clone()
        };
        config.to_value()
    }
}

/// A connected source, before its moment.
struct PostgresReady {
    component: String,
    /// For people: all of them.
    server: Server,
    tools: Tools,
    major: u32,
    databases: Vec<Opened>,
    /// In the first of them.
    workers: Vec<Session>,
    /// Why they are read by pg_dump alone, though nobody asked for it.
    fell_back: Option<String>,
    settings: String,
}

/// One of the databases.
struct Opened {
    server: Server,
    /// Where it is among several.
    folder: Option<String>,
    leader: Session,
    tables: Vec<catalog::Table>,
}

async fn connect(source: &PostgresSource, cx: &Context) -> Result<PostgresReady> {
    let (config, component) = (&source.config, &source.component);
    let server = Server::resolve(config, component, &source.engine).await?;
    server.database_is_said()?;
    let servers = named(&server, component, cx).await?;
    if let Some(said) = said(&server, &servers) {
        cx.note(Severity::Note, component, "", said);
    }
    let mut servers = servers.into_iter();
    let Some((first, folder)) = servers.next() else {
        let message = "there is no database but templates";
        return Err(Error::new(ErrorKind::NotFound, "list the databases", message).on(server.place()));
    };
    let failed = || error::source("connect to the database", &first);
    let mut leader = first.session().await.map_err(failed())?;
    let (major, untested) = major_version(&mut leader).await.map_err(failed())?;
    if let Some(text) = untested {
        cx.note(Severity::Warning, component, "", text);
    }
    let settings = catalog::settings(major, config.lock_timeout.unwrap_or(LOCK_TIMEOUT));
    let minor = minor_version(&mut leader).await.map_err(failed())?;
    let by_dump = config.method == Some(Method::Dump);
    let tasks = if by_dump { 0 } else { cx.tasks };
    let opening = async {
        if config.reads_globals() && !passwords_are_readable(&mut leader).await.map_err(failed())? {
            let text = "passwords of roles are not in the backup: it takes a superuser or pg_read_all_data to read them";
            cx.note(Severity::Warning, component, "", text);
        }
        let mut databases = vec![opened(first.clone(), folder, leader, &settings).await?];
        let others = servers.map(|(server, folder)| {
            let settings = &settings;
            async move {
                let leader =
                    server.session().await.map_err(error::source("connect to the database", &server))?;
                opened(server, folder, leader, settings).await
            }
        });
        databases.extend(futures::future::try_join_all(others).await?);
        let workers = pool::workers(&first, &settings, tasks).await.map_err(failed())?;
        Ok((databases, workers))
    };
    // Looking for the tools takes as long as all the rest, and asks the server for nothing.
    let (tools, (databases, workers)) = tokio::try_join!(Tools::find(&first, (major, minor)), opening)?;
    let fell_back = match &workers.short {
        None => None,
        Some(why) if workers.workers.is_empty() => {
            if config.method == Some(Method::Native) {
                let message = format!("no session is left beside the first one and that of pg_dump: {why}");
                let hint =
                    "raise max_connections or the CONNECTION LIMIT of the role, or use method = \"dump\"";
                return Err(Error::new(ErrorKind::Source, "connect to the database", message)
                    .on(first.place())
                    .hint(hint));
            }
            Some(format!("no session is left for more: {why}"))
        }
        Some(why) => {
            let text =
                format!("rows are read by {} sessions instead of {tasks}: {why}", workers.workers.len());
            cx.note(Severity::Warning, component, "", text);
            None
        }
    };
    if let Some(why) = &fell_back {
        let text = format!("read by pg_dump -Fc alone, which is slower: {why}");
        cx.note(Severity::Warning, component, "", text);
    }
    let (component, workers) = (component.clone(), workers.workers);
    let names: Vec<&str> = databases.iter().map(|d| d.server.database.as_str()).collect();
    let server = server.of(&names.join("+"));
    Ok(PostgresReady { component, server, tools, major, databases, workers, fell_back, settings })
}

/// What the configuration does not say of its own: which databases these are, and how a container is reached.
fn said(server: &Server, servers: &[(Server, Option<String>)]) -> Option<String> {
    let config = &server.config;
    let names: Vec<&str> = servers.iter().map(|(server, _)| server.database.as_str()).collect();
    let databases = format!("database{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "));
    match (&config.container, config.named_database(), config.means_all()) {
        (Some(_), ..) => Some(format!("{databases}, reached by {}", server.rung)),
        (None, None, _) | (None, _, true) => Some(databases),
        _ => None,
    }
}

/// The databases that are configured, each with its folder if there may be several.
async fn named(server: &Server, component: &str, cx: &Context) -> Result<Vec<(Server, Option<String>)>> {
    let config = &server.config;
    if config.databases.is_empty() {
        return Ok(vec![(server.clone(), None)]);
    }
    let names = match config.means_all() {
        false => config.databases.clone(),
        true => {
            let listed = server.databases().await;
            let (open, closed) = listed.map_err(error::source("list the databases", server))?;
            for name in closed {
                let text = "it takes no connections, and is not in the backup";
                cx.note(Severity::Warning, component, name, text);
            }
            open
        }
    };
    Ok(names.iter().map(|name| (server.of(name), Some(layout::folder_of(name)))).collect())
}

async fn opened(
    server: Server,
    folder: Option<String>,
    mut leader: Session,
    settings: &str,
) -> Result<Opened> {
    leader.query(settings).await.map_err(error::source("connect to the database", &server))?;
    let tables = fix::list(&mut leader, &server, catalog::Sizes::Estimated).await?;
    Ok(Opened { server, folder, leader, tables })
}

#[async_trait]
impl Ready for PostgresReady {
    fn stillness(&self) -> Stillness {
        Stillness::None
    }

    fn estimate(&self) -> Option<u64> {
        Some(self.databases.iter().flat_map(|d| &d.tables).map(|table| table.bytes).sum())
    }

    async fn fix(self: Box<Self>, cx: &Context) -> Result<Box<dyn View>> {
        tokio::select! {
            view = fix::fix(*self, cx) => Ok(Box::new(view?)),
            () = cx.cancel.cancelled() => Err(Error::cancelled()),
        }
    }
}
