//! The moment: tables are locked, then a snapshot is taken that all sessions share.

use super::{PostgresReady, pool::Pool, pour::PostgresView};
use crate::{
    catalog::{self, Sizes, Table},
    client::{ClientError, Session},
    error,
    server::Server,
};
use backup_core::{Error, ErrorKind, Moment, Result};
use std::{collections::BTreeSet, sync::Arc};

/// A database whose tables come and go all the time gets so many tries.
const TRIES: usize = 5;

/// All tables, those that cannot be read being an error.
pub(super) async fn list(session: &mut Session, server: &Server, sizes: Sizes) -> Result<Vec<Table>> {
    let tables = catalog::tables(session, sizes).await.map_err(error::source("list the tables", server))?;
    match tables.iter().find_map(|table| Some((table, table.denied?))) {
        Some((table, why)) => Err(error::denied(table, why, &server.endpoint.user)),
        None => Ok(tables),
    }
}

pub(super) async fn fix(ready: PostgresReady) -> Result<PostgresView> {
    let PostgresReady {
        component,
        server,
        tools,
        major,
        mut leader,
        workers,
        fell_back,
        mut tables,
        settings,
    } = ready;
    for _ in 0..TRIES {
        match lock_and_export(&mut leader, &tables).await {
            Ok((snapshot, position)) => {
                let moment = Moment::now();
                let seen = list(&mut leader, &server, Sizes::Exact).await?;
                if same(&tables, &seen) {
                    let pool = Pool::new(server.clone(), snapshot, settings, workers).await;
                    let pool = Arc::new(pool.map_err(error::source("share the snapshot", &server))?);
                    let leader = Arc::new(tokio::sync::Mutex::new(leader));
                    return Ok(PostgresView {
                        component,
                        server,
                        tools,
                        major,
                        leader,
                        pool,
                        fell_back,
                        tables: seen,
                        moment,
                        position,
                    });
                }
            }
            // Dropped, renamed or moved since it was listed.
            Err(e) if matches!(e.code(), Some("42P01" | "3F000")) => {}
            Err(e) if e.code() == Some("55P03") => return Err(blocked(e, &server).await),
            Err(e) => return Err(error::source("lock the tables", &server)(e)),
        }
        let failed = error::source("lock the tables again", &server);
        leader.query("ROLLBACK").await.map_err(failed)?;
        tables = list(&mut leader, &server, Sizes::Estimated).await?;
    }
    let message = format!("tables are made and dropped all the time: {TRIES} tries to lock them failed");
    Err(Error::new(ErrorKind::Source, "fix the moment", message).on(server.place()).retry(true))
}

/// Locks first: a snapshot that is older than a lock sees no rows of a table that was truncated in between, without an error.
async fn lock_and_export(leader: &mut Session, tables: &[Table]) -> Result<(String, String), ClientError> {
    leader.query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    if !tables.is_empty() {
        let names: Vec<String> = tables.iter().map(|table| format!("ONLY {}", table.qualified())).collect();
        leader.query(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", "))).await?;
    }
    let position = "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
        ELSE pg_catalog.pg_current_wal_lsn() END";
    let snapshot = leader.value("SELECT pg_catalog.pg_export_snapshot()").await?.unwrap_or_default();
    Ok((snapshot, leader.value(position).await?.unwrap_or_default()))
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
        let sql = "SELECT format('process %s of %s has held or asked for a lock since %s: %s', a.pid, a.usename, a.xact_start::timestamp(0), left(a.query, 100))
            FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
            WHERE l.mode = 'AccessExclusiveLock' AND l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
            ORDER BY l.granted DESC, a.xact_start LIMIT 1";
        session.value(sql).await.ok().flatten()
    };
    match who.await {
        Some(who) => error.hint(format!("{who}; end it, or raise lock_timeout")),
        None => error,
    }
}
