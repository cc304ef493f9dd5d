//! One session with a server: simple queries with their results as text, and both directions of COPY.
//!
//! Not tokio-postgres: its stream of a COPY ends before the server has said how many rows it sent, and gives every row as a
//! message of its own. The messages, and the arithmetic of passwords, are postgres-protocol's.

use super::{
    error::ClientError,
    rows::RowCounter,
    stream::{Stream, connect_stream},
};
use crate::address::Endpoint;
use backup_core::Content;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::{backend::Message, frontend},
};
use std::{io, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Answers come within this time, unless a caller says otherwise.
const ANSWER: Duration = Duration::from_secs(120);
/// A COPY that delivers nothing for so long has stopped.
const STANDSTILL: Duration = Duration::from_secs(15 * 60);
const CONNECT: Duration = Duration::from_secs(20);
/// What a COPY delivers is passed on in pieces of at least this.
const BATCH: usize = 192 << 10;
const READ: usize = 64 << 10;

/// One row of a result, as text.
pub(crate) type Row = Vec<Option<String>>;

/// A session with a server. Dropping it closes the connection at once: the server then ends what it did for it.
pub(crate) struct Session {
    stream: Stream,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Between two statements; not in the middle of one that was given up.
    clean: bool,
    /// The process of the server.
    process: i32,
}

impl Session {
    /// Connects and logs in.
    pub(crate) async fn connect(endpoint: &Endpoint, database: &str) -> Result<Self, ClientError> {
        let late =
            |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT.as_secs()));
        tokio::time::timeout(CONNECT, Self::log_in(endpoint, database)).await.map_err(late)?
    }

    async fn log_in(endpoint: &Endpoint, database: &str) -> Result<Self, ClientError> {
        let stream = connect_stream(endpoint).await?;
        let mut session = Session {
            stream,
            incoming: BytesMut::with_capacity(READ),
            outgoing: BytesMut::new(),
            clean: true,
            process: 0,
        };
        let parameters = [
            ("user", endpoint.user.as_str()),
            ("database", database),
            ("application_name", endpoint.application.as_str()),
            ("client_encoding", "UTF8"),
            ("search_path", ""),
        ];
        frontend::startup_message(parameters, &mut session.outgoing)?;
        session.flush().await?;
        session.authenticate(endpoint).await?;
        loop {
            match session.receive().await? {
                Message::ReadyForQuery(_) => return Ok(session),
                Message::BackendKeyData(body) => session.process = body.process_id(),
                Message::ErrorResponse(body) => return Err(ClientError::refusal(body.fields())),
                _ => {}
            }
        }
    }

    async fn authenticate(&mut self, endpoint: &Endpoint) -> Result<(), ClientError> {
        let password = endpoint.password.as_ref().map(|p| p.expose().as_bytes());
        let needed = || {
            let refusal = super::error::Refusal {
                code: "28P01".into(),
                message: format!("the server asks for the password of {}, and none was given", endpoint.user),
                ..Default::default()
            };
            ClientError::Server(Box::new(refusal))
        };
        let mut scram = None;
        loop {
            match self.receive().await? {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password.ok_or_else(needed)?, &mut self.outgoing)?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(endpoint.user.as_bytes(), password.ok_or_else(needed)?, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.outgoing)?;
                }
                Message::AuthenticationSasl(body) => {
                    if !body.mechanisms().any(|m| Ok(m == SCRAM_SHA_256))? {
                        return Err(protocol("the server asks for a way of logging in that is not known"));
                    }
                    let made = ScramSha256::new(password.ok_or_else(needed)?, ChannelBinding::unsupported());
                    frontend::sasl_initial_response(SCRAM_SHA_256, made.message(), &mut self.outgoing)?;
                    scram = Some(made);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let scram = scram.as_mut().ok_or_else(|| protocol("an answer to no question"))?;
                    scram.update(body.data())?;
                    frontend::sasl_response(scram.message(), &mut self.outgoing)?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    // The server proves that it knows the password, too.
                    scram
                        .as_mut()
                        .ok_or_else(|| protocol("an answer to no question"))?
                        .finish(body.data())?;
                }
                Message::ErrorResponse(body) => return Err(ClientError::refusal(body.fields())),
                _ => return Err(protocol("the server asks for a way of logging in that is not known")),
            }
            self.flush().await?;
        }
    }

    /// Runs one or several statements and returns the rows of all. Limited in time.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<Row>, ClientError> {
        self.query_within(ANSWER, sql).await
    }

    /// The same with a limit of its own.
    pub(crate) async fn query_within(&mut self, limit: Duration, sql: &str) -> Result<Vec<Row>, ClientError> {
        match tokio::time::timeout(limit, self.query_unlimited(sql)).await {
            Ok(done) => done,
            Err(_) => {
                let message = format!("the server did not answer within {} s", limit.as_secs());
                Err(io::Error::new(io::ErrorKind::TimedOut, message).into())
            }
        }
    }

    async fn query_unlimited(&mut self, sql: &str) -> Result<Vec<Row>, ClientError> {
        self.send_query(sql).await?;
        let (mut rows, mut refused) = (Vec::new(), None);
        loop {
            match self.receive().await? {
                Message::DataRow(body) => rows.push(text_row(&body)?),
                Message::ErrorResponse(body) => refused = Some(ClientError::refusal(body.fields())),
                Message::ReadyForQuery(_) => break,
                Message::CopyInResponse(_) | Message::CopyOutResponse(_) => {
                    return Err(protocol("a COPY was not expected"));
                }
                _ => {}
            }
        }
        self.clean = true;
        refused.map_or(Ok(rows), Err)
    }

    /// The single value of a query.
    pub(crate) async fn value(&mut self, sql: &str) -> Result<Option<String>, ClientError> {
        Ok(self.query(sql).await?.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// The single number of a query that always has one.
    pub(crate) async fn number(&mut self, sql: &str) -> Result<u64, ClientError> {
        let value = self.value(sql).await?;
        let number = value.as_deref().and_then(|text| text.parse().ok());
        number.ok_or_else(|| protocol(format!("the server gave no number but {value:?} for: {sql}")))
    }

    /// Begins a `COPY … TO STDOUT`.
    pub(crate) async fn copy_out(&mut self, sql: &str, binary: bool) -> Result<CopyOut<'_>, ClientError> {
        self.send_query(sql).await?;
        loop {
            match self.receive().await? {
                Message::CopyOutResponse(_) => {
                    return Ok(CopyOut { session: self, counter: RowCounter::new(binary) });
                }
                Message::ErrorResponse(body) => {
                    let refused = ClientError::refusal(body.fields());
                    self.until_ready().await?;
                    return Err(refused);
                }
                Message::ReadyForQuery(_) => return Err(protocol("it was no COPY")),
                _ => {}
            }
        }
    }

    /// Runs a `COPY … FROM STDIN` with this content. A content that fails is `Content`: the server then has nothing of it.
    /// Returns the rows that the server says it has taken.
    pub(crate) async fn copy_in(&mut self, sql: &str, content: &mut Content) -> Result<u64, ClientError> {
        self.send_query(sql).await?;
        loop {
            match self.receive().await? {
                Message::CopyInResponse(_) => break,
                Message::ErrorResponse(body) => {
                    let refused = ClientError::refusal(body.fields());
                    self.until_ready().await?;
                    return Err(refused);
                }
                Message::ReadyForQuery(_) => return Err(protocol("it was no COPY")),
                _ => {}
            }
        }
        let fed = loop {
            match content.next().await {
                Ok(Some(bytes)) => self.send_copy_data(&bytes).await?,
                Ok(None) => break Ok(()),
                Err(e) => break Err(ClientError::Content(e)),
            }
        };
        match &fed {
            Ok(()) => frontend::copy_done(&mut self.outgoing),
            Err(_) => frontend::copy_fail("what was to be restored could not be read", &mut self.outgoing)?,
        }
        self.flush().await?;
        let (mut rows, mut refused) = (None, None);
        loop {
            // Deferred triggers and checks may take their time.
            match self.receive_within(STANDSTILL).await? {
                Message::CommandComplete(body) => rows = copied(body.tag()?),
                Message::ErrorResponse(body) => refused = Some(ClientError::refusal(body.fields())),
                Message::ReadyForQuery(_) => break,
                _ => {}
            }
        }
        self.clean = true;
        fed?;
        match refused {
            Some(refused) => Err(refused),
            None => rows.ok_or_else(|| protocol("the server did not say how many rows it took")),
        }
    }

    async fn send_copy_data(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let length = i32::try_from(bytes.len() + 4).map_err(|_| protocol("a piece is too long"))?;
        let mut head = [0; 5];
        head[0] = b'd';
        head[1..].copy_from_slice(&length.to_be_bytes());
        let writing = async {
            self.stream.write_all(&head).await?;
            self.stream.write_all(bytes).await
        };
        match tokio::time::timeout(STANDSTILL, writing).await {
            Ok(written) => Ok(written?),
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the server takes nothing any more").into())
            }
        }
    }

    /// Whether the next statement can be sent: none was given up half-way.
    pub(crate) fn is_clean(&self) -> bool {
        self.clean
    }

    /// The number of the server's process, as the server has said it.
    pub(crate) fn process(&self) -> i32 {
        self.process
    }

    /// Says goodbye and does not wait: the server gives back its locks at once, and its memory, which can take longer, when it can.
    pub(crate) async fn leave(&mut self) {
        self.clean = false;
        frontend::terminate(&mut self.outgoing);
        // A server that does not answer loses the connection by the drop.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.flush()).await;
    }

    /// Says goodbye and waits, for a moment, until the server has closed.
    pub(crate) async fn close(mut self) {
        self.goodbye().await;
    }

    /// The same where it cannot be consumed; it is of no use afterwards.
    pub(crate) async fn goodbye(&mut self) {
        self.clean = false;
        frontend::terminate(&mut self.outgoing);
        let goodbye = async {
            let _ = self.flush().await;
            let mut rest = [0; 512];
            while matches!(self.stream.read(&mut rest).await, Ok(1..)) {}
        };
        // A server that does not answer loses the connection by the drop.
        let _ = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
    }

    async fn send_query(&mut self, sql: &str) -> Result<(), ClientError> {
        if !self.clean {
            return Err(protocol("the session was given up in the middle of a statement"));
        }
        self.clean = false;
        frontend::query(sql, &mut self.outgoing)?;
        self.flush().await
    }

    async fn until_ready(&mut self) -> Result<(), ClientError> {
        while !matches!(self.receive().await?, Message::ReadyForQuery(_)) {}
        self.clean = true;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ClientError> {
        self.stream.write_all(&self.outgoing).await?;
        self.stream.flush().await?;
        self.outgoing.clear();
        Ok(())
    }

    async fn receive(&mut self) -> Result<Message, ClientError> {
        loop {
            if let Some(message) = Message::parse(&mut self.incoming)? {
                return Ok(message);
            }
            self.read_more().await?;
        }
    }

    async fn receive_within(&mut self, limit: Duration) -> Result<Message, ClientError> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the server does not answer any more");
        tokio::time::timeout(limit, self.receive()).await.map_err(late)?
    }

    async fn read_more(&mut self) -> Result<(), ClientError> {
        self.incoming.reserve(READ);
        if self.stream.read_buf(&mut self.incoming).await? == 0 {
            return Err(
                io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into()
            );
        }
        Ok(())
    }
}

/// A `COPY … TO STDOUT` that goes on.
pub(crate) struct CopyOut<'a> {
    session: &'a mut Session,
    counter: RowCounter,
}

impl CopyOut<'_> {
    /// The next piece. `None`: the server has said that this was all, and how many rows; as many were counted here.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let mut batch = BytesMut::with_capacity(BATCH + READ);
        loop {
            // Rows are small messages: taken from the buffer without a step for each.
            while let Some(payload) = copy_data(&self.session.incoming) {
                let data = self.session.incoming.get(5..payload).unwrap_or_default();
                self.counter.see(data).map_err(protocol)?;
                batch.put_slice(data);
                self.session.incoming.advance(payload);
                if batch.len() >= BATCH {
                    return Ok(Some(batch.freeze()));
                }
            }
            if !is_whole(&self.session.incoming) || self.session.incoming.first() == Some(&b'd') {
                let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the server sends nothing any more");
                tokio::time::timeout(STANDSTILL, self.session.read_more()).await.map_err(late)??;
                continue;
            }
            match self.session.receive().await? {
                Message::CopyDone => {
                    if batch.is_empty() {
                        return self.conclude().await;
                    }
                    // The next call finds what follows.
                    return Ok(Some(batch.freeze()));
                }
                Message::CommandComplete(body) => {
                    let tag = body.tag()?.to_owned();
                    return self.compare(&tag).await;
                }
                Message::ErrorResponse(body) => {
                    let refused = ClientError::refusal(body.fields());
                    self.session.until_ready().await?;
                    return Err(refused);
                }
                _ => {}
            }
        }
    }

    async fn conclude(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match self.session.receive().await? {
                Message::CommandComplete(body) => {
                    let tag = body.tag()?.to_owned();
                    return self.compare(&tag).await;
                }
                Message::ErrorResponse(body) => {
                    let refused = ClientError::refusal(body.fields());
                    self.session.until_ready().await?;
                    return Err(refused);
                }
                _ => {}
            }
        }
    }

    async fn compare(&mut self, tag: &str) -> Result<Option<Bytes>, ClientError> {
        let said = copied(tag).ok_or_else(|| protocol("the server did not say how many rows it sent"))?;
        self.session.until_ready().await?;
        let counted = self.counter.rows().map_err(protocol)?;
        if said == counted {
            return Ok(None);
        }
        Err(protocol(format!("the server says that it sent {said} rows, and {counted} arrived")))
    }

    /// Rows so far.
    pub(crate) fn rows(&self) -> u64 {
        self.counter.rows().unwrap_or(0)
    }
}

/// Where the first message ends, if it is a whole `CopyData`.
fn copy_data(buffer: &[u8]) -> Option<usize> {
    (buffer.first() == Some(&b'd')).then(|| end_of_message(buffer)).flatten()
}

fn is_whole(buffer: &[u8]) -> bool {
    end_of_message(buffer).is_some()
}

fn end_of_message(buffer: &[u8]) -> Option<usize> {
    let length: [u8; 4] = buffer.get(1..5)?.try_into().ok()?;
    let end = usize::try_from(i32::from_be_bytes(length)).ok()?.checked_add(1)?;
    // A length below its own four bytes is nonsense, which the parser of messages refuses.
    (end >= 5 && buffer.len() >= end).then_some(end)
}

fn text_row(body: &postgres_protocol::message::backend::DataRowBody) -> Result<Row, ClientError> {
    let mut row = Vec::new();
    let mut ranges = body.ranges();
    while let Some(range) = ranges.next()? {
        let value = range.map(|r| body.buffer().get(r).unwrap_or_default());
        let text = value.map(|v| String::from_utf8(v.to_vec()).map_err(|_| protocol("a text is not UTF-8")));
        row.push(text.transpose()?);
    }
    Ok(row)
}

/// `COPY 5`.
fn copied(tag: &str) -> Option<u64> {
    tag.strip_prefix("COPY ")?.parse().ok()
}

fn protocol(what: impl Into<String>) -> ClientError {
    ClientError::Protocol(what.into())
}
