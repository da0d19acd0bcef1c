//! Resizing while the model misbehaves: afterwards the machine can be brought to any size, nothing is there
//! twice, and nothing is forgotten.

use std::num::NonZeroU8;

use vc_hypervisor::{Hotplug, Machine, MachineSpec, MemoryGrowth, Resize, ResizeError, conformance};
use vc_types::{Deadline, DeviceId, MiB};

use super::world::{Fault, VCPU, World};
use super::{BRIEF, LATENESS, in_time, machine, patient};
use crate::machine::QemuMachine;

/// What is resized, and how far.
#[derive(Clone, Copy, Debug)]
enum Change {
    Vcpus,
    Dimms,
    VirtioMem,
}

const BASE: u32 = 256;
const MORE: u32 = 512;
const MOST: u32 = 1024;
const MAX_VCPUS: u8 = 4;

fn mib(size: u32) -> MiB {
    MiB::new(size).unwrap()
}

impl Change {
    fn spec(self) -> MachineSpec {
        let mut spec = super::spec();
        spec.memory = mib(BASE);
        spec.max_vcpus = NonZeroU8::new(MAX_VCPUS).unwrap();
        spec.memory_growth = match self {
            Self::Vcpus => MemoryGrowth::None,
            Self::Dimms => MemoryGrowth::Dimms { most: mib(MOST) },
            Self::VirtioMem => MemoryGrowth::VirtioMem { most: mib(MOST) },
        };
        spec
    }

    fn world(self) -> World {
        let virtio_mem = matches!(self, Self::VirtioMem).then_some(0);
        let world = World::default();
        let mut state = world.lock().unwrap();
        (state.max_vcpus, state.virtio_mem) = (MAX_VCPUS.into(), virtio_mem);
        drop(state);
        world
    }

    /// Brings the machine to its larger or its first size; returns what it has then.
    async fn apply(self, machine: &QemuMachine, grow: bool, deadline: Deadline) -> Result<u32, ResizeError> {
        match self {
            Self::Vcpus => {
                let wanted = NonZeroU8::new(if grow { 3 } else { 1 }).unwrap();
                machine.resize_vcpus(wanted, deadline).await.map(|vcpus| vcpus.get().into())
            }
            Self::Dimms | Self::VirtioMem => {
                let wanted = mib(if grow { MORE } else { BASE });
                machine.resize_memory(wanted, deadline).await.map(MiB::get)
            }
        }
    }

    fn wanted(self, grow: bool) -> u32 {
        match (self, grow) {
            (Self::Vcpus, true) => 3,
            (Self::Vcpus, false) => 1,
            (_, true) => MORE,
            (_, false) => BASE,
        }
    }

    /// What the model has, and that nothing stands behind what is not there.
    fn has(self, world: &World, case: &str) -> u32 {
        let world = world.lock().unwrap();
        let dimms = world.of_driver("pc-dimm");
        assert_eq!(world.backends.len(), dimms.len(), "{case}: a backend without a DIMM");
        let vcpus = world.of_driver(VCPU).len();
        let bytes: u64 = world.backends.values().filter_map(|object| object["size"].as_u64()).sum();
        match self {
            Self::Vcpus => u32::try_from(1 + vcpus).unwrap(),
            Self::Dimms => BASE + u32::try_from(bytes >> 20).unwrap(),
            Self::VirtioMem => BASE + u32::try_from(world.virtio_mem.unwrap() >> 20).unwrap(),
        }
    }
}

/// How many commands there have been once the machine has grown, and once it has shrunk again.
async fn commands(change: Change) -> [usize; 2] {
    let world = change.world();
    let machine = machine(&world, &change.spec()).await;
    let mut counts = [0; 2];
    for (grow, count) in [true, false].into_iter().zip(&mut counts) {
        assert_eq!(change.apply(&machine, grow, patient()).await.unwrap(), change.wanted(grow), "{change:?}");
        assert_eq!(change.has(&world, "without a fault"), change.wanted(grow), "{change:?}");
        *count = world.lock().unwrap().commands();
    }
    counts
}

/// Grows and shrinks while the `at`-th command meets `fault`, then looks whether everything is in order.
async fn survive(change: Change, fault: Fault, at: usize) {
    let case = format!("{fault:?} at command {at} of {change:?}");
    let world = change.world();
    let machine = machine(&world, &change.spec()).await;
    world.lock().unwrap().misbehave(at, fault);
    let brief = || Deadline::after(if fault.is_death() { LATENESS } else { BRIEF });
    let mut told = false;
    for grow in [true, false] {
        match in_time(&case, change.apply(&machine, grow, brief())).await {
            Ok(_) | Err(ResizeError::Unknown { .. } | ResizeError::Refused { .. }) => {}
            Err(ResizeError::MachineGone { .. }) => told = true,
            Err(error) => panic!("{case}: {error:?}"),
        }
    }
    if fault.is_death() {
        assert!(told, "{case}");
        in_time(&case, machine.exited()).await;
        return;
    }
    world.lock().unwrap().behave();
    // Twice, since what was begun may have been finished or not.
    for grow in [true, false, true] {
        let size = in_time(&case, change.apply(&machine, grow, patient())).await;
        let size = size.unwrap_or_else(|error| panic!("{case}: {error:?}"));
        assert_eq!((size, change.has(&world, &case)), (change.wanted(grow), change.wanted(grow)), "{case}");
    }
}

async fn survive_at_each_command(change: Change) {
    let [_, last] = commands(change).await;
    for fault in Fault::ALL {
        let cases = (2..=last).map(|at| survive(change, fault, at));
        futures::future::join_all(cases).await;
    }
}

#[tokio::test]
async fn vcpus_are_counted_right_after_any_fault() {
    survive_at_each_command(Change::Vcpus).await;
}

#[tokio::test]
async fn dimms_and_their_backends_are_counted_right_after_any_fault() {
    survive_at_each_command(Change::Dimms).await;
}

#[tokio::test]
async fn virtio_mem_has_the_size_that_is_told_after_any_fault() {
    survive_at_each_command(Change::VirtioMem).await;
}

/// Grows a disk while the `at`-th command meets `fault`; whatever it was, the next try brings the size.
async fn a_disk_survives(image: &std::path::Path, fault: Fault, at: usize) {
    let case = format!("{fault:?} at command {at} of a disk");
    let (world, disk) = (World::default(), "d0".parse::<DeviceId>().unwrap());
    let machine = machine(&world, &super::spec()).await;
    machine.plug(&conformance::disk("d0", image).into(), patient()).await.unwrap();
    let before = world.lock().unwrap().commands();
    world.lock().unwrap().misbehave(before + at, fault);
    let brief = Deadline::after(if fault.is_death() { LATENESS } else { BRIEF });
    let grown = in_time(&case, machine.grow_disk(&disk, 4096, brief)).await;
    match (&grown, fault) {
        (Ok(()), Fault::AnswersInPieces) => {}
        (Err(ResizeError::MachineGone { .. }), _) if fault.is_death() => return,
        (Err(ResizeError::Refused { .. }), Fault::Refuses) => {}
        (Err(ResizeError::Unknown { .. }), Fault::SilentlyDoes | Fault::Loses | Fault::AnswersLate) => {}
        _ => panic!("{case}: {grown:?}"),
    }
    world.lock().unwrap().behave();
    machine.grow_disk(&disk, 4096, patient()).await.unwrap_or_else(|error| panic!("{case}: {error:?}"));
    assert_eq!(world.lock().unwrap().sizes["d0"], 4096, "{case}");
    let less = machine.grow_disk(&disk, 512, patient()).await;
    assert!(matches!(less, Err(ResizeError::TooLittle { .. })), "{case}: {less:?}");
    assert_eq!(world.lock().unwrap().sizes["d0"], 4096, "{case}: nothing was sent");
}

#[tokio::test]
async fn a_disk_has_the_size_of_its_image_after_any_fault() {
    let image = tempfile::NamedTempFile::new().unwrap();
    for fault in Fault::ALL {
        for at in 1..=2 {
            a_disk_survives(image.path(), fault, at).await;
        }
    }
}
