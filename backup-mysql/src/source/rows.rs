//! The rows of a table as lines of text: what `LOAD DATA` reads, and nothing is lost in.

use super::subject;
use crate::{
    address::Endpoint,
    catalog::{Column, Form, Table, Version},
    client::{RowSink, Session, connect},
    quote::{ident, qualified},
    stored::{Object, Stored, StoredColumn},
};
use backup_core::{Error, ErrorKind, Fact, Facts, Feed, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::BytesMut;
use mysql_async::Value;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// What is passed on at once.
const BATCH: usize = 192 << 10;
/// With the row that makes it full.
const ROOM: usize = BATCH + (64 << 10);
/// A server that sends nothing for so long has stopped.
const STANDSTILL: Duration = Duration::from_secs(15 * 60);

/// The sessions with the snapshot; each reads one table at a time.
pub(super) struct Readers {
    idle: Mutex<Vec<Session>>,
    permits: Semaphore,
    endpoint: Endpoint,
}

impl Readers {
    pub(super) fn new(sessions: Vec<Session>, endpoint: Endpoint) -> Arc<Self> {
        let permits = Semaphore::new(sessions.len());
        Arc::new(Readers { idle: Mutex::new(sessions), permits, endpoint })
    }

    async fn take(&self) -> Result<Lease<'_>> {
        let permit = self.permits.acquire().await.map_err(|_| Error::cancelled())?;
        let session = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let lost =
            || Error::new(ErrorKind::Source, "read the rows", "every session with the snapshot is lost");
        Ok(Lease { readers: self, session: Some(session.ok_or_else(lost)?), _permit: permit })
    }

    /// Ends all sessions; the locks on the tables end with them.
    pub(super) async fn close(&self) {
        let sessions = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        futures::future::join_all(sessions.into_iter().map(Session::close)).await;
    }
}

/// A session for one table. One that is given up in the middle of it is ended on the server.
struct Lease<'a> {
    readers: &'a Readers,
    session: Option<Session>,
    _permit: SemaphorePermit<'a>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        if session.is_sound() {
            self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
            return;
        }
        let (endpoint, id) = (self.readers.endpoint.clone(), session.id());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The driver would read the rest of the table first.
            runtime.spawn(async move {
                if let Ok(mut other) = connect(&endpoint).await {
                    let _ = other.run(&format!("KILL {id}")).await;
                    other.close().await;
                }
                drop(session);
            });
        }
    }
}

/// Why the history of a table is not in the backup, if it has one.
pub(super) fn history_is_lost(table: &Table, version: &Version) -> Option<String> {
    let period = table.period.as_ref()?;
    if period.by_transaction {
        return Some("its history is not in the backup: it counts transactions of this server".to_owned());
    }
    let old = !version.mariadb_from(10, 11);
    old.then(|| "its history is not in the backup: only MariaDB 10.11 and newer can take it back".to_owned())
}

/// How the rows of a table are read and written.
pub(super) struct RowsOf {
    database: String,
    table: String,
    columns: Vec<Column>,
    history: bool,
    version: Version,
}

impl RowsOf {
    pub(super) fn new(database: &str, table: &Table, version: &Version) -> Self {
        let mut columns = table.columns.clone();
        let history = table.period.is_some() && history_is_lost(table, version).is_none();
        if let Some(period) = table.period.as_ref().filter(|_| history) {
            for name in [&period.start, &period.end] {
                let data_type = "timestamp".to_owned();
                let name = name.clone();
                columns.push(Column {
                    name,
                    data_type,
                    charset: None,
                    automatic: false,
                    sequence_default: None,
                });
            }
        }
        RowsOf {
            database: database.to_owned(),
            table: table.name.clone(),
            columns,
            history,
            version: version.clone(),
        }
    }

    pub(super) fn stored(&self) -> Stored {
        let mut stored = Stored::new(Object::Rows, &self.database, &self.table, &self.version);
        let columns = self.columns.iter().map(|c| StoredColumn {
            name: c.name.clone(),
            base64: c.form() == Form::Base64,
            automatic: c.automatic,
            labels: matches!(c.data_type.as_str(), "enum" | "set"),
        });
        stored.columns = columns.collect();
        stored.history = self.history;
        stored
    }

    fn select(&self) -> String {
        let columns = self.columns.iter().map(|c| {
            let name = ident(&c.name);
            match (c.form(), &c.charset) {
                // As a double it is written with all its digits; the sign of zero stays.
                (Form::Float, _) => format!("{name}*1e0"),
                (Form::Base64, Some(_)) => format!("CAST({name} AS BINARY)"),
                _ => name,
            }
        });
        let mut columns = columns.collect::<Vec<_>>().join(",");
        if columns.is_empty() {
            columns.push('1');
        }
        let all = if self.history { " FOR SYSTEM_TIME ALL" } else { "" };
        format!(
            "SELECT /*!40001 SQL_NO_CACHE */ {columns} FROM {}{all}",
            qualified(&self.database, &self.table)
        )
    }

    /// Feeds all rows. Its facts are the number of rows that the server sent before it said that these were all.
    pub(super) async fn pour(
        self,
        readers: Arc<Readers>,
        facts: Arc<Mutex<Facts>>,
        feed: Feed,
    ) -> Result<Facts> {
        let subject = subject(&self.database, &self.table);
        let mut lease = readers.take().await.map_err(|e| e.on(&subject))?;
        let Some(session) = lease.session.as_mut() else { return Err(Error::cancelled()) };
        let base64 = self.columns.iter().map(|c| c.form() == Form::Base64).collect();
        let mut lines = Lines { batch: BytesMut::with_capacity(ROOM), base64, feed };
        let rows = session.each_row(&self.select(), STANDSTILL, &mut lines).await;
        let rows = rows.map_err(|e| e.during(ErrorKind::Source, "read the rows").on(&subject))??;
        lines.pass_on().await?;
        let count = Facts::new().with(subject, "rows", Fact::Count(rows));
        facts.lock().unwrap_or_else(PoisonError::into_inner).add_missing(count.clone());
        Ok(count)
    }
}

/// Rows become lines, and lines go on in batches.
struct Lines {
    batch: BytesMut,
    base64: Vec<bool>,
    feed: Feed,
}

impl RowSink for Lines {
    fn take(&mut self, row: Vec<Value>) -> bool {
        write_row(&mut self.batch, row, &self.base64);
        self.batch.len() >= BATCH
    }

    async fn pass_on(&mut self) -> Result<()> {
        let full = std::mem::replace(&mut self.batch, BytesMut::with_capacity(ROOM));
        if full.is_empty() { Ok(()) } else { self.feed.send(full.freeze()).await }
    }
}

fn write_row(out: &mut BytesMut, row: Vec<Value>, base64: &[bool]) {
    for (i, value) in row.into_iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b"\t");
        }
        match value {
            Value::Bytes(bytes) if base64.get(i) == Some(&true) => {
                let start = out.len();
                let room = bytes.len().div_ceil(3) * 4;
                out.resize(start + room, 0);
                // There is room for exactly that.
                let _ = STANDARD.encode_slice(&bytes, &mut out[start..]);
            }
            Value::Bytes(bytes) => escape(out, &bytes),
            Value::NULL => out.extend_from_slice(b"\\N"),
            other => escape(out, other.as_sql(true).as_bytes()),
        }
    }
    out.extend_from_slice(b"\n");
}

fn escape(out: &mut BytesMut, bytes: &[u8]) {
    let mut from = 0;
    for (i, b) in bytes.iter().enumerate() {
        let letter = match b {
            b'\\' => b'\\',
            b'\t' => b't',
            b'\n' => b'n',
            b'\r' => b'r',
            0 => b'0',
            _ => continue,
        };
        out.extend_from_slice(&bytes[from..i]);
        out.extend_from_slice(&[b'\\', letter]);
        from = i + 1;
    }
    out.extend_from_slice(&bytes[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line_whatever_is_in_it() {
        let mut out = BytesMut::new();
        let row = vec![
            Value::Bytes(b"a\tb\\\n\r\0".to_vec()),
            Value::NULL,
            Value::Bytes(vec![]),
            Value::Bytes(vec![0xff, 0]),
            Value::Bytes(b"\\N".to_vec()),
        ];
        write_row(&mut out, row, &[false, false, false, true, false]);
        assert_eq!(&out[..], b"a\\tb\\\\\\n\\r\\0\t\\N\t\t/wA=\t\\\\N\n");
    }
}
