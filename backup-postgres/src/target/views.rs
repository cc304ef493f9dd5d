//! The materialized views of a restored database. What they show is derived from rows that are there: one that cannot be filled costs
//! nobody the rows.

use super::{
    put::Received,
    shadow::{Shadow, WORK},
};
use crate::{
    catalog,
    client::ClientError,
    error,
    quote::qualified,
    target::present,
    toc::{self, Item},
};
use backup_core::{Content, Error, Result, Severity};
use bytes::Bytes;
use std::collections::BTreeSet;

/// The item of an archive that fills one. A vendor's tool that meets one that fails either ends there, or says nothing of it that could
/// be understood.
const FILLS: &str = "MATERIALIZED VIEW DATA";

impl Shadow {
    /// Runs statements that fill them, each a transaction of its own. What the server refuses leaves its view unfilled, which is said; so
    /// it does with all that need it, whose statements come later.
    pub(super) async fn fill_views(&self, statements: &str) -> Result<()> {
        let statements: Vec<&str> = statements.lines().filter(|line| !line.is_empty()).collect();
        if statements.is_empty() {
            return Ok(());
        }
        let mut session = self.session().await?;
        for statement in statements {
            let done = tokio::select! {
                done = session.query_within(WORK, statement) => done,
                () = self.cx.cancel.cancelled() => return Err(Error::cancelled()),
            };
            let failed = error::target("fill the materialized views", &self.server);
            match done {
                Ok(_) => {}
                Err(e @ ClientError::Server(_)) if session.is_clean() => {
                    let view = self.server.shown(&catalog::refreshed_by(statement));
                    let text =
                        format!("it is left unfilled: {}; to fill it: {statement}", failed(e).message());
                    self.cx.note(Severity::Lost, &self.component, view, text);
                }
                Err(e) => return Err(failed(e)),
            }
        }
        session.close().await;
        Ok(())
    }

    /// Of an archive that flows, what fills views is kept for later. The beginning of it without that.
    pub(super) async fn without_views(&self, archive: &mut Content) -> Result<Bytes> {
        let mut held = toc::Held::default();
        while let Some(bytes) = archive.next().await? {
            if held.take(&bytes) {
                break;
            }
        }
        let held = held.into_bytes();
        let mut views = String::new();
        let less = toc::without(&held, |items| {
            let fills: Vec<&Item> = items.iter().filter(|item| item.kind == FILLS).collect();
            views = fills.iter().map(|item| format!("{}\n", refresh(item))).collect();
            Ok(fills.iter().map(|item| item.number).collect::<BTreeSet<u32>>())
        });
        // One that is not understood is for the tool as it is.
        let Ok(less) = less else { return Ok(held.into()) };
        if !self.server.config.schema_only {
            self.keep(|received| received.fill(&views, self.server.config.data_only));
        }
        Ok(less.into())
    }
}

impl Received {
    /// Statements of the backup have come. `kept`: the views of the database that is there are meant.
    pub(super) fn fill(&mut self, statements: &str, kept: bool) {
        let here = self.refresh.take().filter(|_| kept).unwrap_or_default();
        let all = if kept { present::to_fill(&self.views, &here, statements) } else { statements.to_owned() };
        self.refresh = Some(all);
    }
}

fn refresh(item: &Item) -> String {
    catalog::refresh_of(&qualified(item.schema.as_deref().unwrap_or_default(), &item.name))
}
