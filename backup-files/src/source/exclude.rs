//! What is left out: patterns, caches, other file systems, and what backups themselves leave beside the data.

use crate::{
    config::FilesConfig,
    system::{path_from_bytes, path_to_bytes},
};
use backup_core::{Error, ErrorKind, Result};
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::{borrow::Cow, collections::HashSet, path::Path};

/// <https://bford.info/cachedir/>
pub(crate) const CACHE_TAG: &[u8] = b"CACHEDIR.TAG";
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// The rules of one source.
pub(crate) struct Exclude {
    patterns: Option<Gitignore>,
    /// The patterns as they were asked for, for people.
    asked: Vec<String>,
    paths: HashSet<Vec<u8>>,
    pub(crate) caches: bool,
    pub(crate) one_file_system: bool,
}

/// Why something is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excluded {
    /// The user asked for it.
    Asked,
    /// The journal, shadow or previous data of a restore, or an archive that is being written.
    Ours,
}

impl Exclude {
    /// `root` is the canonical path of the source.
    pub(crate) fn new(config: &FilesConfig, root: &Path) -> Result<Self> {
        let wrong = |e: ignore::Error, what: String| {
            Error::new(ErrorKind::Usage, "read the exclude patterns", e).on(what)
        };
        let mut builder = GitignoreBuilder::new("");
        // git takes `[a` for a pattern that matches nothing: what was to be left out would be stored.
        builder.allow_unclosed_class(false);
        let mut add = |pattern: &str, what: &dyn Fn() -> String| {
            let pattern = relative(pattern, [config.path.as_path(), root]).map_err(|e| e.on(what()))?;
            builder.add_line(None, &pattern).map(|_| ()).map_err(|e| wrong(e, what()))
        };
        for pattern in &config.exclude {
            add(pattern, &|| pattern.clone())?;
        }
        for file in &config.exclude_files {
            // A file that cannot be read must not mean that nothing is left out; nor a pattern that is wrong.
            let text = std::fs::read_to_string(file).map_err(|e| {
                Error::io(ErrorKind::Usage, "read the exclude patterns", e).on(file.display())
            })?;
            for (i, pattern) in text.trim_start_matches('\u{feff}').lines().enumerate() {
                add(pattern, &|| format!("{}:{}: {pattern}", file.display(), i + 1))?;
            }
        }
        let patterns = builder.build().map_err(|e| wrong(e, root.display().to_string()))?;
        let mut paths = HashSet::new();
        for path in &config.exclude_paths {
            let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            if let Ok(inside) = path.strip_prefix(root)
                && !inside.as_os_str().is_empty()
            {
                paths.insert(path_to_bytes(inside));
            }
        }
        let files = config.exclude_files.iter().map(|file| format!("patterns of {}", file.display()));
        Ok(Exclude {
            patterns: (!patterns.is_empty()).then_some(patterns),
            asked: config.exclude.iter().cloned().chain(files).collect(),
            paths,
            caches: config.exclude_caches,
            one_file_system: config.one_file_system,
        })
    }

    /// Whether anything is left out by a pattern.
    pub(crate) fn has_patterns(&self) -> bool {
        self.patterns.is_some()
    }

    /// What was asked to be left out, for people: `*.log, cache`.
    pub(crate) fn asked(&self) -> String {
        self.asked.join(", ")
    }

    /// Whether this path, relative to the root, is left out. The folders above it are not.
    pub(crate) fn check(&self, path: &[u8], is_dir: bool) -> Option<Excluded> {
        if !self.paths.is_empty() && self.paths.contains(path) {
            return Some(Excluded::Ours);
        }
        if let Some(patterns) = &self.patterns {
            let matched = patterns.matched(path_from_bytes(path.to_vec()), is_dir);
            if matched.is_ignore() {
                return Some(Excluded::Asked);
            }
        }
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        let ours = if is_dir { is_journal_home(name) } else { is_unfinished_archive(name) };
        ours.then_some(Excluded::Ours)
    }
}

/// The pattern as seen from the source: one that begins with the source's own path, as other programs take them, would match nothing.
fn relative<'a>(pattern: &'a str, roots: [&Path; 2]) -> Result<Cow<'a, str>> {
    let (not, path) = pattern.strip_prefix('!').map_or(("", pattern), |path| ("!", path));
    for root in roots.into_iter().filter_map(Path::to_str).filter(|root| root.len() > 1) {
        match path.strip_prefix(root) {
            Some("" | "/") => {
                let text = "it is the source itself: nothing would be left";
                return Err(Error::new(ErrorKind::Usage, "read the exclude patterns", text));
            }
            Some(inside) if inside.starts_with('/') => return Ok(Cow::Owned(format!("{not}{inside}"))),
            _ => {}
        }
    }
    Ok(Cow::Borrowed(pattern))
}

/// `.NAME.backup-<id>` or `.backup-<id>`, with an id of 26 characters: where a restore keeps journal, shadow and old data.
pub(crate) fn is_journal_home(name: &[u8]) -> bool {
    const MARK: &[u8] = b".backup-";
    name.first() == Some(&b'.')
        && name.len() >= MARK.len() + 26
        && name[..name.len() - 26].ends_with(MARK)
        && name[name.len() - 26..].iter().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

/// An archive that is being written, or whose run crashed: `.STEM.tar.zst.SERIES.ID.incomplete` (or `.tar.gz`, `.tar.xz`, `.tar`), with
/// a series of twelve hexadecimal digits and an id of 26 characters.
fn is_unfinished_archive(name: &[u8]) -> bool {
    let mut parts = name.rsplitn(4, |b| *b == b'.');
    let (Some(b"incomplete"), Some(id), Some(series), Some(archive)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let compressed = [&b".zst"[..], b".gz", b".xz"].into_iter().find_map(|c| archive.strip_suffix(c));
    let stem = compressed.unwrap_or(archive).strip_suffix(b".tar").and_then(|stem| stem.strip_prefix(b"."));
    stem.is_some_and(|stem| !stem.is_empty())
        && series.len() == 12
        && series.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        && id.len() == 26
        && id.iter().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

/// Whether the first bytes of a `CACHEDIR.TAG` make its folder a cache.
pub(crate) fn is_cache_tag(first_bytes: &[u8]) -> bool {
    first_bytes.starts_with(CACHE_SIGNATURE)
}

/// How many bytes of a tag decide.
pub(crate) const CACHE_SIGNATURE_LENGTH: usize = CACHE_SIGNATURE.len();

#[cfg(test)]
mod tests {
    use super::*;

    fn exclude(patterns: &[&str]) -> Exclude {
        let mut config = FilesConfig::new("/data");
        config.exclude = patterns.iter().map(ToString::to_string).collect();
        config.exclude_paths = vec!["/data/backups".into(), "/data".into(), "/other".into()];
        Exclude::new(&config, Path::new("/data")).unwrap()
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_an_error() {
        let mut config = FilesConfig::new("/data");
        config.exclude = vec!["*.log".to_owned(), "[a".to_owned()];
        let error = Exclude::new(&config, Path::new("/data")).err().unwrap();
        assert!(error.to_string().contains("[a"), "{error}");
    }

    #[test]
    fn patterns_are_those_of_gitignore() {
        let e = exclude(&["*.log", "!keep.log", "/build/", "**/node_modules"]);
        let asked = |path: &str, dir| e.check(path.as_bytes(), dir) == Some(Excluded::Asked);
        assert!(asked("a/b.log", false) && !asked("keep.log", false));
        assert!(asked("build", true) && !asked("build", false) && !asked("a/build", true));
        assert!(asked("x/node_modules", true));
        assert!(e.check(b"a\xff.log", false).is_some() && e.check(b"a\xff", false).is_none());
    }

    #[test]
    fn a_pattern_with_the_path_of_the_source_is_relative_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("patterns");
        std::fs::write(&file, "# remark\n/data/from-file\n\n*.tmp\n").unwrap();
        let mut config = FilesConfig::new("/link");
        config.exclude =
            ["/data/a", "/link/b/*.log", "!/data/b/keep.log", "/database"].map(str::to_owned).to_vec();
        config.exclude_files = vec![file];
        let e = Exclude::new(&config, Path::new("/data")).unwrap();
        let asked = |path: &str| e.check(path.as_bytes(), false) == Some(Excluded::Asked);
        assert!(
            asked("a") && asked("b/x.log") && asked("from-file") && asked("x/y.tmp") && asked("database")
        );
        assert!(!asked("x/a") && !asked("b/keep.log") && !asked("base") && !asked("x/from-file"));
        for whole in ["/data", "/data/", "!/link"] {
            config.exclude = vec![whole.to_owned()];
            assert_eq!(Exclude::new(&config, Path::new("/data")).err().unwrap().kind(), ErrorKind::Usage);
        }
    }

    #[test]
    fn backups_are_never_backed_up_into_themselves() {
        let e = exclude(&[]);
        let ours = |path: &str, dir| e.check(path.as_bytes(), dir) == Some(Excluded::Ours);
        assert!(ours("backups", true) && !ours("backup", true));
        assert!(ours("a/.data.backup-01hzzzzzzzzzzzzzzzzzzzzzzz", true));
        assert!(ours(".backup-01hzzzzzzzzzzzzzzzzzzzzzzz", true));
        assert!(!ours(".data.backup-2024", true) && !ours("data.backup-01hzzzzzzzzzzzzzzzzzzzzzzz", true));
        let unfinished = ".x-backup-1.tar.zst.0123456789ab.01hzzzzzzzzzzzzzzzzzzzzzzz.incomplete";
        assert!(
            ours(unfinished, false)
                && ["", ".gz", ".xz"].iter().all(|c| ours(&unfinished.replace(".zst", c), false))
                && !ours(unfinished, true)
        );
        for users_own in [
            "x.tar.zst.incomplete",
            "x.incomplete",
            &unfinished[1..],
            &unfinished.replace(".tar.zst", ".zst"),
            &unfinished.replace("ab.", "aG."),
            &unfinished.replace("01hz", "01h"),
            &unfinished.replace(".x-backup-1", ""),
        ] {
            assert!(!ours(users_own, false), "{users_own}");
        }
    }

    #[test]
    fn a_wrong_pattern_or_a_missing_pattern_file_is_an_error() {
        let mut config = FilesConfig::new("/data");
        config.exclude = vec!["a{b".into()];
        assert_eq!(Exclude::new(&config, Path::new("/data")).err().map(|e| e.kind()), Some(ErrorKind::Usage));
        config.exclude.clear();
        config.exclude_files = vec!["/nowhere/at/all".into()];
        assert_eq!(Exclude::new(&config, Path::new("/data")).err().map(|e| e.kind()), Some(ErrorKind::Usage));
    }
}
