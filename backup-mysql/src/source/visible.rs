//! What a user may have no right to see: servers leave it out of every list, without a word.

use crate::{
    catalog::Version,
    client::Session,
    error::ClientError,
    quote::{ident, qualified, text, texts},
};
use backup_core::{Context, Severity};

/// No table is called so.
const NO_TABLE: &str = "_backup_no_such_table";
const NO_SUCH_TABLE: u16 = 1146;
const DENIED: [u16; 3] = [1044, 1142, 1227];

/// Says of each database what of it this user might not see.
pub(super) async fn look<'a>(
    session: &mut Session,
    databases: impl Iterator<Item = &'a str>,
    version: &Version,
    (component, cx): (&str, &Context),
) -> Result<(), ClientError> {
    for name in databases {
        if !sees_tables(session, name).await? {
            let text = "it is not whole: the user has no right to read all of its tables, and the server hides those that it may not \
                        read (GRANT SELECT on the whole database)";
            cx.note(Severity::Lost, component, name, text);
        }
        let hidden = hidden(session, name, version).await?;
        if !hidden.is_empty() {
            let (what, rights): (Vec<_>, Vec<_>) = hidden.into_iter().unzip();
            let text = format!(
                "whether it has {} is not known, and none are in the backup: the user may not see them (GRANT {})",
                what.join(", "),
                rights.join(", ")
            );
            cx.note(Severity::Warning, component, name, text);
        }
    }
    Ok(())
}

/// Who may read all tables is told that there is no such one; others, that they may not read it.
async fn sees_tables(session: &mut Session, database: &str) -> Result<bool, ClientError> {
    match session.run(&format!("SELECT 1 FROM {} LIMIT 0", qualified(database, NO_TABLE))).await {
        Err(e) if e.is_lost() => Err(e),
        Err(e) => Ok(e.code() == Some(NO_SUCH_TABLE)),
        Ok(_) => Ok(true),
    }
}

/// What else, and the right that would show it.
async fn hidden(
    session: &mut Session,
    database: &str,
    version: &Version,
) -> Result<Vec<(&'static str, &'static str)>, ClientError> {
    let mut hidden = Vec::new();
    if !has_one_of(session, database, &["TRIGGER"], &["TRIGGER"]).await? {
        hidden.push(("triggers", "TRIGGER"));
    }
    let events = format!("SHOW EVENTS FROM {}", ident(database));
    if is_denied(session, &events).await? {
        hidden.push(("events", "EVENT"));
    }
    if version.mariadb && is_denied(session, "SELECT 1 FROM mysql.proc LIMIT 0").await? {
        hidden.push(("procedures and functions", "SELECT ON mysql.proc"));
    }
    if !version.mariadb {
        let of_database = ["EXECUTE", "CREATE ROUTINE", "ALTER ROUTINE"];
        let of_server = [&of_database[..], &["SELECT", "SHOW_ROUTINE"]].concat();
        if !has_one_of(session, database, &of_server, &of_database).await? {
            let right = if version.mysql_from(8, 0) { "SHOW_ROUTINE ON *.*" } else { "SELECT ON mysql.proc" };
            hidden.push(("procedures and functions", right));
        }
    }
    Ok(hidden)
}

async fn is_denied(session: &mut Session, sql: &str) -> Result<bool, ClientError> {
    match session.rows(sql).await {
        Err(e) if e.is_lost() => Err(e),
        Err(e) => Ok(e.code().is_some_and(|code| DENIED.contains(&code))),
        Ok(_) => Ok(false),
    }
}

/// Whether the user has one of these rights on the server or on the database. Where there is nothing that the server would refuse, only they
/// tell. With a role it may have more.
async fn has_one_of(
    session: &mut Session,
    database: &str,
    of_server: &[&str],
    of_database: &[&str],
) -> Result<bool, ClientError> {
    let one = async |session: &mut Session, sql: &str| match session.value(sql).await {
        Err(e) if e.is_lost() => Err(e),
        found => Ok(found.ok().flatten()),
    };
    let role = one(session, "SELECT CURRENT_ROLE()").await?;
    if role.is_some_and(|role| !role.is_empty() && role != "NONE") {
        return Ok(true);
    }
    let me = "CONCAT('''', SUBSTRING_INDEX(CURRENT_USER(), '@', 1), '''@''', SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '''')";
    let sql = format!(
        "SELECT (SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE IN ({}) AND GRANTEE = {me})
           + (SELECT COUNT(*) FROM information_schema.SCHEMA_PRIVILEGES WHERE PRIVILEGE_TYPE IN ({}) AND GRANTEE = {me}
              AND {} LIKE TABLE_SCHEMA)",
        texts(of_server),
        texts(of_database),
        text(database)
    );
    // One whose rights cannot be read is believed.
    Ok(one(session, &sql).await?.is_none_or(|count| count != "0"))
}
