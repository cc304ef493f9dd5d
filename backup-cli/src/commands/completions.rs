//! `backup completions`

use crate::{
    args::{Args, Completions},
    exit,
    failure::Result,
    render::Output,
};
use clap::CommandFactory;

pub(super) fn run(args: &Completions, output: Output) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "backup", &mut script);
    output.always(&String::from_utf8_lossy(&script))?;
    Ok(exit::COMPLETE)
}
