//! One of the databases of a view: what its catalog says, what of it is left out, and where it stands in the backup.

use super::{
    Opened,
    exclude::{self, LeftOut, Patterns},
    pour::PostgresView,
    vendor,
    watch::Watch,
};
use crate::{
    catalog::{self, Table},
    client::Session,
    error,
    properties::Properties,
    server::Server,
    toc,
};
use backup_core::{Content, Entry, Error, ErrorKind, Result, Severity};
use std::sync::Arc;

/// A database with its locks and its snapshot.
pub(super) struct Database {
    pub(super) number: usize,
    pub(super) server: Server,
    /// Where it is among several.
    pub(super) folder: Option<String>,
    /// Holds the locks and the snapshot.
    pub(super) leader: Arc<tokio::sync::Mutex<Session>>,
    pub(super) tables: Vec<Table>,
    pub(super) position: String,
}

/// What is known of it once its catalog is read.
pub(super) struct Known {
    pub(super) properties: Properties,
    pub(super) sequences: String,
    pub(super) refreshes: String,
    pub(super) large_objects: u64,
    /// What constraints need, by their numbers.
    pub(super) needs: Vec<(String, String)>,
    /// The tables whose rows are wanted, and those whose rows are not.
    pub(super) kept: Vec<Table>,
    pub(super) left_out: Vec<Table>,
    pub(super) gone: LeftOut,
}

impl Database {
    pub(super) fn new(number: usize, opened: Opened, position: String) -> Arc<Self> {
        let Opened { server, folder, leader, tables } = opened;
        let leader = Arc::new(tokio::sync::Mutex::new(leader));
        Arc::new(Database { number, server, folder, leader, tables, position })
    }

    /// Its name for notes and errors, if it is one of several; else nothing.
    pub(super) fn among(&self) -> &str {
        if self.folder.is_some() { &self.server.database } else { "" }
    }

    /// In its folder.
    pub(super) fn placed(&self, (mut entry, content): (Entry, Content)) -> (Entry, Content) {
        if let Some(folder) = &self.folder {
            entry.path = [folder.as_bytes(), b"/", &entry.path].concat().into();
        }
        (entry, content)
    }
}

impl PostgresView {
    /// Reads the catalog of a database, and finds out what of it is left out. What goes is said. With its definitions without that: in
    /// memory, if they had to be looked at.
    pub(super) async fn known(
        &self,
        database: &Database,
        schema: Content,
        (tables, rows): (&mut Patterns, &mut Patterns),
        watch: &Watch,
    ) -> Result<(Known, Content)> {
        let (cx, server) = (&watch.cx, &database.server);
        let failed = || error::source("read the catalog", server);
        let (properties, sequences, refreshes, large_objects, needs) = {
            let mut leader = database.leader.lock().await;
            for text in catalog::not_captured(&mut leader).await.map_err(failed())? {
                cx.note(Severity::Note, &self.component, database.among(), format!("not included: {text}"));
            }
            let properties = Properties::read(&mut leader, &server.database, self.major).await;
            let renamed = || {
                let message = "it was renamed or dropped meanwhile";
                Error::new(ErrorKind::Source, "read the catalog", message).on(server.place())
            };
            (
                properties.map_err(failed())?.ok_or_else(renamed)?,
                catalog::sequences(&mut leader).await.map_err(failed())?,
                catalog::refreshes(&mut leader, true).await.map_err(failed())?,
                catalog::large_objects(&mut leader).await.map_err(failed())?,
                catalog::needs_of_keys(&mut leader).await.map_err(failed())?,
            )
        };
        let (schema, gone) = left_out(database, schema, tables).await?;
        let (sequences, refreshes) = (gone.kept(&sequences), gone.kept(&refreshes));
        let unwanted = rows.about(database, |pattern| {
            database.tables.iter().any(|table| exclude::matches(pattern, &table.display()))
        });
        let there = database.tables.iter().filter(|t| !gone.tables.contains(&t.display())).cloned();
        let (left_out, kept): (Vec<_>, Vec<_>) =
            there.partition(|table| unwanted.iter().any(|p| exclude::matches(p, &table.display())));
        for table in &left_out {
            let text = "its rows are left out, as configured";
            cx.note(Severity::Note, &self.component, database.server.shown(&table.display()), text);
        }
        for what in &gone.also {
            let text = "left out with a table that it needs";
            cx.note(Severity::Note, &self.component, database.server.shown(what), text);
        }
        let known = Known { properties, sequences, refreshes, large_objects, needs, kept, left_out, gone };
        Ok((known, schema))
    }

    /// An archive of pg_dump in the snapshot of the database. Not compressed: the archive it goes into is.
    pub(super) fn vendor(&self, database: &Database, what: &[&str], watch: &Watch) -> Content {
        let snapshot = format!("--snapshot={}", self.pool.snapshot(database.number));
        let wait = self.server.config.lock_timeout.unwrap_or(super::LOCK_TIMEOUT);
        let wait = format!("--lock-wait-timeout={wait}s");
        let common = ["--format=custom", "--compress=0", &*snapshot, &*wait];
        let dump = self.tools.dump(&database.server.database, &[&common[..], what].concat());
        vendor::archive(dump, watch.gave_way.clone())
    }
}

/// What is left out altogether, and the definitions without it; as they are, if nothing is asked to be.
async fn left_out(
    database: &Database,
    schema: Content,
    patterns: &mut Patterns,
) -> Result<(Content, LeftOut)> {
    if patterns.are_none() {
        return Ok((schema, LeftOut::default()));
    }
    let all = exclude::held(schema).await?;
    let items = toc::read(&all)?;
    let named = patterns.about(database, |pattern| exclude::names_any(pattern, &items));
    if named.is_empty() {
        return Ok((Content::whole(all), LeftOut::default()));
    }
    let gone = LeftOut::of(&named, &items)?;
    Ok((Content::whole(gone.filtered(&all)?), gone))
}
