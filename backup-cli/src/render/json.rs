//! The final object on stdout: version 1. Fields are added, never changed.

use backup_kit::{CoreError, Error};
use serde_json::{Value, json};
use std::error::Error as _;

/// Version of the objects.
pub(crate) const VERSION: u32 = 1;

/// Puts version and exit code in front of an object's fields.
pub(crate) fn with_code(code: u8, object: Value) -> Value {
    let mut all = json!({ "version": VERSION, "exit_code": code });
    if let (Some(all), Value::Object(fields)) = (all.as_object_mut(), object) {
        all.extend(fields);
    }
    all
}

/// An error with what is known of it.
pub(crate) fn error(error: &Error) -> Value {
    match error {
        Error::Failed(e) => {
            let mut object = json!(e);
            // Why it was rolled back is more than that it was.
            if let Some(cause) = e.source().and_then(|cause| cause.downcast_ref::<CoreError>()) {
                object["cause"] = json!({ "kind": cause.kind(), "operation": cause.operation(), "subject": cause.subject() });
            }
            object
        }
        other => json!({ "kind": other.kind(), "message": other.to_string() }),
    }
}
