//! The configuration of a PostgreSQL database, as a source and as a target.

use crate::address::Address;
use backup_core::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{fmt, path::PathBuf};

/// Databases of a PostgreSQL server. The same for a source and for the target they are restored to; what concerns reading only is
/// without effect on a target. No passwords: they come from `BACKUP_<NAME>_PASSWORD`, `password_file`, the container's own
/// environment, `PGPASSWORD` or `~/.pgpass`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// Address of the server and the database: `postgres://user@host:port/database?sslmode=verify-full`. A host that is a folder
    /// (`%2Frun%2Fpostgresql`), or none, is a Unix socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The container that the server runs in, instead of a URL: user, password and database are taken from its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The database, if the URL does not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Several databases in one backup, each in a folder of its name, or all but templates: `["*"]`. A restore to a server alone gives
    /// each its own name, one to a place that names a single database gives a single one that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// The user, if the URL does not name it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A file whose first line is the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Folder of `pg_dump` and `pg_restore` on this host. If not given, those of the server's version are looked for here and in
    /// the server's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<PathBuf>,
    /// How long to wait for a lock on a table, in seconds; 30 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_timeout: Option<u32>,
    /// Tables whose rows are left out, as `schema.table`; `*` stands for any characters. Their definitions are kept. Of several databases
    /// `database/schema.table` means those of one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_table_data: Vec<String>,
    /// Tables that are left out altogether, named likewise; with them goes what cannot be without them: views that read them, foreign
    /// keys that lead to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_tables: Vec<String>,
    /// How the rows are read; if not given `native`, or `dump` where the server has no sessions for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// How long another session may wait for a table that is being read before the backup of this database gives way and fails, in
    /// seconds; no limit if not given. Whoever waits is named in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_way_after: Option<u32>,
    /// Roles with their passwords and memberships, and tablespaces, which belong to the whole server. A source reads them, too: unless this
    /// says otherwise, with `databases = ["*"]` only. A restore makes those that are not there (`restore --globals`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub globals: Option<bool>,
    /// Restore: owners and privileges are not set; everything belongs to the user that restores.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_owner: bool,
    /// Restore: definitions alone, without rows.
    #[serde(default, skip_serializing_if = "is_false")]
    pub schema_only: bool,
    /// Restore: rows alone. The definitions that are there stay, and their rows are replaced by the backup's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub data_only: bool,
    /// Restore: single tables go into the database that is there, whose other tables stay.
    #[serde(default, skip_serializing_if = "is_false")]
    pub merge: bool,
    /// Restore: the databases that are there are dropped before they are restored (`restore --in-place`). Nothing is kept for an undo.
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_place: bool,
    /// Restore: database to connect to while the other one is replaced; `postgres` if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_database: Option<String>,
}

/// How the rows of a database are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "PostgresMethod")]
#[non_exhaustive]
pub enum Method {
    /// Several sessions side by side, a file for each table.
    #[default]
    Native,
    /// By `pg_dump -Fc` alone: one file.
    Dump,
}

/// All databases but templates.
const ALL: &str = "*";

impl fmt::Display for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let database = self.database.iter().map(|d| format!("/{d}")).collect::<String>();
        match (&self.url, &self.container) {
            (Some(url), _) => f.write_str(url)?,
            (None, name) => write!(f, "container://{}{database}", name.as_deref().unwrap_or_default())?,
        }
        match self.databases.is_empty() {
            true => Ok(()),
            false => write!(f, " ({})", self.databases.join(", ")),
        }
    }
}

impl PostgresConfig {
    /// The database of this address.
    pub fn url(url: impl Into<String>) -> Self {
        PostgresConfig { url: Some(url.into()), ..Self::default() }
    }

    /// The server in this container.
    pub fn container(name: impl Into<String>) -> Self {
        PostgresConfig { container: Some(name.into()), ..Self::default() }
    }

    /// As the JSON that `Backend::source` and `Backend::target` take.
    pub fn to_value(&self) -> Value {
        // A struct of strings, lists and switches.
        serde_json::to_value(self).unwrap_or_default()
    }

    pub(crate) fn read(config: Value, component: &str) -> Result<Self> {
        let wrong = |message: String| {
            Error::new(ErrorKind::Usage, "read the configuration of PostgreSQL", message).on(component)
        };
        let read: PostgresConfig = serde_json::from_value(config).map_err(|e| wrong(e.to_string()))?;
        match (&read.url, &read.container) {
            (Some(url), None) => drop(Address::parse(url)?),
            (None, Some(name)) if !name.is_empty() => {}
            _ => return Err(wrong("it needs one of `url` and `container`".to_owned())),
        }
        if read.database.is_some() && !read.databases.is_empty() {
            return Err(wrong("`database` and `databases` exclude each other".to_owned()));
        }
        if read.databases.len() > 1 && read.databases.iter().any(|d| d == ALL) {
            return Err(wrong("`*` stands alone in `databases`".to_owned()));
        }
        if read.in_place && (read.merge || read.schema_only || read.data_only) {
            let message = "`in_place` excludes `merge`, `schema_only` and `data_only`";
            return Err(wrong(message.to_owned()));
        }
        let twice = |name: &&String| read.databases.iter().filter(|other| other == name).count() > 1;
        match read.databases.iter().find(|name| name.is_empty() || twice(name)) {
            None => Ok(read),
            Some(name) => Err(wrong(format!("`{name}` in `databases` names nothing, or is there twice"))),
        }
    }

    /// Whether all databases of the server are meant.
    pub(crate) fn means_all(&self) -> bool {
        self.databases == [ALL]
    }

    /// The single database that is named.
    pub(crate) fn named_database(&self) -> Option<String> {
        let of_url = || Address::parse(self.url.as_deref()?).ok()?.database;
        self.database.clone().or_else(of_url)
    }

    /// Whether a source reads roles and tablespaces.
    pub(crate) fn reads_globals(&self) -> bool {
        self.globals.unwrap_or_else(|| self.means_all())
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(b: &bool) -> bool {
    !*b
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_configuration_names_one_server_and_no_unknown_key() {
        for wrong in [
            json!({}),
            json!({"container": ""}),
            json!({"url": "postgres://h/d", "container": "c"}),
            json!({"url": "mysql://h/d"}),
            json!({"url": "postgres://h/d", "databse": "x"}),
            json!({"url": "postgres://h", "databases": ["*", "x"]}),
            json!({"url": "postgres://h", "databases": ["x", "x"]}),
            json!({"container": "c", "database": "x", "databases": ["y"]}),
            json!({"container": "c", "in_place": true, "merge": true}),
        ] {
            assert_eq!(
                PostgresConfig::read(wrong.clone(), "db").unwrap_err().kind(),
                ErrorKind::Usage,
                "{wrong}"
            );
        }
        let read = PostgresConfig::read(json!({"container": "c", "database": "d"}), "db").unwrap();
        assert_eq!(PostgresConfig::read(read.to_value(), "db").unwrap(), read);
        assert_eq!((read.to_string(), read.reads_globals()), ("container://c/d".to_owned(), false));
        let all = PostgresConfig::read(json!({"url": "postgres://h", "databases": ["*"]}), "db").unwrap();
        assert_eq!((all.to_string(), all.reads_globals()), ("postgres://h (*)".to_owned(), true));
    }

    #[test]
    fn a_password_in_an_address_is_refused_and_not_shown() {
        let e = PostgresConfig::read(json!({"url": "postgres://u:hunter2@h/d"}), "db").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(!format!("{e} {e:?}").contains("hunter2") && e.hint_text().is_some());
    }
}
