//! The restore of a store in memory.

use super::{Call, ContentsSink, MemoryStore};
use async_trait::async_trait;
use backup_core::{Content, Context, Entry, Error, Incoming, Proof, Put, Result, Sink, Survey, Target};
use serde_json::Value;
use std::{fmt, sync::Arc};
use tokio::task::yield_now;

/// One restore of a `MemoryStore`.
pub struct MemoryTarget {
    store: MemoryStore,
    id: u64,
}

impl MemoryTarget {
    pub(super) fn of(store: MemoryStore, id: u64) -> Self {
        MemoryTarget { store, id }
    }

    /// The restore that `undo` tells of, in a later process.
    pub fn recover(store: &MemoryStore, undo: &Value) -> Result<Self> {
        let id = undo.get("restore").and_then(Value::as_u64);
        let id = id.ok_or_else(|| Error::contract("this undo names no restore"))?;
        Ok(MemoryTarget { store: store.clone(), id })
    }
}

impl fmt::Display for MemoryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory target {}", self.store.state().name)
    }
}

#[async_trait]
impl Target for MemoryTarget {
    async fn survey(&mut self, _incoming: &Incoming, _cx: &Context) -> Result<Survey> {
        self.store.call(Call::Survey)?;
        let state = self.store.state();
        let entries = state.live.as_ref().map(|c| c.len());
        Ok(Survey {
            place: state.name.clone(),
            replaces: entries.is_some(),
            present: entries.map_or_else(|| "nothing".to_owned(), |n| format!("a store with {n} entries")),
            identity: format!("{} {}", state.name, entries.is_some()),
            free_bytes: None,
            free_entries: None,
            publish: "two maps are exchanged; nothing in between can be seen".to_owned(),
            ..Survey::default()
        })
    }

    fn undo(&self) -> Value {
        serde_json::json!({ "store": self.store.state().name, "restore": self.id })
    }

    async fn prepare(&mut self, _cx: &Context) -> Result<Arc<dyn Sink>> {
        self.store.call(Call::Prepare)?;
        self.store.state().shadows.insert(self.id, Default::default());
        yield_now().await;
        self.store.call(Call::PrepareHalfway)?;
        let (store, id) = (self.store.clone(), self.id);
        Ok(Arc::new(ShadowSink { store, id, contents: ContentsSink::new() }))
    }

    async fn publish(&mut self, _cx: &Context) -> Result<()> {
        self.store.call(Call::Publish)?;
        {
            let mut state = self.store.state();
            if !state.shadows.contains_key(&self.id) {
                return Err(Error::contract("a publish without a shadow").on(&state.name));
            }
            let old = state.live.take();
            state.previous.insert(self.id, old);
        }
        yield_now().await;
        self.store.call(Call::PublishHalfway)?;
        {
            let mut state = self.store.state();
            state.live = state.shadows.remove(&self.id);
        }
        yield_now().await;
        Ok(())
    }

    async fn revert(&mut self, _cx: &Context) -> Result<()> {
        self.store.call(Call::Revert)?;
        {
            let mut state = self.store.state();
            state.shadows.remove(&self.id);
            if state.previous.contains_key(&self.id) {
                state.live = None;
            }
        }
        yield_now().await;
        self.store.call(Call::RevertHalfway)?;
        {
            let mut state = self.store.state();
            if let Some(old) = state.previous.remove(&self.id) {
                state.live = old;
            }
        }
        yield_now().await;
        Ok(())
    }

    async fn settle(&mut self, _cx: &Context) -> Result<()> {
        self.store.call(Call::Settle)?;
        self.store.state().previous.remove(&self.id);
        yield_now().await;
        self.store.state().shadows.remove(&self.id);
        Ok(())
    }
}

struct ShadowSink {
    store: MemoryStore,
    id: u64,
    contents: ContentsSink,
}

impl fmt::Display for ShadowSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory shadow {}", self.id)
    }
}

#[async_trait]
impl Sink for ShadowSink {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        self.store.call(Call::Put)?;
        self.contents.put(entry, content).await
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.store.call(Call::Finish)?;
        let proof = self.contents.finish(cx).await?;
        // A shadow that was dropped meanwhile is not made again.
        if let Some(shadow) = self.store.state().shadows.get_mut(&self.id) {
            *shadow = self.contents.take();
        }
        Ok(proof)
    }
}
