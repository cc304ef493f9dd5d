//! Puts the entries of one stage.

use crate::{Content, Context, Entry, Error, ErrorKind, Put, Result, Sink};
use futures::{Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::sync::Arc;
use tokio::task::{JoinError, JoinSet};

/// Puts the entries of one stage and returns when all puts have ended.
///
/// Contents that are in memory are put in place, in order; one that its sink does not take at the first poll goes on beside
/// the next ones. Streams are put in tasks of their own. Of each sort at most `cx.tasks` are open at once.
///
/// The first error (of a put, or an item of `items`) ends the taking of further items; open puts are awaited, not dropped, and
/// then that error is returned. A content that fails is no error here: the sink discards it and the ledger counts it as lost.
pub async fn put_stage(
    sink: &Arc<dyn Sink>,
    cx: &Context,
    items: impl Stream<Item = Result<(Entry, Content)>> + Send,
) -> Result<()> {
    let mut items = std::pin::pin!(items);
    let mut in_place: FuturesUnordered<BoxFuture<'_, Result<Put>>> = FuturesUnordered::new();
    let mut tasks: JoinSet<Result<Put>> = JoinSet::new();
    let mut first: Result<()> = Ok(());
    let mut more = true;
    while more || !in_place.is_empty() || !tasks.is_empty() {
        let room = more && first.is_ok() && in_place.len() < cx.tasks && tasks.len() < cx.tasks;
        if !room && in_place.is_empty() && tasks.is_empty() {
            break;
        }
        // Whatever is open is polled while waiting for anything: a put that stands still may hold what another needs.
        tokio::select! {
            biased;
            Some(put) = in_place.next(), if !in_place.is_empty() => keep_first(&mut first, put),
            Some(put) = tasks.join_next(), if !tasks.is_empty() => keep_first(&mut first, ended(put)),
            () = cx.cancel.cancelled(), if room => keep_first(&mut first, Err(Error::cancelled())),
            item = items.next(), if room => match item {
                None => more = false,
                Some(Err(e)) => keep_first(&mut first, Err(e)),
                Some(Ok((entry, content))) if content.in_memory().is_some() => {
                    let mut put = sink.put(entry, content);
                    match futures::poll!(&mut put) {
                        std::task::Poll::Ready(put) => keep_first(&mut first, put),
                        std::task::Poll::Pending => in_place.push(put),
                    }
                    // A long run of tiny entries must not keep the thread from other components.
                    tokio::task::coop::consume_budget().await;
                }
                Some(Ok((entry, content))) => {
                    let sink = sink.clone();
                    tasks.spawn(async move { sink.put(entry, content).await });
                }
            },
        }
    }
    first
}

fn keep_first(first: &mut Result<()>, put: Result<Put>) {
    if let (Ok(()), Err(e)) = (&*first, put) {
        *first = Err(e);
    }
}

fn ended(put: Result<Result<Put>, JoinError>) -> Result<Put> {
    put.unwrap_or_else(|e| match e.is_panic() {
        true => Err(Error::new(ErrorKind::Panicked, "put an entry", "the put panicked")),
        false => Err(Error::cancelled()),
    })
}
