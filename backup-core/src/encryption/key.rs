//! Keys of files, and new keys of people.

use crate::{Error, ErrorKind, Result, Secret};
use age::{DecryptError, Identity, secrecy::ExposeSecret};
use age_core::format::{FileKey, Stanza};
use std::{
    io::Write,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// A new pair of keys: who has the recipient can write, who has the secret can read.
#[derive(Debug)]
pub struct NewIdentity {
    /// `age1…`: public.
    pub recipient: String,
    /// `AGE-SECRET-KEY-1…`: what an identity file holds.
    pub secret: Secret,
}

impl NewIdentity {
    /// From the system's random numbers.
    pub fn generate() -> Self {
        let identity = age::x25519::Identity::generate();
        let recipient = identity.to_public().to_string();
        NewIdentity { recipient, secret: Secret::new(identity.to_string().expose_secret()) }
    }

    /// Writes an identity file as `age-keygen` does, for the owner only. A file that is there is never overwritten.
    pub fn keep(&self, file: &Path) -> Result<()> {
        let text = format!("# public key: {}\n{}\n", self.recipient, self.secret.expose());
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let write = || {
            let mut file = options.open(file)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|e: std::io::Error| {
            let there = e.kind() == std::io::ErrorKind::AlreadyExists;
            let e = Error::io(ErrorKind::Target, "write the identity file", e).on(file.display());
            if there { e.hint("it is never overwritten: name another file") } else { e }
        })
    }
}

/// The key of one file, once somebody's identity has given it: with a passphrase that takes a second and much memory.
pub(super) struct KnownKey(FileKey);

fn copy(key: &FileKey) -> FileKey {
    FileKey::new(Box::new(*key.expose_secret()))
}

impl Identity for KnownKey {
    fn unwrap_stanza(&self, _stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        Some(Ok(copy(&self.0)))
    }
}

/// Remembers the key that another identity gives.
pub(super) struct Remember<'a> {
    identity: &'a dyn Identity,
    given: Mutex<Option<FileKey>>,
}

impl<'a> Remember<'a> {
    pub(super) fn new(identity: &'a dyn Identity) -> Self {
        Remember { identity, given: Mutex::default() }
    }

    pub(super) fn given(self) -> Option<KnownKey> {
        self.given.into_inner().unwrap_or_else(PoisonError::into_inner).map(KnownKey)
    }
}

impl Identity for Remember<'_> {
    fn unwrap_stanza(&self, stanza: &Stanza) -> Option<Result<FileKey, DecryptError>> {
        self.identity.unwrap_stanza(stanza)
    }

    fn unwrap_stanzas(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, DecryptError>> {
        let unwrapped = self.identity.unwrap_stanzas(stanzas);
        if let Some(Ok(key)) = &unwrapped {
            *self.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(copy(key));
        }
        unwrapped
    }
}
