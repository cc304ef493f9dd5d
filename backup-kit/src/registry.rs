//! The stores that are known. A new one is one line here.

use backup_core::{Backend, Error, ErrorKind, Named, Result, without_secrets};
use serde_json::Value;
use std::sync::Arc;

/// The stores that a run can use. A clone shares them.
#[derive(Clone)]
pub struct Registry {
    backends: Vec<Arc<dyn Backend>>,
}

impl Default for Registry {
    /// All stores of this build.
    fn default() -> Self {
        let containers = Arc::new(backup_docker::Docker::default());
        Registry { backends: Vec::new() }
            .with(backup_files::FilesBackend)
            .with(backup_postgres::PostgresBackend::new(containers.clone()))
            .with(backup_mysql::MysqlBackend::new(containers))
    }
}

impl Registry {
    /// Adds a store from outside. One of the same kind takes the place of the earlier one.
    #[must_use]
    pub fn with(mut self, backend: impl Backend + 'static) -> Self {
        self.backends.retain(|b| b.kind() != backend.kind());
        self.backends.push(Arc::new(backend));
        self
    }

    /// The store of this kind; an unknown kind is an error that names those that there are.
    pub fn get(&self, kind: &str) -> Result<&dyn Backend> {
        self.backends.iter().find(|b| b.kind() == kind).map(|b| &**b).ok_or_else(|| {
            let known: Vec<&str> = self.kinds().collect();
            Error::new(
                ErrorKind::Usage,
                "find the store",
                format!("`{kind}` is no kind of store; there are: {}", known.join(", ")),
            )
        })
    }

    /// Kinds of all stores.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.backends.iter().map(|b| b.kind())
    }

    /// Reads a source or target named on the command line: its kind and what it says.
    pub fn parse(&self, place: &str) -> Result<(&dyn Backend, Named)> {
        // One from outside is asked before the files, which take every text that is no URL for a path.
        for backend in self.backends.iter().rev() {
            if let Some(named) = backend.parse(place) {
                return Ok((&**backend, named?));
            }
        }
        let what = match place.split_once("://") {
            Some((scheme, _)) => format!("`{scheme}://` is the address of no store that is known"),
            None => "it is no source or target that is known".to_owned(),
        };
        let known: Vec<&str> = self.kinds().collect();
        Err(Error::new(ErrorKind::Usage, "read the place", what)
            .on(without_secrets(place))
            .hint(format!("a path such as ./folder; the stores of this build: {}", known.join(", "))))
    }

    /// A target on which revert and settle work, from what a journal says.
    pub fn recover(&self, kind: &str, undo: Value) -> Result<Box<dyn backup_core::Target>> {
        self.get(kind)?.recover(undo)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.kinds()).finish()
    }
}
