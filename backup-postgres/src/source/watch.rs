//! Looks for sessions that wait for what a dump holds: they are named, and if so configured the dump gives way to them.

use crate::{
    client::{ClientError, Session},
    quote::literal,
    server::Server,
};
use backup_core::{Context, Error, ErrorKind, Severity};
use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio_util::task::AbortOnDropHandle;

const EVERY: Duration = Duration::from_secs(1);

/// Looks until it is ended or dropped.
pub(super) struct Watch {
    /// The run of the dump: cancelled when it gives way.
    pub(super) cx: Context,
    pub(super) gave_way: GaveWay,
    looking: AbortOnDropHandle<()>,
}

/// Why the dump gives way, once it does.
#[derive(Clone, Default)]
pub(super) struct GaveWay(Arc<OnceLock<Error>>);

impl GaveWay {
    pub(super) fn why(&self) -> Option<Error> {
        self.0.get().map(|e| Error::new(e.kind(), "dump the database", e.message()))
    }
}

impl Watch {
    pub(super) fn begin(server: &Server, major: u32, component: &str, cx: &Context) -> Self {
        let (cx, gave_way) = (cx.child(), GaveWay::default());
        let (server, component) = (server.clone(), component.to_owned());
        let (of_dump, sign) = (cx.clone(), gave_way.clone());
        let looking = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(e) = look(&server, major, &component, &of_dump, &sign).await {
                let text = format!("who waits for the dump cannot be seen: {e}");
                of_dump.note(Severity::Warning, &component, "", text);
            }
        }));
        Watch { cx, gave_way, looking }
    }

    /// Ends it; the error if the dump gave way.
    pub(super) async fn end(self) -> Option<Error> {
        self.looking.abort();
        // Aborted: that is what it ends with.
        let _ = self.looking.await;
        self.gave_way.why()
    }
}

async fn look(
    server: &Server,
    major: u32,
    component: &str,
    cx: &Context,
    gave_way: &GaveWay,
) -> Result<(), ClientError> {
    let (waiting, limit) = (waiting(server, major), server.config.give_way_after);
    // Most dumps are over before anybody could wait.
    tokio::time::sleep(EVERY).await;
    let mut session = server.session().await?;
    let mut named = BTreeSet::new();
    loop {
        for (pid, user, query, seconds) in who(&mut session, &waiting).await? {
            if named.insert((pid.clone(), query.clone())) {
                let text = format!("process {pid} of {user} waits for the dump to end: {query}");
                cx.note(Severity::Note, component, "", text);
            }
            if limit.is_some_and(|limit| seconds >= u64::from(limit)) {
                let why = format!(
                    "it gave way to process {pid} of {user}, which had waited for {seconds} s (give_way_after): {query}"
                );
                let _ = gave_way.0.set(Error::new(ErrorKind::Source, "dump the database", why));
                cx.cancel.cancel();
                return Ok(());
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn who(
    session: &mut Session,
    waiting: &str,
) -> Result<Vec<(String, String, String, u64)>, ClientError> {
    let rows = session.query(waiting).await?.into_iter();
    Ok(rows
        .filter_map(|row| {
            let mut fields = row.into_iter().map(Option::unwrap_or_default);
            Some((fields.next()?, fields.next()?, fields.next()?, fields.next()?.parse().unwrap_or(0)))
        })
        .collect())
}

/// Sessions that wait for a lock of ours: number, user, statement, seconds.
fn waiting(server: &Server, major: u32) -> String {
    let ours = literal(&server.endpoint.application);
    let since = match major {
        ..14 => "a.query_start",
        _ => {
            "coalesce((SELECT min(l.waitstart) FROM pg_catalog.pg_locks l WHERE l.pid = a.pid AND NOT l.granted), a.query_start)"
        }
    };
    format!(
        "SELECT a.pid, coalesce(a.usename, a.backend_type), pg_catalog.left(a.query, 200),
          greatest(0, pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - {since}))::int8
        FROM pg_catalog.pg_stat_activity a
        WHERE a.wait_event_type = 'Lock' AND a.application_name <> {ours} AND EXISTS (
          SELECT FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(a.pid)) b
          JOIN pg_catalog.pg_stat_activity o ON o.pid = b WHERE o.application_name = {ours})"
    )
}
