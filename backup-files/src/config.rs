//! The configuration of a folder or file, as a source and as a target.

use backup_core::{Error, ErrorKind, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A folder or a single file. The same for a source and for the target it is restored to; what concerns reading only is
/// without effect on a target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FilesConfig {
    /// The folder or file. A relative path is one of the current folder of the process.
    #[serde(with = "any_path")]
    #[schemars(with = "String")]
    pub path: PathBuf,
    /// Patterns in the syntax of `.gitignore`, relative to the folder; what matches is left out. One that begins with the absolute path of
    /// the folder is taken from there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Files of such patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_files: Vec<PathBuf>,
    /// Absolute paths that are left out: where the backups themselves are kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude_paths: Vec<PathBuf>,
    /// Of folders with a valid `CACHEDIR.TAG` keep only the folder and the tag.
    #[serde(default, skip_serializing_if = "is_false")]
    pub exclude_caches: bool,
    /// Do not go into other file systems; their mount points are stored as empty folders.
    #[serde(default, skip_serializing_if = "is_false")]
    pub one_file_system: bool,
    /// Restore: owners are not restored, and not counted as lost. What needs the same rights (devices, privileged extended attributes,
    /// set-user-id bits, which are only for their owner) is a warning, and does not make the result partial.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_owner: bool,
    /// Restore: what the backup lacks stays; of both, the backup's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub merge: bool,
    /// Restore: the folder above is made if it is missing, and taken away again if the restore is undone.
    #[serde(default, skip_serializing_if = "is_false")]
    pub make_parent: bool,
    /// A file that could only be stored as it was while it changed counts as lost: the backup is partial.
    #[serde(default, skip_serializing_if = "is_false")]
    pub strict: bool,
    /// May be missing: then nothing is stored, and a note says so.
    #[serde(default, skip_serializing_if = "is_false")]
    pub optional: bool,
    /// How long to wait for a SQLite database that is locked exclusively, in seconds; 30 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub busy_seconds: Option<u32>,
}

impl FilesConfig {
    /// A folder or file with nothing left out.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        FilesConfig { path: path.into(), ..FilesConfig::default() }
    }

    /// As the JSON that `Backend::source` and `Backend::target` take.
    pub fn to_value(&self) -> Value {
        // A struct of strings, lists and switches; paths that are not UTF-8 have a form of their own.
        serde_json::to_value(self).unwrap_or_default()
    }

    pub(crate) fn read(config: Value, component: &str) -> Result<Self> {
        let mut read: FilesConfig = serde_json::from_value(config)
            .map_err(|e| Error::new(ErrorKind::Usage, "read the configuration of files", e).on(component))?;
        read.path = absolute(&read.path)?;
        Ok(read)
    }
}

/// Absolute, without `.` and double slashes; `..` stays, because a symbolic link may be before it.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let given = path.display().to_string();
    let path = std::path::absolute(path)
        .map_err(|e| Error::io(ErrorKind::Usage, "make the path absolute", e).on(given))?;
    // A trailing slash would make the last name empty.
    Ok(path.components().collect())
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(b: &bool) -> bool {
    !*b
}

/// Text where the path is UTF-8, `{"bytes": [..]}` where it is not.
pub(crate) mod any_path {
    use crate::system::{path_from_bytes, path_to_bytes};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::path::{Path, PathBuf};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, deny_unknown_fields)]
    enum Form {
        Text(String),
        Raw { bytes: Vec<u8> },
    }

    pub(crate) fn serialize<S: Serializer>(path: &Path, s: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => Form::Text(text.to_owned()),
            None => Form::Raw { bytes: path_to_bytes(path) },
        }
        .serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
        let path = match Form::deserialize(d)? {
            Form::Text(text) => PathBuf::from(text),
            Form::Raw { bytes } => path_from_bytes(bytes),
        };
        if path.as_os_str().is_empty() {
            return Err(serde::de::Error::custom("path is empty"));
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_key_is_an_error() {
        let e = FilesConfig::read(json!({"path": "/x", "exlude": []}), "etc").unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Usage);
        assert!(e.to_string().contains("exlude"), "{e}");
        assert!(FilesConfig::read(json!({"path": ""}), "etc").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_not_utf8_survives() {
        use std::os::unix::ffi::OsStrExt;
        let config = FilesConfig::new(std::ffi::OsStr::from_bytes(b"/a\xff"));
        assert_eq!(FilesConfig::read(config.to_value(), "x").unwrap(), config);
    }
}
