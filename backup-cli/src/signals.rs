//! Ctrl-C, SIGTERM and SIGHUP end a run in order.

use crate::render::Output;
use backup_kit::CancellationToken;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A second signal so soon after the first is the same key pressed twice, or a closing terminal: not a wish to stop at once.
const SAME_WISH: Duration = Duration::from_secs(1);
/// A file system that hangs must not hold the program for ever.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(60);

/// Cancels the token at the first signal, or when `control` says so. A later second one, or a clean-up that does not come to an end, ends the process; what is
/// left is found by `backup heal`. `unfinished` is the exit code of that: a restore that was not undone is worse than a backup that
/// was not cleaned up.
pub(crate) fn listen(
    output: Output,
    unfinished: u8,
    control: Option<oneshot::Receiver<()>>,
) -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut signals = Signals::new()?;
    let cancel = token.clone();
    tokio::spawn(async move {
        let ordered = async {
            let given = match control {
                Some(order) => order.await.is_ok(),
                None => false,
            };
            // A sender that is gone has given no order.
            if !given {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = signals.next() => {}
            () = ordered => {}
        }
        let first = Instant::now();
        cancel.cancel();
        output.warning("interrupted: cleaning up (once more ends at once)");
        loop {
            let again =
                tokio::time::timeout(CLEAN_UP_LIMIT.saturating_sub(first.elapsed()), signals.next()).await;
            if again.is_err() || first.elapsed() > SAME_WISH {
                output.warning("ended before it was cleaned up: run `backup heal`, with `--from ARCHIVE` for one that is in no configuration");
                std::process::exit(unfinished.into());
            }
        }
    });
    Ok(token)
}

#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    /// A signal that whoever started the program has told it to ignore (`nohup`, a shell's background job) stays ignored.
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let ignored = ignored_signals();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let wanted = kinds.into_iter().filter(|k| ignored >> (k.as_raw_value() - 1) & 1 == 0);
        Ok(Signals(wanted.map(signal).collect::<Result<_, _>>()?))
    }

    async fn next(&mut self) {
        std::future::poll_fn(|cx| match self.0.iter_mut().any(|s| s.poll_recv(cx).is_ready()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        })
        .await;
    }
}

/// As a mask, the first signal the lowest bit; 0 where the system does not say.
#[cfg(unix)]
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) {
        // Without the signal there is nothing to wait for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
