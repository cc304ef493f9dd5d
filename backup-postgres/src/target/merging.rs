//! What is there before single tables are restored into a database whose others stay, and what stands in the way. Reads only.

use super::{
    beside::by_schema,
    bound::{Surveyed, bound, made_anew, numbers},
    part::Part,
};
use crate::{
    catalog,
    client::{ClientError, Session},
    error,
    quote::{ident, literal, qualified},
    server::Server,
};
use backup_core::{Error, ErrorKind, Refusal, Result, Survey};

/// Why this cannot be merged at all.
pub(super) fn impossible(server: &Server, selective: bool, part: Option<&Part>) -> Option<Refusal> {
    let config = &server.config;
    if !config.merge {
        return None;
    }
    if config.schema_only || config.data_only {
        let why = "tables are merged with their definitions and their rows";
        return Some(Refusal::new(why, "leave --merge out, or --schema-only and --data-only"));
    }
    (!selective || part.is_none()).then(|| {
        let why = "databases of PostgreSQL are merged table by table";
        Refusal::new(why, "name the tables: --only COMPONENT/SCHEMA.TABLE; or leave --merge out")
    })
}

/// A transaction belongs to one database.
pub(super) fn several() -> Refusal {
    let why = "tables of several databases cannot change places in one transaction";
    Refusal::new(why, "merge one database after another: --only COMPONENT/DATABASE/SCHEMA.TABLE")
}

/// Rows that are there would go, and none come for them.
async fn emptied(
    session: &mut Session,
    without_rows: &[(String, String)],
    there: &Surveyed,
) -> Result<Option<Refusal>, ClientError> {
    let mut names = Vec::new();
    for (schema, table) in without_rows {
        let Some(number) = there.get(&qualified(schema, table)) else { continue };
        // One with partitions has no rows of its own: these are looked at themselves.
        let sql = format!("SELECT relkind <> 'p' FROM pg_catalog.pg_class WHERE oid = {number}");
        if session.value(&sql).await?.as_deref() == Some("t") {
            names.push(format!("{schema}.{table}"));
        }
    }
    let why = format!(
        "their rows were left out of the backup, and those that are there would go: {}",
        names.join(", ")
    );
    let hint = "select other tables; or detach these partitions and give them other names first (ALTER TABLE … DETACH PARTITION, \
                ALTER TABLE … RENAME TO); or restore into a database of their own (--to), and take from there what is needed";
    Ok((!names.is_empty()).then(|| Refusal::new(why, hint)))
}

/// The survey, the number of the database, and the tables that are there. Rows of some of the part are not in the backup.
pub(super) async fn survey(
    server: &Server,
    major: u32,
    part: &Part,
    without_rows: &[(String, String)],
) -> Result<(Survey, u64, Surveyed)> {
    let failed = || error::target("look at the target", server);
    let mut session = server.session().await.map_err(failed())?;
    session.query(&catalog::settings(major, 10)).await.map_err(failed())?;
    may_make_schemas(&mut session, server).await?;
    let mut refusals = Vec::new();
    for schema in by_schema(part).into_keys() {
        let known = format!("SELECT pg_catalog.to_regnamespace({}) IS NOT NULL", literal(&ident(schema)));
        if session.value(&known).await.map_err(failed())?.as_deref() != Some("t") {
            let why = format!("the schema {schema} is not there");
            refusals.push(Refusal::new(why, format!("CREATE SCHEMA {}", ident(schema))));
        }
    }
    let surveyed = numbers(&mut session, part).await.map_err(failed())?;
    let there: Vec<String> = surveyed.keys().cloned().collect();
    let bound = bound(&mut session, &there).await.map_err(failed())?;
    if !bound.is_empty() {
        let why = format!(
            "these are bound to the old tables, and cannot be led to the restored ones: {}",
            bound.join(", ")
        );
        let hint =
            "restore the tables into a database of their own (--to), and take from there what is needed";
        refusals.push(Refusal::new(why, hint));
    }
    refusals.extend(emptied(&mut session, without_rows, &surveyed).await.map_err(failed())?);
    let mut notes = part.notes.clone();
    let anew = made_anew(&mut session, &there, &there).await.map_err(failed())?;
    if !anew.is_empty() {
        notes.push(format!("these are led to the restored tables: {}", anew.join(", ")));
    }
    let (present, identity, oid) = state(&mut session, &surveyed).await.map_err(failed())?;
    session.close().await;
    let survey = Survey {
        place: server.place(),
        replaces: !there.is_empty(),
        present,
        identity,
        publish: "the tables are filled beside the old ones, and change places with them in one transaction, in which foreign keys are checked; \
                  nobody can use them meanwhile"
            .to_owned(),
        notes,
        refusals,
        merges: true,
        ..Survey::default()
    };
    Ok((survey, oid, surveyed))
}

/// For people, for the identity of the plan, and the number of the database.
async fn state(session: &mut Session, there: &Surveyed) -> Result<(String, String, u64), ClientError> {
    let oid =
        session.number("SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()").await?;
    let mut rows = 0;
    for number in there.values() {
        let sql = format!(
            "SELECT coalesce((SELECT greatest(reltuples, 0)::int8 FROM pg_catalog.pg_class WHERE oid = {number}), 0)"
        );
        rows += session.number(&sql).await?;
    }
    let present = match there.is_empty() {
        true => "none of these tables".to_owned(),
        false => {
            let names: Vec<&str> = there.keys().map(String::as_str).collect();
            format!("{} with about {rows} rows", names.join(", "))
        }
    };
    let numbers: Vec<String> = there.values().map(u64::to_string).collect();
    Ok((present, format!("database {oid}, tables {}", numbers.join("+")), oid))
}

async fn may_make_schemas(session: &mut Session, server: &Server) -> Result<()> {
    let sql = "SELECT pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')";
    let may = session.value(sql).await.map_err(error::target("look at the target", server))?;
    if may.as_deref() == Some("t") {
        return Ok(());
    }
    let (user, database) = (ident(&server.endpoint.user), ident(&server.database));
    let e = Error::new(ErrorKind::Denied, "restore", "this user may not make schemas in the database");
    Err(e.on(server.place()).hint(format!("GRANT CREATE ON DATABASE {database} TO {user}")))
}
