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
use mysql_async::{Row, Value};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// What is passed on at once.
const BATCH: usize = 192 << 10;
/// With the row that makes it full.
const ROOM: usize = BATCH + (64 << 10);
/// Bytes of a text that are looked through together.
const LOOKED_AT_ONCE: usize = 256;
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
        let how = self.columns.iter().map(Written::of).collect();
        let mut lines = Lines { batch: BytesMut::with_capacity(ROOM), how, feed };
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
    how: Vec<Written>,
    feed: Feed,
}

impl RowSink for Lines {
    fn take(&mut self, row: &Row) -> bool {
        write_row(&mut self.batch, row, &self.how);
        self.batch.len() >= BATCH
    }

    async fn pass_on(&mut self) -> Result<()> {
        let full = std::mem::replace(&mut self.batch, BytesMut::with_capacity(ROOM));
        if full.is_empty() { Ok(()) } else { self.feed.send(full.freeze()).await }
    }
}

/// How a value goes into a line.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Written {
    /// Digits and signs, of which none is special.
    AsItIs,
    Escaped,
    Base64,
}

impl Written {
    fn of(column: &Column) -> Self {
        match (column.form(), column.data_type.as_str()) {
            (Form::Base64, _) => Written::Base64,
            (
                Form::Text,
                "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "double" | "date"
                | "datetime" | "timestamp" | "time" | "year",
            ) => Written::AsItIs,
            _ => Written::Escaped,
        }
    }
}

fn write_row(out: &mut BytesMut, row: &Row, how: &[Written]) {
    for i in 0..row.len() {
        if i > 0 {
            out.extend_from_slice(b"\t");
        }
        let how = how.get(i).copied().unwrap_or(Written::Escaped);
        match row.as_ref(i) {
            Some(Value::Bytes(bytes)) => write_value(out, bytes, how),
            Some(Value::NULL) | None => out.extend_from_slice(b"\\N"),
            Some(other) => write_value(out, other.as_sql(true).as_bytes(), Written::Escaped),
        }
    }
    out.extend_from_slice(b"\n");
}

fn write_value(out: &mut BytesMut, bytes: &[u8], how: Written) {
    match how {
        Written::AsItIs => out.extend_from_slice(bytes),
        Written::Escaped => escape(out, bytes),
        Written::Base64 => {
            let start = out.len();
            let room = bytes.len().div_ceil(3) * 4;
            out.resize(start + room, 0);
            // There is room for exactly that.
            let _ = STANDARD.encode_slice(bytes, &mut out[start..]);
        }
    }
}

/// The letter after the backslash of what would end a value or a line.
fn letter(b: u8) -> Option<u8> {
    Some(match b {
        b'\\' => b'\\',
        b'\t' => b't',
        b'\n' => b'n',
        b'\r' => b'r',
        0 => b'0',
        _ => return None,
    })
}

fn escape(out: &mut BytesMut, bytes: &[u8]) {
    // Most have nothing special: without a branch for each byte the processor looks at many at once.
    let special = |b: &u8| (*b == b'\\') | (*b == b'\t') | (*b == b'\n') | (*b == b'\r') | (*b == 0);
    for some in bytes.chunks(LOOKED_AT_ONCE) {
        if !some.iter().fold(false, |any, b| any | special(b)) {
            out.extend_from_slice(some);
            continue;
        }
        let mut from = 0;
        for (i, b) in some.iter().enumerate() {
            let Some(letter) = letter(*b) else { continue };
            out.extend_from_slice(&some[from..i]);
            out.extend_from_slice(&[b'\\', letter]);
            from = i + 1;
        }
        out.extend_from_slice(&some[from..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: &[u8], how: Written) -> Vec<u8> {
        let mut out = BytesMut::new();
        write_value(&mut out, bytes, how);
        out.to_vec()
    }

    #[test]
    fn a_value_holds_no_end_of_a_value_or_a_line() {
        assert_eq!(line(b"a\tb\\\n\r\0", Written::Escaped), b"a\\tb\\\\\\n\\r\\0");
        assert_eq!(line(b"", Written::Escaped), b"");
        assert_eq!(line(&[0xff, 0], Written::Base64), b"/wA=");
        assert_eq!(line(b"\\N", Written::Escaped), b"\\\\N", "a text is never NULL");
        assert_eq!(line(b"-1.50", Written::AsItIs), b"-1.50");
    }

    #[test]
    fn what_is_special_is_found_wherever_it_stands() {
        for at in [0, 1, LOOKED_AT_ONCE - 1, LOOKED_AT_ONCE, 3 * LOOKED_AT_ONCE + 7] {
            let mut long = vec![b'x'; 4 * LOOKED_AT_ONCE];
            long[at] = b'\n';
            let mut expected = long.clone();
            expected.splice(at..=at, *b"\\n");
            assert_eq!(line(&long, Written::Escaped), expected, "at {at}");
        }
    }

    #[test]
    fn only_columns_of_digits_are_written_as_they_are() {
        let how = |data_type: &str, charset: Option<&str>| {
            Written::of(&Column {
                name: "c".into(),
                data_type: data_type.into(),
                charset: charset.map(str::to_owned),
                automatic: false,
                sequence_default: None,
            })
        };
        assert_eq!(how("bigint", None), Written::AsItIs);
        assert_eq!(how("datetime", None), Written::AsItIs);
        assert_eq!(how("blob", None), Written::Base64);
        for (data_type, charset) in
            [("varchar", Some("utf8mb4")), ("enum", Some("latin1")), ("json", None), ("uuid", None)]
        {
            assert_eq!(how(data_type, charset), Written::Escaped, "{data_type}");
        }
    }
}
