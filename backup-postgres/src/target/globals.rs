//! Roles and tablespaces of a backup, made where they are not there yet, before what they own is restored. Those that a restore has made
//! carry a mark in their comments until it is settled.

use super::put::{Taking, drain, text};
use crate::{
    client::{ClientError, Session},
    error,
    globals::{GLOBALS, Object, Of, Step, statements},
    properties::{MARK, setting_name, without_mark},
    quote::{ident, literal},
    server::Server,
};
use backup_core::{Content, Context, Entry, Fact, Incoming, Refusal, Result, Severity};
use std::collections::BTreeSet;

/// It is there already: somebody was quicker, also by a moment.
const THERE: [&str; 2] = ["42710", "23505"];
/// It cannot be granted or set, because it is unknown here; or it needs what is not here.
const UNKNOWN: [&str; 3] = ["42704", "22023", "42501"];
/// Others need it.
const NEEDED: [&str; 2] = ["2BP01", "55000"];
/// Whoever has granted something goes after those who have it.
const ROUNDS: usize = 3;

/// Whether they are asked for.
pub(super) fn are_made(server: &Server) -> bool {
    server.config.globals == Some(true)
}

/// Makes those of a backup that are not there, if they are asked for.
pub(super) async fn take(
    server: &Server,
    who: (&str, &str),
    (entry, content): (&Entry, &mut Content),
    cx: &Context,
) -> std::result::Result<(), Taking> {
    if !are_made(server) {
        return drain(content).await;
    }
    let sql = text(content).await?;
    Ok(make(server, who, &statements(entry, &sql)?, cx).await?)
}

/// What the plan says of them, or why they cannot be had.
pub(super) async fn survey(
    server: &Server,
    replaces: bool,
    incoming: &Incoming,
) -> Result<(Vec<String>, Option<Refusal>)> {
    let selected = incoming.selection.covers(GLOBALS.as_bytes());
    let of = |object: Object| -> Vec<&str> {
        let facts = incoming.component.proof.iter();
        facts
            .filter(|(s, _, f)| *s == object.subject() && matches!(f, Fact::Note(_)))
            .map(|(_, n, _)| n)
            .collect()
    };
    let listed = [(Object::Role, of(Object::Role)), (Object::Tablespace, of(Object::Tablespace))];
    let any = selected && listed.iter().any(|(_, names)| !names.is_empty());
    if !are_made(server) {
        let said = "roles and tablespaces of the backup are not restored (--globals does)";
        return Ok((Vec::from_iter(any.then(|| said.to_owned())), None));
    }
    if !any {
        let why =
            "roles and tablespaces are asked for, and the backup has none (globals = true lets it have them)";
        let hint = "leave --globals out; make roles that are missing first (CREATE ROLE …), or leave owners and privileges out (--no-owner)";
        return Ok((Vec::new(), Some(Refusal::new(why, hint))));
    }
    let failed = || error::target("look for roles and tablespaces", server);
    let mut session = server.maintenance_session().await.map_err(failed())?;
    let mut notes = Vec::new();
    for (object, names) in listed {
        let there = names_of(&mut session, object).await.map_err(failed())?;
        let (stay, made): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| there.contains(*name));
        let what = object.subject();
        if !made.is_empty() {
            // Then it is settled at once, unless another component replaces something.
            let stay = if replaces { "" } else { "; they stay: where nothing is replaced there is no undo" };
            notes.push(format!("these {what} are made, before all else: {}{stay}", made.join(", ")));
        }
        if !stay.is_empty() {
            notes.push(format!("these {what} are there already, and stay as they are: {}", stay.join(", ")));
        }
    }
    session.close().await;
    Ok((notes, None))
}

async fn names_of(
    session: &mut Session,
    object: Object,
) -> std::result::Result<BTreeSet<String>, ClientError> {
    let rows = session.query(object.listing()).await?;
    Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}

fn mark(id: &str) -> String {
    format!("{MARK}{id}]")
}

/// Makes those that are not there.
async fn make(
    server: &Server,
    (id, component): (&str, &str),
    statements: &[(Of, String)],
    cx: &Context,
) -> Result<()> {
    let failed = || error::target("make roles and tablespaces", server);
    let mut session = server.maintenance_session().await.map_err(failed())?;
    let say = |severity: Severity, of: &Of, text: String| {
        cx.note(severity, component, format!("{} {}", of.object.keyword().to_lowercase(), of.name), text);
    };
    let mut made: BTreeSet<(&'static str, &str)> = BTreeSet::new();
    let mut roles = names_of(&mut session, Object::Role).await.map_err(failed())?;
    let tablespaces = names_of(&mut session, Object::Tablespace).await.map_err(failed())?;
    for (of, sql) in statements {
        let key = (of.object.keyword(), of.name.as_str());
        let there = if of.object == Object::Role { &roles } else { &tablespaces };
        match of.step {
            Step::Create if there.contains(&of.name) => {
                say(Severity::Note, of, "was there already, and stays as it is".to_owned());
            }
            Step::Create => {
                match create(&mut session, of, sql, &mark(id)).await {
                    Ok(()) => {
                        made.insert(key);
                    }
                    Err(e) if e.code().is_some_and(|code| THERE.contains(&code)) => {
                        say(Severity::Note, of, "was there already, and stays as it is".to_owned());
                    }
                    // It needs a folder of the server, which may not be there.
                    Err(e) if of.object == Object::Tablespace && e.code().is_some() => {
                        say(Severity::Warning, of, format!("could not be made: {e}"));
                    }
                    Err(e) => {
                        let hint = "restore as a superuser, or leave --globals out";
                        return Err(failed()(e).on(format!("role {}", of.name)).hint(hint));
                    }
                }
                if of.object == Object::Role {
                    roles.insert(of.name.clone());
                }
            }
            // With its creation.
            Step::Comment => {}
            Step::Set | Step::Member if !made.contains(&key) => {}
            Step::Set | Step::Member => match session.query(sql).await {
                Ok(_) => {}
                Err(e) if e.code().is_some_and(|code| UNKNOWN.contains(&code)) => {
                    say(Severity::Warning, of, format!("not all of it could be restored: {e}"));
                }
                Err(e) => return Err(failed()(e).on(of.name.clone())),
            },
        }
    }
    session.close().await;
    Ok(())
}

async fn create(
    session: &mut Session,
    of: &Of,
    sql: &str,
    mark: &str,
) -> std::result::Result<(), ClientError> {
    let marked = of.comment.as_ref().map_or_else(|| mark.to_owned(), |comment| format!("{comment}\n{mark}"));
    let comment = format!("COMMENT ON {} {} IS {}", of.object.keyword(), ident(&of.name), literal(&marked));
    if of.object == Object::Role {
        // Several statements at once are one transaction.
        return session.query(&format!("{sql}; {comment}")).await.map(drop);
    }
    session.query(sql).await?;
    session.query(&comment).await.map(drop)
}

/// Those that this restore has made, with their comments.
async fn made(
    session: &mut Session,
    object: Object,
    id: &str,
) -> std::result::Result<Vec<(String, String)>, ClientError> {
    let mark = mark(id);
    let rows = session.query(object.listing()).await?;
    let named = rows.into_iter().filter_map(|row| {
        let mut row = row.into_iter();
        Some((row.next()??, row.next()??))
    });
    Ok(named.filter(|(_, comment)| comment.lines().last() == Some(&*mark)).collect())
}

async fn unmark(
    session: &mut Session,
    object: Object,
    (name, comment): (&str, String),
) -> std::result::Result<(), ClientError> {
    let text = without_mark(comment).map_or_else(|| "NULL".to_owned(), |text| literal(&text));
    session.query(&format!("COMMENT ON {} {} IS {text}", object.keyword(), ident(name))).await.map(drop)
}

/// Takes away those that this restore has made; what others need by now stays, and is named.
pub(super) async fn take_away(
    server: &Server,
    (id, component): (&str, &str),
    session: &mut Session,
    cx: &Context,
) -> Result<()> {
    let failed = || error::target("take away the roles that were made", server);
    for object in [Object::Tablespace, Object::Role] {
        for round in 1..=ROUNDS {
            for (name, comment) in made(session, object, id).await.map_err(failed())? {
                let drop = format!("DROP {} {}", object.keyword(), ident(&name));
                let mut statements = match object {
                    Object::Role => rights_on_settings(session, &name).await.map_err(failed())?,
                    Object::Tablespace => Vec::new(),
                };
                statements.push(drop);
                // Several statements at once are one transaction: who stays keeps his rights.
                match session.query(&statements.join("; ")).await {
                    Ok(_) => {}
                    Err(e) if e.code().is_none_or(|code| !NEEDED.contains(&code)) => return Err(failed()(e)),
                    Err(_) if round < ROUNDS => {}
                    Err(e) => {
                        let what = format!("{} {name}", object.keyword().to_lowercase());
                        cx.note(
                            Severity::Warning,
                            component,
                            what,
                            format!("stays, because it is needed: {e}"),
                        );
                        unmark(session, object, (&name, comment)).await.map_err(failed())?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Statements that take its rights on settings from a role, which could not be dropped with them.
async fn rights_on_settings(
    session: &mut Session,
    role: &str,
) -> std::result::Result<Vec<String>, ClientError> {
    let known = "SELECT pg_catalog.to_regclass('pg_catalog.pg_parameter_acl') IS NOT NULL";
    if session.value(known).await?.as_deref() != Some("t") {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT DISTINCT p.parname FROM pg_catalog.pg_parameter_acl p, pg_catalog.aclexplode(p.paracl) a
         JOIN pg_catalog.pg_roles r ON r.oid = a.grantee WHERE r.rolname = {}",
        literal(role)
    );
    let rows = session.query(&sql).await?.into_iter();
    let settings = rows.filter_map(|row| row.into_iter().next().flatten());
    let revoke =
        |setting: String| format!("REVOKE ALL ON PARAMETER {} FROM {}", setting_name(&setting), ident(role));
    Ok(settings.map(revoke).collect())
}

/// They are no longer this restore's.
pub(super) async fn let_be(server: &Server, id: &str, session: &mut Session) -> Result<()> {
    let failed = || error::target("let the roles be that were made", server);
    for object in [Object::Role, Object::Tablespace] {
        for (name, comment) in made(session, object, id).await.map_err(failed())? {
            unmark(session, object, (&name, comment)).await.map_err(failed())?;
        }
    }
    Ok(())
}
