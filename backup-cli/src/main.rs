//! The program `backup`: arguments become settings, settings become calls of the library, reports become text.

mod allocator;
mod args;
mod commands;
mod consent;
mod control;
mod exit;
mod failure;
mod render;
mod settings;
mod signals;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::keep_few_heaps();
    // Nothing is started before the arguments are read: `backup --version` must answer at once.
    ExitCode::from(match args::Args::try_parse() {
        Ok(args) => commands::run(args),
        Err(e) => commands::wrong_arguments(&e),
    })
}
