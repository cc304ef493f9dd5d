//! A server's process, its folder, its port.

use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

const UP_WITHIN: Duration = Duration::from_secs(30);

/// Ends the server and removes its folder when its own stdin ends: that of whoever started it, however that ended.
const KEEPER: &str = r#""$@" >"$BACKUP_TEST_DIR/log" 2>&1 & pid=$!; read line; kill "$pid" 2>/dev/null
wait "$pid"; rm -rf "$BACKUP_TEST_DIR""#;

/// A folder in the place for temporary ones, and a port that is free now.
pub(super) struct Place {
    pub(super) dir: PathBuf,
    pub(super) port: u16,
}

impl Place {
    pub(super) fn new(name: &str) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("backup-test-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let dir = std::env::temp_dir().join(unique);
        let fail = |e: std::io::Error| format!("{}: {e}", dir.display());
        fs::create_dir(&dir).map_err(fail)?;
        let port = free_port().map_err(fail)?;
        Ok(Place { dir, port })
    }

    pub(super) fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.dir.join(name);
        let written = fs::write(&path, text).and_then(|()| private(&path));
        written.map(|()| path.clone()).map_err(|e| format!("{}: {e}", path.display()))
    }

    pub(super) fn folder(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).map(|()| path.clone()).map_err(|e| format!("{}: {e}", path.display()))
    }
}

/// Of none that the kernel gives to whoever wants any: between this look and the start of the server somebody else could get it.
fn free_port() -> std::io::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut tries = 0;
    loop {
        let number = std::process::id().wrapping_mul(31).wrapping_add(NEXT.fetch_add(1, Relaxed));
        let port = 10_000 + (number % 20_000) as u16;
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(e) if tries == 1000 => return Err(e),
            Err(_) => tries += 1,
        }
    }
}

fn private(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    let _ = path;
    Ok(())
}

/// A running server; ended when dropped.
pub(super) struct Server {
    keeper: Child,
    pub(super) place: Place,
}

impl Server {
    /// Starts it and waits until `answers` says that it is up.
    pub(super) fn start(
        place: Place,
        command: &mut Command,
        answers: impl Fn(u16) -> bool,
    ) -> Result<Self, String> {
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            keeper.env(name, value.unwrap_or_default());
        }
        keeper.env("BACKUP_TEST_DIR", &place.dir).stdin(Stdio::piped()).stdout(Stdio::null());
        let keeper = keeper.spawn().map_err(|e| format!("cannot start: {e}"))?;
        let server = Server { keeper, place };
        let begin = Instant::now();
        while !answers(server.place.port) {
            if begin.elapsed() > UP_WITHIN {
                let log = fs::read_to_string(server.place.dir.join("log")).unwrap_or_default();
                return Err(format!("it is not up after {} s: {log}", UP_WITHIN.as_secs()));
            }
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A program: in PATH, where daemons are, or where `cargo xtask test` puts what it builds.
pub(super) fn program(name: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let ours = tools();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), ours.join("bin"), ours]);
    let found = folders.map(|folder| folder.join(name)).find(|file| file.is_file());
    found.ok_or_else(|| format!("the program {name} is not here (`cargo xtask test` installs it)"))
}

/// Where `cargo xtask test` puts what it builds and installs.
fn tools() -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
    cache.join("backup/tools")
}

/// `PATH` for a script whose interpreter may have been installed beside it.
pub(super) fn path_of_scripts() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = [tools().join("bin")].into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(folders).unwrap_or(path)
}

/// The beginning of what the server answers to a GET.
pub(super) fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n").ok()?;
    let mut answer = vec![0; 512];
    let n = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..n]).into_owned())
}

/// A request without a body: the status of the answer, and its body.
pub(super) fn request(port: u16, method: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Ok((status, body.to_owned()))
}
