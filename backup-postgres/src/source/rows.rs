//! Rows: which pieces of which tables are read, and by whom.

use super::{
    database::Database,
    pool::{Pool, Taken},
    watch::{GaveWay, Watch},
};
use crate::{
    catalog::{Format, Table},
    client::{ClientError, Session},
    error, layout,
    quote::qualified,
};
use backup_core::{Content, Context, Entry, Error, ErrorKind, Fact, Facts, Feed, Result, Sink, put_stage};
use futures::{Stream, StreamExt, stream};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// A table above this is cut into pieces of this, which flow side by side. Most are no longer than a segment of the archive: one that
/// is longer is hashed twice, by segments and as a whole (1 GB: 5.5 and 4.8 s of this process's time).
const PIECE: u64 = 3 << 20;
/// About so many pieces are of one component, and else they are longer: each has a line in the index and a count in the manifest.
const MOST_PIECES: u64 = 20_000;
/// Before this version a range of row positions is no quick way into a table.
const RANGES_SINCE: u32 = 14;

/// A piece of a table.
#[derive(Clone)]
pub(super) struct Piece {
    table: Arc<Table>,
    number: usize,
    /// How many the table has.
    of: usize,
    pages: Option<(u64, Option<u64>)>,
}

/// What is put.
pub(super) type Items = Vec<Result<(Entry, Content)>>;

/// Rows of all databases, one database after another, and what else is data: `beside` is put at the same time. What comes `before` is put
/// while the first rows are read. Both are read by a tool that is promised one session: one after another. Returns how many rows were counted.
pub(super) async fn pour(
    sink: &Arc<dyn Sink>,
    (before, pieces, beside): (Items, Vec<(Arc<Database>, Piece)>, Items),
    pool: &Arc<Pool>,
    watch: &Watch,
) -> Result<Facts> {
    let (cx, gave_way) = (&watch.cx, &watch.gave_way);
    let counted: Arc<Mutex<Facts>> = Arc::default();
    // Tables for which somebody waits with a stronger lock: only the leader, which has its lock, can read them.
    let contended: Arc<Mutex<Vec<_>>> = Arc::default();
    let rows = stream::iter(pieces).then(|(database, piece)| {
        let (counted, contended) = (counted.clone(), contended.clone());
        async move {
            let is_contended = |(other, seen): &(Arc<Database>, Piece)| {
                (other.number, seen.table.oid) == (database.number, piece.table.oid)
            };
            {
                let mut contended = contended.lock().unwrap_or_else(PoisonError::into_inner);
                if contended.iter().any(is_contended) {
                    contended.push((database, piece));
                    return Ok(None);
                }
            }
            let failed = error::source("read the table", &database.server);
            let mut taken = pool.take(database.number).await.map_err(failed)?;
            match lock_at_once(&mut taken, &piece.table).await {
                Ok(()) => Ok(Some(content(&database, piece, From::Worker(taken), counted, gave_way.clone()))),
                Err(e) if e.code() == Some("55P03") => {
                    taken.spoil();
                    contended.lock().unwrap_or_else(PoisonError::into_inner).push((database, piece));
                    Ok(None)
                }
                Err(e) => {
                    taken.spoil();
                    let failed = error::source("read the table", &database.server);
                    Err(failed(e).on(database.server.shown(&piece.table.display())))
                }
            }
        }
    });
    let mut rows = std::pin::pin!(rows.filter_map(|item| std::future::ready(item.transpose())));
    let mut one = cx.clone();
    one.tasks = 1;
    let first = match before.is_empty() {
        true => Vec::new(),
        false => begun(&mut rows, pool.sessions(), cx).await?,
    };
    put_stage(sink, &one, stream::iter(before)).await?;
    let rows = stream::iter(first).chain(rows);
    let (put, put_beside) =
        tokio::join!(put_stage(sink, cx, rows), put_stage(sink, &one, stream::iter(beside)));
    put.and(put_beside)?;
    let left = std::mem::take(&mut *contended.lock().unwrap_or_else(PoisonError::into_inner));
    for (database, piece) in left {
        let from = From::Leader(database.leader.clone());
        let item = content(&database, piece, from, counted.clone(), gave_way.clone());
        put_stage(sink, cx, stream::iter([Ok(item)])).await?;
    }
    let counted = std::mem::take(&mut *counted.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(counted)
}

/// The first pieces, one for each session, each of which is read from now on as far as there is room for it on its way.
async fn begun(
    rows: &mut (impl Stream<Item = Result<(Entry, Content)>> + Unpin),
    sessions: usize,
    cx: &Context,
) -> Result<Items> {
    let mut begun = Vec::new();
    while begun.len() < sessions {
        let next = tokio::select! {
            next = rows.next() => next.transpose()?,
            () = cx.cancel.cancelled() => return Err(Error::cancelled()),
        };
        let Some((entry, content)) = next else { break };
        begun.push(Ok((entry, content.begun())));
    }
    Ok(begun)
}

/// Its session keeps the lock as long as its transaction lasts.
async fn lock_at_once(taken: &mut Taken, table: &Table) -> Result<(), ClientError> {
    if taken.has_locked(table.oid) {
        return Ok(());
    }
    let name = qualified_in_ascii(table);
    let sql = format!("LOCK TABLE ONLY {name} IN ACCESS SHARE MODE NOWAIT");
    taken.session()?.query(&sql).await?;
    taken.locked(table.oid);
    Ok(())
}

fn qualified_in_ascii(table: &Table) -> String {
    use crate::quote::ident_in_ascii;
    format!("{}.{}", ident_in_ascii(&table.schema), ident_in_ascii(&table.name))
}

enum From {
    Worker(Taken),
    Leader(Arc<tokio::sync::Mutex<Session>>),
}

fn content(
    database: &Database,
    piece: Piece,
    from: From,
    counted: Arc<Mutex<Facts>>,
    gave_way: GaveWay,
) -> (Entry, Content) {
    let entry = layout::rows_entry(&piece.table, piece.number, piece.of);
    let (folder, shown) = (database.folder.clone(), database.server.shown(&piece.table.display()));
    let content = Content::produce(move |feed| async move {
        let rows = match from {
            From::Worker(mut taken) => {
                let copied = match taken.session() {
                    Ok(session) => copy(session, &piece, &feed, &gave_way).await,
                    Err(e) => Err(e),
                };
                if copied.is_err() {
                    taken.spoil();
                }
                copied
            }
            From::Leader(leader) => copy(&mut *leader.lock().await, &piece, &feed, &gave_way).await,
        };
        let table = &piece.table;
        let rows = rows.map_err(|e| e.during(ErrorKind::Source, "read the table").on(shown))?;
        let (subject, measure) =
            layout::rows_fact(&table.schema, &table.name, &layout::rows_path(table, piece.number));
        let facts = Facts::new().with(subject, measure, Fact::Count(rows));
        let facts = layout::facts_in(folder.as_deref(), facts);
        counted.lock().unwrap_or_else(PoisonError::into_inner).add_missing(facts.clone());
        Ok(facts)
    });
    database.placed((entry, content))
}

async fn copy(
    session: &mut Session,
    piece: &Piece,
    feed: &Feed,
    gave_way: &GaveWay,
) -> Result<u64, ClientError> {
    let binary = piece.table.format == Format::Binary;
    let mut copy = session.copy_out(&piece.table.copy_out(piece.pages), binary).await?;
    while let Some(bytes) = copy.next().await? {
        feed.send(bytes).await.map_err(ClientError::Content)?;
        if let Some(e) = gave_way.why() {
            return Err(ClientError::Content(e));
        }
    }
    Ok(copy.rows())
}

/// First the tables whose indexes take longest to build: a restore begins with them. Then the largest, so that none is left alone at
/// the end. Neighbours are of different tables where that can be: rows that two sessions load into one table lie in no order.
///
/// A piece has about so many bytes.
pub(super) fn pieces(mut tables: Vec<Table>, piece: u64, major: u32) -> Vec<Piece> {
    tables.sort_by_key(|table| std::cmp::Reverse((table.work, table.bytes)));
    let queues = tables.into_iter().map(|table| pieces_of(Arc::new(table), piece, major));
    let mut queues: VecDeque<_> = queues.collect();
    let mut out = Vec::new();
    while let Some(mut first) = queues.pop_front() {
        out.extend(first.pop_front());
        if first.is_empty() {
            continue;
        }
        if let Some(second) = queues.front_mut() {
            out.extend(second.pop_front());
            if second.is_empty() {
                queues.pop_front();
            }
        }
        queues.push_front(first);
    }
    out
}

/// How long a piece is of tables that have so many bytes together.
pub(super) fn piece_of(all: u64) -> u64 {
    PIECE.max(all / MOST_PIECES)
}

fn pieces_of(table: Arc<Table>, piece: u64, major: u32) -> VecDeque<Piece> {
    let count =
        if major < RANGES_SINCE { 1 } else { table.bytes.div_ceil(piece).clamp(1, table.pages.max(1)) };
    let step = table.pages.div_ceil(count).max(1);
    let mut out: VecDeque<_> = (0..count)
        .map(|number| (number as usize, number * step))
        .take_while(|(number, from)| *number == 0 || *from < table.pages)
        .map(|(number, from)| {
            // The last piece has no end: what is beyond came later, and is not seen.
            let to = (from + step < table.pages).then_some(from + step);
            let pages = (count > 1).then_some((from, to));
            Piece { table: table.clone(), number, of: 0, pages }
        })
        .collect();
    let of = out.len();
    out.iter_mut().for_each(|piece| piece.of = of);
    out
}

/// For people who restore by hand: psql reads the files that lie beside this one.
pub(super) fn load_script(pieces: &[Piece], encoding: &str) -> String {
    let mut out = format!(
        "-- Loads all rows. To be run by psql in the folder above this file, between the sections of schema.dump.\n\
         \\set ON_ERROR_STOP on\n\\encoding {encoding}\n"
    );
    let mut pieces: Vec<_> = pieces.iter().collect();
    pieces.sort_by_key(|p| (p.table.qualified(), p.number));
    for piece in pieces {
        let table = &piece.table;
        let columns: Vec<String> = table.columns.iter().map(|c| crate::quote::ident(c)).collect();
        let list = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
        let how = if table.format == Format::Binary { " WITH (FORMAT binary)" } else { "" };
        let (name, path) = (qualified(&table.schema, &table.name), layout::rows_path(table, piece.number));
        out.push_str(&format!("\\copy {name}{list} FROM '{path}'{how}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(bytes: u64, pages: u64) -> Table {
        Table {
            oid: 1,
            schema: "s".into(),
            name: format!("t{bytes}"),
            columns: vec!["a".into()],
            format: Format::Binary,
            pages,
            bytes,
            condition: None,
            of_extension: false,
            keys: vec![],
            indexes: vec![],
            work: 0,
            has_expressions: false,
            denied: None,
        }
    }

    #[test]
    fn pieces_cover_every_page_once_and_the_last_has_no_end() {
        for (bytes, pages) in [(0, 0), (8192, 1), (PIECE, 8192), (PIECE * 3 + 1, 24577), (PIECE * 50, 3)] {
            let pieces = pieces(vec![table(bytes, pages)], PIECE, 17);
            if pieces.len() == 1 {
                assert_eq!(pieces[0].pages, None);
                continue;
            }
            let mut ranges: Vec<_> = pieces.iter().filter_map(|p| p.pages).collect();
            ranges.sort_unstable();
            assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (0, None));
            assert!(ranges.windows(2).all(|w| w[0].1 == Some(w[1].0)), "{ranges:?}");
            assert!(pieces.iter().all(|p| p.of == pieces.len()));
        }
        assert_eq!(pieces(vec![table(PIECE * 3, 100_000)], PIECE, 13).len(), 1);
    }

    #[test]
    fn a_large_database_has_no_more_pieces_than_a_manifest_holds() {
        assert_eq!(piece_of(1 << 30), PIECE);
        let tables: Vec<_> = (0..300).map(|i| table((4 << 30) + i, 4 << 17)).collect();
        let all: u64 = tables.iter().map(|t| t.bytes).sum();
        let count = pieces(tables, piece_of(all), 17).len() as u64;
        assert!((MOST_PIECES / 2..=MOST_PIECES + 300).contains(&count), "{count}");
    }

    #[test]
    fn what_takes_longest_to_restore_comes_first_and_neighbours_are_of_different_tables() {
        let indexed = Table { work: 1, ..table(1, 1) };
        let all = pieces(vec![table(PIECE * 2, 100), table(8, 1), indexed, table(PIECE * 3, 100)], PIECE, 17);
        let names: Vec<_> = all.iter().map(|p| (p.table.bytes, p.number)).collect();
        let (three, two) = (PIECE * 3, PIECE * 2);
        assert_eq!(names, [(1, 0), (three, 0), (two, 0), (three, 1), (two, 1), (three, 2), (8, 0)]);
    }
}
