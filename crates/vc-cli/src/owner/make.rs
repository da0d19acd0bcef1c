//! Making the container: machine, hooks, container, streams. A failure takes back what was done.

use std::io;
use std::os::unix::net::UnixStream;

use oci_spec::runtime::Spec;
use tokio::io::Interest;
use tokio::net::UnixStream as Stream;
use vc_agent::client::Connector;
use vc_container::{Container, ContainerSpec, ContainerStorage, Sandbox};
use vc_storage::{MountPolicy, Surroundings};
use vc_types::{ContainerId, HostPath, SandboxId};

use super::member::leave;
use super::orders::{Member, Orders};
use super::place::{Mover, Place};
use super::pod::Pod;
use crate::failure::Failure;
use crate::oci::cgroup;
use crate::oci::console::Console;
use crate::oci::hooks::{self, Point};
use crate::oci::namespaces;
use crate::oci::record::{Record, Status};
use crate::oci::root::ContainerDir;
use crate::oci::state::state_json;
use crate::rootfs;
use crate::stdio::{Output, Streams};

/// A container that waits for its start.
pub(super) struct Made {
    pub(super) container: Container,
    pub(super) record: Record,
    pub(super) dir: ContainerDir,
    pub(super) output: Output,
}

/// Makes the machine and the container. When the creator goes away meanwhile, nobody wants it any more, and nothing is
/// left.
pub(super) async fn make(
    orders: Orders,
    dir: &ContainerDir,
    creator: &UnixStream,
    mover: Mover,
) -> Result<(Pod, (Made, Option<Console>)), Failure> {
    let mut record = orders.record.clone();
    record.pid = Some(std::process::id());
    record.write(dir)?;
    cgroup::enter(&record.cgroups);
    let shared_fs = rootfs::shared_fs(&orders.machine.sharing);
    let storage = storage(&orders.spec, &record, rootfs::policy(shared_fs, &orders.spec)?, None)?;
    let (streams, console) = streams(&orders)?;
    let mut machine = orders.machine.sandbox(&sandbox_id(&record.id), machine_dir(dir)?)?;
    machine.ahead = Some(storage.clone());
    let place = Place::of(&record.rootfs, &record.bundle, &orders.spec);
    let (spec, hostname) = namespaces::of_first(orders.spec);
    machine.hostname = hostname.unwrap_or(machine.hostname);
    let hypervisor = orders.machine.hypervisor();
    let connector = Connector::default();
    let gone = || Failure::message("whoever asked for the container has gone");
    let sandbox = tokio::select! {
        sandbox = Sandbox::create(&hypervisor, &connector, machine) => sandbox?,
        // Dropping the creation ends what it started.
        () = closed(creator) => return Err(gone()),
    };
    let made = async {
        let container = in_sandbox(&sandbox, spec, storage, &record).await?;
        show(place, mover).await?;
        Ok(container)
    };
    let made = tokio::select! {
        made = made => made,
        () = closed(creator) => Err(gone()),
    };
    match made {
        Ok(container) => {
            record.status = Status::Created;
            record.write(dir)?;
            let output = streams.connect(&container.init());
            let made = Made { container, record, dir: dir.clone(), output };
            Ok((Pod::new(sandbox, shared_fs), (made, console)))
        }
        Err(failure) => {
            let stopped = sandbox.stop().await;
            give_up(&record).await;
            Err(match stopped {
                Ok(()) => failure,
                Err(left) => failure.with_left(&left),
            })
        }
    }
}

/// Makes another container in the machine.
pub(super) async fn add(pod: &Pod, member: Member, streams: Streams) -> Result<Made, Failure> {
    let Member { dir, mut record, spec } = member;
    let dir = ContainerDir::of_owner(dir);
    record.write(&dir)?;
    pod.without(&record.id).await;
    let shared_memory = namespaces::joins_ipc(&spec);
    let policy = MountPolicy { shared_memory, ..rootfs::policy(pod.shared_fs, &spec)? };
    let storage = storage(&spec, &record, policy, Some(&pod.sandbox))?;
    let container = match in_sandbox(&pod.sandbox, namespaces::joined(spec), storage, &record).await {
        Ok(container) => container,
        Err(failure) => {
            give_up(&record).await;
            return Err(failure);
        }
    };
    record.status = Status::Created;
    if let Err(failure) = record.write(&dir) {
        leave(&container).await;
        return Err(failure);
    }
    let output = streams.connect(&container.init());
    Ok(Made { container, record, dir, output })
}

async fn in_sandbox(
    sandbox: &Sandbox,
    spec: Spec,
    storage: ContainerStorage,
    record: &Record,
) -> Result<Container, Failure> {
    let state = state_json(record, Status::Creating);
    for point in [Point::Prestart, Point::CreateRuntime] {
        hooks::run(record.hooks.as_ref(), point, &state).await?;
    }
    let oci = hooks::without_those_of_the_host(spec);
    Ok(sandbox.create_container(record.id.clone(), ContainerSpec { oci, storage }).await?)
}

/// The specification has these run whenever a container is given up (runtime.md, "Lifecycle").
async fn give_up(record: &Record) {
    hooks::run_all(record.hooks.as_ref(), Point::Poststop, &state_json(record, Status::Stopped)).await;
}

async fn show(place: Place, mover: Mover) -> Result<(), Failure> {
    let moved = tokio::task::spawn_blocking(move || mover.go(place)).await.map_err(io::Error::other);
    moved.flatten().map_err(|error| Failure::step("show the container's files to engines", error))
}

fn storage(
    spec: &Spec,
    record: &Record,
    policy: MountPolicy,
    sandbox: Option<&Sandbox>,
) -> Result<ContainerStorage, Failure> {
    let root = rootfs::of_bundle(&record.rootfs)?;
    let volumes = rootfs::direct_volumes();
    let held = sandbox.map(Sandbox::held).unwrap_or_default();
    let around = Surroundings { direct_volumes: volumes.as_ref(), held: &held };
    rootfs::storage(record.id.clone(), root, spec, policy, &around)
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
