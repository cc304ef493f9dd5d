//! What the vendor's program wrote, loaded by the vendor's client into the shadow, and then taken apart: tables stay, and views, routines
//! and triggers are kept in the record as those of any other restore.

use super::{binary_log, journal::Journal, rehearse::drop_all, sink::ShadowSink};
use crate::{
    catalog::{fields, list},
    ddl::{requalified, unqualified},
    definitions,
    error::ClientError,
    quote::{ident, text},
    stored::Stored,
    tools::{Program, Tool},
};
use backup_core::{Content, Error, ErrorKind, Facts, Result};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

impl ShadowSink {
    /// Loads a dump. `Ok(Err)`: the content failed, and nothing of it is in the shadow. The content comes back, read to its end.
    pub(super) async fn load_dump(
        &self,
        stored: &Stored,
        number: usize,
        content: Content,
    ) -> Result<std::result::Result<Content, Error>> {
        let tool = Tool::find(Program::Client, &self.server, &self.of.version, self.place.engine()).await?;
        let shadow = self.place.shadow(number);
        let (input, watched) = watch(content);
        let before = self.place.config.skip_binary_log.then_some(binary_log::SWITCH_OFF);
        let fed = tool.feed(&shadow, before, input).await;
        let watched = std::mem::take(&mut *watched.lock().unwrap_or_else(PoisonError::into_inner));
        match (watched, fed) {
            (Watched::Ended(content), Ok(())) => {
                self.take_apart(stored, number).await?;
                Ok(Ok(content))
            }
            (Watched::Failed(e), _) if e.kind() == ErrorKind::Cancelled => Err(e),
            (Watched::Failed(e), _) => {
                self.empty_shadow(number).await?;
                Ok(Err(e))
            }
            (_, Err(e)) if e.kind() == ErrorKind::Cancelled => Err(e),
            (_, Err(e)) => Err(e.with_kind(ErrorKind::Target).on(&stored.database)),
            (Watched::Reading, Ok(())) => {
                let message = "the client ended before it had read the whole dump";
                Err(Error::new(ErrorKind::Target, "load the dump", message).on(&stored.database))
            }
        }
    }

    async fn empty_shadow(&self, number: usize) -> Result<()> {
        let mut control = self.control.lock().await;
        let shadow = ident(&self.place.shadow(number));
        for sql in [format!("DROP DATABASE IF EXISTS {shadow}"), format!("CREATE DATABASE {shadow}")] {
            let done = control.run_within(&sql, crate::client::WORK).await;
            done.map_err(|e| self.failed(e, "empty the shadow again", ""))?;
        }
        Ok(())
    }

    /// Views, routines and triggers go from the shadow into the record; tables and sequences are those that are moved.
    async fn take_apart(&self, stored: &Stored, number: usize) -> Result<()> {
        let shadow = self.place.shadow(number);
        let mut control = self.control.lock().await;
        let failed = |e: ClientError| self.failed(e, "look at what was loaded", &stored.database);
        let found = definitions::list(&mut control, &shadow, &self.of.version).await;
        let found = found.map_err(|e| e.with_kind(ErrorKind::Target))?;
        for definition in &found {
            let statement = requalified(&definition.statement.clone()?, &shadow, &stored.database);
            let journal = Journal::of(&self.place);
            journal
                .write_definition(&mut control, false, number, definition, &statement)
                .await
                .map_err(failed)?;
        }
        drop_all(&mut control, &shadow, &found).await?;
        let config = crate::MysqlConfig::default();
        let listed = list(&mut control, Some(std::slice::from_ref(&shadow)), &config, &self.of.version).await;
        for table in listed.map_err(failed)?.iter().flat_map(|d| &d.tables) {
            for column in &table.columns {
                let Some(default) = &column.sequence_default else { continue };
                let default = unqualified(&unqualified(default, &shadow), &stored.database);
                let journal = Journal::of(&self.place);
                let kept =
                    journal.write_default(&mut control, number, &table.name, &column.name, &default).await;
                kept.map_err(failed)?;
            }
        }
        let sql = format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_TYPE <> 'VIEW'",
            text(&shadow)
        );
        let rows = control.rows(&sql).await.map_err(failed)?;
        let names: BTreeSet<String> = rows.into_iter().map(fields::<1>).map(|[name]| name).collect();
        drop(control);
        self.dumped(number, names, &stored.database).await
    }
}

/// How far the content of a dump was read.
#[derive(Default)]
enum Watched {
    #[default]
    Reading,
    Ended(Content),
    Failed(Error),
}

/// The same content for a program, which is told of a failure by another error: this one is for us.
fn watch(mut content: Content) -> (Content, Arc<Mutex<Watched>>) {
    let watched = Arc::new(Mutex::new(Watched::Reading));
    let seen = watched.clone();
    let input = Content::produce(move |feed| async move {
        let end = loop {
            match content.next().await {
                Ok(Some(bytes)) => feed.send(bytes).await?,
                Ok(None) => break Watched::Ended(content),
                Err(e) => break Watched::Failed(e),
            }
        };
        let failed = matches!(end, Watched::Failed(_));
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = end;
        if failed { Err(Error::cut()) } else { Ok(Facts::new()) }
    });
    (input, watched)
}
