//! Orders of a program that runs this one, line by line on stdin: where a process cannot be sent a signal.

use crate::render::{
    Output,
    lines::{self, Level},
};
use std::io::BufRead;
use tokio::sync::oneshot;

/// Ends when a line `cancel` comes, or stdin ends: whoever gave orders is gone. Any other line is an error that is told, and
/// changes nothing.
pub(crate) fn cancelled(output: Output) -> oneshot::Receiver<()> {
    let (ended, cancelled) = oneshot::channel();
    // Reading may never come back; the end of the program does not wait for this thread.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            match line.as_deref().map(str::trim) {
                Ok("cancel") | Err(_) => break,
                Ok("") => {}
                Ok(other) => {
                    let text = format!("{other:?} is no order; there is: cancel");
                    lines::print(output, Level::Error, &text);
                }
            }
        }
        // The run may be over.
        let _ = ended.send(());
    });
    cancelled
}
