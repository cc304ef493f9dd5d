//! Who can read an encrypted backup.

use super::{Passphrase, READ_PASSPHRASE, read_key_file};
use crate::{Error, ErrorKind, Result, Secret};
use std::path::{Path, PathBuf};

/// With what encrypted backups are read: identity files of age, private keys of ssh, a passphrase. They are looked at when an
/// encrypted backup is opened.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    files: Vec<PathBuf>,
    keys: Vec<Secret>,
    passphrase: Option<Passphrase>,
}

const READ_IDENTITY: &str = "read the identity";

type Keys = Vec<Box<dyn age::Identity + Send + Sync>>;

/// More would take 2 GB of memory and more, which a hostile file could ask for.
const MOST_WORK: u8 = 20;

impl Identities {
    /// Also the keys in this file: `AGE-SECRET-KEY-1…`, one a line, or an unencrypted private key of ssh.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push(path.into());
        self
    }

    /// Also this key; the text that such a file has.
    #[must_use]
    pub fn key(mut self, key: Secret) -> Self {
        self.keys.push(key);
        self
    }

    /// Also this passphrase.
    #[must_use]
    pub fn passphrase(mut self, passphrase: Secret) -> Self {
        self.passphrase = Some(Passphrase::Given(passphrase));
        self
    }

    /// Also the passphrase in the first line of this file.
    #[must_use]
    pub fn passphrase_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.passphrase = Some(Passphrase::File(path.into()));
        self
    }

    /// Also these; of two passphrases the first stays.
    #[must_use]
    pub fn and(mut self, others: Identities) -> Self {
        self.files.extend(others.files);
        self.keys.extend(others.keys);
        self.passphrase = self.passphrase.or(others.passphrase);
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.keys.is_empty() && self.passphrase.is_none()
    }

    /// Looks at the files now, which are else looked at when an encrypted backup is opened: one that is named and cannot be used is
    /// a mistake even where no key is needed. A pipe can be read only once, and is left for then. Blocks the thread.
    pub fn check(&self) -> Result<()> {
        let is_there = |path: &Path, operation| match std::fs::metadata(path) {
            Ok(found) => Ok(found.is_file() || found.is_dir()),
            Err(e) => Err(Error::io(ErrorKind::Usage, operation, e).on(path.display())),
        };
        let mut now = Identities::default();
        for path in &self.files {
            if is_there(path, READ_IDENTITY)? {
                now = now.file(path);
            }
        }
        if let Some(Passphrase::File(path)) = &self.passphrase
            && is_there(path, READ_PASSPHRASE)?
        {
            now = now.passphrase_file(path);
        }
        now.read().map(drop)
    }

    /// Blocks the thread.
    pub(super) fn read(&self) -> Result<Keys> {
        let mut all = Keys::new();
        for path in &self.files {
            let text = read_key_file(path, READ_IDENTITY)?;
            all.extend(parse(&text, path).map_err(|e| e.on(path.display()))?);
        }
        for key in &self.keys {
            all.extend(parse(key, Path::new("key"))?);
        }
        if let Some(passphrase) = &self.passphrase {
            let mut identity = age::scrypt::Identity::new(passphrase.read()?);
            identity.set_max_work_factor(MOST_WORK);
            all.push(Box::new(identity));
        }
        Ok(all)
    }
}

/// Messages of parsers are not passed on: they could repeat a part of the key.
fn parse(text: &Secret, path: &Path) -> Result<Keys> {
    let fail = |text: &str| Error::new(ErrorKind::Usage, "use the identity", text);
    let text = text.expose();
    if text.trim_start().starts_with("-----BEGIN AGE") || text.starts_with("age-encryption.org/") {
        let e = fail("the file itself is encrypted");
        return Err(e.hint("decrypt it first: `age -d FILE > identity`"));
    }
    if text.trim_start().starts_with("-----BEGIN ") {
        let name = Some(path.display().to_string());
        return match age::ssh::Identity::from_buffer(text.as_bytes(), name) {
            Ok(age::ssh::Identity::Unencrypted(key)) => Ok(vec![Box::new(age::ssh::Identity::from(key))]),
            Ok(age::ssh::Identity::Encrypted(_)) => {
                let e = fail("this private key of ssh is protected by a passphrase");
                Err(e.hint("take it off a copy that is kept safe: `ssh-keygen -p -N '' -f COPY`"))
            }
            Ok(age::ssh::Identity::Unsupported(_)) => {
                Err(fail("age does not know this kind of ssh key: it takes ssh-ed25519 and ssh-rsa"))
            }
            Err(_) => Err(fail("it is no private key of ssh")),
        };
    }
    let keys =
        age::IdentityFile::from_buffer(text.as_bytes()).ok().and_then(|file| file.into_identities().ok());
    match keys {
        Some(keys) if !keys.is_empty() => Ok(keys),
        _ => Err(fail("there is no secret key of age in it").hint("one is a line AGE-SECRET-KEY-1…")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_identity_is_said_without_repeating_it() {
        for (text, cause) in [
            ("", "no secret key"),
            ("AGE-SECRET-KEY-1SESAME", "no secret key"),
            ("-----BEGIN AGE ENCRYPTED FILE-----\nSESAME", "encrypted"),
            ("age-encryption.org/v1\nSESAME", "encrypted"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nSESAME", "no private key of ssh"),
        ] {
            let e = Identities::default().key(Secret::new(text)).read().err().unwrap();
            assert_eq!(e.kind(), ErrorKind::Usage);
            assert!(e.to_string().contains(cause) && !format!("{e} {e:?}").contains("SESAME"), "{e}");
        }
        let e = Identities::default().file("/nonexistent/key").read().err().unwrap();
        assert!(e.to_string().contains("/nonexistent/key"), "{e}");
    }
}
