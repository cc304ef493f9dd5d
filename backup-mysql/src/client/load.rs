//! `LOAD DATA LOCAL INFILE` from a content.

use super::{Done, Session, within};
use crate::error::ClientError;
use backup_core::{Content, Error};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use mysql_async::prelude::Queryable;
use std::{io, time::Duration};
use tokio::sync::mpsc;

/// Packets must be smaller than the `max_allowed_packet` of the server, which is a mebibyte or more.
const PACKET: usize = 256 << 10;
/// Of a content that the server refuses, so much is read on: a cut line is a fault of the content, and that explains it.
const READ_ON: usize = 8 << 20;

/// Why a content was not loaded.
#[derive(Debug)]
pub(crate) enum NotLoaded {
    /// The content failed; the server is sound, and may have a part of the rows.
    Content(Error),
    /// The server or the connection failed.
    Server(ClientError),
}

impl Session {
    /// Runs a `LOAD DATA LOCAL` statement that reads this content.
    pub(crate) async fn load(
        &mut self,
        sql: &str,
        content: &mut Content,
        limit: Duration,
    ) -> Result<Done, NotLoaded> {
        let conn = self.take_up().map_err(NotLoaded::Server)?;
        let (out, packets) = mpsc::channel::<io::Result<Bytes>>(2);
        let packets = stream::unfold(packets, |mut p| async { Some((p.recv().await?, p)) }).boxed();
        // The driver wants a future that may be shared; a stream in a box may not, the box in a mutex may.
        let packets = std::sync::Mutex::new(Some(packets));
        conn.set_infile_handler(async move {
            let taken = packets.into_inner().ok().flatten();
            Ok(taken.unwrap_or_else(|| stream::empty().boxed()))
        });
        let running = async {
            let result = conn.query_iter(sql).await?;
            let done = Done { affected: result.affected_rows(), warnings: result.warnings() };
            result.drop_result().await?;
            Ok::<_, mysql_async::Error>(done)
        };
        // A server that refuses at once never asks for the rows: nobody would take them from the feed.
        let (outcome, fed) = {
            let (mut running, mut feeding) = (within(limit, running).boxed(), feed(content, out).boxed());
            tokio::select! {
                biased;
                outcome = &mut running => (outcome, None),
                fed = &mut feeding => (running.await, Some(fed)),
            }
        };
        let outcome = self.settle_load(outcome, matches!(fed, Some(Err(_))));
        match (outcome, fed) {
            (_, Some(Err(e))) => Err(NotLoaded::Content(e)),
            (Ok(done), Some(Ok(()))) => Ok(done),
            (Ok(_), None) => {
                Err(NotLoaded::Server(ClientError::Lost("the server did not read all rows".to_owned())))
            }
            (Err(e), _) => match read_on(content).await {
                Err(damaged) => Err(NotLoaded::Content(damaged)),
                Ok(()) => Err(NotLoaded::Server(e)),
            },
        }
    }

    /// A content that failed is told to the driver as an error of the handler, after which the session goes on.
    fn settle_load(
        &mut self,
        outcome: Result<Done, ClientError>,
        content_failed: bool,
    ) -> Result<Done, ClientError> {
        if content_failed && matches!(&outcome, Err(ClientError::Lost(why)) if why.contains(FAILED)) {
            self.busy = false;
            return outcome;
        }
        self.settle(outcome)
    }
}

const FAILED: &str = "the content failed";

async fn feed(content: &mut Content, out: mpsc::Sender<io::Result<Bytes>>) -> Result<(), Error> {
    loop {
        match content.next().await {
            Ok(Some(mut bytes)) => {
                while !bytes.is_empty() {
                    let packet = bytes.split_to(bytes.len().min(PACKET));
                    if out.send(Ok(packet)).await.is_err() {
                        return Ok(()); // the server takes no more: its answer says why
                    }
                }
            }
            Ok(None) => return Ok(()),
            Err(e) => {
                let _ = out.send(Err(io::Error::other(FAILED))).await;
                return Err(e);
            }
        }
    }
}

async fn read_on(content: &mut Content) -> Result<(), Error> {
    let mut read = 0;
    while read < READ_ON {
        match content.next().await? {
            Some(bytes) => read += bytes.len(),
            None => break,
        }
    }
    Ok(())
}
