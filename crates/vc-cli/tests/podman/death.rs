//! The owner of a container is killed while Podman thinks that it runs.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::engine::Engine;

#[test]
fn a_killed_owner_is_told_of_and_leaves_nothing() {
    let Some(engine) = Engine::with_vc() else { return };
    engine.succeed("podman run -d --name a --network none $B sleep 600 >/dev/null");
    engine.succeed("podman run -d --name b --network none $B sleep 600 >/dev/null");
    let inspect = |name: &str, what: &str| {
        let output =
            engine.command(&format!("podman inspect {name} --format '{{{{{what}}}}}'")).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (a, b) = (inspect("a", ".Id"), inspect("b", ".Id"));
    for name in ["a", "b"] {
        let pid = inspect(name, ".State.Pid").parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    // Podman is told by its monitor.
    assert_eq!(engine.succeed("podman wait a b"), "137\n137\n");
    let state: Value = serde_json::from_slice(&engine.vc(&["state", &a]).stdout).unwrap();
    assert_eq!(state["status"], "stopped");
    assert!(state["problem"].as_str().unwrap().contains("owner died"), "{state}");
    // One by Podman, the other by hand, which Podman copes with.
    engine.succeed("podman rm -f a");
    assert!(!engine.vc(&["state", &a]).status.success());
    let recovered = engine.vc(&["recover"]);
    assert!(recovered.status.success());
    assert!(String::from_utf8_lossy(&recovered.stdout).contains(&b), "{recovered:?}");
    assert!(!engine.vc(&["state", &b]).status.success());
    engine.succeed("podman rm -f b");
    assert_eq!(engine.left(), Vec::<String>::new());
}
