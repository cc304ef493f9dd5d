//! `backup config`

use crate::{
    args::{Config as Args, ConfigCommand, Global},
    exit,
    failure::Result,
    render::Output,
    settings::Settings,
};
use backup_kit::{Config, CoreError, Registry, config, without_secrets};
use serde_json::json;
use std::fmt::Write;

pub(super) fn run(args: &Args, global: &Global, output: Output) -> Result<u8> {
    match args.command {
        ConfigCommand::Example => output.always(config::EXAMPLE)?,
        ConfigCommand::Schema => {
            let schema = serde_json::to_string_pretty(&config::schema(&Registry::default()))
                .map_err(|e| CoreError::contract(format!("the schema cannot be written: {e}")))?;
            output.always(&schema)?;
        }
        ConfigCommand::Check => {
            let settings = Settings::resolve(global, output)?;
            let found = settings.config()?;
            found.check()?;
            output.result(&summary(found)?)?;
            let archives: Vec<&str> = found.archives().map(|(name, _)| name).collect();
            let modules: Vec<&str> = found.module_names().collect();
            output.object(
                exit::COMPLETE,
                json!({ "file": found.file(), "modules": modules, "archives": archives }),
            )?;
        }
    }
    Ok(exit::COMPLETE)
}

fn summary(found: &Config) -> Result<String> {
    let mut out = format!("{}: no mistakes\n", found.file().display());
    for name in found.module_names() {
        let module = found.module(name)?;
        let components: Vec<String> = module.components().map(|(c, kind)| format!("{c} ({kind})")).collect();
        let _ = writeln!(out, "  module   {name}: {}", components.join(", "));
    }
    for (name, archive) in found.archives() {
        let _ = writeln!(out, "  archive  {name}: {}", without_secrets(&archive.url));
    }
    Ok(out)
}
