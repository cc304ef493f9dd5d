//! What is done before anything is taken away in place: all of it is read and compared with the proofs of the backup, and its definitions are
//! tried beside what is there. A damaged archive, a role or an extension that the server lacks, are found while there is a way back.

use super::{
    apply::{Restore, Unproven, of_target, still_wanted, way_out},
    draft::wanted,
};
use crate::{
    Content, Context, DigestSink, Entry, Error, Event, Phase, Proof, Put, Result, Sink, Stage, compare,
    pipeline::{Pouring, calmly, expected_of_reading, open_components},
};
use async_trait::async_trait;
use std::{fmt, sync::Arc};

impl Restore<'_> {
    /// Reads all that is restored in place, and tries its definitions. Leaves nothing behind, unless it fails: then the restore is reverted.
    pub(super) async fn rehearse(&mut self) -> Result<()> {
        let which = self.which(true);
        if which.is_empty() {
            return Ok(());
        }
        self.cx.emit(&Event::Phase { phase: Phase::ReadBack });
        for at in &which {
            self.read(*at).await?;
        }
        self.cx.emit(&Event::Phase { phase: Phase::Rehearse });
        for at in which {
            self.try_definitions(at).await?;
        }
        Ok(())
    }

    async fn read(&mut self, at: usize) -> Result<()> {
        still_wanted(self.cx)?;
        let opened = open_components(&self.reader, wanted(&self.members[at..=at]), self.cx).await?;
        let component = self.members[at].component.clone();
        let list = opened.into_iter().map(|(view, estimate)| {
            (
                Pouring { component: component.clone(), view, sink: DigestSink::new(), stillness: None },
                estimate,
            )
        });
        for Unproven { said, mut there, .. } in self.pour_unproven(list.collect(), self.cx).await? {
            let stored = self.reader.manifest().component(&component);
            let wanted = stored.filter(|_| !self.plan.members[at].selective).map_or(&said, |c| &c.proof);
            there.add_missing(said.clone());
            let expected = expected_of_reading(wanted, &there);
            if let Some(first) = compare(&expected, &there, &|_, _| false).first() {
                let message = format!("it does not hold what its manifest says: {first}");
                let e = Error::damaged("read the backup", message).on(&component);
                return Err(e.hint(way_out(&self.plan.backup.id)));
            }
        }
        Ok(())
    }

    async fn try_definitions(&mut self, at: usize) -> Result<()> {
        // What is noted here is noted again when it is done.
        let cx = self.cx.without_notes();
        still_wanted(&cx)?;
        let opened = open_components(&self.reader, wanted(&self.members[at..=at]), &cx).await?;
        let m = &mut self.members[at];
        let of_member = |e: Error| of_target(e).on(&m.component);
        let sink = calmly("try the definitions", m.target.rehearse(&cx)).await.map_err(of_member)?;
        let Some(sink) = sink else { return Ok(()) };
        let component = m.component.clone();
        let list = opened.into_iter().map(|(view, estimate)| {
            let sink = Arc::new(Definitions(sink.clone()));
            (Pouring { component: component.clone(), view, sink, stillness: None }, estimate)
        });
        self.pour_unproven(list.collect(), &cx).await?;
        let m = &mut self.members[at];
        let reverted = calmly("take the definitions away that were tried", m.target.revert(&cx.calm())).await;
        reverted.map_err(|e| of_target(e).on(&m.component))
    }
}

/// Data does not come here.
struct Definitions(Arc<dyn Sink>);

impl fmt::Display for Definitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl Sink for Definitions {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        match entry.stage {
            Stage::Data => Ok(Put::Kept),
            Stage::Prepare | Stage::Complete => self.0.put(entry, content).await,
        }
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.0.finish(cx).await
    }
}
