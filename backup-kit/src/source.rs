//! What of a store is read, as it is configured; and the builder for files.

use backup_core::{Error, ErrorKind};
use serde_json::{Map, Value, json};

/// A source before it is made: the kind of its store and that store's configuration.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    pub(crate) kind: String,
    pub(crate) config: Value,
    pub(crate) disposable: bool,
    pub(crate) problem: Option<Error>,
}

impl SourceSpec {
    /// For any store of the registry, also one from outside.
    pub fn new(kind: impl Into<String>, config: Value) -> Self {
        SourceSpec { kind: kind.into(), config, disposable: false, problem: None }
    }

    /// A restore to where it came from may replace what is there without a confirmed plan.
    #[must_use]
    pub fn disposable(mut self, yes: bool) -> Self {
        self.disposable = yes;
        self
    }
}

/// Files as a source.
pub mod files {
    use super::*;
    use std::path::Path;

    /// A folder with everything below it.
    pub fn folder(path: impl AsRef<Path>) -> Files {
        Files::new(path.as_ref())
    }

    /// A single file.
    pub fn file(path: impl AsRef<Path>) -> Files {
        Files::new(path.as_ref())
    }

    /// A folder or a file, and what of it is left out.
    #[derive(Clone, Debug)]
    #[must_use]
    pub struct Files {
        config: Map<String, Value>,
        problem: Option<Error>,
    }

    impl Files {
        fn new(path: &Path) -> Self {
            let mut files = Files { config: Map::new(), problem: None };
            match path.to_str() {
                Some(path) => drop(files.config.insert("path".into(), json!(path))),
                None => {
                    let e = Error::new(ErrorKind::Usage, "use the path", "it is not UTF-8");
                    files.problem = Some(e.on(path.display()));
                }
            }
            files
        }

        /// Leaves out what matches, as a line of a `.gitignore`. May be called again.
        pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
            if let Some(list) = self.config.entry("exclude").or_insert_with(|| json!([])).as_array_mut() {
                list.push(Value::String(pattern.into()));
            }
            self
        }

        /// Does not descend into other file systems.
        pub fn one_file_system(mut self) -> Self {
            self.config.insert("one_file_system".into(), json!(true));
            self
        }
    }

    impl From<Files> for SourceSpec {
        fn from(files: Files) -> Self {
            SourceSpec { problem: files.problem, ..SourceSpec::new("files", Value::Object(files.config)) }
        }
    }
}
