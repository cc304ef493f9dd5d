//! What a target is about to be given, so that it can refuse it before anything is touched.

use crate::{BackupReader, Component, Context, Entry, Error, ErrorKind, Fact, Result, Selection};
use bytes::Bytes;
use futures::StreamExt;
use std::{fmt, sync::Arc};

/// A component of a backup, and what of it is to be restored: what `Target::survey` judges by.
#[derive(Clone)]
pub struct Incoming {
    /// Kind, origin, moment and proof, as the manifest has them.
    pub component: Component,
    /// What of it.
    pub selection: Selection,
    /// Names of the refusals that the caller accepts.
    pub accepted: Vec<String>,
    reader: Arc<dyn BackupReader>,
}

impl Incoming {
    /// What is selected of a component of this backup. `NotFound`: it has no such component.
    pub fn new(reader: Arc<dyn BackupReader>, component: &str, selection: Selection) -> Result<Self> {
        let found = reader.manifest().component(component).cloned().ok_or_else(|| {
            let known: Vec<_> = reader.manifest().components.iter().map(|c| c.header.name.as_str()).collect();
            let message = format!("the backup has no such component, only {}", known.join(", "));
            Error::new(ErrorKind::NotFound, "plan a restore", message).on(component)
        })?;
        Ok(Incoming { component: found, selection, accepted: Vec::new(), reader })
    }

    /// With these refusals accepted.
    #[must_use]
    pub fn accepting(mut self, names: &[String]) -> Self {
        self.accepted = names.to_vec();
        self
    }

    /// A note among its facts: what the source has said of the server, its version, how it was read.
    pub fn note(&self, subject: &str, measure: &str) -> Option<&str> {
        match self.component.proof.get(subject, measure) {
            Some(Fact::Note(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether the refusal of this name is accepted.
    pub fn accepts(&self, name: &str) -> bool {
        self.accepted.iter().any(|a| a == name)
    }

    /// How many of the selected entries are such. Reads the whole list of entries.
    pub async fn count(&self, is: fn(&Entry) -> bool, cx: &Context) -> Result<u64> {
        self.count_of_all(|entry, selected| selected && is(entry), cx).await
    }

    /// How many entries of the component are such, asked of all in their order: the second is whether it is selected.
    pub async fn count_of_all(
        &self,
        mut is: impl FnMut(&Entry, bool) -> bool + Send,
        cx: &Context,
    ) -> Result<u64> {
        let (mut entries, mut count) = (self.reader.entries(), 0);
        while let Some(listed) = entries.next().await {
            let listed = listed?;
            if cx.cancel.is_cancelled() {
                return Err(Error::cancelled());
            }
            if listed.component == self.component.header.name {
                let selected = self.selection.covers(&listed.entry.path);
                count += u64::from(is(&listed.entry, selected));
            }
        }
        Ok(count)
    }

    /// Reads a small entry of the component: properties, definitions. `None`: there is none of this path. More than `limit` bytes
    /// are `Unsupported`.
    pub async fn read(&self, path: &[u8], limit: usize, cx: &Context) -> Result<Option<Bytes>> {
        let name = &self.component.header.name;
        let mut content = match self.reader.content(name, path, cx).await {
            Ok((_, content)) => content,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let mut out = Vec::new();
        while let Some(bytes) = content.next().await? {
            if out.len() + bytes.len() > limit {
                let e = Error::new(
                    ErrorKind::Unsupported,
                    "read an entry of the backup",
                    format!("it has more than {limit} bytes"),
                );
                return Err(e.on(crate::display_path(path)));
            }
            out.extend_from_slice(&bytes);
        }
        Ok(Some(out.into()))
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("component", &self.component)
            .field("selection", &self.selection)
            .field("accepted", &self.accepted)
            .finish_non_exhaustive()
    }
}
