//! The `vc` command.

mod check;
mod cli;
mod config;
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

use cli::{Cli, Command, Events, Global, Guest, Id, Run};
use config::Config;
use failure::Failure;
use oci::Oci;
use oci::report::FAILED;

fn main() -> ExitCode {
    let start = Instant::now();
    if let Some(stay) = left_behind() {
        sys::hold_little_memory();
        return stay();
    }
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
        Command::Run(options) if options.is_named() => match options.named() {
            Ok(named) => Oci::Run(Box::new(named)),
            Err(failure) => return failure.with_code(FAILED).report(),
        },
        Command::Run(options) => return run(&cli.global, *options, start),
        Command::Explain(options) => {
            return explain::explain(&cli.global, &options)
                .map_or_else(Failure::report, |()| ExitCode::SUCCESS);
        }
        Command::Completions { shell } => return docs::completions(shell),
        Command::Man(options) => return docs::man(&options),
        Command::Check(options) => {
            let config = Config::load(&cli.global, &options);
            return config
                .map_or_else(|failure| failure.with_code(FAILED).report(), |config| check::check(&config));
        }
        Command::Config(options) => {
            return done(Config::load(&cli.global, &options).and_then(|config| config::show(&config)));
        }
        Command::Guest(Guest::Build(options)) => return done(guest_image::build(&cli.global, &options)),
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
        Command::Stats(Id { id }) => Oci::Events(Events::once(id)),
        Command::DirectVolume(what) => Oci::DirectVolume(what),
        Command::Recover => Oci::Recover,
        Command::Features => Oci::Features,
        Command::Spec(options) => Oci::Spec(options),
    };
    log::to_stderr(None, log::level(cli.global.debug));
    oci::run(&cli.global, oci)
}

fn done(result: Result<(), Failure>) -> ExitCode {
    result.map_or_else(|failure| failure.with_code(FAILED).report(), |()| ExitCode::SUCCESS)
}

/// What `create` and `exec --detach` leave behind: a process that lives as long as a container does. All that the
/// command line takes to be read would stay in its memory. The argument after is for those who list processes.
fn left_behind() -> Option<fn() -> ExitCode> {
    match std::env::args_os().nth(1)?.to_str()? {
        // Its log is in the container's directory.
        owner::COMMAND => Some(owner::own),
        oci::ATTEND => Some(oci::attend_as_ordered),
        _ => None,
    }
}

fn run(global: &Global, options: Run, start: Instant) -> ExitCode {
    let timeline = options.timeline.then(|| timeline::Timeline::starting(start));
    log::to_stderr(timeline.clone(), log::USUAL);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::step("start", error).report(),
    };
    let config = Config::load(global, &options.machine);
    let run = async { run::run(options, config?).await };
    let code = match runtime.block_on(run) {
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
    if is_run { failure::RUNTIME } else { FAILED }
}
