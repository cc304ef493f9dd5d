//! One per kind of store: how its sources and targets are made.

use crate::{ContainerFacts, Result, Source, Target};
use serde_json::Value;

/// A kind of store. Configurations are the store's own serde struct as JSON; unknown keys in them are errors.
pub trait Backend: Send + Sync {
    /// Its name in `kind = "…"` and in manifests.
    fn kind(&self) -> &'static str;

    /// Folder of its components inside an archive: `files`, `db`, `es` ….
    fn folder(&self) -> &'static str;

    /// JSON schema of its configuration.
    fn schema(&self) -> Value;

    /// A source of this configuration, not connected.
    fn source(&self, component: &str, config: Value) -> Result<Box<dyn Source>>;

    /// A target of this configuration (from a `Source::origin`, or from a place that was named), not connected.
    fn target(&self, component: &str, config: Value) -> Result<Box<dyn Target>>;

    /// A target on which `revert` and `settle` work, from what `Target::undo` said in an earlier process.
    fn recover(&self, undo: Value) -> Result<Box<dyn Target>>;

    /// Reads a source or target named on the command line; `None` if the text is none of this store's. `Some(Err)`: it is,
    /// and it is wrong.
    fn parse(&self, place: &str) -> Option<Result<Named>>;

    /// Whether a server of this store runs in this container, and how it is configured then: for `container://NAME/inside`.
    /// Judged by the image and what it says of itself, not by variables that clients of such a server have, too.
    fn recognise(&self, _container: &ContainerFacts, _inside: Option<&str>) -> Option<Named> {
        None
    }

    /// How its entries are told apart where a part of a backup is restored; `None`: every entry stands for itself, and definitions
    /// are not apart from data.
    fn parts(&self) -> Option<Parts> {
        None
    }
}

/// What the path of an entry says of it, for restores of a part.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// It holds data and no definitions: a restore with `schema_only` leaves it out. Asked of paths of files.
    pub is_data: fn(&[u8]) -> bool,
    /// It is read for whatever part is restored, because that means nothing without it.
    pub goes_along: fn(&[u8]) -> bool,
    /// The path of the whole that it belongs to, if that is not a folder above it: whoever selects that, selects it, too (`app/…` and
    /// `app.orders/…` are both of `app`).
    pub whole: fn(&[u8]) -> Option<&[u8]>,
}

/// A source or target that was named in one text.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// The name a component or module takes from it: the last folder, the database, the bucket.
    pub name: String,
    /// What makes its series unique on this host: the canonical path or URL without secrets.
    pub identity: String,
    /// Configuration for `source` or `target`.
    pub config: Value,
}

impl Named {
    /// Something inside a server that runs in this container; `*`: all that is in it.
    pub fn in_container(container: &ContainerFacts, inside: Option<&str>, config: Value) -> Self {
        let below = inside.map(|inside| format!("/{inside}")).unwrap_or_default();
        Named {
            name: inside.filter(|inside| *inside != "*").unwrap_or(&container.name).to_owned(),
            identity: format!("container://{}{below}", container.name),
            config,
        }
    }
}
