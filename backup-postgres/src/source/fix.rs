//! The moment: tables are locked, then a snapshot is taken that all sessions of a database share. Of several databases each step is done in
//! all of them before the next, so that their moments lie as close to each other as the server answers.

use super::{Opened, PostgresReady, database::Database, pool::Pool, pour::PostgresView};
use crate::{
    catalog::{self, Sizes, Table},
    client::{ClientError, Session},
    error,
    server::Server,
};
use backup_core::{Context, Error, ErrorKind, Event, Moment, Result};
use futures::future::{join_all, try_join_all};
use std::{collections::BTreeSet, convert::Infallible, sync::Arc, time::Duration};

/// A database whose tables come and go all the time gets so many tries.
const TRIES: usize = 5;

/// The first look who is waited for, and the next ones.
const FIRST_LOOK: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A session, for people.
const SESSION: &str = "pg_catalog.format('process %s of %s has held or asked for a lock since %s: %s', a.pid, coalesce(a.usename, a.backend_type),
    a.xact_start::timestamp(0), pg_catalog.left(a.query, 100))";

/// All tables, those that cannot be read being an error.
pub(super) async fn list(session: &mut Session, server: &Server, sizes: Sizes) -> Result<Vec<Table>> {
    let tables = catalog::tables(session, sizes).await.map_err(error::source("list the tables", server))?;
    match tables.iter().find_map(|table| Some((table, table.denied?))) {
        Some((table, why)) => Err(error::denied(table, why, server)),
        None => Ok(tables),
    }
}

pub(super) async fn fix(ready: PostgresReady, cx: &Context) -> Result<PostgresView> {
    let PostgresReady { component, server, tools, major, mut databases, workers, fell_back, settings } =
        ready;
    for _ in 0..TRIES {
        if let Some(fixed) = try_fix(&mut databases, cx).await? {
            let snapshots = databases.iter().zip(&fixed).map(|(d, f)| (d.server.clone(), f.snapshot.clone()));
            let pool = Pool::new(snapshots.collect(), settings, workers).await;
            let pool = Arc::new(pool.map_err(error::source("share the snapshot", &server))?);
            let moments = fixed.iter().map(|f| f.moment);
            let both =
                |a: Moment, b: Moment| Moment { first: a.first.min(b.first), last: a.last.max(b.last) };
            let moment = moments.reduce(both).unwrap_or_else(Moment::now);
            let each = databases.into_iter().zip(fixed).enumerate();
            let each = each.map(|(number, (opened, fixed))| Database::new(number, opened, fixed.position));
            let databases = each.collect();
            return Ok(PostgresView { component, server, tools, major, pool, fell_back, moment, databases });
        }
        let again = databases.iter_mut().map(|database| async move {
            let failed = error::source("lock the tables again", &database.server);
            database.leader.query("ROLLBACK").await.map_err(failed)?;
            database.tables = list(&mut database.leader, &database.server, Sizes::Estimated).await?;
            Ok::<(), Error>(())
        });
        try_join_all(again).await?;
    }
    let message = format!("tables are made and dropped all the time: {TRIES} tries to lock them failed");
    Err(Error::new(ErrorKind::Source, "fix the moment", message).on(server.place()).retry(true))
}

/// The moment of a database.
struct Fixed {
    snapshot: String,
    position: String,
    moment: Moment,
}

/// `None`: tables have come, gone or changed since they were listed.
async fn try_fix(databases: &mut [Opened], cx: &Context) -> Result<Option<Vec<Fixed>>> {
    let locked = lock_all(databases, cx).await;
    let mut gone = false;
    for (locked, database) in locked.into_iter().zip(databases.iter_mut()) {
        match locked {
            Ok(()) => {}
            // Dropped, renamed or moved since it was listed.
            Err(e) if matches!(e.code(), Some("42P01" | "3F000")) => gone = true,
            Err(e) if e.code() == Some("55P03") => return Err(blocked(e, &database.server).await),
            Err(e) => return Err(error::source("lock the tables", &database.server)(e)),
        }
    }
    if gone {
        return Ok(None);
    }
    let exported = databases.iter_mut().map(|database| async move {
        let failed = error::source("take the snapshot", &database.server);
        export(&mut database.leader).await.map_err(failed)
    });
    let fixed = try_join_all(exported).await?;
    let seen = databases.iter_mut().map(|d| list(&mut d.leader, &d.server, Sizes::Exact));
    let seen = try_join_all(seen).await?;
    let is_same = databases.iter().zip(&seen).all(|(database, seen)| same(&database.tables, seen));
    for (database, seen) in databases.iter_mut().zip(seen) {
        database.tables = seen;
    }
    Ok(is_same.then_some(fixed))
}

/// Locks the tables of all. Who holds what is waited for is told meanwhile.
async fn lock_all(databases: &mut [Opened], cx: &Context) -> Vec<Result<(), ClientError>> {
    let Some(server) = databases.first().map(|database| database.server.clone()) else { return Vec::new() };
    let waiting: Vec<String> = databases.iter().map(|d| d.leader.process().to_string()).collect();
    let waiting = waiting.join(",");
    // All locks are waited for: none is left behind that is still being asked for.
    let locking = join_all(databases.iter_mut().map(|d| lock(&mut d.leader, &d.tables)));
    let mut beside = None;
    let locked = tokio::select! {
        biased;
        locked = locking => locked,
        never = tell(&server, &waiting, &mut beside, cx) => match never {},
    };
    if let Some(mut session) = beside {
        session.leave().await;
    }
    locked
}

/// Names each session that these processes of the server wait for, once.
async fn tell(server: &Server, waiting: &str, beside: &mut Option<Session>, cx: &Context) -> Infallible {
    // A prepared transaction is no process.
    let sql = format!(
        "SELECT DISTINCT b, CASE WHEN b = 0 THEN 'a prepared transaction' ELSE {SESSION} END
         FROM pg_catalog.unnest('{{{waiting}}}'::int4[]) w CROSS JOIN pg_catalog.unnest(pg_catalog.pg_blocking_pids(w)) b
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b"
    );
    let (mut pause, mut named) = (FIRST_LOOK, BTreeSet::new());
    loop {
        tokio::time::sleep(pause).await;
        pause = LOOK_AGAIN;
        let session = match beside.take().filter(Session::is_clean) {
            Some(session) => session,
            // It is told, no more: the wait is the same without.
            None => match server.session().await {
                Ok(session) => session,
                Err(_) => continue,
            },
        };
        for row in beside.insert(session).query(&sql).await.unwrap_or_default() {
            if let [Some(process), Some(who)] = row.as_slice()
                && named.insert(process.clone())
            {
                cx.emit(&Event::Waiting { reason: format!("locks on the tables are waited for: {who}") });
            }
        }
    }
}

/// Locks come first: a snapshot that is older than a lock sees no rows of a table that was truncated in between, without an error.
async fn lock(leader: &mut Session, tables: &[Table]) -> Result<(), ClientError> {
    leader.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    if !tables.is_empty() {
        let names: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.qualified())).collect();
        leader.query(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))).await?;
    }
    Ok(())
}

async fn export(leader: &mut Session) -> Result<Fixed, ClientError> {
    let position = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
        ELSE pg_catalog.pg_current_wal_lsn() END";
    let snapshot = leader.value("SELECT pg_catalog.pg_export_snapshot()").await?.unwrap_or_default();
    let moment = Moment::now();
    Ok(Fixed { snapshot, position: leader.value(position).await?.unwrap_or_default(), moment })
}

/// Also the columns: an ALTER may have come between.
fn same(locked: &[Table], seen: &[Table]) -> bool {
    let names = |tables: &[Table]| -> BTreeSet<(u32, String, Vec<String>)> {
        tables.iter().map(|t| (t.oid, t.qualified(), t.columns.clone())).collect()
    };
    names(locked) == names(seen)
}

/// Names who stands in the way.
async fn blocked(e: ClientError, server: &Server) -> Error {
    let error = error::source("lock the tables", server)(e);
    let who = async {
        let mut session = server.session().await.ok()?;
        let sql = format!(
            "SELECT {SESSION} FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
            WHERE l.mode = 'AccessExclusiveLock' AND l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
            ORDER BY l.granted DESC, a.xact_start LIMIT 1"
        );
        session.value(&sql).await.ok().flatten()
    };
    match who.await {
        Some(who) => error.hint(format!("{who}; end it, or raise lock_timeout")),
        None => error,
    }
}
