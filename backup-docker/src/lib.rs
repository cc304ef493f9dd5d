#![doc = include_str!("../README.md")]

mod engine;
mod exec;
mod facts;

pub use engine::Docker;
