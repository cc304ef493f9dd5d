//! Vendors' tools (`pg_dump`, `mysqldump`), run here or in a container, with their output as a content.

use crate::{Content, Error, ErrorKind, Facts, Feed, Result, Secret};
use bytes::{Bytes, BytesMut};
use std::{collections::VecDeque, fmt, process::Stdio, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of output that are passed on at once.
const CHUNK: usize = 128 << 10;
/// Of what a tool complains, the end is what matters.
const COMPLAINT: usize = 4 << 10;
/// The end of the output in which the end marker must be.
const TAIL: usize = 512;

/// A call of a tool.
#[derive(Debug, Default)]
pub struct ToolCommand {
    /// A name to be looked up in the `PATH` of where it runs, or a path.
    pub program: String,
    /// Its arguments. Never a password: they can be seen by every user.
    pub arguments: Vec<String>,
    /// Added to the environment of where it runs.
    pub environment: Vec<(String, Secret)>,
    /// What it reads from its standard input; nothing, if not given.
    pub input: Option<Content>,
    /// What must be near the end of its output for it to be whole.
    pub end_marker: Option<Bytes>,
    /// What it says is passed on at once, however little it is: for a program that is answered while it runs.
    pub at_once: bool,
}

impl ToolCommand {
    /// A call without arguments.
    pub fn new(program: impl Into<String>) -> Self {
        ToolCommand { program: program.into(), ..Self::default() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: Secret) -> Self {
        self.environment.push((name.into(), value));
        self
    }

    /// Gives it something to read.
    #[must_use]
    pub fn reading(mut self, input: Content) -> Self {
        self.input = Some(input);
        self
    }
}

/// Runs tools in one place: this host, or a container. `Display` names the place.
///
/// # Contract
/// * The content is the tool's standard output and nothing else. It starts the tool at its first poll.
/// * It ends only after the tool has ended with status zero, and with the end marker if one is asked for. Any other end is an
///   error with what the tool complained of.
/// * Dropping the content ends the tool, in the container, too.
/// * A program that is not there is an error of kind `NotFound`.
pub trait CommandRunner: fmt::Display + Send + Sync {
    /// The output of this call.
    fn run(&self, command: ToolCommand) -> Content;
}

/// Runs a tool to its end and returns its output, which must not be longer than `most` bytes. `limit` is for all of it.
pub async fn output_of(
    runner: &dyn CommandRunner,
    command: ToolCommand,
    most: usize,
    limit: Duration,
) -> Result<Vec<u8>> {
    let program = command.program.clone();
    let mut content = runner.run(command);
    let reading = async {
        let mut out = Vec::new();
        while let Some(bytes) = content.next().await? {
            if out.len() + bytes.len() > most {
                return Err(failed(&program, "it says more than was expected"));
            }
            out.extend_from_slice(&bytes);
        }
        Ok(out)
    };
    let late = || Err(failed(&program, format!("it did not end within {} s", limit.as_secs())));
    tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| late())
}

/// Runs tools on this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostRunner;

impl fmt::Display for HostRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this host")
    }
}

impl CommandRunner for HostRunner {
    fn run(&self, command: ToolCommand) -> Content {
        Content::produce(move |feed| on_host(command, feed))
    }
}

async fn on_host(command: ToolCommand, feed: Feed) -> Result<Facts> {
    let ToolCommand { program, arguments, environment, input, end_marker, at_once } = command;
    let mut child = tokio::process::Command::new(&program)
        .args(&arguments)
        .envs(environment.iter().map(|(name, value)| (name, value.expose())))
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => not_found(&program, "this host"),
            _ => failed(&program, e),
        })?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
        return Err(failed(&program, "its output cannot be read"));
    };
    let mut watch = OutputWatch::new(end_marker);
    // Input that fails ends the tool at once: it must not take what came for all there is.
    let passing =
        async { pass_on(stdout, at_once, &feed, &mut watch).await.map_err(|e| in_tool(&program, e)) };
    let complaining = async { Ok(complaint(stderr).await) };
    let ((), (), complaint) = tokio::try_join!(feed_input(input, stdin), passing, complaining)?;
    let status = child.wait().await.map_err(|e| failed(&program, e))?;
    if !status.success() {
        return Err(watch.failure(&program, status, &complaint));
    }
    watch.finish(&program)
}

fn in_tool(program: &str, e: Error) -> Error {
    if e.kind() == ErrorKind::Cancelled { e } else { failed(program, e.message()) }
}

/// Feeds a tool; that it stops reading is no error here, its exit status tells.
pub async fn feed_input(input: Option<Content>, to: Option<impl AsyncWrite + Unpin>) -> Result<()> {
    let (Some(mut input), Some(mut to)) = (input, to) else { return Ok(()) };
    while let Some(bytes) = input.next().await? {
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return Ok(());
        }
    }
    // The tool waits for this end.
    let _ = to.shutdown().await;
    Ok(())
}

async fn pass_on(
    mut from: impl AsyncRead + Unpin,
    at_once: bool,
    feed: &Feed,
    watch: &mut OutputWatch,
) -> Result<()> {
    loop {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            let room = CHUNK - chunk.len();
            let n = (&mut from).take(room as u64).read_buf(&mut chunk).await;
            if n.map_err(|e| Error::io(ErrorKind::Source, "read the output", e))? == 0 {
                watch.see(&chunk);
                return if chunk.is_empty() { Ok(()) } else { feed.send(chunk.freeze()).await };
            }
            if at_once {
                break;
            }
        }
        watch.see(&chunk);
        feed.send(chunk.freeze()).await?;
    }
}

async fn complaint(mut from: impl AsyncRead + Unpin) -> String {
    let (mut tail, mut buffer) = (VecDeque::new(), [0; 4096]);
    // What cannot be read of it is missing in the error only.
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        keep_tail(&mut tail, &buffer[..n], COMPLAINT);
    }
    String::from_utf8_lossy(tail.make_contiguous()).trim().to_owned()
}

fn keep_tail(tail: &mut VecDeque<u8>, more: &[u8], most: usize) {
    tail.extend(more);
    tail.drain(..tail.len().saturating_sub(most));
}

/// Watches the output of a tool pass by: for its end marker, and for what a runtime says instead of it.
#[derive(Debug)]
pub struct OutputWatch {
    marker: Option<Bytes>,
    head: Vec<u8>,
    tail: VecDeque<u8>,
}

impl OutputWatch {
    /// Of a tool whose output ends with this.
    pub fn new(marker: Option<Bytes>) -> Self {
        OutputWatch { marker, head: Vec::new(), tail: VecDeque::new() }
    }

    /// The next of the output.
    pub fn see(&mut self, bytes: &[u8]) {
        if self.head.len() < TAIL {
            self.head.extend(&bytes[..bytes.len().min(TAIL - self.head.len())]);
        }
        keep_tail(&mut self.tail, &bytes[bytes.len().saturating_sub(TAIL)..], TAIL);
    }

    /// The error for a tool that did not end with zero.
    pub fn failure(&self, program: &str, status: impl fmt::Display, complaint: &str) -> Error {
        let said = if complaint.is_empty() { String::from_utf8_lossy(&self.head) } else { complaint.into() };
        failed(program, format!("it ended with {status}: {}", said.trim()))
    }

    /// The end of a tool that ended with zero.
    pub fn finish(mut self, program: &str) -> Result<Facts> {
        if let Some(marker) = &self.marker
            && !self.tail.make_contiguous().windows(marker.len()).any(|w| w == marker)
        {
            let marker = String::from_utf8_lossy(marker).into_owned();
            return Err(failed(program, format!("its output does not end with `{marker}`: it was cut")));
        }
        Ok(Facts::new())
    }
}

/// The error for a program that is not there.
pub fn not_found(program: &str, place: impl fmt::Display) -> Error {
    Error::new(ErrorKind::NotFound, "run a program", format!("it is not installed on {place}")).on(program)
}

fn failed(program: &str, message: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Source, "run a program", message).on(program)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::Part;

    /// What takes longer never happens.
    const LONG: Duration = Duration::from_secs(60);

    fn sh(script: &str) -> ToolCommand {
        ToolCommand::new("sh").args(["-c", script])
    }

    async fn run(command: ToolCommand) -> Result<Vec<u8>> {
        output_of(&HostRunner, command, 1 << 20, Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn good_output_before_a_bad_end_is_an_error_with_the_complaint() {
        assert_eq!(run(sh("echo whole")).await.unwrap(), b"whole\n");
        let e = run(sh("echo rows; echo 'server closed' >&2; exit 1")).await.unwrap_err();
        assert!(e.to_string().contains("server closed") && e.to_string().contains('1'), "{e}");
        let e = run(sh("echo rows; kill -9 $$")).await.unwrap_err();
        assert!(e.to_string().contains('9'), "{e}");
    }

    #[tokio::test]
    async fn an_output_without_its_end_marker_was_cut() {
        let marked = |script| ToolCommand { end_marker: Some("-- done".into()), ..sh(script) };
        run(marked("seq 100000; echo '-- done'")).await.unwrap();
        for script in ["seq 100000", "echo '-- done'; seq 100000"] {
            assert!(run(marked(script)).await.unwrap_err().to_string().contains("-- done"));
        }
    }

    #[tokio::test]
    async fn a_program_can_be_answered_while_it_runs() {
        let (questions, answers) = tokio::sync::mpsc::channel::<Part>(1);
        let input = Content::stream(futures::stream::unfold(answers, |mut answers| async {
            answers.recv().await.map(|part| (Ok(part), answers))
        }));
        let mut content = HostRunner.run(ToolCommand { at_once: true, ..sh("cat").reading(input) });
        for word in ["one", "two"] {
            questions.send(Part::Bytes(word.into())).await.unwrap();
            let answer = tokio::time::timeout(Duration::from_secs(20), content.next()).await.unwrap();
            assert_eq!(answer.unwrap().as_deref(), Some(word.as_bytes()));
        }
        questions.send(Part::End(Facts::new())).await.unwrap();
        assert_eq!(content.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_not_found() {
        let e = run(ToolCommand::new("no-such-program-here")).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn input_is_passed_on_and_failed_input_is_a_failure() {
        let input = Content::whole(vec![b'x'; 300_000]);
        assert_eq!(run(sh("wc -c").reading(input)).await.unwrap(), b"300000\n");
        let cut = Content::failed(Error::cut());
        assert_eq!(run(sh("cat").reading(cut)).await.unwrap_err().kind(), ErrorKind::Cut);
    }

    #[tokio::test]
    async fn a_dropped_content_ends_the_tool() {
        let mut content = HostRunner.run(sh("exec sleep 61.5"));
        // Not those of other tests. One that was killed, and not waited for yet, has no arguments any more.
        let runs = async || {
            let looked = run(sh("pgrep -P $PPID -fx 'sleep 61.5' || true")).await;
            !looked.unwrap().is_empty()
        };
        let until = async |wanted: bool| while runs().await != wanted {};
        tokio::select! {
            ended = content.next() => panic!("{ended:?}"),
            started = tokio::time::timeout(LONG, until(true)) => started.expect("it runs"),
        }
        drop(content);
        tokio::time::timeout(LONG, until(false)).await.expect("it is ended");
    }
}
