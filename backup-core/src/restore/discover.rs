//! What restores have left on disk, found in the state folder and beside restored data.

use super::{
    blocking,
    document::{self, Document, Found, JOURNAL, Pointer},
    files::{self, temporary},
    journal,
    recover::Healed,
    trust,
};
use crate::{Error, ErrorKind, Result};
use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// An empty home whose run is not known may be one that a live run has just made.
const EMPTY_HOME_IS_LEFT_ALONE: Duration = Duration::from_secs(60);

/// What restores have left on disk.
pub(super) enum Trace {
    /// A journal.
    Journal(Box<Document>, PathBuf),
    /// A pointer to a journal that was not written yet, or is removed already.
    Nothing(Pointer, PathBuf),
    /// A pointer to a journal that cannot be read, and why.
    Lost(Pointer, PathBuf, Error),
    /// A home in which there is nothing, of a run that is not known.
    EmptyHome(PathBuf),
    /// A lock or temporary file without a journal.
    Stray(PathBuf),
    /// Something that cannot be understood.
    Bad(PathBuf, Error),
    /// Something that others may have written.
    NotOurs(PathBuf, Error),
}

impl Trace {
    pub(super) fn place(&self) -> &Path {
        match self {
            Trace::Journal(_, p)
            | Trace::Nothing(_, p)
            | Trace::Lost(_, p, _)
            | Trace::EmptyHome(p)
            | Trace::Stray(p)
            | Trace::Bad(p, _)
            | Trace::NotOurs(p, _) => p,
        }
    }

    /// The restore that left it, as far as that is known.
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Trace::Journal(document, _) => Some(document.id.as_str()),
            Trace::Nothing(pointer, _) | Trace::Lost(pointer, ..) => Some(pointer.id.as_str()),
            Trace::Bad(path, _) if path.extension() == Some(OsStr::new("json")) => path.file_stem()?.to_str(),
            _ => None,
        }
    }

    /// Folders beside data that it names.
    pub(super) fn homes(&self) -> &[PathBuf] {
        match self {
            Trace::Journal(document, _) => &document.homes,
            Trace::Nothing(pointer, _) | Trace::Lost(pointer, ..) => &pointer.homes,
            _ => &[],
        }
    }

    /// Something of which no more is known than that it is in the way of being understood.
    fn unclear(path: PathBuf, e: Error) -> Self {
        if e.kind() == ErrorKind::Denied {
            return Trace::NotOurs(path, e);
        }
        let named = path.extension() == Some(OsStr::new("json"));
        let id = path.file_stem().filter(|_| named).map(|id| id.display().to_string());
        let e = match id {
            Some(id) => with_way_out(e, &id),
            None => e,
        };
        Trace::Bad(path, e)
    }
}

/// All that is in the state folder, and in these homes.
pub(super) fn discover(state_dir: &Path, homes: &[PathBuf]) -> Result<Vec<Trace>> {
    let mut traces = Vec::new();
    for path in list(&state_dir.join("restores"))? {
        match path.extension().and_then(OsStr::to_str) {
            Some("json") => traces.push(follow(&path).unwrap_or_else(|e| Trace::unclear(path, e))),
            Some("lock") if !path.with_extension("json").exists() => {
                traces.push(match trust::open(&path) {
                    Ok(_) => Trace::Stray(path),
                    Err(e) => Trace::unclear(path, e),
                });
            }
            _ => {}
        }
    }
    for home in homes {
        if home.symlink_metadata().is_ok() && !traces.iter().any(|t| t.concerns(home)) {
            traces.push(look_into(home).unwrap_or_else(|e| Trace::unclear(home.clone(), e)));
        }
    }
    let mut seen = HashSet::new();
    traces.retain(|t| match t {
        Trace::Journal(..) | Trace::Lost(..) => t.id().is_none_or(|id| seen.insert(id.to_owned())),
        _ => true,
    });
    Ok(traces)
}

impl Trace {
    /// Whether it will take care of this home.
    fn concerns(&self, home: &Path) -> bool {
        match self {
            Trace::Nothing(pointer, _) => pointer.homes.iter().any(|h| h == home),
            _ => false,
        }
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(ErrorKind::Source, "look for restores", e).on(folder.display());
    match fs::read_dir(folder) {
        Ok(entries) => {
            let mut paths =
                entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>().map_err(failed)?;
            paths.sort();
            Ok(paths)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

fn with_way_out(e: Error, id: &str) -> Error {
    let given_up = format!("if it cannot be had again: `backup heal --forget {id}`");
    match e.hint_text().map(|hint| format!("{hint}; {given_up}")) {
        Some(both) => e.hint(both),
        None => e.hint(given_up),
    }
}

/// From a file to the journal.
fn follow(path: &Path) -> Result<Trace> {
    let pointer = match document::read(path)? {
        None => return Ok(Trace::Stray(path.to_owned())),
        Some(Found::Journal(document)) => return Ok(Trace::Journal(document, path.to_owned())),
        Some(Found::Pointer(pointer)) => pointer,
    };
    let e = match document::read(&pointer.journal) {
        Ok(Some(Found::Journal(document))) if document.id == pointer.id => {
            return Ok(Trace::Journal(document, pointer.journal));
        }
        Ok(_) if !pointer.live => return Ok(Trace::Nothing(pointer, path.to_owned())),
        Ok(_) => {
            let message = format!("its journal {} is not there", pointer.journal.display());
            Error::new(ErrorKind::Target, "find a restore", message)
                .on(path.display())
                .hint("is its file system mounted? then `backup heal`")
        }
        Err(e) => e,
    };
    let e = with_way_out(e, pointer.id.as_str());
    Ok(Trace::Lost(pointer, path.to_owned(), e))
}

fn look_into(home: &Path) -> Result<Trace> {
    trust::folder(home)?;
    let path = home.join(JOURNAL);
    if path.symlink_metadata().is_ok() {
        return follow(&path);
    }
    let ours = temporary(&path);
    match list(home)?.iter().all(|p| *p == ours) {
        true => Ok(Trace::EmptyHome(home.to_owned())),
        false => Err(journal::no_journal(home)),
    }
}

/// Removes what is of no use to anybody.
pub(super) async fn clear(trace: Trace) -> Result<Option<Healed>> {
    blocking(move || match trace {
        Trace::Nothing(pointer, path) => {
            let in_a_home = pointer.homes.iter().any(|h| path.starts_with(h));
            // Its run may be about to write the journal.
            match files::lock_existing(&path.with_extension("lock"))? {
                files::Lock::Held => return Ok(None),
                _ if in_a_home => return Ok(None),
                _ => {}
            }
            journal::clear(&pointer, &path)?;
            Ok(Some(Healed::Cleared { trace: path }))
        }
        Trace::EmptyHome(home) => {
            let modified = fs::metadata(&home).and_then(|m| m.modified()).unwrap_or(SystemTime::now());
            if modified.elapsed().unwrap_or_default() < EMPTY_HOME_IS_LEFT_ALONE {
                return Ok(None);
            }
            files::remove(&home.join(JOURNAL))?;
            files::remove_dir(&home)?;
            Ok(Some(Healed::Cleared { trace: home }))
        }
        Trace::Stray(path) => {
            if matches!(files::lock_existing(&path)?, files::Lock::Held) {
                return Ok(None);
            }
            files::remove(&path.with_extension("json"))?;
            files::remove(&path)?;
            Ok(Some(Healed::Cleared { trace: path }))
        }
        Trace::Journal(..) | Trace::Lost(..) | Trace::Bad(..) | Trace::NotOurs(..) => Ok(None),
    })
    .await
}
