//! backup.toml: any bytes end in a configuration or an error.
#![no_main]

use backup_kit::{Config, Registry};
use std::path::Path;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let var = |name: &str| (!name.starts_with('X')).then(|| name.to_lowercase());
    match Config::parse(Path::new("/srv/backup.toml"), text, &Registry::default(), &var) {
        Ok(config) => {
            for name in config.module_names() {
                config.module(name).expect("a module that is listed is there");
            }
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    }
});
