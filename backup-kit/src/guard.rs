//! What must not be: an archive inside the folder that it holds or that it is restored over, journals in a backup, and traces of a
//! trial.

mod mounts;

use backup_core::{Error, ErrorKind, Result, real_path};
use backup_files::FilesConfig;
use mounts::Mounts;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A destination inside a source would be read while it is written, and every backup would hold all earlier ones.
pub(crate) fn destination_outside(archive: Option<&Path>, kind: &str, config: &Value) -> Result<()> {
    let config = match kind {
        "files" => serde_json::from_value::<FilesConfig>(config.clone()).ok(),
        _ => None,
    };
    let (Some(archive), Some(config)) = (archive, config) else { return Ok(()) };
    let (inside, source) = (real_path(archive), real_path(&config.path));
    let Some(seen) = Mounts::of_this_system().seen_below(&inside, &source, config.one_file_system) else {
        return Ok(());
    };
    if config.exclude_paths.iter().any(|p| seen.starts_with(real_path(p))) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Usage,
        "begin the backup",
        format!(
            "the archive {} is inside the source {}{}",
            inside.display(),
            source.display(),
            mounted_as(&seen, &inside)
        ),
    )
    .hint("keep backups outside of what they are of: --to ELSEWHERE"))
}

/// What a restore replaces is dropped later: a backup in it would be gone with it. A merge keeps what the backup lacks.
pub(crate) fn archive_not_replaced(archive: Option<&Path>, kind: &str, config: &Value) -> Result<()> {
    let path = config.get("path").and_then(Value::as_str).filter(|_| kind == "files");
    let (Some(archive), Some(path)) = (archive, path) else { return Ok(()) };
    let merges = config.get("merge") == Some(&Value::Bool(true));
    let (inside, target) = (real_path(archive), real_path(Path::new(path)));
    if merges {
        return Ok(());
    }
    let Some(seen) = Mounts::of_this_system().seen_below(&inside, &target, false) else { return Ok(()) };
    let message = format!(
        "the archive {} is inside of what would be replaced, {}{}: the backup would be gone with it",
        inside.display(),
        target.display(),
        mounted_as(&seen, &inside)
    );
    Err(Error::new(ErrorKind::Refused, "plan the restore", message)
        .hint("restore it elsewhere (--to ELSEWHERE), move the archive, or keep what is there (--merge)"))
}

/// The other name of a folder that is mounted at two places.
fn mounted_as(seen: &Path, inside: &Path) -> String {
    if seen == inside { String::new() } else { format!(", where it is {}", seen.display()) }
}

/// Pointers to journals of restores must not come back with data: they would speak of restores that are over.
pub(crate) fn without_journals(kind: &str, config: &Value, state_dir: Option<PathBuf>) -> Value {
    let read = match kind {
        "files" => serde_json::from_value::<FilesConfig>(config.clone()).ok(),
        _ => None,
    };
    match (read, state_dir) {
        (Some(mut read), Some(dir)) => {
            read.exclude_paths.push(dir.join("restores"));
            read.to_value()
        }
        _ => config.clone(),
    }
}

/// The folder, if it is not there.
pub(crate) async fn absent(folder: Option<PathBuf>) -> Option<PathBuf> {
    let folder = folder?;
    let look = tokio::task::spawn_blocking(move || (!folder.exists()).then_some(folder));
    look.await.ok().flatten()
}

/// Takes away what trying a destination has made. One that another run uses by now is not empty and stays.
pub(crate) async fn remove_empty(folder: Option<PathBuf>) {
    if let Some(folder) = folder {
        let _ = tokio::task::spawn_blocking(move || std::fs::remove_dir(folder)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_restore_never_replaces_the_archive_that_it_reads() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("b")).unwrap();
        let target = json!({ "path": tree.to_str().unwrap() });
        for inside in [tree.clone(), tree.join("b"), tree.join("b/x.tar.zst"), tree.join("b/../b")] {
            let e = archive_not_replaced(Some(&inside), "files", &target).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Refused, "{e}");
        }
        assert!(archive_not_replaced(Some(&dir.path().join("elsewhere")), "files", &target).is_ok());
        assert!(archive_not_replaced(None, "files", &target).is_ok());
        let merged = json!({ "path": tree.to_str().unwrap(), "merge": true });
        assert!(archive_not_replaced(Some(&tree.join("b")), "files", &merged).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn an_archive_inside_its_source_is_refused_also_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, link) = (dir.path().join("tree"), dir.path().join("link"));
        std::fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink(&tree, &link).unwrap();
        let origin = json!({ "path": tree.to_str().unwrap() });
        let check = |archive: &Path| destination_outside(Some(archive), "files", &origin);
        for inside in [tree.clone(), tree.join("not/yet"), link.join("b")] {
            assert_eq!(check(&inside).unwrap_err().kind(), ErrorKind::Usage, "{}", inside.display());
        }
        assert!(check(&dir.path().join("tree-backups")).is_ok());
        assert!(destination_outside(None, "files", &origin).is_ok());
        let kept =
            json!({ "path": tree.to_str().unwrap(), "exclude_paths": [tree.join("b").to_str().unwrap()] });
        assert!(destination_outside(Some(&tree.join("b")), "files", &kept).is_ok());
    }
}
