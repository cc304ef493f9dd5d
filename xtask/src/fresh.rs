//! `cargo xtask fresh`: does the README hold on a machine that has nothing?
//!
//! Makes an empty Debian root with only Rust, its linker, git and a package manager, clones HEAD into it, and
//! runs the README's first command and then its second one, as written there.

mod reaper;
mod root;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::step::{Step, output};
use crate::{Failure, Outcome, prerequisites};

/// The first command installs and builds everything on a cold machine.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// Mounts are made in a namespace of their own, which ends with the command: nothing stays mounted, however
/// it ends. The folder becomes the root of that namespace, and not only of the processes in it, as `chroot` would
/// make it: what Docker runs in a container, it runs from there. Devices are its own, too: what is done to them,
/// as root, is not done to those of this machine.
const ENTER: &str = r#"
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in full:7 null:3 random:8 urandom:9 zero:5; do
    mknod -m 666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
mknod -m 666 "$root/dev/tty" c 5 0
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${stream%:*}" "$root/dev/${stream#*:}"
done
mount --rbind /sys "$root/sys"
cd "$root"
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
exec env -i "$@"
"#;

pub(crate) fn run() -> Outcome {
    let commands = readme_commands(&std::fs::read_to_string("README.md").unwrap_or_default())?;
    if output("id", &["-u"]).as_deref() != Some("0") {
        return Err(Failure::Usage(
            "cargo xtask fresh mounts what a system needs: run it as root".to_owned(),
        ));
    }
    prerequisites::system_programs(&[("mmdebstrap", "mmdebstrap"), ("unshare", "util-linux")])?;
    let folder = std::env::temp_dir().join(format!("backup-fresh-{}", std::process::id()));
    std::fs::create_dir(&folder).map_err(|e| Failure::Failed(format!("{}: {e}", folder.display())))?;
    let reaper = reaper::Reaper::new(&folder)?;
    let outcome = in_root(&folder, &commands);
    reaper.remove()?;
    outcome
}

fn in_root(folder: &Path, commands: &[String; 2]) -> Outcome {
    let environment = root::make(folder)?;
    let mut times = Vec::new();
    for (which, command) in ["first", "second"].iter().zip(commands) {
        let started = Instant::now();
        enter(format!("the README's {which} command: {command}"), folder, &environment, command).run()?;
        times.push(format!("{which} command {} s", started.elapsed().as_secs()));
    }
    println!("\n{}", times.join(", "));
    Ok(())
}

/// A shell command inside the root, in the clone.
fn enter(heading: String, folder: &Path, environment: &[String], command: &str) -> Step {
    Step::new(heading, "unshare")
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
        .args(["sh", "-c", ENTER, "sh"])
        .args([folder])
        .args(environment)
        .args(["sh", "-c", &format!("cd {} && {command}", root::CLONE)])
        .limit(LIMIT)
}

/// The fenced blocks after the two markers.
fn readme_commands(readme: &str) -> Outcome<[String; 2]> {
    let block = |marker: &str| {
        let (_, after) = readme.split_once(marker)?;
        let (_, after) = after.split_once("```")?;
        let (_language, after) = after.split_once('\n')?;
        let command = after.split_once("```")?.0.trim();
        (!command.is_empty()).then(|| command.to_owned())
    };
    match (block("<!-- first command -->"), block("<!-- second command -->")) {
        (Some(first), Some(second)) => Ok([first, second]),
        _ => Err(Failure::Usage(
            "README.md has no fenced block after `<!-- first command -->` or `<!-- second command -->`"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_read_from_the_readme() {
        let readme = "# x\n```\nother\n```\n<!-- first command -->\n```sh\n.ci/run\n```\ntext\n\
                      <!-- second command -->\n\n```\ncargo run -- \\\n  create\n```\n";
        let commands = readme_commands(readme);
        assert!(
            matches!(commands, Ok([first, second]) if first == ".ci/run" && second == "cargo run -- \\\n  create")
        );
    }

    #[test]
    fn a_readme_without_a_marker_is_refused() {
        assert!(readme_commands("<!-- first command -->\n```\na\n```\n").is_err());
    }
}
