//! Stores in memory as a backend.

use super::{MemoryStore, MemoryTarget};
use backup_core::{Backend, Error, ErrorKind, Named, Result, Source, Target};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The kind `memory`: stores by name. A clone knows the same stores.
#[derive(Clone, Default)]
pub struct MemoryBackend(Arc<Mutex<BTreeMap<String, MemoryStore>>>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    store: String,
}

impl MemoryBackend {
    /// One without stores.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a store under this name.
    #[must_use]
    pub fn with(self, name: &str, store: MemoryStore) -> Self {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), store);
        self
    }

    fn find(&self, name: &str) -> Result<MemoryStore> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned().ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "find the store in memory", "there is none of this name").on(name)
        })
    }

    fn configured(&self, config: Value) -> Result<MemoryStore> {
        let config: Config = serde_json::from_value(config)
            .map_err(|e| Error::new(ErrorKind::Usage, "read the configuration", e).on("memory"))?;
        self.find(&config.store)
    }
}

impl Backend for MemoryBackend {
    fn kind(&self) -> &'static str {
        "memory"
    }

    fn folder(&self) -> &'static str {
        "memory"
    }

    fn schema(&self) -> Value {
        serde_json::json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["store"],
            "properties": { "store": { "type": "string", "description": "Name of the store in memory." } },
        })
    }

    fn source(&self, _component: &str, config: Value) -> Result<Box<dyn Source>> {
        Ok(Box::new(self.configured(config)?.source()))
    }

    fn target(&self, _component: &str, config: Value) -> Result<Box<dyn Target>> {
        Ok(Box::new(self.configured(config)?.target()))
    }

    fn recover(&self, undo: Value) -> Result<Box<dyn Target>> {
        let name = undo.get("store").and_then(Value::as_str);
        let name = name.ok_or_else(|| Error::contract("this undo names no store"))?;
        Ok(Box::new(MemoryTarget::recover(&self.find(name)?, &undo)?))
    }

    fn parse(&self, place: &str) -> Option<Result<Named>> {
        let name = place.strip_prefix("memory:")?;
        if name.is_empty() {
            return Some(Err(Error::new(ErrorKind::Usage, "read the place", "a name must follow").on(place)));
        }
        let config = serde_json::json!({ "store": name });
        Some(Ok(Named { name: name.to_owned(), identity: place.to_owned(), config }))
    }
}
