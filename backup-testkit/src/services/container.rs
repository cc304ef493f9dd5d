//! Starting, sharing and sweeping containers.

use crate::{Must, run::skip};
use std::{
    collections::HashMap,
    future::Future,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, Weak, mpsc},
    time::Duration,
};
use testcontainers::{
    ContainerAsync, ContainerRequest, GenericImage, ImageExt,
    bollard::{
        Docker,
        models::PortBinding,
        query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder},
    },
    core::{ContainerPort, Mount, client::docker_client_instance},
    runners::AsyncRunner,
};
use tokio::{runtime::Runtime, sync::Mutex};

/// Every container of ours has this label, with the number of the process that it belongs to.
const OWNER: &str = "backup-test.pid";
/// A server that has not started by then will not.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Where there is none the connection is refused at once; one that starts and stops the servers of others may take its time.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
const REMOVE_LIMIT: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A container to be started.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The store, as in `BACKUP_TEST_REQUIRE`.
    pub store: &'static str,
    /// Tag of the official image.
    pub tag: String,
    /// The port it listens on; published on a free port of 127.0.0.1.
    pub port: u16,
    /// Environment of the container.
    pub environment: Vec<(String, String)>,
    /// Arguments of its entry point.
    pub arguments: Vec<String>,
    /// A folder of it that is kept in memory: servers wait for their disk at every change of a definition.
    pub in_memory: Option<&'static str>,
    /// So many MB of it: a disk that is soon full.
    pub room: Option<u32>,
    /// A folder of this host, and where the container has it.
    pub folder: Option<(PathBuf, &'static str)>,
}

/// A running container; removed with its anonymous volumes when dropped.
pub struct Container {
    running: Option<ContainerAsync<GenericImage>>,
    id: String,
    port: u16,
    address: IpAddr,
}

impl Container {
    /// Its id, good wherever a name is.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where its port is published on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address on the bridge network.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Runs a command in it; its output, or a panic with what it said.
    pub async fn exec(&self, command: &[&str]) -> String {
        use futures::StreamExt;
        use testcontainers::bollard::exec::{CreateExecOptions, StartExecResults};
        let (id, cmd) = (self.id.clone(), command.iter().map(|s| (*s).to_owned()).collect::<Vec<String>>());
        let said = on_services(async move {
            let docker = docker().await?;
            let options = CreateExecOptions {
                cmd: Some(cmd.clone()),
                attach_stdout: Some(true),
                attach_stderr: Some(true),
                ..Default::default()
            };
            let exec = docker.create_exec(&id, options).await?.id;
            let mut said = Vec::new();
            if let StartExecResults::Attached { mut output, .. } = docker.start_exec(&exec, None).await? {
                while let Some(frame) = output.next().await {
                    said.extend_from_slice(&frame?.into_bytes());
                }
            }
            let said = String::from_utf8_lossy(&said).into_owned();
            // The engine closes the output a moment before it knows the status.
            for _ in 0..600 {
                let seen = docker.inspect_exec(&exec).await?;
                match seen.exit_code {
                    Some(0) if seen.running != Some(true) => return Ok(said),
                    Some(code) if seen.running != Some(true) => {
                        return Err(format!("{cmd:?} ended with {code}: {said}").into());
                    }
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            Err(format!("{cmd:?} does not end: {said}").into())
        });
        said.await.must("run a command in the container")
    }

    /// Kills its first process as the kernel would, and waits until it is gone.
    pub async fn kill(&self) {
        let id = self.id.clone();
        let killed = on_services(async move { Ok(docker().await?.kill_container(&id, None).await?) });
        killed.await.must("kill the container");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let (Some(running), Some(runtime)) = (self.running.take(), RUNTIME.get()) else { return };
        let (done, wait) = mpsc::channel();
        runtime.spawn(async move {
            let removed = running.rm().await;
            let _ = done.send(removed.is_ok());
        });
        if wait.recv_timeout(REMOVE_LIMIT) != Ok(true) {
            eprintln!("the container {} could not be removed: the next run will sweep it", self.id);
        }
    }
}

/// Containers outlive the runtimes of single tests, so their client has a runtime of its own.
static RUNTIME: OnceLock<Runtime> = OnceLock::new();

pub(super) async fn on_services<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let runtime = RUNTIME.get_or_init(|| {
        let built = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        built.must("a runtime for containers")
    });
    runtime.spawn(work).await?
}

pub(super) async fn docker() -> Result<Docker, Failure> {
    Ok(docker_client_instance().await?)
}

/// One server of each sort for all tests that run at the same time.
pub(super) type Shared<T> = Mutex<Weak<T>>;

/// The shared server, started if there is none. Skips the test where no engine answers and none is required.
pub(super) async fn shared<T, F>(slot: &Shared<T>, store: &str, start: impl FnOnce() -> F) -> Arc<T>
where
    F: Future<Output = T>,
{
    engine(store).await;
    let mut slot = slot.lock().await;
    if let Some(running) = slot.upgrade() {
        return running;
    }
    let started = Arc::new(start().await);
    *slot = Arc::downgrade(&started);
    started
}

/// Returns if a container engine answers. Else the test is skipped, or fails if `docker` or `store` is required.
pub(super) async fn engine(store: &str) {
    let left_out = std::env::var("BACKUP_TEST_LEAVE_OUT").unwrap_or_default();
    let required = std::env::var("BACKUP_TEST_REQUIRE").unwrap_or_default();
    let names = |list: &str, word: &str| list.split(',').any(|w| w.trim() == word);
    if names(&left_out, "containers") {
        skip("tests with containers are left out");
    }
    let ping = on_services(async { Ok(docker().await?.ping().await?) });
    let answer = tokio::time::timeout(ANSWERS_WITHIN, ping).await;
    let why = match answer {
        Ok(Ok(_)) => {
            static SWEPT: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
            SWEPT.get_or_init(|| async { sweep().await }).await;
            return;
        }
        Ok(Err(e)) => e.to_string(),
        Err(_) => format!("it did not answer within {} s", ANSWERS_WITHIN.as_secs()),
    };
    let needed = names(&required, "docker") || names(&required, store);
    assert!(!needed, "BACKUP_TEST_REQUIRE names {store} or docker, and no container engine answers: {why}");
    skip(&format!("no container engine answers: {why}"));
}

/// Removes the containers of processes that are gone: a SIGKILL skips every drop. Done before a program's first server starts.
pub async fn sweep() {
    on_services(sweep_away()).await.must("sweep old containers");
}

async fn sweep_away() -> Result<(), Failure> {
    let docker = docker().await?;
    let ours = HashMap::from([("label", vec![OWNER])]);
    let all = ListContainersOptionsBuilder::new().all(true).filters(&ours).build();
    for container in docker.list_containers(Some(all)).await? {
        let pid = container.labels.unwrap_or_default().remove(OWNER).unwrap_or_default();
        if Path::new("/proc").join(&pid).exists() {
            continue;
        }
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        // Another test program may be sweeping, too.
        let _ = docker.remove_container(&container.id.unwrap_or_default(), Some(options)).await;
    }
    Ok(())
}

/// Starts it, without waiting until its server answers.
pub(super) async fn start(wanted: &Wanted) -> Container {
    let (name, tag) = super::image(wanted.store, &wanted.tag).await;
    let port = ContainerPort::Tcp(wanted.port);
    let key = format!("{}/tcp", wanted.port);
    let (in_memory, room) = (wanted.in_memory, wanted.room);
    let mut request: ContainerRequest<GenericImage> = GenericImage::new(&name, &tag)
        .with_exposed_port(port)
        .with_cmd(wanted.arguments.iter().cloned())
        .with_network("bridge")
        .with_label(OWNER, std::process::id().to_string())
        .with_startup_timeout(START_LIMIT)
        // Not on all addresses of the machine.
        .with_host_config_modifier(move |host| {
            host.publish_all_ports = Some(false);
            let size = room.map(|room| format!("size={room}m")).unwrap_or_default();
            host.tmpfs = in_memory.map(|folder| HashMap::from([(folder.to_owned(), size)]));
            let loopback = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(String::new()) };
            host.port_bindings = Some(HashMap::from([(key.clone(), Some(vec![loopback]))]));
        });
    if let Some((here, there)) = &wanted.folder {
        request = request.with_mount(Mount::bind_mount(here.display().to_string(), *there));
    }
    for (name, value) in &wanted.environment {
        request = request.with_env_var(name, value);
    }
    let running = on_services(async move {
        let running = request.start().await?;
        let (port, address) =
            (running.get_host_port_ipv4(port).await?, running.get_bridge_ip_address().await?);
        Ok((running, port, address))
    });
    let failed = format!("start {name}:{tag} (cargo xtask test gets or builds the image)");
    let (running, port, address) = running.await.must(&failed);
    Container { id: running.id().to_owned(), running: Some(running), port, address }
}

/// Waits until `ready` says so.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, ready: impl Fn() -> F) {
    let waiting = async {
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(START_LIMIT, waiting).await.is_ok(), "{what} did not answer in time");
}
