//! The run lock of a series within one process.

use super::hold;
use crate::{Context, Error, ErrorKind, Event, Result, RunLock, Series};
use async_trait::async_trait;
use jiff::Timestamp;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::OwnedMutexGuard;

/// Who waits for the lock of a series, and who holds it.
#[derive(Default)]
pub(super) struct Line {
    turn: Arc<tokio::sync::Mutex<()>>,
    holder: Mutex<String>,
}

impl Line {
    pub(super) fn is_held(&self) -> bool {
        self.turn.try_lock().is_err()
    }
}

pub(super) struct MemoryLock {
    _turn: OwnedMutexGuard<()>,
}

/// Waits for at most `wait`, or until the run is cancelled.
pub(super) async fn take(
    line: Arc<Line>,
    series: &Series,
    wait: Duration,
    cx: &Context,
) -> Result<MemoryLock> {
    let turn = match line.turn.clone().try_lock_owned() {
        Ok(turn) => turn,
        Err(_) if wait.is_zero() => return Err(already_running(&line, series)),
        Err(_) => {
            let reason = format!("the lock of {series} is held by {}", hold(&line.holder));
            cx.emit(&Event::Waiting { reason });
            tokio::select! {
                biased;
                () = cx.cancel.cancelled() => return Err(Error::cancelled()),
                turn = line.turn.clone().lock_owned() => turn,
                () = tokio::time::sleep(wait) => return Err(already_running(&line, series)),
            }
        }
    };
    *hold(&line.holder) = format!("process {} since {}", std::process::id(), Timestamp::now());
    Ok(MemoryLock { _turn: turn })
}

fn already_running(line: &Line, series: &Series) -> Error {
    let message = format!("its lock is held by {}", hold(&line.holder));
    Error::new(ErrorKind::AlreadyRunning, "take the run lock", message).on(series)
}

#[async_trait]
impl RunLock for MemoryLock {
    async fn release(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
