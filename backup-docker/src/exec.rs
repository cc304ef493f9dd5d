//! Tools run inside a container: streams told apart, no terminal, exit status awaited, ended when nobody reads any more.

use crate::engine::{Docker, failed, within};
use backup_core::{
    CommandRunner, Content, Error, ErrorKind, Facts, Feed, OutputWatch, Result, ToolCommand, feed_input,
    not_found,
};
use bollard::{
    container::LogOutput,
    exec::{CreateExecOptions, StartExecOptions, StartExecResults},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use std::{fmt, pin::Pin, time::Duration};
use tokio::{io::AsyncWrite, runtime::Handle};

/// Frames of an engine are small; they are passed on together.
const CHUNK: usize = 128 << 10;
const COMPLAINT: usize = 4 << 10;
/// After the streams have ended, the status follows.
const STATUS: Duration = Duration::from_secs(30);
/// Says its number first, on the stream that is no data, so that it can be ended.
const WITH_NUMBER: &str = "echo \"$$\" >&2; exec \"$@\"";

pub(crate) struct ExecRunner {
    docker: Docker,
    container: String,
}

impl ExecRunner {
    pub(crate) fn new(docker: Docker, container: &str) -> Self {
        ExecRunner { docker, container: container.to_owned() }
    }
}

impl fmt::Display for ExecRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the container {}", self.container.get(..12).unwrap_or(&self.container))
    }
}

impl CommandRunner for ExecRunner {
    fn run(&self, command: ToolCommand) -> Content {
        let (docker, container, place) = (self.docker.clone(), self.container.clone(), self.to_string());
        Content::produce(move |feed| async move { exec(docker, container, place, command, feed).await })
    }
}

async fn exec(
    docker: Docker,
    container: String,
    place: String,
    command: ToolCommand,
    feed: Feed,
) -> Result<Facts> {
    let ToolCommand { program, arguments, environment, input, end_marker, at_once } = command;
    let engine = docker.connection().await?;
    let words = ["sh", "-c", WITH_NUMBER, "sh", &program].map(str::to_owned);
    let options = CreateExecOptions {
        cmd: Some(words.into_iter().chain(arguments).collect()),
        env: Some(environment.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect()),
        attach_stdin: Some(input.is_some()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        ..Default::default()
    };
    let made = within("run a program in the container", engine.create_exec(&container, options)).await?;
    let start = StartExecOptions { output_capacity: Some(CHUNK), ..Default::default() };
    let started = within("run a program in the container", engine.start_exec(&made.id, Some(start))).await?;
    let StartExecResults::Attached { output, input: stdin } = started else {
        return Err(Error::new(
            ErrorKind::Source,
            "run a program in the container",
            "its output is not to be had",
        ));
    };
    let mut running = Running { docker: docker.clone(), container: container.clone(), number: None };
    let least = if at_once { 1 } else { CHUNK };
    let mut said = Said { watch: OutputWatch::new(end_marker), complaint: Vec::new(), least };
    // Input that fails ends the tool at once: it must not take what came for all there is.
    let passing = async { pass_on(output, &feed, &mut said, &mut running).await.map_err(|e| e.on(&program)) };
    tokio::try_join!(feed_stdin(input, stdin), passing)?;
    let status = status(engine, &made.id).await?;
    running.number = None;
    let complaint = String::from_utf8_lossy(&said.complaint).trim().to_owned();
    match status {
        0 => said.watch.finish(&program),
        126 | 127 => {
            let failure = said.watch.failure(&program, format!("exit status {status}"), &complaint);
            Err(not_found(&program, place).caused_by(failure))
        }
        status => Err(said.watch.failure(&program, format!("exit status {status}"), &complaint)),
    }
}

async fn feed_stdin(input: Option<Content>, to: Pin<Box<dyn AsyncWrite + Send>>) -> Result<()> {
    match input {
        Some(input) => feed_input(Some(input), Some(to)).await,
        // Kept open: closing it would end the attached streams.
        None => {
            drop(to);
            Ok(())
        }
    }
}

struct Said {
    watch: OutputWatch,
    complaint: Vec<u8>,
    /// Less than this is kept until more has come.
    least: usize,
}

async fn pass_on(
    mut output: Pin<Box<dyn Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send>>,
    feed: &Feed,
    said: &mut Said,
    running: &mut Running,
) -> Result<()> {
    let mut chunk = BytesMut::new();
    while let Some(frame) = output.next().await {
        match frame.map_err(|e| failed("read the output", e))? {
            LogOutput::StdOut { message } | LogOutput::Console { message } => {
                chunk.extend_from_slice(&message);
                if chunk.len() >= said.least {
                    send(&mut chunk, feed, said).await?;
                }
            }
            LogOutput::StdErr { message } => complain(message, said, running),
            LogOutput::StdIn { .. } => {}
        }
    }
    send(&mut chunk, feed, said).await
}

async fn send(chunk: &mut BytesMut, feed: &Feed, said: &mut Said) -> Result<()> {
    if chunk.is_empty() {
        return Ok(());
    }
    let bytes = chunk.split().freeze();
    said.watch.see(&bytes);
    feed.send(bytes).await
}

/// The first line is the number of the process.
fn complain(message: Bytes, said: &mut Said, running: &mut Running) {
    said.complaint.extend_from_slice(&message);
    if running.number.is_none()
        && let Some(end) = said.complaint.iter().position(|b| *b == b'\n')
    {
        running.number = std::str::from_utf8(&said.complaint[..end]).ok().and_then(|n| n.trim().parse().ok());
        if running.number.is_some() {
            said.complaint.drain(..=end);
        }
    }
    let excess = said.complaint.len().saturating_sub(COMPLAINT);
    said.complaint.drain(..excess);
}

/// The engine may close the streams a moment before it knows the status.
async fn status(engine: &bollard::Docker, exec: &str) -> Result<i64> {
    let began = tokio::time::Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        let seen = within("ask how the program ended", engine.inspect_exec(exec)).await?;
        match seen.exit_code {
            Some(code) if seen.running != Some(true) => return Ok(code),
            _ if began.elapsed() > STATUS => {
                let message = "its output has ended, and it still runs: the streams were cut";
                return Err(Error::new(ErrorKind::Cut, "ask how the program ended", message));
            }
            _ => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// A program that runs in a container. The engine lets it go on when nobody listens any more, so it is ended by its number.
struct Running {
    docker: Docker,
    container: String,
    number: Option<u32>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(number), Ok(runtime)) = (self.number, Handle::try_current()) else { return };
        let (docker, container) = (self.docker.clone(), self.container.clone());
        runtime.spawn(async move {
            let Ok(engine) = docker.connection().await else { return };
            let options = CreateExecOptions {
                cmd: Some(vec!["sh".to_owned(), "-c".to_owned(), format!("kill -TERM {number}")]),
                ..Default::default()
            };
            // It may have ended by itself; a container that is gone runs nothing.
            if let Ok(made) = engine.create_exec(&container, options).await {
                let start = StartExecOptions { detach: true, ..Default::default() };
                let _ = engine.start_exec(&made.id, Some(start)).await;
            }
        });
    }
}
