//! The `vc` command.

mod check;
mod cli;
mod docs;
mod explain;
mod failure;
mod guest_image;
mod log;
mod machine;
mod oci;
mod owner;
mod rootfs;
mod run;
mod serial;
mod signals;
mod stdio;
mod sys;
mod terminal;
mod timeline;
mod values;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command, Run};
use failure::Failure;
use oci::Oci;

fn main() -> ExitCode {
    let start = Instant::now();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Where even this cannot be printed, the exit code must do.
            let _ = error.print();
            return ExitCode::from(if asked_for { 0 } else { usage_error() });
        }
    };
    let oci = match cli.command {
        Command::Run(options) => return run(*options, start),
        Command::Explain(options) => {
            return explain::explain(&options).map_or_else(Failure::report, |()| ExitCode::SUCCESS);
        }
        Command::Completions { shell } => return docs::completions(shell),
        Command::Man(options) => return docs::man(&options),
        Command::Check(options) => return check::check(&options),
        // Its log is in the container's directory.
        Command::Owner(_) => return owner::own(),
        Command::Attend(_) => return oci::attend_as_ordered(),
        Command::Create(options) => Oci::Create(options),
        Command::Start(options) => Oci::Start(options),
        Command::State(options) => Oci::State(options),
        Command::Kill(options) => Oci::Kill(options),
        Command::Delete(options) => Oci::Delete(options),
        Command::List(options) => Oci::List(options),
        Command::Exec(options) => Oci::Exec(options),
        Command::Ps(options) => Oci::Ps(options),
        Command::Pause(options) => Oci::Pause(options),
        Command::Resume(options) => Oci::Resume(options),
        Command::Update(options) => Oci::Update(options),
        Command::Events(options) => Oci::Events(options),
        Command::Features => Oci::Features,
        Command::Spec(options) => Oci::Spec(options),
    };
    log::to_stderr(None, if cli.global.debug { "debug" } else { log::USUAL });
    oci::run(&cli.global, oci)
}

fn run(options: Run, start: Instant) -> ExitCode {
    let timeline = options.timeline.then(|| timeline::Timeline::starting(start));
    log::to_stderr(timeline.clone(), log::USUAL);
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

/// The exit codes of `vc run` are those of a command, so its own is one that few commands have.
fn usage_error() -> u8 {
    let is_run = std::env::args_os().nth(1).is_some_and(|command| command == "run");
    if is_run { failure::RUNTIME } else { oci::report::FAILED }
}
