//! The promises of the contracts, each a function of its own; enlisting makes each a test whose name is the promise.
