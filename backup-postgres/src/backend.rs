//! How sources and targets of PostgreSQL are made.

use crate::{PostgresConfig, address::Address, layout, source::PostgresSource, target::PostgresTarget};
use backup_core::{
    Backend, ContainerEngine, ContainerFacts, Named, NoContainers, Parts, Result, Source, Target,
};
use serde_json::Value;
use std::sync::Arc;

/// PostgreSQL databases.
#[derive(Clone)]
pub struct PostgresBackend {
    engine: Arc<dyn ContainerEngine>,
}

impl PostgresBackend {
    /// With this engine for servers in containers, and for their tools.
    pub fn new(engine: Arc<dyn ContainerEngine>) -> Self {
        PostgresBackend { engine }
    }
}

impl Default for PostgresBackend {
    /// Without containers.
    fn default() -> Self {
        PostgresBackend::new(Arc::new(NoContainers))
    }
}

impl Backend for PostgresBackend {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn folder(&self) -> &'static str {
        "db"
    }

    fn schema(&self) -> Value {
        schemars::schema_for!(PostgresConfig).into()
    }

    fn source(&self, component: &str, config: Value) -> Result<Box<dyn Source>> {
        let config = PostgresConfig::read(config, component)?;
        Ok(Box::new(PostgresSource::new(component, config, self.engine.clone())))
    }

    fn target(&self, component: &str, config: Value) -> Result<Box<dyn Target>> {
        let config = PostgresConfig::read(config, component)?;
        Ok(Box::new(PostgresTarget::new(component, config, self.engine.clone())))
    }

    fn recover(&self, undo: Value) -> Result<Box<dyn Target>> {
        Ok(Box::new(PostgresTarget::recover(undo, self.engine.clone())?))
    }

    fn parts(&self) -> Option<Parts> {
        Some(Parts { is_data: layout::is_data, goes_along: layout::goes_along, whole: |_| None })
    }

    fn parse(&self, place: &str) -> Option<Result<Named>> {
        Address::is_one(place).then(|| named(place))
    }

    fn recognise(&self, container: &ContainerFacts, inside: Option<&str>) -> Option<Named> {
        let images = ["postgres", "postgresql", "postgis", "pgvector", "timescaledb", "timescaledb-ha"];
        if !images.contains(&container.image_name()) && !container.has_variable("PG_MAJOR") {
            return None;
        }
        let mut config = PostgresConfig::container(&container.name);
        match inside {
            Some(all @ "*") => config.databases.push(all.to_owned()),
            one => config.database = one.map(str::to_owned),
        }
        Some(Named::in_container(container, inside, config.to_value()))
    }
}

fn named(place: &str) -> Result<Named> {
    let address = Address::parse(place)?;
    let database = address.database.or(address.user).unwrap_or_else(|| "postgres".to_owned());
    let name: String = database
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .collect();
    let name = name.trim_start_matches(['.', '-']);
    let name = if name.is_empty() { "postgres" } else { name };
    let host = address.host.unwrap_or_else(|| "local".to_owned());
    let port = address.port.unwrap_or(crate::address::DEFAULT_PORT);
    Ok(Named {
        name: name.chars().take(100).collect(),
        identity: format!("postgres://{host}:{port}/{database}"),
        config: PostgresConfig::url(place).to_value(),
    })
}
