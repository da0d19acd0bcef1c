//! The commands of an OCI runtime, as runc and crun have them.

pub(crate) mod client;
pub(crate) mod console;
mod control;
mod create;
pub(crate) mod hooks;
pub(crate) mod protocol;
pub(crate) mod record;
pub(crate) mod remove;
pub(crate) mod report;
pub(crate) mod root;
pub(crate) mod state;

use std::process::ExitCode;

use crate::cli::{Create, Delete, Global, Id, Kill, List};
use crate::failure::Failure;
use root::Root;

/// One of the commands.
#[derive(Debug)]
pub(crate) enum Oci {
    Create(Box<Create>),
    Start(Id),
    State(Id),
    Kill(Kill),
    Delete(Delete),
    List(List),
}

/// Does what the command says; the exit code is runc's.
pub(crate) fn run(global: &Global, command: Oci) -> ExitCode {
    match act(global, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report::report(global, failure, report::FAILED),
    }
}

fn act(global: &Global, command: Oci) -> Result<(), Failure> {
    let root = Root::of(global.root.as_deref())?;
    match command {
        Oci::Create(options) => create::create(&root, &options),
        Oci::Start(options) => control::start(&root, &options.id),
        Oci::State(options) => state::state(&root, &options.id),
        Oci::Kill(options) => control::kill(&root, &options.id, options.signal, options.all),
        Oci::Delete(options) => control::delete(&root, &options.id, options.force),
        Oci::List(options) => state::list(&root, options.format, options.quiet),
    }
}
