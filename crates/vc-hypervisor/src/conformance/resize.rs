//! What is owed about the size of a machine.

use std::fs::File;
use std::num::NonZeroU8;
use std::path::Path;
use std::sync::Arc;

use vc_device::{Access, BlockSpec};
use vc_types::{Deadline, DeviceId, HostPath, MiB};

use super::{PATIENCE, launch};
use crate::{Hotplug, Hypervisor, Machine, MachineSpec, MemoryGrowth, Resize, ResizeError};

/// The machine of `spec`, with room for twice the vCPUs and for 256 MiB more.
fn growing(spec: &MachineSpec) -> MachineSpec {
    let mut spec = spec.clone();
    spec.max_vcpus = spec.vcpus.saturating_add(spec.vcpus.get());
    spec.memory_growth = MemoryGrowth::Dimms { most: plus(spec.memory, 256) };
    spec
}

fn plus(size: MiB, more: u32) -> MiB {
    MiB::new(size.get() + more).expect("not zero")
}

pub(super) async fn a_machine_grows_as_far_as_it_was_launched_for<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
) {
    let deadline = || Deadline::after(PATIENCE);
    let spec = growing(spec);
    let machine = launch(hypervisor, &spec).await;
    let most = spec.max_vcpus;
    // The second time nothing is left to do.
    for _ in 0..2 {
        assert_eq!(machine.resize_vcpus(most, deadline()).await.expect("vCPUs are granted"), most);
    }
    let larger = plus(spec.memory, 128);
    for _ in 0..2 {
        assert_eq!(machine.resize_memory(larger, deadline()).await.expect("memory is granted"), larger);
    }
    let statistics = machine.statistics(deadline()).await.expect("it tells them");
    assert_eq!(statistics.guest_memory, larger.bytes());
    assert_eq!(statistics.vcpus.len(), usize::from(most.get()));
    machine.stop(deadline()).await.expect("it stops");
}

pub(super) async fn more_and_less_than_possible_is_refused<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
) {
    let deadline = || Deadline::after(PATIENCE);
    let spec = growing(spec);
    let machine = launch(hypervisor, &spec).await;
    let too_many = machine.resize_vcpus(spec.max_vcpus.saturating_add(1), deadline()).await;
    assert!(matches!(too_many, Err(ResizeError::TooManyVcpus { .. })), "{too_many:?}");
    let too_much = machine.resize_memory(plus(spec.memory, 257), deadline()).await;
    assert!(matches!(too_much, Err(ResizeError::TooMuchMemory { .. })), "{too_much:?}");
    let too_little = machine.resize_memory(MiB::new(1).expect("not zero"), deadline()).await;
    assert!(matches!(too_little, Err(ResizeError::TooLittle { .. })), "{too_little:?}");
    machine.stop(deadline()).await.expect("it stops");
    let late = machine.resize_vcpus(spec.max_vcpus, deadline()).await;
    assert!(matches!(late, Err(ResizeError::MachineGone { .. })), "{late:?}");
    let late = machine.resize_memory(plus(spec.memory, 128), deadline()).await;
    assert!(matches!(late, Err(ResizeError::MachineGone { .. })), "{late:?}");
}

pub(super) async fn a_machine_of_fixed_size_keeps_it<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) {
    let deadline = || Deadline::after(PATIENCE);
    let mut spec = spec.clone();
    spec.max_vcpus = NonZeroU8::MIN;
    spec.memory_growth = MemoryGrowth::None;
    let machine = launch(hypervisor, &spec).await;
    assert_eq!(machine.resize_vcpus(spec.vcpus, deadline()).await.expect("nothing to do"), spec.vcpus);
    assert_eq!(machine.resize_memory(spec.memory, deadline()).await.expect("nothing to do"), spec.memory);
    let more = machine.resize_memory(plus(spec.memory, 1), deadline()).await;
    assert!(matches!(more, Err(ResizeError::TooMuchMemory { .. })), "{more:?}");
    machine.stop(deadline()).await.expect("it stops");
}

pub(super) async fn a_disk_grows_with_its_image<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
    image: &Path,
) {
    let deadline = || Deadline::after(PATIENCE);
    let id = |id: &str| -> DeviceId { id.parse().expect("an id") };
    let machine = launch(hypervisor, spec).await;
    let path = image.with_extension("grows");
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("a new file");
    file.set_len(1 << 20).expect("it is made");
    let name = HostPath::new(&path).expect("an absolute path");
    let grows = BlockSpec::new(id("grows"), Arc::new(file), name, Access::ReadWrite);
    machine.plug(&grows.clone().into(), deadline()).await.expect("it plugs");
    grows.image.set_len(2 << 20).expect("it grows");
    // The second time nothing is left to do.
    for _ in 0..2 {
        machine.grow_disk(&id("grows"), 2 << 20, deadline()).await.expect("it is told");
    }
    let less = machine.grow_disk(&id("grows"), 1 << 20, deadline()).await;
    assert!(matches!(less, Err(ResizeError::TooLittle { .. })), "{less:?}");
    assert_eq!(path.metadata().expect("it is there").len(), 2 << 20, "nothing is cut off");
    let none = machine.grow_disk(&id("none"), 1 << 20, deadline()).await;
    assert!(matches!(none, Err(ResizeError::NoDisk { .. })), "{none:?}");
    machine.stop(deadline()).await.expect("it stops");
    let late = machine.grow_disk(&id("grows"), 2 << 20, deadline()).await;
    assert!(matches!(late, Err(ResizeError::MachineGone { .. })), "{late:?}");
    std::fs::remove_file(path).expect("it goes");
}
