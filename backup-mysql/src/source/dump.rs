//! Databases as the vendor's own program writes them: one file of statements each.

use super::{Pour, guide};
use crate::{
    MysqlConfig,
    catalog::{Database, Form, Version, list},
    client::Session,
    definitions,
    quote::file_name,
    server::Server,
    stored::{Object, Stored},
    tools::{Program, Tool},
};
use backup_core::{
    ContainerEngine, Content, Context, Entry, Error, ErrorKind, Fact, Part, Result, Severity, Sink, Stage,
    put_stage,
};
use futures::stream;
use std::sync::{Arc, PoisonError};

/// What dumps the databases of a server.
pub(super) struct Dumper {
    tool: Arc<Tool>,
}

impl Dumper {
    /// Finds the program, and refuses what it cannot do.
    pub(super) async fn find(
        server: &Server,
        version: &Version,
        config: &MysqlConfig,
        engine: &dyn ContainerEngine,
    ) -> Result<Self> {
        let tool = Tool::find(Program::Dump, server, version, engine).await?;
        if !config.exclude_data.is_empty() && !tool.knows("--ignore-table-data") {
            let message = format!("{} cannot leave out the rows of a table", tool.described());
            let e = Error::new(ErrorKind::Usage, "leave out rows", message);
            return Err(e.hint("use `method = \"native\"`, or `exclude_tables`"));
        }
        Ok(Dumper { tool: Arc::new(tool) })
    }

    fn options(&self, database: &Database, views: &[String], config: &MysqlConfig) -> Vec<String> {
        let mut options: Vec<String> = [
            "--single-transaction",
            "--quick",
            "--routines",
            "--triggers",
            // They are stored beside it: loaded from it they would run before all is there.
            "--skip-events",
            // A table whose default takes the next number of a sequence cannot be filled under the lock of its own.
            "--skip-add-locks",
            "--hex-blob",
            "--default-character-set=utf8mb4",
            "--max-allowed-packet=1G",
            "--skip-dump-date",
        ]
        .map(str::to_owned)
        .into();
        let has_history = database.tables.iter().any(|t| t.period.is_some());
        for (option, value, wanted) in [
            ("--column-statistics", "=0", true),
            ("--set-gtid-purged", "=OFF", true),
            ("--no-tablespaces", "", true),
            ("--dump-history", "", has_history),
        ] {
            if wanted && self.tool.knows(option) {
                options.push(format!("{option}{value}"));
            }
        }
        let named = |option: &str, table: &String| format!("{option}={}.{table}", database.name);
        options.extend(database.left_out.iter().chain(views).map(|t| named("--ignore-table", t)));
        let empty = database.tables.iter().map(|t| &t.name);
        let empty = empty.filter(|t| MysqlConfig::excludes(&config.exclude_data, &database.name, t));
        options.extend(empty.map(|t| named("--ignore-table-data", t)));
        options
    }
}

impl Pour {
    /// All databases, one after another.
    pub(super) async fn dump_all(
        &self,
        dumper: &Dumper,
        databases: &[Database],
        sink: &Arc<dyn Sink>,
        cx: &Context,
    ) -> Result<()> {
        self.say_what_is_not_of_the_moment(databases, cx);
        let how = format!("dump, because it was asked for: {}", dumper.tool.described());
        self.facts.lock().unwrap_or_else(PoisonError::into_inner).insert("all", "method", Fact::Note(how));
        if databases.len() > 1 {
            let text =
                "each database is of a moment of its own: the vendor's program reads one after another";
            cx.note(Severity::Warning, &self.component, "", text);
        }
        for (d, t) in databases.iter().flat_map(|d| d.tables.iter().map(move |t| (d, t))) {
            let say = |text: &str| {
                cx.note(Severity::Warning, &self.component, format!("{}.{}", d.name, t.name), text)
            };
            if t.period.is_some() && !dumper.tool.knows("--dump-history") {
                say(
                    "its history is not in the backup: this version of the vendor's program does not write it",
                );
            }
            if t.columns.iter().any(|c| c.form() == Form::Float) {
                say(
                    "short floating-point numbers (FLOAT) have six digits: the vendor's program writes no more",
                );
            }
        }
        let prepare = databases.iter().flat_map(|d| [Ok(self.dump_guide(d)), Ok(self.properties(d))]);
        put_stage(sink, cx, stream::iter(prepare)).await?;
        // One after another: each is a load of its own for the server.
        for d in databases {
            let found = definitions::list(&mut *self.control.lock().await, &d.name, &self.version).await?;
            // Those that are left out are said with the other definitions.
            let views = super::definitions::views_without_their_tables(&found, d);
            put_stage(sink, cx, stream::iter([Ok(self.dump(dumper, d, &views))])).await?;
        }
        for d in databases {
            let items = self.definitions(d).await?;
            let events = items
                .into_iter()
                .filter(|(entry, _)| Stored::of(entry).is_ok_and(|s| s.object == Object::Event));
            put_stage(sink, cx, stream::iter(events.map(Ok))).await?;
        }
        put_stage(sink, cx, self.users_if_wanted(cx)).await
    }

    fn dump_guide(&self, d: &Database) -> (Entry, Content) {
        let text = guide::of_dump(&d.name, &self.version);
        let stored = Stored::new(Object::Guide, &d.name, "", &self.version);
        let entry = stored.entry(format!("{}/RESTORE.md", file_name(&d.name)), Stage::Prepare);
        (entry.sized(text.len() as u64), Content::whole(text.into_bytes()))
    }

    fn dump(&self, dumper: &Dumper, d: &Database, views: &[String]) -> (Entry, Content) {
        let stored = Stored::new(Object::Dump, &d.name, "", &self.version);
        let mut entry = stored.entry(format!("{}.sql", file_name(&d.name)), Stage::Data);
        entry.slow = true;
        let written = dumper.tool.dump(&d.name, dumper.options(d, views, &self.config));
        let after = Unchanged {
            control: self.control.clone(),
            before: d.clone(),
            config: self.config.clone(),
            version: self.version.clone(),
        };
        (entry, and_then(written, after))
    }
}

/// The program takes a listing of its own when it begins; tables that came and went meanwhile would be missing silently.
struct Unchanged {
    control: Arc<tokio::sync::Mutex<Session>>,
    before: Database,
    config: MysqlConfig,
    version: Version,
}

impl Unchanged {
    async fn check(&self) -> Result<()> {
        let mut control = self.control.lock().await;
        let names = [self.before.name.clone()];
        let now = list(&mut control, Some(&names), &self.config, &self.version).await;
        let now = now.map_err(|e| e.during(ErrorKind::Source, "list the tables").on(&self.before.name))?;
        if now.first() == Some(&self.before) {
            return Ok(());
        }
        let message = "tables were made, changed or dropped while the vendor's program read the database";
        let e = Error::new(ErrorKind::Source, "dump the database", message).on(&self.before.name);
        Err(e
            .hint("try again when no migration runs; `method = \"native\"` keeps them from being changed")
            .retry(true))
    }
}

/// The content, which ends well only if `after` finds nothing wrong.
fn and_then(content: Content, after: Unchanged) -> Content {
    Content::stream(stream::unfold(Some((content, after)), |state| async {
        let (mut content, after) = state?;
        match content.next().await {
            Ok(Some(bytes)) => Some((Ok(Part::Bytes(bytes)), Some((content, after)))),
            Ok(None) => match after.check().await {
                Ok(()) => Some((Ok(Part::End(backup_core::Facts::new())), None)),
                Err(e) => Some((Err(e), None)),
            },
            Err(e) => Some((Err(e), None)),
        }
    }))
}
