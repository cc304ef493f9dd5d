//! The other way to back up a database: one archive of the vendor's tool, with the rows counted beside it in the same snapshot.

use super::{
    exclude::LeftOut,
    pour::{PostgresView, whole},
    watch::Watch,
};
use crate::{catalog::Table, error, layout, properties::Properties, quote::ident_in_ascii};
use backup_core::{Content, Context, Entry, Error, Fact, Facts, Result, Sink, Stage, put_stage};
use futures::stream;
use std::{sync::Arc, time::Duration};

/// Nobody knows how long a table takes to be counted. A cancellation ends it.
const COUNTING: Duration = Duration::from_secs(24 * 3600);

impl PostgresView {
    /// `left_out`: tables without their rows.
    pub(super) async fn pour_dump(
        &self,
        sink: &Arc<dyn Sink>,
        (properties, globals): (&Properties, Option<Result<(Entry, Content)>>),
        (kept, left_out, gone): (&[Table], &[Table], &LeftOut),
        watch: &Watch,
    ) -> Result<Facts> {
        let cx = &watch.cx;
        let json = properties.to_json()?;
        let has_globals = globals.is_some();
        let prepare = [Ok(whole(layout::PROPERTIES, Stage::Prepare, json))].into_iter().chain(globals);
        put_stage(sink, cx, stream::iter(prepare)).await?;

        let mut what = vec!["--blobs".to_owned()];
        let all_gone = self.tables.iter().filter(|table| gone.tables.contains(&table.display()));
        what.extend(
            left_out
                .iter()
                .chain(all_gone)
                .map(|table| format!("--exclude-table-data={}", table.qualified())),
        );
        let what: Vec<&str> = what.iter().map(String::as_str).collect();
        let path = layout::dump_path(&self.server.database);
        let mut dump = self.vendor(&what, &watch.gave_way);
        if !gone.is_nothing() {
            dump = gone.filter(dump, watch.gave_way.clone());
        }
        let item = Ok((Entry::file(path.clone(), Stage::Data), dump));
        let (dumped, counted) =
            tokio::join!(put_stage(sink, cx, stream::iter([item])), self.count(kept, left_out, cx));
        dumped?;
        let facts = counted?;

        let guide = super::guide::of_dump(&self.server.database, properties, &path, has_globals);
        put_stage(sink, cx, stream::iter([Ok(whole(layout::GUIDE, Stage::Complete, guide))])).await?;
        Ok(facts)
    }

    /// By the session that has the locks: whoever waits for one of the tables stands behind it.
    async fn count(&self, kept: &[Table], left_out: &[Table], cx: &Context) -> Result<Facts> {
        let mut facts = Facts::new();
        for table in left_out.iter().filter(|table| !table.of_extension) {
            let (subject, measure) = layout::dumped_rows_fact(&table.schema, &table.name);
            facts.insert(subject, measure, Fact::Count(0));
        }
        let mut leader = self.leader.lock().await;
        for table in kept.iter().filter(|table| !table.of_extension) {
            let (schema, name) = (ident_in_ascii(&table.schema), ident_in_ascii(&table.name));
            let sql = format!("SELECT count(*) FROM ONLY {schema}.{name}");
            let rows = tokio::select! {
                rows = leader.query_within(COUNTING, &sql) => rows,
                () = cx.cancel.cancelled() => return Err(Error::cancelled()),
            };
            let rows =
                rows.map_err(|e| error::source("count the rows", &self.server)(e).on(table.display()))?;
            let rows = rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
            let rows =
                rows.ok_or_else(|| Error::damaged("count the rows", "no number came").on(table.display()))?;
            let (subject, measure) = layout::dumped_rows_fact(&table.schema, &table.name);
            facts.insert(subject, measure, Fact::Count(rows));
        }
        Ok(facts)
    }
}
