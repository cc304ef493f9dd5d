//! The binary log during a restore. It is on, as for any other change: replicas and point-in-time recovery live by it. Only who asks for
//! it restores without, and only where nobody replicates.

use crate::{MysqlConfig, catalog::Version, client::Session, error::ClientError, server::Server};
use backup_core::{ContainerEngine, HostRunner, Incoming, Refusal, Survey, ToolCommand, output_of};
use std::time::Duration;

/// As the library calls it where the room for the data itself is short.
const SPACE: &str = "too-little-space";
/// For a session whose changes are to be in no log.
pub(super) const SWITCH_OFF: &str = "SET SESSION sql_log_bin = 0";
const LOOKING: Duration = Duration::from_secs(20);

/// Sets the session so that what it does is in no log. An error: this user may not.
pub(super) async fn switch_off(session: &mut Session) -> Result<(), ClientError> {
    session.run(SWITCH_OFF).await.map(drop)
}

/// What the plan says of the log, and of the room on the server's disks when `freed` bytes of data are gone.
pub(super) async fn survey(
    session: &mut Session,
    config: &MysqlConfig,
    version: &Version,
    (server, engine, freed): (&Server, &dyn ContainerEngine, u64),
    incoming: &Incoming,
    survey: &mut Survey,
) -> Result<(), ClientError> {
    let log = log_of(session).await?;
    let data = session.value("SELECT @@GLOBAL.datadir").await?.unwrap_or_default();
    let data = room(server, engine, &data).await.map(|room| room.with(freed));
    survey.free_bytes = data.as_ref().map(|room| room.free);
    let Some(log) = log else {
        if config.skip_binary_log {
            survey
                .notes
                .push("the server writes no binary log: skip_binary_log is without effect".to_owned());
        }
        return Ok(());
    };
    if config.skip_binary_log {
        let without = "the restore is NOT in the binary log: a point-in-time recovery from an older backup does not bring it; make a new backup after it";
        survey.notes.push(without.to_owned());
        survey.refusals.extend(replicas(session, version).await?);
        survey.refusals.extend(may_not(session).await?);
        return Ok(());
    }
    survey
        .notes
        .push("the restore is written to the binary log, which needs as much room as the rows".to_owned());
    if incoming.selection.is_all() {
        let needs = incoming.component.proof.count("all", "bytes");
        let room = room(server, engine, &log).await.map(|room| match &data {
            Some(data) if data.disk == room.disk => data.clone(),
            _ => room,
        });
        survey.refusals.extend(no_room(needs, &log, data, room));
    }
    Ok(())
}

/// The folder of the binary log, if the server writes one.
async fn log_of(session: &mut Session) -> Result<Option<String>, ClientError> {
    let on = session.value("SELECT @@GLOBAL.log_bin").await?;
    if !matches!(on.as_deref(), Some("1" | "ON")) {
        return Ok(None);
    }
    let name = session.value("SELECT @@GLOBAL.log_bin_basename").await?.unwrap_or_default();
    Ok(Some(name.rsplit_once('/').map_or_else(|| name.clone(), |(folder, _)| folder.to_owned())))
}

/// Whoever would be left without the restore.
async fn replicas(session: &mut Session, version: &Version) -> Result<Option<Refusal>, ClientError> {
    let refused = |why: String| {
        let hint = "leave skip_binary_log (--skip-binary-log) out";
        Some(Refusal::new(format!("without the binary log {why}"), hint))
    };
    let list = if version.mysql_from(8, 4) { "SHOW REPLICAS" } else { "SHOW SLAVE HOSTS" };
    match session.rows(list).await {
        Ok(rows) => {
            // Also those that do not say who they are, as far as this user sees them.
            let reading = "SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%'";
            let attached = rows.len().max(session.rows(reading).await?.len());
            if attached > 0 {
                return Ok(refused(format!(
                    "the replicas of the server ({attached}) would lack the restore"
                )));
            }
        }
        Err(e) if e.is_lost() => return Err(e),
        Err(_) => {
            return Ok(refused(
                "replicas would lack the restore, and this user may not see whether there are any (GRANT REPLICATION SLAVE, or REPLICATION MASTER ADMIN on MariaDB)".to_owned(),
            ));
        }
    }
    let cluster = match version.mariadb {
        true => "SHOW GLOBAL VARIABLES WHERE Variable_name = 'wsrep_on' AND Value = 'ON'",
        false => "SHOW GLOBAL VARIABLES WHERE Variable_name = 'group_replication_group_name' AND Value <> ''",
    };
    let is_one = session.first(cluster).await?.is_some();
    Ok(is_one
        .then(|| refused("the other servers of the cluster would lack the restore".to_owned()))
        .flatten())
}

async fn may_not(session: &mut Session) -> Result<Option<Refusal>, ClientError> {
    match switch_off(session).await {
        Ok(()) => session.run("SET SESSION sql_log_bin = 1").await.map(|_| None),
        Err(e) if e.is_lost() => Err(e),
        Err(e) => {
            let why = format!("this user may not switch the binary log off: {e}");
            let hint = "GRANT SESSION_VARIABLES_ADMIN ON *.* (MariaDB: BINLOG ADMIN) TO the user, or leave skip_binary_log out";
            Ok(Some(Refusal::new(why, hint)))
        }
    }
}

/// A disk, and how much of it is free.
#[derive(Clone, Debug, PartialEq)]
struct Room {
    disk: String,
    free: u64,
}

impl Room {
    /// When so much of it is dropped.
    fn with(self, freed: u64) -> Self {
        Room { free: self.free.saturating_add(freed), ..self }
    }
}

/// How much room there is where a folder of the server is. `None`: that cannot be looked at.
async fn room(server: &Server, engine: &dyn ContainerEngine, folder: &str) -> Option<Room> {
    if !folder.starts_with('/') {
        return None;
    }
    let df = ToolCommand::new("df").arg("-Pk").arg("--").arg(folder);
    let said = match server.inside(engine).await {
        Some((facts, _)) => output_of(&*engine.runner(&facts.id), df, 64 << 10, LOOKING).await,
        None if server.is_on_this_host() => output_of(&HostRunner, df, 64 << 10, LOOKING).await,
        None => return None,
    };
    parse(&String::from_utf8_lossy(&said.ok()?))
}

/// What `df -P` says of one folder: disk, size, used, free, use, where it is mounted.
fn parse(said: &str) -> Option<Room> {
    let mut words = said.lines().nth(1)?.split_ascii_whitespace();
    let (disk, free) = (words.next()?, words.nth(2)?.parse::<u64>().ok()?);
    let mounted = words.nth(1)?;
    Some(Room { disk: format!("{disk} {mounted}"), free: free.saturating_mul(1024) })
}

/// The log has as many bytes as the rows, about. On the disk of the data they need room twice.
fn no_room(needs: u64, folder: &str, data: Option<Room>, log: Option<Room>) -> Option<Refusal> {
    let log = log?;
    let beside = data.filter(|data| data.disk == log.disk);
    let all = if beside.is_some() { needs.saturating_mul(2) } else { needs };
    (log.free < all).then(|| {
        let besides = if beside.is_some() { ", and the rows as much on the same disk" } else { "" };
        let why = format!("the binary log in {folder} needs about {needs} bytes{besides}: there are less");
        let hint = "make room, PURGE BINARY LOGS, or restore without it where there are no replicas (skip_binary_log, --skip-binary-log)";
        Refusal::new(why, hint).acceptable_as(SPACE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_read_from_what_df_says() {
        let said = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n/dev/vda1          1000      400       600      40% /var/lib/mysql\n";
        let room = parse(said).unwrap();
        assert_eq!((room.disk.as_str(), room.free), ("/dev/vda1 /var/lib/mysql", 600 << 10));
        assert_eq!(parse("df: /x: No such file or directory\n"), None);
    }

    #[test]
    fn rows_and_their_log_need_room_twice_on_one_disk() {
        let on = |disk: &str, free| Some(Room { disk: disk.into(), free });
        assert_eq!(no_room(100, "/l", on("a", 150), on("b", 100)), None);
        assert!(no_room(100, "/l", on("a", 150), on("a", 150)).unwrap().why.contains("same disk"));
        assert_eq!(no_room(100, "/l", on("a", 200), on("a", 200)), None);
        assert!(no_room(100, "/l", None, on("b", 99)).is_some());
        assert_eq!(no_room(100, "/l", on("a", 1), None), None, "nothing is known of it");
    }
}
