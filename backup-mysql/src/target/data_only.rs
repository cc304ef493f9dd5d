//! Rows without definitions: the tables of the shadow are made like those that are there, and take their place with all that is theirs.

use super::{
    journal::{Journal, Restored},
    sink::{ShadowSink, TableKey},
};
use crate::{
    client::Session,
    ddl::split_table,
    definitions,
    error::ClientError,
    quote::qualified,
    stored::{Object, Stored},
};
use backup_core::{Error, ErrorKind, Result};

/// There is no such table, no such database, or it is something else.
pub(super) const NOT_THERE: [u16; 5] = [1146, 1049, 1347, 4089, 4091];

impl ShadowSink {
    /// Makes a table or sequence as it is in the database now.
    pub(super) async fn make_like_live(
        &self,
        stored: &Stored,
        number: usize,
        statements: &[String],
        what: &str,
    ) -> Result<()> {
        let is_sequence = stored.object == Object::Sequence;
        let target = self.databases.lock().await.get(number).map(|d| d.restored.target.clone());
        let live = qualified(&target.unwrap_or_default(), &stored.name);
        let kind = if is_sequence { "SEQUENCE" } else { "TABLE" };
        let shown = self.control.lock().await.first(&format!("SHOW CREATE {kind} {live}")).await;
        let create = match shown {
            Ok(row) => row.and_then(|row| row.into_iter().nth(1).flatten()).unwrap_or_default(),
            Err(e) if e.code().is_some_and(|code| NOT_THERE.contains(&code)) => String::new(),
            Err(e) => return Err(self.failed(e, "look at the definition that is there", what)),
        };
        if !create.starts_with(&format!("CREATE {kind}")) {
            let message = "there is none of that name, and definitions are not restored";
            return Err(Error::new(ErrorKind::Refused, "restore the rows", message).on(what).hint(WITHOUT));
        }
        if is_sequence {
            // What comes after its definition sets the next number.
            let numbers = statements.iter().skip(1).cloned();
            self.run(number, &[create].into_iter().chain(numbers).collect::<Vec<_>>(), what).await?;
        } else {
            let split = split_table(&create, false);
            self.run(number, &[split.table], what).await?;
            if let Some(d) = self.databases.lock().await.get_mut(number) {
                d.foreign_keys.extend(split.foreign_keys.into_iter().map(|key| (stored.name.clone(), key)));
            }
        }
        let mut tables = self.tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tables.entry((number, stored.name.clone())).or_default();
        Ok(())
    }

    /// Triggers go with the table that is replaced, and are made again for the one that takes its place.
    pub(super) async fn keep_live_triggers(
        &self,
        control: &mut Session,
        r: &Restored,
        tables: &[(TableKey, bool, bool)],
    ) -> Result<()> {
        let failed = |e: ClientError| self.failed(e, "write the record of the restore", "");
        for d in definitions::list(control, &r.target, &self.of.version).await? {
            let of_ours = tables.iter().any(|((number, name), ..)| *number == r.number && *name == d.table);
            if d.object != Object::Triggers || !of_ours {
                continue;
            }
            let statement = d.statement.clone().map_err(|e| e.with_kind(ErrorKind::Target))?;
            let journal = Journal::of(&self.place);
            journal.write_definition(control, false, r.number, &d, &statement).await.map_err(failed)?;
        }
        Ok(())
    }
}

/// The way out.
pub(super) const WITHOUT: &str = "leave --data-only out, or restore the definitions first (--schema-only)";
