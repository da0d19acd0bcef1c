//! `vc run`: one machine, one container, one command.

pub(crate) mod spec;

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;

use vc_agent::Signal;
use vc_agent::client::Connector;
use vc_container::{Container, ContainerSpec, Sandbox};
use vc_storage::Surroundings;
use vc_types::{ContainerId, HostPath, SandboxId};

use crate::cli::Run;
use crate::config::Config;
use crate::failure::Failure;
use crate::machine::MachinePlan;
use crate::rootfs;
use crate::signals::{Received, Signals};
use crate::stdio::Streams;
use crate::terminal::{self, RawMode};
pub(crate) use spec::load as load_bundle;

/// Runs the command; returns its exit code.
pub(crate) async fn run(options: Run, config: Config) -> Result<u8, Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::step("listen for signals", error))?;
    let oci = spec::build(&options)?;
    let terminal = oci.process().as_ref().and_then(|process| process.terminal()).unwrap_or(false);
    let name = random_name()?;
    let id: ContainerId = name.as_str().parse().expect("both kinds of id have the same rules");
    let root = rootfs::of_options(&options.rootfs, &oci)?;
    let machine = MachinePlan::of(config, &oci)?;
    let shared = rootfs::shared_fs(&machine.sharing);
    let volumes = rootfs::direct_volumes();
    let around = Surroundings { direct_volumes: volumes.as_ref(), ..Surroundings::default() };
    let storage = rootfs::storage(id.clone(), root, &oci, rootfs::policy(shared, &oci)?, &around)?;
    let mut spec = machine.sandbox(&name, runtime_dir(&name)?)?;
    spec.ahead = Some(storage.clone());
    let qemu = machine.hypervisor();
    let streams = Streams::own(terminal, options.interactive);
    let streams = streams.map_err(|error| Failure::step("use the standard streams", error))?;
    let connector = Connector::default();
    let sandbox = tokio::select! {
        sandbox = Sandbox::create(&qemu, &connector, spec) => sandbox?,
        // Nobody would hear it in the guest yet. Dropping the creation ends what it started.
        received = signals.next_ending() => return Ok(received.exit_code()),
    };
    let container = ContainerSpec { oci, storage };
    let result = in_sandbox(&sandbox, id, container, streams, &mut signals).await;
    let stopped = sandbox.stop().await;
    match (result, stopped) {
        (result, Ok(())) => result,
        (Err(failure), Err(left)) => Err(failure.with_left(&left)),
        (Ok(_), Err(left)) => {
            Err(Failure::message("the command ended, but its machine did not go away").with_left(&left))
        }
    }
}

/// Creates the container, passes streams and signals, and waits for its end.
async fn in_sandbox(
    sandbox: &Sandbox,
    id: ContainerId,
    spec: ContainerSpec,
    streams: Streams,
    signals: &mut Signals,
) -> Result<u8, Failure> {
    let container = tokio::select! {
        container = sandbox.create_container(id, spec) => container?,
        received = signals.next_ending() => return Ok(received.exit_code()),
    };
    // Without input nobody would read the keys, not even Ctrl-C.
    let terminal = streams.terminal;
    let raw = if terminal && streams.input.is_some() { RawMode::enter() } else { None };
    let mut output = streams.connect(&container.init());
    let ended = async {
        container.start().await?;
        if terminal {
            terminal::pass_size(container.clone()).await;
        }
        // The agent may forget the output once it has told how the command ended.
        output.drain().await?;
        let status = container.wait().await?;
        tracing::info!(milestone = "exit", "the command has ended");
        drop(output);
        Ok(status.0)
    };
    tokio::pin!(ended);
    let mut asked_to_end = false;
    let result = loop {
        tokio::select! {
            result = &mut ended => break result,
            received = signals.next() => match received {
                // Who asks a second time means it.
                Received::Forward(signal) if signal.ends() && asked_to_end => {
                    sandbox.kill_machine().await;
                    break Ok(received.exit_code());
                }
                Received::Forward(signal) => {
                    asked_to_end |= signal.ends();
                    // Not awaited: a guest that hangs must not keep the next signal from being heard.
                    tokio::spawn(pass_on(container.clone(), signal.signal));
                }
                Received::Resized => drop(tokio::spawn(terminal::pass_size(container.clone()))),
            },
        }
    };
    drop(raw);
    result
}

async fn pass_on(container: Container, signal: Signal) {
    if let Err(error) = container.signal(signal).await {
        tracing::warn!(?signal, cause = %error.cause, "the signal was not passed on");
    }
}

/// Where the machine's sockets go: the user's runtime directory, or the system's one for temporary files.
fn runtime_dir(name: &SandboxId) -> Result<HostPath, Failure> {
    let user = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute() && dir.is_dir());
    let system =
        || if rustix::process::geteuid().is_root() { PathBuf::from("/run") } else { std::env::temp_dir() };
    let dir = user.unwrap_or_else(system).join(format!("vc-{name}"));
    HostPath::new(&dir).map_err(|error| Failure::step("choose a runtime directory", error))
}

fn random_name() -> Result<SandboxId, Failure> {
    let name = format!("run-{:016x}", RandomState::new().hash_one(std::process::id()));
    name.parse().map_err(|error: vc_types::InvalidId| Failure::step("choose a name", error))
}
