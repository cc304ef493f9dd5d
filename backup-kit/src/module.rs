//! An application: its sources by name.

use crate::{ArchiveSpec, Backup, Health, Registry, Restore, SourceSpec, series::slug};
use backup_core::{Error, ErrorKind, Result, is_component_name};
use serde_json::{Value, json};

/// An application, and what of it is backed up: its components by name. A clone is independent.
#[derive(Clone, Debug)]
pub struct Module {
    pub(crate) name: String,
    pub(crate) registry: Registry,
    pub(crate) sources: Vec<(String, SourceSpec)>,
    /// Places named on the command line: they are part of the series.
    pub(crate) places: Vec<String>,
    /// Containers that use the stores.
    pub(crate) app: Vec<String>,
    pub(crate) health: Option<Health>,
}

impl Module {
    /// A module without sources. The name is checked when it is used.
    pub fn new(name: impl Into<String>) -> Self {
        Module {
            name: name.into(),
            registry: Registry::default(),
            sources: Vec::new(),
            places: Vec::new(),
            app: Vec::new(),
            health: None,
        }
    }

    /// The module of sources named in texts: `./folder`, `name=./folder`. Its name is `name`, else the sources' names joined
    /// by `-`; its series is that of these places on this host.
    pub async fn from_places(places: &[String], name: Option<&str>, registry: &Registry) -> Result<Self> {
        let mut module = Module::new("").registry(registry.clone());
        for text in places {
            let (component, place) = split_name(text);
            let (backend, named) = registry.parse(place).await?;
            let component = component.map_or_else(|| slug(&named.name), str::to_owned);
            if module.sources.iter().any(|(other, _)| *other == component) {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "name the sources",
                    "two sources have the same name",
                )
                .on(&component)
                .hint(format!("give one of them another: other={place}")));
            }
            module.sources.push((component, SourceSpec::new(backend.kind(), named.config)));
            module.places.push(named.identity);
        }
        let joined = || module.sources.iter().map(|(c, _)| c.as_str()).collect::<Vec<_>>().join("-");
        module.name = name.map_or_else(|| slug(&joined()), str::to_owned);
        Ok(module)
    }

    /// Adds a source as a component of this name; one of the same name is replaced.
    #[must_use]
    pub fn source(mut self, component: impl Into<String>, source: impl Into<SourceSpec>) -> Self {
        let component = component.into();
        self.sources.retain(|(other, _)| *other != component);
        self.sources.push((component, source.into()));
        self
    }

    /// Containers that use the stores. Those that run when a restore takes effect are stopped for it and started after it. Called again
    /// it adds to them.
    #[must_use]
    pub fn app<I: IntoIterator<Item: Into<String>>>(mut self, containers: I) -> Self {
        self.app.extend(containers.into_iter().map(Into::into));
        self
    }

    /// What says whether the application works: asked when a restore has taken effect. If it does not, the old data is brought back.
    #[must_use]
    pub fn health(mut self, health: impl Into<Health>) -> Self {
        self.health = Some(health.into());
        self
    }

    /// Uses these stores instead of those of this build: `Registry::default().with(MyStore)`.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Sets a key of the configuration of every source whose store knows it; a list is added to the list that is there.
    /// No store that knows it is an error.
    pub fn configure(mut self, key: &str, value: &Value) -> Result<Self> {
        let mut known = false;
        for (_, source) in &mut self.sources {
            if self.registry.get(&source.kind)?.schema()["properties"].get(key).is_none() {
                continue;
            }
            known = true;
            let Some(config) = source.config.as_object_mut() else { continue };
            match (config.get_mut(key), value) {
                (Some(Value::Array(there)), Value::Array(more)) => there.extend(more.iter().cloned()),
                _ => drop(config.insert(key.to_owned(), json!(value))),
            }
        }
        if known {
            return Ok(self);
        }
        Err(Error::new(ErrorKind::Usage, "configure the sources", format!("none of them knows `{key}`"))
            .on(&self.name))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Names and kinds of its components.
    pub fn components(&self) -> impl Iterator<Item = (&str, &str)> {
        self.sources.iter().map(|(name, source)| (name.as_str(), source.kind.as_str()))
    }

    /// Begins a backup.
    pub fn backup(&self) -> Backup {
        Backup::new(self.clone())
    }

    /// Begins a restore of a backup of this module.
    pub fn restore(&self, archive: ArchiveSpec) -> Restore {
        Restore::new(archive).of(self.clone())
    }

    pub(crate) fn check(&self) -> Result<()> {
        let names = std::iter::once(&self.name).chain(self.sources.iter().map(|(n, _)| n));
        for name in names {
            if !is_component_name(name) {
                return Err(Error::new(
                    ErrorKind::Usage,
                    "use the name",
                    "a name has letters, digits, `.`, `_` and `-`, and does not lead with a dot or dash",
                )
                .on(format!("{name:?}")));
            }
        }
        if self.sources.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "use the module", "it has no sources").on(&self.name));
        }
        Ok(())
    }
}

/// `name=place`: a name is `[a-z0-9-]+`.
pub(crate) fn split_name(text: &str) -> (Option<&str>, &str) {
    match text.split_once('=') {
        Some((name, place))
            if !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') =>
        {
            (Some(name), place)
        }
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_before_a_place_is_lower_case_and_before_the_first_equals_sign() {
        assert_eq!(split_name("data=./x=y"), (Some("data"), "./x=y"));
        assert_eq!(split_name("./a=b"), (None, "./a=b"));
        assert_eq!(split_name("C=x"), (None, "C=x"));
        assert_eq!(split_name("./x"), (None, "./x"));
    }

    #[test]
    fn a_module_without_sources_or_with_a_bad_name_is_refused() {
        assert_eq!(Module::new("a").check().unwrap_err().kind(), ErrorKind::Usage);
        let m = Module::new("../a").source("x", files_here());
        assert!(m.check().unwrap_err().to_string().contains("../a"));
    }

    fn files_here() -> SourceSpec {
        crate::files::folder(".").into()
    }
}
