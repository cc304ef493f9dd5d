//! Archives that somebody made to do harm: each is refused, with a reason, and nothing is written.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod bombs;
mod container;
mod forge;
mod frames;
mod index;
mod paths;
mod well_formed;
mod world;
