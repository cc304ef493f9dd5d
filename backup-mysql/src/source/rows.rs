//! The rows of a table as lines of text: what `LOAD DATA` reads, and nothing is lost in.

use super::{
    ahead::Ahead,
    ranges::Ranges,
    readers::{Lease, Readers},
    side_by_side::read_side_by_side,
    subject,
};
use crate::{
    catalog::{Column, Form, Table, Version},
    client::RowSink,
    error::ClientError,
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

/// What is passed on at once.
const BATCH: usize = 192 << 10;
/// With the row that makes it full.
pub(super) const ROOM: usize = BATCH + (64 << 10);
/// Bytes of a text that are looked through together.
const LOOKED_AT_ONCE: usize = 32;
/// Bytes of a text that has something special somewhere which are passed over together if there is nothing among them.
const WRITTEN_AT_ONCE: usize = 256;
/// A server that sends nothing for so long has stopped.
const STANDSTILL: Duration = Duration::from_secs(15 * 60);

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
    /// Of the table, as the server estimates; 0: it is read as a whole.
    bytes: u64,
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
            bytes: if table.is_transactional() && !history { table.size } else { 0 },
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

    /// `only`: what goes after the name of the table.
    fn select(&self, only: &str) -> String {
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
            "SELECT /*!40001 SQL_NO_CACHE */ {columns} FROM {}{all} {only}",
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
        let subject = self.subject();
        let mut lease = readers.take().await.map_err(|e| e.on(&subject))?;
        let ranges = Ranges::of(lease.session()?, &self.database, &self.table, self.bytes, &self.version);
        let ranges = ranges.await.map_err(|e| self.failed(e))?;
        let rows = match ranges {
            None => self.read(&mut lease, "", Way::Feed(feed)).await?,
            Some(ranges) => read_side_by_side(Arc::new(self), ranges, lease, &readers, &feed).await?,
        };
        let count = Facts::new().with(subject, "rows", Fact::Count(rows));
        facts.lock().unwrap_or_else(PoisonError::into_inner).add_missing(count.clone());
        Ok(count)
    }

    /// Reads all rows, or those of a range; returns how many the server sent before it said that these were all.
    pub(super) async fn read(&self, lease: &mut Lease, only: &str, way: Way) -> Result<u64> {
        let how = self.columns.iter().map(Written::of).collect();
        let mut lines = Lines { batch: BytesMut::with_capacity(ROOM), how, way };
        let rows = lease.session()?.each_row(&self.select(only), STANDSTILL, &mut lines).await;
        let rows = rows.map_err(|e| self.failed(e))??;
        lines.pass_on().await?;
        Ok(rows)
    }

    fn subject(&self) -> String {
        subject(&self.database, &self.table)
    }

    pub(super) fn failed(&self, e: ClientError) -> Error {
        e.during(ErrorKind::Source, "read the rows").on(self.subject())
    }
}

/// Where lines go.
pub(super) enum Way {
    /// They are next.
    Feed(Feed),
    /// They are read ahead of others.
    Ahead(Ahead),
}

/// Rows become lines, and lines go on in batches.
struct Lines {
    batch: BytesMut,
    how: Vec<Written>,
    way: Way,
}

impl RowSink for Lines {
    fn take(&mut self, row: &Row) -> bool {
        write_row(&mut self.batch, row, &self.how);
        self.batch.len() >= BATCH
    }

    async fn pass_on(&mut self) -> Result<()> {
        let full = std::mem::replace(&mut self.batch, BytesMut::with_capacity(ROOM));
        if full.is_empty() {
            return Ok(());
        }
        match &self.way {
            Way::Feed(feed) => feed.send(full.freeze()).await,
            Way::Ahead(out) => out.send(full.freeze()).await,
        }
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

/// For each byte the letter after the backslash, if it would end a value or a line; else 0.
const LETTERS: [u8; 256] = {
    let mut letters = [0; 256];
    letters[b'\\' as usize] = b'\\';
    letters[b'\t' as usize] = b't';
    letters[b'\n' as usize] = b'n';
    letters[b'\r' as usize] = b'r';
    letters[0] = b'0';
    letters
};

/// Whether a byte is special. Most texts have none: without a branch for each byte the processor looks at many at once, but only
/// where their number is known beforehand.
fn has_special(bytes: &[u8]) -> bool {
    let special = |b: &u8| (*b == b'\\') | (*b == b'\t') | (*b == b'\n') | (*b == b'\r') | (*b == 0);
    let (many, rest) = bytes.as_chunks::<LOOKED_AT_ONCE>();
    many.iter().any(|some| some.iter().fold(false, |any, b| any | special(b)))
        || rest.iter().any(|b| LETTERS[usize::from(*b)] != 0)
}

fn escape(out: &mut BytesMut, bytes: &[u8]) {
    if !has_special(bytes) {
        return out.extend_from_slice(bytes);
    }
    for some in bytes.chunks(WRITTEN_AT_ONCE) {
        if !has_special(some) {
            out.extend_from_slice(some);
            continue;
        }
        let mut from = 0;
        for (i, b) in some.iter().enumerate() {
            let letter = LETTERS[usize::from(*b)];
            if letter == 0 {
                continue;
            }
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
        for at in [0, 1, LOOKED_AT_ONCE - 1, LOOKED_AT_ONCE, WRITTEN_AT_ONCE, 3 * WRITTEN_AT_ONCE + 7, 1029] {
            let mut long = vec![b'x'; 4 * WRITTEN_AT_ONCE + 6];
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
