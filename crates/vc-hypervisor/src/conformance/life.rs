//! What is owed about the life of a machine: pause, statistics, end.

use std::collections::BTreeSet;
use std::time::Duration;

use vc_types::Deadline;

use super::{PATIENCE, launch};
use crate::{ControlError, ExitCause, Hypervisor, Machine, MachineSpec, ShutdownCause};

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
