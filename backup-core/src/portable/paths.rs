//! Checks what the lines of the index say together: one live line for a path, stages in order, nothing below a link, no hard
//! link to nothing, and the sums that the manifest promises.

use super::{
    check::{Defects, alive},
    index::Line,
    reader::Inner,
};
use crate::{Context, Error, Kind, Result, Stage, Tally};
use futures::StreamExt;
use std::{
    collections::{HashSet, hash_map::RandomState},
    hash::{BuildHasher, Hasher},
    sync::Arc,
};

/// Hashes compared in one pass over the index: of paths, of folders above them, of files of hard links. Eight bytes each.
const HASHES_A_PASS: u64 = 8_000_000;

pub(super) async fn check(
    archive: &Arc<Inner>,
    work: Work,
    cx: &Context,
    defects: &mut Defects,
) -> Result<()> {
    let passes = work.hashes / HASHES_A_PASS + 1;
    for pass in 0..passes {
        let mut paths = Paths { pass, passes, ..Paths::default() };
        let mut sums = Sums::new(archive);
        let mut lines = std::pin::pin!(archive.lines());
        while let Some(line) = lines.next().await {
            alive(cx)?;
            let Ok(line) = line else { return Ok(()) }; // told already
            if line.discarded.is_some() {
                continue;
            }
            if pass == 0 && !sums.add(&line) {
                let e = Error::damaged("read the index", "its stages are not in order");
                defects.push(e.on(archive.display(&line)));
            }
            if !paths.add(&line) {
                let e = Error::damaged("read the index", "the path is there twice");
                defects.push(e.on(archive.display(&line)));
            }
        }
        if pass == 0 {
            sums.compare(archive, defects);
        }
        paths.tell(archive, cx, defects).await?;
    }
    Ok(())
}

/// What is added up over all lines.
struct Sums {
    stages: Vec<Stage>,
    tallies: Vec<Tally>,
}

impl Sums {
    fn new(archive: &Inner) -> Self {
        let components = archive.manifest.components.len();
        Sums { stages: vec![Stage::Prepare; components], tallies: vec![Tally::default(); components] }
    }

    /// `false` if its stage goes back.
    fn add(&mut self, line: &Line) -> bool {
        let of = line.component as usize;
        if let Some(tally) = self.tallies.get_mut(of) {
            tally.add(&line.entry, 0, &line.sha256.unwrap_or_default());
        }
        let Some(stage) = self.stages.get_mut(of) else { return true };
        let in_order = *stage <= line.entry.stage;
        *stage = (*stage).max(line.entry.stage);
        in_order
    }

    /// What the manifest promises of each component is what its lines add up to: nobody is promised less than is restored.
    fn compare(&self, archive: &Inner, defects: &mut Defects) {
        for (component, tally) in archive.manifest.components.iter().zip(&self.tallies) {
            for (subject, measure, found) in tally.facts().iter() {
                if component.proof.get(subject, measure) != Some(found) {
                    let text = format!("{measure}: the manifest and the index do not say the same");
                    let e = Error::damaged("compare the index with the manifest", text);
                    defects.push(e.on(&component.header.name));
                }
            }
        }
    }
}

/// What is known of a path, in the two lowest bits of its hash.
const FILE: u64 = 0;
const DIRECTORY: u64 = 1;
const OTHER: u64 = 2;
const ALL: u64 = 3;

/// Hashes of the paths of one pass. Two paths of one hash would be a false alarm: once in many thousand archives of a billion files.
#[derive(Default)]
struct Paths {
    pass: u64,
    passes: u64,
    hasher: RandomState,
    seen: HashSet<u64>,
    above: HashSet<u64>,
    targets: HashSet<u64>,
    neighbours: Neighbours,
}

impl Paths {
    /// Whether a hash is looked at in this pass.
    fn is_ours(&self, hash: u64) -> bool {
        (hash >> 2) % self.passes == self.pass
    }

    /// `false` if the path was there already.
    fn add(&mut self, line: &Line) -> bool {
        let entry = &line.entry;
        let mut hashes = prefixes(&self.hasher, line.component, &entry.path);
        let own = hashes.pop().unwrap_or_default();
        if self.neighbours.is_new_folder(line) {
            hashes.retain(|hash| self.is_ours(*hash));
            self.above.extend(hashes);
        }
        if let (Kind::HardLink, Some(target)) = (entry.kind, &entry.link) {
            let hash = prefixes(&self.hasher, line.component, target).pop().unwrap_or_default();
            self.targets.extend(self.is_ours(hash).then_some(hash));
        }
        if !self.is_ours(own) {
            return true;
        }
        let known = match entry.kind {
            Kind::File => FILE,
            Kind::Directory => DIRECTORY,
            _ => OTHER,
        };
        let new = (0..ALL).all(|known| !self.seen.contains(&(own | known)));
        self.seen.insert(own | known);
        new
    }

    /// Reads the index again for the names of what is wrong, if anything is.
    async fn tell(mut self, archive: &Arc<Inner>, cx: &Context, defects: &mut Defects) -> Result<()> {
        let seen = std::mem::take(&mut self.seen);
        self.above.retain(|hash| seen.contains(&(hash | OTHER)));
        self.targets.retain(|hash| !seen.contains(&(hash | FILE)) && !seen.contains(&(hash | OTHER)));
        drop(seen);
        if self.above.is_empty() && self.targets.is_empty() {
            return Ok(());
        }
        let mut lines = std::pin::pin!(archive.lines());
        while let Some(line) = lines.next().await {
            alive(cx)?;
            let Ok(line) = line else { return Ok(()) };
            if line.discarded.is_some() {
                continue;
            }
            let mut above = prefixes(&self.hasher, line.component, &line.entry.path);
            above.pop();
            if above.iter().any(|hash| self.above.contains(hash)) {
                let e = Error::damaged("read the index", "it lies below a link or a special file");
                defects.push(e.on(archive.display(&line)));
            }
            // Where entries were lost, the file of a hard link may be one of them.
            let component = archive.manifest.components.get(line.component as usize);
            if line.entry.kind == Kind::HardLink
                && component.is_some_and(|c| c.lost == 0)
                && prefixes(&self.hasher, line.component, line.entry.link.as_deref().unwrap_or_default())
                    .pop()
                    .is_some_and(|hash| self.targets.contains(&hash))
            {
                let e = Error::damaged("read the index", "the file of this hard link is not in the backup");
                defects.push(e.on(archive.display(&line)));
            }
        }
        Ok(())
    }
}

/// Hashes of the component, of every folder above the path, and of the path. One pass over it, however deep it is.
fn prefixes(hasher: &RandomState, component: u32, path: &[u8]) -> Vec<u64> {
    let mut state = hasher.build_hasher();
    state.write_u32(component);
    let mut hashes = vec![state.finish() & !ALL];
    let mut from = 0;
    while from < path.len() {
        let to = path.iter().skip(from + 1).position(|b| *b == b'/').map_or(path.len(), |n| from + 1 + n);
        state.write(&path[from..to]);
        hashes.push(state.finish() & !ALL);
        from = to;
    }
    hashes
}

/// Neighbours in the index mostly share the folders that they lie in: those are looked at once.
#[derive(Default)]
struct Neighbours(Option<(u32, Vec<u8>)>);

impl Neighbours {
    fn is_new_folder(&mut self, line: &Line) -> bool {
        let path = &line.entry.path;
        if path.is_empty() {
            return false; // it lies in nothing
        }
        let folder = &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)];
        if self.0.as_ref().is_some_and(|(c, f)| *c == line.component && f == folder) {
            return false;
        }
        self.0 = Some((line.component, folder.to_vec()));
        true
    }
}

/// How many hashes the check of all lines will hold.
#[derive(Default)]
pub(super) struct Work {
    hashes: u64,
    neighbours: Neighbours,
}

impl Work {
    pub(super) fn add(&mut self, line: &Line) {
        self.hashes += 2;
        if self.neighbours.is_new_folder(line) {
            self.hashes += line.entry.path.iter().filter(|b| **b == b'/').count() as u64;
        }
    }
}
