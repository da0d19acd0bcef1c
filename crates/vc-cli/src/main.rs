//! The `vc` command.
#![forbid(unsafe_code)]

mod cli;
mod explain;
mod failure;
mod guest_image;
mod log;
mod run;
mod timeline;
mod values;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let start = Instant::now();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Where even this cannot be printed, the exit code must do.
            let _ = error.print();
            return ExitCode::from(if asked_for { 0 } else { failure::RUNTIME });
        }
    };
    let options = match cli.command {
        Command::Run(options) => options,
        Command::Explain(options) => {
            return explain::explain(&options).map_or_else(Failure::report, |()| ExitCode::SUCCESS);
        }
    };
    let timeline = options.timeline.then(|| timeline::Timeline::starting(start));
    log::init(timeline.clone());
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::step("start", error).report(),
    };
    let code = match runtime.block_on(run::run(options)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.report(),
    };
    if let Some(timeline) = timeline {
        timeline.print();
    }
    // A thread may still be blocked in a read of the standard input; nothing of ours waits for it.
    runtime.shutdown_background();
    code
}
