//! How sources and targets of MySQL and MariaDB are made.

use crate::{MysqlConfig, address::Address, source::MysqlSource, target::MysqlTarget};
use backup_core::{Backend, Error, ErrorKind, Named, Result, Source, Target};
use serde_json::Value;

/// Databases of MySQL and MariaDB.
#[derive(Clone, Copy, Debug, Default)]
pub struct MysqlBackend;

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
        Ok(Box::new(MysqlSource::new(component, MysqlConfig::read(config, component)?)))
    }

    fn target(&self, component: &str, config: Value) -> Result<Box<dyn Target>> {
        Ok(Box::new(MysqlTarget::new(component, MysqlConfig::read(config, component)?)))
    }

    fn recover(&self, undo: Value) -> Result<Box<dyn Target>> {
        Ok(Box::new(MysqlTarget::recover(undo)?))
    }

    fn parse(&self, place: &str) -> Option<Result<Named>> {
        Address::is_one(place).then(|| named(place))
    }
}

fn named(place: &str) -> Result<Named> {
    let address = Address::parse(place)?;
    let Some(database) = &address.database else {
        let e = Error::new(ErrorKind::Usage, "read an address of MySQL", "it names no database");
        return Err(e.on(place).hint("mysql://user@host:3306/database"));
    };
    let config = MysqlConfig::new(place);
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
