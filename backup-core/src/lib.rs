//! The nouns, rules and pipelines of backup: sources, sinks, targets, the portable archive, restore as a transaction.

pub mod tar;
