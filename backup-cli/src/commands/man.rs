//! `backup man`

use crate::{
    args::{Args, Man},
    exit,
    failure::Result,
    render::Output,
};
use backup_kit::{CoreError, ErrorKind};
use clap::CommandFactory;
use serde_json::json;

/// One page to stdout, or the pages of all commands into a folder.
pub(super) fn run(args: &Man, output: Output) -> Result<u8> {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command()).render(&mut page)?;
        output.always(&String::from_utf8_lossy(&page))?;
        return Ok(exit::COMPLETE);
    };
    let failed = |e| CoreError::io(ErrorKind::Target, "write the man pages", e).on(folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Args::command(), folder).map_err(failed)?;
    output.result(&format!(
        "man pages are in {}: `man -l {}/backup.1`",
        folder.display(),
        folder.display()
    ))?;
    output.object(exit::COMPLETE, json!({ "folder": folder }))?;
    Ok(exit::COMPLETE)
}
