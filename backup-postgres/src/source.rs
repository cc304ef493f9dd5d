//! The reading side: a database at one moment.

mod dump;
mod exclude;
mod fix;
mod guide;
mod pool;
mod pour;
mod vendor;
mod watch;

use crate::{
    Method, PostgresConfig, catalog,
    client::Session,
    error,
    globals::passwords_are_readable,
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

/// A database to be backed up.
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
        match (&self.config.url, &self.config.container) {
            (Some(url), _) => f.write_str(url),
            (None, Some(name)) => write!(f, "container://{name}"),
            (None, None) => f.write_str("postgres"),
        }
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
    server: Server,
    tools: Tools,
    major: u32,
    leader: Session,
    workers: Vec<Session>,
    /// Why it is read by pg_dump alone, though nobody asked for it.
    fell_back: Option<String>,
    tables: Vec<catalog::Table>,
    settings: String,
}

async fn connect(source: &PostgresSource, cx: &Context) -> Result<PostgresReady> {
    let server = Server::resolve(&source.config, &source.component, &source.engine).await?;
    if source.config.container.is_some() {
        cx.note(Severity::Note, &source.component, "", format!("reached by {}", server.rung));
    }
    let failed = || error::source("connect to the database", &server);
    let mut leader = server.session().await.map_err(failed())?;
    let (major, untested) = major_version(&mut leader).await.map_err(failed())?;
    if let Some(text) = untested {
        cx.note(Severity::Warning, &source.component, "", text);
    }
    let settings = catalog::settings(major, source.config.lock_timeout.unwrap_or(LOCK_TIMEOUT));
    leader.query(&settings).await.map_err(failed())?;
    let minor = minor_version(&mut leader).await.map_err(failed())?;
    if source.config.globals == Some(true) && !passwords_are_readable(&mut leader).await.map_err(failed())? {
        let text =
            "passwords of roles are not in the backup: it takes a superuser or pg_read_all_data to read them";
        cx.note(Severity::Warning, &source.component, "", text);
    }
    let tools = Tools::find(&server, (major, minor)).await?;
    let tables = fix::list(&mut leader, &server, catalog::Sizes::Estimated).await?;
    let by_dump = source.config.method == Some(Method::Dump);
    let tasks = if by_dump { 0 } else { cx.tasks };
    let opened = pool::workers(&server, &settings, tasks).await.map_err(failed())?;
    let fell_back = match &opened.short {
        None => None,
        Some(why) if opened.workers.is_empty() => {
            if source.config.method == Some(Method::Native) {
                let message = format!("no session is left beside the first one and that of pg_dump: {why}");
                let hint =
                    "raise max_connections or the CONNECTION LIMIT of the role, or use method = \"dump\"";
                return Err(Error::new(ErrorKind::Source, "connect to the database", message)
                    .on(server.place())
                    .hint(hint));
            }
            Some(format!("no session is left for more: {why}"))
        }
        Some(why) => {
            let text =
                format!("rows are read by {} sessions instead of {tasks}: {why}", opened.workers.len());
            cx.note(Severity::Warning, &source.component, "", text);
            None
        }
    };
    if let Some(why) = &fell_back {
        let text = format!("read by pg_dump -Fc alone, which is slower: {why}");
        cx.note(Severity::Warning, &source.component, "", text);
    }
    let (component, workers) = (source.component.clone(), opened.workers);
    Ok(PostgresReady { component, server, tools, major, leader, workers, fell_back, tables, settings })
}

#[async_trait]
impl Ready for PostgresReady {
    fn stillness(&self) -> Stillness {
        Stillness::None
    }

    fn estimate(&self) -> Option<u64> {
        Some(self.tables.iter().map(|table| table.bytes).sum())
    }

    async fn fix(self: Box<Self>, cx: &Context) -> Result<Box<dyn View>> {
        tokio::select! {
            view = fix::fix(*self) => Ok(Box::new(view?)),
            () = cx.cancel.cancelled() => Err(Error::cancelled()),
        }
    }
}
