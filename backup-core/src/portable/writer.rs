//! Writes a portable archive: members are appended under one lock, frames go out behind it.

use super::{
    compression::Holds,
    index::{self, LARGEST_SHARD, Line, Place, SHARD},
    layout::{Layout, OwnMember},
    locator::{self, Locator},
    name,
    options::PortableOptions,
    output::{Frame, Output},
    put::{self, ComponentSink},
    restore_guide,
    sidecar::{self, Outside},
    written::Written,
};
use crate::{
    BackupHeader, BackupSummary, BackupWriter, Component, Conclusion, Context, Error, ErrorKind, Manifest,
    Reservation, Result, Severity, Sink, State,
    destination::{Destination, Upload},
    encryption::{EncryptedUpload, Encryption, Receipt},
    is_component_name,
    manifest::is_reserved_folder,
    tar,
};
use async_trait::async_trait;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex as StdMutex, PoisonError},
};
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

/// Frames that a large member needs at least to go on.
const LEAST_LANE: usize = 3;

/// What is shared by the components that are being written.
pub(super) struct Shared {
    state: Mutex<TarState>,
    pub(super) output: Output,
    pub(super) frame: usize,
    pub(super) segment: usize,
    budget: crate::Budget,
    cancel: CancellationToken,
    /// For the one large member that is streamed under the lock: reserved at the beginning, so that it never waits for what
    /// others hold while they wait for the lock.
    lane: crate::Budget,
    lane_hold: StdMutex<Option<Reservation>>,
    finished: StdMutex<HashSet<String>>,
    abandoned: StdMutex<Vec<Abandoned>>,
}

/// An entry in segments whose put was dropped after some of them were out.
pub(super) struct Abandoned {
    pub(super) component: u32,
    pub(super) prefix: Vec<u8>,
    pub(super) entry: crate::Entry,
    pub(super) places: Vec<Place>,
}

/// The tar so far.
pub(super) struct TarState {
    frame: Vec<u8>,
    /// What the frame holds.
    what: Holds,
    holds: Vec<Reservation>,
    /// Bytes that `holds` were reserved for and that are not in a frame yet.
    awaited: usize,
    offset: u64,
    index: Vec<u8>,
    sums: Vec<u8>,
    own: Vec<OwnMember>,
    shards: [u32; 2],
}

impl Shared {
    /// The tar, if it can still be continued.
    pub(super) async fn lock(&self) -> Result<MutexGuard<'_, TarState>> {
        let state = self.state.lock().await;
        match self.output.failure() {
            Some(e) => Err(e),
            None => Ok(state),
        }
    }

    /// Memory for bytes that will go into the tar; a cancelled run does not wait for it.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<Reservation> {
        self.wait_for(&self.budget, bytes).await
    }

    /// The same for the member that is streamed under the lock.
    pub(super) async fn reserve_lane(&self, bytes: usize) -> Result<Reservation> {
        self.wait_for(&self.lane, bytes).await
    }

    async fn wait_for(&self, budget: &crate::Budget, bytes: usize) -> Result<Reservation> {
        tokio::select! {
            biased;
            held = budget.reserve(bytes) => held,
            () = self.cancel.cancelled() => Err(Error::cancelled()),
        }
    }

    /// A whole member. No await inside: it is in the tar as a whole or not at all, wherever a future is dropped.
    pub(super) fn append(
        &self,
        tar: &mut TarState,
        header: &[u8],
        data: &[Bytes],
        hold: Option<Reservation>,
    ) -> Place {
        if let Some(hold) = hold {
            let data: u64 = data.iter().map(|b| b.len() as u64).sum();
            tar.hold(hold, header.len() + tar::padded(data) as usize);
        }
        let begin = tar.offset;
        self.raw(tar, header);
        let at = tar.offset;
        for bytes in data {
            self.raw(tar, bytes);
        }
        let length = tar.offset - at;
        self.pad(tar, length);
        Place { header: begin, data: at, length }
    }

    /// Bytes of a member.
    pub(super) fn raw(&self, tar: &mut TarState, mut bytes: &[u8]) {
        tar.offset += bytes.len() as u64;
        while !bytes.is_empty() {
            let n = bytes.len().min(self.frame - tar.frame.len());
            tar.frame.extend_from_slice(&bytes[..n]);
            tar.awaited = tar.awaited.saturating_sub(n);
            bytes = &bytes[n..];
            if tar.frame.len() == self.frame {
                self.flush(tar);
            }
        }
    }

    /// Zeros up to the next block, after data of this length.
    pub(super) fn pad(&self, tar: &mut TarState, length: u64) {
        let zeros = (tar::padded(length) - length) as usize;
        self.raw(tar, &[0; tar::BLOCK][..zeros]);
    }

    /// Ends the frame. What is held goes with it up to its length; what belongs to bytes still to come stays, and the rest,
    /// which rounding leaves, is given back: kept, it would add up until nobody can reserve anything.
    fn flush(&self, tar: &mut TarState) {
        if tar.frame.is_empty() {
            return;
        }
        let raw = std::mem::replace(&mut tar.frame, self.output.buffer(self.frame));
        let (mut left, mut holds) = (raw.len(), Vec::new());
        while left > 0
            && let Some(mut hold) = tar.holds.pop()
        {
            if hold.bytes() <= left {
                left -= hold.bytes();
                holds.push(hold);
            } else {
                holds.extend(hold.split(left));
                left = 0;
                tar.holds.push(hold);
            }
        }
        let mut kept = 0;
        for hold in &mut tar.holds {
            hold.shrink_to(tar.awaited.saturating_sub(kept));
            kept += hold.bytes();
        }
        tar.holds.retain(|hold| hold.bytes() > 0);
        self.output.send(Frame { raw, what: tar.what, holds });
    }

    /// A line of the index, and with it a shard if there is enough for one. `false`: no reader would take a line of this length,
    /// and nothing was added.
    pub(super) fn line(
        &self,
        tar: &mut TarState,
        line: &Line,
        sums: impl Iterator<Item = (Vec<u8>, crate::Sha)>,
    ) -> bool {
        let before = tar.index.len();
        line.encode(&mut tar.index);
        if (tar.index.len() - before) as u64 > LARGEST_SHARD - SHARD as u64 {
            tar.index.truncate(before);
            return false;
        }
        for (name, sha256) in sums {
            index::encode_sum(&name, &sha256, &mut tar.sums);
        }
        if tar.index.len() >= SHARD {
            self.shards(tar);
        }
        true
    }

    /// What the index and the sums have, side by side in a frame of its own: the digests, which both hold, cost their room once,
    /// and whoever reads the index fetches nothing else.
    fn shards(&self, tar: &mut TarState) {
        self.flush(tar);
        tar.what = Holds::Lists;
        self.index_shard(tar);
        self.sums_shard(tar);
        self.flush(tar);
        tar.what = Holds::Data;
    }

    fn index_shard(&self, tar: &mut TarState) {
        let body = std::mem::take(&mut tar.index);
        if !body.is_empty() {
            let name = format!("index/{:06}.jsonl", tar.shards[0]);
            tar.shards[0] += 1;
            self.own(tar, name, body.into());
        }
    }

    fn sums_shard(&self, tar: &mut TarState) {
        let body = std::mem::take(&mut tar.sums);
        if !body.is_empty() {
            let name = format!("SHA256SUMS/{:06}", tar.shards[1]);
            tar.shards[1] += 1;
            self.own(tar, name, body.into());
        }
    }

    fn own(&self, tar: &mut TarState, name: String, body: Bytes) -> Place {
        let mut header = Vec::with_capacity(tar::BLOCK);
        super::own_member(name.as_bytes(), body.len() as u64).encode(&mut header);
        let sha256 = Sha256::digest(&body).into();
        let place = self.append(tar, &header, &[body], None);
        tar.own.push(OwnMember { name, place, sha256 });
        place
    }

    /// Said by a put that was dropped: what it left in the tar must be known to the index.
    pub(super) fn abandon(&self, what: Abandoned) {
        self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    fn bury_abandoned(&self, tar: &mut TarState) {
        let all = std::mem::take(&mut *self.abandoned.lock().unwrap_or_else(PoisonError::into_inner));
        for a in all {
            put::tombstone(self, tar, (a.component, &a.prefix), &a.entry, a.places, true, "it was abandoned");
        }
    }

    /// Nothing more is written: what is reserved is given back.
    fn give_back(&self) {
        self.lane_hold.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Held only by a put that has not ended yet; it gives back what it holds when it does.
        if let Ok(mut tar) = self.state.try_lock() {
            tar.holds.clear();
            tar.frame = Vec::new();
        }
    }

    pub(super) fn component_finished(&self, name: &str) {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    fn is_finished(&self, name: &str) -> bool {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }
}

impl TarState {
    /// What was reserved for so many bytes that come next.
    pub(super) fn hold(&mut self, hold: Reservation, bytes: usize) {
        self.awaited += bytes;
        let other = match self.holds.last_mut() {
            Some(last) => last.merge(hold),
            None => Some(hold),
        };
        self.holds.extend(other);
    }

    /// Where the next byte goes.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }
}

/// A backup that is being written into a portable archive.
pub(super) struct PortableWriter {
    shared: Arc<Shared>,
    header: BackupHeader,
    destination: Arc<dyn Destination>,
    /// Of an encrypted backup.
    receipt: Option<Receipt>,
    written: Written,
    options: PortableOptions,
    /// The one name of the file, if it was named; else names are made from the template.
    exact: Option<String>,
    taken: StdMutex<HashSet<String>>,
}

impl PortableWriter {
    pub(super) async fn begin(
        destination: Arc<dyn Destination>,
        exact: Option<String>,
        options: &PortableOptions,
        written: Written,
        header: BackupHeader,
        cx: &Context,
    ) -> Result<Self> {
        // The lane, the half-filled frame, and the largest single reservation: with less, a put could wait for ever.
        let others = options.frame + options.segment + (1 << 20);
        let least = LEAST_LANE * options.frame + others;
        if cx.budget.limit() < least {
            let text =
                format!("this archive needs {least} bytes of memory, the limit is {}", cx.budget.limit());
            return Err(Error::new(ErrorKind::Budget, "begin a backup", text));
        }
        // A frame that is filled, one for each core, one that is written: with fewer, large files would leave cores idle.
        let lane = ((options.threads + 2) * options.frame).min(cx.budget.limit() - others);
        for c in &header.components {
            if !is_component_name(&c.name) || !is_component_name(&c.folder) || is_reserved_folder(&c.folder) {
                let text = format!("its name or its folder {:?} cannot be in an archive", c.folder);
                return Err(Error::contract(text).on(&c.name));
            }
        }
        let encryption = match options.recipients.is_empty() {
            true => None,
            false => Some(Encryption::begin(options.recipients.clone()).await?),
        };
        let stem = name::stem(&options.name_template, &header.module, header.created, &header.id);
        let extension = &options.extension();
        let shown = exact.as_deref().unwrap_or(&stem);
        let provisional = name::provisional(shown, extension, &header.series, &header.id);
        let names = match &exact {
            Some(exact) => vec![exact.clone()],
            None => names(&stem, extension),
        };
        let upload = destination.create(&provisional, &names).await?;
        let (upload, receipt) = match encryption {
            None => (upload, None),
            Some(encryption) => {
                let (upload, receipt) = EncryptedUpload::new(upload, encryption);
                (Box::new(upload) as Box<dyn Upload>, Some(receipt))
            }
        };
        let level = options.level.unwrap_or(options.compression.default_level());
        let stop = cx.cancel.child_token();
        let output = Output::start(upload, options.compression, level, options.threads, stop);
        let shared = Arc::new(Shared {
            state: Mutex::new(TarState {
                what: Holds::Data,
                frame: output.buffer(options.frame),
                holds: Vec::new(),
                awaited: 0,
                offset: 0,
                index: Vec::with_capacity(SHARD + SHARD / 8),
                sums: Vec::with_capacity(SHARD + SHARD / 8),
                own: Vec::new(),
                shards: [0; 2],
            }),
            output,
            frame: options.frame,
            segment: options.segment,
            budget: cx.budget.clone(),
            cancel: cx.cancel.clone(),
            lane: crate::Budget::new(lane),
            lane_hold: StdMutex::new(Some(cx.budget.reserve(lane).await?)),
            finished: StdMutex::default(),
            abandoned: StdMutex::default(),
        });
        {
            let mut tar = shared.lock().await?;
            shared.own(&mut tar, "metadata.json".into(), super::metadata_json(&header).into());
            let guide = restore_guide::text(&header, options.compression, receipt.is_some());
            shared.own(&mut tar, "RESTORE.md".into(), guide.into());
        }
        Ok(PortableWriter {
            shared,
            header,
            destination,
            receipt,
            written,
            options: options.clone(),
            exact,
            taken: StdMutex::default(),
        })
    }

    /// The conclusion is of exactly the components of the header, and says no more than is true.
    fn check(&self, conclusion: &Conclusion) -> Result<()> {
        for c in &self.header.components {
            if !self.shared.is_finished(&c.name) {
                return Err(Error::contract("it is not finished").on(&c.name));
            }
            if conclusion.poured.iter().filter(|p| p.component == c.name).count() != 1 {
                return Err(Error::contract("it has not exactly one result").on(&c.name));
            }
        }
        if conclusion.poured.len() != self.header.components.len() {
            return Err(Error::contract("there are results of components that are not in the header"));
        }
        let lost = conclusion.poured.iter().any(|p| p.lost > 0 || !p.differences.is_empty());
        match conclusion.state {
            State::Complete if lost => Err(Error::contract("a backup that lost entries is not complete")),
            State::Incomplete | State::Unknown | State::Missing => {
                Err(Error::contract("a backup that is committed is complete or partial"))
            }
            _ => Ok(()),
        }
    }

    /// Everything after the last entry: shards, the manifest in a frame of its own, the locator in one of its own.
    async fn end(&self, conclusion: Conclusion) -> Result<Manifest> {
        let shared = &self.shared;
        let mut tar = shared.lock().await?;
        shared.bury_abandoned(&mut tar);
        shared.shards(&mut tar);
        let layout = Layout {
            compression: self.options.compression,
            own: std::mem::take(&mut tar.own),
            end: tar.offset,
        };
        let mut components = Vec::with_capacity(self.header.components.len());
        for header in &self.header.components {
            let poured = conclusion.poured.iter().find(|p| p.component == header.name);
            let poured = poured.ok_or_else(|| Error::contract("it was not poured").on(&header.name))?;
            components.push(Component {
                header: header.clone(),
                moment: poured.moment,
                proof: poured.proof.clone(),
                lost: poured.lost,
            });
        }
        let manifest = Manifest {
            header: self.header.clone(),
            finished: conclusion.finished,
            state: conclusion.state,
            components,
            notes: conclusion.notes,
            not_included: conclusion.not_included,
            layout: layout.to_json(),
        };
        let body = Bytes::from(manifest.to_json());
        super::reader::check_manifest(&body).map_err(|e| {
            Error::new(ErrorKind::Unsupported, "write the manifest", format!("no reader would take it: {e}"))
        })?;
        let locator =
            Locator { offset: layout.end, length: body.len() as u64, sha256: Sha256::digest(&body).into() };
        let mut header = Vec::with_capacity(tar::BLOCK);
        super::own_member(super::MANIFEST, body.len() as u64).encode(&mut header);
        shared.append(&mut tar, &header, &[body], None);
        shared.flush(&mut tar);
        let last = locator.to_frame();
        debug_assert_eq!(last.len(), locator::FRAME);
        shared.raw(&mut tar, &last);
        shared.flush(&mut tar);
        Ok(manifest)
    }
}

/// Names under which a backup in a folder may become visible, in the order of preference.
pub(super) fn names(stem: &str, extension: &str) -> Vec<String> {
    let numbered = (2..100).map(|n| format!("{stem}-{n}.{extension}"));
    std::iter::once(format!("{stem}.{extension}")).chain(numbered).collect()
}

#[async_trait]
impl BackupWriter for PortableWriter {
    fn component(&self, name: &str) -> Result<Arc<dyn Sink>> {
        let number = self.header.components.iter().position(|c| c.name == name);
        let number = number.ok_or_else(|| Error::contract("it is not in the header").on(name))?;
        if !self.taken.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            return Err(Error::contract("its sink was asked for twice").on(name));
        }
        let folder = &self.header.components[number].folder;
        Ok(Arc::new(ComponentSink::new(self.shared.clone(), number as u32, folder, name)))
    }

    async fn commit(self: Box<Self>, conclusion: Conclusion, cx: &Context) -> Result<BackupSummary> {
        let ended = async {
            self.check(&conclusion)?;
            self.end(conclusion).await
        };
        let manifest = match ended.await {
            Ok(manifest) => manifest,
            Err(e) => {
                // The failure is what is told; nothing of the backup stays behind.
                let _ = self.abort(cx).await;
                return Err(e);
            }
        };
        let ended = self.shared.output.end().await;
        self.shared.give_back();
        let (location, mut stored) = ended.map_err(|e| {
            if e.kind() != ErrorKind::Refused {
                return e;
            }
            e.hint("a file of this name is there already and is never overwritten: choose another name")
        })?;
        let encrypted = self.receipt.as_ref().and_then(Receipt::get);
        if let Some((bytes, sha256)) = encrypted {
            stored = bytes;
            self.written.keep(&manifest.header.id, sha256);
        }
        if self.exact.is_none() {
            // Somebody may have deleted a file of this name: what was known of that one is not true of this one.
            if let Err(e) = self.destination.remove(&name::state_sidecar(&location)).await {
                let text =
                    format!("what was known of an earlier file of this name could not be removed: {e}");
                cx.note(Severity::Warning, "", &location, text);
            }
            // The backup is there and complete, and its copy a cache: without it listing takes longer.
            let copied = match encrypted {
                None => sidecar::write_manifest(&*self.destination, &location, stored, &manifest).await,
                Some((bytes, sha256)) => {
                    let outside = Outside::of(&manifest, bytes, sha256);
                    sidecar::write_outside(&*self.destination, &location, &outside).await
                }
            };
            if let Err(e) = copied {
                let text = format!("the copy of its manifest beside it could not be written: {e}");
                cx.note(Severity::Warning, "", &location, text);
            }
        }
        let summary = super::summary(&manifest, location, stored, None);
        Ok(BackupSummary { encrypted: encrypted.is_some(), ..summary })
    }

    async fn abort(self: Box<Self>, _cx: &Context) -> Result<()> {
        let aborted = self.shared.output.abort().await;
        self.shared.give_back();
        aborted
    }
}
