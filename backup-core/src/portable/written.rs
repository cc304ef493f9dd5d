//! Digests of the encrypted backups that this run has written: they can be compared without the key.

use crate::{BackupId, Sha};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// sha256 of whole files. A clone is the same list.
#[derive(Clone, Default)]
pub(super) struct Written(Arc<Mutex<HashMap<BackupId, Sha>>>);

impl Written {
    pub(super) fn keep(&self, id: &BackupId, sha256: Sha) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), sha256);
    }

    pub(super) fn of(&self, id: &BackupId) -> Option<Sha> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }
}
