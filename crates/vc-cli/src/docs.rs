//! `vc completions` and `vc man`: what shells and man(1) want to know of the command line.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::{Cli, Man};
use crate::failure::Failure;
use crate::oci::report::FAILED;

/// Prints what the shell completes the command line by.
pub(crate) fn completions(shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "vc", &mut text);
    finish(Ok(text))
}

/// Prints the page of `vc`, or of one of its commands.
pub(crate) fn man(options: &Man) -> ExitCode {
    let mut command = Cli::command();
    command.build();
    let names = &options.command;
    let found = names.iter().try_fold(&command, |command, name| command.find_subcommand(name));
    let Some(found) = found else {
        let why = format!("there is no command {:?}; see `vc --help`", names.join(" "));
        return Failure::message(why).with_code(FAILED).report();
    };
    let title = std::iter::once("vc").chain(names.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    let page = clap_mangen::Man::new(found.clone()).title(title);
    let mut text = Vec::new();
    let rendered = page.render(&mut text);
    finish(rendered.map(|()| text))
}

fn finish(text: io::Result<Vec<u8>>) -> ExitCode {
    match text.and_then(|text| io::stdout().write_all(&text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::step("print it", error).with_code(FAILED).report(),
    }
}
