//! Sessions that fill the shadow, made as they are needed, and what each of them is set to.

use crate::{client::Session, error::ClientError, quote::ident};
use backup_core::{Error, Result};
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

pub(super) struct Loaders {
    idle: Mutex<Vec<Loading>>,
    permits: Semaphore,
}

/// A session, and what it is set to.
struct Loading {
    session: Session,
    /// Names in its statements are those of this one.
    schema: String,
    checks_unique: bool,
}

/// A session for one entry. It is given back if it is sound.
pub(super) struct Loader<'a> {
    loaders: &'a Loaders,
    loading: Option<Loading>,
    _permit: SemaphorePermit<'a>,
}

impl Loaders {
    pub(super) fn new(at_once: usize) -> Self {
        Loaders { idle: Mutex::default(), permits: Semaphore::new(at_once) }
    }

    /// How many are free, or not made yet.
    pub(super) fn free(&self) -> usize {
        self.permits.available_permits()
    }

    /// One that is idle; else a new one, which checks no unique keys.
    pub(super) async fn take<E: From<Error>>(
        &self,
        make: impl AsyncFnOnce() -> std::result::Result<Session, E>,
    ) -> std::result::Result<Loader<'_>, E> {
        let permit = self.permits.acquire().await.map_err(|_| Error::cancelled())?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let loading = match idle {
            Some(loading) => loading,
            None => Loading { session: make().await?, schema: String::new(), checks_unique: false },
        };
        Ok(Loader { loaders: self, loading: Some(loading), _permit: permit })
    }

    pub(super) async fn close(&self) {
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for loading in idle {
            loading.session.close().await;
        }
    }
}

impl Drop for Loader<'_> {
    fn drop(&mut self) {
        if let Some(loading) = self.loading.take().filter(|l| l.session.is_sound()) {
            self.loaders.idle.lock().unwrap_or_else(PoisonError::into_inner).push(loading);
        }
    }
}

impl Loader<'_> {
    pub(super) fn session(&mut self) -> Result<&mut Session> {
        self.loading.as_mut().map(|l| &mut l.session).ok_or_else(Error::cancelled)
    }

    /// Names in its statements are those of this schema.
    pub(super) async fn enter(&mut self, schema: &str) -> std::result::Result<(), ClientError> {
        let Some(l) = self.loading.as_mut().filter(|l| l.schema != schema) else { return Ok(()) };
        l.session.run(&format!("USE {}", ident(schema))).await?;
        schema.clone_into(&mut l.schema);
        Ok(())
    }

    /// Without the check MariaDB sorts all rows of an empty table first and then writes its pages out: quick for many rows, and for few
    /// several times as slow as putting them in.
    pub(super) async fn check_unique(&mut self, yes: bool) -> std::result::Result<(), ClientError> {
        let Some(l) = self.loading.as_mut().filter(|l| l.checks_unique != yes) else { return Ok(()) };
        l.session.run(&format!("SET SESSION unique_checks = {}", u8::from(yes))).await?;
        l.checks_unique = yes;
        Ok(())
    }
}
