//! Trees of files to race on, made once and kept.

use crate::failure::{Doing, Failure, Result};
use crate::generate::{Generator, Kind, Random};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// Changes with everything that changes a tree.
const VERSION: u32 = 1;
const SEED: u64 = 20_250_717;

/// The file of 1 MB that is read alone out of the archive of `mixed`; incompressible, which is the harder case.
pub(crate) const LONE_FILE: &str = "reports/2024/quarter-3/one-megabyte.bin";
const LONE_SIZE: usize = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    /// 1 GB of text, source, JSON and incompressible files of 1 KB to 64 MB, with links.
    Mixed,
    /// 50,000 files of 200 B to 16 KB.
    Small,
    /// Ten times `mixed`, each of another seed.
    TenTimes,
}

impl Tree {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tree::Mixed => "mixed",
            Tree::Small => "small",
            Tree::TenTimes => "ten-times",
        }
    }

    /// Roughly, and at most, in bytes.
    pub(crate) fn bytes(self, scale: u64) -> u64 {
        match self {
            Tree::Mixed => 1_000_000_000 / scale + 2_000_000,
            Tree::Small => 50_000 * 8_192 / scale,
            Tree::TenTimes => 10 * Tree::Mixed.bytes(scale),
        }
    }
}

/// What is counted in a tree; equal for a tree and its restored copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) files: u64,
    pub(crate) folders: u64,
    pub(crate) symlinks: u64,
    pub(crate) bytes: u64,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    version: u32,
    seed: u64,
    scale: u64,
    facts: Facts,
}

/// The tree in the folder `data`, made if it is not there as it should be; 1/`scale` of its size.
pub(crate) fn ready(tree: Tree, data: &Path, scale: u64) -> Result<(PathBuf, Facts)> {
    let place = data.join(tree.name());
    let marker = data.join(format!("{}.tree.json", tree.name()));
    let known: Option<Marker> = fs::read(&marker).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(known) = &known {
        let facts = facts(&place).unwrap_or_default();
        if *known == (Marker { version: VERSION, seed: SEED, scale, facts }) {
            return Ok((place, facts));
        }
    } else if place.exists() {
        let why = format!("{} exists and was not made here: name another folder by --data", place.display());
        return Err(Failure::Usage(why));
    }
    eprintln!("making {}", place.display());
    if place.exists() {
        fs::remove_dir_all(&place).doing(place.display())?;
    }
    // The marker comes first: what is half made is known as ours and made anew.
    let mut note = Marker { version: VERSION, seed: SEED, scale, facts: Facts::default() };
    let write = |note: &Marker| -> Result<()> {
        fs::write(&marker, serde_json::to_vec(note).doing("write a marker")?).doing(marker.display())
    };
    fs::create_dir_all(data).doing(data.display())?;
    write(&note)?;
    make(tree, &place, scale)?;
    note.facts = facts(&place)?;
    write(&note)?;
    Ok((place, note.facts))
}

/// Counts what is below a folder.
pub(crate) fn facts(folder: &Path) -> Result<Facts> {
    let mut all = Facts::default();
    walk(folder, &mut |path, kind| {
        if kind.is_dir() {
            all.folders += 1;
        } else if kind.is_symlink() {
            all.symlinks += 1;
        } else {
            all.files += 1;
            all.bytes += fs::symlink_metadata(path).doing(path.display())?.len();
        }
        Ok(())
    })?;
    Ok(all)
}

/// Reads a file, or every file of a folder, so that the next run finds it in the page cache. Before every run: a machine may take
/// from the cache what was not used for a while, and then the first side of a round would read the disk for the others.
pub(crate) fn warm(place: &Path) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut read = |path: &Path| {
        let mut file = fs::File::open(path).doing(path.display())?;
        while file.read(&mut buffer).doing(path.display())? > 0 {}
        Ok(())
    };
    if place.is_file() {
        return read(place);
    }
    walk(place, &mut |path, kind| if kind.is_file() { read(path) } else { Ok(()) })
}

fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, fs::FileType) -> Result<()>) -> Result<()> {
    for entry in fs::read_dir(folder).doing(folder.display())? {
        let entry = entry.doing(folder.display())?;
        let (path, kind) = (entry.path(), entry.file_type().doing(folder.display())?);
        visit(&path, kind)?;
        if kind.is_dir() {
            walk(&path, visit)?;
        }
    }
    Ok(())
}

fn make(tree: Tree, place: &Path, scale: u64) -> Result<()> {
    let mut maker = Maker { generator: Generator::new(SEED), folders: HashSet::new() };
    match tree {
        Tree::Mixed => maker.mixed(place, SEED, scale),
        Tree::Small => maker.small(place, 50_000 / scale),
        Tree::TenTimes => {
            (0..10).try_for_each(|i| maker.mixed(&place.join(format!("part-{i}")), SEED + i, scale))
        }
    }
}

struct Maker {
    generator: Generator,
    folders: HashSet<PathBuf>,
}

impl Maker {
    fn write(&mut self, path: &Path, kind: Kind, size: u64, random: &mut Random) -> Result<()> {
        if let Some(folder) = path.parent().filter(|f| !self.folders.contains(*f)) {
            fs::create_dir_all(folder).doing(folder.display())?;
            self.folders.insert(folder.to_owned());
        }
        let size = usize::try_from(size).doing("a size")?;
        fs::write(path, self.generator.content(kind, size, random)).doing(path.display())
    }

    fn mixed(&mut self, place: &Path, seed: u64, scale: u64) -> Result<()> {
        // Kind, share of the bytes in percent, least and largest size.
        const PARTS: [(&str, Kind, u64, u64, u64); 4] = [
            ("documents", Kind::Text, 25, 1_000, 1_000_000),
            ("source", Kind::Source, 20, 1_000, 128_000),
            ("records", Kind::Json, 20, 2_000, 16_000_000),
            ("media", Kind::Random, 35, 16_000, 64_000_000),
        ];
        let mut random = Random::new(seed);
        let mut paths = Vec::new();
        for (name, kind, percent, least, most) in PARTS {
            let mut left = 10_000_000 * percent / scale;
            // The largest one there is, before chance decides.
            let mut size = most.min(left);
            while left > 0 {
                let path = place.join(name).join(nested(paths.len())).with_extension(kind.extension());
                self.write(&path, kind, size, &mut random)?;
                paths.push(path);
                left -= size;
                size = random.size(least, most).min(left);
            }
        }
        self.write(&place.join(LONE_FILE), Kind::Random, LONE_SIZE as u64, &mut random)?;
        let links = place.join("links");
        fs::create_dir_all(&links).doing(links.display())?;
        symlink("nowhere", links.join("dangling")).doing("make a symlink")?;
        symlink("../reports/2024", links.join("folder")).doing("make a symlink")?;
        for i in 0..16 {
            let path = &paths[random.below(paths.len())];
            fs::hard_link(path, links.join(format!("hard-{i}"))).doing("make a hard link")?;
            let from_here = Path::new("..").join(path.strip_prefix(place).doing("a path")?);
            symlink(from_here, links.join(format!("soft-{i}"))).doing("make a symlink")?;
        }
        Ok(())
    }

    fn small(&mut self, place: &Path, files: u64) -> Result<()> {
        const KINDS: [Kind; 10] = [
            Kind::Source,
            Kind::Source,
            Kind::Source,
            Kind::Source,
            Kind::Json,
            Kind::Json,
            Kind::Json,
            Kind::Text,
            Kind::Text,
            Kind::Random,
        ];
        let mut random = Random::new(SEED);
        for i in 0..files {
            let kind = KINDS[random.below(KINDS.len())];
            let name = format!("{:02}/{:02}/file-{i:05}.{}", i / 1000, i / 50 % 20, kind.extension());
            let size = random.size(200, 16_000);
            self.write(&place.join(name), kind, size, &mut random)?;
        }
        Ok(())
    }
}

/// A path two to five folders deep, about 40 files to a folder.
fn nested(i: usize) -> PathBuf {
    let folder = i / 40;
    let mut path = PathBuf::from(format!("{:02}", folder % 7));
    for level in 0..1 + folder % 4 {
        path.push(format!("level-{level}-{}", folder / 7 % 5));
    }
    path.join(format!("item-{i:05}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_made_once_kept_and_made_anew_when_it_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (place, facts) = ready(Tree::Mixed, dir.path(), 200).unwrap();
        assert!(facts.bytes > 5_000_000 && facts.bytes <= Tree::Mixed.bytes(200) + 30_000_000);
        assert_eq!(fs::metadata(place.join(LONE_FILE)).unwrap().len(), 1_000_000);
        assert_eq!(facts.symlinks, 18);

        fs::remove_file(place.join(LONE_FILE)).unwrap();
        assert_eq!(ready(Tree::Mixed, dir.path(), 200).unwrap().1, facts);
        assert!(place.join(LONE_FILE).exists());
    }

    #[test]
    fn a_folder_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("small")).unwrap();
        fs::write(dir.path().join("small/precious"), "x").unwrap();
        assert!(matches!(ready(Tree::Small, dir.path(), 500), Err(Failure::Usage(_))));
        assert!(dir.path().join("small/precious").exists());
    }

    #[test]
    fn small_files_are_many_and_small() {
        let dir = tempfile::tempdir().unwrap();
        let (_, facts) = ready(Tree::Small, dir.path(), 500).unwrap();
        assert_eq!(facts.files, 100);
        assert!(facts.bytes < Tree::Small.bytes(500));
    }
}
