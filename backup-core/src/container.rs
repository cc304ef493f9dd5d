//! What the stores know of containers: plain facts, and how to run a tool inside. The engine itself is another crate's.

use crate::{CommandRunner, Content, Error, ErrorKind, Result, Secret, ToolCommand};
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// A container as its engine describes it.
#[derive(Clone, Debug, Default)]
pub struct ContainerFacts {
    /// Its id.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// The image it was made from, as it was named.
    pub image: String,
    /// Whether it runs.
    pub running: bool,
    /// Its environment. Passwords are in it.
    pub environment: BTreeMap<String, Secret>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// TCP ports of the container that are published on the host, and where.
    pub published: BTreeMap<u16, SocketAddr>,
    /// Its addresses on the networks that it is in.
    pub addresses: Vec<IpAddr>,
    /// Where volumes and folders of the host are mounted in it.
    pub mounts: Vec<ContainerMount>,
}

impl ContainerFacts {
    /// Name of the image alone: without registry, folders, tag and digest.
    pub fn image_name(&self) -> &str {
        let name = self.image.rsplit('/').next().unwrap_or_default();
        name.split([':', '@']).next().unwrap_or_default()
    }

    /// Whether the image sets a variable of this name.
    pub fn has_variable(&self, name: &str) -> bool {
        self.environment.contains_key(name)
    }
}

/// Something mounted into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerMount {
    /// Name of the volume, or path on the host.
    pub source: String,
    /// Path in the container.
    pub destination: String,
    /// Whether the container may write there.
    pub writable: bool,
}

/// A container engine, as far as stores need one.
#[async_trait]
pub trait ContainerEngine: Send + Sync {
    /// The container of this name or id; one that is not there is `NotFound`.
    async fn inspect(&self, name: &str) -> Result<ContainerFacts>;

    /// The running container that publishes this TCP port on this host.
    async fn publishing(&self, port: u16) -> Result<Option<ContainerFacts>>;

    /// Runs tools in the container of this id.
    fn runner(&self, id: &str) -> Arc<dyn CommandRunner>;

    /// Stops the container, and returns when it has stopped: first its program is asked, then, after the time that the container
    /// gives it, killed. One that does not run is fine.
    async fn stop(&self, name: &str) -> Result<()> {
        Err(none().on(name))
    }

    /// Starts the container. One that runs is fine.
    async fn start(&self, name: &str) -> Result<()> {
        Err(none().on(name))
    }
}

/// Where there is no container engine: containers are not found, and no port is published by one.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoContainers;

#[async_trait]
impl ContainerEngine for NoContainers {
    async fn inspect(&self, name: &str) -> Result<ContainerFacts> {
        Err(none().on(name))
    }

    async fn publishing(&self, _port: u16) -> Result<Option<ContainerFacts>> {
        Ok(None)
    }

    fn runner(&self, _id: &str) -> Arc<dyn CommandRunner> {
        Arc::new(NoContainers)
    }
}

impl fmt::Display for NoContainers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no container")
    }
}

impl CommandRunner for NoContainers {
    fn run(&self, _command: ToolCommand) -> Content {
        Content::failed(none())
    }
}

fn none() -> Error {
    Error::new(ErrorKind::Unsupported, "use a container", "this program is built without a container engine")
}
