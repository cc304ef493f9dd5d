//! To whom backups are encrypted, and with what they are read.

use super::ArchiveSpec;
use backup_core::{
    Archive, Context, Error, ErrorKind, Result, Secret,
    encryption::{Identities, Recipients},
    portable::PortableOptions,
};
use std::path::PathBuf;

#[derive(Clone, Default)]
pub(super) struct Encryption {
    recipients: Vec<String>,
    passphrase: Option<Passphrase>,
    identities: Identities,
}

#[derive(Clone)]
enum Passphrase {
    Given(Secret),
    File(PathBuf),
}

impl Encryption {
    pub(super) fn identities(&self) -> Identities {
        match &self.passphrase {
            None => self.identities.clone(),
            Some(Passphrase::Given(secret)) => self.identities.clone().passphrase(secret.clone()),
            Some(Passphrase::File(file)) => self.identities.clone().passphrase_file(file),
        }
    }

    pub(super) fn apply(&self, options: &mut PortableOptions) -> Result<()> {
        options.identities = self.identities();
        options.recipients = match &self.passphrase {
            None => Recipients::keys(self.recipients.clone())?,
            Some(_) if !self.recipients.is_empty() => {
                let text = "a backup is encrypted to recipients or with a passphrase, not both";
                return Err(Error::new(ErrorKind::Usage, "encrypt the backup", text));
            }
            Some(Passphrase::Given(secret)) => Recipients::passphrase(secret.clone()),
            Some(Passphrase::File(file)) => Recipients::passphrase_file(file),
        };
        Ok(())
    }
}

impl ArchiveSpec {
    /// Encrypts new backups to these: `age1…`, `ssh-ed25519 …`, `ssh-rsa …`, or files that list some. Who can write need not be able to
    /// read.
    #[must_use]
    pub fn recipients<T: Into<String>>(mut self, recipients: impl IntoIterator<Item = T>) -> Self {
        self.encryption.recipients = recipients.into_iter().map(Into::into).collect();
        self.encryption.passphrase = None;
        self
    }

    /// Encrypts new backups with a passphrase, and reads with it.
    #[must_use]
    pub fn passphrase(mut self, passphrase: Secret) -> Self {
        self.encryption.passphrase = Some(Passphrase::Given(passphrase));
        self.encryption.recipients.clear();
        self
    }

    /// The same, with the first line of a file.
    #[must_use]
    pub fn passphrase_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.encryption.passphrase = Some(Passphrase::File(file.into()));
        self.encryption.recipients.clear();
        self
    }

    /// Makes the place ready for backups. If they are encrypted, that is kept there, and from then on none is written there in plain
    /// text because somebody forgot to say to whom it is encrypted. Returns warnings.
    pub async fn init(&self, cx: &Context) -> Result<Vec<String>> {
        let archive = self.open_portable()?;
        let warnings = archive.preflight(None, cx).await?;
        if self.is_encrypting() {
            archive.keep_encrypted_only(&self.encryption.recipients).await?;
        }
        Ok(warnings)
    }

    /// Refuses new keys for a place whose backups are encrypted already: they would not read these.
    pub async fn refuse_new_keys(&self) -> Result<()> {
        self.open_portable()?.refuse_new_keys().await
    }

    /// Whether new backups are encrypted.
    pub fn is_encrypting(&self) -> bool {
        !self.encryption.recipients.is_empty() || self.encryption.passphrase.is_some()
    }

    /// Reads encrypted backups with the keys in this file: an identity file of age, or a private key of ssh.
    #[must_use]
    pub fn identity(mut self, file: impl Into<PathBuf>) -> Self {
        self.encryption.identities = self.encryption.identities.file(file);
        self
    }

    /// Reads encrypted backups also with the keys of another archive.
    pub(crate) fn also_read_with(mut self, other: &ArchiveSpec) -> Self {
        self.encryption.identities = self.encryption.identities.and(other.encryption.identities());
        self
    }

    /// Reads encrypted backups with these, whatever was said before.
    #[must_use]
    pub fn identities(mut self, identities: Identities) -> Self {
        self.encryption.identities = identities;
        self
    }
}
