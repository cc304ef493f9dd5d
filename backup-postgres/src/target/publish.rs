//! The exchange of two databases, its reverse, and the end of the old one. Each looks at what is there first: any of them may have
//! been killed half-way, and a statement whose answer was lost may have been completed.
//!
//! A database that was published carries a mark in its comment until it is settled. It is set in the transaction that renames, so
//! that it says which of two databases is ours, whatever else happened.

use super::Names;
use crate::{
    client::{ClientError, Session},
    error,
    quote::{ident, literal},
    server::Server,
};
use backup_core::{Error, ErrorKind, Result};
use std::time::Duration;

/// Renaming waits for sessions to end; they are ended again and again for so long.
const RENAME: Duration = Duration::from_secs(60);
/// Pauses between two rounds of ending sessions: new ones queue behind the renaming.
const ROUND: Duration = Duration::from_millis(25);
const DROP: Duration = Duration::from_secs(600);
/// A session of a killed process may be busy with its last statement.
const ORPHANS: Duration = Duration::from_secs(60);

pub(super) struct Swap {
    pub(super) server: Server,
    pub(super) names: Names,
    pub(super) session: Session,
}

/// What of our databases is there.
#[derive(Debug)]
struct There {
    /// Number of the database that applications use.
    live: Option<u64>,
    comment: Option<String>,
    shadow: bool,
    old: bool,
}

enum Mark {
    None,
    /// Nothing was there before.
    Appeared,
    Replaced,
}

impl Swap {
    pub(super) async fn publish(&mut self, surveyed: u64) -> Result<()> {
        let there = self.look("publish the restored database").await?;
        if !there.shadow {
            // Nothing was put: there was nothing to restore.
            return self.refuse("the restored database is not there");
        }
        if there.live.unwrap_or(0) != surveyed {
            return self
                .refuse("the database was made, dropped or exchanged by somebody else during the restore");
        }
        let comment = self.comment_of(&self.names.shadow.clone()).await?;
        let mark = self.mark(there.live.is_some());
        let marked = comment.map_or_else(|| mark.clone(), |text| format!("{text}\n{mark}"));
        let (live, shadow, old) = self.idents();
        let mut statements = Vec::new();
        if there.live.is_some() {
            statements.push(format!("ALTER DATABASE {live} RENAME TO {old}"));
        }
        statements.push(format!("ALTER DATABASE {shadow} RENAME TO {live}"));
        statements.push(format!("COMMENT ON DATABASE {live} IS {}", literal(&marked)));
        let renamed = self.rename(&statements).await;
        let Err(e) = renamed else { return Ok(()) };
        // The answer may be what was lost, not the renaming.
        match self.look("publish the restored database").await {
            Ok(there) if !matches!(self.marked(&there), Mark::None) => Ok(()),
            _ => Err(e),
        }
    }

    pub(super) async fn check_revert(&mut self) -> Result<()> {
        let there = self.look("look for the previous database").await?;
        match (self.marked(&there), there.old) {
            (Mark::Appeared, _) | (Mark::Replaced, true) => Ok(()),
            (Mark::Replaced, false) => self.refuse("the previous database is not there any more"),
            (Mark::None, _) => self.refuse("the database is not the one that was restored"),
        }
    }

    pub(super) async fn revert(&mut self) -> Result<()> {
        self.end_orphans().await?;
        let there = self.look("bring the previous database back").await?;
        let (live, shadow, old) = self.idents();
        let drop_shadow = match (self.marked(&there), there.old) {
            (Mark::Appeared, _) => {
                self.rename(&[format!("ALTER DATABASE {live} RENAME TO {shadow}")]).await?;
                true
            }
            (Mark::Replaced, true) => {
                self.rename(&[
                    format!("ALTER DATABASE {live} RENAME TO {shadow}"),
                    format!("ALTER DATABASE {old} RENAME TO {live}"),
                ])
                .await?;
                true
            }
            (Mark::Replaced, false) => return self.refuse("the previous database is not there any more"),
            (Mark::None, true) if there.live.is_none() => {
                self.rename(&[format!("ALTER DATABASE {old} RENAME TO {live}")]).await?;
                there.shadow
            }
            (Mark::None, true) => return self.refuse("somebody else has put another database in its place"),
            (Mark::None, false) => there.shadow,
        };
        if drop_shadow { self.drop_database(&self.names.shadow.clone()).await } else { Ok(()) }
    }

    pub(super) async fn settle(&mut self) -> Result<()> {
        let there = self.look("drop the previous database").await?;
        // First the mark: a database without one is never taken back.
        if !matches!(self.marked(&there), Mark::None) {
            let comment = there.comment.as_deref().unwrap_or_default();
            let before = comment.rsplit_once('\n').map_or("NULL".to_owned(), |(text, _)| literal(text));
            let sql = format!("COMMENT ON DATABASE {} IS {before}", ident(&self.server.database));
            self.run("let the restored database be", &sql).await?;
        }
        if there.shadow {
            self.drop_database(&self.names.shadow.clone()).await?;
        }
        if there.old {
            let slots = format!(
                "SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE database = {}",
                literal(&self.names.old)
            );
            let slots = self.session.number(&slots).await;
            let slots = slots.map_err(error::target("drop the previous database", &self.server))?;
            if slots != 0 {
                return self.refuse(
                    "the previous database has logical replication slots, which would be lost with it",
                );
            }
            self.drop_database(&self.names.old.clone()).await?;
        }
        Ok(())
    }

    /// All renames in one transaction. A second session ends those of others while the first waits for the lock, for without that
    /// an application that connects again at once wins every time.
    async fn rename(&mut self, statements: &[String]) -> Result<()> {
        let failed = || error::target("rename the databases", &self.server);
        let mut second = self.server.maintenance_session().await.map_err(failed())?;
        let names =
            [&self.server.database, &self.names.shadow, &self.names.old].map(|name| literal(name)).join(", ");
        let end_others = format!(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
             WHERE datname IN ({names}) AND pid <> pg_catalog.pg_backend_pid() AND backend_type = 'client backend'"
        );
        let renaming = format!("BEGIN; SET LOCAL lock_timeout = 0; {}; COMMIT", statements.join("; "));
        let began = std::time::Instant::now();
        let done = loop {
            if !second.is_clean() {
                second = self.server.maintenance_session().await.map_err(failed())?;
            }
            let attempt = self.session.query_within(RENAME, &renaming);
            let attempt = {
                let mut attempt = std::pin::pin!(attempt);
                loop {
                    tokio::select! {
                        biased;
                        done = &mut attempt => break done,
                        ended = end_round(&mut second, &end_others) => ended.map_err(failed())?,
                    }
                }
            };
            match attempt {
                // "being accessed by other users": somebody was quicker.
                Err(e) if e.code() == Some("55006") && began.elapsed() < RENAME => {
                    self.session.query("ROLLBACK").await.map_err(failed())?;
                }
                Err(e) => {
                    if self.session.is_clean() {
                        // The error is what counts; a session that cannot roll back is closed by its drop.
                        let _ = self.session.query("ROLLBACK").await;
                    }
                    break Err(failed()(e));
                }
                Ok(_) => break Ok(()),
            }
        };
        second.close().await;
        done
    }

    /// Sessions of a killed process: the server may still be at work for them.
    async fn end_orphans(&mut self) -> Result<()> {
        let name = literal(&self.server.endpoint.application);
        let sql = format!(
            "SELECT count(pg_catalog.pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity
             WHERE application_name = {name} AND pid <> pg_catalog.pg_backend_pid()"
        );
        let began = std::time::Instant::now();
        while began.elapsed() < ORPHANS {
            let left = self.session.number(&sql).await;
            if left.map_err(error::target("end the sessions of the restore", &self.server))? == 0 {
                return Ok(());
            }
            tokio::time::sleep(ROUND).await;
        }
        self.refuse("sessions of the interrupted restore do not end")
    }

    async fn drop_database(&mut self, name: &str) -> Result<()> {
        let template =
            format!("SELECT datistemplate FROM pg_catalog.pg_database WHERE datname = {}", literal(name));
        let template =
            self.session.value(&template).await.map_err(error::target("drop a database", &self.server))?;
        if template.as_deref() == Some("t") {
            self.run("drop a database", &format!("ALTER DATABASE {} IS_TEMPLATE false", ident(name))).await?;
        }
        self.run("drop a database", &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(name))).await
    }

    async fn run(&mut self, operation: &'static str, sql: &str) -> Result<()> {
        let done = self.session.query_within(DROP, sql).await;
        done.map(drop).map_err(error::target(operation, &self.server))
    }

    async fn look(&mut self, operation: &'static str) -> Result<There> {
        let failed = || error::target(operation, &self.server);
        if !self.session.is_clean() {
            self.session = self.server.maintenance_session().await.map_err(failed())?;
        }
        let list =
            [&self.server.database, &self.names.shadow, &self.names.old].map(|name| literal(name)).join(", ");
        let sql = format!(
            "SELECT datname, oid, pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname IN ({list})"
        );
        let mut there = There { live: None, comment: None, shadow: false, old: false };
        for row in self.session.query(&sql).await.map_err(failed())? {
            let [Some(name), Some(oid), comment] = row.as_slice() else { continue };
            if *name == self.server.database {
                let unknown = |e| Error::damaged(operation, format!("number {oid} of the database: {e}"));
                there.live = Some(oid.parse().map_err(unknown)?);
                there.comment.clone_from(comment);
            } else if *name == self.names.shadow {
                there.shadow = true;
            } else {
                there.old = true;
            }
        }
        Ok(there)
    }

    async fn comment_of(&mut self, database: &str) -> Result<Option<String>> {
        let sql = format!(
            "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = {}",
            literal(database)
        );
        self.session
            .value(&sql)
            .await
            .map_err(error::target("read the comment of the database", &self.server))
    }

    fn mark(&self, replaced: bool) -> String {
        match replaced {
            true => {
                format!("[backup restore {}, the previous database is {}]", self.names.id, self.names.old)
            }
            false => format!("[backup restore {}]", self.names.id),
        }
    }

    fn marked(&self, there: &There) -> Mark {
        let comment = there.comment.as_deref().unwrap_or_default();
        let last = comment.rsplit('\n').next().unwrap_or_default();
        if last == self.mark(true) {
            Mark::Replaced
        } else if last == self.mark(false) {
            Mark::Appeared
        } else {
            Mark::None
        }
    }

    fn idents(&self) -> (String, String, String) {
        (ident(&self.server.database), ident(&self.names.shadow), ident(&self.names.old))
    }

    fn refuse(&self, message: &str) -> Result<()> {
        Err(Error::new(ErrorKind::Refused, "exchange the databases", message).on(self.server.place()))
    }
}

async fn end_round(second: &mut Session, end_others: &str) -> Result<(), ClientError> {
    tokio::time::sleep(ROUND).await;
    second.query(end_others).await.map(drop)
}
