//! Subscriptions of a restored database. They bar it from being dropped, and its name for one at the publisher (a slot) is that of the old
//! database: whoever drops one drops the slot, too.

use super::{publish::Swap, shadow::Shadow};
use crate::{
    client::{ClientError, Session},
    error,
    quote::{ident, literal},
};
use backup_core::{Result, Severity};

/// What the server says to who may not look.
const DENIED: &str = "42501";

impl Shadow {
    /// They are disabled, as every vendor's tool makes them; they lose their slots.
    pub(super) async fn detach_subscriptions(&self) -> Result<()> {
        let failed = || error::target("take the slots from the subscriptions", &self.server);
        let mut session = self.session().await?;
        let names = named(&mut session, &self.name).await.map_err(failed())?;
        for name in &names {
            session.query(&without_slot(name)).await.map_err(failed())?;
        }
        session.close().await;
        for name in names {
            let text = format!(
                "the subscription is restored disabled and without its slot at the publisher, for the old database may use that: \
                 ALTER SUBSCRIPTION {0} SET (slot_name = '…'), then ALTER SUBSCRIPTION {0} ENABLE",
                ident(&name)
            );
            self.cx.note(Severity::Warning, &self.component, self.server.shown(&name), text);
        }
        Ok(())
    }
}

impl Swap {
    /// Of a database that was restored and is given up, before it is dropped.
    pub(super) async fn drop_subscriptions(&mut self, database: &str) -> Result<()> {
        let failed = || error::target("drop the subscriptions of a database", &self.server);
        let names = named(&mut self.session, database).await.map_err(failed())?;
        if names.is_empty() {
            return Ok(());
        }
        let mut session = Session::connect(&self.server.endpoint, database).await.map_err(failed())?;
        for name in names {
            session.query(&without_slot(&name)).await.map_err(failed())?;
            session.query(&format!("DROP SUBSCRIPTION {}", ident(&name))).await.map_err(failed())?;
        }
        session.close().await;
        Ok(())
    }
}

fn without_slot(subscription: &str) -> String {
    let name = ident(subscription);
    format!("ALTER SUBSCRIPTION {name} DISABLE; ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")
}

/// Those of a database.
pub(super) async fn named(session: &mut Session, database: &str) -> Result<Vec<String>, ClientError> {
    let sql = format!(
        "SELECT s.subname FROM pg_catalog.pg_subscription s JOIN pg_catalog.pg_database d ON d.oid = s.subdbid WHERE d.datname = {}
         ORDER BY s.subname",
        literal(database)
    );
    match session.query(&sql).await {
        Ok(rows) => Ok(rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect()),
        // Who may not look at subscriptions cannot have made any.
        Err(e) if e.code() == Some(DENIED) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}
