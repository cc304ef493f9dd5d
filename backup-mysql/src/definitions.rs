//! Views, routines, triggers and events of a database: the statements that make them again, and the sessions they are made in.

use crate::{
    catalog::{Version, fields},
    client::Session,
    ddl::reads_table,
    error::ClientError,
    quote::{ident, text},
    stored::{DefinedIn, Object},
};
use backup_core::{Error, ErrorKind, Result};

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Definition {
    pub(crate) object: Object,
    pub(crate) name: String,
    /// Of a trigger; else empty.
    pub(crate) table: String,
    /// What makes it again, without the name of its database where that can be.
    pub(crate) statement: Result<String>,
    pub(crate) context: DefinedIn,
}

impl Definition {
    fn made(object: Object, name: String, statement: String, context: DefinedIn) -> Self {
        let context = usable(context, &statement);
        Definition { object, name, table: String::new(), statement: Ok(statement), context }
    }

    fn unreadable(object: Object, name: String, e: Error) -> Self {
        let statement = Err(e.on(&name));
        Definition { object, name, table: String::new(), statement, context: DefinedIn::default() }
    }

    /// Whether a database can hold one of the two only.
    pub(crate) fn is_named_as(&self, other: &Definition) -> bool {
        self.object == other.object && self.name == other.name
    }

    /// Whether the other goes when the server drops this one.
    pub(crate) fn takes_along(&self, other: &Definition) -> bool {
        self.object == Object::Package && other.object == Object::PackageBody && self.name == other.name
    }

    /// Whether older servers (MariaDB 10.11) read the `DROP` in the `sql_mode` of packages only.
    pub(crate) fn is_of_oracle_mode(&self) -> bool {
        matches!(self.object, Object::Package | Object::PackageBody)
    }

    /// `DROP …` for it.
    pub(crate) fn drop_statement(&self) -> String {
        let kind = match self.object {
            Object::Function => "FUNCTION",
            Object::Procedure => "PROCEDURE",
            Object::Package => "PACKAGE",
            Object::PackageBody => "PACKAGE BODY",
            Object::View => "VIEW",
            Object::Triggers => "TRIGGER",
            _ => "EVENT",
        };
        format!("DROP {kind} IF EXISTS {}", ident(&self.name))
    }
}

/// All of a database, in the order in which they can be made. The session uses that database afterwards.
pub(crate) async fn list(
    session: &mut Session,
    database: &str,
    version: &Version,
) -> Result<Vec<Definition>> {
    let failed = |e: ClientError| {
        e.during(ErrorKind::Source, "list views, routines, triggers and events").on(database)
    };
    // Views and routines are printed without the name of their database only to who uses it.
    session.run(&format!("USE {}", ident(database))).await.map_err(failed)?;
    let mut found = routines(session, database, version).await.map_err(failed)?;
    found.extend(views(session, database).await.map_err(failed)?);
    found.extend(triggers(session, database).await.map_err(failed)?);
    found.extend(events(session, database).await.map_err(failed)?);
    Ok(found)
}

async fn routines(
    session: &mut Session,
    database: &str,
    version: &Version,
) -> Result<Vec<Definition>, ClientError> {
    let sql = format!(
        "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {} ORDER BY ROUTINE_TYPE, ROUTINE_NAME",
        text(database)
    );
    let mut found = Vec::new();
    for row in session.rows(&sql).await? {
        let [kind, name] = fields(row);
        let object = match kind.as_str() {
            "FUNCTION" => Object::Function,
            "PROCEDURE" => Object::Procedure,
            "PACKAGE" => Object::Package,
            "PACKAGE BODY" => Object::PackageBody,
            _ => continue,
        };
        // name, sql_mode, statement, client's character set, connection's collation
        found.push(match session.first(&format!("SHOW CREATE {kind} {}", ident(&name))).await {
            Ok(Some(row)) if row.get(2).is_some_and(Option::is_some) => {
                let [_, sql_mode, create, charset, collation] = fields(row);
                Definition::made(
                    object,
                    name,
                    create,
                    DefinedIn { sql_mode, charset, collation, ..DefinedIn::default() },
                )
            }
            Ok(_) => {
                let grant = match version.mariadb {
                    true => "GRANT SELECT ON mysql.proc TO the user (as an administrator)",
                    false => "GRANT SHOW_ROUTINE ON *.* TO the user (as an administrator)",
                };
                let e = Error::new(ErrorKind::Denied, "read a routine", "the server does not show its body");
                Definition::unreadable(object, name, e.hint(grant))
            }
            Err(e) if e.is_lost() => return Err(e),
            Err(e) => Definition::unreadable(object, name, e.during(ErrorKind::Source, "read a routine")),
        });
    }
    Ok(found)
}

async fn views(session: &mut Session, database: &str) -> Result<Vec<Definition>, ClientError> {
    let sql = format!(
        "SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {} ORDER BY TABLE_NAME",
        text(database)
    );
    let mut found = Vec::new();
    for row in session.rows(&sql).await? {
        let [name] = fields(row);
        found.push(match session.first(&format!("SHOW CREATE VIEW {}", ident(&name))).await {
            Ok(row) => {
                let [_, create, charset, collation] = fields(row.unwrap_or_default());
                Definition::made(
                    Object::View,
                    name,
                    create,
                    DefinedIn { charset, collation, ..DefinedIn::default() },
                )
            }
            Err(e) if e.is_lost() => return Err(e),
            Err(e) => Definition::unreadable(Object::View, name, e.during(ErrorKind::Source, "read a view")),
        });
    }
    let order = after_what_they_use(&found, database);
    let mut found: Vec<_> = found.into_iter().map(Some).collect();
    Ok(order.into_iter().filter_map(|at| found[at].take()).collect())
}

/// Put together from their parts: what the server prints may name the database.
async fn triggers(session: &mut Session, database: &str) -> Result<Vec<Definition>, ClientError> {
    let sql = format!(
        "SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME, ACTION_TIMING, EVENT_MANIPULATION, ACTION_STATEMENT, DEFINER, SQL_MODE, \
         CHARACTER_SET_CLIENT, COLLATION_CONNECTION FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = {} \
         ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER",
        text(database)
    );
    let rows = session.rows(&sql).await?;
    let found = rows.into_iter().map(|row| {
        let [table, name, timing, event, body, definer, sql_mode, charset, collation] = fields(row);
        let create = format!(
            "CREATE DEFINER={} TRIGGER {} {timing} {} ON {} FOR EACH ROW {body}",
            account(&definer),
            ident(&name),
            event.replace(',', " OR "),
            ident(&table)
        );
        let context = DefinedIn { sql_mode, charset, collation, ..DefinedIn::default() };
        Definition { table, ..Definition::made(Object::Triggers, name, create, context) }
    });
    Ok(found.collect())
}

async fn events(session: &mut Session, database: &str) -> Result<Vec<Definition>, ClientError> {
    let sql = format!(
        "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {} ORDER BY EVENT_NAME",
        text(database)
    );
    let mut found = Vec::new();
    for row in session.rows(&sql).await? {
        let [name] = fields(row);
        found.push(match session.first(&format!("SHOW CREATE EVENT {}", ident(&name))).await {
            Ok(row) => {
                let [_, sql_mode, time_zone, create, charset, collation] = fields(row.unwrap_or_default());
                Definition::made(
                    Object::Event,
                    name,
                    create,
                    DefinedIn { sql_mode, charset, collation, time_zone },
                )
            }
            Err(e) if e.is_lost() => return Err(e),
            Err(e) => {
                Definition::unreadable(Object::Event, name, e.during(ErrorKind::Source, "read an event"))
            }
        });
    }
    Ok(found)
}

/// A statement is sent as UTF-8. Where it holds other letters than ASCII, a session of another character set would misread them.
fn usable(mut context: DefinedIn, statement: &str) -> DefinedIn {
    if !statement.is_ascii() && !context.charset.starts_with("utf8") {
        context.charset = "utf8mb4".to_owned();
    }
    context
}

/// The session in which a definition is made, for people's clients and for ours.
pub(crate) fn settings(context: &DefinedIn) -> String {
    let mut list = vec![format!("sql_mode = {}", text(&context.sql_mode))];
    if !context.charset.is_empty() {
        list.push(format!("character_set_client = {}", context.charset));
    }
    if !context.collation.is_empty() {
        list.push(format!("collation_connection = {}", context.collation));
    }
    if !context.time_zone.is_empty() {
        list.push(format!("time_zone = {}", text(&context.time_zone)));
    }
    format!("SET {};", list.join(", "))
}

/// `` `user`@`host` `` of `user@host`; a role has no host.
pub(crate) fn account(definer: &str) -> String {
    match definer.rsplit_once('@') {
        Some((user, host)) => format!("{}@{}", ident(user), ident(host)),
        None => ident(definer),
    }
}

/// Views after those that they read.
fn after_what_they_use(views: &[Definition], database: &str) -> Vec<usize> {
    let reads = |at: usize, other: usize| {
        let statement = views[at].statement.as_ref();
        statement.is_ok_and(|s| reads_table(s, database, &views[other].name))
    };
    let uses = |at: usize, other: usize| at != other && reads(at, other);
    let (mut order, mut begun) = (Vec::new(), vec![false; views.len()]);
    for first in 0..views.len() {
        // Without recursion: what is on the stack waits for what is above it.
        let mut stack = vec![first];
        while let Some(&at) = stack.last() {
            let again = std::mem::replace(&mut begun[at], true);
            let before = (0..views.len()).filter(|o| !begun[*o] && uses(at, *o));
            let before: Vec<usize> = if again { Vec::new() } else { before.collect() };
            if before.is_empty() {
                stack.pop();
                if !order.contains(&at) {
                    order.push(at);
                }
            }
            stack.extend(before);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(name: &str, statement: &str) -> Definition {
        Definition::made(Object::View, name.into(), statement.into(), DefinedIn::default())
    }

    #[test]
    fn views_come_after_those_that_they_use() {
        let views = [
            view("a", "select * from `c`"),
            view("b", "select 1"),
            view("c", "select `b`.`x` AS `a` from `app`.`b`, `d` `a`"),
            view("d", ""),
        ];
        let order = after_what_they_use(&views, "app");
        let place = |at: usize| order.iter().position(|o| *o == at).unwrap();
        assert_eq!(order.len(), 4);
        assert!(place(0) > place(2) && place(2) > place(1) && place(2) > place(3), "{order:?}");
        // An alias that is called as another view is.
        let views = [view("a", "select 1 from `t` `b`"), view("b", "select * from `a`")];
        assert_eq!(after_what_they_use(&views, "app"), [0, 1]);
    }

    #[test]
    fn a_definition_with_other_letters_is_made_in_a_session_that_reads_them() {
        let latin = DefinedIn { charset: "latin1".into(), ..DefinedIn::default() };
        assert_eq!(usable(latin.clone(), "select 1").charset, "latin1");
        assert_eq!(usable(latin, "select 'ä'").charset, "utf8mb4");
        assert_eq!(account("o'x@%"), "`o'x`@`%`");
    }
}
