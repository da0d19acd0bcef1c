//! The host's cgroup of a container: its owner and machine are in it, so that engines see what they use.
//!
//! Only `linux.cgroupsPath` is used, not the limits: those are for the container and hold in the guest, where the
//! kernel of the machine is not counted.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use oci_spec::runtime::Spec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vc_mountinfo::{Fields, Mounts, ReadError};

/// How long what ran in a cgroup may take to end, once its owner has.
const END: Duration = Duration::from_secs(10);

/// The values that a cpuset needs before anything may be in it (cpuset(7)).
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// A hierarchy of cgroups.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    root: PathBuf,
    unified: bool,
}

/// The cgroup that the specification names, in every hierarchy there is. None if it names none, or one of systemd's:
/// systemd made the one that this process is in, and nobody else may make cgroups in its tree.
pub(crate) fn of(spec: &Spec) -> Result<Vec<PathBuf>, ReadError> {
    let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let Some(path) = path.and_then(below_root) else { return Ok(Vec::new()) };
    Ok(hierarchies()?.into_iter().map(|hierarchy| hierarchy.root.join(&path)).collect())
}

/// The path below the root of a hierarchy, if it is one that is safe to make.
fn below_root(path: &Path) -> Option<PathBuf> {
    let below = path.strip_prefix("/").ok()?;
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && !below.as_os_str().is_empty()).then(|| below.to_owned())
}

fn hierarchies() -> Result<Vec<Hierarchy>, ReadError> {
    let mut mounts = Mounts::all(Fields { mount_point: true, root: true, fs_options: false })?;
    let mut found = Vec::new();
    loop {
        match mounts.next_mount() {
            Ok(None) => return Ok(found),
            Ok(Some(mount)) => {
                let unified = mount.fs_type.as_encoded_bytes() == b"cgroup2";
                let known = unified || mount.fs_type.as_encoded_bytes() == b"cgroup";
                let whole = mount.root.as_deref() == Some(Path::new("/"));
                if let (true, true, Some(at)) = (known, whole, mount.mount_point) {
                    found.push(Hierarchy { root: at.into_owned(), unified });
                }
            }
            // A line of somebody else's mount that makes no sense says nothing of the others.
            Err(ReadError::Malformed(_)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Puts this process into the cgroups, which are made if need be. A container that is not in them is as it should be, only
/// what it uses is counted elsewhere; so that is logged, and no error.
pub(crate) fn enter(cgroups: &[PathBuf]) {
    if let Err(error) = try_enter(cgroups) {
        tracing::warn!(%error, "the machine is not in the cgroup of its container");
    }
}

fn try_enter(cgroups: &[PathBuf]) -> io::Result<()> {
    let own = std::process::id().to_string();
    for cgroup in cgroups {
        make(cgroup)?;
        fs::write(cgroup.join("cgroup.procs"), &own)?;
    }
    Ok(())
}

/// Makes the cgroup and those above it.
fn make(cgroup: &Path) -> io::Result<()> {
    if cgroup.is_dir() {
        return Ok(());
    }
    let above = cgroup.parent().ok_or(io::ErrorKind::NotFound)?;
    make(above)?;
    // In the unified hierarchy, what is not handed down is not counted. A controller that is not to be had is no reason
    // to have none.
    let controllers = fs::read_to_string(above.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(above.join("cgroup.subtree_control"), format!("+{controller}"));
    }
    fs::create_dir(cgroup).or_else(|error| {
        // Another container's owner may have made the same parent.
        if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
    })?;
    for file in CPUSET {
        let inherited = fs::read_to_string(above.join(file)).unwrap_or_default();
        if !inherited.trim().is_empty() && cgroup.join(file).exists() {
            fs::write(cgroup.join(file), inherited)?;
        }
    }
    Ok(())
}

/// Removes the cgroups once nothing runs in them any more. Those that are gone, or used by others, are left alone.
pub(crate) fn remove(cgroups: &[PathBuf]) {
    let deadline = Instant::now() + END;
    for cgroup in cgroups.iter().filter(|cgroup| cgroup.is_dir()) {
        wait_until_empty(cgroup, deadline);
        if let Err(error) = fs::remove_dir(cgroup)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(cgroup = %cgroup.display(), %error, "a cgroup stays");
        }
    }
}

fn wait_until_empty(cgroup: &Path, deadline: Instant) {
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("some seconds");
        // An error is the same as the end: the removal says whether it was.
        let _ = poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_of(given: &str) -> Option<PathBuf> {
        below_root(Path::new(given))
    }

    #[test]
    fn only_a_plain_path_below_the_root_is_made() {
        assert_eq!(path_of("/libpod_parent/libpod-1"), Some("libpod_parent/libpod-1".into()));
        for other in ["/", "", "relative", "/a/../b", "machine.slice:libpod:1"] {
            assert_eq!(path_of(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_cgroup_is_made_entered_and_removed() {
        if !vc_tests::root() {
            return;
        }
        let name = format!("/vc-test-{}/inner", std::process::id());
        let linux = serde_json::json!({"cgroupsPath": name});
        let spec =
            serde_json::from_value(serde_json::json!({"ociVersion": "1.2.0", "linux": linux})).unwrap();
        let cgroups = of(&spec).unwrap();
        if cgroups.is_empty() || cgroups.iter().any(|cgroup| make(cgroup).is_err()) {
            return vc_tests::skip("no cgroup can be made here");
        }
        let child = std::process::Command::new("sleep").arg("0.2").spawn().unwrap();
        for cgroup in &cgroups {
            fs::write(cgroup.join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        // Waits for the end of what is in it.
        let reaper = std::thread::spawn(move || {
            let mut child = child;
            child.wait()
        });
        remove(&cgroups);
        reaper.join().unwrap().unwrap();
        assert!(cgroups.iter().all(|cgroup| !cgroup.exists()), "{cgroups:?}");
        let parents: Vec<_> =
            cgroups.iter().filter_map(|cgroup| cgroup.parent().map(Path::to_owned)).collect();
        remove(&parents);
        assert!(parents.iter().all(|parent| !parent.exists()));
    }
}
