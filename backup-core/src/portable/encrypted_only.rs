//! Folders in which only encrypted backups are kept: nothing is written there in plain text because a key was forgotten.

use super::{Compression, PortableArchive, name};
use crate::{Error, ErrorKind, Result, destination::Destination};
use serde::{Deserialize, Serialize};

/// Made by `init`. It names public keys only, and nothing is encrypted to what it names: who can write there could change it.
const MARKER: &str = ".backup-encrypted";
const LARGEST: u64 = 1 << 20;

#[derive(Default, Serialize, Deserialize)]
struct Marker {
    recipients: Vec<String>,
}

/// What a folder says of encryption.
struct Found {
    marker: Option<Marker>,
    encrypted: usize,
    plain: usize,
}

async fn look(destination: &dyn Destination) -> Result<Found> {
    let absent = |e: &Error| e.kind() == ErrorKind::NotFound;
    let marker = match destination.read_small(MARKER, LARGEST).await {
        Err(e) if absent(&e) => None,
        // Whatever stands in it, it is there.
        read => read?.map(|bytes| serde_json::from_slice::<Marker>(&bytes).unwrap_or_default()),
    };
    let all = match destination.list().await {
        Err(e) if absent(&e) => Vec::new(),
        all => all?,
    };
    let is_backup = |name: &&str| Compression::of_name(name).is_some() && !name.starts_with('.');
    let names = all.iter().map(|s| s.name.as_str()).filter(is_backup);
    let (encrypted, plain): (Vec<_>, Vec<_>) = names.partition(|n| name::is_encrypted(n));
    Ok(Found { marker, encrypted: encrypted.len(), plain: plain.len() })
}

impl PortableArchive {
    /// Refuses a backup that is not encrypted where `init` has said so, or all others are. Folders only: a file's name says it.
    pub(super) async fn refuse_plain(&self) -> Result<()> {
        if self.exact().is_some() || !self.options().recipients.is_empty() {
            return Ok(());
        }
        let found = look(&*self.destination()).await?;
        if found.marker.is_none() && (found.encrypted == 0 || found.plain > 0) {
            return Ok(());
        }
        let keys = found.marker.map(|m| m.recipients).unwrap_or_default();
        let (key, compare) = match keys.first() {
            Some(key) => (format!("'{key}'"), " (compare it with the recovery sheet)"),
            None => ("age1…".to_owned(), ""),
        };
        let text = "only encrypted backups are kept there, and nobody is named to whom this one is encrypted";
        Err(Error::new(ErrorKind::Usage, "write the archive", text).on(self).hint(format!(
            "--recipient {key}{compare}, or `encrypt` of the archive in backup.toml; backups that are not encrypted go to another place"
        )))
    }

    /// Refuses to go on where backups are encrypted already: a new pair of keys would not read them.
    pub async fn refuse_new_keys(&self) -> Result<()> {
        if self.exact().is_some() {
            return Ok(());
        }
        let found = look(&*self.destination()).await?;
        let refuse = |text: String, hint: &str| {
            Err(Error::new(ErrorKind::Refused, "make a new pair of keys", text).on(self).hint(hint))
        };
        match found.marker {
            _ if found.encrypted > 0 => refuse(
                format!(
                    "{} encrypted backups are there already, which new keys do not read",
                    found.encrypted
                ),
                "go on with the public key of the recovery sheet (`create --recipient`), or begin another place",
            ),
            Some(marker) => refuse(
                format!("it has keys already: {}", marker.recipients.join(", ")),
                "go on with these; if nobody has the secret one, no backup needs it: remove .backup-encrypted there",
            ),
            None => Ok(()),
        }
    }

    /// Keeps in the folder that its backups are encrypted; `recipients` are told to whoever forgets them. A single file has no
    /// place for it.
    pub async fn keep_encrypted_only(&self, recipients: &[String]) -> Result<()> {
        if self.exact().is_some() {
            return Ok(());
        }
        // Keys themselves, not the names of files that list some on this machine.
        let is_key = |r: &&String| r.starts_with("age1") || r.starts_with("ssh-");
        let marker = Marker { recipients: recipients.iter().filter(is_key).cloned().collect() };
        let bytes = serde_json::to_vec_pretty(&marker).map_err(Error::contract)?;
        self.destination().write_small(MARKER, &bytes).await
    }
}
