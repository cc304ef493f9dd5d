//! Making views, routines, triggers and events; and trying it in the shadow first, so that what cannot be made is found out before
//! anything is published.

use super::{
    journal::Restored,
    place::{MODE, Place},
};
use crate::{
    client::Session,
    ddl::{names_database, requalified},
    definitions::{Definition, settings},
    error::ClientError,
    quote::ident,
    stored::Object,
};
use backup_core::{Error, ErrorKind, Result};

/// A view may use one that is not made yet, or a function: tried again when others are made.
const NOT_YET: [u16; 5] = [1146, 1305, 1356, 1347, 1054];

/// The statement for another database: servers print its name where a view uses functions, or tables of several databases.
fn statement_for(d: &Definition, from: &str, to: &str) -> Result<String> {
    let statement = d.statement.clone()?;
    Ok(match d.object {
        Object::View if from != to => requalified(&statement, from, to),
        _ => statement,
    })
}

/// What people wrote themselves is not rewritten.
pub(super) fn names_the_old_database(d: &Definition, r: &Restored) -> Option<String> {
    let statement = d.statement.as_ref().ok()?;
    let names = d.object != Object::View && r.source != r.target && names_database(statement, &r.source);
    names.then(|| format!("it names the database `{}`, and goes on to use that one", r.source))
}

fn rank(object: Object) -> u8 {
    match object {
        Object::Function => 0,
        Object::Package => 1,
        Object::PackageBody => 2,
        Object::Procedure => 3,
        Object::View => 4,
        Object::Triggers => 5,
        _ => 6,
    }
}

/// Makes definitions in a database, whose name in the backup is `from`.
pub(super) async fn make(
    session: &mut Session,
    database: &str,
    from: &str,
    definitions: &[Definition],
) -> Result<()> {
    let failed = |e: ClientError, what: &str| e.during(ErrorKind::Target, "make the definition").on(what);
    session.run(&format!("USE {}", ident(database))).await.map_err(|e| failed(e, database))?;
    let mut left: Vec<&Definition> = definitions.iter().collect();
    // What others use comes first; triggers of a table stay in their order.
    left.sort_by_key(|d| rank(d.object));
    let made = 'made: loop {
        let before = left.len();
        let (mut later, mut first) = (Vec::new(), None);
        for d in left {
            let statement = match statement_for(d, from, database) {
                Ok(statement) => statement,
                Err(e) => break 'made Err(e),
            };
            let tried = async {
                session.run(settings(&d.context).trim_end_matches(';')).await?;
                session.run(&statement).await
            };
            match tried.await {
                Ok(_) => {}
                Err(e) if d.object == Object::View && e.code().is_some_and(|c| NOT_YET.contains(&c)) => {
                    first.get_or_insert((e, &d.name));
                    later.push(d);
                }
                Err(e) => break 'made Err(failed(e, &d.name)),
            }
        }
        left = later;
        match first {
            None => break Ok(()),
            Some((e, name)) if left.len() == before => break Err(failed(e, name)),
            Some(_) => {}
        }
    };
    if !session.is_sound() {
        return made;
    }
    // What comes next is not to be read as the last definition was.
    let back = format!("SET NAMES utf8mb4, {MODE}, time_zone = '+00:00'");
    session.run(&back).await.map_err(|e| failed(e, database))?;
    made
}

/// Takes definitions away, whether they are there or not.
pub(super) async fn drop_all(
    session: &mut Session,
    database: &str,
    definitions: &[Definition],
) -> Result<()> {
    let failed = |e: ClientError, what: &str| e.during(ErrorKind::Target, "drop the definition").on(what);
    session.run(&format!("USE {}", ident(database))).await.map_err(|e| failed(e, database))?;
    for d in definitions.iter().rev() {
        if d.is_of_oracle_mode() {
            session.run("SET sql_mode = 'ORACLE'").await.map_err(|e| failed(e, &d.name))?;
        }
        let dropped = session.run(&d.drop_statement()).await;
        if d.is_of_oracle_mode() && session.is_sound() {
            session.run(&format!("SET {MODE}")).await.map_err(|e| failed(e, &d.name))?;
        }
        match dropped {
            // A trigger whose table is gone is gone, too.
            Err(e) if e.code() == Some(1360) => {}
            Err(e) => return Err(failed(e, &d.name)),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Makes everything in the shadow and takes it away again. Events are made disabled: nothing of the shadow may run.
pub(super) async fn rehearse(
    session: &mut Session,
    place: &Place,
    r: &Restored,
    definitions: &[Definition],
) -> Result<()> {
    let shadow = place.shadow(r.number);
    // A part of a database has no tables for its views; what it brings is made at the end, or fails there.
    let tried: Vec<Definition> = definitions
        .iter()
        .filter(|d| d.object != Object::Event && (r.whole || d.object != Object::View))
        .cloned()
        .collect();
    let made = make(session, &shadow, &r.source, &tried).await;
    if made.as_ref().is_err_and(|_| !session.is_sound()) {
        return made;
    }
    let dropped = drop_all(session, &shadow, &tried).await;
    made.map_err(|e: Error| match e.kind() {
        ErrorKind::Target => e,
        _ => e.with_kind(ErrorKind::Target),
    })?;
    dropped
}
