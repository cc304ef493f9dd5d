//! Users and grants as an entry of a backup.

use super::{
    Pour,
    definitions::{HEAD, Item, unreadable},
};
use crate::{
    accounts::{self, Account, AccountStatement, AccountStep, USERS_FILE, USERS_SUBJECT},
    client::Session,
    stored::{Object, SqlFile, Stored},
};
use backup_core::{Context, Error, ErrorKind, Fact, Result, Severity, Stage};
use std::sync::PoisonError;

/// Whether users and grants are read. Said before anything is touched: who asked for them and may not read them learns it at once.
pub(super) async fn are_read(
    session: &mut Session,
    wanted: Option<bool>,
    component: &str,
    cx: &Context,
) -> Result<bool> {
    if wanted == Some(false) {
        return Ok(false);
    }
    let why = match session.rows("SELECT User FROM mysql.user LIMIT 1").await {
        Ok(_) => return Ok(true),
        Err(e) => e.during(ErrorKind::Source, "read users and grants"),
    };
    if wanted == Some(true) || why.kind() != ErrorKind::Denied {
        return Err(
            why.hint("GRANT SELECT ON mysql.* TO the user (as an administrator), or `globals = false`")
        );
    }
    let text = "users and grants are not in the backup: this user may not read mysql.user";
    cx.note(Severity::Warning, component, "", text);
    Ok(false)
}

impl Pour {
    /// Users, roles and grants; their names are said in the facts.
    pub(super) async fn users(&self, cx: &Context) -> Result<Item> {
        let mut stored = Stored::new(Object::Users, "", "", &self.version);
        let listed = accounts::list(&mut *self.control.lock().await, &self.version).await;
        let (found, warnings) = match listed {
            Ok(listed) => listed,
            Err(e) => return unreadable(e, stored, USERS_FILE.into(), Stage::Complete),
        };
        for warning in warnings {
            cx.note(Severity::Warning, &self.component, "", warning);
        }
        // A hash that the server hides would be restored as another password.
        if let Some(hidden) = found.iter().find(|f| f.create.contains("<secret>") || f.create.is_empty()) {
            let e = Error::new(ErrorKind::Denied, "read a user", "the server hides its password");
            let entry = stored.entry(USERS_FILE.into(), Stage::Complete);
            return Ok((entry, backup_core::Content::failed(e.on(hidden.account.to_string()))));
        }
        let head = format!(
            "-- Users and grants of the server. By hand: mariadb --force < '{USERS_FILE}' (or mysql). Who exists already keeps the password.\n{HEAD}"
        );
        let mut file = SqlFile::with(&head);
        let mut put = |account: &Account, step: AccountStep, statement: &str| {
            file.push(statement);
            stored.accounts.push(AccountStatement { account: account.clone(), step });
        };
        // Whoever is granted a role, or is one's administrator, comes after it.
        for f in &found {
            put(&f.account, AccountStep::Create, &f.create);
        }
        for f in &found {
            f.grants.iter().for_each(|g| put(&f.account, AccountStep::Grant, g));
        }
        for f in &found {
            f.default_roles.iter().for_each(|d| put(&f.account, AccountStep::DefaultRole, d));
        }
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        for f in found {
            facts.insert(USERS_SUBJECT, f.account.to_string(), Fact::Note(f.login));
        }
        drop(facts);
        Ok(file.finish(stored, USERS_FILE.into(), Stage::Complete))
    }
}
