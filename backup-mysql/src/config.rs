//! The configuration of databases on a MySQL or MariaDB server, as a source and as a target.

use crate::address::{Address, Host};
use backup_core::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// Databases of a server. The same for a source and for the target they are restored to; what concerns reading only is without effect
/// on a target. No passwords: they come from `BACKUP_<NAME>_PASSWORD`, `password_file`, the container's own environment, `MYSQL_PWD` or
/// `~/.my.cnf`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MysqlConfig {
    /// Where the server is: `mysql://user@host:3306/database`, without a password. Options: `ssl-mode` (DISABLED, PREFERRED, REQUIRED,
    /// VERIFY_CA, VERIFY_IDENTITY), `ssl-ca`, `ssl-cert`, `ssl-key`, `socket`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The container that the server runs in, instead of a URL: user, password and database are taken from its environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The user, if the URL does not name it; in a container `root`, if its environment has the password, else the user that it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The databases, if not the one in `url` or that of the container; `["*"]`: all but those of the server itself. Restored to a
    /// server whose `url` names a database, a single one takes that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// How a database is read. A restore knows it from the backup.
    #[serde(default, skip_serializing_if = "is_default")]
    pub method: Method,
    /// A file whose first line is the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Tables (`table` or `database.table`, `*` stands for any characters) whose rows are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_data: Vec<String>,
    /// Tables, named likewise, that are left out altogether; with them views that read them and foreign keys that lead to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_tables: Vec<String>,
    /// Users, roles and their grants, which belong to the whole server. A source reads them, too: unless this says otherwise,
    /// with `databases = ["*"]` only. A restore makes those that are not there (`restore --globals`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub globals: Option<bool>,
    /// How long the global read lock and other locks are waited for, in seconds; 10 if not given. While a lock is waited for, writers
    /// of the application wait, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_timeout_seconds: Option<u32>,
    /// Restore: tables and other objects that the backup lacks stay; of those on both sides, the backup's are taken.
    #[serde(default, skip_serializing_if = "is_false")]
    pub merge: bool,
    /// Restore: what is there is dropped before it is restored (`restore --in-place`). Nothing is kept for an undo.
    #[serde(default, skip_serializing_if = "is_false")]
    pub in_place: bool,
    /// Restore: definitions without rows (`restore --schema-only`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub schema_only: bool,
    /// Restore: rows and the numbers of sequences without definitions. Those that are there stay, their rows are replaced
    /// (`restore --data-only`).
    #[serde(default, skip_serializing_if = "is_false")]
    pub data_only: bool,
    /// Restore: none of it is written to the binary log (`restore --skip-binary-log`). Refused where a replica is attached.
    #[serde(default, skip_serializing_if = "is_false")]
    pub skip_binary_log: bool,
}

/// How a database is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Method {
    /// By several sessions at one moment, every row counted.
    #[default]
    Native,
    /// By the vendor's program (`mariadb-dump`, `mysqldump`), of the server's container or of this host: one file of statements for each
    /// database.
    Dump,
}

impl MysqlConfig {
    /// The database of this address.
    pub fn url(url: impl Into<String>) -> Self {
        MysqlConfig { url: Some(url.into()), ..MysqlConfig::default() }
    }

    /// The server in this container.
    pub fn container(name: impl Into<String>) -> Self {
        MysqlConfig { container: Some(name.into()), ..MysqlConfig::default() }
    }

    /// As the JSON that `Backend::source` and `Backend::target` take.
    pub fn to_value(&self) -> Value {
        // A struct of strings, lists and switches.
        serde_json::to_value(self).unwrap_or_default()
    }

    pub(crate) fn read(config: Value, component: &str) -> Result<Self> {
        let wrong = |message: String| {
            Error::new(ErrorKind::Usage, "read the configuration of MySQL", message).on(component)
        };
        let read: MysqlConfig = serde_json::from_value(config).map_err(|e| wrong(e.to_string()))?;
        match (&read.url, &read.container) {
            (Some(url), None) => {
                if Address::parse(url)?.database.is_none() && read.databases.is_empty() {
                    let message = "it names no database: add one to `url`, or set `databases`";
                    return Err(wrong(message.to_owned()));
                }
            }
            (None, Some(name)) if !name.is_empty() => {}
            _ => return Err(wrong("it needs one of `url` and `container`".to_owned())),
        }
        if read.schema_only && read.data_only {
            return Err(wrong("`schema_only` and `data_only` exclude each other".to_owned()));
        }
        if read.in_place && (read.merge || read.schema_only || read.data_only) {
            return Err(wrong("`in_place` excludes `merge`, `schema_only` and `data_only`".to_owned()));
        }
        if read.databases.len() > 1 && read.databases.iter().any(|d| d == "*") {
            return Err(wrong("`*` stands alone in `databases`".to_owned()));
        }
        Ok(read)
    }

    /// For people, and what two restores to one place have in common.
    pub(crate) fn place(&self) -> String {
        let address = self.url.as_deref().and_then(|url| Address::parse(url).ok());
        let host = match (&self.container, &address) {
            (Some(name), _) => format!("container://{name}"),
            (None, Some(address)) => format!("mysql://{}", address.host()),
            (None, None) => format!("mysql://{}", Host::Name("?".into(), 0)),
        };
        let named: Vec<String> = match self.databases.is_empty() {
            false => self.databases.clone(),
            true => address.and_then(|a| a.database).into_iter().collect(),
        };
        match named.is_empty() {
            true => host,
            false => format!("{host}/{}", named.join("+")),
        }
    }

    /// Whether a source reads users and grants; `None`: if it may.
    pub(crate) fn reads_globals(&self) -> Option<bool> {
        match self.globals {
            None if self.databases == ["*"] => None,
            said => Some(said.unwrap_or(false)),
        }
    }

    pub(crate) fn lock_seconds(&self) -> u32 {
        self.lock_timeout_seconds.unwrap_or(10).max(1)
    }

    pub(crate) fn excludes(list: &[String], database: &str, table: &str) -> bool {
        list.iter().any(|pattern| Self::pattern_names(pattern, database, table))
    }

    /// Whether a pattern of an exclusion means this table.
    pub(crate) fn pattern_names(pattern: &str, database: &str, table: &str) -> bool {
        match pattern.split_once('.') {
            Some((d, t)) => matches(d, database) && matches(t, table),
            None => matches(pattern, table),
        }
    }
}

/// `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(b: &bool) -> bool {
    !*b
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_configuration_names_databases_and_no_unknown_key() {
        for wrong in [
            json!({}),
            json!({"url": "mysql://h"}),
            json!({"url": "postgres://h/d"}),
            json!({"url": "mysql://h/d", "databse": ["x"]}),
            json!({"url": "mysql://h", "databases": ["*", "x"]}),
            json!({"url": "mysql://h/d", "container": "c"}),
            json!({"container": ""}),
            json!({"container": "c", "schema_only": true, "data_only": true}),
            json!({"container": "c", "in_place": true, "data_only": true}),
        ] {
            assert_eq!(
                MysqlConfig::read(wrong.clone(), "db").unwrap_err().kind(),
                ErrorKind::Usage,
                "{wrong}"
            );
        }
        let read = MysqlConfig::read(json!({"url": "mysql://u@h/d"}), "db").unwrap();
        assert_eq!(MysqlConfig::read(read.to_value(), "db").unwrap(), read);
        assert_eq!(read.place(), "mysql://h:3306/d");
        let inside = MysqlConfig::read(json!({"container": "c", "databases": ["a", "b"]}), "db").unwrap();
        assert_eq!(inside.place(), "container://c/a+b");
        assert_eq!(MysqlConfig::container("c").place(), "container://c");
    }

    #[test]
    fn a_table_is_excluded_with_or_without_its_database() {
        let list = ["logs".to_owned(), "app.sessions".to_owned()];
        assert!(MysqlConfig::excludes(&list, "x", "logs") && MysqlConfig::excludes(&list, "app", "sessions"));
        assert!(!MysqlConfig::excludes(&list, "x", "sessions"));
        for (pattern, table, is) in [
            ("log*", "logs", true),
            ("log*", "blogs", false),
            ("*log*s", "my_log_of_cats", true),
            ("a*a", "a", false),
            ("a*b*c", "a1b2bc", true),
            ("a*b", "a1bc", false),
            ("a.b*", "b1", false),
            ("ap*.b*", "b1", true),
        ] {
            assert_eq!(MysqlConfig::pattern_names(pattern, "app", table), is, "{pattern} {table}");
        }
    }
}
