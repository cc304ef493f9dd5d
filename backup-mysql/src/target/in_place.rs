//! A restore in place: what is there is dropped before its shadow is filled. All else is as in any other restore, so that nobody sees a
//! database that is half restored.

use super::{journal::Journal, publish::Publisher, rehearse::drop_all, sink::ShadowSink};
use crate::{
    catalog::{Database, fields},
    client::{ANSWER, Session},
    definitions,
    error::ClientError,
    quote::{qualified, text, texts},
    stored::Object,
};
use backup_core::{Error, ErrorKind, Refusal, Result};
use std::sync::atomic::Ordering::Relaxed;

/// Key in the record of a restore: something of what was there may have been dropped.
const CLEARED: &str = "cleared";
/// So many tables are dropped by one statement.
const AT_ONCE: usize = 500;

impl ShadowSink {
    /// From now on what is there of a database is dropped as soon as something comes for it.
    pub(super) fn clear(&self) {
        self.clears.store(true, Relaxed);
    }

    /// Drops what is there of a database, if that was said.
    pub(super) async fn cleared(&self, control: &mut Session, database: &str) -> Result<()> {
        if !self.clears.load(Relaxed) {
            return Ok(());
        }
        let (place, version, cx) = (&self.place, &self.of.version, &self.cx);
        Publisher { place, version, session: control, cx }.clear(database).await
    }
}

impl Publisher<'_> {
    /// Drops all that is in a database. Events first, which would go on meanwhile; triggers go with their tables.
    async fn clear(&mut self, database: &str) -> Result<()> {
        if !self.database_exists(database).await? {
            return Ok(());
        }
        let all = definitions::list(self.session, database, self.version).await;
        let all = all.map_err(|e| e.with_kind(ErrorKind::Target))?;
        let (events, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|d| d.object == Object::Event);
        let (tables, sequences) = self.tables_and_sequences(database).await?;
        let marked = Journal::of(self.place).set(self.session, CLEARED, "1").await;
        marked.map_err(|e| self.failed(e, "write the record of the restore"))?;
        drop_all(self.session, database, &events).await?;
        for (what, names) in [("TABLE", tables), ("SEQUENCE", sequences)] {
            for some in names.chunks(AT_ONCE) {
                let some: Vec<String> = some.iter().map(|name| qualified(database, name)).collect();
                let sql = format!("DROP {what} IF EXISTS {}", some.join(", "));
                self.against_sessions(&sql, &[database], "drop what is there").await?;
            }
        }
        drop_all(self.session, database, &others).await
    }

    async fn tables_and_sequences(&mut self, database: &str) -> Result<(Vec<String>, Vec<String>)> {
        let sql = format!(
            "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_TYPE <> 'VIEW'",
            text(database)
        );
        let rows = self.session.rows(&sql).await.map_err(|e| self.failed(e, "list the tables"))?;
        let rows = rows.into_iter().map(fields::<2>);
        let (sequences, tables): (Vec<_>, Vec<_>) = rows.partition(|[_, kind]| kind == "SEQUENCE");
        let names = |rows: Vec<[String; 2]>| rows.into_iter().map(|[name, _]| name).collect();
        Ok((names(tables), names(sequences)))
    }

    /// An error if something of what was there may have been dropped.
    pub(super) async fn refuse_if_cleared(&mut self) -> Result<()> {
        let said = Journal::of(self.place).get(self.session, CLEARED).await;
        match said.map_err(|e| self.failed(e, "look at the restore"))? {
            None => Ok(()),
            Some(_) => {
                let message = "it is restored in place: what was there before was dropped";
                let e = Error::new(ErrorKind::Refused, "bring the old data back", message);
                Err(e.on(self.place.config.place()))
            }
        }
    }
}

/// What is not restored would be dropped with the rest.
pub(super) fn part() -> Refusal {
    let why = "a part is always restored beside what is there";
    Refusal::new(why, "leave --in-place or the part (--only) out")
}

/// How much room there is when these databases are gone, about.
pub(super) async fn size(
    session: &mut Session,
    names: &[String],
    databases: &[Database],
) -> Result<u64, ClientError> {
    let those = databases.iter().map(|d| &d.name).filter(|name| names.contains(name));
    let those = texts(those);
    if those.is_empty() {
        return Ok(0);
    }
    let sql = format!(
        "SELECT COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) FROM information_schema.TABLES WHERE TABLE_SCHEMA IN ({those})"
    );
    session.count_within(&sql, ANSWER).await
}
