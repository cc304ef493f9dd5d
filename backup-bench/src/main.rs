//! Races against the tools people use today.

#[cfg(target_os = "linux")]
mod archive;
#[cfg(target_os = "linux")]
mod args;
#[cfg(target_os = "linux")]
mod databases;
#[cfg(target_os = "linux")]
mod destinations;
#[cfg(target_os = "linux")]
mod failure;
#[cfg(target_os = "linux")]
mod generate;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod program;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod supervise;
#[cfg(target_os = "linux")]
mod trees;
#[cfg(target_os = "linux")]
mod verdict;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match args::run() {
        Ok(code) => code.into(),
        Err(failure) => {
            eprintln!("backup-bench: {failure}");
            failure.code().into()
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("backup-bench: the races are run on Linux");
    2.into()
}
