//! Trees, and backups and restores of them without an archive in between.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]
#![allow(dead_code, unreachable_pub, reason = "each test crate uses some")]

use backup_core::{Backend, Context, Ledger, Notes, Severity, Sink, Source, Target, View};
use backup_files::{FilesBackend, FilesConfig};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

pub fn config(path: impl Into<PathBuf>) -> FilesConfig {
    FilesConfig::new(path)
}

pub fn source(config: &FilesConfig) -> Box<dyn Source> {
    FilesBackend.source("c", config.to_value()).unwrap()
}

pub fn target(config: &FilesConfig) -> Box<dyn Target> {
    FilesBackend.target("c", config.to_value()).unwrap()
}

pub struct Done {
    pub facts: backup_core::Facts,
    pub entries: u64,
    pub lost: u64,
    pub notes: Notes,
}

impl Done {
    pub fn says(&self, severity: Severity, what: &str) -> bool {
        self.notes.list.iter().any(|n| n.severity == severity && n.text.contains(what))
    }
}

/// Pours into any sink, behind a ledger.
pub async fn pour(config: &FilesConfig, sink: Arc<dyn Sink>) -> Done {
    let cx = Context::default();
    let view: Box<dyn View> = source(config).connect(&cx).await.unwrap().fix(&cx).await.unwrap();
    let ledger = Ledger::new(sink, "c", &cx);
    view.pour(ledger.clone(), &cx).await.unwrap();
    let facts = ledger.finish(&cx).await.unwrap();
    let lost = ledger.settle_losses();
    Done { facts, entries: ledger.entries(), lost, notes: cx.notes() }
}

/// From a source right into a target, published.
pub async fn mirror(from: &FilesConfig, to: &FilesConfig) -> (Done, Box<dyn Target>) {
    let cx = Context::default();
    let mut target = target(to);
    let coming = backup_testkit::memory::incoming(&backup_testkit::memory::MemorySource::new("c")).await;
    target.survey(&coming.accepting(&["devices".to_owned()]), &cx).await.unwrap();
    let sink = target.prepare(&cx).await.unwrap();
    let mut done = pour(from, sink).await;
    target.publish(&cx).await.unwrap();
    done.notes.list.extend(cx.notes().list);
    (done, target)
}

/// What `rsync` would change to make `to` what `from` is, to the last attribute and byte.
pub fn differences(from: &Path, to: &Path) -> String {
    let slash = |p: &Path| {
        let mut p = p.as_os_str().to_owned();
        p.push("/");
        p
    };
    let out = Command::new("rsync")
        .args(["-aHAXSni", "--checksum", "--delete", "--specials", "--devices"])
        .args([slash(from), slash(to)])
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

pub fn run(program: &str, args: &[&str]) {
    let out = Command::new(program).args(args).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Mounts and devices need root. A run that may not skip fails instead: BACKUP_TEST_REQUIRE=root.
pub fn is_root(test: &str) -> bool {
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        let required = std::env::var("BACKUP_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|r| r == "root"), "{test} needs root");
        eprintln!("SKIPPED: {test}: needs root");
    }
    root
}

/// A mount that is gone when dropped.
pub struct Mounted(pub PathBuf);

impl Mounted {
    pub fn new(kind: &str, options: &str, at: &Path) -> Self {
        let mut args = vec!["-t", kind];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        let at_text = at.to_str().unwrap();
        args.extend([kind, at_text]);
        run("mount", &args);
        Mounted(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A tree with everything that a file system can hold.
pub fn rich_tree(root: &Path) {
    let script = r#"
        set -e
        cd "$1"
        mkdir -p empty sub/deep locked
        printf 'plain' > plain
        : > nothing
        head -c 3000000 /dev/urandom > large
        head -c 1048576 /dev/urandom > exactly-1-MiB
        printf 'x' > "$(printf 'new\nline')"
        printf 'x' > "$(printf 'raw\377byte')"
        printf 'x' > -dash
        printf 'x' > 'trailing '
        printf 'x' > "$(head -c 255 /dev/zero | tr '\0' n)"
        ln -s plain link
        ln -s /nowhere/at/all dangling
        ln plain sub/second-name
        ln plain sub/deep/third-name
        ln link sub/link-of-link
        truncate -s 5000000 sparse; printf data | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none
        truncate -s 300000 small-sparse; printf data | dd of=small-sparse bs=1 seek=200000 conv=notrunc status=none
        truncate -s 70000 only-a-hole
        mkfifo pipe
        chmod 4755 plain; chmod 0000 nothing; chmod 2770 sub; chmod 1777 empty; chmod 0500 locked
        setfacl -m u:1234:rw large; setfacl -d -m g:77:rx sub
        touch -d '1931-02-03 04:05:06.789' exactly-1-MiB
        touch -d '2044-02-03 04:05:06.123456789' large
        if [ "$(id -u)" = 0 ]; then
            mknod null c 1 3; mknod disk b 7 200
            chown 1234:4321 large link; chown 65534 sub
        fi
        touch -h -d '1999-01-01' link
        touch -d '1960-01-01 00:00:00.5' sub/deep sub .
    "#;
    run("sh", &["-c", script, "sh", root.to_str().unwrap()]);
    rustix::fs::setxattr(root.join("large"), "user.a=b", b"value\n\0\xff", rustix::fs::XattrFlags::empty())
        .unwrap();
    rustix::fs::setxattr(root.join("empty"), "user.dir", b"", rustix::fs::XattrFlags::empty()).unwrap();
    run("touch", &["-d", "1960-01-01 00:00:00.5", root.to_str().unwrap()]);
}
