//! To whom a backup is encrypted.

use super::{Identities, Passphrase, read_key_file};
use crate::{Error, ErrorKind, Result, Secret};
use std::path::{Path, PathBuf};

/// To whom new backups are encrypted: any number of public keys, or a passphrase. Nobody, by default: then they are not encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipients {
    /// `age1…`, `ssh-…`, or files with a list of such.
    keys: Vec<String>,
    passphrase: Option<Passphrase>,
}

type Keys = Vec<Box<dyn age::Recipient + Send>>;

/// Of scrypt: 2^18 takes about a second and 256 MB, as with the program `age`.
const WORK_FACTOR: u8 = 18;

impl Recipients {
    /// Public keys `age1…`, `ssh-ed25519 …` and `ssh-rsa …`, or files that list some, one a line, with `#` before remarks. A key
    /// that is none is an error; files are read when a backup begins.
    pub fn keys<T: Into<String>>(keys: impl IntoIterator<Item = T>) -> Result<Self> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        for key in keys.iter().filter(|key| Self::is_key(key)) {
            parse(key).map_err(|e| shown(e, key))?;
        }
        Ok(Recipients { keys, passphrase: None })
    }

    /// Who knows the passphrase: can write and read.
    pub fn passphrase(passphrase: Secret) -> Self {
        Recipients { keys: Vec::new(), passphrase: Some(Passphrase::Given(passphrase)) }
    }

    /// The same, in the first line of a file, which is read when a backup begins.
    pub fn passphrase_file(path: impl Into<PathBuf>) -> Self {
        Recipients { keys: Vec::new(), passphrase: Some(Passphrase::File(path.into())) }
    }

    /// Whether this text is meant as a key, and not as a file with keys.
    pub fn is_key(text: &str) -> bool {
        text.starts_with("age1") || text.starts_with("ssh-") || is_secret(text)
    }

    /// Whether backups are not encrypted.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.passphrase.is_none()
    }

    /// The passphrase, to read with; `None`: with public keys nobody reads.
    pub(crate) fn as_identities(&self) -> Option<Identities> {
        self.passphrase.as_ref().map(|passphrase| match passphrase {
            Passphrase::Given(secret) => Identities::default().passphrase(secret.clone()),
            Passphrase::File(path) => Identities::default().passphrase_file(path),
        })
    }

    /// Those that are written as public keys, also in files; none with a passphrase. Blocks the thread.
    pub(crate) fn public_keys(&self) -> Result<Vec<String>> {
        let is_public = |text: &&str| text.starts_with("age1") || text.starts_with("ssh-");
        let mut all = Vec::new();
        for key in &self.keys {
            if Self::is_key(key) {
                all.extend(Some(key.as_str()).filter(is_public).map(str::to_owned));
                continue;
            }
            let text = read_key_file(Path::new(key), "read the recipients")?;
            all.extend(text.expose().lines().map(str::trim).filter(is_public).map(str::to_owned));
        }
        Ok(all)
    }

    /// Begins a file that they can read. Blocks the thread: with a passphrase for a second.
    pub(super) fn encryptor(&self) -> Result<age::Encryptor> {
        if let Some(passphrase) = &self.passphrase {
            let mut recipient = age::scrypt::Recipient::new(passphrase.read()?);
            recipient.set_work_factor(WORK_FACTOR);
            let one = std::iter::once(&recipient as &dyn age::Recipient);
            return age::Encryptor::with_recipients(one).map_err(failed);
        }
        let keys = self.read()?;
        let all = keys.iter().map(|key| &**key as &dyn age::Recipient);
        age::Encryptor::with_recipients(all).map_err(failed)
    }

    /// What is wrong with them, if anything is. Blocks the thread.
    pub(crate) fn check(&self) -> Result<()> {
        match &self.passphrase {
            Some(passphrase) => passphrase.read().map(drop),
            None => self.read().map(drop),
        }
    }

    fn read(&self) -> Result<Keys> {
        let mut all = Keys::new();
        for key in &self.keys {
            if Self::is_key(key) {
                all.push(parse(key).map_err(|e| shown(e, key))?);
                continue;
            }
            let path = Path::new(key);
            let text = read_key_file(path, "read the recipients")?;
            let before = all.len();
            for (i, line) in text.expose().lines().enumerate() {
                let line = line.trim();
                if !line.is_empty() && !line.starts_with('#') {
                    all.push(parse(line).map_err(|e| e.on(format!("{}:{}", path.display(), i + 1)))?);
                }
            }
            if all.len() == before {
                let e = Error::new(ErrorKind::Usage, "read the recipients", "there is none in this file");
                return Err(e.on(path.display()));
            }
        }
        Ok(all)
    }
}

fn failed(e: age::EncryptError) -> Error {
    Error::new(ErrorKind::Usage, "encrypt to the recipients", e)
}

fn is_secret(text: &str) -> bool {
    text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-")
}

/// The first letters of a key, as people compare them; a secret one is not shown.
fn shown(e: Error, key: &str) -> Error {
    if is_secret(key) { e } else { e.on(key.chars().take(30).collect::<String>()) }
}

fn parse(text: &str) -> Result<Box<dyn age::Recipient + Send>> {
    let fail = |text: &str| Error::new(ErrorKind::Usage, "use the recipient", text);
    if is_secret(text) {
        // It is not repeated: whoever reads the message would have it.
        let e = fail("this is a secret key, and a recipient is public");
        return Err(e.hint("`age-keygen -y FILE` prints the recipient of an identity"));
    }
    if text.starts_with("ssh-") {
        return match text.parse::<age::ssh::Recipient>() {
            Ok(key) => Ok(Box::new(key)),
            Err(_) => {
                let e = fail(
                    "it is no public key of ssh that age knows: ssh-ed25519, or ssh-rsa of 2048 bits or more",
                );
                Err(e)
            }
        };
    }
    match text.parse::<age::x25519::Recipient>() {
        Ok(key) => Ok(Box::new(key)),
        Err(_) => {
            Err(fail("it is no public key of age").hint("one looks like age1ql3z7hjy54pw3…, 62 letters"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_key_is_no_recipient_and_is_not_repeated() {
        let secret = super::super::NewIdentity::generate().secret;
        let e = Recipients::keys([secret.expose()]).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(!format!("{e} {e:?}").contains(secret.expose()), "{e}");
    }

    #[test]
    fn a_key_that_is_none_is_an_error_at_once_and_a_file_when_it_is_read() {
        for key in ["age1", "age1xyz", "ssh-ed25519 AAAA", "ssh-dss AAAAB3NzaC1kc3M="] {
            assert_eq!(Recipients::keys([key]).unwrap_err().kind(), ErrorKind::Usage, "{key}");
        }
        let missing = Recipients::keys(["/nonexistent/keys"]).unwrap();
        assert_eq!(missing.check().unwrap_err().kind(), ErrorKind::Usage);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keys");
        let list = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Recipients::keys([file.to_str().unwrap()]).unwrap().check()
        };
        let key = super::super::NewIdentity::generate().recipient;
        list(&format!("# mine\n\n{key}\n")).unwrap();
        assert!(list("# nothing\n").is_err());
        let e = list(&format!("{key}\nage1wrong\n")).unwrap_err();
        assert!(e.subject().is_some_and(|s| s.ends_with("keys:2")), "{e}");
    }
}
