//! One moment for several sessions, and the locks that it takes.
//!
//! With the right to lock, all sessions begin their snapshots under one short global read lock, and each opens every table once: what a
//! transaction has opened cannot be changed or dropped until it ends, so the columns that were listed are those that are read. Without
//! that right MariaDB tells each session the place in the binary log that its snapshot stands for: they are begun until all are the same.
//! Else there is one session only.

use crate::{
    catalog::{Database, Version, list},
    client::{ANSWER, Session},
    config::MysqlConfig,
    error::{ClientError, LOCK_WAIT, NEEDS_PRIVILEGE},
    quote::qualified,
};
use backup_core::{Context, Error, ErrorKind, Event, Result};
use futures::future::join_all;
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// Tables that one statement opens.
const OPENED_AT_ONCE: usize = 40;
/// How often a moment is tried for while tables are being changed.
const TRIES: usize = 4;
/// A lock that is had by then was no wait to speak of.
const FIRST_LOOK: Duration = Duration::from_millis(300);
/// So long the global read lock is waited for at the first stretch; each next one is twice as long, so that statements which are begun
/// between them, again and again, cannot put it off for ever. What waits behind the lock meanwhile may hold rows that who holds it up
/// waits for, and neither the server nor the engine sees such a circle.
const STRETCH: u32 = 2;
/// Then writers go on for so long.
const BREATH: Duration = Duration::from_millis(300);
/// Between two looks at who holds the lock up.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often snapshots are begun again until they stand for one place in the binary log.
const SAME_PLACE_TRIES: usize = 20;

/// Sessions that see one moment.
pub(crate) struct Snapshot {
    /// Each with a snapshot.
    pub(crate) sessions: Vec<Session>,
    /// Without one; holds the lock against definitions where the server has it.
    pub(crate) control: Session,
    pub(crate) databases: Vec<Database>,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    /// For people: measure and what it is.
    pub(crate) notes: Vec<(&'static str, String)>,
    pub(crate) warnings: Vec<String>,
}

impl Snapshot {
    /// What a vendor's program is about to fix by itself.
    pub(crate) fn of_a_program(control: Session, databases: Vec<Database>) -> Self {
        let now = Timestamp::now();
        let (sessions, notes, warnings) = Default::default();
        Snapshot { sessions, control, databases, first: now, last: now, notes, warnings }
    }
}

/// How sessions come to see the same.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    GlobalReadLock,
    SamePlaceInTheLog,
    OneSession,
}

/// What a reading session needs: nothing that the server cuts off while other streams are slow.
pub(crate) const READING: &[&str] = &[
    "sql_mode = ''",
    "sql_quote_show_create = 1",
    "time_zone = '+00:00'",
    "transaction_isolation = 'REPEATABLE-READ'",
    "tx_isolation = 'REPEATABLE-READ'",
    "net_write_timeout = 86400",
    "net_read_timeout = 86400",
    "wait_timeout = 86400",
    "max_statement_time = 0",
    "max_execution_time = 0",
    "idle_transaction_timeout = 0",
    "idle_readonly_transaction_timeout = 0",
    "show_gipk_in_create_table_and_information_schema = ON",
    "group_concat_max_len = 1048576",
    "information_schema_stats_expiry = 0",
];

/// Fixes the moment for these databases. On an error nothing is locked any more.
pub(crate) async fn fix(
    mut sessions: Vec<Session>,
    mut control: Session,
    mut databases: Vec<Database>,
    names: Option<&[String]>,
    config: &MysqlConfig,
    version: &Version,
    cx: &Context,
) -> Result<Snapshot> {
    let failed = |e: ClientError| e.during(ErrorKind::Source, "fix the moment");
    let seconds = config.lock_seconds();
    for session in sessions.iter_mut().chain([&mut control]) {
        session.run(&format!("SET SESSION lock_wait_timeout = {seconds}")).await.map_err(failed)?;
    }
    let mut warnings = Vec::new();
    let mut way = Way::GlobalReadLock;
    for _ in 0..TRIES {
        if way == Way::GlobalReadLock {
            match lock(&mut control, &mut sessions[0], seconds, cx).await {
                Ok(()) => {}
                Err(e) if matches!(e.code(), Some(NEEDS_PRIVILEGE | 1044 | 1142)) => {
                    way = if version.mariadb { Way::SamePlaceInTheLog } else { Way::OneSession };
                }
                Err(e) if e.code() == Some(LOCK_WAIT) => return Err(held_up(&mut control, e).await),
                Err(e) => return Err(failed(e)),
            }
        }
        let locked = Instant::now();
        let first = Timestamp::now();
        let begun = begin_all(&mut sessions, &mut way, &databases).await;
        let position = match begun {
            Ok(()) => position(&mut control, version).await,
            Err(e) => Err(e),
        };
        let last = Timestamp::now();
        if way == Way::GlobalReadLock {
            if version.mysql_from(8, 0) {
                // From here on definitions stay as they are, also those of views and routines.
                match control.run("LOCK INSTANCE FOR BACKUP").await {
                    Err(e) if e.is_lost() => return Err(failed(e)),
                    Err(_) => warnings.push("views, routines, triggers and events may change while they are read: the user lacks BACKUP_ADMIN".to_owned()),
                    Ok(_) => {}
                }
            }
            control.run("UNLOCK TABLES").await.map_err(failed)?;
        }
        let held = locked.elapsed();
        let gone = |e: &ClientError| matches!(e.code(), Some(1146 | 1049));
        let position = match position {
            Err(e) if !gone(&e) => {
                let kind = ErrorKind::Source;
                return Err(e.during(kind, "fix the moment"));
            }
            other => other.ok(),
        };
        let now = list(&mut control, names, config, version).await.map_err(failed)?;
        if let Some(position) = position
            && now == databases
        {
            // One session is enough where more would not see the same.
            if way == Way::OneSession {
                for session in sessions.drain(1..) {
                    session.close().await;
                }
            }
            let mut notes = vec![("method", said(way, sessions.len(), held))];
            notes.extend(position);
            warnings.sort();
            warnings.dedup();
            return Ok(Snapshot { sessions, control, databases: now, first, last, notes, warnings });
        }
        // Tables were made, changed or dropped between the listing and the lock.
        for session in &mut sessions {
            session.run("ROLLBACK").await.map_err(failed)?;
        }
        databases = now;
    }
    let message = format!("tables are being changed all the time: {TRIES} listings were out of date at once");
    Err(Error::new(ErrorKind::Source, "fix the moment", message)
        .hint("try again when no migration runs")
        .retry(true))
}

fn said(way: Way, sessions: usize, held: Duration) -> String {
    match way {
        Way::GlobalReadLock => {
            format!(
                "native, {sessions} sessions, global read lock held for {:.1} ms",
                held.as_secs_f64() * 1e3
            )
        }
        Way::SamePlaceInTheLog => {
            format!("native, {sessions} sessions, without RELOAD: at the same place in the binary log")
        }
        Way::OneSession => "native, one session, because the user lacks RELOAD".to_owned(),
    }
}

/// Takes the global read lock, for which it waits so many seconds in all. Meanwhile `beside` looks who holds it up.
async fn lock(
    control: &mut Session,
    beside: &mut Session,
    seconds: u32,
    cx: &Context,
) -> Result<(), ClientError> {
    let (until, mut told) = (Instant::now() + Duration::from_secs(seconds.into()), None);
    // The limit of the server is per table that is waited for; ours is for all.
    let limit = Duration::from_secs(u64::from(seconds) * 2 + 5);
    let mut stretch = STRETCH.min(seconds);
    loop {
        control.run(&format!("SET SESSION lock_wait_timeout = {stretch}")).await?;
        match lock_within(limit, control, beside, &mut told, cx).await {
            Err(e) if e.code() == Some(LOCK_WAIT) && !cx.cancel.is_cancelled() => {
                // MySQL keeps the lock when only the closing of tables took too long.
                control.run("UNLOCK TABLES").await?;
                tokio::time::sleep(BREATH).await;
                let left = until.saturating_duration_since(Instant::now()).as_secs_f64().round();
                if left < 1.0 {
                    return Err(e);
                }
                stretch = (left as u32).min(2 * stretch);
            }
            Err(e) => return Err(e),
            Ok(()) => {
                return control.run(&format!("SET SESSION lock_wait_timeout = {seconds}")).await.map(drop);
            }
        }
    }
}

/// One stretch of it. `told`: the session that was named last.
async fn lock_within(
    limit: Duration,
    control: &mut Session,
    beside: &mut Session,
    told: &mut Option<String>,
    cx: &Context,
) -> Result<(), ClientError> {
    let (waiter, ended) = (control.id(), cx.cancel.child_token());
    let locking = async {
        let locked = control.run_within("FLUSH TABLES WITH READ LOCK", limit).await;
        ended.cancel();
        locked.map(drop)
    };
    let telling = async {
        let mut pause = FIRST_LOOK;
        // Each question is awaited to its end: a session that is left in the middle of one is of no use for the snapshot.
        while tokio::time::timeout(pause, ended.cancelled()).await.is_err() {
            let by = match holder(beside, waiter).await? {
                Some((id, who)) if told.as_ref() != Some(&id) => {
                    *told = Some(id);
                    who
                }
                None if told.is_none() => {
                    *told = Some(String::new());
                    "no statement runs: an idle session holds tables (LOCK TABLES)".to_owned()
                }
                _ => continue,
            };
            cx.emit(&Event::Waiting { reason: format!("the global read lock is waited for: {by}") });
            pause = LOOK_AGAIN;
        }
        Ok(())
    };
    let (locked, looked) = tokio::join!(locking, telling);
    locked.and(looked)
}

/// The session with the longest statement: its number, and what it does.
async fn holder(session: &mut Session, waiter: u32) -> Result<Option<(String, String)>, ClientError> {
    let longest = format!(
        "SELECT ID, USER, TIME, LEFT(INFO, 80) FROM information_schema.PROCESSLIST WHERE COMMAND <> 'Sleep' AND COMMAND <> 'Daemon' \
         AND ID NOT IN (CONNECTION_ID(), {waiter}) AND INFO IS NOT NULL ORDER BY TIME DESC LIMIT 1"
    );
    Ok(session.first(&longest).await?.map(|row| {
        let [id, user, time, sql] = crate::catalog::fields(row);
        let who = format!("session {id} of {user} has been at it for {time} s: `{sql}`");
        (id, who)
    }))
}

/// The lock could not be had: names who holds it up.
async fn held_up(control: &mut Session, e: ClientError) -> Error {
    let error = e.during(ErrorKind::Source, "take the global read lock");
    let waiter = control.id();
    match holder(control, waiter).await {
        Ok(Some((_, who))) => error.hint(format!("{who}; let it end, or raise lock_timeout_seconds")),
        _ => error,
    }
}

async fn begin_all(
    sessions: &mut [Session],
    way: &mut Way,
    databases: &[Database],
) -> Result<(), ClientError> {
    match way {
        Way::GlobalReadLock => {
            // Side by side: each needs several answers, and the application waits.
            for ended in join_all(sessions.iter_mut().map(|s| begin(s, databases))).await {
                ended?;
            }
            Ok(())
        }
        Way::SamePlaceInTheLog => {
            for _ in 0..SAME_PLACE_TRIES {
                for started in join_all(sessions.iter_mut().map(start)).await {
                    started?;
                }
                let mut places = Vec::new();
                for session in sessions.iter_mut() {
                    places.push(place_in_the_log(session).await?);
                }
                match &places[0] {
                    None => break, // no binary log: nothing to compare
                    Some(first) if places.iter().all(|p| p.as_ref() == Some(first)) => {
                        for session in sessions.iter_mut() {
                            open_tables(session, databases).await?;
                        }
                        return Ok(());
                    }
                    Some(_) => {}
                }
            }
            *way = Way::OneSession;
            for session in sessions.iter_mut().skip(1) {
                session.run("ROLLBACK").await?;
            }
            begin(&mut sessions[0], databases).await
        }
        Way::OneSession => begin(&mut sessions[0], databases).await,
    }
}

async fn start(session: &mut Session) -> Result<(), ClientError> {
    session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT").await.map(drop)
}

async fn begin(session: &mut Session, databases: &[Database]) -> Result<(), ClientError> {
    start(session).await?;
    open_tables(session, databases).await
}

/// A table that cannot be opened is left for its reader, who then says why.
async fn open_tables(session: &mut Session, databases: &[Database]) -> Result<(), ClientError> {
    for database in databases {
        let look = |name: &str| format!("(SELECT 1 FROM {} LIMIT 0)", qualified(&database.name, name));
        for some in database.tables.chunks(OPENED_AT_ONCE) {
            let together: Vec<String> = some.iter().map(|t| look(&t.name)).collect();
            match session.run_within(&together.join(" UNION ALL "), ANSWER).await {
                Ok(_) => {}
                Err(e) if e.is_lost() || matches!(e.code(), Some(LOCK_WAIT | 1146)) => return Err(e),
                Err(_) => {
                    for table in some {
                        match session.run(&look(&table.name)).await {
                            Err(e) if e.is_lost() || matches!(e.code(), Some(LOCK_WAIT | 1146)) => {
                                return Err(e);
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

async fn place_in_the_log(session: &mut Session) -> Result<Option<Vec<String>>, ClientError> {
    let rows = session.rows("SHOW STATUS LIKE 'binlog\\_snapshot\\_%'").await?;
    let values: Vec<String> = rows.into_iter().filter_map(|r| r.into_iter().nth(1).flatten()).collect();
    Ok(values.first().is_some_and(|file| !file.is_empty()).then_some(values))
}

/// Where a replica or a point-in-time recovery goes on. What the user may not see is left out.
async fn position(
    control: &mut Session,
    version: &Version,
) -> Result<Vec<(&'static str, String)>, ClientError> {
    let mut notes = Vec::new();
    let status = if version.mysql_from(8, 2) { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    match control.first(status).await {
        Ok(Some(row)) => {
            let [file, at] = crate::catalog::fields(row);
            notes.push(("binary log", format!("{file}:{at}")));
        }
        Ok(None) => {}
        Err(e) if e.is_lost() => return Err(e),
        Err(_) => notes.push(("binary log", "not known: the user lacks REPLICATION CLIENT".to_owned())),
    }
    let gtid =
        if version.mariadb { "SELECT @@GLOBAL.gtid_binlog_pos" } else { "SELECT @@GLOBAL.gtid_executed" };
    match control.value(gtid).await {
        Ok(Some(gtid)) if !gtid.is_empty() => notes.push(("gtid", gtid.replace('\n', ""))),
        Err(e) if e.is_lost() => return Err(e),
        _ => {}
    }
    Ok(notes)
}
