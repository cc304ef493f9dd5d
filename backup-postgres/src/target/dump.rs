//! An archive of `pg_dump` that flows into `pg_restore`: a whole database, or its large objects.

use super::{
    put::{Taking, drain},
    shadow::Shadow,
};
use crate::{catalog, client::NO_ROLE, error, layout};
use backup_core::{Content, Error, ErrorKind, Fact, Facts, Part, Result};
use bytes::Bytes;
use futures::stream;
use std::sync::{Arc, Mutex, PoisonError};

impl Shadow {
    /// In one transaction: all of them or none. A content that fails ends the tool before it could commit.
    pub(super) async fn large_objects(&self, content: &mut Content) -> Result<(), Taking> {
        if self.opened().await?.is_none() {
            drain(content).await?;
            let e = Error::damaged(
                "restore the large objects",
                "the definitions of the database are not in the backup",
            );
            return Err(Taking::Target(e));
        }
        let begin = Bytes::new();
        self.restore_flowing("restore the large objects", &["--single-transaction"], (begin, content)).await
    }

    /// Definitions and rows of all that there is. What came before a failure is in a database that is dropped.
    pub(super) async fn whole_dump(&self, content: &mut Content) -> Result<(), Taking> {
        let how = &self.server.config;
        let (opened, arguments): (_, &[&str]) = match (how.data_only, how.schema_only) {
            (true, _) => (self.opened().await?, &["--data-only"]),
            (_, true) => (self.opened_for_dump().await?, &["--schema-only"]),
            _ => (self.opened_for_dump().await?, &[]),
        };
        if opened.is_none() {
            drain(content).await?;
            let message = format!("{} is not restored with it", layout::PROPERTIES);
            return Err(Taking::Target(Error::damaged("restore the dump", message)));
        }
        let begin = self.without_views(content).await.map_err(Taking::Content)?;
        self.restore_flowing("restore the dump", arguments, (begin, content)).await?;
        self.dumped.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// An archive, of which this beginning was read already.
    async fn restore_flowing(
        &self,
        operation: &'static str,
        arguments: &[&str],
        (begin, content): (Bytes, &mut Content),
    ) -> Result<(), Taking> {
        let failure: Arc<Mutex<Option<Error>>> = Arc::default();
        let (sender, receiver) = tokio::sync::mpsc::channel(2);
        let no_owner = self.server.config.no_owner;
        let settings = self.maintenance.options();
        let restoring =
            self.tools.restore_stream(&self.name, passed_on(receiver), arguments, no_owner, &settings);
        let feeding = async {
            let mut begin = Some(begin).filter(|begin| !begin.is_empty());
            loop {
                let next = match begin.take() {
                    Some(begin) => Ok(Some(begin)),
                    None => content.next().await,
                };
                match next {
                    Ok(Some(bytes)) => {
                        if sender.send(Part::Bytes(bytes)).await.is_err() {
                            // The tool has stopped reading. The rest is read for its digest.
                            break drain(content).await;
                        }
                    }
                    Ok(None) => {
                        let _ = sender.send(Part::End(Facts::new())).await;
                        break Ok(());
                    }
                    Err(e) => {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                        break Ok(());
                    }
                }
            }
            .map(|()| drop(sender))
        };
        let (fed, restored) = tokio::join!(feeding, restoring);
        if let Some(e) = failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(Taking::Content(e));
        }
        fed?;
        restored.map_err(|e| Taking::Target(self.refused(operation, e)))
    }

    /// What a tool says, with a way out where there is one.
    pub(super) fn refused(&self, operation: &'static str, e: Error) -> Error {
        let said = reasons(e.message());
        let about = Error::new(ErrorKind::Target, operation, &said).on(self.server.place());
        let is_missing = said.contains("does not exist");
        match is_missing && said.contains("role \"") {
            true => about.hint(NO_ROLE),
            false if is_missing || said.contains("no default operator class") => self.lacking(about),
            false => about,
        }
    }

    /// Rows of all tables, as they were counted beside the dump.
    pub(super) async fn count_dumped(&self) -> Result<Facts> {
        let failed = || error::target("count the rows", &self.server);
        let tables = self
            .with_session(async |session| {
                catalog::tables(session, catalog::Sizes::Estimated).await.map_err(failed())
            })
            .await?;
        let mut facts = Facts::new();
        for table in tables.iter().filter(|table| !table.of_extension) {
            let rows = self.count_of(&table.schema, &table.name).await?;
            let (subject, measure) = layout::dumped_rows_fact(&table.schema, &table.name);
            facts.insert(subject, measure, Fact::Count(rows));
        }
        Ok(facts)
    }
}

/// Of what `pg_restore` says that which says why: it also tells that its process ended, which had said so itself.
fn reasons(said: &str) -> String {
    const NONE: &str = "error: a worker process died unexpectedly";
    let lines: Vec<&str> = said.lines().filter(|line| !line.ends_with(NONE)).collect();
    if lines.is_empty() { said.to_owned() } else { lines.join("\n") }
}

fn passed_on(receiver: tokio::sync::mpsc::Receiver<Part>) -> Content {
    Content::stream(stream::unfold(receiver, |mut receiver| async {
        let part = receiver.recv().await?;
        Some((Ok(part), receiver))
    }))
}

#[cfg(test)]
mod tests {
    use super::reasons;

    #[test]
    fn of_what_a_tool_says_only_the_reason_is_told() {
        let why = "it ended with exit status: 1: pg_restore: error: could not execute query: ERROR:  no f\nCommand was: CREATE INDEX";
        assert_eq!(reasons(&format!("{why}\npg_restore: error: a worker process died unexpectedly")), why);
        let alone = "it ended with exit status: 1: pg_restore: error: a worker process died unexpectedly";
        assert_eq!((reasons(alone), reasons(why)), (alone.to_owned(), why.to_owned()));
    }
}
