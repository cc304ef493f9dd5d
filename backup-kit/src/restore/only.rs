//! What of a backup is restored: components, and globs inside them.

use backup_core::{
    BackupReader, Context, Error, ErrorKind, Manifest, Parts, Result, Selection, path_from_display,
};
use futures::StreamExt;
use globset::{GlobBuilder, GlobMatcher};
use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// A component, or what matches a glob inside it: `objects`, `objects/2025/*.jpg`. `*` does not cross a `/`, `**` does;
/// what matches as a folder comes with all that is in it. Where the backup has an entry of exactly this path, one that is listed so
/// (`display_path`), or a table, schema or database of this name, it is that one and no glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Only {
    component: String,
    glob: Option<String>,
}

impl Only {
    /// All of a component.
    pub fn component(name: impl Into<String>) -> Self {
        Only { component: name.into(), glob: None }
    }

    /// What matches inside a component.
    pub fn matching(component: impl Into<String>, glob: impl Into<String>) -> Self {
        Only { component: component.into(), glob: Some(glob.into()) }
    }

    /// The component that it is of.
    pub fn of(&self) -> &str {
        &self.component
    }
}

impl FromStr for Only {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (component, glob) = match text.split_once('/') {
            Some((component, glob)) => (component, Some(glob.trim_end_matches('/'))),
            None => (text, None),
        };
        let only =
            Only { component: component.to_owned(), glob: glob.filter(|g| !g.is_empty()).map(str::to_owned) };
        if component.is_empty() {
            return Err(usage("it must be COMPONENT or COMPONENT/GLOB").on(format!("{text:?}")));
        }
        Ok(only)
    }
}

impl fmt::Display for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.glob {
            Some(glob) => write!(f, "{}/{glob}", self.component),
            None => f.write_str(&self.component),
        }
    }
}

/// What is restored of one backup, and which of the globs have matched anything.
pub(super) struct Selections {
    list: Vec<Chosen>,
}

struct Chosen {
    only: Only,
    inside: Option<Inside>,
    matched: Arc<AtomicBool>,
}

/// What inside a component.
#[derive(Clone)]
enum Inside {
    Glob(GlobMatcher),
    /// An entry, with what is in it.
    Path(Vec<u8>),
}

impl Inside {
    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Inside::Glob(glob) => matches(glob, path),
            Inside::Path(exactly) => exactly == path,
        }
    }
}

impl Selections {
    /// Reads the index if there are globs: of one that is the path of an entry, or one as it is listed, that entry is meant.
    pub(super) async fn of(
        only: &[Only],
        reader: &dyn BackupReader,
        parts: impl Fn(&str) -> Option<Parts> + Sync,
        cx: &Context,
    ) -> Result<Self> {
        let manifest = reader.manifest();
        if let Some(unknown) = only.iter().find(|only| manifest.component(&only.component).is_none()) {
            let known: Vec<&str> = manifest.components.iter().map(|c| c.header.name.as_str()).collect();
            let message = "the backup has no such component";
            let e = Error::new(ErrorKind::NotFound, "select what to restore", message);
            return Err(e.on(&unknown.component).hint(format!("it has: {}", known.join(", "))));
        }
        let exact = exact(only, reader, &parts, cx).await?;
        let list = only.iter().zip(exact).map(|(only, exact)| {
            let inside = match (&only.glob, exact) {
                (None, _) => None,
                (Some(_), Some(path)) => Some(Inside::Path(path)),
                (Some(text), None) => {
                    let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
                    let glob = glob.map_err(|e| usage(e.kind()).on(only))?;
                    Some(Inside::Glob(glob.compile_matcher()))
                }
            };
            Ok(Chosen { only: only.clone(), inside, matched: Arc::default() })
        });
        Ok(Selections { list: list.collect::<Result<_>>()? })
    }

    pub(super) fn has(&self, component: &str) -> bool {
        self.list.is_empty() || self.list.iter().any(|c| c.only.component == component)
    }

    pub(super) fn count(&self, manifest: &Manifest) -> usize {
        manifest.components.iter().filter(|c| self.has(&c.header.name)).count()
    }

    pub(super) fn selection(&self, component: &str) -> Selection {
        let of: Vec<&Chosen> = self.list.iter().filter(|c| c.only.component == component).collect();
        if of.iter().any(|c| c.inside.is_none()) || of.is_empty() {
            return Selection::All;
        }
        let parts: Vec<(Inside, Arc<AtomicBool>)> =
            of.iter().filter_map(|c| Some((c.inside.clone()?, c.matched.clone()))).collect();
        Selection::Matching(Arc::new(move |path| {
            let mut any = false;
            for (inside, matched) in &parts {
                if inside.matches(path) {
                    matched.store(true, Relaxed);
                    any = true;
                }
            }
            any
        }))
    }

    /// A glob that matches nothing is a mistake, not an empty restore. Known once the plan has gone through the index.
    pub(super) fn all_matched(&self) -> Result<()> {
        for chosen in &self.list {
            let whole =
                self.list.iter().any(|c| c.only.component == chosen.only.component && c.inside.is_none());
            if !whole && !chosen.matched.load(Relaxed) {
                let e = Error::new(
                    ErrorKind::NotFound,
                    "select what to restore",
                    "nothing in the backup matches",
                );
                return Err(e.on(&chosen.only).hint("`backup ls ID` lists what is in it"));
            }
        }
        Ok(())
    }
}

/// What is selected, less what `schema_only` leaves out, and with what the store needs for any part.
pub(super) fn completed(selection: Selection, parts: Option<Parts>, schema_only: bool) -> Selection {
    let Some(parts) = parts.filter(|_| schema_only || !selection.is_all()) else { return selection };
    Selection::Exactly(Arc::new(move |path| {
        let covered = covers(&selection, Some(parts), path);
        covered && !(schema_only && (parts.is_data)(path)) || (parts.goes_along)(path)
    }))
}

/// Whether it is selected by a name: its own, as it stands or as people write it, or that of a whole it belongs to.
fn covers(selection: &Selection, parts: Option<Parts>, path: &[u8]) -> bool {
    let Some(parts) = parts else { return selection.covers(path) };
    // Asked of every path: it keeps what has matched.
    let named =
        |path: &[u8]| selection.covers(path) | plain(path).is_some_and(|plain| selection.covers(&plain));
    named(path) | (parts.whole)(path).is_some_and(named)
}

/// A path with the names as people write them; `None`: it is written so. What would be read as a part of a path, or as another name, stays.
fn plain(path: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        let decoded = after.first_chunk::<2>().filter(|_| *first == b'%');
        let decoded =
            decoded.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match decoded.filter(|b| !b"%./".contains(b)) {
            Some(b) => {
                out.push(b);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    (out != path).then_some(out)
}

/// Of each text the entry that is called exactly so, or the folder or whole that entries are in, if there is one; first the one that is
/// listed so.
async fn exact(
    only: &[Only],
    reader: &dyn BackupReader,
    parts: &(dyn Fn(&str) -> Option<Parts> + Sync),
    cx: &Context,
) -> Result<Vec<Option<Vec<u8>>>> {
    // What is no glob matches nothing but itself.
    let is_special = |b: &u8| b"*?[]{}\\".contains(b);
    let mut texts: Vec<Text<'_>> = Vec::new();
    for (i, only) in only.iter().enumerate() {
        if let Some(text) = only.glob.as_ref().filter(|g| g.as_bytes().iter().any(is_special)) {
            let names = path_from_display(text.as_bytes()).into_iter().chain([text.clone().into_bytes()]);
            texts.extend(names.map(|name| {
                let wanted = name.clone();
                let selection = Selection::Matching(Arc::new(move |path| path == wanted));
                let component = only.component.as_str();
                Text { of: i, component, parts: parts(component), name, selection, is_there: false }
            }));
        }
    }
    let mut found = vec![None; only.len()];
    if texts.is_empty() {
        return Ok(found);
    }
    let mut entries = reader.entries();
    while let Some(listed) = entries.next().await {
        let listed = listed?;
        if cx.cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        for text in texts.iter_mut().filter(|text| listed.component == text.component) {
            text.is_there = text.is_there || covers(&text.selection, text.parts, &listed.entry.path);
        }
    }
    for text in texts.into_iter().filter(|text| text.is_there) {
        found[text.of].get_or_insert(text.name);
    }
    Ok(found)
}

/// What may be a name and no glob.
struct Text<'a> {
    /// Which of the list it is.
    of: usize,
    component: &'a str,
    parts: Option<Parts>,
    name: Vec<u8>,
    /// What is called so.
    selection: Selection,
    is_there: bool,
}

#[cfg(unix)]
fn matches(glob: &GlobMatcher, path: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt;
    glob.is_match(std::ffi::OsStr::from_bytes(path))
}

#[cfg(not(unix))]
fn matches(glob: &GlobMatcher, path: &[u8]) -> bool {
    glob.is_match(String::from_utf8_lossy(path).as_ref())
}

fn usage(message: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Usage, "select what to restore", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    type PathGlob = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

    #[test]
    fn a_component_and_a_glob_are_parted_at_the_first_slash() {
        assert_eq!("db".parse::<Only>().unwrap(), Only::component("db"));
        assert_eq!("db/".parse::<Only>().unwrap(), Only::component("db"));
        assert_eq!("files/a/*.txt".parse::<Only>().unwrap(), Only::matching("files", "a/*.txt"));
        assert!("/a".parse::<Only>().is_err());
    }

    #[test]
    fn definitions_alone_leave_data_out_and_what_a_part_needs_goes_along() {
        let parts = Parts {
            is_data: |path| path.ends_with(b".rows"),
            goes_along: |path| path == b"schema",
            whole: |path| path.strip_suffix(b".t/a.rows"),
        };
        let all = completed(Selection::All, Some(parts), false);
        assert!(all.is_all());
        let definitions = completed(Selection::All, Some(parts), true);
        assert!(definitions.covers(b"t/keys") && !definitions.covers(b"t/a.rows") && !definitions.is_all());
        let table: PathGlob = Arc::new(|path: &[u8]| path == b"t");
        let part = completed(Selection::Matching(table.clone()), Some(parts), false);
        assert!(part.covers(b"t/a.rows") && part.covers(b"schema") && !part.covers(b"u/a.rows"));
        let both = completed(Selection::Matching(table.clone()), Some(parts), true);
        assert!(both.covers(b"t/keys") && both.covers(b"schema") && !both.covers(b"t/a.rows"));
        assert!(!completed(Selection::Matching(table), None, true).covers(b"schema"));
        // A whole by its name, and a name as it is written elsewhere.
        let named = |name: &'static str| {
            let named: PathGlob = Arc::new(move |path: &[u8]| path == name.as_bytes());
            completed(Selection::Matching(named), Some(parts), false)
        };
        assert!(named("app").covers(b"app.t/a.rows") && named("app").covers(b"app/x"));
        assert!(!named("app").covers(b"apple.t/a.rows"));
        assert!(named("s.a b").covers(b"s.a%20b/a.rows") && named("s.a%20b").covers(b"s.a%20b/a.rows"));
        for (name, path) in [("s.a", "s.a%2Fb/a.rows"), ("s.a%20b", "s.a%2520b/a.rows"), ("s.a.b", "s.a%2Eb")]
        {
            assert!(!named(name).covers(path.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_star_does_not_cross_a_slash_and_a_folder_brings_its_content() {
        let only = |glob: &str| {
            let built = GlobBuilder::new(glob).literal_separator(true).build().unwrap();
            let chosen = Chosen {
                only: Only::matching("c", glob),
                inside: Some(Inside::Glob(built.compile_matcher())),
                matched: Arc::default(),
            };
            Selections { list: vec![chosen] }
        };
        let s = only("*.txt");
        assert!(s.selection("c").covers(b"a.txt") && !s.selection("c").covers(b"d/a.txt"));
        assert!(only("**/*.txt").selection("c").covers(b"d/e/a.txt"));
        assert!(only("d").selection("c").covers(b"d/e/a.txt"));
        assert!(only("\u{fffd}*").all_matched().is_err());
        s.all_matched().unwrap();
    }
}
