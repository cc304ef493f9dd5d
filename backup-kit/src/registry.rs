//! The stores that are known. A new one is one line here.

use backup_core::{
    Backend, ContainerEngine, Error, ErrorKind, Named, Recovery, Result, Target, without_secrets,
};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::sync::Arc;

/// The stores that a run can use. A clone shares them.
#[derive(Clone)]
pub struct Registry {
    backends: Vec<Arc<dyn Backend>>,
    containers: Arc<dyn ContainerEngine>,
}

impl Default for Registry {
    /// All stores of this build.
    fn default() -> Self {
        let containers = Arc::new(backup_docker::Docker::default());
        Registry { backends: Vec::new(), containers: containers.clone() }
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

    /// Where the containers of applications and servers are.
    pub fn containers(&self) -> Arc<dyn ContainerEngine> {
        self.containers.clone()
    }

    /// Uses this engine to find, stop and start containers that modules name, instead of Docker.
    #[must_use]
    pub fn with_containers(mut self, engine: Arc<dyn ContainerEngine>) -> Self {
        self.containers = engine;
        self
    }

    /// Reads a source or target named on the command line: its kind and what it says. For `container://NAME` the engine is asked.
    pub async fn parse(&self, place: &str) -> Result<(&dyn Backend, Named)> {
        if let Some(rest) = place.strip_prefix("container://") {
            return self.recognise(rest).await.map_err(|e| e.on(without_secrets(place)));
        }
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

    /// `NAME` or `NAME/inside`: which store the container is of is told by its image.
    async fn recognise(&self, place: &str) -> Result<(&dyn Backend, Named)> {
        let wrong = |message: &str| Error::new(ErrorKind::Usage, "read the place", message);
        let (name, inside) = match place.split_once('/') {
            Some((name, inside)) => (name, Some(inside).filter(|inside| !inside.is_empty())),
            None => (place, None),
        };
        if name.is_empty() {
            return Err(wrong("it names no container").hint("container://NAME/database"));
        }
        let inside = inside.map(|inside| percent_decode_str(inside).decode_utf8());
        let inside = inside.transpose().map_err(|_| wrong("what is written with % in it is no text"))?;
        let facts = self.containers.inspect(name).await?;
        let mut found: Vec<(&dyn Backend, Named)> = Vec::new();
        for backend in &self.backends {
            found.extend(backend.recognise(&facts, inside.as_deref()).map(|named| (&**backend, named)));
        }
        match found.len() {
            0 => Err(wrong(&format!(
                "no store that is known is recognised in a container of the image {}",
                facts.image
            ))
            .hint("name it in backup.toml with its kind: kind = \"postgres\", container = \"NAME\"")),
            1 => Ok(found.remove(0)),
            _ => {
                let kinds: Vec<&str> = found.iter().map(|(backend, _)| backend.kind()).collect();
                Err(wrong(&format!("it may be {}", kinds.join(" or ")))
                    .hint("name it in backup.toml, with its kind"))
            }
        }
    }
}

impl Recovery for Registry {
    fn target(&self, kind: &str, undo: Value) -> Result<Box<dyn Target>> {
        self.get(kind)?.recover(undo)
    }

    fn containers(&self) -> Arc<dyn ContainerEngine> {
        self.containers.clone()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.kinds()).finish()
    }
}
