//! A model of QEMU on the other end of a QMP stream, which misbehaves at one command; and what must hold
//! whatever it does: every call returns in time, and in the end our tables are the model's.

mod resize;
mod takeover;
mod world;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::process::Command;
use vc_device::{
    Access, Capacity, DeviceSpec, NetworkBackend, NetworkSpec, PartitionImage, PartitionedSpec, PmemFrontend,
    PmemSpec, QueueSize, SerialPortBackend, SerialPortSpec, TapQueue, Topology, VfioFunction, VfioHandle,
    VfioPciSpec, VhostUserBlkSpec, VhostUserFsSpec,
};
use vc_hypervisor::{Hotplug, Machine, MachineSpec, PlugError, UnplugError, conformance};
use vc_types::{Deadline, DeviceId, HostPath, VsockCid};

use crate::accelerator::Chosen;
use crate::devices::Devices;
use crate::launch::Connected;
use crate::machine::QemuMachine;
use crate::process::{Bonds, Process};
use crate::qmp::Qmp;
use crate::sockets::Sockets;
use crate::tail::Tail;
use crate::vsock::{Transport, Vsock};

use world::{Fault, World, serve};

/// The deadline of a call that meets the fault.
const BRIEF: Duration = Duration::from_millis(100);

/// What a call may take beyond its deadline on a busy machine.
const LATENESS: Duration = Duration::from_secs(10);

fn patient() -> Deadline {
    Deadline::after(LATENESS)
}

fn spec() -> MachineSpec {
    let path = HostPath::new("/x").unwrap();
    MachineSpec::new("model".parse().unwrap(), path.clone(), path.clone(), path)
}

/// A machine whose QMP stream the model serves.
async fn machine(world: &World, spec: &MachineSpec) -> QemuMachine {
    let (ours, theirs) = UnixStream::pair().unwrap();
    tokio::spawn(serve(theirs, world.clone()));
    let qmp = Qmp::connect(ours, patient()).await.unwrap();
    let mut command = Command::new("sleep");
    command.arg("600");
    let bonds = Bonds { die_with_parent: true, outlives_parent: false, identity: None };
    let connected = Connected {
        qemu: Process::spawn(command, Vec::new(), &bonds).unwrap(),
        qmp,
        console: Tail::new(16),
        listening: tokio::spawn(async {}),
        vsock: Vsock::in_use(Transport::Kernel { cid: VsockCid(3) }, None, None),
        // With emulation no vCPU is taken out.
        accelerator: Chosen::Kvm,
        sockets: Sockets::new(None),
    };
    let topology = Topology::new(Capacity { root_ports: 2, ..Capacity::default() }).unwrap();
    QemuMachine::new(connected, spec, Devices::new(topology))
}

/// Runs a call; it may take as long as its deadline.
async fn in_time<T>(what: &str, call: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let result = call.await;
    assert!(started.elapsed() < BRIEF + LATENESS, "{what} took {:?}", started.elapsed());
    result
}

/// A device of each kind that is plugged by commands of its own, all of the same name.
fn specs(image: &Path) -> Vec<DeviceSpec> {
    let id = || -> DeviceId { "d0".parse().unwrap() };
    let open = || Arc::new(std::fs::File::open(image).unwrap());
    let socket = || HostPath::new("/x.sock").unwrap();
    let part = || PartitionImage { file: open(), name: HostPath::new(image).unwrap(), size: 4096 };
    let mac = "52:54:00:12:34:56".parse().unwrap();
    let taps = NetworkBackend::Tap(vec![TapQueue { tap: open(), vhost: Some(open()) }]);
    let queue_size = QueueSize::default();
    let port = SerialPortBackend::Socket(open());
    let pmem = |frontend| {
        let image = (open(), HostPath::new(image).unwrap());
        PmemSpec::new(id(), image, 2 << 20, Access::ReadOnly, frontend).unwrap().into()
    };
    vec![
        conformance::disk("d0", image).into(),
        PartitionedSpec::new(id(), [part(), part()].into(), None).unwrap().into(),
        NetworkSpec::new(id(), mac, None, taps).unwrap().into(),
        NetworkSpec::new(id(), mac, None, NetworkBackend::VhostUser(socket())).unwrap().into(),
        VhostUserBlkSpec { id: id(), socket: socket(), queue_size }.into(),
        VhostUserFsSpec { id: id(), socket: socket(), tag: "tag".parse().unwrap(), queue_size }.into(),
        SerialPortSpec { id: id(), name: "port".parse().unwrap(), backend: port }.into(),
        VfioPciSpec {
            id: id(),
            function: VfioFunction::Pci("0000:01:00.0".parse().unwrap()),
            handle: VfioHandle::Group(1),
        }
        .into(),
        // The model lets go of these, as QEMU does not.
        pmem(PmemFrontend::VirtioPmem),
        pmem(PmemFrontend::Nvdimm),
    ]
}

/// How many commands a plug and an unplug take, the handshake's and those that clean up included.
async fn commands(spec: &DeviceSpec) -> usize {
    let world = World::default();
    let machine = machine(&world, &self::spec()).await;
    machine.plug(spec, patient()).await.unwrap();
    machine.unplug(spec.id(), patient()).await.unwrap();
    assert!(world.lock().unwrap().is_empty(), "{spec:?}");
    world.lock().unwrap().commands()
}

/// Plugs and unplugs while the `at`-th command meets `fault`, then looks whether everything is in order.
async fn survive(spec: &DeviceSpec, fault: Fault, at: usize, last: usize) {
    let case = format!("{fault:?} at command {at} of {last} of {spec:?}");
    let world = World::default();
    let machine = machine(&world, &self::spec()).await;
    world.lock().unwrap().misbehave(at, fault);
    // A death is told when it is noticed, so that the deadline must not come first.
    let brief = || Deadline::after(if fault.is_death() { LATENESS } else { BRIEF });
    let plugged = in_time(&case, machine.plug(spec, brief())).await;
    let ours = || machine.devices();
    let theirs = || world.lock().unwrap().devices();
    assert!(ours().is_superset(&theirs()), "{case}: QEMU has what we think is not there");
    let unplugged = match &plugged {
        Ok(_) | Err(PlugError::Unknown { .. }) => {
            Some(in_time(&case, machine.unplug(spec.id(), brief())).await)
        }
        Err(_) => None,
    };
    assert!(ours().is_superset(&theirs()), "{case}: QEMU has what we think is not there");
    if fault.is_death() {
        let told = matches!(plugged, Err(PlugError::MachineGone { .. }))
            || matches!(unplugged, Some(Err(UnplugError::MachineGone { .. })));
        // What cleans up is not waited for, so the last commands may come after the end of both.
        let done = matches!((&plugged, &unplugged), (Ok(_), Some(Ok(()))));
        assert!(told || done, "{case}: {plugged:?}, {unplugged:?}");
        in_time(&case, machine.exited()).await;
        return;
    }
    // From now on the model behaves. Whatever is left can be unplugged.
    world.lock().unwrap().behave();
    for name in ours() {
        let unplugged = in_time(&case, machine.unplug(&name, patient())).await;
        unplugged.unwrap_or_else(|error| panic!("{case}: {error:?}"));
    }
    assert_eq!(ours(), BTreeSet::new(), "{case}");
    assert_eq!(theirs(), BTreeSet::new(), "{case}");
    // Name, port and what stands behind are free again.
    let again = machine.plug(spec, patient()).await;
    again.unwrap_or_else(|error| panic!("{case}: {error:?}"));
    assert_eq!(ours(), theirs(), "{case}");
    machine.unplug(spec.id(), patient()).await.unwrap();
    assert!(world.lock().unwrap().backends.is_empty(), "{case}");
}

async fn survive_at_each_command(fault: Fault) {
    let image = tempfile::NamedTempFile::new().unwrap();
    for spec in specs(image.path()) {
        let last = commands(&spec).await;
        let cases = (2..=last).map(|at| survive(&spec, fault, at, last));
        futures::future::join_all(cases).await;
    }
}

#[tokio::test]
async fn a_command_done_without_an_answer_leaves_the_tables_equal() {
    survive_at_each_command(Fault::SilentlyDoes).await;
}

#[tokio::test]
async fn a_lost_command_leaves_the_tables_equal() {
    survive_at_each_command(Fault::Loses).await;
}

/// Kata's #13635 and #11649: the retry of a plug that had only been answered late failed for ever, with
/// "Duplicate nodes".
#[tokio::test]
async fn k13635_k11649_a_late_answer_leaves_the_tables_equal() {
    survive_at_each_command(Fault::AnswersLate).await;
}

/// Kata's #11612: a read that had only part of an answer in time was taken for a failed command.
#[tokio::test]
async fn k11612_an_answer_in_pieces_leaves_the_tables_equal() {
    survive_at_each_command(Fault::AnswersInPieces).await;
}

/// Kata's runtime#1941: a plug that was refused left its image open, and every retry failed for that.
#[tokio::test]
async fn runtime1941_a_refused_command_leaves_the_tables_equal() {
    survive_at_each_command(Fault::Refuses).await;
}

/// Kata's #11686: QEMU died of a plug, which was told as an odd error of the plug.
#[tokio::test]
async fn k11686_a_death_during_a_command_is_told_as_such() {
    survive_at_each_command(Fault::DiesBefore).await;
    survive_at_each_command(Fault::DiesAfter).await;
}

/// Kata's #13538: only disks could be unplugged; what stood behind other devices stayed.
#[tokio::test]
async fn k13538_every_kind_is_unplugged_with_what_stands_behind_it() {
    let image = tempfile::NamedTempFile::new().unwrap();
    for spec in specs(image.path()) {
        // It looks that nothing is left.
        commands(&spec).await;
    }
}
