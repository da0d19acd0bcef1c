//! What is owed about the life of a machine: pause, statistics, end.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use vc_types::{Deadline, DeviceId};

use super::hotplug::disk;
use super::{PATIENCE, launch};
use crate::{ControlError, ExitCause, Hotplug, Hypervisor, Machine, MachineSpec, PlugError, ShutdownCause};

pub(super) async fn stop_is_final_and_may_be_repeated<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) {
    let machine = launch(hypervisor, spec).await;
    let first = machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
    let second = machine.stop(Deadline::after(PATIENCE)).await.expect("it has stopped");
    assert_eq!(first, second, "a second stop tells the same end");
    assert_eq!(first.shutdown, Some(ShutdownCause::HostRequest), "it was not killed: {first}");
}

pub(super) async fn exits_are_told_to_everyone<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) {
    let machine = launch(hypervisor, spec).await;
    let stop = machine.stop(Deadline::after(PATIENCE));
    let (one, two, stopped) = tokio::join!(machine.exited(), machine.exited(), stop);
    assert_eq!(one, two);
    assert_eq!(one, stopped.expect("it stops"));
    assert_ne!(one.cause, ExitCause::Lost);
}

pub(super) async fn a_stop_that_nobody_waits_for_happens<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) {
    let machine = launch(hypervisor, spec).await;
    let impatient = tokio::time::timeout(Duration::ZERO, machine.stop(Deadline::after(PATIENCE))).await;
    let exit = tokio::time::timeout(PATIENCE, machine.exited()).await.expect("it ends all the same");
    if let Ok(stopped) = impatient {
        assert_eq!(stopped.expect("it stops"), exit);
    }
    machine.stop(Deadline::after(PATIENCE)).await.expect("it has stopped");
}

pub(super) async fn a_deaf_guest_delays_the_end_until_the_grace_is_over<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
) {
    let machine = launch(hypervisor, spec).await;
    let grace = Deadline::after(Duration::from_millis(200));
    machine.power_down(grace, Deadline::after(PATIENCE)).await.expect("it stops");
}

pub(super) async fn pausing_is_repeatable_and_no_obstacle<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) {
    let deadline = || Deadline::after(PATIENCE);
    let machine = launch(hypervisor, spec).await;
    for _ in 0..2 {
        machine.pause(deadline()).await.expect("it pauses");
    }
    machine.statistics(deadline()).await.expect("a paused machine tells its statistics");
    for _ in 0..2 {
        machine.resume(deadline()).await.expect("it resumes");
    }
    machine.pause(deadline()).await.expect("it pauses again");
    machine.stop(deadline()).await.expect("a paused machine stops");
}

pub(super) async fn what_is_plugged_before_the_start_is_there<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
    image: &Path,
) {
    let deadline = || Deadline::after(PATIENCE);
    let mut spec = spec.clone();
    spec.starts_paused = true;
    let machine = launch(hypervisor, &spec).await;
    let cold = disk("cold", image);
    machine.plug(&cold.clone().into(), deadline()).await.expect("there is room");
    machine.resume(deadline()).await.expect("it starts");
    let plugged = machine.plugged(deadline()).await.expect("it tells its devices");
    assert_eq!(plugged.iter().collect::<Vec<_>>(), [&cold.id]);
    machine.stop(deadline()).await.expect("it stops");
}

pub(super) async fn statistics_tell_of_the_machine<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) {
    let machine = launch(hypervisor, spec).await;
    let statistics = machine.statistics(Deadline::after(PATIENCE)).await.expect("it tells them");
    let threads: BTreeSet<_> = statistics.vcpus.iter().map(|vcpu| vcpu.thread).collect();
    assert_eq!(threads.len(), usize::from(spec.vcpus.get()), "a thread for each vCPU: {statistics:?}");
    assert_eq!(statistics.guest_memory, spec.memory.bytes());
    let first = machine.capabilities(Deadline::after(PATIENCE)).await.expect("it can something");
    let second = machine.capabilities(Deadline::after(Duration::ZERO)).await.expect("it is asked once");
    assert_eq!(first, second);
    machine.stop(Deadline::after(PATIENCE)).await.expect("it stops");
}

pub(super) async fn a_stopped_machine_obeys_no_more<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec) {
    let deadline = || Deadline::after(PATIENCE);
    let machine = launch(hypervisor, spec).await;
    machine.stop(deadline()).await.expect("it stops");
    let told = [
        machine.pause(deadline()).await.err(),
        machine.resume(deadline()).await.err(),
        machine.statistics(deadline()).await.err(),
        machine.capabilities(deadline()).await.err(),
    ];
    for error in told {
        assert!(matches!(error, Some(ControlError::MachineGone { .. })), "{error:?}");
    }
}

pub(super) async fn a_machine_that_was_let_go_can_be_taken_over<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
    image: &Path,
) {
    // The disks that come late are units of a controller, or have a port each.
    for more_ports in [0, 2] {
        let mut spec = spec.clone();
        spec.outlives_owner = true;
        spec.hotplug_ports += more_ports;
        can_be_taken_over(hypervisor, &spec, image).await;
    }
}

async fn can_be_taken_over<H: Hypervisor>(hypervisor: &H, spec: &MachineSpec, image: &Path) {
    let deadline = || Deadline::after(PATIENCE);
    let machine = launch(hypervisor, spec).await;
    let kept = disk("disk0", image);
    machine.plug(&kept.clone().into(), deadline()).await.expect("there is room");
    let handle = machine.handle();
    // One that is plugged after the handle was written down.
    let unheard = disk("disk1", image);
    let taken = machine.plug(&unheard.clone().into(), deadline()).await.expect("there is room");
    machine.let_go();
    drop(machine);
    let machine = hypervisor.reattach(spec, &handle, deadline()).await.expect("it can be taken over");
    let machine = machine.expect("it runs");
    let plugged: Vec<_> = machine.plugged(deadline()).await.expect("it tells").into_iter().collect();
    assert_eq!(plugged.iter().map(DeviceId::as_str).collect::<Vec<_>>(), ["disk0", "disk1"]);
    let again = machine.plug(&kept.into(), deadline()).await;
    assert!(matches!(again, Err(PlugError::Port { .. })), "{again:?}");
    let next = machine.plug(&disk("disk2", image).into(), deadline()).await.expect("there is room");
    assert_ne!(next, taken, "the place of {} is not free", unheard.id);
    machine.statistics(deadline()).await.expect("it obeys");
    machine.stop(deadline()).await.expect("it stops");
    let none = hypervisor.reattach(spec, &machine.handle(), deadline()).await;
    assert!(matches!(none, Ok(None)), "it has ended");
}

pub(super) async fn what_a_dead_owner_left_can_be_cleaned_up<H: Hypervisor>(
    hypervisor: &H,
    spec: &MachineSpec,
) {
    let deadline = || Deadline::after(PATIENCE);
    let mut spec = spec.clone();
    spec.outlives_owner = true;
    let machine = launch(hypervisor, &spec).await;
    let handle = machine.handle();
    machine.let_go();
    drop(machine);
    for _ in 0..2 {
        hypervisor.clean_up(&spec, deadline()).await.expect("it can be ended");
    }
    let none = hypervisor.reattach(&spec, &handle, deadline()).await;
    assert!(matches!(none, Ok(None)), "it has ended");
    // The directory is free for the next one.
    let machine = launch(hypervisor, &spec).await;
    machine.stop(deadline()).await.expect("it stops");
}
