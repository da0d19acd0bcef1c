//! Making the container: machine, hooks, container, streams. A failure takes back what was done.

use std::io;
use std::os::unix::net::UnixStream;

use oci_spec::runtime::Spec;
use tokio::io::Interest;
use tokio::net::UnixStream as Stream;
use vc_agent::client::Connector;
use vc_container::{Container, ContainerSpec, ContainerStorage, Sandbox};
use vc_types::{ContainerId, HostPath, SandboxId};

use super::orders::Orders;
use super::place::{Mover, Place};
use crate::failure::Failure;
use crate::oci::cgroup;
use crate::oci::console::Console;
use crate::oci::hooks::{self, Point};
use crate::oci::record::{Record, Status};
use crate::oci::root::ContainerDir;
use crate::oci::state::state_json;
use crate::rootfs;
use crate::stdio::{Output, Streams};

/// A container that waits for its start.
pub(super) struct Made {
    pub(super) sandbox: Sandbox,
    pub(super) container: Container,
    pub(super) record: Record,
    pub(super) dir: ContainerDir,
    pub(super) console: Option<Console>,
    pub(super) output: Output,
}

/// Makes the container. When the creator goes away meanwhile, nobody wants it any more, and nothing is left.
pub(super) async fn make(
    orders: Orders,
    dir: &ContainerDir,
    creator: &UnixStream,
    mover: Mover,
) -> Result<Made, Failure> {
    let mut record = orders.record.clone();
    record.pid = Some(std::process::id());
    record.write(dir)?;
    if let Err(error) = cgroup::enter(&record.cgroups) {
        // The container is as it should be, only what it uses is counted elsewhere.
        tracing::warn!(%error, "the machine is not in the cgroup of its container");
    }
    let storage = storage(&orders.spec, &record, orders.machine.shared_fs)?;
    let streams = streams(&orders)?;
    let mut machine = orders.machine.sandbox(&sandbox_id(&record.id), machine_dir(dir)?)?;
    machine.ahead = Some(storage.clone());
    let hypervisor = orders.machine.hypervisor();
    let connector = Connector::default();
    let gone = || Failure::message("whoever asked for the container has gone");
    let sandbox = tokio::select! {
        sandbox = Sandbox::create(&hypervisor, &connector, machine) => sandbox?,
        // Dropping the creation ends what it started.
        () = closed(creator) => return Err(gone()),
    };
    let made = tokio::select! {
        made = in_sandbox(&sandbox, &orders.spec, storage, &record, mover) => made,
        () = closed(creator) => Err(gone()),
    };
    match made {
        Ok(container) => {
            record.status = Status::Created;
            record.write(dir)?;
            let (streams, console) = streams;
            let output = streams.connect(&container.init());
            Ok(Made { sandbox, container, record, dir: dir.clone(), console, output })
        }
        Err(failure) => {
            let stopped = sandbox.stop().await;
            // The specification has these run whenever a container is given up (runtime.md, "Lifecycle").
            hooks::run_all(record.hooks.as_ref(), Point::Poststop, &state_json(&record, Status::Stopped))
                .await;
            Err(match stopped {
                Ok(()) => failure,
                Err(left) => failure.with_left(&left),
            })
        }
    }
}

async fn in_sandbox(
    sandbox: &Sandbox,
    spec: &Spec,
    storage: ContainerStorage,
    record: &Record,
    mover: Mover,
) -> Result<Container, Failure> {
    let state = state_json(record, Status::Creating);
    for point in [Point::Prestart, Point::CreateRuntime] {
        hooks::run(record.hooks.as_ref(), point, &state).await?;
    }
    let oci = hooks::without_those_of_the_host(spec.clone());
    let container = sandbox.create_container(record.id.clone(), ContainerSpec { oci, storage }).await?;
    let place = Place::of(&record.rootfs, &record.bundle, spec);
    let moved = tokio::task::spawn_blocking(move || mover.go(place)).await.map_err(io::Error::other);
    moved.flatten().map_err(|error| Failure::step("show the container's files to engines", error))?;
    Ok(container)
}

fn storage(spec: &Spec, record: &Record, shared_fs: bool) -> Result<ContainerStorage, Failure> {
    let root = rootfs::of_bundle(&record.rootfs)?;
    let shared = shared_fs && rootfs::can_share();
    rootfs::storage(record.id.clone(), root, spec, shared, rootfs::direct_volumes().as_ref())
}

fn streams(orders: &Orders) -> Result<(Streams, Option<Console>), Failure> {
    let failed = |error| Failure::step("use the standard streams", error);
    let Some(socket) = &orders.console_socket else {
        return Ok((Streams::own(false, true).map_err(failed)?, None));
    };
    let console = Console::hand_over(socket)?;
    let (input, output) = (console.end().map_err(failed)?, console.end().map_err(failed)?);
    Ok((Streams { terminal: true, input: Some(input), output, errors: None }, Some(console)))
}

fn sandbox_id(id: &ContainerId) -> SandboxId {
    id.as_str().parse().expect("both kinds of id have the same rules")
}

fn machine_dir(dir: &ContainerDir) -> Result<HostPath, Failure> {
    let path = dir.machine_dir();
    HostPath::new(&path).map_err(|error| Failure::step(format!("use {}", path.display()), error))
}

/// Resolves when the creator has closed its end: it sends nothing after its orders.
async fn closed(creator: &UnixStream) {
    let watched = creator.try_clone().and_then(|copy| {
        copy.set_nonblocking(true)?;
        Stream::from_std(copy)
    });
    match watched {
        Ok(stream) => drop(stream.ready(Interest::READABLE).await),
        // Then nobody will notice, and the creation goes on to its end.
        Err(error) => {
            tracing::warn!(%error, "cannot see whether the creator goes away");
            std::future::pending::<()>().await;
        }
    }
}
