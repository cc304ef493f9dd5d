//! The configuration of databases on a MySQL or MariaDB server, as a source and as a target.

use crate::{
    address::{Address, Endpoint, Host},
    credentials::{self, OptionFile},
};
use backup_core::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// Databases of a server. The same for a source and for the target they are restored to; what concerns reading only is without effect
/// on a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MysqlConfig {
    /// Where the server is: `mysql://user@host:3306/database`, without a password. Options: `ssl-mode` (DISABLED, PREFERRED, REQUIRED,
    /// VERIFY_CA, VERIFY_IDENTITY), `ssl-ca`, `ssl-cert`, `ssl-key`, `socket`.
    pub url: String,
    /// The databases, if not the one in `url`; `["*"]`: all but those of the server itself. Restored to a server whose `url` names a
    /// database, a single one takes that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<String>,
    /// A file whose first line is the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Tables (`table` or `database.table`) whose rows are left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_data: Vec<String>,
    /// Tables (`table` or `database.table`) that are left out altogether.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_tables: Vec<String>,
    /// How long the global read lock and other locks are waited for, in seconds; 10 if not given. While a lock is waited for, writers
    /// of the application wait, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_timeout_seconds: Option<u32>,
    /// Restore: tables and other objects that the backup lacks stay; of those on both sides, the backup's are taken.
    #[serde(default, skip_serializing_if = "is_false")]
    pub merge: bool,
    /// Restore what a server of the other vendor made (MySQL to MariaDB, or back). What does not map fails, and nothing is changed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub other_vendor: bool,
}

impl MysqlConfig {
    /// The database that the address names.
    pub fn new(url: impl Into<String>) -> Self {
        MysqlConfig { url: url.into(), ..MysqlConfig::default() }
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
        let address = Address::parse(&read.url)?;
        if address.database.is_none() && read.databases.is_empty() {
            return Err(wrong("it names no database: add one to `url`, or set `databases`".to_owned()));
        }
        if read.databases.len() > 1 && read.databases.iter().any(|d| d == "*") {
            return Err(wrong("`*` stands alone in `databases`".to_owned()));
        }
        Ok(read)
    }

    /// Names of the databases; `None`: all but the server's own.
    pub(crate) fn names(&self) -> Result<Option<Vec<String>>> {
        if self.databases == ["*"] {
            return Ok(None);
        }
        match self.databases.is_empty() {
            false => Ok(Some(self.databases.clone())),
            true => Ok(Some(Address::parse(&self.url)?.database.into_iter().collect())),
        }
    }

    /// Address, user and password of the server. Reads the environment and files.
    pub(crate) fn endpoint(&self, component: &str) -> Result<Endpoint> {
        let mut address = Address::parse(&self.url)?;
        let options = OptionFile::of_this_user()?;
        // What the address says wins, and a place is taken as a whole.
        if address.host.is_none() && address.socket.is_none() && address.port.is_none() {
            address.host = options.get("host").map(str::to_owned);
            address.socket = options.get("socket").map(PathBuf::from);
            address.port = options.get("port").and_then(|p| p.parse().ok());
        }
        let mut ssl = address.ssl.clone().unwrap_or_default();
        if address.ssl.is_none() {
            if let Some(mode) = options.get("ssl-mode") {
                let unknown = |()| {
                    Error::new(ErrorKind::Usage, "read ~/.my.cnf", format!("ssl-mode={mode} is unknown"))
                };
                ssl.mode = mode.parse().map_err(unknown)?;
            }
            ssl.ca = options.get("ssl-ca").map(PathBuf::from);
        }
        let user = address.user.clone().or_else(|| options.get("user").map(str::to_owned));
        Ok(Endpoint {
            host: address.host(),
            user: user.or_else(|| std::env::var("USER").ok()).unwrap_or_else(|| "root".to_owned()),
            password: credentials::password(component, self.password_file.as_deref(), &options)?,
            ssl,
        })
    }

    /// For people, and what two restores to one place have in common.
    pub(crate) fn place(&self) -> String {
        let host = Address::parse(&self.url).map_or_else(|_| Host::Name("?".into(), 0), |a| a.host());
        match self.names() {
            Ok(Some(names)) => format!("mysql://{host}/{}", names.join("+")),
            _ => format!("mysql://{host}/*"),
        }
    }

    pub(crate) fn lock_seconds(&self) -> u32 {
        self.lock_timeout_seconds.unwrap_or(10).max(1)
    }

    pub(crate) fn excludes(list: &[String], database: &str, table: &str) -> bool {
        list.iter().any(|e| match e.split_once('.') {
            Some((d, t)) => d == database && t == table,
            None => e == table,
        })
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
    fn a_configuration_names_databases_and_no_unknown_key() {
        for wrong in [
            json!({}),
            json!({"url": "mysql://h"}),
            json!({"url": "postgres://h/d"}),
            json!({"url": "mysql://h/d", "databse": ["x"]}),
            json!({"url": "mysql://h", "databases": ["*", "x"]}),
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
    }

    #[test]
    fn a_table_is_excluded_with_or_without_its_database() {
        let list = ["logs".to_owned(), "app.sessions".to_owned()];
        assert!(MysqlConfig::excludes(&list, "x", "logs") && MysqlConfig::excludes(&list, "app", "sessions"));
        assert!(!MysqlConfig::excludes(&list, "x", "sessions"));
    }
}
