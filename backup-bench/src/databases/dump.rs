//! A database into an archive.

use super::{Check, DATABASE, Ours, Report, Result, Sample, Store, TENTH, Track, compare, peak};
use crate::archive::{remove, turns};
use crate::failure::Doing;
use std::path::Path;

/// Returns our peaks of memory: with all of the data, and with a tenth.
pub(super) fn race(
    track: &mut Track,
    store: &dyn Store,
    ours: &Ours,
    report: &mut Report,
    checks: &mut Vec<Check>,
) -> Result<(u64, u64)> {
    let (rivals, work) = (store.dumps(), track.work.clone());
    let times = || store.server().times();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); rivals.len() + 1];
    for round in 1..=track.rounds {
        for side in turns(round, samples.len()) {
            let rival = side.checked_sub(1).and_then(|i| rivals.get(i));
            let (name, output, job) = match rival {
                Some(rival) => (rival.name, work.join(rival.file), rival.job(store, &work)),
                None => ("backup create", ours.archive(DATABASE), ours.create(track, DATABASE)),
            };
            remove(&output)?;
            store.come_to_rest()?;
            samples[side].push(track.run_beside(&format!("dump, round {round}: {name}"), &job, &times)?);
        }
    }
    let sizes = [ours.archive(DATABASE)].into_iter().chain(rivals.iter().map(|r| work.join(r.file)));
    let sizes = sizes.map(|file| Ok(Some(size(&file)?))).collect::<Result<Vec<_>>>()?;
    let names = ["backup create"].into_iter().chain(rivals.iter().map(|r| r.name));
    let sides: Vec<(&str, &[Sample])> = names.zip(samples.iter().map(Vec::as_slice)).collect();
    report.samples(&format!("{}: dump", store.title()), &sides, &sizes);
    compare(&format!("{}: dump", store.title()), store.limits()[0], rivals, &samples, checks);
    let job = ours.create(track, TENTH);
    let tenth = track.run_beside("dump of a tenth: backup create", &job, &times)?;
    Ok((peak(&samples[0]), tenth.peak_rss))
}

fn size(path: &Path) -> Result<u64> {
    let meta = std::fs::metadata(path).doing(path.display())?;
    if !meta.is_dir() {
        return Ok(meta.len());
    }
    let files = std::fs::read_dir(path).doing(path.display())?;
    files.map(|file| size(&file.doing(path.display())?.path())).sum()
}
