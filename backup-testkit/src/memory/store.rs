//! A store in memory that is restored through a shadow.

use super::{Contents, MemorySource, MemoryTarget, contents::fingerprint};
use backup_core::{Error, ErrorKind, Result, Source};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A call of a target that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// `survey`.
    Survey,
    /// `prepare`, before anything was made.
    Prepare,
    /// `prepare`, when the shadow is there.
    PrepareHalfway,
    /// Any put.
    Put,
    /// `finish` of the sink.
    Finish,
    /// `publish`, before anything happened.
    Publish,
    /// `publish`, when the old data has gone and the new has not come.
    PublishHalfway,
    /// `revert`, before anything happened.
    Revert,
    /// `revert`, when the new data has gone and the old has not come back.
    RevertHalfway,
    /// `settle`.
    Settle,
}

/// A store in memory. A clone is the same store, as a server is the same for every process.
#[derive(Clone)]
pub struct MemoryStore(Arc<Mutex<State>>);

pub(super) struct State {
    pub(super) name: String,
    /// What is effective; `None`: there is no store.
    pub(super) live: Option<Contents>,
    /// Shadows by restore.
    pub(super) shadows: HashMap<u64, Contents>,
    /// Old data by restore; `Some(None)`: there was no store.
    pub(super) previous: HashMap<u64, Option<Contents>>,
    pub(super) restores: u64,
    failing: HashMap<Call, u32>,
    calls: Vec<Call>,
}

impl MemoryStore {
    /// No store of this name is there yet.
    pub fn absent(name: impl Into<String>) -> Self {
        MemoryStore(Arc::new(Mutex::new(State {
            name: name.into(),
            live: None,
            shadows: HashMap::new(),
            previous: HashMap::new(),
            restores: 0,
            failing: HashMap::new(),
            calls: Vec::new(),
        })))
    }

    /// A store that holds what the source pours.
    pub async fn holding(source: &MemorySource) -> Self {
        let store = Self::absent(source.name());
        let contents = source.contents().await;
        store.state().live = Some(contents);
        store
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is effective now.
    pub fn contents(&self) -> Option<Contents> {
        self.state().live.clone()
    }

    /// Changes whenever anything effective does.
    pub fn fingerprint(&self) -> String {
        self.state().live.as_ref().map_or_else(|| "no store".to_owned(), fingerprint)
    }

    /// Shadows and old data that are still kept.
    pub fn leftovers(&self) -> Vec<String> {
        let state = self.state();
        let shadows = state.shadows.keys().map(|id| format!("shadow {id}"));
        shadows.chain(state.previous.keys().map(|id| format!("old data {id}"))).collect()
    }

    /// Makes the next `times` calls of this kind fail.
    pub fn fail(&self, call: Call, times: u32) {
        self.state().failing.insert(call, times);
    }

    /// Every call that was made, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// A source of what is effective now.
    pub fn source(&self) -> impl Source + use<> {
        let state = self.state();
        let mut source = MemorySource::new(&state.name);
        for held in state.live.iter().flat_map(Contents::values).cloned() {
            source = source.with(held.entry.clone(), move || held.content());
        }
        source
    }

    /// A new restore of this store.
    pub fn target(&self) -> MemoryTarget {
        let id = {
            let mut state = self.state();
            state.restores += 1;
            state.restores
        };
        MemoryTarget::of(self.clone(), id)
    }

    pub(super) fn call(&self, call: Call) -> Result<()> {
        let mut state = self.state();
        state.calls.push(call);
        match state.failing.get_mut(&call) {
            Some(times) if *times > 0 => {
                *times -= 1;
                Err(Error::new(
                    ErrorKind::Target,
                    "restore into memory",
                    format!("{call:?} fails as it was told to"),
                )
                .on(&state.name))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({})", self.state().name)
    }
}
