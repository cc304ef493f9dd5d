//! The other way to back up a database: one archive of the vendor's tool, with the rows counted beside it in the same snapshot.

use super::{
    database::{Database, Known},
    guide,
    pour::{PostgresView, whole},
    watch::Watch,
};
use crate::{error, layout, quote::ident_in_ascii};
use backup_core::{Entry, Error, Fact, Facts, Result, Sink, Stage, put_stage};
use futures::stream;
use std::{sync::Arc, time::Duration};

/// Nobody knows how long a table takes to be counted. A cancellation ends it.
const COUNTING: Duration = Duration::from_secs(24 * 3600);

impl PostgresView {
    /// One database after another: there may be no more than two sessions beside those that hold the moments.
    pub(super) async fn pour_dumps(
        &self,
        list: Vec<(Arc<Database>, Known)>,
        sink: &Arc<dyn Sink>,
        facts: &mut Facts,
        watch: &Watch,
    ) -> Result<()> {
        let cx = &watch.cx;
        for (database, known) in &list {
            let Known { left_out, gone, .. } = known;
            let mut what = vec!["--blobs".to_owned()];
            let all_gone = database.tables.iter().filter(|table| gone.tables.contains(&table.display()));
            what.extend(
                left_out
                    .iter()
                    .chain(all_gone)
                    .map(|table| format!("--exclude-table-data={}", table.qualified())),
            );
            let what: Vec<&str> = what.iter().map(String::as_str).collect();
            let mut dump = self.vendor(database, &what, watch);
            if !gone.is_nothing() {
                dump = gone.filter(dump, watch.gave_way.clone());
            }
            let path = layout::dump_path(&database.server.database);
            let item = Ok(database.placed((Entry::file(path, Stage::Data), dump)));
            let (dumped, counted) =
                tokio::join!(put_stage(sink, cx, stream::iter([item])), self.count(database, known, watch));
            dumped?;
            facts.add_missing(layout::facts_in(database.folder.as_deref(), counted?));
        }
        for (database, known) in list {
            let path = layout::dump_path(&database.server.database);
            let guide = guide::of_dump(
                &self.guided(&database),
                &known.properties,
                (&path, !known.refreshes.is_empty()),
            );
            let item = database.placed(whole(layout::GUIDE, Stage::Complete, guide));
            put_stage(sink, cx, stream::iter([Ok(item)])).await?;
        }
        Ok(())
    }

    /// By the session that has the locks: whoever waits for one of the tables stands behind it.
    async fn count(&self, database: &Database, known: &Known, watch: &Watch) -> Result<Facts> {
        let mut facts = Facts::new();
        for table in known.left_out.iter().filter(|table| !table.of_extension) {
            let (subject, measure) = layout::dumped_rows_fact(&table.schema, &table.name);
            facts.insert(subject, measure, Fact::Count(0));
        }
        let mut leader = database.leader.lock().await;
        for table in known.kept.iter().filter(|table| !table.of_extension) {
            let (schema, name) = (ident_in_ascii(&table.schema), ident_in_ascii(&table.name));
            let sql = format!("SELECT count(*) FROM ONLY {schema}.{name}");
            let rows = tokio::select! {
                rows = leader.query_within(COUNTING, &sql) => rows,
                () = watch.cx.cancel.cancelled() => return Err(Error::cancelled()),
            };
            let failed = error::source("count the rows", &database.server);
            let rows = rows.map_err(|e| failed(e).on(database.server.shown(&table.display())))?;
            let rows = rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
            let rows =
                rows.ok_or_else(|| Error::damaged("count the rows", "no number came").on(table.display()))?;
            let (subject, measure) = layout::dumped_rows_fact(&table.schema, &table.name);
            facts.insert(subject, measure, Fact::Count(rows));
        }
        Ok(facts)
    }
}
