//! What only PostgreSQL can do wrong.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod by_hand;
#[path = "../common/mod.rs"]
mod common;
mod dump;
mod exclude;
mod extensions;
mod faults;
mod globals;
mod in_place;
mod indexes;
mod moment;
mod obstacles;
mod rights;
mod round_trip;
mod several;
mod tls;
mod views;
