//! The embedding API: modules, backup, restore, the registry of stores.
