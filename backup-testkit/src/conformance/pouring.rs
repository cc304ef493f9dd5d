//! The one data path in its smallest form, so that the suites depend on no pipeline.

use crate::{
    Must,
    make::header,
    memory::{Contents, ContentsSink, MemorySource, differences},
};
use backup_core::{
    Archive, BackupHeader, BackupReader, BackupSummary, BackupWriter, Conclusion, Context, Error, ErrorKind,
    Facts, Ledger, Poured, Proof, Result, Selection, Sink, Source, State,
};
use std::sync::Arc;

/// Connects, fixes, pours behind a ledger, finishes.
pub async fn pour(source: &dyn Source, component: &str, sink: Arc<dyn Sink>, cx: &Context) -> Result<Poured> {
    let ledger = Ledger::new(sink, component, cx);
    let ready = source.connect(cx).await?;
    let stillness = Some(ready.stillness());
    let view = ready.fix(cx).await?;
    let moment = view.moment();
    let mut proof = view.pour(ledger.clone(), cx).await?;
    proof.add_missing(ledger.finish(cx).await?);
    let lost = ledger.settle_losses();
    Ok(Poured {
        component: component.to_owned(),
        moment,
        proof,
        lost,
        kept: ledger.kept(),
        differences: Vec::new(),
        stillness,
    })
}

/// The conclusion of these pours: partial if anything was lost.
pub fn conclusion(poured: Vec<Poured>, cx: &Context) -> Conclusion {
    let partial = poured.iter().any(|p| p.lost > 0);
    let state = if partial { State::Partial } else { State::Complete };
    Conclusion {
        poured,
        notes: cx.notes(),
        state,
        not_included: Vec::new(),
        finished: jiff::Timestamp::now(),
    }
}

/// Pours all sources side by side into the components of their names; every pour is awaited.
pub async fn pour_all(
    writer: &dyn BackupWriter,
    sources: &[(String, Arc<dyn Source>)],
    cx: &Context,
) -> Result<Vec<Poured>> {
    let mut tasks = Vec::new();
    for (name, source) in sources {
        let (name, source, sink, cx) = (name.clone(), source.clone(), writer.component(name)?, cx.clone());
        tasks.push(tokio::spawn(async move { pour(&*source, &name, sink, &cx).await }));
    }
    let mut poured = Vec::new();
    let mut first = None;
    for task in tasks {
        match task.await {
            Ok(Ok(p)) => poured.push(p),
            Ok(Err(e)) => drop(first.get_or_insert(e)),
            Err(e) => drop(first.get_or_insert(Error::new(ErrorKind::Panicked, "pour", e))),
        }
    }
    first.map_or(Ok(poured), Err)
}

/// A whole backup; what fails is aborted.
pub async fn back_up_all(
    archive: &dyn Archive,
    header: BackupHeader,
    sources: &[(String, Arc<dyn Source>)],
    cx: &Context,
) -> Result<BackupSummary> {
    let writer = archive.begin(header, cx).await?;
    match pour_all(&*writer, sources, cx).await {
        Ok(poured) => writer.commit(conclusion(poured, cx), cx).await,
        Err(e) => {
            writer.abort(&cx.calm()).await?;
            Err(e)
        }
    }
}

/// A backup of one source in memory, in the series `s`.
pub async fn back_up(archive: &dyn Archive, source: &MemorySource, cx: &Context) -> Result<BackupSummary> {
    let sources = [(source.name().to_owned(), Arc::new(source.clone()) as Arc<dyn Source>)];
    back_up_all(archive, header("s", &[source.name()]), &sources, cx).await
}

/// What a reader gave.
pub struct ReadBack {
    /// Entries with their contents.
    pub contents: Contents,
    /// What the reader expects of a restore of this selection.
    pub facts: Facts,
    /// What the sink counted.
    pub proof: Proof,
    /// Entries whose content failed.
    pub lost: u64,
}

/// Pours a component of a backup into memory, through what `wrap` puts before it.
pub async fn read_back(
    reader: &Arc<dyn BackupReader>,
    component: &str,
    selection: Selection,
    wrap: impl Fn(Arc<dyn Sink>) -> Arc<dyn Sink>,
    cx: &Context,
) -> Result<ReadBack> {
    let sink = ContentsSink::new();
    let ledger = Ledger::new(wrap(Arc::new(sink.clone())), component, cx);
    let source = reader.component(component, selection)?;
    let facts = source.connect(cx).await?.fix(cx).await?.pour(ledger.clone(), cx).await?;
    let proof = ledger.finish(cx).await?;
    Ok(ReadBack { contents: sink.take(), facts, proof, lost: ledger.settle_losses() })
}

/// Reads all of a component and asserts that it is what the source holds, by the facts too.
pub async fn assert_reads_back(
    archive: &dyn Archive,
    summary: &BackupSummary,
    source: &MemorySource,
    cx: &Context,
) {
    let reader = archive.open(&summary.id, cx).await.must("open the backup");
    let read =
        read_back(&reader, source.name(), Selection::All, |sink| sink, cx).await.must("pour the backup");
    assert_eq!(read.lost, 0, "entries were lost when reading: {:?}", cx.notes());
    assert_same(&source.contents().await, &read.contents);
    let differences = backup_core::compare(&read.facts, &read.proof, &|_, _| false);
    assert!(differences.is_empty(), "the reader's facts and what was counted differ: {differences:?}");
}

/// Asserts that two stores are equal; names the first differences.
#[track_caller]
pub fn assert_same(expected: &Contents, found: &Contents) {
    let all = differences(expected, found);
    let shown: Vec<_> = all.iter().take(8).collect();
    assert!(all.is_empty(), "{} differences: {shown:#?}", all.len());
}
