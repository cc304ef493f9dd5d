//! The empty root: a minimal Debian, this machine's way to its package sources and registries, Rust, a clone.

use std::path::{Path, PathBuf};

use crate::step::{Step, output};
use crate::{Failure, Outcome};

/// Where the clone lies inside.
pub(super) const CLONE: &str = "/home/backup";

const HOME: &str = "/root";

/// Copies every existing path of "$@" into the root $1, to the same place.
const COPY: &str = r#"
set -eu
root=$1; shift
for path in "$@"; do
    [ -e "$path" ] || continue
    mkdir -p "$root$(dirname "$path")"
    rm -rf "$root$path"
    cp -aL "$path" "$root$(dirname "$path")/"
done
"#;

/// How this machine finds hosts, and whom it trusts. The package sources mmdebstrap writes itself.
const SETTINGS: &[&str] = &[
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/apt/auth.conf.d",
    "/etc/apt/keyrings",
    "/etc/apt/trusted.gpg.d",
    "/usr/local/share/ca-certificates",
    "/etc/ssl/certs/ca-certificates.crt",
];

/// The linker that Rust needs, and git; nothing that the tests need.
const PACKAGES: &str = "ca-certificates,gcc,libc6-dev,git";

/// Fills `folder`; returns the environment (NAME=value) for commands inside.
pub(super) fn make(folder: &Path) -> Outcome<Vec<String>> {
    debian(folder)?;
    Step::new("fresh: settings", "sh").args(["-c", COPY, "sh"]).args([folder]).args(SETTINGS).run()?;
    copy_apt_settings(folder)?;
    rust(folder)?;
    let clone = folder.join(CLONE.trim_start_matches('/'));
    Step::new("fresh: clone", "git").args(["clone", "--quiet", "--no-local", "."]).args([&clone]).run()?;
    let environment = environment();
    let only_host = "for target in $(rustup target list --installed); do \
        case $(rustc --print host-tuple) in $target) ;; *) rustup target remove $target ;; esac; done";
    super::enter("fresh: no target but the host's".to_owned(), folder, &environment, only_host).run()?;
    Ok(environment)
}

fn debian(folder: &Path) -> Outcome {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let suite =
        suite.ok_or_else(|| Failure::Usage("not a Debian or Ubuntu: no VERSION_CODENAME".to_owned()))?;
    let mut step = Step::new(format!("fresh: minimal {suite}"), "mmdebstrap")
        .args(["--quiet", "--variant=minbase", "--mode=root"])
        .args([format!("--include={PACKAGES}")]);
    for file in apt_settings() {
        step = step.args([format!("--aptopt={}", file.display())]);
    }
    step.args([suite]).args([folder]).args(sources()?).run()
}

/// The host's own lists of package sources for this distribution.
fn sources() -> Outcome<Vec<PathBuf>> {
    let mut sources =
        files("/etc/apt/sources.list.d", |text| text.contains("debian.org") || text.contains("ubuntu"));
    sources.retain(|file| file.extension().is_some_and(|ext| ext == "list" || ext == "sources"));
    sources.extend(Some(PathBuf::from("/etc/apt/sources.list")).filter(|file| file.is_file()));
    if sources.is_empty() {
        Err(Failure::Usage("no package sources in /etc/apt".to_owned()))
    } else {
        Ok(sources)
    }
}

/// apt's settings about fetching (proxies, dates, certificates); the others are about this machine's desktop.
fn apt_settings() -> Vec<PathBuf> {
    files("/etc/apt/apt.conf.d", |text| text.contains("Acquire"))
}

fn copy_apt_settings(folder: &Path) -> Outcome {
    let files = apt_settings();
    Step::new("fresh: apt settings", "sh").args(["-c", COPY, "sh"]).args([folder]).args(files).run()
}

fn files(folder: &str, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|file| std::fs::read_to_string(file).is_ok_and(|text| wanted(&text)))
        .collect();
    files.sort();
    files
}

/// rustup with the active toolchain and cargo's settings: no cache, no built tools, no credentials.
fn rust(folder: &Path) -> Outcome {
    let from_home = |variable: &str, name: &str| {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(name)))
            .ok_or_else(|| Failure::Usage("HOME is not set".to_owned()))
    };
    let (rustup, cargo) = (from_home("RUSTUP_HOME", ".rustup")?, from_home("CARGO_HOME", ".cargo")?);
    let sysroot = output("rustc", &["--print", "sysroot"]).map(PathBuf::from);
    let sysroot = sysroot.filter(|sysroot| sysroot.starts_with(rustup.join("toolchains")));
    let toolchain = sysroot.as_deref().and_then(|sysroot| sysroot.file_name()).ok_or_else(|| {
        Failure::Usage("cargo xtask fresh copies a toolchain of rustup's: none is active".to_owned())
    })?;
    let inside = folder.join(HOME.trim_start_matches('/'));
    let script = r#"
set -eu
rustup=$1 cargo=$2 toolchain=$3 home=$4
mkdir -p "$home/.rustup/toolchains/$toolchain" "$home/.cargo/bin"
cp -a "$rustup/settings.toml" "$home/.rustup/"
tar -C "$rustup/toolchains/$toolchain" --exclude=./share/doc -cf - . | tar -C "$home/.rustup/toolchains/$toolchain" -xf -
cp -aL "$cargo/bin/rustup" "$home/.cargo/bin/"
for proxy in cargo rustc rustdoc rustfmt cargo-fmt cargo-clippy clippy-driver; do
    ln -s rustup "$home/.cargo/bin/$proxy"
done
for settings in config.toml config; do
    [ ! -e "$cargo/$settings" ] || cp -aL "$cargo/$settings" "$home/.cargo/"
done
"#;
    Step::new("fresh: Rust", "sh")
        .args(["-c", script, "sh"])
        .args([rustup.as_os_str(), cargo.as_os_str(), toolchain, inside.as_os_str()])
        .run()
}

/// How this machine reaches registries (proxies, certificates, mirrors), and nothing else of its environment.
fn environment() -> Vec<String> {
    let mut environment = vec![
        format!("HOME={HOME}"),
        format!("PATH={HOME}/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        "LANG=C.UTF-8".to_owned(),
    ];
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    environment
        .extend(variables.filter(|(name, _)| passes(name)).map(|(name, value)| format!("{name}={value}")));
    environment
}

/// Not all of CARGO_*: cargo itself sets many that describe this package and this toolchain.
fn passes(name: &str) -> bool {
    const PREFIXES: &[&str] = &[
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "RUSTUP_DIST_",
        "SSL_",
    ];
    let reaches = PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name == "RUSTUP_UPDATE_ROOT";
    (reaches || name.to_ascii_lowercase().ends_with("_proxy")) && !name.ends_with("TOKEN")
}

#[cfg(test)]
mod tests {
    use super::passes;

    #[test]
    fn the_way_out_is_passed_on_and_secrets_are_not() {
        for name in
            ["https_proxy", "NO_PROXY", "CARGO_HTTP_CAINFO", "SSL_CERT_FILE", "CARGO_SOURCE_MIRROR_REGISTRY"]
        {
            assert!(passes(name), "{name}");
        }
        for name in
            ["CARGO_REGISTRY_TOKEN", "CARGO_PKG_NAME", "CARGO_TARGET_DIR", "PATH", "AWS_SECRET_ACCESS_KEY"]
        {
            assert!(!passes(name), "{name}");
        }
    }
}
