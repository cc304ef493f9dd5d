//! How sources and targets of files are made.

#[cfg(not(unix))]
use self::elsewhere::{FilesSource, FilesTarget};
use crate::{
    FilesConfig,
    config::absolute,
    system::{path_from_bytes, path_to_bytes},
};
#[cfg(unix)]
use crate::{source::FilesSource, target::FilesTarget};
use backup_core::{Backend, Error, ErrorKind, Named, Result, Source, Target};
use serde_json::Value;
use std::path::Path;

/// Folders and single files.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilesBackend;

impl Backend for FilesBackend {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn folder(&self) -> &'static str {
        "files"
    }

    fn schema(&self) -> Value {
        schemars::schema_for!(FilesConfig).into()
    }

    fn source(&self, component: &str, config: Value) -> Result<Box<dyn Source>> {
        FilesSource::boxed(component, FilesConfig::read(config, component)?)
    }

    fn target(&self, component: &str, config: Value) -> Result<Box<dyn Target>> {
        FilesTarget::boxed(component, &FilesConfig::read(config, component)?)
    }

    fn recover(&self, undo: Value) -> Result<Box<dyn Target>> {
        FilesTarget::recovered(undo)
    }

    /// Everything that is no URL is a path, also one that does not exist yet.
    fn parse(&self, place: &str) -> Option<Result<Named>> {
        let scheme = place.split_once("://").map(|(scheme, _)| scheme);
        let is_url = scheme.is_some_and(|s| {
            s.len() > 1 && s.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        });
        (!is_url).then(|| named(place))
    }
}

fn named(place: &str) -> Result<Named> {
    if place.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "read a path", "it is empty"));
    }
    let path = absolute(Path::new(place))?;
    let canonical = std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
    let config = FilesConfig::new(&path).to_value();
    let identity = match canonical.to_str() {
        Some(text) => text.to_owned(),
        None => backup_core::display_path(&path_to_bytes(&canonical)),
    };
    Ok(Named { name: component_name(&canonical), identity, config })
}

/// The last name of the path, with everything that a component's name may not have made a dash.
fn component_name(path: &Path) -> String {
    let last = path.file_name().map(|n| path_to_bytes(Path::new(n))).unwrap_or_default();
    let mut name: String = path_from_bytes(last)
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(100)
        .collect();
    name = name.trim_start_matches(['.', '-']).to_owned();
    if name.is_empty() { "files".to_owned() } else { name }
}

/// Where there is no Unix, full fidelity cannot be promised yet.
#[cfg(not(unix))]
mod elsewhere {
    use super::{Error, ErrorKind, FilesConfig, Result, Source, Target, Value};

    pub(super) struct FilesSource;
    pub(super) struct FilesTarget;

    fn unsupported<T>() -> Result<T> {
        Err(Error::new(ErrorKind::Unsupported, "read or restore files", "on this system it is not built yet"))
    }

    impl FilesSource {
        pub(super) fn boxed(_: &str, _: FilesConfig) -> Result<Box<dyn Source>> {
            unsupported()
        }
    }

    impl FilesTarget {
        pub(super) fn boxed(_: &str, _: &FilesConfig) -> Result<Box<dyn Target>> {
            unsupported()
        }

        pub(super) fn recovered(_: Value) -> Result<Box<dyn Target>> {
            unsupported()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_url_is_a_path() {
        for url in ["s3://b/p", "postgres://u@h/db", "compose://x"] {
            assert!(FilesBackend.parse(url).is_none(), "{url}");
        }
        for (place, name) in
            [("/var/lib/data", "data"), ("/", "files"), ("/x/.config", "config"), ("/a b", "a-b")]
        {
            let named = FilesBackend.parse(place).unwrap().unwrap();
            assert_eq!(named.name, name);
            assert!(backup_core::is_component_name(&named.name));
        }
        assert!(FilesBackend.parse("").unwrap().is_err());
        let here = FilesBackend.parse("./x").unwrap().unwrap();
        assert!(Path::new(&here.identity).is_absolute() && here.name == "x");
    }

    #[test]
    fn the_schema_names_every_key() {
        let schema = FilesBackend.schema().to_string();
        for key in ["exclude_files", "one_file_system", "no_owner", "exclude_caches"] {
            assert!(schema.contains(key), "{key}");
        }
    }
}
