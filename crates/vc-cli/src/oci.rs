//! The commands of an OCI runtime, as runc and crun have them.

mod attend;
pub(crate) mod cgroup;
pub(crate) mod client;
pub(crate) mod console;
mod control;
mod create;
mod events;
mod exec;
mod features;
pub(crate) mod hooks;
mod member;
pub(crate) mod namespaces;
mod own_terminal;
mod pod;
pub(crate) mod protocol;
pub(crate) mod record;
mod recover;
pub(crate) mod remove;
pub(crate) mod report;
pub(crate) mod root;
mod run;
pub(crate) mod state;
pub(crate) mod talk;
mod update;
mod volume;

use std::process::ExitCode;

pub(crate) use attend::attend_as_ordered;

use crate::cli::{
    Create, Delete, DirectVolume, Events, Exec, Global, Id, Kill, List, MakeSpec, NamedRun, Ps, Update,
};
use crate::failure::Failure;
use protocol::Ask;
use root::Root;

/// What a process is told to do that stays with an executed process.
pub(crate) const ATTEND: &str = "attend";

/// One of the commands.
#[derive(Debug)]
pub(crate) enum Oci {
    Create(Box<Create>),
    Run(Box<NamedRun>),
    Start(Id),
    State(Id),
    Kill(Kill),
    Delete(Delete),
    List(List),
    Exec(Box<Exec>),
    Ps(Ps),
    Pause(Id),
    Resume(Id),
    Update(Box<Update>),
    Events(Events),
    DirectVolume(DirectVolume),
    Features,
    Recover,
    Spec(MakeSpec),
}

/// Does what the command says; the exit code is runc's.
pub(crate) fn run(global: &Global, command: Oci) -> ExitCode {
    let root = match Root::of(global.root.as_deref()) {
        Ok(root) => root,
        Err(failure) => return report::report(global, failure, report::FAILED),
    };
    let executed = match command {
        Oci::Run(options) => {
            let code = run::run(&root, global, *options);
            return code
                .map_or_else(|failure| report::report(global, failure, report::FAILED), ExitCode::from);
        }
        Oci::Exec(options) => exec::exec(&root, &options),
        Oci::Ps(options) => exec::ps(&root, &options),
        other => {
            let done = act(&root, global, other);
            return done.map_or_else(
                |failure| report::report(global, failure, report::FAILED),
                |()| ExitCode::SUCCESS,
            );
        }
    };
    executed.map_or_else(|failure| report::report(global, failure, report::NOT_EXECUTED), ExitCode::from)
}

fn act(root: &Root, global: &Global, command: Oci) -> Result<(), Failure> {
    match command {
        Oci::Create(options) => create::create(root, global, &options),
        Oci::Start(options) => control::start(root, &options.id),
        Oci::State(options) => state::state(root, &options.id),
        Oci::Kill(options) => control::kill(root, &options.id, options.signal, options.all),
        Oci::Delete(options) => control::delete(root, &options.id, options.force),
        Oci::List(options) => state::list(root, options.format, options.quiet),
        Oci::Pause(options) => control::freeze(root, &options.id, Ask::Pause),
        Oci::Resume(options) => control::freeze(root, &options.id, Ask::Resume),
        Oci::Update(options) => update::update(root, &options),
        Oci::Events(options) => events::events(root, &options),
        Oci::DirectVolume(what) => volume::direct_volume(root, &what),
        Oci::Recover => recover::recover(root),
        Oci::Features => features::features(),
        Oci::Spec(options) => features::spec(&options),
        Oci::Run(_) | Oci::Exec(_) | Oci::Ps(_) => unreachable!("the caller has their exit codes"),
    }
}
