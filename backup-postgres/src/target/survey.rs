//! What is there before a restore, and what stands in its way. Reads only.

use super::{Choice, coming::Coming, merging, part::Part, present, subscriptions};
use crate::{
    catalog,
    client::{ClientError, Session},
    error,
    quote::literal,
    server::Server,
};
use backup_core::{Error, ErrorKind, Incoming, Refusal, Result, Survey};
use std::collections::BTreeSet;

/// What a selection means.
pub(super) async fn choice(server: &Server, coming: &Coming<'_>) -> Result<Choice> {
    if coming.selection.is_all() {
        return Ok(Choice::default());
    }
    // Where there is nothing, a database takes its place like any other.
    let there = if server.config.merge { relations(server).await? } else { None };
    let there = there.filter(|there| !there.is_empty());
    let part = coming.items.as_ref().and_then(|items| Part::of(&coming.selection, items, there.as_ref()));
    let merge = there.is_some() && part.is_some();
    Ok(Choice { selective: true, merge, part, ..Choice::default() })
}

/// Schemas and names of all relations of the database; `None`: there is no database.
async fn relations(server: &Server) -> Result<Option<BTreeSet<(String, String)>>> {
    let failed = || error::target("look at the target", server);
    let mut session = match server.session().await {
        Err(e) if e.code() == Some("3D000") => return Ok(None),
        session => session.map_err(failed())?,
    };
    let relations = catalog::relations(&mut session).await.map_err(failed())?;
    session.close().await;
    Ok(Some(relations))
}

/// What is there in the place of all of them, as one survey.
pub(super) fn together(place: String, coming: &[Coming<'_>], surveys: Vec<Survey>) -> Survey {
    let mut out = Survey { place, replaces: surveys.iter().any(|s| s.replaces), ..Survey::default() };
    let (mut present, mut identity) = (Vec::new(), Vec::new());
    for (of, survey) in coming.iter().zip(surveys) {
        let about =
            |text: &str| of.name.as_ref().map_or_else(|| text.to_owned(), |name| format!("{name}: {text}"));
        present.push(about(&survey.present));
        identity.push(about(&survey.identity));
        out.notes.extend(survey.notes.iter().map(|note| of.note(note)));
        let refusals = survey.refusals.into_iter();
        out.refusals.extend(refusals.map(|refusal| Refusal { why: about(&refusal.why), ..refusal }));
        out.merges |= survey.merges;
        out.in_place |= survey.in_place;
        // What is replaced is said of all, if there is any.
        if out.publish.is_empty() || survey.identity != NOTHING {
            out.publish = survey.publish;
        }
    }
    if coming.len() > 1 {
        out.publish =
            format!("all {} databases change names in one transaction: {}", coming.len(), out.publish);
        if out.merges {
            out.refusals.push(merging::several());
        }
    }
    out.present = present.join("; ");
    out.identity = identity.join("; ");
    out
}

/// The identity of a database that is not there.
const NOTHING: &str = "nothing";

/// The survey of one database, and its number (0: it is not there).
pub(super) async fn survey(
    (session, major): (&mut Session, u32),
    server: &Server,
    coming: &Coming<'_>,
    choice: &Choice,
) -> Result<(Survey, u64)> {
    let failed = || error::target("look at the target", server);
    let name = literal(&server.database);
    let oid = format!(
        "SELECT coalesce((SELECT oid FROM pg_catalog.pg_database WHERE datname = {name}), 0::pg_catalog.oid)"
    );
    let oid = session.number(&oid).await.map_err(failed())?;
    let mut refusals = Vec::new();
    let mut notes = Vec::new();
    if server.config.data_only {
        match present::tables(server, oid != 0).await? {
            Some(there) => {
                let (refused, said) = present::compared(coming, choice, &there);
                refusals.extend(refused);
                notes.extend(said);
            }
            None => refusals.push(present::nothing_there()),
        }
    }
    let (mut present, mut replaces) = ("no database of this name".to_owned(), false);
    if oid != 0 {
        refusals.extend(of_server(session, &server.database).await.map_err(failed())?);
        let mut inside = server.session().await.map_err(failed())?;
        refusals.extend(of_extensions(&mut inside).await.map_err(failed())?);
        inside.query(&catalog::settings(major, 10)).await.map_err(failed())?;
        let objects = "SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')";
        // Types without those that each table and each type has of itself.
        let others = "SELECT (SELECT count(*) FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema')
            + (SELECT count(*) FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
              LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
              WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND coalesce(c.relkind = 'c', t.typelem = 0))
            + (SELECT count(*) FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql')
            + (SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public'))
            + (SELECT count(*) FROM pg_catalog.pg_largeobject_metadata)";
        let size =
            format!("SELECT pg_catalog.pg_size_pretty(pg_catalog.pg_database_size({oid}::pg_catalog.oid))");
        let relations = inside.number(objects).await.map_err(failed())?;
        let more = inside.number(others).await.map_err(failed())?;
        let size = inside.value(&size).await.map_err(failed())?.unwrap_or_default();
        replaces = relations + more > 0;
        present = match replaces {
            true if relations == 0 => {
                format!("a database with {more} other objects and no relations, {size}")
            }
            true => format!("a database with {relations} relations, {size}"),
            false => "an empty database".to_owned(),
        };
        inside.close().await;
        if choice.part.is_some() && !server.config.no_owner {
            notes.push("database: its owner, privileges, settings and comment stay".to_owned());
        }
    }
    notes.extend(choice.part.iter().flat_map(|part| part.notes.clone()));
    if server.config.no_owner && !server.config.data_only {
        notes.push("database: properties are set without owner and privileges; all objects belong to the user that restores".into());
    }
    // Where nothing is there is nothing to take away: it is restored beside, which takes no more room.
    let in_place = server.config.in_place && oid != 0 && replaces;
    let publish = match oid {
        0 => "the restored database is renamed in one step".to_owned(),
        _ if in_place => "the database is dropped; until the restored one has its name, in one step, an empty one that takes no connections has it".to_owned(),
        _ => "both databases are renamed in one transaction; sessions with the database are ended for that, and connect to the restored one".to_owned(),
    };
    let survey = Survey {
        place: server.place(),
        replaces,
        present,
        identity: if oid == 0 { NOTHING.into() } else { format!("database {oid}") },
        publish,
        in_place,
        notes,
        refusals,
        ..Survey::default()
    };
    Ok((survey, oid))
}

/// What is not restored would be dropped with the rest.
pub(super) fn part_in_place() -> Refusal {
    let why = "a part is always restored beside what is there";
    Refusal::new(why, "leave --in-place or the part (--only) out")
}

/// Definitions of a newer version are not understood.
pub(super) fn newer(incoming: &Incoming, major: u32) -> Option<Refusal> {
    let version = incoming.note("server", "version")?;
    let of = version.strip_prefix("PostgreSQL ")?.parse::<u32>().ok().filter(|of| *of > major)?;
    let why = format!(
        "the backup is of PostgreSQL {of}, and the server is PostgreSQL {major}, which does not understand its definitions"
    );
    Some(Refusal::new(why, format!("restore it to a server of version {of} or newer")))
}

/// What can be gone round by another name.
fn in_the_way(why: String) -> Refusal {
    Refusal::new(why, "restore it under another name, or remove what stands in the way first")
}

pub(super) async fn may_create(session: &mut Session, server: &Server) -> Result<()> {
    let sql = "SELECT rolsuper OR rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let may = session.value(sql).await.map_err(error::target("look at the target", server))?;
    if may.as_deref() == Some("t") {
        return Ok(());
    }
    let user = crate::quote::ident(&server.endpoint.user);
    let e = Error::new(ErrorKind::Denied, "restore", "this user may not create databases").on(server.place());
    Err(e.hint(format!("ALTER ROLE {user} CREATEDB")))
}

/// What blocks the renaming, or would be lost with the old database.
async fn of_server(session: &mut Session, database: &str) -> Result<Vec<Refusal>, ClientError> {
    let name = literal(database);
    let checks = [
        (
            format!(
                "SELECT pg_catalog.string_agg(gid, ', ') FROM pg_catalog.pg_prepared_xacts WHERE database = {name}"
            ),
            "prepared transactions block the renaming",
        ),
        (
            format!(
                "SELECT pg_catalog.string_agg(slot_name, ', ') FROM pg_catalog.pg_replication_slots WHERE database = {name}"
            ),
            "logical replication slots would go with the old database, and with them what their readers still need",
        ),
    ];
    let mut out = Vec::new();
    for (sql, why) in checks {
        if let Some(which) = session.value(&sql).await? {
            out.push(in_the_way(format!("{why}: {which}")));
        }
    }
    let subscriptions = subscriptions::named(session, database).await?;
    if !subscriptions.is_empty() {
        let which = subscriptions.join(", ");
        out.push(in_the_way(format!("subscriptions bar the old database from being dropped: {which}")));
    }
    Ok(out)
}

/// Extensions with processes or data of their own that do not follow a renamed database.
async fn of_extensions(session: &mut Session) -> Result<Option<Refusal>, ClientError> {
    let sql = "SELECT pg_catalog.string_agg(extname, ', ') FROM pg_catalog.pg_extension WHERE extname IN ('pg_cron', 'timescaledb', 'citus')";
    let found = session.value(sql).await?;
    Ok(found.map(|names| {
        in_the_way(format!(
            "the database has {names}, which cannot be exchanged by renaming, nor restored in place"
        ))
    }))
}
