//! What a restore must remember, on the server itself: it is there for any later process, and goes with the restore.

use super::{outward::OutwardKey, place::Place};
use crate::{
    accounts::{Account, AccountStatement},
    catalog::fields,
    client::Session,
    definitions::Definition,
    error::ClientError,
    quote::{ident, qualified, text},
    stored::{DefinedIn, Object},
};

/// Key of the accounts that a restore makes.
const MADE_ACCOUNTS: &str = "made_accounts";

fn not_understood() -> ClientError {
    ClientError::Lost("the record of the restore cannot be understood".to_owned())
}

/// How far a restore is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Nothing is effective.
    Filling,
    /// From here on the data of the application may be changed.
    Publishing,
    Published,
}

/// A database that is restored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Restored {
    pub(crate) number: usize,
    /// In the backup.
    pub(crate) source: String,
    pub(crate) target: String,
    /// All of it: tables that the backup lacks go.
    pub(crate) whole: bool,
    /// Character set and collation of the new one; empty if not known.
    pub(crate) charset: String,
    pub(crate) collation: String,
    /// Those of the old one; empty: there was none.
    pub(crate) old_charset: String,
    pub(crate) old_collation: String,
}

/// A table that is put in the place of another, or only one of the two.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Move {
    pub(crate) database: usize,
    pub(crate) table: String,
    pub(crate) had_old: bool,
    pub(crate) has_new: bool,
}

/// The record of one restore.
pub(crate) struct Journal<'a> {
    place: &'a Place,
}

impl<'a> Journal<'a> {
    pub(crate) fn of(place: &'a Place) -> Self {
        Journal { place }
    }

    fn table(&self, name: &str) -> String {
        qualified(&self.place.journal(), name)
    }

    pub(crate) async fn make(&self, s: &mut Session) -> Result<(), ClientError> {
        s.run(&format!(
            "CREATE DATABASE {} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
            ident(&self.place.journal())
        ))
        .await?;
        for (name, columns) in [
            ("state", "k varchar(64) PRIMARY KEY, v longtext"),
            (
                "restored",
                "n int PRIMARY KEY, source varchar(64), target varchar(64), whole tinyint, charset varchar(64), \
                 collation varchar(64), old_charset varchar(64), old_collation varchar(64)",
            ),
            ("moves", "n int, name varchar(64), had_old tinyint, has_new tinyint, PRIMARY KEY (n, name)"),
            (
                "definitions",
                "id int AUTO_INCREMENT PRIMARY KEY, old tinyint, n int, object varchar(20), name varchar(64), \
                 parent varchar(64), statement longtext, context longtext",
            ),
            (
                "defaults",
                "n int, name varchar(64), col varchar(64), expression longtext, PRIMARY KEY (n, name, col)",
            ),
            (
                "outward_keys",
                "old tinyint, n int, name varchar(64), constraint_name varchar(64), clause longtext, \
                 PRIMARY KEY (old, n, name, constraint_name)",
            ),
            ("accounts", "id int AUTO_INCREMENT PRIMARY KEY, account longtext, statement longtext"),
        ] {
            s.run(&format!("CREATE TABLE {} ({columns}) ENGINE=InnoDB", self.table(name))).await?;
        }
        Ok(())
    }

    /// Whether there is one. Half-made ones count.
    pub(crate) async fn exists(&self, s: &mut Session) -> Result<bool, ClientError> {
        let sql = format!(
            "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
            text(&self.place.journal())
        );
        Ok(s.first(&sql).await?.is_some())
    }

    /// What is kept under a name; `None` also where the record was not made to its end.
    pub(crate) async fn get(&self, s: &mut Session, key: &str) -> Result<Option<String>, ClientError> {
        match s.value(&format!("SELECT v FROM {} WHERE k = {}", self.table("state"), text(key))).await {
            Err(e) if e.code() == Some(1146) => Ok(None),
            other => other,
        }
    }

    pub(crate) async fn set(&self, s: &mut Session, key: &str, value: &str) -> Result<(), ClientError> {
        s.run(&format!("REPLACE INTO {} VALUES ({}, {})", self.table("state"), text(key), text(value)))
            .await
            .map(drop)
    }

    pub(crate) async fn phase(&self, s: &mut Session) -> Result<Phase, ClientError> {
        Ok(match self.get(s, "phase").await?.as_deref() {
            Some("publishing") => Phase::Publishing,
            Some("published") => Phase::Published,
            _ => Phase::Filling,
        })
    }

    pub(crate) async fn enter(&self, s: &mut Session, phase: Phase) -> Result<(), ClientError> {
        let name = match phase {
            Phase::Filling => "filling",
            Phase::Publishing => "publishing",
            Phase::Published => "published",
        };
        self.set(s, "phase", name).await
    }

    /// In one transaction, so that a record is whole or absent.
    pub(crate) async fn write_databases(
        &self,
        s: &mut Session,
        list: &[Restored],
    ) -> Result<(), ClientError> {
        for d in list {
            s.run(&format!(
                "REPLACE INTO {} VALUES ({}, {}, {}, {}, {}, {}, {}, {})",
                self.table("restored"),
                d.number,
                text(&d.source),
                text(&d.target),
                u8::from(d.whole),
                text(&d.charset),
                text(&d.collation),
                text(&d.old_charset),
                text(&d.old_collation)
            ))
            .await?;
        }
        Ok(())
    }

    pub(crate) async fn databases(&self, s: &mut Session) -> Result<Vec<Restored>, ClientError> {
        let sql = format!(
            "SELECT n, source, target, whole, charset, collation, old_charset, old_collation FROM {} ORDER BY n",
            self.table("restored")
        );
        let rows = s.rows(&sql).await?.into_iter().map(|row| {
            let [n, source, target, whole, charset, collation, old_charset, old_collation] = fields(row);
            let number = n.parse().unwrap_or(0);
            Restored {
                number,
                source,
                target,
                whole: whole == "1",
                charset,
                collation,
                old_charset,
                old_collation,
            }
        });
        Ok(rows.collect())
    }

    pub(crate) async fn write_moves(&self, s: &mut Session, list: &[Move]) -> Result<(), ClientError> {
        for some in list.chunks(200) {
            let rows = some.iter().map(|m| {
                format!(
                    "({}, {}, {}, {})",
                    m.database,
                    text(&m.table),
                    u8::from(m.had_old),
                    u8::from(m.has_new)
                )
            });
            let rows = rows.collect::<Vec<_>>().join(", ");
            s.run(&format!("REPLACE INTO {} VALUES {rows}", self.table("moves"))).await?;
        }
        Ok(())
    }

    pub(crate) async fn moves(&self, s: &mut Session) -> Result<Vec<Move>, ClientError> {
        let sql = format!("SELECT n, name, had_old, has_new FROM {} ORDER BY n, name", self.table("moves"));
        let rows = s.rows(&sql).await?.into_iter().map(|row| {
            let [n, table, had_old, has_new] = fields(row);
            Move { database: n.parse().unwrap_or(0), table, had_old: had_old == "1", has_new: has_new == "1" }
        });
        Ok(rows.collect())
    }

    /// `statement` is given apart, because an old definition that cannot be read cannot be kept.
    pub(crate) async fn write_definition(
        &self,
        s: &mut Session,
        old: bool,
        database: usize,
        d: &Definition,
        statement: &str,
    ) -> Result<(), ClientError> {
        // Strings and small structs.
        let object = serde_json::to_value(d.object).ok().and_then(|v| v.as_str().map(str::to_owned));
        let context = serde_json::to_string(&d.context).unwrap_or_default();
        s.run(&format!(
            "INSERT INTO {} (old, n, object, name, parent, statement, context) VALUES ({}, {database}, {}, {}, {}, {}, {})",
            self.table("definitions"),
            u8::from(old),
            text(&object.unwrap_or_default()),
            text(&d.name),
            text(&d.table),
            text(statement),
            text(&context)
        ))
        .await
        .map(drop)
    }

    /// In the order in which they were written.
    pub(crate) async fn definitions(
        &self,
        s: &mut Session,
        old: bool,
        database: usize,
    ) -> Result<Vec<Definition>, ClientError> {
        let sql = format!(
            "SELECT object, name, parent, statement, context FROM {} WHERE old = {} AND n = {database} ORDER BY id",
            self.table("definitions"),
            u8::from(old)
        );
        let bad = not_understood;
        let rows = s.rows(&sql).await?.into_iter().map(|row| {
            let [object, name, table, statement, context] = fields(row);
            let object: Object = serde_json::from_value(object.into()).map_err(|_| bad())?;
            let context: DefinedIn = serde_json::from_str(&context).map_err(|_| bad())?;
            Ok(Definition { object, name, table, statement: Ok(statement), context })
        });
        rows.collect()
    }

    pub(crate) async fn write_default(
        &self,
        s: &mut Session,
        database: usize,
        table: &str,
        column: &str,
        expression: &str,
    ) -> Result<(), ClientError> {
        s.run(&format!(
            "REPLACE INTO {} VALUES ({database}, {}, {}, {})",
            self.table("defaults"),
            text(table),
            text(column),
            text(expression)
        ))
        .await
        .map(drop)
    }

    pub(super) async fn write_outward_keys(
        &self,
        s: &mut Session,
        old: bool,
        list: &[OutwardKey],
    ) -> Result<(), ClientError> {
        for key in list {
            s.run(&format!(
                "REPLACE INTO {} VALUES ({}, {}, {}, {}, {})",
                self.table("outward_keys"),
                u8::from(old),
                key.database,
                text(&key.table),
                text(&key.name),
                text(&key.clause)
            ))
            .await?;
        }
        Ok(())
    }

    /// A record that was made before there was a list of them has none.
    pub(super) async fn outward_keys(
        &self,
        s: &mut Session,
        old: bool,
    ) -> Result<Vec<OutwardKey>, ClientError> {
        let sql = format!(
            "SELECT n, name, constraint_name, clause FROM {} WHERE old = {} ORDER BY n, name, constraint_name",
            self.table("outward_keys"),
            u8::from(old)
        );
        let rows = match s.rows(&sql).await {
            Err(e) if e.code() == Some(1146) => return Ok(Vec::new()),
            rows => rows?,
        };
        let rows = rows.into_iter().map(|row| {
            let [n, table, name, clause] = fields(row);
            OutwardKey { database: n.parse().unwrap_or(0), table, name, clause }
        });
        Ok(rows.collect())
    }

    pub(crate) async fn write_account(
        &self,
        s: &mut Session,
        of: &AccountStatement,
        statement: &str,
    ) -> Result<(), ClientError> {
        // Names and a word.
        let of = serde_json::to_string(of).unwrap_or_default();
        let accounts = self.table("accounts");
        let sql = format!(
            "INSERT INTO {accounts} (account, statement) VALUES ({}, {})",
            text(&of),
            text(statement)
        );
        s.run(&sql).await.map(drop)
    }

    /// In the order in which they were written.
    pub(crate) async fn accounts(
        &self,
        s: &mut Session,
    ) -> Result<Vec<(AccountStatement, String)>, ClientError> {
        let sql = format!("SELECT account, statement FROM {} ORDER BY id", self.table("accounts"));
        let rows = s.rows(&sql).await?.into_iter().map(|row| {
            let [of, statement] = fields(row);
            Ok((serde_json::from_str(&of).map_err(|_| not_understood())?, statement))
        });
        rows.collect()
    }

    /// Which of them the restore makes: written before the first is made, for whoever takes them away again.
    pub(crate) async fn write_made_accounts(
        &self,
        s: &mut Session,
        list: &[Account],
    ) -> Result<(), ClientError> {
        // Names.
        self.set(s, MADE_ACCOUNTS, &serde_json::to_string(list).unwrap_or_default()).await
    }

    pub(crate) async fn made_accounts(&self, s: &mut Session) -> Result<Vec<Account>, ClientError> {
        match self.get(s, MADE_ACCOUNTS).await? {
            None => Ok(Vec::new()),
            Some(list) => serde_json::from_str(&list).map_err(|_| not_understood()),
        }
    }

    /// Table, column, expression.
    pub(crate) async fn defaults(
        &self,
        s: &mut Session,
        database: usize,
    ) -> Result<Vec<[String; 3]>, ClientError> {
        let sql = format!(
            "SELECT name, col, expression FROM {} WHERE n = {database} ORDER BY name, col",
            self.table("defaults")
        );
        Ok(s.rows(&sql).await?.into_iter().map(fields).collect())
    }
}
