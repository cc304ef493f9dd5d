//! The JSON schema of `backup.toml`: the file's own structs with, for every store, the store's.

use super::ConfigFile;
use crate::Registry;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

/// Stands in the schema where the stores' own schemas are put.
#[derive(JsonSchema)]
#[schemars(rename = "Source")]
pub(super) struct Source {}

/// JSON schema of the whole file, for editors: published as `docs/backup.schema.json`.
pub fn schema(registry: &Registry) -> Value {
    let mut root = schemars::schema_for!(ConfigFile).to_value();
    let mut shared = Map::new();
    let one_of: Vec<Value> = registry
        .kinds()
        .filter_map(|kind| Some(source(kind, registry.get(kind).ok()?.schema(), &mut shared)))
        .collect();
    if let Some(defs) = root["$defs"].as_object_mut() {
        defs.insert(
            "Source".into(),
            json!({ "description": "A component: one source of a module.", "oneOf": one_of }),
        );
        defs.extend(shared);
    }
    root
}

fn source(kind: &str, mut schema: Value, shared: &mut Map<String, Value>) -> Value {
    let Some(object) = schema.as_object_mut() else { return schema };
    object.remove("$schema");
    if let Some(Value::Object(defs)) = object.remove("$defs") {
        shared.extend(defs);
    }
    if let Some(properties) = object.entry("properties").or_insert_with(|| json!({})).as_object_mut() {
        properties.insert("kind".into(), json!({ "const": kind }));
        properties.insert(
            "disposable".into(),
            json!({
                "type": "boolean",
                "default": false,
                "description": "A restore may replace it without asking (`--yes`)."
            }),
        );
    }
    if let Some(required) = object.entry("required").or_insert_with(|| json!([])).as_array_mut() {
        required.insert(0, json!("kind"));
    }
    object.insert("additionalProperties".into(), json!(false));
    schema
}
