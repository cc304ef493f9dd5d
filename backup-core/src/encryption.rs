//! Encryption of whole archives with age (<https://age-encryption.org/v1>): to public keys, so that the machine that makes backups cannot
//! read them, or with a passphrase. The program `age` reads what is written here, and the other way round.

mod blob;
mod identities;
mod key;
mod recipients;
mod upload;

pub use identities::Identities;
pub use key::NewIdentity;
pub use recipients::Recipients;

pub(crate) use blob::{EncryptedBlob, is_encrypted, opens_with};
pub(crate) use upload::{EncryptedUpload, Encryption, Receipt};

use crate::{Error, ErrorKind, Result, Secret};
use age::secrecy::SecretString;
use std::{io::Read, path::PathBuf};

/// Bytes of content that age encrypts at a time.
pub(crate) const CHUNK: u64 = 64 << 10;
/// The same as it is stored: with its tag.
const STORED_CHUNK: u64 = CHUNK + 16;
/// How age files begin.
const MAGIC: &[u8] = b"age-encryption.org/v1\n";
/// A file with keys that is larger is none.
const LARGEST_KEY_FILE: u64 = 1 << 20;
const READ_PASSPHRASE: &str = "read the passphrase";

/// Where a passphrase is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Passphrase {
    Given(Secret),
    /// In the first line of this file, which is read when it is needed.
    File(PathBuf),
}

impl Passphrase {
    /// Blocks the thread.
    fn read(&self) -> Result<SecretString> {
        let text = match self {
            Passphrase::Given(secret) => secret.clone(),
            Passphrase::File(path) => read_key_file(path, READ_PASSPHRASE)?,
        };
        match text.expose().lines().next().filter(|line| !line.is_empty()) {
            Some(line) => Ok(line.to_owned().into()),
            None => {
                let e = Error::new(ErrorKind::Usage, READ_PASSPHRASE, "its first line is empty");
                Err(match self {
                    Passphrase::Given(_) => e,
                    Passphrase::File(path) => e.on(path.display()),
                })
            }
        }
    }
}

/// The text of a file with keys. Blocks the thread.
fn read_key_file(path: &std::path::Path, operation: &'static str) -> Result<Secret> {
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(LARGEST_KEY_FILE).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map(Secret::new).map_err(|e| Error::io(ErrorKind::Usage, operation, e).on(path.display()))
}

async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, operation, e)))
}
