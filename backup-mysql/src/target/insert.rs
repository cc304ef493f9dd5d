//! Rows by `INSERT`, where the server takes no `LOAD DATA LOCAL`: slower, and needs no setting.

use super::sink::warned;
use crate::{
    client::{ANSWER, Session},
    error::{ClientError, DEADLOCK},
    quote::ident,
    stored::{Stored, StoredColumn},
};
use backup_core::{Content, Error};
use bytes::BytesMut;

/// What one statement may hold, unless a single row is longer.
const STATEMENT: usize = 768 << 10;

/// Why not all rows were inserted.
pub(super) enum NotInserted {
    Content(Error),
    Server(ClientError),
    /// The server took something else than was given.
    Bent(Error),
}

/// Inserts the lines of a content; returns the number of rows.
pub(super) async fn insert(
    session: &mut Session,
    table: &str,
    stored: &Stored,
    content: &mut Content,
) -> Result<u64, NotInserted> {
    let columns = &stored.columns;
    let names: Vec<String> = columns.iter().map(|c| ident(&c.name)).collect();
    let head = format!("INSERT INTO {table} ({}) VALUES ", names.join(", "));
    let (mut pending, mut statement, mut rows) = (BytesMut::new(), Vec::new(), 0);
    while let Some(bytes) = content.next().await.map_err(NotInserted::Content)? {
        pending.extend_from_slice(&bytes);
        while let Some(end) = pending.iter().position(|b| *b == b'\n') {
            let line = pending.split_to(end + 1);
            statement.extend_from_slice(if statement.is_empty() { head.as_bytes() } else { b"," });
            write_values(&mut statement, &line[..end], columns);
            if statement.len() >= STATEMENT {
                rows += send(session, &mut statement, stored).await?;
            }
        }
    }
    if !pending.is_empty() {
        let e = Error::damaged("read the rows", "the last line has no end");
        return Err(NotInserted::Content(e));
    }
    if !statement.is_empty() {
        rows += send(session, &mut statement, stored).await?;
    }
    Ok(rows)
}

async fn send(session: &mut Session, statement: &mut Vec<u8>, stored: &Stored) -> Result<u64, NotInserted> {
    let sql = String::from_utf8(std::mem::take(statement));
    let not_text = |_| ClientError::Server { code: 1300, message: "a text is not UTF-8".to_owned() };
    let sql = sql.map_err(not_text).map_err(NotInserted::Server)?;
    let mut tries = 0;
    let done = loop {
        tries += 1;
        match session.run_within(&sql, ANSWER * 5).await {
            Err(e) if e.code() == Some(DEADLOCK) && tries < 5 => {}
            other => break other.map_err(NotInserted::Server)?,
        }
    };
    if done.warnings > 0 {
        warned(session, stored).await.map_err(NotInserted::Bent)?;
    }
    Ok(done.affected)
}

fn write_values(out: &mut Vec<u8>, line: &[u8], columns: &[StoredColumn]) {
    out.push(b'(');
    for (i, field) in line.split(|b| *b == b'\t').enumerate() {
        if i > 0 {
            out.push(b',');
        }
        if field == b"\\N" {
            out.extend_from_slice(b"NULL");
        } else if columns.get(i).is_some_and(|c| c.base64) {
            out.extend_from_slice(b"FROM_BASE64('");
            out.extend_from_slice(field);
            out.extend_from_slice(b"')");
        } else {
            // The escapes of a line are those of a text between quotes; only the quote itself is none of a line.
            out.push(b'\'');
            for part in field.split_inclusive(|b| *b == b'\'') {
                out.extend_from_slice(part);
                if part.ends_with(b"'") {
                    out.push(b'\'');
                }
            }
            out.push(b'\'');
        }
    }
    out.push(b')');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_a_row_of_a_statement() {
        let column = |base64| StoredColumn { name: "c".into(), base64, automatic: false, labels: false };
        let mut out = Vec::new();
        write_values(
            &mut out,
            b"it's\\t\\\\\t\\N\t/wA=\t",
            &[column(false), column(false), column(true), column(false)],
        );
        assert_eq!(String::from_utf8(out).unwrap(), "('it''s\\t\\\\',NULL,FROM_BASE64('/wA='),'')");
    }
}
