//! What there is on a server: its version, its databases, their tables and columns.

use crate::{
    client::Session,
    config::MysqlConfig,
    error::ClientError,
    quote::{text, texts},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Databases of the server itself.
pub(crate) const OF_THE_SERVER: [&str; 4] = ["mysql", "information_schema", "performance_schema", "sys"];
/// What restores make beside the data begins with this.
pub(crate) const OURS: &str = "_backup_";

/// Who made the server, and which version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Version {
    pub(crate) mariadb: bool,
    /// Major, minor, patch.
    pub(crate) number: (u32, u32, u32),
}

impl Version {
    pub(crate) async fn of(session: &mut Session) -> Result<Self, ClientError> {
        let said = session.value("SELECT VERSION()").await?.unwrap_or_default();
        Self::parse(&said).ok_or_else(|| {
            ClientError::Foreign(format!("it says `{said}`, which is no version of MySQL or MariaDB"))
        })
    }

    /// As a server says it (`9.7.4-2`, `11.8.6-MariaDB-log`), and as it is printed here (`MySQL 9.7.4`). `None`: it is no version.
    pub(crate) fn parse(said: &str) -> Option<Self> {
        let mariadb = said.contains("MariaDB");
        // Old replication protocols made MariaDB say "5.5.5-10.6.12-MariaDB".
        let said = said.strip_prefix("5.5.5-").filter(|_| mariadb).unwrap_or(said);
        let said = said.trim_start_matches(|c: char| !c.is_ascii_digit());
        let mut parts = said.split(|c: char| c != '.' && !c.is_ascii_digit()).next()?.split('.');
        let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        // It decides nothing.
        let patch = parts.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Some(Version { mariadb, number: (major, minor, patch) })
    }

    /// Whether it is MySQL of at least this version.
    pub(crate) fn mysql_from(&self, major: u32, minor: u32) -> bool {
        !self.mariadb && (self.number.0, self.number.1) >= (major, minor)
    }

    /// Whether it is MariaDB of at least this version.
    pub(crate) fn mariadb_from(&self, major: u32, minor: u32) -> bool {
        self.mariadb && (self.number.0, self.number.1) >= (major, minor)
    }

    /// Versions of one series hold each other's data.
    pub(crate) fn series(&self) -> (u32, u32) {
        (self.number.0, self.number.1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (a, b, c) = self.number;
        write!(f, "{} {a}.{b}.{c}", if self.mariadb { "MariaDB" } else { "MySQL" })
    }
}

/// A database and its tables.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) charset: String,
    pub(crate) collation: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) sequences: Vec<String>,
    /// Tables and sequences that are excluded.
    pub(crate) left_out: Vec<String>,
}

/// A table as it is read.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) engine: String,
    /// Bytes, as the server estimates.
    pub(crate) size: u64,
    /// The server keeps the history of its rows: the columns that say from when to when.
    pub(crate) period: Option<Period>,
    pub(crate) columns: Vec<Column>,
}

/// From when to when a row was valid.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Period {
    pub(crate) start: String,
    pub(crate) end: String,
    /// They are numbers of transactions, which are worth nothing elsewhere.
    pub(crate) by_transaction: bool,
}

/// The estimate is nothing that makes two listings differ.
impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.engine, &self.period, &self.columns)
            == (&other.name, &other.engine, &other.period, &other.columns)
    }
}

/// A column that holds data: not computed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// As in a declaration, in small letters.
    pub(crate) data_type: String,
    pub(crate) charset: Option<String>,
    /// It numbers the rows by itself.
    pub(crate) automatic: bool,
    /// Of a default that names a sequence.
    pub(crate) sequence_default: Option<String>,
}

/// How the values of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    /// Base64 of its bytes: those of a text in a character set that not every byte survives, too.
    Base64,
    /// All digits of a short floating-point number, which the server would round.
    Float,
}

impl Column {
    pub(crate) fn form(&self) -> Form {
        match self.data_type.as_str() {
            "tinyblob" | "blob" | "mediumblob" | "longblob" | "binary" | "varbinary" | "bit" | "vector" => {
                Form::Base64
            }
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geomcollection" => Form::Base64,
            "float" => Form::Float,
            "enum" | "set" | "json" => Form::Text,
            _ => match self.charset.as_deref() {
                None | Some("utf8mb4" | "utf8mb3" | "utf8" | "latin1" | "ascii") => Form::Text,
                Some(_) => Form::Base64,
            },
        }
    }
}

impl Default for Period {
    /// Those of a table that does not name them; they are not listed among its columns.
    fn default() -> Self {
        Period { start: "row_start".into(), end: "row_end".into(), by_transaction: false }
    }
}

impl Table {
    /// Whether a snapshot shows it as it was.
    pub(crate) fn is_transactional(&self) -> bool {
        matches!(self.engine.to_ascii_lowercase().as_str(), "innodb" | "rocksdb" | "ndbcluster" | "ndb")
    }
}

impl Database {
    /// Restores make such ones, and clear them away.
    pub(crate) fn is_for_backup(name: &str) -> bool {
        !OF_THE_SERVER.contains(&name.to_ascii_lowercase().as_str()) && !name.starts_with(OURS)
    }
}

/// The databases of these names, or all but the server's own. One that is not there is left out.
pub(crate) async fn list(
    session: &mut Session,
    names: Option<&[String]>,
    config: &MysqlConfig,
    version: &Version,
) -> Result<Vec<Database>, ClientError> {
    let which = match names {
        Some(names) => format!("WHERE SCHEMA_NAME IN ({})", texts(names)),
        None => String::new(),
    };
    let sql = format!(
        "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA {which} ORDER BY SCHEMA_NAME"
    );
    let mut databases = Vec::new();
    for row in session.rows(&sql).await? {
        let [name, charset, collation] = fields(row);
        if names.is_none() && !Database::is_for_backup(&name) {
            continue;
        }
        let (tables, sequences, left_out) = Default::default();
        let mut database = Database { name, charset, collation, tables, sequences, left_out };
        list_tables(session, &mut database, config, version).await?;
        databases.push(database);
    }
    Ok(databases)
}

async fn list_tables(
    session: &mut Session,
    database: &mut Database,
    config: &MysqlConfig,
    version: &Version,
) -> Result<(), ClientError> {
    let schema = text(&database.name);
    let sql = format!(
        "SELECT TABLE_NAME, TABLE_TYPE, ENGINE, DATA_LENGTH FROM information_schema.TABLES WHERE TABLE_SCHEMA = {schema} ORDER BY TABLE_NAME"
    );
    for row in session.rows(&sql).await? {
        let [name, kind, engine, size] = fields(row);
        if kind != "VIEW" && MysqlConfig::excludes(&config.exclude_tables, &database.name, &name) {
            database.left_out.push(name);
            continue;
        }
        match kind.as_str() {
            "SEQUENCE" => database.sequences.push(name),
            "BASE TABLE" | "SYSTEM VERSIONED" => database.tables.push(Table {
                name,
                engine,
                size: size.parse().unwrap_or(0),
                period: (kind == "SYSTEM VERSIONED").then(Period::default),
                columns: Vec::new(),
            }),
            _ => {}
        }
    }
    let sql = format!(
        "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, CHARACTER_SET_NAME, EXTRA, GENERATION_EXPRESSION, COLUMN_DEFAULT \
         FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {schema} ORDER BY TABLE_NAME, ORDINAL_POSITION"
    );
    let mut at = 0;
    let mut columns = session.rows(&sql).await?;
    // Names are compared here as bytes; the server sorts by collations.
    columns.sort_by(|a, b| a[0].cmp(&b[0]));
    database.tables.sort_by(|a, b| a.name.cmp(&b.name));
    for row in columns {
        let default = row.get(6).cloned().flatten();
        let charset = row.get(3).cloned().flatten();
        let [table, name, data_type, _, extra, generated, _] = fields(row);
        while database.tables.get(at).is_some_and(|t| t.name < table) {
            at += 1;
        }
        let Some(table) = database.tables.get_mut(at).filter(|t| t.name == table) else { continue };
        if let Some(period) = &mut table.period {
            period.by_transaction |= generated.starts_with("ROW ") && data_type.starts_with("bigint");
            match generated.as_str() {
                "ROW START" => period.start.clone_from(&name),
                "ROW END" => period.end.clone_from(&name),
                _ => {}
            }
        }
        let extra = extra.to_ascii_uppercase();
        // An expression as a default says DEFAULT_GENERATED, which is another thing.
        let computed = !generated.is_empty() || extra.contains("VIRTUAL") || extra.contains("STORED");
        if computed {
            continue;
        }
        let calls = |d: &String| ["nextval(", "lastval("].iter().any(|f| d.to_ascii_lowercase().contains(f));
        let sequence_default = default.filter(|d| version.mariadb && calls(d));
        let automatic = extra.contains("AUTO_INCREMENT");
        let data_type = data_type.to_ascii_lowercase();
        table.columns.push(Column { name, data_type, charset, automatic, sequence_default });
    }
    Ok(())
}

/// The values of a row; what is NULL or missing is empty.
pub(crate) fn fields<const N: usize>(row: Vec<Option<String>>) -> [String; N] {
    let mut values = row.into_iter().map(Option::unwrap_or_default);
    std::array::from_fn(|_| values.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        let v = Version::parse("11.8.6-MariaDB-0+deb13u1-log").unwrap();
        assert!(v.mariadb_from(10, 11) && !v.mysql_from(5, 7));
        assert_eq!(v.to_string(), "MariaDB 11.8.6");
        let number = |said| Version::parse(said).map(|v| v.number);
        assert_eq!(number("5.5.5-10.6.12-MariaDB"), Some((10, 6, 12)));
        assert_eq!(number("8.0.36-28.1"), Some((8, 0, 36)));
        let v = Version::parse("9.7.4-2").unwrap();
        assert!(v.mysql_from(8, 2));
        // As backups note it.
        for v in [v, Version::parse("11.8.6-MariaDB").unwrap()] {
            assert_eq!(Version::parse(&v.to_string()), Some(v));
        }
        for wrong in ["", "MySQL", "9", "x.y", "99999999999.1"] {
            assert_eq!(number(wrong), None, "{wrong}");
        }
    }
}
