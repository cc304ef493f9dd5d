//! Users and grants of a backup, made where they are not there yet, when everything that they may use is in place.

use super::{journal::Journal, place::Place};
use crate::{
    MysqlConfig,
    accounts::{Account, AccountStep, PROXY, USERS_FILE, USERS_SUBJECT},
    catalog::Version,
    client::Session,
    error::ClientError,
};
use backup_core::{Context, Error, ErrorKind, Fact, Incoming, Refusal, Result, Severity};

/// The server knows no such plugin to log in by.
const NO_PLUGIN: u16 = 1524;
/// What a grant is about is not there: a table, a routine.
const NOT_THERE: [u16; 2] = [1146, 1305];
/// Who restores may not grant this.
const DENIED: [u16; 3] = [1044, 1045, 1698];

/// Whether a restore makes the users of a backup. What one vendor calls a user means nothing to the other.
pub(super) fn are_made(config: &MysqlConfig, of: &Version, here: &Version) -> bool {
    config.globals == Some(true) && of.mariadb == here.mariadb
}

/// What the plan says of them, or why they cannot be had.
pub(super) async fn survey(
    session: &mut Session,
    config: &MysqlConfig,
    of: Option<&Version>,
    here: &Version,
    incoming: &Incoming,
) -> std::result::Result<std::result::Result<Vec<String>, Refusal>, ClientError> {
    let facts = incoming.component.proof.iter();
    let of_users = facts.filter(|(s, _, fact)| *s == USERS_SUBJECT && matches!(fact, Fact::Note(_)));
    let listed: Vec<&str> = of_users.map(|(_, account, _)| account).collect();
    let selected = incoming.selection.covers(USERS_FILE.as_bytes());
    if config.globals != Some(true) {
        let there = !listed.is_empty() && selected;
        let said =
            there.then(|| "users and grants of the backup are not restored (--globals does)".to_owned());
        return Ok(Ok(Vec::from_iter(said)));
    }
    if listed.is_empty() || !selected {
        let why = "users and grants are asked for, and what is restored has none";
        return Ok(Err(Refusal::new(why, "leave --globals out")));
    }
    if of.is_some_and(|of| !are_made(config, of, here)) {
        let text = format!("users and grants of the other vendor are not restored: {}", listed.join(", "));
        return Ok(Ok(vec![text]));
    }
    let there = names(session).await?;
    let (stay, made): (Vec<&str>, Vec<&str>) = listed.into_iter().partition(|l| there.iter().any(|t| t == l));
    let mut notes = Vec::new();
    if !made.is_empty() {
        notes.push(format!("these users and roles are made, with their grants: {}", made.join(", ")));
    }
    if !stay.is_empty() {
        let text = "these users and roles are there already, and stay as they are";
        notes.push(format!("{text}: {}", stay.join(", ")));
    }
    Ok(Ok(notes))
}

/// As they are written in the facts of a backup.
async fn names(session: &mut Session) -> Result<Vec<String>, ClientError> {
    let rows = session.rows("SELECT User, Host FROM mysql.user").await?;
    let names = rows.into_iter().flat_map(|row| {
        let [name, host] = crate::catalog::fields(row);
        // A role of MariaDB has an empty host, a user never.
        let role = Account { name: name.clone(), host: None };
        [Account { name, host: Some(host) }.to_string(), role.to_string()]
    });
    Ok(names.collect())
}

/// Makes those that are not there. They are written down before.
pub(super) async fn make(place: &Place, session: &mut Session, cx: &Context) -> Result<()> {
    let failed =
        |e: ClientError, what: &str| e.during(ErrorKind::Target, "make users and grants").on(what.to_owned());
    let journal = Journal::of(place);
    let statements = journal.accounts(session).await.map_err(|e| failed(e, "users"))?;
    if statements.is_empty() {
        return Ok(());
    }
    let (mut made, mut stay): (Vec<Account>, Vec<Account>) = Default::default();
    for (of, _) in statements.iter().filter(|(of, _)| of.step == AccountStep::Create) {
        let there = of.account.exists(session).await.map_err(|e| failed(e, "users"))?;
        if there { &mut stay } else { &mut made }.push(of.account.clone());
    }
    journal.write_made_accounts(session, &made).await.map_err(|e| failed(e, "users"))?;
    let say = |severity: Severity, account: &Account, text: String| {
        cx.note(severity, &place.component, account.to_string(), text);
    };
    for account in stay {
        say(Severity::Note, &account, "was there already, and stays as it is".to_owned());
    }
    let mut unknown: Vec<Account> = Vec::new();
    for (of, statement) in &statements {
        let account = &of.account;
        if !made.contains(account) || unknown.contains(account) {
            continue;
        }
        let done = session.run(statement).await;
        match (of.step, done) {
            (_, Ok(_)) => {}
            (AccountStep::Create, Err(e)) if e.code() == Some(NO_PLUGIN) => {
                say(Severity::Warning, account, format!("could not be made: {e}"));
                unknown.push(account.clone());
            }
            (AccountStep::Grant, Err(e)) if e.code().is_some_and(|c| NOT_THERE.contains(&c)) => {
                say(Severity::Warning, account, format!("a grant is about something that is not there: {e}"));
            }
            // Only who may be one himself can give it on, whatever else he may.
            (AccountStep::Grant, Err(e))
                if statement.starts_with(PROXY) && e.code().is_some_and(|c| DENIED.contains(&c)) =>
            {
                say(Severity::Warning, account, format!("could not be made a proxy for others: {e}"));
            }
            (_, Err(e)) => return Err(failed(e, &account.to_string())),
        }
    }
    // MariaDB makes the maker an administrator of a role, without which he could not grant it.
    for role in made.iter().filter(|a| a.host.is_none()) {
        let given_back = session.run(&format!("REVOKE {role} FROM CURRENT_USER")).await;
        given_back.map_err(|e| failed(e, &role.to_string()))?;
    }
    Ok(())
}

/// Takes away those that this restore has made.
pub(super) async fn take_away(place: &Place, session: &mut Session) -> Result<()> {
    let failed = |e: ClientError| {
        let e: Error = e.during(ErrorKind::Target, "take away the users that were made");
        e.on(place.config.place())
    };
    // Whoever has a role goes before it.
    for account in Journal::of(place).made_accounts(session).await.map_err(failed)?.iter().rev() {
        session.run(&account.drop_statement()).await.map_err(failed)?;
    }
    Ok(())
}
