//! What every backend promises. Enlist with `backend_conformance!`.

use crate::{
    Must,
    conformance::pouring::pour,
    memory::{ContentsSink, MemorySource, incoming},
};
use async_trait::async_trait;
use backup_core::{Backend, Context, ErrorKind, is_component_name};
use serde_json::Value;
use std::{any::Any, sync::Arc};

/// A backend with a store that it can read.
pub struct Place {
    /// Configuration of the store.
    pub config: Value,
    /// A configuration that is right in form and names a store that is not there.
    pub absent: Value,
    /// Texts that name a store of this kind on the command line.
    pub own_texts: Vec<String>,
    /// Texts of this kind that are wrong.
    pub wrong_texts: Vec<String>,
    /// Keeps the store.
    pub kept: Box<dyn Any + Send + Sync>,
}

/// Makes backends to be tested.
#[async_trait]
pub trait BackendFixture: Send + Sync {
    /// The backend.
    fn backend(&self) -> Box<dyn Backend>;

    /// A store for it.
    async fn place(&self) -> Place;
}

/// They are names of folders and keys of manifests.
pub async fn kind_and_folder_are_names(make: &impl BackendFixture) {
    let backend = make.backend();
    for name in [backend.kind(), backend.folder()] {
        assert!(is_component_name(name), "{name:?}");
        assert_eq!(name.to_lowercase(), name);
    }
}

/// And it refuses keys that it does not know.
pub async fn the_schema_describes_every_key_and_no_other(make: &impl BackendFixture) {
    let (backend, place) = (make.backend(), make.place().await);
    let schema = backend.schema();
    assert_eq!(schema["additionalProperties"], Value::Bool(false), "unknown keys are not refused: {schema}");
    let known = schema["properties"].as_object().must("the schema has properties");
    for key in place.config.as_object().must("the configuration is an object").keys() {
        assert!(known.contains_key(key), "the schema does not know {key}");
    }
    for (key, about) in known {
        let says = about.get("description").and_then(Value::as_str).unwrap_or_default();
        assert!(!says.is_empty(), "{key} is not described");
    }
}

/// A misspelt key is never ignored.
pub async fn an_unknown_key_is_an_error(make: &impl BackendFixture) {
    let (backend, place) = (make.backend(), make.place().await);
    let mut config = place.config.clone();
    config.as_object_mut().must("the configuration is an object").insert("exlude".to_owned(), Value::from(1));
    let error = backend.source("c", config.clone()).err().must("an unknown key of a source is an error");
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("exlude"), "the key is not named: {error}");
    assert!(backend.target("c", config).is_err(), "an unknown key of a target is ignored");
    for wrong in [Value::Null, Value::from("text"), Value::from(vec![1])] {
        assert!(backend.source("c", wrong.clone()).is_err(), "{wrong} is a configuration");
    }
}

/// A restore without a named target goes where the data came from.
pub async fn the_origin_of_a_source_is_a_configuration_of_its_target(make: &impl BackendFixture) {
    let (backend, place) = (make.backend(), make.place().await);
    let origin = backend.source("c", place.config.clone()).must("make a source").origin();
    let mut target = backend.target("c", origin).must("make a target of the origin");
    let nothing = incoming(&MemorySource::new("c")).await;
    let survey = target.survey(&nothing, &Context::default()).await.must("survey the origin");
    assert!(survey.replaces, "the origin is another place: {survey:?}");
}

/// It can be read, and the error for one that is not there says so before anything is stopped.
pub async fn a_store_is_read_and_an_absent_one_is_an_error(make: &impl BackendFixture) {
    let (backend, place, cx) = (make.backend(), make.place().await, Context::default());
    let source = backend.source("c", place.config.clone()).must("make a source");
    assert!(!source.to_string().is_empty());
    let poured = pour(&*source, "c", Arc::new(ContentsSink::new()), &cx).await.must("pour");
    assert_eq!(poured.lost, 0);
    let error = match backend.source("c", place.absent.clone()) {
        Ok(source) => source.connect(&cx).await.err(),
        Err(e) => Some(e),
    };
    let error = error.must("a store that is not there cannot be connected");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

/// What it says in one process serves in the next.
pub async fn undo_is_understood_and_nonsense_is_an_error(make: &impl BackendFixture) {
    let (backend, place, cx) = (make.backend(), make.place().await, Context::default());
    let target = backend.target("c", place.config.clone()).must("make a target");
    let text = target.undo().to_string();
    let undo = serde_json::from_str(&text).must("undo is JSON");
    let mut recovered = backend.recover(undo).must("recover what was never begun");
    recovered.revert(&cx).await.must("revert what was never begun");
    for nonsense in [Value::Null, Value::from("x"), serde_json::json!({ "version": "none" })] {
        assert!(backend.recover(nonsense.clone()).is_err(), "{nonsense} is understood");
    }
}

/// And leaves the texts of others alone.
pub async fn places_on_the_command_line_are_recognised(make: &impl BackendFixture) {
    let (backend, place) = (make.backend(), make.place().await);
    for text in &place.own_texts {
        let named = backend.parse(text).must("its own text is recognised").must("its own text is right");
        assert!(is_component_name(&named.name), "{text} gives the name {:?}", named.name);
        assert!(!named.identity.is_empty());
        backend.source("c", named.config).must("its own text gives a configuration");
    }
    for text in &place.wrong_texts {
        assert!(matches!(backend.parse(text), Some(Err(_))), "{text} is not said to be wrong");
    }
    assert!(backend.parse("nobody-knows-this-scheme://x").is_none(), "it takes the texts of others");
}

/// Makes a test of every promise of a backend. The argument is an expression that makes a `BackendFixture`.
#[macro_export]
macro_rules! backend_conformance {
    ($fixture:expr) => {
        $crate::promises!(
            $fixture,
            backend,
            [
                kind_and_folder_are_names,
                the_schema_describes_every_key_and_no_other,
                an_unknown_key_is_an_error,
                the_origin_of_a_source_is_a_configuration_of_its_target,
                a_store_is_read_and_an_absent_one_is_an_error,
                undo_is_understood_and_nonsense_is_an_error,
                places_on_the_command_line_are_recognised,
            ]
        );
    };
}
