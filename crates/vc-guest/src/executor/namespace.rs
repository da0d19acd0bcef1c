//! Namespaces that other processes join: each lives as long as a process that does nothing else.

use super::protocol::{Failure, IdMappings};
use crate::sys::{self, Child};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use oci_spec::runtime::LinuxIdMapping;
use std::process::{Command, ExitCode, Stdio};

/// Starts `pause` as the init of a new pid namespace.
pub(super) fn pid_namespace() -> std::io::Result<i32> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    let child = Command::new("/proc/self/exe")
        .arg("pause")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    i32::try_from(child.id()).map_err(std::io::Error::other)
}

/// Starts a process in a new user namespace that has the ids of `mappings`.
pub(super) fn user_namespace(mappings: &IdMappings) -> Result<i32, Failure> {
    let holder = sys::child(Child::UserNamespace, None).map_err(Failure::step("make a user namespace"))?;
    let Some(holder) = holder else { wait_to_be_killed() };
    let given = write_map(holder, "uid_map", &mappings.users)
        .and_then(|()| write_map(holder, "gid_map", &mappings.groups));
    if let Err(failure) = given {
        let _ = kill(holder, Signal::SIGKILL).and_then(|()| waitpid(holder, None));
        return Err(failure);
    }
    Ok(holder.as_raw())
}

/// Takes effect whole or not at all (user_namespaces(7)).
fn write_map(holder: Pid, file: &str, mappings: &[LinuxIdMapping]) -> Result<(), Failure> {
    std::fs::write(format!("/proc/{holder}/{file}"), map_text(mappings))
        .map_err(|error| Failure::Other(format!("the kernel does not take the {file}: {error}")))
}

fn map_text(mappings: &[LinuxIdMapping]) -> String {
    let line = |map: &LinuxIdMapping| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size());
    mappings.iter().map(line).collect()
}

/// The init of a shared pid namespace: reaps orphans until it is killed.
pub(super) fn pause() -> ExitCode {
    match sys::ignore_signal(Signal::SIGCHLD) {
        Ok(()) => wait_to_be_killed(),
        Err(_) => ExitCode::FAILURE,
    }
}

fn wait_to_be_killed() -> ! {
    loop {
        nix::unistd::pause();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_has_the_containers_ids_first() {
        let mappings: Vec<LinuxIdMapping> = serde_json::from_value(serde_json::json!([
            {"containerID": 0, "hostID": 1000, "size": 10},
            {"containerID": 10, "hostID": 5, "size": 1},
        ]))
        .unwrap();
        assert_eq!(map_text(&mappings), "0 1000 10\n10 5 1\n");
    }
}
