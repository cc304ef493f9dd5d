//! A container engine and the images of the servers that the tests start.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::prerequisites::system_programs;
use crate::step::{Step, output, succeeds};
use crate::{Failure, Outcome, required, target_dir};

/// Official images that tests start. Each has a recipe in `backup-testkit/images/build.sh` for where no registry answers.
const IMAGES: &[&str] = &["postgres:15", "postgres:17", "mariadb:10.11", "mariadb:11.8", "mysql:9"];

const PROGRAMS: &[(&str, &str)] = &[
    ("docker", "docker.io"),
    ("dockerd", "docker.io"),
    ("iptables", "iptables"),
    ("mmdebstrap", "mmdebstrap"),
];

/// A registry that does not answer by then is none.
const PULL_SECONDS: &str = "10";

/// Makes sure that an engine answers and that every image is here. Says why not, where containers are not required.
pub(crate) fn ready() -> Outcome<Option<String>> {
    let made = engine().and_then(|()| IMAGES.iter().try_for_each(|image| get(image)));
    let must = ["docker", "postgres", "mysql", "mariadb"].into_iter().find(|what| required(what));
    match (made, must) {
        (Ok(()), _) => Ok(None),
        (Err(Failure::Failed(why) | Failure::Usage(why)), None) => Ok(Some(why)),
        (Err(Failure::Failed(why) | Failure::Usage(why)), Some(what)) => {
            Err(Failure::Usage(format!("BACKUP_TEST_REQUIRE names {what}: {why}")))
        }
    }
}

/// What the race of databases needs.
pub(crate) fn for_races() -> Outcome {
    engine()?;
    get("postgres:17")?;
    get("mariadb:11.8")
}

/// Containers of test programs that were killed.
pub(crate) fn sweep() {
    let list = [
        "ps",
        "-a",
        "--filter",
        "label=backup-test.pid",
        "--format",
        "{{.ID}} {{.Label \"backup-test.pid\"}}",
    ];
    for line in output("docker", &list).unwrap_or_default().lines() {
        if let Some((id, pid)) = line.split_once(' ')
            && !Path::new("/proc").join(pid).exists()
        {
            succeeds("docker", &["rm", "-f", "-v", id]);
        }
    }
}

/// Starts Docker if no engine answers, and leaves it running.
fn engine() -> Outcome {
    if answers() {
        return Ok(());
    }
    system_programs(PROGRAMS)?;
    let log = target_dir().join("dockerd.log");
    println!("\n── Docker does not answer: started, and left running; its log is {}", log.display());
    let started =
        std::fs::create_dir_all(target_dir()).and_then(|()| std::fs::File::create(&log)).and_then(|file| {
            // In a session of its own: Ctrl-C is for us, not for it.
            Command::new("setsid")
                .arg("dockerd")
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file)
                .spawn()
        });
    started.map_err(|error| Failure::Failed(format!("dockerd could not be started: {error}")))?;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if answers() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Err(Failure::Failed(format!("Docker does not answer, see {}", log.display())))
}

fn answers() -> bool {
    succeeds("timeout", &["10", "docker", "info"])
}

fn get(official: &str) -> Outcome {
    let variable = format!("BACKUP_TEST_IMAGE_{official}").to_uppercase().replace([':', '.', '-'], "_");
    let ours = format!("backup-test/{official}");
    let is_here = |image: &str| succeeds("docker", &["image", "inspect", image]);
    if std::env::var_os(variable).is_some() || is_here(official) || is_here(&ours) {
        return Ok(());
    }
    if succeeds("timeout", &[PULL_SECONDS, "docker", "pull", "--quiet", official]) {
        return Ok(());
    }
    system_programs(PROGRAMS)?;
    Step::new(format!("image {ours}, because no registry gives {official}"), "backup-testkit/images/build.sh")
        .args([official])
        .limit(Duration::from_secs(15 * 60))
        .run()
}
