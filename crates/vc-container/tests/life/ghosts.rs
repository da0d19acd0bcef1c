//! What the guest makes after everybody has given up on it.

use std::num::NonZeroU32;
use std::time::Duration;

use vc_agent::fake::{FakeAgent, Fault};
use vc_agent::{Call, Containers, CreateContainer, ExecProcess, ExitStatus, ProcessRef, Processes};
use vc_hypervisor::fake::FakeHypervisor;
use vc_types::Deadline;

use crate::bench::{Bench, command, id, process};

fn failing_at(n: u32) -> Bench {
    let agent = FakeAgent::with_fault(NonZeroU32::new(n).unwrap(), Fault::Hang);
    Bench::new(FakeHypervisor::default(), agent)
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

#[tokio::test(start_paused = true)]
async fn l35_a_container_that_the_guest_makes_late_is_removed() {
    // Check, CreateSandbox, GetOOMEvent, CreateContainer.
    let bench = failing_at(4);
    let sandbox = bench.sandbox().await.unwrap();
    let error = bench.container(&sandbox, "web").await.unwrap_err();
    assert!(error.left.is_empty(), "{error:?}");
    let calls = bench.agent.calls();
    assert!(calls.contains(&(Call::RemoveContainer, "web".to_owned())), "{calls:?}");
    let late = CreateContainer::new(id("web"), command("web"));
    bench.agent.create_container(&late, soon()).await.unwrap();
    while !bench.agent.left().containers.is_empty() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // The name is free.
    bench.container(&sandbox, "web").await.unwrap();
    tokio::time::sleep(bench.spec.timing.ghost).await;
    assert_eq!(bench.agent.left().containers, [id("web")], "whoever has the name now is no ghost");
}

#[tokio::test(start_paused = true)]
async fn a_late_container_gives_way_to_the_next_of_its_name() {
    let bench = failing_at(4);
    let sandbox = bench.sandbox().await.unwrap();
    bench.container(&sandbox, "web").await.unwrap_err();
    let late = CreateContainer::new(id("web"), command("web"));
    bench.agent.create_container(&late, soon()).await.unwrap();
    let error = bench.container(&sandbox, "web").await.unwrap_err();
    assert!(error.left.is_empty(), "{error:?}");
    bench.container(&sandbox, "web").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_process_that_the_guest_starts_late_is_killed() {
    // And StartContainer, ExecProcess.
    let bench = failing_at(6);
    let sandbox = bench.sandbox().await.unwrap();
    let container = bench.container(&sandbox, "web").await.unwrap();
    container.start().await.unwrap();
    let exec = "late".parse().unwrap();
    container.exec("late".parse().unwrap(), process("sh")).await.unwrap_err();
    let late = ExecProcess { container: id("web"), exec, process: process("sh") };
    bench.agent.exec(&late, soon()).await.unwrap();
    let late = late.reference();
    let killed = bench.agent.wait(&late);
    let status = tokio::time::timeout(bench.spec.timing.ghost, killed).await.unwrap().unwrap();
    assert_eq!(status, ExitStatus(137));
    let init =
        bench.agent.signals().into_iter().find(|(on, _)| *on == ProcessRef::init(&id("web")).to_string());
    assert_eq!(init, None, "nothing else was");
}
