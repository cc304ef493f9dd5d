//! Folders that are mounted at several places: what lies below one of them is seen below the others, too.

use std::path::{Path, PathBuf};

/// What is mounted, in the order in which it was.
#[derive(Debug, Default)]
pub(super) struct Mounts(Vec<Mount>);

#[derive(Debug, PartialEq)]
struct Mount {
    /// Number of the file system.
    device: String,
    /// The folder of the file system that is mounted.
    root: PathBuf,
    /// Where it is mounted.
    point: PathBuf,
}

/// A folder or file as its file system knows it.
#[derive(Debug, PartialEq)]
struct Inside<'a> {
    device: &'a str,
    path: PathBuf,
}

impl Mounts {
    /// As this process sees them; nothing, where the system does not say it.
    pub(super) fn of_this_system() -> Self {
        let text = match cfg!(target_os = "linux") {
            true => std::fs::read("/proc/self/mountinfo").unwrap_or_default(),
            false => Vec::new(),
        };
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// `36 35 98:0 /root /point …`, a line for each.
    fn parse(text: &str) -> Self {
        let mount = |line: &str| {
            let mut fields = line.split(' ').skip(2);
            let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
            Some(Mount { device: device.to_owned(), root: unescaped(root), point: unescaped(point) })
        };
        Mounts(text.lines().filter_map(mount).collect())
    }

    /// Under which name `path` is found below `folder`, both without symbolic links; `None`: under none. `one_file_system`: other file
    /// systems that are mounted below it are not looked into.
    pub(super) fn seen_below(&self, path: &Path, folder: &Path, one_file_system: bool) -> Option<PathBuf> {
        if path.starts_with(folder) {
            return Some(path.to_owned());
        }
        let (at, of) = (self.inside(path)?, self.inside(folder)?);
        if one_file_system && at.device != of.device {
            return None;
        }
        let below = self.0.iter().filter(|m| m.point.starts_with(folder) && m.device == at.device);
        let beside = (of.device == at.device).then_some((folder, of.path.as_path()));
        let names = beside.into_iter().chain(below.map(|m| (m.point.as_path(), m.root.as_path())));
        names
            .filter_map(|(point, root)| Some(joined(point, at.path.strip_prefix(root).ok()?)))
            // What is mounted over it hides it.
            .find(|name| self.inside(name).as_ref() == Some(&at))
    }

    fn inside(&self, path: &Path) -> Option<Inside<'_>> {
        let above = self.0.iter().filter(|m| path.starts_with(&m.point));
        // Of several at one place the last hides the others.
        let mount = above.max_by_key(|m| m.point.components().count())?;
        let rest = path.strip_prefix(&mount.point).ok()?;
        Some(Inside { device: &mount.device, path: joined(&mount.root, rest) })
    }
}

/// Without a slash at its end.
fn joined(folder: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { folder.to_owned() } else { folder.join(rest) }
}

/// Blanks and the like are `\040` there.
fn unescaped(field: &str) -> PathBuf {
    let mut out = field.to_owned();
    for (escape, c) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        out = out.replace(escape, c);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
40 22 8:1 /srv/data/sub /mnt/elsewhere rw - ext4 /dev/sda1 rw
41 22 8:1 /srv/data /mnt/two\\040words rw - ext4 /dev/sda1 rw
42 22 8:17 / /disk rw - ext4 /dev/sdb1 rw
43 22 8:17 /backups /srv/data/kept rw - ext4 /dev/sdb1 rw
44 22 0:50 / /srv/data/hidden rw - tmpfs tmpfs rw
";

    #[test]
    fn what_is_mounted_inside_or_from_inside_is_found() {
        let mounts = Mounts::parse(TEXT);
        let seen = |path: &str| {
            let name = mounts.seen_below(Path::new(path), Path::new("/srv/data"), false);
            name.map(|name| name.to_str().unwrap().to_owned())
        };
        for (path, name) in [
            ("/srv/data", Some("/srv/data")),
            ("/srv/data/x", Some("/srv/data/x")),
            ("/mnt/elsewhere", Some("/srv/data/sub")),
            ("/mnt/elsewhere/b", Some("/srv/data/sub/b")),
            ("/mnt/two words", Some("/srv/data")),
            ("/mnt/two words/b/c", Some("/srv/data/b/c")),
            // Below it lies what is mounted over it.
            ("/mnt/two words/hidden/b", None),
            ("/disk/backups/b", Some("/srv/data/kept/b")),
            ("/disk/other", None),
            ("/disk", None),
            ("/srv/data-2", None),
            ("/srv", None),
            ("/proc/x", None),
        ] {
            assert_eq!(seen(path).as_deref(), name, "{path}");
        }
        assert_eq!(
            Mounts::default().seen_below(Path::new("/mnt/elsewhere"), Path::new("/srv/data"), false),
            None
        );
    }
}
