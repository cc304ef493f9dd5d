//! How sources and targets of MySQL and MariaDB are made.

use crate::{MysqlConfig, address::Address, source::MysqlSource, target::MysqlTarget};
use backup_core::{
    Backend, ContainerEngine, ContainerFacts, Error, ErrorKind, Named, NoContainers, Parts, Result, Source,
    Target,
};
use serde_json::Value;
use std::sync::Arc;

/// Databases of MySQL and MariaDB.
#[derive(Clone)]
pub struct MysqlBackend {
    engine: Arc<dyn ContainerEngine>,
}

impl MysqlBackend {
    /// With this engine for servers in containers, and for their tools.
    pub fn new(engine: Arc<dyn ContainerEngine>) -> Self {
        MysqlBackend { engine }
    }
}

impl Default for MysqlBackend {
    /// Without containers.
    fn default() -> Self {
        MysqlBackend::new(Arc::new(NoContainers))
    }
}

impl Backend for MysqlBackend {
    fn kind(&self) -> &'static str {
        "mysql"
    }

    fn folder(&self) -> &'static str {
        "db"
    }

    fn schema(&self) -> Value {
        schemars::schema_for!(MysqlConfig).into()
    }

    fn source(&self, component: &str, config: Value) -> Result<Box<dyn Source>> {
        let config = MysqlConfig::read(config, component)?;
        Ok(Box::new(MysqlSource::new(component, config, self.engine.clone())))
    }

    fn target(&self, component: &str, config: Value) -> Result<Box<dyn Target>> {
        let config = MysqlConfig::read(config, component)?;
        Ok(Box::new(MysqlTarget::new(component, config, self.engine.clone())))
    }

    fn recover(&self, undo: Value) -> Result<Box<dyn Target>> {
        Ok(Box::new(MysqlTarget::recover(undo, self.engine.clone())?))
    }

    fn parts(&self) -> Option<Parts> {
        Some(Parts {
            is_data: |path| path.ends_with(b"/data.tsv"),
            goes_along: |_| false,
            whole: database_of,
        })
    }

    fn parse(&self, place: &str) -> Option<Result<Named>> {
        Address::is_one(place).then(|| named(place))
    }

    fn recognise(&self, container: &ContainerFacts, inside: Option<&str>) -> Option<Named> {
        let images = ["mysql", "mysql-server", "mariadb", "percona", "percona-server"];
        let variables = ["MYSQL_MAJOR", "MYSQL_VERSION", "MARIADB_VERSION"];
        if !images.contains(&container.image_name()) && !variables.iter().any(|v| container.has_variable(v)) {
            return None;
        }
        let databases = inside.map(str::to_owned).into_iter().collect();
        let config = MysqlConfig { databases, ..MysqlConfig::container(&container.name) };
        Some(Named::in_container(container, inside, config.to_value()))
    }
}

/// `app` of `app.orders/data.tsv`: names of databases in paths have no dots.
fn database_of(path: &[u8]) -> Option<&[u8]> {
    let first = path.split(|b| *b == b'/').next()?;
    first.iter().position(|b| *b == b'.').map(|dot| &path[..dot])
}

fn named(place: &str) -> Result<Named> {
    let address = Address::parse(place)?;
    let Some(database) = &address.database else {
        let e = Error::new(ErrorKind::Usage, "read an address of MySQL", "it names no database");
        return Err(e.on(place).hint("mysql://user@host:3306/database"));
    };
    let config = MysqlConfig::url(place);
    let name: String = database
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' })
        .take(100)
        .collect();
    let name = name.trim_start_matches(['.', '-']).to_owned();
    Ok(Named {
        name: if name.is_empty() { "db".to_owned() } else { name },
        identity: config.place(),
        config: config.to_value(),
    })
}
