//! A source that is built entry by entry.

use super::{Contents, ContentsSink};
use crate::Must;
use async_trait::async_trait;
use backup_core::{
    Content, Context, Entry, Facts, Ledger, Moment, Ready, Result, Sink, Source, Stage, Stillness, View,
    put_stage,
};
use bytes::Bytes;
use futures::stream;
use serde_json::Value;
use std::{fmt, sync::Arc};

#[derive(Clone)]
struct Maker(Arc<dyn Fn() -> Content + Send + Sync>);

/// A source in memory. A clone pours the same.
#[derive(Clone)]
pub struct MemorySource {
    name: String,
    items: Vec<(Entry, Maker)>,
    facts: Facts,
    stillness: Stillness,
}

impl MemorySource {
    /// One without entries; the name is the component's.
    pub fn new(name: impl Into<String>) -> Self {
        MemorySource { name: name.into(), items: Vec::new(), facts: Facts::new(), stillness: Stillness::None }
    }

    /// Adds an entry; `make` gives its content whenever it is poured.
    #[must_use]
    pub fn with(mut self, entry: Entry, make: impl Fn() -> Content + Send + Sync + 'static) -> Self {
        self.items.push((entry, Maker(Arc::new(make))));
        self
    }

    /// Adds an entry whose content is in memory.
    #[must_use]
    pub fn with_bytes(self, entry: Entry, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        self.with(entry, move || Content::whole(bytes.clone()))
    }

    /// Adds an entry without bytes: a directory, a link.
    #[must_use]
    pub fn with_empty(self, entry: Entry) -> Self {
        self.with(entry, Content::empty)
    }

    /// Adds a file of this text.
    #[must_use]
    pub fn with_file(self, path: impl Into<Bytes>, text: impl Into<Bytes>) -> Self {
        let (entry, text) = (Entry::file(path, Stage::Data), text.into());
        self.with_bytes(entry.sized(text.len() as u64), text)
    }

    /// Facts that the store itself counts.
    #[must_use]
    pub fn with_facts(mut self, facts: Facts) -> Self {
        self.facts = facts;
        self
    }

    /// What the application must endure.
    #[must_use]
    pub fn with_stillness(mut self, stillness: Stillness) -> Self {
        self.stillness = stillness;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same without what comes after the stage `Prepare`.
    pub(super) fn prepare_only(&self) -> Self {
        let mut source = self.clone();
        source.items.retain(|(entry, _)| entry.stage == Stage::Prepare);
        source
    }

    /// What arrives when it is poured into a sound sink.
    pub async fn contents(&self) -> Contents {
        let sink = ContentsSink::new();
        self.put_all(&(Arc::new(sink.clone()) as Arc<dyn Sink>), &Context::default())
            .await
            .must("pour into memory");
        sink.take()
    }

    async fn put_all(&self, sink: &Arc<dyn Sink>, cx: &Context) -> Result<()> {
        for stage in [Stage::Prepare, Stage::Data, Stage::Complete] {
            let items: Vec<_> = self.items.iter().filter(|item| item.0.stage == stage).cloned().collect();
            let items = items.into_iter().map(|(entry, make)| Ok((entry, (make.0)())));
            put_stage(sink, cx, stream::iter(items)).await?;
        }
        Ok(())
    }
}

/// Connects, fixes and pours a source behind a ledger, without finishing the sink. Returns the facts and what was lost.
pub async fn pour_into(
    source: &dyn Source,
    component: &str,
    sink: Arc<dyn Sink>,
    cx: &Context,
) -> Result<(Facts, u64)> {
    let ledger = Ledger::new(sink, component, cx);
    let view = source.connect(cx).await?.fix(cx).await?;
    let facts = view.pour(ledger.clone(), cx).await?;
    Ok((facts, ledger.settle_losses()))
}

impl fmt::Display for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory source {}", self.name)
    }
}

#[async_trait]
impl Source for MemorySource {
    async fn connect(&self, _cx: &Context) -> Result<Box<dyn Ready>> {
        Ok(Box::new(Poured(self.clone())))
    }

    fn origin(&self) -> Value {
        serde_json::json!({ "store": self.name })
    }
}

struct Poured(MemorySource);

#[async_trait]
impl Ready for Poured {
    fn stillness(&self) -> Stillness {
        self.0.stillness
    }

    async fn fix(self: Box<Self>, _cx: &Context) -> Result<Box<dyn View>> {
        Ok(self)
    }
}

#[async_trait]
impl View for Poured {
    fn moment(&self) -> Moment {
        Moment::now()
    }

    async fn pour(self: Box<Self>, sink: Arc<dyn Sink>, cx: &Context) -> Result<Facts> {
        self.0.put_all(&sink, cx).await?;
        Ok(self.0.facts)
    }
}
