//! An archive into a database that is not there.

use super::{Check, DATABASE, Ours, Report, Result, Sample, Store, TENTH, Track, compare, peak};
use crate::archive::turns;
use crate::failure::Failure;

/// Returns our peaks of memory: with all of the data, and with a tenth.
pub(super) fn race(
    track: &mut Track,
    store: &dyn Store,
    ours: &Ours,
    fingerprint: &str,
    report: &mut Report,
    checks: &mut Vec<Check>,
) -> Result<(u64, u64)> {
    let (rivals, work) = (store.restores(), track.work.clone());
    let times = || store.server().times();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); rivals.len() + 1];
    for round in 1..=track.rounds {
        for side in turns(round, samples.len()) {
            let rival = side.checked_sub(1).and_then(|i| rivals.get(i));
            let (name, job) = match rival {
                Some(rival) => (rival.name, rival.job(store, &work)),
                None => ("backup restore", ours.restore(track, DATABASE)),
            };
            store.drop_database(DATABASE)?;
            store.come_to_rest()?;
            samples[side].push(track.run_beside(&format!("restore, round {round}: {name}"), &job, &times)?);
            // Once for each side: what came back is what was there.
            if round == 1 && store.fingerprint(DATABASE)? != fingerprint {
                return Err(Failure::Failed(format!("{name}: what it restored is not what was backed up")));
            }
        }
    }
    let names = ["backup restore"].into_iter().chain(rivals.iter().map(|r| r.name));
    let sides: Vec<(&str, &[Sample])> = names.zip(samples.iter().map(Vec::as_slice)).collect();
    report.samples(&format!("{}: restore", store.title()), &sides, &vec![None; sides.len()]);
    compare(&format!("{}: restore", store.title()), store.limits()[1], rivals, &samples, checks);
    store.drop_database(TENTH)?;
    let job = ours.restore(track, TENTH);
    let tenth = track.run_beside("restore of a tenth: backup restore", &job, &times)?;
    Ok((peak(&samples[0]), tenth.peak_rss))
}
