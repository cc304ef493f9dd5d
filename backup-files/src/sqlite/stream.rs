//! From an open snapshot to bytes, in chunks.

use std::fs::File;

use rusqlite::Connection;

use super::error::{ReadError, SqliteError};
use super::overlay::Overlay;
use crate::system::read_at;

/// Bytes in a chunk, a multiple of every page size.
pub(super) const CHUNK: u32 = 512 * 1024;

/// Where chunks go.
pub(super) type Sink<'a, E> = &'a mut dyn FnMut(Vec<u8>) -> Result<(), E>;

pub(super) fn memory<E>(bytes: &[u8], sink: Sink<'_, E>) -> Result<(), ReadError<E>> {
    bytes.chunks(CHUNK as usize).try_for_each(|chunk| sink(chunk.to_vec()).map_err(ReadError::Sink))
}

pub(super) fn file<E>(file: &File, size: u64, sink: Sink<'_, E>) -> Result<(), ReadError<E>> {
    let mut offset = 0;
    while offset < size {
        let length = usize::try_from(size - offset).unwrap_or(usize::MAX).min(CHUNK as usize);
        let mut chunk = vec![0; length];
        if read_at(file, offset, &mut chunk).map_err(SqliteError::Io)? < length {
            return Err(SqliteError::Changed.into());
        }
        offset += length as u64;
        sink(chunk).map_err(ReadError::Sink)?;
    }
    Ok(())
}

pub(super) fn overlaid<E>(
    main: &File,
    second: &File,
    overlay: &Overlay,
    sink: Sink<'_, E>,
) -> Result<(), ReadError<E>> {
    let step = CHUNK / overlay.page_size;
    let mut first = 0;
    while first < overlay.pages {
        let count = step.min(overlay.pages - first);
        let chunk = overlay.read(main, second, first, count).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => SqliteError::Changed,
            _ => error.into(),
        })?;
        sink(chunk).map_err(ReadError::Sink)?;
        first += count;
    }
    Ok(())
}

/// Pages in order from `sqlite_dbpage`, inside the connection's read transaction.
pub(super) fn pages<E>(connection: &Connection, size: u64, sink: Sink<'_, E>) -> Result<(), ReadError<E>> {
    let failed = |error: rusqlite::Error| ReadError::Database(SqliteError::from(error));
    let mut statement = connection.prepare("SELECT data FROM sqlite_dbpage").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut delivered = 0;
    let mut chunk = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let value = row.get_ref(0).map_err(failed)?;
        let page = value.as_blob().map_err(|error| SqliteError::Sqlite(error.to_string()))?;
        if chunk.len() + page.len() > CHUNK as usize {
            delivered += chunk.len() as u64;
            sink(std::mem::take(&mut chunk)).map_err(ReadError::Sink)?;
        }
        if chunk.capacity() == 0 {
            chunk.reserve_exact(CHUNK as usize);
        }
        chunk.extend_from_slice(page);
    }
    delivered += chunk.len() as u64;
    if delivered != size {
        return Err(SqliteError::Sqlite(format!("{delivered} bytes of pages instead of {size}")).into());
    }
    if chunk.is_empty() { Ok(()) } else { sink(chunk).map_err(ReadError::Sink) }
}
