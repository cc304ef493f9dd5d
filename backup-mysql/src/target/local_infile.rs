//! `local_infile`, which is off on many servers, is switched on for the time of loading, and off again by the last restore that needs it.
//!
//! Each restore writes into its own record that it found the setting off. Several may run on one server at once; the one that ends first
//! must not take the setting away from the others, nor may one that came later take it for the server's own.

use super::{journal::Journal, place::Place};
use crate::{
    catalog::{OURS, fields},
    client::Session,
    error::ClientError,
    quote::text,
};

const KEY: &str = "local_infile";
const OFF: &str = "off";
/// Held while the setting and the records that speak of it are looked at and changed.
const LOCK: &str = "'_backup_local_infile'";
const LOCK_SECONDS: u32 = 30;

/// Lets the server take `LOAD DATA LOCAL`. `false`: it is off, and this user may not switch it on.
pub(super) async fn allow(place: &Place, session: &mut Session) -> Result<bool, ClientError> {
    lock(session).await?;
    let allowed = allow_locked(place, session).await;
    unlock(session, allowed).await
}

/// Puts the setting back, unless another restore still needs it.
pub(super) async fn put_back(place: &Place, session: &mut Session) -> Result<(), ClientError> {
    if Journal::of(place).get(session, KEY).await?.as_deref() != Some(OFF) {
        return Ok(());
    }
    lock(session).await?;
    let done = put_back_locked(place, session).await;
    unlock(session, done).await
}

async fn allow_locked(place: &Place, session: &mut Session) -> Result<bool, ClientError> {
    let on = session.value("SELECT @@GLOBAL.local_infile").await?;
    let on = matches!(on.as_deref(), Some("1" | "ON"));
    if on && !found_off_by_others(place, session).await? {
        return Ok(true);
    }
    let journal = Journal::of(place);
    journal.set(session, KEY, OFF).await?;
    if on {
        return Ok(true);
    }
    match session.run("SET GLOBAL local_infile = ON").await {
        Ok(_) => Ok(true),
        Err(e) if e.is_lost() => Err(e),
        Err(_) => journal.set(session, KEY, "").await.map(|()| false),
    }
}

async fn put_back_locked(place: &Place, session: &mut Session) -> Result<(), ClientError> {
    if !found_off_by_others(place, session).await? {
        session.run("SET GLOBAL local_infile = OFF").await?;
    }
    Journal::of(place).set(session, KEY, "").await
}

/// Whether another restore found the setting off and has not put it back.
async fn found_off_by_others(place: &Place, session: &mut Session) -> Result<bool, ClientError> {
    let sql = format!(
        "SELECT TABLE_SCHEMA FROM information_schema.TABLES WHERE TABLE_NAME = 'state' AND TABLE_SCHEMA LIKE {}",
        text(&format!("{}%", OURS.replace('_', "\\_")))
    );
    for [schema] in session.rows(&sql).await?.into_iter().map(fields) {
        // Schemas of tables have names that go on.
        if schema == place.journal() || schema.len() != place.journal().len() {
            continue;
        }
        let found =
            format!("SELECT v FROM {} WHERE k = {}", crate::quote::qualified(&schema, "state"), text(KEY));
        match session.value(&found).await {
            Ok(value) if value.as_deref() == Some(OFF) => return Ok(true),
            Err(e) if e.is_lost() => return Err(e),
            // It is being dropped, or is that of another user.
            _ => {}
        }
    }
    Ok(false)
}

async fn lock(session: &mut Session) -> Result<(), ClientError> {
    match session.value(&format!("SELECT GET_LOCK({LOCK}, {LOCK_SECONDS})")).await?.as_deref() {
        Some("1") => Ok(()),
        _ => Err(ClientError::Late(std::time::Duration::from_secs(LOCK_SECONDS.into()))),
    }
}

async fn unlock<T>(session: &mut Session, outcome: Result<T, ClientError>) -> Result<T, ClientError> {
    let unlocked = match session.is_sound() {
        true => session.value(&format!("SELECT RELEASE_LOCK({LOCK})")).await.map(drop),
        // With its connection.
        false => Ok(()),
    };
    let value = outcome?;
    unlocked.map(|()| value)
}
