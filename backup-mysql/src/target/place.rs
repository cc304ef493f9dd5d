//! Where a restore happens, and the names of what it makes beside the data.

use super::binary_log;
use crate::{
    MysqlConfig,
    address::Endpoint,
    catalog::{OURS, Version},
    client::{Session, connect},
    error::ClientError,
    quote::text,
    server::Server,
};
use backup_core::{BackupId, ContainerEngine, Error, ErrorKind, NoContainers, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long an earlier process of the same restore is waited for: its connection is closed, its last statement may go on.
const PREDECESSOR: Duration = Duration::from_secs(600);

/// A restore: what it is of, and its name. Enough to revert or settle it in another process.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    version: u8,
    pub(crate) component: String,
    pub(crate) config: MysqlConfig,
    id: String,
    #[serde(skip, default = "no_containers")]
    engine: Arc<dyn ContainerEngine>,
}

fn no_containers() -> Arc<dyn ContainerEngine> {
    Arc::new(NoContainers)
}

impl Place {
    pub(crate) fn new(component: &str, config: MysqlConfig, engine: Arc<dyn ContainerEngine>) -> Self {
        let id = BackupId::generate();
        Place { version: 1, component: component.to_owned(), config, id: id.as_str().to_owned(), engine }
    }

    pub(crate) fn from_undo(undo: Value, engine: Arc<dyn ContainerEngine>) -> Result<Self> {
        let wrong = |e: String| Error::new(ErrorKind::Usage, "read what a restore of MySQL left", e);
        let place: Place = serde_json::from_value(undo).map_err(|e| wrong(e.to_string()))?;
        let is_id = place.id.len() == 26 && place.id.bytes().all(|b| b.is_ascii_alphanumeric());
        match (place.version, is_id) {
            (1, true) => Ok(Place { engine, ..place }),
            _ => Err(wrong("it is of another version of this program".to_owned())),
        }
    }

    pub(crate) fn to_undo(&self) -> Value {
        // A struct of strings.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The schema in which the restore keeps what must be undone. Made first, dropped last.
    pub(crate) fn journal(&self) -> String {
        format!("{OURS}{}", self.id)
    }

    /// The schema in which a database is made anew.
    pub(crate) fn shadow(&self, number: usize) -> String {
        format!("{}_new{number}", self.journal())
    }

    /// The schema to which the old tables of a database go.
    pub(crate) fn previous(&self, number: usize) -> String {
        format!("{}_old{number}", self.journal())
    }

    /// Where containers are looked for.
    pub(crate) fn engine(&self) -> &dyn ContainerEngine {
        &*self.engine
    }

    /// Where the server is now: a container may have another address than before.
    pub(crate) async fn server(&self) -> Result<Server> {
        Server::resolve(&self.config, &self.component, &self.engine).await
    }

    /// A session that changes what is there. No two of one restore are alive at once: it waits until the server is done with what an
    /// earlier process began.
    pub(crate) async fn control(&self) -> Result<(Session, Version)> {
        let endpoint = self.server().await?.endpoint;
        let failed = |e: ClientError| e.during(ErrorKind::Target, "connect").on(self.config.place());
        let mut session = connect(&endpoint).await.map_err(failed)?;
        let version = Version::of(&mut session).await.map_err(failed)?;
        self.set_up(&mut session).await.map_err(failed)?;
        let begun = Instant::now();
        let lock = format!("SELECT GET_LOCK({}, 5)", text(&self.journal()));
        while begun.elapsed() < PREDECESSOR {
            if session.value(&lock).await.map_err(failed)?.as_deref() == Some("1") {
                return Ok((session, version));
            }
        }
        let message = "another process of this restore is still at work on the server";
        Err(Error::new(ErrorKind::AlreadyRunning, "restore", message).on(self.config.place()))
    }

    /// A session that fills the shadow.
    pub(crate) async fn loader(&self, endpoint: &Endpoint) -> Result<Session, ClientError> {
        let mut session = connect(endpoint).await?;
        self.set_up(&mut session).await?;
        Ok(session)
    }

    async fn set_up(&self, session: &mut Session) -> Result<(), ClientError> {
        let lock = format!("lock_wait_timeout = {}", self.config.lock_seconds().min(10));
        session.try_set(&[&lock]).await?;
        if self.config.skip_binary_log {
            binary_log::switch_off(session).await?;
        }
        session.try_set(WRITING).await
    }
}

/// How a session that writes reads statements that are none of the backup's.
pub(super) const MODE: &str = "sql_mode = 'NO_AUTO_VALUE_ON_ZERO'";

/// What a session that writes needs.
const WRITING: &[&str] = &[
    MODE,
    "time_zone = '+00:00'",
    "foreign_key_checks = 0",
    "restrict_fk_on_non_standard_key = OFF",
    "unique_checks = 0",
    "check_constraint_checks = 0",
    "innodb_strict_mode = OFF",
    "sql_require_primary_key = OFF",
    "sql_generate_invisible_primary_key = OFF",
    "show_gipk_in_create_table_and_information_schema = ON",
    "system_versioning_alter_history = KEEP",
    "net_write_timeout = 86400",
    "net_read_timeout = 86400",
    "wait_timeout = 86400",
    "max_statement_time = 0",
    "max_error_count = 65535",
    "innodb_ddl_buffer_size = 67108864",
    "group_concat_max_len = 1048576",
    "information_schema_stats_expiry = 0",
    "sql_quote_show_create = 1",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restore_left_is_understood_and_nonsense_is_not() {
        let place = Place::new("db", MysqlConfig::url("mysql://u@h/app"), no_containers());
        let again = Place::from_undo(place.to_undo(), no_containers()).unwrap();
        assert_eq!((again.journal(), again.shadow(12)), (place.journal(), place.shadow(12)));
        assert!(place.previous(99).len() <= 64);
        assert!(!place.to_undo().to_string().contains("password"));
        let mut other = place.to_undo();
        other["id"] = "x`; DROP DATABASE app".into();
        assert!(Place::from_undo(other, no_containers()).is_err());
    }
}
