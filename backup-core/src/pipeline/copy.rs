//! Copies a backup from one archive into another: the same backup, whatever the two write it as.

use super::{Pouring, give_up, still_wanted};
use crate::{
    Archive, BackupId, BackupReader, BackupSummary, BackupWriter, Conclusion, Content, Context, Depth, Entry,
    Error, ErrorKind, Event, Manifest, Phase, Poured, Proof, Put, Result, Selection, Severity, Sink,
};
use async_trait::async_trait;
use serde::Serialize;
use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// What came of copying a backup.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Copied {
    /// The backup at its new place.
    pub backup: BackupSummary,
    /// Whether it was there before, so that nothing was written.
    pub was_there: bool,
}

/// Copies a backup into `to`: id, module, series, times, metadata, proofs and notes stay, the digest of every entry is compared
/// with the index on the way, and a partial one stays partial. Members of failed tries are not copied: they are in no index line
/// that is live. `wait` is how long another run of the same series may hold `to`.
///
/// After an `Err` nothing of it is in `to`. A source that is not what was written is an error of kind `Damaged`.
pub async fn copy(
    reader: Arc<dyn BackupReader>,
    to: &dyn Archive,
    wait: Duration,
    cx: &Context,
) -> Result<Copied> {
    let manifest = reader.manifest().clone();
    if let Some(defect) = reader.check_structure(Depth::Quick, cx).await?.into_iter().next() {
        return Err(defect);
    }
    still_wanted(cx)?;
    if let Some(there) = find(to, &manifest.header.id, cx).await? {
        return Ok(there);
    }
    cx.emit(&Event::Phase { phase: Phase::Preflight });
    for warning in to.preflight(Some(manifest.data_bytes()), cx).await.map_err(of_destination)? {
        cx.note(Severity::Note, "", "", warning);
    }
    let lock = to.lock(&manifest.header.series, wait, cx).await.map_err(of_destination)?;
    let copied = async {
        // Another run may have copied it while this one waited.
        match find(to, &manifest.header.id, cx).await? {
            Some(there) => Ok(there),
            None => write(&reader, &manifest, to, cx).await,
        }
    };
    let copied = copied.await;
    if let Err(e) = lock.release().await {
        cx.note(Severity::Warning, "", "", format!("the run lock could not be given back: {e}"));
    }
    copied
}

/// What is damaged where the copy goes says nothing of the backup that is copied.
fn of_destination(e: Error) -> Error {
    if e.kind() == ErrorKind::Damaged { e.with_kind(ErrorKind::Destination) } else { e }
}

/// The backup of this id, if it is there already. A place that is still to be made has none.
async fn find(to: &dyn Archive, id: &BackupId, cx: &Context) -> Result<Option<Copied>> {
    let all = match to.list(cx).await {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        all => all.map_err(of_destination)?,
    };
    let there = all.into_iter().find(|b| b.id == *id && b.state.is_readable());
    match there {
        Some(there) if there.damaged.is_some() => Err(Error::new(
            ErrorKind::Refused,
            "copy the backup",
            "it is there already, and known to be damaged",
        )
        .on(&there.location)
        .hint(format!("remove the damaged one first: `backup remove {id} --from {to}`"))),
        there => Ok(there.map(|backup| Copied { backup, was_there: true })),
    }
}

async fn write(
    reader: &Arc<dyn BackupReader>,
    manifest: &Manifest,
    to: &dyn Archive,
    cx: &Context,
) -> Result<Copied> {
    let wanted = manifest.components.iter().map(|c| (c.header.name.clone(), Selection::All)).collect();
    let views = super::open_components(reader, wanted, cx).await?;
    still_wanted(cx)?;
    let writer = to.begin(manifest.header.clone(), cx).await.map_err(of_destination)?;
    cx.emit(&Event::Phase { phase: Phase::Pour });
    let mut list = Vec::new();
    for (component, (view, estimate)) in manifest.components.iter().zip(views) {
        let component = component.header.name.clone();
        let sink = match writer.component(&component) {
            Ok(sink) => Arc::new(Whole { sink, component: component.clone() }),
            Err(e) => return give_up(writer, of_destination(e), cx).await,
        };
        list.push((Pouring { component, view, sink, stillness: None }, estimate));
    }
    let outcomes = super::pour_each(list, true, cx).await;
    let poured = match super::what_ended(&outcomes) {
        Some(e) => Err(e),
        None => outcomes.into_iter().map(|o| poured(o.into_result()?, manifest)).collect::<Result<Vec<_>>>(),
    };
    let poured = match poured.and_then(|p| still_wanted(cx).map(|()| p)) {
        Ok(poured) => poured,
        Err(e) => return give_up(writer, e, cx).await,
    };
    commit(writer, poured, manifest, cx).await
}

/// What the new manifest says of a component is what the old one says, once all that flowed was counted to be the same.
fn poured(there: Poured, manifest: &Manifest) -> Result<Poured> {
    let name = &there.component;
    let component =
        manifest.component(name).ok_or_else(|| Error::contract("it is not in the backup").on(name))?;
    if let Some(difference) = there.differences.first() {
        return Err(Error::damaged("compare the copy with the backup", difference).on(name));
    }
    for measure in ["entries", "bytes", "digest"] {
        if component.proof.get("all", measure) != there.proof.get("all", measure) {
            let text = format!("{measure}: the manifest says another than was read");
            return Err(Error::damaged("compare the copy with the backup", text).on(name));
        }
    }
    Ok(Poured {
        moment: component.moment,
        proof: component.proof.clone(),
        lost: component.lost,
        kept: 0,
        differences: Vec::new(),
        ..there
    })
}

async fn commit(
    writer: Box<dyn BackupWriter>,
    poured: Vec<Poured>,
    manifest: &Manifest,
    cx: &Context,
) -> Result<Copied> {
    cx.emit(&Event::Phase { phase: Phase::Commit });
    let conclusion = Conclusion {
        poured,
        notes: manifest.notes.clone(),
        state: manifest.state,
        not_included: manifest.not_included.clone(),
        finished: manifest.finished,
    };
    let backup = super::calmly("commit", writer.commit(conclusion, cx)).await.map_err(of_destination)?;
    Ok(Copied { backup, was_there: false })
}

/// Takes everything or ends the run: what a backup has and its copy has not would be lost in silence.
struct Whole {
    sink: Arc<dyn Sink>,
    component: String,
}

impl fmt::Display for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sink.fmt(f)
    }
}

#[async_trait]
impl Sink for Whole {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let subject = format!("{}/{}", self.component, entry.display_path());
        let failure = Arc::new(OnceLock::new());
        let put = self.sink.put(entry, content.telling(&failure)).await?;
        let Put::Discarded(why) = put else { return Ok(put) };
        Err(match failure.get().cloned() {
            // Its length is not what the index promises.
            Some(e) if matches!(e.kind(), ErrorKind::Source | ErrorKind::Cut) => {
                e.with_kind(ErrorKind::Damaged).on(subject)
            }
            Some(e) => e.on(subject),
            None => Error::new(ErrorKind::Unsupported, "copy the entry", why).on(subject),
        })
    }

    async fn finish(&self, cx: &Context) -> Result<Proof> {
        self.sink.finish(cx).await
    }
}
