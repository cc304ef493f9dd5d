//! What a target is told of a source before anything of it arrives.

use super::MemorySource;
use crate::{Must, conformance::pouring::back_up};
use backup_core::{
    Archive, Context, Error, ErrorKind, Incoming, MemoryArchive, Refusal, Result, Selection, Survey, Target,
};

/// As a plan has it from a backup of this source: its facts, and the entries of the stage `Prepare`. Its data is not poured for it.
pub async fn incoming(source: &MemorySource) -> Incoming {
    let (archive, cx) = (MemoryArchive::new(), Context::default());
    let summary = back_up(&archive, &source.prepare_only(), &cx).await.must("back up what comes first");
    let reader = archive.open(&summary.id, &cx).await.must("open the backup");
    Incoming::new(reader, source.name(), Selection::All).must("the component")
}

/// Surveys as a plan does; a refusal that is not accepted is an error, as it is when the plan is applied.
pub async fn surveyed(
    target: &mut dyn Target,
    source: &MemorySource,
    accept: &[&str],
    cx: &Context,
) -> Result<Survey> {
    let accept: Vec<String> = accept.iter().map(|name| (*name).to_owned()).collect();
    let survey = target.survey(&incoming(source).await.accepting(&accept), cx).await?;
    let counts = |r: &&Refusal| r.accept.as_ref().is_none_or(|name| !accept.contains(name));
    let refused: Vec<&str> = survey.refusals.iter().filter(counts).map(|r| r.why.as_str()).collect();
    match refused.is_empty() {
        true => Ok(survey),
        false => Err(Error::new(ErrorKind::Refused, "restore", refused.join("; ")).on(survey.place)),
    }
}
