//! The exchange of databases with those made beside them, its reverse, and the end of the old ones. Each looks at what is there first: any of
//! them may have been killed half-way, and a statement whose answer was lost may have been completed. However many there are, all change their
//! names in one transaction.
//!
//! A database that was published carries a mark in its comment until it is settled. It is set in the transaction that renames, so
//! that it says which of two databases is ours, whatever else happened.

use super::Names;
use crate::{
    client::{ClientError, Session},
    error,
    properties::MARK,
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
    /// Of the restore.
    pub(super) id: String,
    pub(super) server: Server,
    pub(super) databases: Vec<Names>,
    pub(super) session: Session,
}

/// What of one of our databases is there.
#[derive(Debug, Default)]
struct There {
    /// Number of the database that applications use.
    live: Option<u64>,
    comment: Option<String>,
    shadow: bool,
    old: bool,
    /// The live one is empty: it stands in for one that was dropped, or is about to be.
    stands_in: bool,
    /// So is the old one.
    old_stood_in: bool,
    /// The dropping of the old one has begun: nobody can use it any more.
    old_is_broken: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    /// Nothing was there before.
    Appeared,
    Replaced,
}

impl Swap {
    /// `surveyed`: the numbers of those that are replaced, 0 where there is none.
    pub(super) async fn publish(&mut self, surveyed: &[u64]) -> Result<()> {
        let all = self.look("publish the restored database").await?;
        if all.is_empty() || all.iter().any(|(_, there)| !there.shadow) {
            // Nothing was put: there was nothing to restore.
            return self.refuse("the restored database is not there");
        }
        if numbers(&all) != surveyed {
            return self.refuse(EXCHANGED);
        }
        let mut statements = Vec::new();
        for (names, there) in &all {
            let comment = self.comment_of(&names.shadow).await?;
            let mark = self.mark(names, there.live.is_some());
            let marked = comment.map_or_else(|| mark.clone(), |text| format!("{text}\n{mark}"));
            let (live, shadow, old) = idents(names);
            if there.live.is_some() {
                statements.push(format!("ALTER DATABASE {live} RENAME TO {old}"));
            }
            statements.push(format!("ALTER DATABASE {shadow} RENAME TO {live}"));
            statements.push(format!("COMMENT ON DATABASE {live} IS {}", literal(&marked)));
        }
        let renamed = self.rename(&statements).await;
        let Err(e) = renamed else { return Ok(()) };
        // The answer may be what was lost, not the renaming.
        match self.look("publish the restored database").await {
            Ok(all) if all.iter().all(|(names, there)| self.marked(names, there) != Mark::None) => Ok(()),
            _ => Err(e),
        }
    }

    /// Drops what is there of these numbers (0: nothing), the databases themselves included. Until the restored ones take their places empty
    /// ones that take no connections stand in for them: nobody comes in, and nobody makes another. Returns the numbers of these.
    pub(super) async fn clear(&mut self, surveyed: &[u64]) -> Result<Vec<u64>> {
        const WHAT: &str = "drop the database";
        let all = self.look(WHAT).await?;
        if numbers(&all) != surveyed {
            return self.refuse(EXCHANGED);
        }
        if surveyed.iter().all(|number| *number == 0) {
            return Ok(surveyed.to_vec());
        }
        let (mut statements, mut old) = (Vec::new(), Vec::new());
        for (names, _) in all.iter().filter(|(_, there)| there.live.is_some()) {
            let (live, shadow, moved) = idents(names);
            let empty = format!("CREATE DATABASE {shadow} TEMPLATE template0 ALLOW_CONNECTIONS false");
            self.run(WHAT, &empty).await?;
            statements.push(format!("ALTER DATABASE {live} RENAME TO {moved}"));
            statements.push(format!("ALTER DATABASE {shadow} RENAME TO {live}"));
            statements.push(format!("COMMENT ON DATABASE {live} IS {}", literal(&self.stand_in())));
            old.push(names.old.as_str());
        }
        if let Err(e) = self.rename(&statements).await {
            // The answer may be what was lost.
            let is_done = |all: Vec<(Names, There)>| {
                all.iter().zip(surveyed).all(|((_, there), number)| *number == 0 || there.stands_in)
            };
            if !self.look(WHAT).await.is_ok_and(is_done) {
                return Err(e);
            }
        }
        self.refuse_slots(&old).await?;
        for name in old {
            self.drop_database(name).await?;
        }
        Ok(numbers(&self.look(WHAT).await?))
    }

    /// `in_place`: those that are dropped before they are restored; nothing may have been published then.
    pub(super) async fn check_revert(&mut self, in_place: &[String]) -> Result<()> {
        if !in_place.is_empty() {
            // What a killed process has asked for last may still be done, a drop among it.
            self.end_orphans().await?;
        }
        for (names, there) in self.look("look for the previous database").await? {
            let goes = in_place.contains(&names.live);
            match (self.marked(&names, &there), there.old) {
                (Mark::Replaced, true) if there.old_stood_in => return self.refuse(DROPPED),
                (Mark::None, true) if goes && there.old_is_broken => return self.refuse(DROPPED),
                (Mark::None, true) if goes && there.stands_in => {}
                (Mark::None, false) if goes && there.live.is_some() && !there.stands_in => {}
                (Mark::None, _) if goes => return self.refuse(DROPPED),
                (Mark::None, _) if !in_place.is_empty() => {}
                (Mark::Appeared, _) | (Mark::Replaced, true) => {}
                (Mark::Replaced, false) => {
                    return self.refuse("the previous database is not there any more");
                }
                (Mark::None, _) => return self.refuse("the database is not the one that was restored"),
            }
        }
        Ok(())
    }

    pub(super) async fn revert(&mut self) -> Result<()> {
        self.end_orphans().await?;
        let (mut statements, mut left, mut empty) = (Vec::new(), Vec::new(), Vec::new());
        let all = self.look("bring the previous database back").await?;
        for (names, there) in all {
            let (live, shadow, old) = idents(&names);
            let drop_shadow = match (self.marked(&names, &there), there.old) {
                (Mark::None, true) if there.old_is_broken => {
                    empty.push(names.old.clone());
                    empty.extend(there.stands_in.then(|| names.live.clone()));
                    there.shadow
                }
                (Mark::None, true) if there.stands_in => {
                    statements.push(format!("ALTER DATABASE {live} RENAME TO {shadow}"));
                    statements.push(format!("ALTER DATABASE {old} RENAME TO {live}"));
                    true
                }
                (Mark::None, false) if there.stands_in => {
                    empty.push(names.live.clone());
                    there.shadow
                }
                (Mark::Appeared, _) => {
                    statements.push(format!("ALTER DATABASE {live} RENAME TO {shadow}"));
                    true
                }
                (Mark::Replaced, true) => {
                    statements.push(format!("ALTER DATABASE {live} RENAME TO {shadow}"));
                    statements.push(format!("ALTER DATABASE {old} RENAME TO {live}"));
                    // Nobody has been told that it took effect.
                    empty.extend(there.old_stood_in.then(|| names.live.clone()));
                    true
                }
                (Mark::Replaced, false) => {
                    return self.refuse("the previous database is not there any more");
                }
                (Mark::None, true) if there.live.is_none() => {
                    statements.push(format!("ALTER DATABASE {old} RENAME TO {live}"));
                    there.shadow
                }
                (Mark::None, true) => {
                    return self.refuse("somebody else has put another database in its place");
                }
                (Mark::None, false) => there.shadow,
            };
            left.extend(drop_shadow.then_some(names.shadow));
        }
        if !statements.is_empty() {
            self.rename(&statements).await?;
        }
        for name in &left {
            self.drop_subscriptions(name).await?;
        }
        // What stands in for another last: as long as it is there, it is known that the other one is gone.
        for name in left.into_iter().chain(empty) {
            self.drop_database(&name).await?;
        }
        Ok(())
    }

    pub(super) async fn settle(&mut self) -> Result<()> {
        let all = self.look("drop the previous database").await?;
        // First the marks, of all: a database without one is never taken back.
        let marked = all.iter().filter(|(names, there)| self.marked(names, there) != Mark::None);
        let unmark = marked.map(|(names, there)| {
            let comment = there.comment.as_deref().unwrap_or_default();
            let before = comment.rsplit_once('\n').map_or("NULL".to_owned(), |(text, _)| literal(text));
            format!("COMMENT ON DATABASE {} IS {before}", ident(&names.live))
        });
        let unmark: Vec<String> = unmark.collect();
        if !unmark.is_empty() {
            // Several statements at once are one transaction.
            self.run("let the restored database be", &unmark.join("; ")).await?;
        }
        for (names, _) in all.iter().filter(|(_, there)| there.shadow) {
            self.drop_subscriptions(&names.shadow).await?;
            self.drop_database(&names.shadow).await?;
        }
        let old: Vec<&str> =
            all.iter().filter(|(_, there)| there.old).map(|(names, _)| names.old.as_str()).collect();
        self.refuse_slots(&old).await?;
        for name in old {
            self.drop_database(name).await?;
        }
        Ok(())
    }

    async fn refuse_slots(&mut self, databases: &[&str]) -> Result<()> {
        if databases.is_empty() {
            return Ok(());
        }
        let slots = format!(
            "SELECT count(*) FROM pg_catalog.pg_replication_slots WHERE database IN ({})",
            literals(databases)
        );
        let slots = self.session.number(&slots).await;
        match slots.map_err(error::target("drop the previous database", &self.server))? {
            0 => Ok(()),
            _ => self
                .refuse("the previous database has logical replication slots, which would be lost with it"),
        }
    }

    /// All renames in one transaction. A second session ends those of others while the first waits for the lock, for without that
    /// an application that connects again at once wins every time.
    async fn rename(&mut self, statements: &[String]) -> Result<()> {
        let failed = || error::target("rename the databases", &self.server);
        let mut second = self.server.maintenance_session().await.map_err(failed())?;
        let names = literals(&self.all_names());
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

    async fn look(&mut self, operation: &'static str) -> Result<Vec<(Names, There)>> {
        let failed = || error::target(operation, &self.server);
        if !self.session.is_clean() {
            self.session = self.server.maintenance_session().await.map_err(failed())?;
        }
        let sql = format!(
            "SELECT datname, oid, pg_catalog.shobj_description(oid, 'pg_database'), datconnlimit = -2
             FROM pg_catalog.pg_database WHERE datname IN ({})",
            literals(&self.all_names())
        );
        let stand_in = self.stand_in();
        let mut all: Vec<(Names, There)> =
            self.databases.iter().map(|names| (names.clone(), There::default())).collect();
        for row in self.session.query(&sql).await.map_err(failed())? {
            let [Some(name), Some(oid), comment, Some(broken)] = row.as_slice() else { continue };
            let stands_in = comment.as_ref() == Some(&stand_in);
            for (names, there) in &mut all {
                there.stands_in |= *name == names.live && stands_in;
                there.old_stood_in |= *name == names.old && stands_in;
                if *name == names.live {
                    let unknown = |e| Error::damaged(operation, format!("number {oid} of the database: {e}"));
                    there.live = Some(oid.parse().map_err(unknown)?);
                    there.comment.clone_from(comment);
                }
                there.shadow |= *name == names.shadow;
                there.old |= *name == names.old;
                there.old_is_broken |= *name == names.old && broken == "t";
            }
        }
        Ok(all)
    }

    /// Of all databases, whatever they are called at the moment.
    fn all_names(&self) -> Vec<&str> {
        self.databases.iter().flat_map(|names| [&*names.live, &*names.shadow, &*names.old]).collect()
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

    fn mark(&self, names: &Names, replaced: bool) -> String {
        match replaced {
            true => format!("[backup restore {}, the previous database is {}]", self.id, names.old),
            false => format!("[backup restore {}]", self.id),
        }
    }

    /// The comment of an empty database that stands in for one that is restored in place.
    fn stand_in(&self) -> String {
        format!("{MARK}{}, in place: it is not restored yet]", self.id)
    }

    fn marked(&self, names: &Names, there: &There) -> Mark {
        let comment = there.comment.as_deref().unwrap_or_default();
        let last = comment.rsplit('\n').next().unwrap_or_default();
        if last == self.mark(names, true) {
            Mark::Replaced
        } else if last == self.mark(names, false) {
            Mark::Appeared
        } else {
            Mark::None
        }
    }

    fn refuse<T>(&self, message: &str) -> Result<T> {
        Err(Error::new(ErrorKind::Refused, "exchange the databases", message).on(self.server.place()))
    }
}

const EXCHANGED: &str = "the database was made, dropped or exchanged by somebody else during the restore";
const DROPPED: &str = "it is restored in place: the previous database was dropped";

/// Of the live ones; 0 where there is none.
fn numbers(all: &[(Names, There)]) -> Vec<u64> {
    all.iter().map(|(_, there)| there.live.unwrap_or(0)).collect()
}

fn idents(names: &Names) -> (String, String, String) {
    (ident(&names.live), ident(&names.shadow), ident(&names.old))
}

fn literals(names: &[&str]) -> String {
    names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(", ")
}

async fn end_round(second: &mut Session, end_others: &str) -> Result<(), ClientError> {
    tokio::time::sleep(ROUND).await;
    second.query(end_others).await.map(drop)
}
