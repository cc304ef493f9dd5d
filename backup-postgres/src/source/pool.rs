//! Sessions that share the snapshot of their database, one for each stream that flows.

use crate::{
    client::{ClientError, SPEAK_AS_THE_DATABASE, Session},
    server::Server,
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Too many connections: of the server, of the database or of the role.
const NONE_LEFT: &str = "53300";

pub(super) struct Pool {
    /// Each with its snapshot.
    databases: Vec<(Server, String)>,
    settings: String,
    /// Together with those in use they are never more than there are permits.
    idle: Mutex<Vec<Idle>>,
    /// As many as streams may be open at once: none waits for a session that another one holds.
    permits: Arc<Semaphore>,
    sessions: usize,
}

/// A session that nobody uses.
struct Idle {
    /// The number of its database.
    database: usize,
    session: Session,
    /// The tables that its transaction has locked.
    locked: HashSet<u32>,
}

/// A session that reads the encoding of the database as it is, so that no conversion stands between two equal databases.
pub(super) async fn worker(server: &Server, settings: &str) -> Result<Session, ClientError> {
    let mut session = server.session().await?;
    session.query(settings).await?;
    session.query(SPEAK_AS_THE_DATABASE).await?;
    Ok(session)
}

/// What the server had for us.
pub(super) struct Opened {
    pub(super) workers: Vec<Session>,
    /// Why they are fewer.
    pub(super) short: Option<String>,
}

/// So many sessions, or as many as there are but one: pg_dump needs that. It is an error if there is none for pg_dump.
pub(super) async fn workers(server: &Server, settings: &str, wanted: usize) -> Result<Opened, ClientError> {
    let mut workers = Vec::new();
    let mut short = None;
    while workers.len() <= wanted && wanted > 0 {
        match worker(server, settings).await {
            Ok(session) => workers.push(session),
            Err(e) if e.code() == Some(NONE_LEFT) && !workers.is_empty() => {
                short = Some(e.to_string());
                break;
            }
            Err(e) => return Err(e),
        }
    }
    if let Some(of_the_tool) = workers.pop() {
        of_the_tool.close().await;
    }
    Ok(Opened { workers, short })
}

impl Pool {
    /// With these sessions of the first database.
    pub(super) async fn new(
        databases: Vec<(Server, String)>,
        settings: String,
        mut sessions: Vec<Session>,
    ) -> Result<Self, ClientError> {
        let count = sessions.len().max(1);
        let permits = Arc::new(Semaphore::new(count));
        let snapshot = databases.first().map_or("", |(_, snapshot)| snapshot);
        let joined = sessions.iter_mut().map(|session| join(session, snapshot));
        futures::future::try_join_all(joined).await?;
        let idle = sessions.into_iter().map(|session| Idle { database: 0, session, locked: HashSet::new() });
        let idle = Mutex::new(idle.collect());
        Ok(Pool { databases, settings, idle, permits, sessions: count })
    }

    /// How many can be in use at once.
    pub(super) fn sessions(&self) -> usize {
        self.sessions
    }

    /// The snapshot of the database of this number.
    pub(super) fn snapshot(&self, database: usize) -> &str {
        self.databases.get(database).map_or("", |(_, snapshot)| snapshot)
    }

    /// A session in the snapshot of this database; a new one in the place of one that was given up in the middle of a COPY, or of one
    /// of another database.
    pub(super) async fn take(self: &Arc<Self>, database: usize) -> Result<Taken, ClientError> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| ClientError::Protocol("the sessions are closed".into()))?;
        let (idle, other) = {
            let mut list = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            match list.iter().position(|idle| idle.database == database) {
                Some(at) => (Some(list.swap_remove(at)), None),
                None => (None, list.pop()),
            }
        };
        if let Some(other) = other {
            other.session.close().await;
        }
        let (session, locked) = match (idle, self.databases.get(database)) {
            (Some(idle), _) => (idle.session, idle.locked),
            (None, Some((server, snapshot))) => {
                let mut session = worker(server, &self.settings).await?;
                join(&mut session, snapshot).await?;
                (session, HashSet::new())
            }
            (None, None) => return Err(ClientError::Protocol(format!("there is no database {database}"))),
        };
        Ok(Taken { database, session: Some(session), locked, pool: self.clone(), _permit: permit })
    }

    /// Leaves all sessions that are not in use, and lets nobody have one any more. The numbers of their processes.
    pub(super) async fn leave(&self) -> Vec<i32> {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        let leaving = idle.into_iter().map(|mut idle| async move {
            idle.session.leave().await;
            idle.session.process()
        });
        futures::future::join_all(leaving).await
    }
}

async fn join(session: &mut Session, snapshot: &str) -> Result<(), ClientError> {
    let sql = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        crate::quote::literal(snapshot)
    );
    session.query(&sql).await.map(drop)
}

/// A session on loan; given back when dropped, if nothing was left half done.
pub(super) struct Taken {
    database: usize,
    session: Option<Session>,
    locked: HashSet<u32>,
    pool: Arc<Pool>,
    _permit: OwnedSemaphorePermit,
}

impl Taken {
    pub(super) fn session(&mut self) -> Result<&mut Session, ClientError> {
        self.session.as_mut().ok_or_else(|| ClientError::Protocol("the session was given up".into()))
    }

    /// Whether its transaction has locked the table of this number.
    pub(super) fn has_locked(&self, table: u32) -> bool {
        self.locked.contains(&table)
    }

    pub(super) fn locked(&mut self, table: u32) {
        self.locked.insert(table);
    }

    /// Gives it up: a transaction that has failed takes no more statements.
    pub(super) fn spoil(&mut self) {
        self.session = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(session) = self.session.take().filter(Session::is_clean) {
            let idle = Idle { database: self.database, session, locked: std::mem::take(&mut self.locked) };
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
        }
    }
}
