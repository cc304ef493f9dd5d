//! The engine, connected when it is first asked.

use crate::{exec::ExecRunner, facts::facts};
use async_trait::async_trait;
use backup_core::{CommandRunner, ContainerEngine, ContainerFacts, Error, ErrorKind, Result};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, StartContainerOptions, StopContainerOptions,
};
use std::{fmt, future::Future, sync::Arc, time::Duration};
use tokio::sync::OnceCell;

/// Questions are answered within this time; a stream of a container's own archive can hold them up for seconds.
const ANSWER: Duration = Duration::from_secs(30);
/// A container has a time of its own to stop in, 10 s if it says nothing else.
const STOP: Duration = Duration::from_secs(300);
const START: Duration = Duration::from_secs(120);

/// Docker, or what speaks its language. A clone shares the connection.
#[derive(Clone, Default)]
pub struct Docker {
    connection: Arc<OnceCell<bollard::Docker>>,
}

impl Docker {
    pub(crate) async fn connection(&self) -> Result<&bollard::Docker> {
        let connect = || async {
            let docker = bollard::Docker::connect_with_defaults()
                .map_err(|e| failed("connect to the container engine", e))?;
            // An engine of another time is asked in its own version.
            within("connect to the container engine", docker.negotiate_version()).await
        };
        self.connection.get_or_try_init(connect).await
    }
}

impl fmt::Debug for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Docker").finish_non_exhaustive()
    }
}

#[async_trait]
impl ContainerEngine for Docker {
    async fn inspect(&self, name: &str) -> Result<ContainerFacts> {
        let docker = self.connection().await.map_err(|e| e.on(name))?;
        let asked = docker.inspect_container(name, None::<InspectContainerOptions>);
        let found = within("look at the container", asked).await.map_err(|e| e.on(name))?;
        Ok(facts(found))
    }

    async fn publishing(&self, port: u16) -> Result<Option<ContainerFacts>> {
        let docker = self.connection().await?;
        // Without options it lists those that run.
        let list =
            within("list the containers", docker.list_containers(None::<ListContainersOptions>)).await?;
        let publishes = |c: &bollard::models::ContainerSummary| {
            c.ports.iter().flatten().any(|p| p.public_port == Some(port) && p.typ.is_none_or(is_tcp))
        };
        match list.into_iter().find(publishes).and_then(|c| c.id) {
            Some(id) => self.inspect(&id).await.map(Some),
            None => Ok(None),
        }
    }

    fn runner(&self, id: &str) -> Arc<dyn CommandRunner> {
        Arc::new(ExecRunner::new(self.clone(), id))
    }

    async fn stop(&self, name: &str) -> Result<()> {
        let docker = self.connection().await.map_err(|e| e.on(name))?;
        let asked = docker.stop_container(name, None::<StopContainerOptions>);
        within_time(STOP, "stop the container", asked).await.map_err(|e| e.on(name))
    }

    async fn start(&self, name: &str) -> Result<()> {
        let docker = self.connection().await.map_err(|e| e.on(name))?;
        let asked = docker.start_container(name, None::<StartContainerOptions>);
        within_time(START, "start the container", asked).await.map_err(|e| e.on(name))
    }
}

fn is_tcp(kind: bollard::models::PortSummaryTypeEnum) -> bool {
    matches!(kind, bollard::models::PortSummaryTypeEnum::TCP | bollard::models::PortSummaryTypeEnum::EMPTY)
}

/// An answer of the engine, in time.
pub(crate) async fn within<T>(
    operation: &'static str,
    asked: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T> {
    within_time(ANSWER, operation, asked).await
}

async fn within_time<T>(
    limit: Duration,
    operation: &'static str,
    asked: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T> {
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|e| failed(operation, e)),
        Err(_) => {
            let message = format!("the engine did not answer within {} s", limit.as_secs());
            Err(Error::new(ErrorKind::Source, operation, message))
        }
    }
}

pub(crate) fn failed(operation: &'static str, e: bollard::errors::Error) -> Error {
    use bollard::errors::Error as Docker;
    match &e {
        Docker::DockerResponseServerError { status_code: 404, message } => {
            Error::new(ErrorKind::NotFound, operation, message).hint("`docker ps -a` lists the containers")
        }
        Docker::DockerResponseServerError { message, .. } => {
            Error::new(ErrorKind::Source, operation, message)
        }
        Docker::HyperResponseError { .. } | Docker::HyperLegacyError { .. } | Docker::IOError { .. } => {
            let message = format!("the container engine does not answer: {e}");
            Error::new(ErrorKind::Source, operation, message)
                .hint("is Docker running, and may this user ask it?")
        }
        _ => Error::new(ErrorKind::Source, operation, &e),
    }
}
