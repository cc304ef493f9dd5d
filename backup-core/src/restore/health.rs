//! Whether the restored application works: an address of it is asked until it answers well.

use super::HealthCheck;
use crate::{Context, Error, ErrorKind, Result, http_client, without_secrets};
use async_trait::async_trait;
use std::time::Duration;
use tokio::time::Instant;

/// An application that is starting is asked again after this time.
const AGAIN: Duration = Duration::from_millis(500);
/// One answer is waited for no longer.
const ANSWER: Duration = Duration::from_secs(10);

/// An address that answers with a status of 2xx, redirections followed, when the application works.
pub struct UrlHealth {
    url: String,
    limit: Duration,
    client: reqwest::Client,
}

impl UrlHealth {
    /// Asked for `limit` at most. `Usage`: it is no address of http or https.
    pub fn new(url: impl Into<String>, limit: Duration) -> Result<Self> {
        let url = url.into();
        let wrong = |why: &dyn std::fmt::Display| {
            let e = Error::new(ErrorKind::Usage, "read the address of the health check", why);
            e.on(without_secrets(&url)).hint("http://127.0.0.1:8080/health")
        };
        let read = reqwest::Url::parse(&url).map_err(|e| wrong(&e))?;
        if !matches!(read.scheme(), "http" | "https") || read.host_str().is_none() {
            return Err(wrong(&"it is no address of http or https"));
        }
        Ok(UrlHealth { client: http_client::client(read.scheme() == "https", None)?, url, limit })
    }

    /// `Err`: what it said instead.
    async fn ask(&self) -> Result<(), String> {
        let asked = self.client.get(&self.url).timeout(ANSWER).send().await;
        match asked {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answers {}", answer.status())),
            Err(e) if e.is_timeout() => Err(format!("it does not answer within {} s", ANSWER.as_secs())),
            Err(e) => {
                let mut cause: &dyn std::error::Error = &e;
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                Err(without_secrets(&cause.to_string()).into_owned())
            }
        }
    }
}

#[async_trait]
impl HealthCheck for UrlHealth {
    fn place(&self) -> String {
        without_secrets(&self.url).into_owned()
    }

    async fn check(&self, cx: &Context) -> Result<()> {
        let end = Instant::now() + self.limit;
        let mut last = "it was never asked".to_owned();
        loop {
            let asked = tokio::select! {
                () = cx.cancel.cancelled() => return Err(Error::cancelled()),
                asked = tokio::time::timeout_at(end, self.ask()) => asked,
            };
            match asked {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => last = why,
                Err(_) => last = format!("{last}, and then not at all"),
            }
            if Instant::now() + AGAIN >= end {
                let message =
                    format!("the application does not work after {} s: {last}", self.limit.as_secs_f32());
                return Err(Error::new(ErrorKind::Target, "check the health", message).on(self.place()));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
