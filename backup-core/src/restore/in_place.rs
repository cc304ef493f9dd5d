//! Targets whose old data is not kept: what is there goes before what is restored comes. They come when all others are proven, so that
//! whatever fails before leaves them as they are. What came of them is told, for nothing brings it back.

use super::{
    RestoredComponent,
    apply::{Restore, of_target, still_wanted},
    blocking,
    document::{Document, InPlace},
    draft::wanted,
};
use crate::{
    Context, Error, ErrorKind, Result, Severity, Target,
    pipeline::{calmly, open_components},
};

impl Restore<'_> {
    /// Restores those that are restored in place, one after another: from the first on there is no way back. Each takes effect as soon as it
    /// is proven, so that what fails later does not cost it, too.
    pub(super) async fn replace(&mut self) -> Result<Vec<RestoredComponent>> {
        let cx = self.cx;
        let mut done = Vec::new();
        for at in self.which(true) {
            still_wanted(cx)?;
            let wanted = wanted(&self.members[at..=at]);
            // What can fail without harm comes first.
            for view in open_components(&self.reader, wanted, cx).await? {
                let pouring = self.prepare(at, view).await?;
                still_wanted(cx)?;
                self.mark(at, InPlace::Begun).await?;
                let m = &mut self.members[at];
                let cleared = calmly("take away what is there", m.target.clear(cx)).await;
                cleared.map_err(|e| of_target(e).on(&m.component))?;
                done.extend(self.pour(vec![(at, pouring)]).await?);
                let m = &mut self.members[at];
                // It is all there: a cancellation now would only cost it.
                let published = calmly("publish the target", m.target.publish(&cx.calm())).await;
                published.map_err(|e| of_target(e).on(&m.component))?;
                if let Err(e) = self.mark(at, InPlace::Complete).await {
                    let text = format!("that it is complete cannot be written into the journal: {e}");
                    cx.note(Severity::Warning, &self.members[at].component, "", text);
                    self.journal.document.targets[at].in_place = Some(InPlace::Complete);
                }
            }
        }
        Ok(done)
    }

    async fn mark(&mut self, at: usize, state: InPlace) -> Result<()> {
        let mut next = self.journal.clone();
        self.journal = blocking(move || next.mark_in_place(at, state).map(|()| next)).await?;
        Ok(())
    }
}

/// Reverts a target that is so far. What was restored in place and is complete stays. The answer is how far it is then: `None`, and all is as
/// it was before.
pub(super) async fn take_back(
    target: &mut dyn Target,
    state: Option<InPlace>,
    cx: &Context,
) -> Result<Option<InPlace>> {
    match state {
        None => target.revert(cx).await.map(|()| None),
        Some(InPlace::Complete) => target.settle(cx).await.map(|()| state),
        Some(InPlace::Begun) => {
            let is_there = target.check_revert(cx).await.is_ok();
            target.revert(cx).await?;
            Ok(state.filter(|_| !is_there))
        }
    }
}

/// Whether something is neither as it was nor restored: no application is started over it.
pub(super) fn is_torn(document: &Document) -> bool {
    document.targets.iter().any(|t| t.in_place == Some(InPlace::Begun))
}

/// What is not as it was before, although the restore was reverted. `None`: nothing was taken away.
pub(super) fn gone(document: &Document) -> Option<Error> {
    let of = |state: InPlace| {
        let such = document.targets.iter().filter(|t| t.in_place == Some(state));
        such.map(|t| format!("{} at {}", t.component, t.place)).collect::<Vec<_>>()
    };
    let (torn, whole) = (of(InPlace::Begun), of(InPlace::Complete));
    let mut said = Vec::new();
    if !torn.is_empty() {
        let what = torn.join(", ");
        said.push(format!("{what}: what was there before is gone, and it is NOT whole"));
    }
    if !whole.is_empty() {
        let what = whole.join(", ");
        said.push(format!("{what}: what was there before is gone; what was restored is whole, and stays"));
    }
    if said.is_empty() {
        return None;
    }
    let mut others = document.targets.iter().filter(|t| t.in_place.is_none()).peekable();
    // What could not be reverted is told by whoever tried.
    if others.peek().is_some() && others.all(|t| t.done) {
        said.push("all else is as it was before".to_owned());
    }
    let named = document.targets.iter().filter(|t| t.in_place.is_some());
    let named: String = named.map(|t| format!(" --in-place={}", t.component)).collect();
    let mut hint = format!("restore it again: `backup restore {}{named}`", document.backup);
    if !torn.is_empty() && !document.stopped.is_empty() {
        hint += &format!(
            "; the application is left stopped until then: docker start {}",
            document.stopped.join(" ")
        );
    }
    Some(
        Error::new(ErrorKind::NotRolledBack, "restore in place", said.join("; "))
            .on(&document.label)
            .hint(hint),
    )
}
