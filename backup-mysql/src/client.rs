//! Sessions with a server: statements with a time limit, small results as text, rows as they come, and data to be loaded.

mod connect;
mod load;
#[cfg(unix)]
mod named_server;

pub(crate) use connect::connect;
pub(crate) use load::NotLoaded;

use crate::error::{ClientError, UNKNOWN_VARIABLE};
use mysql_async::{Conn, Row as DriverRow, Value, prelude::Queryable};
use std::time::Duration;

/// Answers come within this time, unless a caller says otherwise.
pub(crate) const ANSWER: Duration = Duration::from_secs(120);
/// For what works through data: keys, counts, dropping.
pub(crate) const WORK: Duration = Duration::from_secs(24 * 3600);

/// One row of a small result, as text.
pub(crate) type Row = Vec<Option<String>>;

/// How a statement ended.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Rows that it changed or made.
    pub(crate) affected: u64,
    pub(crate) warnings: u16,
}

/// Takes rows as they come.
pub(crate) trait RowSink: Send {
    /// `true`: it has enough to be passed on.
    fn take(&mut self, row: &DriverRow) -> bool;

    /// Passes on what it has.
    fn pass_on(&mut self) -> impl Future<Output = backup_core::Result<()>> + Send;
}

/// A session with a server. Dropping it closes the connection.
pub(crate) struct Session {
    conn: Option<Conn>,
    id: u32,
    /// In the middle of a result or of a statement that was given up.
    busy: bool,
}

impl Session {
    pub(crate) fn new(conn: Conn) -> Self {
        Session { id: conn.id(), conn: Some(conn), busy: false }
    }

    /// Its number in the server's list of processes.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Whether the next statement can be sent.
    pub(crate) fn is_sound(&self) -> bool {
        self.conn.is_some() && !self.busy
    }

    /// The connection, for a use after which `done` tells how it is.
    fn take_up(&mut self) -> Result<&mut Conn, ClientError> {
        if self.busy {
            self.conn = None;
        }
        let gone = || ClientError::Lost("it was given up in the middle of a statement".to_owned());
        let conn = self.conn.as_mut().ok_or_else(gone)?;
        self.busy = true;
        Ok(conn)
    }

    fn settle<T>(&mut self, outcome: Result<T, ClientError>) -> Result<T, ClientError> {
        self.busy = false;
        if outcome.as_ref().is_err_and(ClientError::is_lost) {
            self.conn = None;
        }
        outcome
    }

    /// Runs a statement without a result.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<Done, ClientError> {
        self.run_within(sql, ANSWER).await
    }

    /// The same with a limit of its own.
    pub(crate) async fn run_within(&mut self, sql: &str, limit: Duration) -> Result<Done, ClientError> {
        let conn = self.take_up()?;
        let running = async {
            let result = conn.query_iter(sql).await?;
            let done = Done { affected: result.affected_rows(), warnings: result.warnings() };
            result.drop_result().await?;
            Ok::<_, mysql_async::Error>(done)
        };
        let outcome = within(limit, running).await;
        self.settle(outcome)
    }

    /// Sets variables that not every server has, or not every user may set.
    pub(crate) async fn try_set(&mut self, assignments: &[&str]) -> Result<(), ClientError> {
        for assignment in assignments {
            match self.run(&format!("SET SESSION {assignment}")).await {
                Err(e) if e.is_lost() => return Err(e),
                Err(e) if !matches!(e.code(), Some(UNKNOWN_VARIABLE | 1227..=1238 | 1064 | 1621)) => {
                    return Err(e);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A small result.
    pub(crate) async fn rows(&mut self, sql: &str) -> Result<Vec<Row>, ClientError> {
        self.rows_within(sql, ANSWER).await
    }

    /// The same with a limit of its own.
    pub(crate) async fn rows_within(&mut self, sql: &str, limit: Duration) -> Result<Vec<Row>, ClientError> {
        let conn = self.take_up()?;
        let outcome = within(limit, conn.query::<DriverRow, _>(sql)).await;
        let rows = self.settle(outcome)?;
        rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect()
    }

    /// The first row of a small result.
    pub(crate) async fn first(&mut self, sql: &str) -> Result<Option<Row>, ClientError> {
        Ok(self.rows(sql).await?.into_iter().next())
    }

    /// The first value of a small result.
    pub(crate) async fn value(&mut self, sql: &str) -> Result<Option<String>, ClientError> {
        Ok(self.first(sql).await?.and_then(|row| row.into_iter().next()?))
    }

    /// A number; 0 if there is none.
    pub(crate) async fn count_within(&mut self, sql: &str, limit: Duration) -> Result<u64, ClientError> {
        let rows = self.rows_within(sql, limit).await?;
        let first = rows.into_iter().next().and_then(|row| row.into_iter().next()?);
        Ok(first.and_then(|n| n.parse().ok()).unwrap_or(0))
    }

    /// Gives every row of a result to `sink`. Returns the number of rows once the server has said that these were all; an error of the
    /// sink is the inner one.
    pub(crate) async fn each_row<S: RowSink>(
        &mut self,
        sql: &str,
        standstill: Duration,
        sink: &mut S,
    ) -> Result<backup_core::Result<u64>, ClientError> {
        let conn = self.take_up()?;
        let mut result = match within(standstill, conn.query_iter(sql)).await {
            Ok(result) => result,
            Err(e) => return self.settle(Err(e)),
        };
        let mut rows = 0;
        let outcome = loop {
            // One limit for many rows: a timer for each would cost more than the row.
            let batch = async {
                while let Some(row) = result.next().await? {
                    rows += 1;
                    if sink.take(&row) {
                        return Ok(true);
                    }
                }
                Ok::<_, mysql_async::Error>(false)
            };
            match within(standstill, batch).await {
                Ok(true) => {
                    if let Err(e) = sink.pass_on().await {
                        // Still in the middle of the result: of no use to anybody.
                        return Ok(Err(e));
                    }
                }
                Ok(false) => break Ok(rows),
                Err(e) => break Err(e),
            }
        };
        drop(result);
        self.settle(outcome).map(Ok)
    }

    /// Says goodbye.
    pub(crate) async fn close(mut self) {
        if let Some(conn) = self.conn.take().filter(|_| !self.busy) {
            // A server that does not answer loses the connection by the drop.
            let _ = tokio::time::timeout(Duration::from_secs(2), conn.disconnect()).await;
        }
    }
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, mysql_async::Error>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(limit, call).await {
        Ok(outcome) => outcome.map_err(ClientError::from),
        Err(_) => Err(ClientError::Late(limit)),
    }
}

fn text(value: Value) -> Result<Option<String>, ClientError> {
    match value {
        Value::NULL => Ok(None),
        Value::Bytes(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(ClientError::Lost("a text is not UTF-8".to_owned())),
        },
        other => Ok(Some(other.as_sql(true))),
    }
}
