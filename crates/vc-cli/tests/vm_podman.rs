//! Debian's Podman with `vc` as its runtime: real containers in real machines, next to the same with runc.
#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

#[path = "podman/crowd.rs"]
mod crowd;
#[path = "podman/death.rs"]
mod death;
#[path = "podman/engine.rs"]
mod engine;
#[path = "podman/pod.rs"]
mod pod;
#[path = "podman/session.rs"]
mod session;
