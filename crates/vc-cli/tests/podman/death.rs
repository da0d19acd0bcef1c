//! The owner of a container is killed while Podman thinks that it runs.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::Engine;

#[test]
fn a_killed_owner_is_noticed_by_podman_and_leaves_nothing() {
    let Some(engine) = Engine::with_vc() else { return };
    engine.succeed("podman run -d --name a --network none $B sleep 600 >/dev/null");
    let pid = engine.succeed("podman inspect a --format '{{.State.Pid}}'");
    kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL).unwrap();
    // Podman is told by its monitor, and then removes what the runtime has left.
    assert_eq!(engine.succeed("podman wait a"), "137\n");
    assert_eq!(
        engine.succeed("podman inspect a --format '{{.State.Status}} {{.State.ExitCode}}'"),
        "exited 137\n"
    );
    engine.succeed("podman rm -f a");
    assert_eq!(engine.left(), Vec::<String>::new());
}
