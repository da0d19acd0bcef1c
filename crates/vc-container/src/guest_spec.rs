//! From the specification of a bundle to what the agent gets: every path and number in it becomes one
//! of the guest, and what cannot be had is refused.

use std::path::PathBuf;

use oci_spec::runtime::{
    Hooks, Linux, LinuxNamespaceType, LinuxResources, Mount, Process, RootBuilder, Spec,
};
use vc_types::GuestPath;

/// The umask of the guest's first process, and so of every process that is given none.
const GUEST_UMASK: u32 = 0o022;

/// File systems that the guest makes by itself.
const MADE_IN_GUEST: [&str; 7] = ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"];

/// What a container's specification asks for and cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// No process to run.
    #[error("the specification has no process; `process.args` must name a command")]
    NoProcess,
    /// A mount whose source is on the host.
    #[error(
        "mount {destination} has its source {source_path:?} on the host; sharing host directories is not supported yet"
    )]
    HostMount {
        /// Where it would be in the container.
        destination: PathBuf,
        /// Where it is on the host.
        source_path: PathBuf,
    },
    /// A mount of an unknown type.
    #[error("mount {destination} has type {kind:?}, which the guest cannot make")]
    MountType {
        /// Where it would be in the container.
        destination: PathBuf,
        /// Its type.
        kind: String,
    },
    /// Hooks.
    #[error("the specification has hooks, which are not supported yet")]
    Hooks,
    /// A device of the host.
    #[error("device {0} of the host cannot be passed yet")]
    Device(PathBuf),
    /// A namespace that exists already.
    #[error("the {kind} namespace at {path} is one of the host, which a container in a machine cannot join")]
    NamespacePath {
        /// Its kind.
        kind: String,
        /// Its path.
        path: PathBuf,
    },
}

/// The specification for the agent of a container whose root file system will be at `rootfs`.
///
/// - Paths: the root becomes `rootfs`.
/// - Namespaces: `pid` is left to the agent, `network` and `cgroup` are those of the guest.
/// - Resources: those of the guest's cgroup stay (CPU, memory, pids, huge pages); device rules, block
///   and network weights and CPU sets name things of the host and are dropped.
/// - The umask 0022, which the guest has anyway, is left out; another is left for the agent to refuse.
/// - Seccomp, AppArmor and SELinux settings are dropped: the machine is the boundary, and the default
///   guest has none of the three.
///
/// # Errors
/// [`SpecError`] when the specification needs something of the host, such as a bind mount.
pub fn guest_spec(mut spec: Spec, rootfs: &GuestPath) -> Result<Spec, SpecError> {
    if spec.hooks().as_ref().is_some_and(any_hook) {
        return Err(SpecError::Hooks);
    }
    spec.set_hooks(None);
    for mount in spec.mounts().iter().flatten() {
        check_mount(mount)?;
    }
    let read_only = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    let root = RootBuilder::default().path(rootfs.as_str()).readonly(read_only).build();
    spec.set_root(Some(root.expect("path and readonly are all it takes")));
    let process = spec.process().clone().ok_or(SpecError::NoProcess)?;
    spec.set_process(Some(guest_process(process)?));
    let linux = spec.linux().clone().unwrap_or_default();
    spec.set_linux(Some(guest_linux(linux)?));
    Ok(spec)
}

/// A process as the agent gets it: of a container, or executed in one.
///
/// # Errors
/// [`SpecError::NoProcess`] without a command.
pub fn guest_process(mut process: Process) -> Result<Process, SpecError> {
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(SpecError::NoProcess);
    }
    process.set_apparmor_profile(None).set_selinux_label(None);
    // Container engines always give one, and the agent protocol has no place for it.
    if process.user().umask() == Some(GUEST_UMASK) {
        let mut user = process.user().clone();
        user.set_umask(None);
        process.set_user(user);
    }
    Ok(process)
}

/// Limits as the agent gets them: what names things of the host is left out.
pub(crate) fn guest_resources(mut resources: LinuxResources) -> LinuxResources {
    resources.set_devices(None).set_block_io(None).set_network(None);
    if let Some(mut cpu) = resources.cpu().clone() {
        cpu.set_cpus(None).set_mems(None);
        resources.set_cpu(Some(cpu));
    }
    resources
}

fn any_hook(hooks: &Hooks) -> bool {
    let prestart = hooks.prestart();
    let others = [hooks.create_runtime(), hooks.create_container(), hooks.start_container()];
    let after = [hooks.poststart(), hooks.poststop()];
    others.into_iter().chain(after).chain([prestart]).flatten().any(|list| !list.is_empty())
}

fn check_mount(mount: &Mount) -> Result<(), SpecError> {
    let destination = mount.destination().clone();
    let kind = mount.typ().clone().unwrap_or_default();
    let options = mount.options().iter().flatten();
    let bind = kind == "bind" || options.into_iter().any(|option| option == "bind" || option == "rbind");
    if bind {
        let source_path = mount.source().clone().unwrap_or_default();
        return Err(SpecError::HostMount { destination, source_path });
    }
    if !MADE_IN_GUEST.contains(&kind.as_str()) {
        return Err(SpecError::MountType { destination, kind });
    }
    Ok(())
}

fn guest_linux(mut linux: Linux) -> Result<Linux, SpecError> {
    if let Some(device) = linux.devices().iter().flatten().next() {
        return Err(SpecError::Device(device.path().clone()));
    }
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    if let Some((namespace, path)) = namespaces.iter().find_map(|n| n.path().as_ref().map(|path| (n, path))) {
        return Err(SpecError::NamespacePath { kind: namespace.typ().to_string(), path: path.clone() });
    }
    let of_the_guest = [LinuxNamespaceType::Pid, LinuxNamespaceType::Network, LinuxNamespaceType::Cgroup];
    namespaces.retain(|namespace| !of_the_guest.contains(&namespace.typ()));
    linux.set_namespaces(Some(namespaces)).set_seccomp(None).set_mount_label(None).set_cgroups_path(None);
    if let Some(resources) = linux.resources().clone() {
        linux.set_resources(Some(guest_resources(resources)));
    }
    Ok(linux)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Spec {
        serde_json::from_str(json).unwrap()
    }

    fn rootfs() -> GuestPath {
        GuestPath::new("/run/kata-containers/web/rootfs").unwrap()
    }

    const BUNDLE: &str = r#"{
        "ociVersion": "1.2.0",
        "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0, "umask": 18}, "apparmorProfile": "docker-default"},
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "cgroup"}],
            "cgroupsPath": "machine.slice:libpod:1",
            "resources": {"cpu": {"cpus": "0-3", "shares": 512}, "pids": {"limit": 10}, "devices": [{"allow": false}]},
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}
        }
    }"#;

    #[test]
    fn what_is_of_the_host_is_dropped_and_the_rest_kept() {
        let spec = guest_spec(parse(BUNDLE), &rootfs()).unwrap();
        let root = spec.root().as_ref().unwrap();
        assert_eq!((root.path().to_str(), root.readonly()), (Some(rootfs().as_str()), Some(true)));
        let linux = spec.linux().as_ref().unwrap();
        let kinds: Vec<_> = linux.namespaces().iter().flatten().map(|n| n.typ().to_string()).collect();
        assert_eq!(kinds, ["mnt", "uts"]);
        assert_eq!((linux.cgroups_path(), linux.seccomp()), (&None, &None));
        let resources = linux.resources().as_ref().unwrap();
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.cpus(), cpu.shares()), (&None, Some(512)));
        assert_eq!((resources.devices(), resources.pids().unwrap().limit()), (&None, 10));
        let process = spec.process().as_ref().unwrap();
        assert_eq!((process.apparmor_profile(), process.user().umask()), (&None, None));
    }

    #[test]
    fn what_needs_the_host_is_refused() {
        let with =
            |from: &str, to: &str| guest_spec(parse(&BUNDLE.replace(from, to)), &rootfs()).unwrap_err();
        let bind = with(r#""type": "proc""#, r#""type": "bind""#);
        assert!(matches!(bind, SpecError::HostMount { .. }), "{bind}");
        let rbind = with(r#""source": "proc"}"#, r#""source": "/etc", "options": ["rbind"]}"#);
        assert!(matches!(rbind, SpecError::HostMount { .. }), "{rbind}");
        let nfs = with(r#""type": "proc""#, r#""type": "nfs""#);
        assert!(matches!(nfs, SpecError::MountType { .. }), "{nfs}");
        let hooks = with(r#""root""#, r#""hooks": {"poststop": [{"path": "/bin/x"}]}, "root""#);
        assert_eq!(hooks, SpecError::Hooks);
        let joined = with(r#"{"type": "uts"}"#, r#"{"type": "uts", "path": "/proc/1/ns/uts"}"#);
        assert!(matches!(joined, SpecError::NamespacePath { .. }), "{joined}");
        let device = with(
            r#""seccomp""#,
            r#""devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}], "seccomp""#,
        );
        assert_eq!(device, SpecError::Device("/dev/fuse".into()));
        assert_eq!(with(r#""args": ["sh"], "#, ""), SpecError::NoProcess);
        assert_eq!(with(r#"["sh"]"#, "[]"), SpecError::NoProcess);
    }
}
