//! Connections: each is a process `ssh` of our own, which ends when it is dropped. It reads from a pipe that nobody else has, so that it
//! ends with this process and with the runtime, too, however these end.

use opendal::{Error, ErrorKind};
use openssh_sftp_client::{Error as SftpError, Sftp, SftpOptions, error::SftpErrorKind};
use std::{
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// At once, to one place.
const MOST: usize = 64;
/// A login takes no longer.
const LOGIN: Duration = Duration::from_secs(30);
/// One that was idle for longer is tried before it is used, and must answer within the other.
const FRESH: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(10);
/// Of what `ssh` says so much is read, and the last of it told.
const SAID: u64 = 256 << 10;
const COMPLAINT: usize = 4 << 10;

/// How to log in; the configuration of `ssh` has the rest.
#[derive(Clone, Debug, Default)]
pub(super) struct Login {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) user: Option<String>,
}

struct Connection {
    sftp: Sftp,
    /// Killed when it is dropped.
    _ssh: Child,
}

/// Connections that are open and not in use. A clone is the same.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    login: Login,
    idle: Mutex<Vec<(Instant, Connection)>>,
    permits: Arc<Semaphore>,
}

/// A connection in use. It is closed when it is dropped, unless what was asked of it has been answered.
pub(super) struct Held {
    connection: Option<Connection>,
    answered: bool,
    pool: Pool,
    _permit: OwnedSemaphorePermit,
}

impl Login {
    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        // What `sftp` says, too; and no connection that is shared and outlives its user.
        command.args(["-T", "-x", "-a", "-S", "none"]);
        for option in [
            "ControlMaster=no",
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "ClearAllForwardings=yes",
            "PermitLocalCommand=no",
        ] {
            command.args(["-o", option]);
        }
        if let Some(port) = self.port {
            command.args(["-p", &port.to_string()]);
        }
        if let Some(user) = &self.user {
            command.args(["-l", user]);
        }
        command.args(["-s", "--", &self.host, "sftp"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for us: what is to be cleared there needs the connection.
        command.process_group(0).kill_on_drop(true);
        command
    }

    async fn connect(&self) -> opendal::Result<Connection> {
        let failed = |text: String| Error::new(ErrorKind::Unexpected, text);
        let spawned = self.command().spawn();
        let mut ssh = spawned.map_err(|e| failed(format!("the program ssh cannot be run: {e}")))?;
        let (Some(input), Some(output), Some(mut errors)) =
            (ssh.stdin.take(), ssh.stdout.take(), ssh.stderr.take())
        else {
            return Err(failed("the program ssh has no pipes".to_owned()));
        };
        match Sftp::new(input, output, SftpOptions::default()).await {
            Ok(sftp) => {
                // Nothing is to wait for it to be read.
                tokio::spawn(async move { tokio::io::copy(&mut errors, &mut tokio::io::sink()).await });
                Ok(Connection { sftp, _ssh: ssh })
            }
            Err(e) => {
                let said = complaint(errors).await;
                let kind = match said.contains("Permission denied") {
                    true => ErrorKind::PermissionDenied,
                    false => ErrorKind::Unexpected,
                };
                let text = if said.is_empty() { e.to_string() } else { said };
                Err(Error::new(kind, format!("ssh does not connect: {text}")))
            }
        }
    }
}

/// What it says on one line; the end of it is why it failed.
async fn complaint(errors: impl AsyncRead + Unpin) -> String {
    let mut said = Vec::new();
    // What has come until then is what there is.
    let _ = timeout(Duration::from_secs(1), errors.take(SAID).read_to_end(&mut said)).await;
    String::from_utf8_lossy(&said[said.len().saturating_sub(COMPLAINT)..])
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

impl Pool {
    pub(super) fn new(login: Login) -> Self {
        let permits = Arc::new(Semaphore::new(MOST));
        Pool(Arc::new(Inner { login, idle: Mutex::default(), permits }))
    }

    /// A connection that works.
    pub(super) async fn take(&self) -> opendal::Result<Held> {
        let permit = self.0.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|e| Error::new(ErrorKind::Unexpected, "connect").set_source(e))?;
        let held = |connection| Held {
            connection: Some(connection),
            answered: false,
            pool: self.clone(),
            _permit: permit,
        };
        while let Some((since, connection)) = self.newest_idle() {
            if since.elapsed() < FRESH {
                return Ok(held(connection));
            }
            let mut fs = connection.sftp.fs();
            if matches!(timeout(ANSWER, fs.metadata(".")).await, Ok(Ok(_) | Err(SftpError::SftpError(..)))) {
                return Ok(held(connection));
            }
            // What does not answer stands for all that are as old: trying each would take all the time that there is.
            self.idle().clear();
        }
        match timeout(LOGIN, self.0.login.connect()).await {
            Ok(connection) => connection.map(held),
            Err(_) => {
                let text = format!("ssh does not connect within {} seconds", LOGIN.as_secs());
                Err(Error::new(ErrorKind::Unexpected, text).set_temporary())
            }
        }
    }

    fn newest_idle(&self) -> Option<(Instant, Connection)> {
        self.idle().pop()
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, Connection)>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::Deref for Held {
    type Target = Sftp;

    #[expect(clippy::expect_used, reason = "only a drop takes it")]
    fn deref(&self) -> &Sftp {
        &self.connection.as_ref().expect("a connection until it is dropped").sftp
    }
}

impl Held {
    /// It has answered all that it was asked, and can be used again.
    pub(super) fn answered(&mut self) {
        self.answered = true;
    }

    /// What the last call has come to. A refusal is an answer, too.
    pub(super) fn end<T>(mut self, result: Result<T, SftpError>) -> opendal::Result<T> {
        self.answered = matches!(result, Ok(_) | Err(SftpError::SftpError(..)));
        result.map_err(error)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take().filter(|_| self.answered) {
            self.pool.idle().push((Instant::now(), connection));
        }
    }
}

/// What a server says. It does not tell well what is of a moment: what is unexpected may be tried again.
pub(super) fn error(e: SftpError) -> Error {
    let kind = match &e {
        SftpError::SftpError(SftpErrorKind::NoSuchFile, _) => ErrorKind::NotFound,
        SftpError::SftpError(SftpErrorKind::PermDenied, _) => ErrorKind::PermissionDenied,
        SftpError::SftpError(SftpErrorKind::OpUnsupported, _) | SftpError::UnsupportedSftpProtocol { .. } => {
            ErrorKind::Unsupported
        }
        _ => ErrorKind::Unexpected,
    };
    Error::new(kind, "sftp error").with_temporary(kind == ErrorKind::Unexpected).set_source(e)
}
