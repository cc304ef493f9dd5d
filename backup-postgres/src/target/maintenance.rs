//! How the sessions of a restore are set, those of the vendor's tools as well.

use crate::client::Session;

/// For loading rows and for building indexes, whatever the server and the role are set to.
const OPTIONS: [(&str, &str); 7] = [
    // As pg_restore sets it; what is elsewhere says so itself.
    ("default_tablespace", ""),
    ("maintenance_work_mem", "256MB"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("synchronous_commit", "off"),
    ("default_transaction_read_only", "off"),
];
/// After so long who waits for a lock ends the autovacuum that has it: it comes to every table just loaded, and is in the way of its
/// indexes and keys for as long, which is a second if nobody says otherwise.
const NO_TIME_FOR_AUTOVACUUM: (&str, &str) = ("deadlock_timeout", "20ms");

/// What the user may set.
#[derive(Clone, Debug)]
pub(super) struct Maintenance {
    options: Vec<(&'static str, &'static str)>,
}

impl Maintenance {
    /// Asks the server what the user may.
    pub(super) async fn ask(session: &mut Session, major: u32) -> Self {
        let (name, _) = NO_TIME_FOR_AUTOVACUUM;
        let may = match major {
            ..15 => "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user".to_owned(),
            _ => format!("SELECT pg_catalog.has_parameter_privilege('{name}', 'SET')"),
        };
        // One who does not know it either way goes on without.
        let may = session.value(&may).await.ok().flatten().is_some_and(|may| may == "t");
        let more = may.then_some(NO_TIME_FOR_AUTOVACUUM);
        Maintenance { options: OPTIONS.into_iter().chain(more).collect() }
    }

    /// As libpq takes it from `PGOPTIONS`.
    pub(super) fn options(&self) -> String {
        let each = self.options.iter().map(|(name, value)| format!("-c {name}={value}"));
        each.collect::<Vec<_>>().join(" ")
    }

    /// The same as statements.
    pub(super) fn statements(&self) -> String {
        let each = self.options.iter().map(|(name, value)| format!("SET {name} = '{value}'"));
        each.collect::<Vec<_>>().join("; ")
    }
}
