//! The lines of the one data path: what is put, poured, created and verified.

mod create;
mod pour;
mod put_stage;
mod report;
mod verify;

pub use create::{CreateComponent, CreateRequest, create};
pub use pour::{Pouring, pour_all};
pub(crate) use pour::{calmly, pour_each, what_ended};
pub use put_stage::put_stage;
pub use report::{ComponentReport, Report};
pub use verify::{DigestSink, VerifiedComponent, VerifyReport, verify};

use crate::{Context, Ready, Result, Source};
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
