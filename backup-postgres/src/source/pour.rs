//! Pours a database: definitions, rows in parallel, then what comes after them.

use super::{
    exclude::{self, LeftOut},
    pool::{Pool, Taken},
    vendor,
    watch::{GaveWay, Watch},
};
use crate::{
    Method,
    catalog::{self, Format, Table},
    client::{ClientError, Session},
    error,
    globals::Globals,
    layout,
    properties::Properties,
    quote::qualified,
    server::Server,
    toc,
    tools::Tools,
};
use async_trait::async_trait;
use backup_core::{
    Content, Context, EXCLUDED, Entry, Error, ErrorKind, Fact, Facts, Feed, Moment, Result, Severity, Sink,
    Stage, View, put_stage,
};
use futures::{StreamExt, stream};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// A table above this is cut into pieces of this, which flow side by side.
const PIECE: u64 = 64 << 20;
/// Before this version a range of row positions is no quick way into a table.
const RANGES_SINCE: u32 = 14;

/// A database at one moment. Dropping it closes its sessions, and with them goes all that they hold.
pub(super) struct PostgresView {
    pub(super) component: String,
    pub(super) server: Server,
    pub(super) tools: Tools,
    pub(super) major: u32,
    /// Holds the locks and the snapshot.
    pub(super) leader: Arc<tokio::sync::Mutex<Session>>,
    pub(super) pool: Arc<Pool>,
    pub(super) fell_back: Option<String>,
    pub(super) tables: Vec<Table>,
    pub(super) moment: Moment,
    pub(super) position: String,
}

#[async_trait]
impl View for PostgresView {
    fn moment(&self) -> Moment {
        self.moment
    }

    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
        let watch = Watch::begin(&self.server, self.major, &self.component, cx);
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

/// A piece of a table.
#[derive(Clone)]
struct Piece {
    table: Arc<Table>,
    number: usize,
    /// How many the table has.
    of: usize,
    pages: Option<(u64, Option<u64>)>,
}

impl PostgresView {
    async fn pour_all(&self, sink: &Arc<dyn Sink>, watch: &Watch) -> Result<Facts> {
        let cx = &watch.cx;
        let gave_way = &watch.gave_way;
        let failed = || error::source("read the catalog", &self.server);
        let excluded = Excluded::new(&self.server.config.exclude_table_data);
        let (properties, sequences, refreshes, large_objects) = {
            let mut leader = self.leader.lock().await;
            for text in catalog::not_captured(&mut leader).await.map_err(failed())? {
                cx.note(Severity::Note, &self.component, "", format!("not included: {text}"));
            }
            let properties = Properties::read(&mut leader, &self.server.database, self.major).await;
            let renamed = || {
                let message = "it was renamed or dropped meanwhile";
                Error::new(ErrorKind::Source, "read the catalog", message).on(self.server.place())
            };
            (
                properties.map_err(failed())?.ok_or_else(renamed)?,
                catalog::sequences(&mut leader).await.map_err(failed())?,
                catalog::refreshes(&mut leader, true).await.map_err(failed())?,
                catalog::large_objects(&mut leader).await.map_err(failed())?,
            )
        };
        let (schema, gone) = self.left_out(gave_way).await?;
        let there: Vec<Table> =
            self.tables.iter().filter(|t| !gone.tables.contains(&t.display())).cloned().collect();
        let (sequences, refreshes) = (gone.kept(&sequences), gone.kept(&refreshes));
        let (kept, left_out): (Vec<_>, Vec<_>) = there.into_iter().partition(|t| !excluded.has(t));
        for table in &left_out {
            cx.note(Severity::Note, &self.component, table.display(), "its rows are left out, as configured");
        }
        excluded.all_matched(&self.tables)?;

        let config = &self.server.config;
        let named = config.exclude_tables.iter().chain(&config.exclude_table_data).chain(&gone.also);
        let named: Vec<&str> = named.map(String::as_str).collect();
        for what in &gone.also {
            let text = "left out with a table that it needs";
            cx.note(Severity::Note, &self.component, what.clone(), text);
        }
        let mut facts = Facts::new()
            .with("server", "version", Fact::Note(format!("PostgreSQL {}", self.major)))
            .with("server", "position", Fact::Note(self.position.clone()))
            .with("server", "reached", Fact::Note(self.server.rung.clone()))
            .with("database", "method", Fact::Note(self.method()))
            .with("database", "properties", Fact::Digest(properties.digest()?))
            .with("large objects", "count", Fact::Count(large_objects));
        if !named.is_empty() {
            facts.insert("all", EXCLUDED, Fact::Note(named.join(", ")));
        }
        let globals = match self.server.config.globals {
            Some(true) => {
                let mut leader = self.leader.lock().await;
                let failed = error::source("read roles and tablespaces", &self.server);
                let globals = Globals::read(&mut leader, self.major).await.map_err(failed)?;
                facts.add_missing(globals.facts.clone());
                for text in &globals.left_out {
                    cx.note(Severity::Warning, &self.component, "roles and tablespaces", text.clone());
                }
                let (entry, text) = globals.into_entry();
                Some(Ok((entry, Content::whole(text))))
            }
            _ => None,
        };
        let has_globals = globals.is_some();
        if self.server.config.method == Some(Method::Dump) || self.fell_back.is_some() {
            facts.add_missing(
                self.pour_dump(sink, (&properties, globals), (&kept, &left_out, &gone), watch).await?,
            );
            return Ok(facts);
        }
        let json = properties.to_json()?;
        let schema = schema.unwrap_or_else(|| self.vendor(&["--schema-only"], gave_way));
        let mut prepare = vec![
            Ok(whole(layout::PROPERTIES, Stage::Prepare, json)),
            Ok((Entry::file(layout::SCHEMA, Stage::Prepare), schema)),
        ];
        prepare.extend(globals);
        put_stage(sink, cx, stream::iter(prepare)).await?;

        let pieces = pieces(kept, self.major);
        let load = load_script(&pieces, &properties.encoding);
        let rows = self.pour_rows(sink, pieces, large_objects > 0, watch).await?;
        facts.add_missing(rows);

        let guide = super::guide::text(&self.server.database, &properties, large_objects > 0, has_globals);
        let complete = [
            Ok(whole(layout::GUIDE, Stage::Complete, guide)),
            Ok(whole(layout::LOAD, Stage::Complete, load)),
            Ok(whole(layout::REFRESH, Stage::Complete, refreshes)),
            Ok(whole(layout::SEQUENCES, Stage::Complete, sequences)),
        ];
        put_stage(sink, cx, stream::iter(complete)).await?;
        Ok(facts)
    }

    /// What is left out altogether, and the definitions without it; `None`: nothing is.
    async fn left_out(&self, gave_way: &GaveWay) -> Result<(Option<Content>, LeftOut)> {
        let patterns = &self.server.config.exclude_tables;
        if patterns.is_empty() {
            return Ok((None, LeftOut::default()));
        }
        let all = exclude::held(self.vendor(&["--schema-only"], gave_way)).await?;
        let gone = LeftOut::of(patterns, &toc::read(&all)?)?;
        Ok((Some(Content::whole(gone.filtered(&all)?)), gone))
    }

    /// An archive of pg_dump in our snapshot. Not compressed: the archive it goes into is.
    pub(super) fn vendor(&self, what: &[&str], gave_way: &GaveWay) -> Content {
        let snapshot = format!("--snapshot={}", self.pool.snapshot());
        let wait = self.server.config.lock_timeout.unwrap_or(super::LOCK_TIMEOUT);
        let wait = format!("--lock-wait-timeout={wait}s");
        let common = ["--format=custom", "--compress=0", &*snapshot, &*wait];
        let dump = self.tools.dump(&self.server.database, &[&common[..], what].concat());
        vendor::archive(dump, gave_way.clone())
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

    async fn pour_rows(
        &self,
        sink: &Arc<dyn Sink>,
        pieces: Vec<Piece>,
        large_objects: bool,
        watch: &Watch,
    ) -> Result<Facts> {
        let (cx, gave_way) = (&watch.cx, &watch.gave_way);
        let counted: Arc<Mutex<Facts>> = Arc::default();
        // Tables for which somebody waits with a stronger lock: only the leader, which has its lock, can read them.
        let contended: Arc<Mutex<VecDeque<Piece>>> = Arc::default();
        let large = large_objects.then(|| {
            // Named and left out again: then there is something chosen, and it is nothing but the large objects.
            const NOTHING: &str = "pg_catalog.pg_largeobject_metadata";
            let only = ["--blobs", "--table", NOTHING, "--exclude-table", NOTHING];
            Ok((Entry::file(layout::LARGE_OBJECTS, Stage::Data), self.vendor(&only, gave_way)))
        });
        let rows = stream::iter(pieces).then(|piece| {
            let (counted, contended) = (counted.clone(), contended.clone());
            async move {
                let failed = error::source("read the table", &self.server);
                let mut taken = self.pool.take().await.map_err(failed)?;
                match lock_at_once(&mut taken, &piece.table).await {
                    Ok(()) => Ok(Some(content(piece, From::Worker(taken), counted, gave_way.clone()))),
                    Err(e) if e.code() == Some("55P03") => {
                        taken.spoil();
                        contended.lock().unwrap_or_else(PoisonError::into_inner).push_back(piece);
                        Ok(None)
                    }
                    Err(e) => {
                        taken.spoil();
                        Err(error::source("read the table", &self.server)(e).on(piece.table.display()))
                    }
                }
            }
        });
        let rows = rows.filter_map(|item| std::future::ready(item.transpose()));
        put_stage(sink, cx, stream::iter(large).chain(rows)).await?;
        let left = std::mem::take(&mut *contended.lock().unwrap_or_else(PoisonError::into_inner));
        for piece in left {
            let item = content(piece, From::Leader(self.leader.clone()), counted.clone(), gave_way.clone());
            put_stage(sink, cx, stream::iter([Ok(item)])).await?;
        }
        let counted = std::mem::take(&mut *counted.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(counted)
    }

    /// Ends all sessions, those of pg_dump too, should one be left.
    async fn give_back(&self) {
        self.pool.close().await;
        let name = crate::quote::literal(&self.server.endpoint.application);
        let mut leader = self.leader.lock().await;
        if leader.is_clean() {
            let others = format!(
                "ROLLBACK; SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
                 WHERE application_name = {name} AND pid <> pg_catalog.pg_backend_pid()"
            );
            // A server that is gone holds nothing for us.
            let _ = leader.query(&others).await;
        }
        leader.goodbye().await;
    }
}

async fn lock_at_once(taken: &mut Taken, table: &Table) -> Result<(), ClientError> {
    let name = qualified_in_ascii(table);
    let sql = format!("LOCK TABLE ONLY {name} IN ACCESS SHARE MODE NOWAIT");
    taken.session()?.query(&sql).await.map(drop)
}

fn qualified_in_ascii(table: &Table) -> String {
    use crate::quote::ident_in_ascii;
    format!("{}.{}", ident_in_ascii(&table.schema), ident_in_ascii(&table.name))
}

enum From {
    Worker(Taken),
    Leader(Arc<tokio::sync::Mutex<Session>>),
}

fn content(piece: Piece, from: From, counted: Arc<Mutex<Facts>>, gave_way: GaveWay) -> (Entry, Content) {
    let entry = layout::rows_entry(&piece.table, piece.number, piece.of);
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
        let rows = rows.map_err(|e| e.during(ErrorKind::Source, "read the table").on(table.display()))?;
        let (subject, measure) =
            layout::rows_fact(&table.schema, &table.name, &layout::rows_path(table, piece.number));
        let facts = Facts::new().with(subject, measure, Fact::Count(rows));
        counted.lock().unwrap_or_else(PoisonError::into_inner).add_missing(facts.clone());
        Ok(facts)
    });
    (entry, content)
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
fn pieces(mut tables: Vec<Table>, major: u32) -> Vec<Piece> {
    tables.sort_by_key(|table| std::cmp::Reverse((table.work, table.bytes)));
    let mut queues: VecDeque<_> = tables.into_iter().map(|table| pieces_of(Arc::new(table), major)).collect();
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

fn pieces_of(table: Arc<Table>, major: u32) -> VecDeque<Piece> {
    let count =
        if major < RANGES_SINCE { 1 } else { table.bytes.div_ceil(PIECE).clamp(1, table.pages.max(1)) };
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
fn load_script(pieces: &[Piece], encoding: &str) -> String {
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

pub(super) fn whole(path: &'static str, stage: Stage, bytes: impl Into<bytes::Bytes>) -> (Entry, Content) {
    let bytes = bytes.into();
    (Entry::file(path, stage).sized(bytes.len() as u64), Content::whole(bytes))
}

/// Tables whose rows are not wanted.
struct Excluded<'a> {
    patterns: &'a [String],
}

impl<'a> Excluded<'a> {
    fn new(patterns: &'a [String]) -> Self {
        Excluded { patterns }
    }

    fn has(&self, table: &Table) -> bool {
        self.patterns.iter().any(|pattern| matches(pattern, &table.display()))
    }

    fn all_matched(&self, tables: &[Table]) -> Result<()> {
        let idle = self.patterns.iter().find(|p| !tables.iter().any(|t| matches(p, &t.display())));
        idle.map_or(Ok(()), |pattern| {
            let message = "no table matches this pattern of exclude_table_data";
            Err(Error::new(ErrorKind::NotFound, "leave out the rows", message).on(pattern))
        })
    }
}

/// `*` stands for any characters.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices().map(|(i, _)| i).chain([rest.len()]).any(|i| matches(tail, &rest[i..]))
        }),
    }
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
            denied: None,
        }
    }

    #[test]
    fn pieces_cover_every_page_once_and_the_last_has_no_end() {
        for (bytes, pages) in [(0, 0), (8192, 1), (PIECE, 8192), (PIECE * 3 + 1, 24577), (PIECE * 50, 3)] {
            let pieces = pieces(vec![table(bytes, pages)], 17);
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
        assert_eq!(pieces(vec![table(PIECE * 3, 100_000)], 13).len(), 1);
    }

    #[test]
    fn what_takes_longest_to_restore_comes_first_and_neighbours_are_of_different_tables() {
        let indexed = Table { work: 1, ..table(1, 1) };
        let all = pieces(vec![table(PIECE * 2, 100), table(8, 1), indexed, table(PIECE * 3, 100)], 17);
        let names: Vec<_> = all.iter().map(|p| (p.table.bytes, p.number)).collect();
        let (three, two) = (PIECE * 3, PIECE * 2);
        assert_eq!(names, [(1, 0), (three, 0), (two, 0), (three, 1), (two, 1), (three, 2), (8, 0)]);
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        assert!(
            matches("public.log_*", "public.log_2025")
                && matches("*.cache", "a.cache")
                && matches("a.b", "a.b")
        );
        assert!(!matches("public.log", "public.log2") && !matches("*x*", "abc"));
    }
}
