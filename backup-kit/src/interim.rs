//! INTERIM: stands in until the real ones are merged.
use backup_core::*;
use schemars::JsonSchema;
use serde_json::Value;
use std::path::PathBuf;
fn no<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "open the archive", "not yet"))
}
pub(crate) struct FilesBackend;
#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct FilesConfig {
    path: PathBuf,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    exclude_files: Vec<PathBuf>,
    #[serde(default)]
    one_file_system: bool,
    #[serde(default)]
    no_owner: bool,
}
struct Src(PathBuf);
impl std::fmt::Display for Src {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.display().fmt(f)
    }
}
#[async_trait::async_trait]
impl Source for Src {
    async fn connect(&self, _: &Context) -> Result<Box<dyn Ready>> {
        no()
    }
    fn origin(&self) -> Value {
        serde_json::json!({"path": self.0})
    }
}
impl Backend for FilesBackend {
    fn kind(&self) -> &'static str {
        "files"
    }
    fn folder(&self) -> &'static str {
        "files"
    }
    fn schema(&self) -> Value {
        schemars::schema_for!(FilesConfig).to_value()
    }
    fn source(&self, _: &str, config: Value) -> Result<Box<dyn Source>> {
        serde_json::from_value::<FilesConfig>(config)
            .map(|c| Box::new(Src(c.path)) as _)
            .map_err(|e| Error::new(ErrorKind::Usage, "read", e))
    }
    fn target(&self, _: &str, _: Value) -> Result<Box<dyn Target>> {
        no()
    }
    fn recover(&self, _: Value) -> Result<Box<dyn Target>> {
        no()
    }
    fn parse(&self, place: &str) -> Option<Result<Named>> {
        if place.contains("://") {
            return None;
        }
        let p = std::path::absolute(place).ok()?;
        Some(Ok(Named {
            name: p.file_name()?.to_string_lossy().into(),
            identity: p.display().to_string(),
            config: serde_json::json!({"path": p}),
        }))
    }
}
