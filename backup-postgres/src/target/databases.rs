//! The sink of a restore: what comes of each database goes into the new one that is made for it.

use super::{
    globals,
    put::{Taking, drain, unknown_entry},
    shadow::Shadow,
};
use crate::{globals::GLOBALS, layout, server::Server};
use async_trait::async_trait;
use backup_core::{Content, Context, Entry, ErrorKind, Proof, Put, Result, Sink, Tally};
use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

pub(super) struct Databases {
    server: Server,
    /// Of the restore: its name, and that of the component.
    id: String,
    component: String,
    /// Each with its folder, if it is one of several.
    list: Vec<(Option<String>, Arc<Shadow>)>,
    /// The one whose rows came last: its sessions are kept for more of them.
    last: AtomicUsize,
    tally: Mutex<Tally>,
    cx: Context,
}

impl Databases {
    pub(super) fn new(
        server: Server,
        (id, component): (&str, &str),
        list: Vec<(Option<String>, Arc<Shadow>)>,
        cx: &Context,
    ) -> Self {
        Databases {
            server,
            id: id.to_owned(),
            component: component.to_owned(),
            list,
            last: AtomicUsize::new(0),
            tally: Mutex::default(),
            cx: cx.clone(),
        }
    }

    /// The new databases.
    pub(super) fn each(&self) -> impl Iterator<Item = &Arc<Shadow>> {
        self.list.iter().map(|(_, shadow)| shadow)
    }

    /// Ends all sessions: nobody may be in a database that is renamed or dropped.
    pub(super) async fn close(&self) {
        futures::future::join_all(self.each().map(|shadow| shadow.close())).await;
    }

    async fn take(&self, entry: &Entry, content: &mut Content) -> Result<(), Taking> {
        let path = std::str::from_utf8(&entry.path).unwrap_or_default();
        let (folder, below) = layout::split(path);
        if folder.is_none() && below == GLOBALS {
            let who = (&*self.id, &*self.component);
            return globals::take(&self.server, who, (entry, content), &self.cx).await;
        }
        if folder.is_none() && below == layout::DATABASES {
            return drain(content).await;
        }
        let mut list = self.list.iter().enumerate();
        let Some((number, (_, shadow))) = list.find(|(_, (of, _))| of.as_deref() == folder) else {
            // Of a database that is not selected it is what goes along with every part.
            return match layout::goes_along(&entry.path) && folder.is_some() {
                true => drain(content).await,
                false => Err(unknown_entry(entry, "its database is not restored with it").into()),
            };
        };
        let before = self.last.swap(number, Relaxed);
        if let Some((_, other)) = self.list.get(before).filter(|_| before != number) {
            other.rest().await;
        }
        shadow.wake();
        shadow.take(entry, below, content).await
    }
}

impl fmt::Display for Databases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.each().map(|shadow| shadow.name.as_str()).collect();
        write!(f, "{} ({})", self.server.place(), names.join(", "))
    }
}

#[async_trait]
impl Sink for Databases {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let mut content = content.hashed(&entry);
        match self.take(&entry, &mut content).await {
            Ok(()) => {}
            Err(Taking::Content(e)) if e.kind() == ErrorKind::Cancelled => return Err(e),
            Err(Taking::Content(e)) => return Ok(Put::Discarded(e.to_string().into())),
            Err(Taking::Target(e)) => return Err(e),
        }
        let digest = content.digest().unwrap_or_default();
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).add(&entry, content.delivered(), &digest);
        Ok(Put::Stored)
    }

    async fn finish(&self, _cx: &Context) -> Result<Proof> {
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut proof = tally.facts();
        for (folder, shadow) in &self.list {
            let facts = shadow.finish(tally.entries() == 0).await?;
            proof.add_missing(layout::facts_in(folder.as_deref(), facts));
        }
        Ok(proof)
    }
}
