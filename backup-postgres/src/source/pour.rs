//! Pours databases, stage by stage: definitions, rows in parallel, then what comes after them.

use super::{
    database::{Database, Known},
    exclude::Patterns,
    guide,
    pool::Pool,
    rows,
    watch::Watch,
};
use crate::{Method, error, globals::Globals, layout, server::Server, tools::Tools};
use async_trait::async_trait;
use backup_core::{
    Content, Context, EXCLUDED, Entry, Error, Fact, Facts, Moment, Result, Severity, Sink, Stage, View,
    put_stage,
};
use futures::stream;
use std::sync::Arc;

/// Databases, each at one moment. Dropping it closes its sessions, and with them goes all that they hold.
pub(super) struct PostgresView {
    pub(super) component: String,
    /// For people: all of them.
    pub(super) server: Server,
    pub(super) tools: Tools,
    pub(super) major: u32,
    pub(super) pool: Arc<Pool>,
    pub(super) fell_back: Option<String>,
    pub(super) moment: Moment,
    pub(super) databases: Vec<Arc<Database>>,
}

#[async_trait]
impl View for PostgresView {
    fn moment(&self) -> Moment {
        self.moment
    }

    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
        // Their sessions have one name: one of them sees who waits for any.
        let any = self.databases.first().map_or(&self.server, |database| &database.server);
        let watch = Watch::begin(any, self.major, &self.component, cx);
        let poured = self.pour_all(&sink, &watch).await;
        let gave_way = watch.end().await;
        self.give_back().await;
        match gave_way {
            Some(e) => {
                let hint = "run it again at another time, or raise give_way_after";
                Err(e.on(self.server.place()).retry(true).hint(hint))
            }
            None => poured,
        }
    }
}

impl PostgresView {
    async fn pour_all(&self, sink: &Arc<dyn Sink>, watch: &Watch) -> Result<Facts> {
        let config = &self.server.config;
        let mut facts = Facts::new()
            .with("server", "version", Fact::Note(format!("PostgreSQL {}", self.major)))
            .with("server", "reached", Fact::Note(self.server.rung.clone()));
        let mut tables = Patterns::new("exclude_tables", &config.exclude_tables);
        // The tool takes a while to begin.
        let first = self.databases.first().filter(|_| !self.is_dumped() || !tables.are_none());
        let mut begun = first.map(|first| self.definitions(first, watch).begun());
        self.pour_what_is_common(sink, &mut facts, watch).await?;
        let mut rows = Patterns::new("exclude_table_data", &config.exclude_table_data);
        let mut excluded: Vec<String> =
            config.exclude_tables.iter().chain(&config.exclude_table_data).cloned().collect();
        let (mut list, mut definitions) = (Vec::new(), Vec::new());
        for database in &self.databases {
            let schema = begun.take().unwrap_or_else(|| self.definitions(database, watch));
            let (known, schema) = self.known(database, schema, (&mut tables, &mut rows), watch).await?;
            excluded.extend(known.gone.also.iter().map(|what| database.server.shown(what)));
            facts.add_missing(layout::facts_in(database.folder.as_deref(), self.facts(database, &known)?));
            let json = known.properties.to_json()?;
            let properties = database.placed(whole(layout::PROPERTIES, Stage::Prepare, json));
            // Those that had to be looked at are in memory.
            let at_once = self.is_dumped() || schema.in_memory().is_some();
            let schema = database.placed((Entry::file(layout::SCHEMA, Stage::Prepare), schema));
            let its =
                [Some(properties), Some(schema).filter(|_| !self.is_dumped())].into_iter().flatten().map(Ok);
            match at_once {
                true => put_stage(sink, &watch.cx, stream::iter(its)).await?,
                false => definitions.extend(its),
            }
            list.push((database.clone(), known));
        }
        tables.all_named()?;
        rows.all_named()?;
        if !excluded.is_empty() {
            facts.insert("all", EXCLUDED, Fact::Note(excluded.join(", ")));
        }
        match self.is_dumped() {
            true => self.pour_dumps(list, sink, &mut facts, watch).await?,
            false => self.pour_native((list, definitions), sink, &mut facts, watch).await?,
        }
        Ok(facts)
    }

    /// Whether it is done by pg_dump alone.
    pub(super) fn is_dumped(&self) -> bool {
        self.server.config.method == Some(Method::Dump) || self.fell_back.is_some()
    }

    /// What belongs to all of them together.
    async fn pour_what_is_common(
        &self,
        sink: &Arc<dyn Sink>,
        facts: &mut Facts,
        watch: &Watch,
    ) -> Result<()> {
        let cx = &watch.cx;
        let mut items = Vec::new();
        if self.databases.iter().any(|database| database.folder.is_some()) {
            let names: Vec<&str> = self.databases.iter().map(|d| d.server.database.as_str()).collect();
            let json = serde_json::to_vec(&names).map_err(|e| Error::damaged("list the databases", e))?;
            items.push(Ok(whole(layout::DATABASES, Stage::Prepare, json)));
            let apart = self.moment.last.duration_since(self.moment.first).as_millis();
            let said = format!(
                "{} databases, each of one moment of its own, for a snapshot belongs to one; all within {apart} ms",
                names.len()
            );
            facts.insert("all", "moments", Fact::Note(said));
        }
        if let Some(any) = self.databases.first().filter(|_| self.server.config.reads_globals()) {
            let mut leader = any.leader.lock().await;
            let failed = error::source("read roles and tablespaces", &any.server);
            let globals = Globals::read(&mut leader, self.major).await.map_err(failed)?;
            facts.add_missing(globals.facts.clone());
            for text in &globals.left_out {
                cx.note(Severity::Warning, &self.component, "roles and tablespaces", text.clone());
            }
            let (entry, text) = globals.into_entry();
            items.push(Ok((entry, Content::whole(text))));
        }
        put_stage(sink, cx, stream::iter(items)).await
    }

    fn facts(&self, database: &Database, known: &Known) -> Result<Facts> {
        let mut facts = Facts::new()
            .with("server", "position", Fact::Note(database.position.clone()))
            .with("database", "method", Fact::Note(self.method()))
            .with("database", "properties", Fact::Digest(known.properties.digest()?))
            .with("large objects", "count", Fact::Count(known.large_objects));
        // Of a dump no part is restored.
        for (key, needs) in known.needs.iter().filter(|_| !self.is_dumped()) {
            facts.insert(layout::KEYS_NEED, key, Fact::Note(needs.clone()));
        }
        Ok(facts)
    }

    fn definitions(&self, database: &Database, watch: &Watch) -> Content {
        self.vendor(database, &["--schema-only"], watch)
    }

    async fn pour_native(
        &self,
        (list, definitions): (Vec<(Arc<Database>, Known)>, rows::Items),
        sink: &Arc<dyn Sink>,
        facts: &mut Facts,
        watch: &Watch,
    ) -> Result<()> {
        let (mut pieces, mut scripts, mut large) = (Vec::new(), Vec::new(), Vec::new());
        let all = list.iter().flat_map(|(_, known)| &known.kept).map(|table| table.bytes).sum();
        for (database, known) in &list {
            let its = rows::pieces(known.kept.clone(), rows::piece_of(all), self.major);
            scripts.push(rows::load_script(&its, &known.properties.encoding));
            pieces.extend(its.into_iter().map(|piece| (database.clone(), piece)));
            if known.large_objects > 0 {
                // Named and left out again: then there is something chosen, and it is nothing but the large objects.
                const NOTHING: &str = "pg_catalog.pg_largeobject_metadata";
                let only = ["--blobs", "--table", NOTHING, "--exclude-table", NOTHING];
                let content = self.vendor(database, &only, watch);
                large.push(Ok(database.placed((Entry::file(layout::LARGE_OBJECTS, Stage::Data), content))));
            }
        }
        facts.add_missing(rows::pour(sink, (definitions, pieces, large), &self.pool, watch).await?);
        for ((database, known), load) in list.into_iter().zip(scripts) {
            let guide = guide::text(&self.guided(&database), &known.properties, known.large_objects > 0);
            let complete = [
                (layout::GUIDE, guide),
                (layout::LOAD, load),
                (layout::REFRESH, known.refreshes),
                (layout::SEQUENCES, known.sequences),
            ];
            let items = complete.map(|(path, text)| Ok(database.placed(whole(path, Stage::Complete, text))));
            put_stage(sink, &watch.cx, stream::iter(items)).await?;
        }
        Ok(())
    }

    /// What a guide must know of a database.
    pub(super) fn guided(&self, database: &Database) -> guide::Of {
        let name = database.server.database.clone();
        let globals = self.server.config.reads_globals();
        guide::Of { name, among_several: database.folder.is_some(), globals }
    }

    /// For people: how it was done, and why so.
    fn method(&self) -> String {
        match (&self.fell_back, self.server.config.method) {
            (Some(why), _) => format!("dump: pg_dump -Fc; {why}"),
            (_, Some(Method::Dump)) => "dump: pg_dump -Fc, as configured".to_owned(),
            (_, Some(Method::Native)) => {
                "native: pg_dump for definitions, COPY for rows; as configured".to_owned()
            }
            (_, None) => "native: pg_dump for definitions, COPY for rows".to_owned(),
        }
    }

    /// Ends all sessions, those of pg_dump too, should one be left.
    async fn give_back(&self) {
        let mut leaving = self.pool.leave().await;
        // The first one goes last, and ends what is left of all others.
        let others = self.databases.iter().skip(1).map(|database| async move {
            let mut leader = database.leader.lock().await;
            leader.leave().await;
            leader.process()
        });
        leaving.extend(futures::future::join_all(others).await);
        let Some(first) = self.databases.first() else { return };
        let name = crate::quote::literal(&self.server.endpoint.application);
        let mut leader = first.leader.lock().await;
        if leader.is_clean() {
            let others = format!(
                "ROLLBACK; SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                 WHERE application_name = {name} AND pid <> pg_catalog.pg_backend_pid() AND pid <> ALL ('{{{}}}')",
                leaving.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            );
            // A server that is gone holds nothing for us.
            let _ = leader.query(&others).await;
        }
        leader.leave().await;
    }
}

pub(super) fn whole(path: &'static str, stage: Stage, bytes: impl Into<bytes::Bytes>) -> (Entry, Content) {
    let bytes = bytes.into();
    (Entry::file(path, stage).sized(bytes.len() as u64), Content::whole(bytes))
}
