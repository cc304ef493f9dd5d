//! What says whether a restored application works.

use backup_core::{Result, UrlHealth, without_secrets};
use std::{fmt, time::Duration};

const LIMIT: Duration = Duration::from_secs(60);

/// An address that answers with a status of 2xx when the application works.
#[derive(Clone)]
pub struct Health {
    url: String,
    limit: Duration,
}

impl Health {
    /// Asked again and again for 60 seconds. An address that is none is an error of the restore's plan.
    pub fn url(url: impl Into<String>) -> Self {
        Health { url: url.into(), limit: LIMIT }
    }

    /// Asked again and again for this time: that the application needs to start.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    pub(crate) fn check(&self) -> Result<UrlHealth> {
        UrlHealth::new(&self.url, self.limit)
    }
}

impl From<&str> for Health {
    fn from(url: &str) -> Self {
        Health::url(url)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("url", &without_secrets(&self.url))
            .field("limit", &self.limit)
            .finish()
    }
}
