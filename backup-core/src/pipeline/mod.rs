//! The lines of the one data path: what is put, poured, created and verified.

mod copy;
mod create;
mod pour;
mod put_stage;
mod read_back;
mod report;
mod verify;

pub use copy::{Copied, copy};
pub use create::{CreateComponent, CreateRequest, create};
pub use pour::{Pouring, pour_all};
pub(crate) use pour::{calmly, pour_each, what_ended, what_ended_and_where};
pub use put_stage::put_stage;
pub use read_back::{ReadBack, read_back};
pub use report::{ComponentReport, PlaceReport, Report};
pub(crate) use verify::expected_of_reading;
pub use verify::{DigestSink, VerifiedComponent, VerifyReport, verify};

use crate::{BackupReader, BackupWriter, Context, Error, Ready, Result, Selection, Severity, Source, View};
use std::{future::Future, sync::Arc};
use tokio_util::task::AbortOnDropHandle;

/// Runs all at the same time, each in a task of its own, and awaits all of them; panics are errors.
pub(crate) async fn side_by_side<T, F>(
    what: &'static str,
    calls: impl IntoIterator<Item = F>,
) -> Vec<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let tasks: Vec<_> =
        calls.into_iter().map(|c| AbortOnDropHandle::new(tokio::spawn(calmly(what, c)))).collect();
    let mut out = Vec::with_capacity(tasks.len());
    for task in tasks {
        out.push(task.await.unwrap_or_else(|_| Err(crate::Error::cancelled())));
    }
    out
}

/// Connects; a failure that may pass is tried again.
pub(crate) async fn connect(source: Arc<dyn Source>, cx: Context) -> Result<Box<dyn Ready>> {
    cx.retry.run(&cx.cancel, || source.connect(&cx)).await
}

/// Components of a backup, ready to flow. A failure here costs nothing.
pub(crate) async fn open_components(
    reader: &Arc<dyn BackupReader>,
    wanted: Vec<(String, Selection)>,
    cx: &Context,
) -> Result<Vec<(Box<dyn View>, Option<u64>)>> {
    let opening = wanted.into_iter().map(|(name, selection)| {
        let (reader, cx) = (reader.clone(), cx.clone());
        async move {
            let source: Arc<dyn Source> = reader.component(&name, selection)?.into();
            let ready = connect(source, cx.clone()).await.map_err(|e| e.on(&name))?;
            let estimate = ready.estimate();
            Ok((ready.fix(&cx).await.map_err(|e| e.on(&name))?, estimate))
        }
    });
    side_by_side("open the backup", opening).await.into_iter().collect()
}

/// Gives a backup up that cannot be completed; nothing of it stays behind. The error is the one that made it necessary.
async fn give_up<T>(writer: Box<dyn BackupWriter>, e: Error, cx: &Context) -> Result<T> {
    if let Err(left) = calmly("give the backup up", writer.abort(&cx.calm())).await {
        cx.note(Severity::Warning, "", "", format!("what was written could not be removed: {left}"));
    }
    Err(e)
}

fn still_wanted(cx: &Context) -> Result<()> {
    if cx.cancel.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
}
