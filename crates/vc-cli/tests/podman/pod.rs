//! Pods: several containers in one machine.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::Engine;

/// The first container of the pod `p`.
const FIRST: &str = "$(podman pod inspect p --format '{{.InfraContainerID}}')";

fn kill_process_of(engine: &Engine, container: &str) {
    let pid = engine.succeed(&format!("podman inspect {container} --format '{{{{.State.Pid}}}}'"));
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
}

#[test]
fn the_containers_of_a_pod_are_in_one_machine() {
    let Some(engine) = Engine::with_vc() else { return };
    engine.succeed("podman pod create --name p --network none --share ipc,net,uts,pid >/dev/null");
    engine.succeed(
        "podman run -d --pod p --name a $B sh -c 'echo up; echo shared >/dev/shm/note; exec sleep 601'",
    );
    engine.succeed("podman run -d --pod p --name b $B sleep 602");
    assert_eq!(engine.machines(), 1);

    engine.succeed("eventually 'podman exec b grep -q shared /dev/shm/note'");
    assert_eq!(engine.succeed("podman logs a"), "up\n");
    for container in ["a", "b"] {
        let said = engine.succeed(&format!(
            "podman exec {container} sh -c \"hostname; ps | grep -c '[s]leep 60[12]'; ps | grep -c '[c]atatonit'\""
        ));
        assert_eq!(said, "p\n2\n1\n", "{container}");
    }
    let ipc = |container| engine.succeed(&format!("podman exec {container} readlink /proc/self/ns/ipc"));
    assert_eq!(ipc("a"), ipc("b"));
    assert_eq!(engine.succeed("podman run --rm --pod p -t $B tty"), "/dev/pts/0\n");
    let limited = "podman run --rm --pod p --memory 32m -i $B sh -c 'cat; cat /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)/memory.max; exit 7'";
    let limited = engine.line(&format!("echo in | {limited}"));
    assert_eq!((limited.code, &*limited.said), (Some(7), "in\n33554432\n"));

    // One comes and goes, the others stay.
    engine.succeed("podman stop -t 5 a");
    assert_eq!(engine.succeed("podman inspect a --format '{{.State.ExitCode}}'"), "143\n");
    assert_eq!(engine.succeed("podman exec b echo on"), "on\n");
    engine.succeed("podman start a && eventually 'podman exec a ps | grep -q \"[s]leep 601\"'");
    engine.succeed("podman rm -f -t 0 b");
    kill_process_of(&engine, "a");
    assert_eq!(engine.succeed("podman wait a"), "137\n");
    engine.succeed("podman start a && eventually 'podman exec a echo again'");
    assert_eq!(engine.machines(), 1);

    engine.succeed("podman pod rm -f -t 2 p");
    assert_eq!(engine.left(), Vec::<String>::new());
}

#[test]
fn a_pod_ends_with_its_last_container_or_its_owner() {
    let Some(engine) = Engine::with_vc() else { return };
    engine.succeed("podman pod create --name p --network none >/dev/null");
    let script = "trap 'sleep 3; exit 5' TERM; echo up; while :; do sleep 0.1; done";
    engine.succeed(&format!("podman run -d --pod p --name a $B sh -c \"{script}\""));
    engine.succeed("eventually 'podman logs a | grep -q up'");
    assert_eq!(
        engine.succeed("podman exec a sh -c \"ps | grep -c '[c]atatonit'; true\""),
        "0\n",
        "it has its own pids"
    );
    // Podman ends the first container of a pod together with the others, which may still have something to do.
    engine.succeed("podman pod stop -t 30 p");
    let code =
        |container| engine.succeed(&format!("podman inspect {container} --format '{{{{.State.ExitCode}}}}'"));
    assert_eq!(code("a"), "5\n");
    assert_eq!(code(FIRST), "0\n");
    assert_eq!(engine.machines(), 0);

    engine.succeed("podman pod start p");
    engine.succeed("eventually 'podman exec a true'");
    kill_process_of(&engine, FIRST);
    assert_eq!(engine.succeed("podman wait a"), "137\n");
    assert_eq!(engine.machines(), 0);
    engine.succeed("podman pod rm -f p");
    assert_eq!(engine.left(), Vec::<String>::new());
}
