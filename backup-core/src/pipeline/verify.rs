//! Reads a backup and compares it with what its manifest says. Needs no server.

use super::Pouring;
use crate::{
    BackupId, BackupReader, Content, Context, Depth, Entry, Error, ErrorKind, Event, Phase, Proof, Put,
    Result, Selection, Sink, Source, Tally, compare, display_path,
};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// What came of a verification.
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The backup.
    pub id: BackupId,
    /// Its application.
    pub module: String,
    /// When it was made.
    pub created: Timestamp,
    /// How much was read.
    pub depth: Depth,
    /// Whether it was opened. `false`: it is encrypted, nothing to read it with was given, and all bytes of the encrypted file were
    /// compared with the digest that was taken when it was written. Of its contents nothing is said then.
    pub opened: bool,
    /// Its components; none if it was not opened.
    pub components: Vec<VerifiedComponent>,
    /// Entries that were read; 0 at `Depth::Quick`.
    pub entries: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Everything that is wrong, each naming what it is about. Empty: the backup is sound.
    pub defects: Vec<Error>,
}

/// One component of a verified backup.
#[derive(Clone, Debug, Serialize)]
pub struct VerifiedComponent {
    /// Its name.
    pub name: String,
    /// Entries that were read.
    pub entries: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Whether nothing is wrong with it.
    pub sound: bool,
}

/// Checks the structure and, at `Depth::Full`, reads every byte. `Ok` also with defects: they are in the report. `Err`: the
/// verification itself could not be done (cancelled, the place does not answer).
pub async fn verify(reader: Arc<dyn BackupReader>, depth: Depth, cx: &Context) -> Result<VerifyReport> {
    cx.emit(&Event::Phase { phase: Phase::ReadBack });
    let header = &reader.manifest().header;
    let mut report = VerifyReport {
        id: header.id.clone(),
        module: header.module.clone(),
        created: header.created,
        depth,
        opened: true,
        components: Vec::new(),
        entries: 0,
        bytes: 0,
        defects: Vec::new(),
    };
    match reader.check_structure(depth, cx).await {
        Ok(defects) => report.defects = defects,
        Err(e) => keep_defect(&mut report.defects, e)?,
    }
    let names: Vec<String> = reader.manifest().components.iter().map(|c| c.header.name.clone()).collect();
    if depth == Depth::Quick {
        let unread = |name: String| VerifiedComponent { name, entries: 0, bytes: 0, sound: true };
        report.components = names.into_iter().map(unread).collect();
    } else {
        read_components(&reader, names, &mut report, cx).await?;
    }
    let defects = &report.defects;
    for c in &mut report.components {
        let inside = format!("{}/", c.name);
        let about = |e: &Error| e.subject().is_some_and(|s| s == c.name || s.starts_with(&inside));
        c.sound = !defects.iter().any(about);
    }
    Ok(report)
}

/// What is wrong with the backup is a defect; what keeps us from reading it is an error.
fn keep_defect(defects: &mut Vec<Error>, e: Error) -> Result<()> {
    use ErrorKind::{Contract, Cut, Damaged, NotFound, Panicked, Source, Unsupported};
    match e.kind() {
        Damaged | Cut | Source | NotFound | Unsupported | Contract | Panicked => defects.push(e),
        _ => return Err(e),
    }
    Ok(())
}

async fn read_components(
    reader: &Arc<dyn BackupReader>,
    names: Vec<String>,
    report: &mut VerifyReport,
    cx: &Context,
) -> Result<()> {
    let opening = names.iter().map(|name| {
        let (reader, name, cx) = (reader.clone(), name.clone(), cx.clone());
        async move {
            let source: Arc<dyn Source> = reader.component(&name, Selection::All)?.into();
            let ready = super::connect(source, cx.clone()).await?;
            let estimate = ready.estimate();
            Ok((ready.fix(&cx).await?, estimate))
        }
    });
    let mut pourings = Vec::new();
    for (name, opened) in names.iter().zip(super::side_by_side("open a component", opening).await) {
        match opened {
            Ok((view, estimate)) => {
                let sink = DigestSink::new();
                pourings.push((Pouring { component: name.clone(), view, sink, stillness: None }, estimate));
            }
            Err(e) => keep_defect(&mut report.defects, e.on(name))?,
        }
    }
    for outcome in super::pour_each(pourings, false, cx).await {
        let name = outcome.component.clone();
        let there = match (outcome.there, outcome.view) {
            (Ok(there), Ok(said)) => {
                let mut there = there;
                there.add_missing(said);
                Some(there)
            }
            (Err(e), _) | (Ok(_), Err(e)) => {
                keep_defect(&mut report.defects, e.on(&name))?;
                None
            }
        };
        for (path, e) in &outcome.unreadable {
            if !e.is_damage() {
                keep_defect(&mut report.defects, e.clone().on(format!("{name}/{}", display_path(path))))?;
            }
        }
        for (path, why) in &outcome.losses {
            let subject = format!("{name}/{}", display_path(path));
            if !report.defects.iter().any(|e| e.subject() == Some(&*subject)) {
                report.defects.push(Error::damaged("read the entry", why).on(subject));
            }
        }
        let beyond = outcome.lost.saturating_sub(outcome.losses.len() as u64);
        if beyond > 0 {
            let why = format!("{beyond} more entries cannot be read");
            report.defects.push(Error::damaged("read the entries", why).on(&name));
        }
        let there = there.unwrap_or_default();
        if outcome.lost == 0 && !there.is_empty() {
            compare_with_manifest(reader, &name, &there, report);
        }
        let (entries, bytes) = (there.count("all", "entries"), there.count("all", "bytes"));
        report.entries += entries;
        report.bytes += bytes;
        report.components.push(VerifiedComponent { name, entries, bytes, sound: true });
    }
    Ok(())
}

/// What a reading is compared with. The manifest also holds what only the store itself can count; that is compared as far as the archive
/// says it again.
pub(crate) fn expected_of_reading(proof: &Proof, there: &Proof) -> Proof {
    let mut expected = Proof::new();
    for (s, m, fact) in proof.iter() {
        if s == "all" && matches!(m, "entries" | "bytes" | "digest") || there.get(s, m).is_some() {
            expected.insert(s, m, fact.clone());
        }
    }
    expected
}

fn compare_with_manifest(
    reader: &Arc<dyn BackupReader>,
    name: &str,
    there: &Proof,
    report: &mut VerifyReport,
) {
    let Some(component) = reader.manifest().component(name) else { return };
    let expected = expected_of_reading(&component.proof, there);
    for difference in compare(&expected, there, &|_, _| false) {
        report.defects.push(Error::damaged("compare it with the manifest", difference).on(name));
    }
}

/// A sink which reads everything, keeps nothing and counts what it read.
#[derive(Debug, Default)]
pub struct DigestSink(Mutex<Tally>);

impl DigestSink {
    /// Nothing read yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

impl fmt::Display for DigestSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("digest")
    }
}

#[async_trait]
impl Sink for DigestSink {
    async fn put(&self, entry: Entry, content: Content) -> Result<Put> {
        let mut content = content.hashed(&entry);
        loop {
            match content.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(e) if e.kind() == ErrorKind::Cancelled => return Err(e),
                Err(e) => return Ok(Put::Discarded(e.to_string().into())),
            }
        }
        let digest = content.digest().unwrap_or_default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(&entry, content.delivered(), &digest);
        Ok(Put::Stored)
    }

    async fn finish(&self, _cx: &Context) -> Result<Proof> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).facts())
    }
}
