//! From the specification of a bundle to what the agent gets: every path and number in it becomes one
//! of the guest, and what cannot be had is refused.

use std::path::PathBuf;

use oci_spec::runtime::{
    Hooks, Linux, LinuxDeviceCgroup, LinuxDeviceType, LinuxNamespaceType, LinuxResources, LinuxSeccomp,
    Process, RootBuilder, Spec,
};
use vc_types::GuestPath;

/// The umask of the guest's first process, and so of every process that is given none.
const GUEST_UMASK: u32 = 0o022;

/// What a container's specification asks for and cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// No process to run.
    #[error("the specification has no process; `process.args` must name a command")]
    NoProcess,
    /// Hooks.
    #[error("the specification has hooks, which are not supported yet")]
    Hooks,
    /// A disk of the host.
    #[error(
        "disk {0} of the host cannot be passed by its number; it would have to be plugged into the machine"
    )]
    Disk(PathBuf),
    /// A namespace that exists already.
    #[error("the {kind} namespace at {path} is one of the host, which a container in a machine cannot join")]
    NamespacePath {
        /// Its kind.
        kind: String,
        /// Its path.
        path: PathBuf,
    },
}

/// What of a specification depends on the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestFeatures {
    /// Whether the agent can confine containers by seccomp.
    pub seccomp: bool,
}

/// The specification for the agent of a container whose root file system will be at `rootfs`. Its mounts are those
/// of the guest already.
///
/// - Paths: the root becomes `rootfs`.
/// - Namespaces: `pid` is left to the agent, `network` and `cgroup` are those of the guest.
/// - Resources: those of the guest's cgroup stay (CPU, memory, pids, huge pages); block and network
///   weights and CPU sets name things of the host and are dropped.
/// - Devices: nodes of character devices and pipes are made with the same numbers in the guest, which has
///   what its kernel has. Rules stay, except those about disks by their number, which is another's there.
/// - Seccomp: the filter stays where the guest can enforce it. `defaultErrnoRet` has no place in the agent
///   protocol, so what the filter denies fails with EPERM.
/// - The umask 0022, which the guest has anyway, is left out; another is left for the agent to refuse.
/// - AppArmor and SELinux settings are dropped: the machine is the boundary, and the default guest has
///   neither.
///
/// # Errors
/// [`SpecError`] when the specification needs something of the host, such as a namespace.
pub fn guest_spec(mut spec: Spec, rootfs: &GuestPath, guest: GuestFeatures) -> Result<Spec, SpecError> {
    if spec.hooks().as_ref().is_some_and(any_hook) {
        return Err(SpecError::Hooks);
    }
    spec.set_hooks(None);
    let read_only = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    let root = RootBuilder::default().path(rootfs.as_str()).readonly(read_only).build();
    spec.set_root(Some(root.expect("path and readonly are all it takes")));
    let process = spec.process().clone().ok_or(SpecError::NoProcess)?;
    spec.set_process(Some(guest_process(process)?));
    let linux = spec.linux().clone().unwrap_or_default();
    spec.set_linux(Some(guest_linux(linux, guest)?));
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

fn guest_linux(mut linux: Linux, guest: GuestFeatures) -> Result<Linux, SpecError> {
    let mut devices = linux.devices().iter().flatten();
    if let Some(disk) = devices.find(|device| device.typ() == LinuxDeviceType::B) {
        return Err(SpecError::Disk(disk.path().clone()));
    }
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    if let Some((namespace, path)) = namespaces.iter().find_map(|n| n.path().as_ref().map(|path| (n, path))) {
        return Err(SpecError::NamespacePath { kind: namespace.typ().to_string(), path: path.clone() });
    }
    let of_the_guest = [LinuxNamespaceType::Pid, LinuxNamespaceType::Network, LinuxNamespaceType::Cgroup];
    namespaces.retain(|namespace| !of_the_guest.contains(&namespace.typ()));
    let seccomp = linux.seccomp().clone().filter(|_| guest.seccomp).map(guest_filter);
    linux.set_namespaces(Some(namespaces)).set_seccomp(seccomp).set_mount_label(None).set_cgroups_path(None);
    if let Some(resources) = linux.resources().clone() {
        let rules = resources.devices().clone();
        let rules = rules.map(|rules| rules.into_iter().filter_map(guest_rule).collect());
        let mut resources = guest_resources(resources);
        resources.set_devices(rules);
        linux.set_resources(Some(resources));
    }
    Ok(linux)
}

fn guest_filter(mut filter: LinuxSeccomp) -> LinuxSeccomp {
    filter.set_default_errno_ret(None);
    filter
}

/// The rule as it is in the guest. Numbers of disks are given in the order of their appearance, so the guest's
/// are other disks: of a rule about one device that does not tell the kind, the character device is left.
fn guest_rule(mut rule: LinuxDeviceCgroup) -> Option<LinuxDeviceCgroup> {
    let is_about_one = rule.major().is_some_and(|major| major >= 0);
    match rule.typ() {
        _ if !is_about_one => Some(rule),
        Some(LinuxDeviceType::B) => None,
        None | Some(LinuxDeviceType::A) => {
            rule.set_typ(Some(LinuxDeviceType::C));
            Some(rule)
        }
        _ => Some(rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxSeccompAction;

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
            "resources": {"cpu": {"cpus": "0-3", "shares": 512}, "pids": {"limit": 10}, "blockIO": {"weight": 10}},
            "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}
        }
    }"#;

    #[test]
    fn what_is_of_the_host_is_dropped_and_the_rest_kept() {
        let spec = guest_spec(parse(BUNDLE), &rootfs(), GuestFeatures::default()).unwrap();
        let root = spec.root().as_ref().unwrap();
        assert_eq!((root.path().to_str(), root.readonly()), (Some(rootfs().as_str()), Some(true)));
        let linux = spec.linux().as_ref().unwrap();
        let kinds: Vec<_> = linux.namespaces().iter().flatten().map(|n| n.typ().to_string()).collect();
        assert_eq!(kinds, ["mnt", "uts"]);
        assert_eq!((linux.cgroups_path(), linux.seccomp()), (&None, &None));
        let resources = linux.resources().as_ref().unwrap();
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.cpus(), cpu.shares()), (&None, Some(512)));
        assert_eq!((resources.block_io(), resources.pids().unwrap().limit()), (&None, 10));
        let process = spec.process().as_ref().unwrap();
        assert_eq!((process.apparmor_profile(), process.user().umask()), (&None, None));
    }

    #[test]
    fn a_filter_stays_where_the_guest_can_enforce_it() {
        let features = GuestFeatures { seccomp: true };
        let spec = guest_spec(parse(BUNDLE), &rootfs(), features).unwrap();
        let filter = spec.linux().as_ref().unwrap().seccomp().as_ref().unwrap();
        assert_eq!(filter.default_action(), LinuxSeccompAction::ScmpActErrno);
        assert_eq!(filter.default_errno_ret(), None);
    }

    #[test]
    fn devices_and_the_rules_about_them_stay_except_for_those_about_one_disk() {
        let mut spec: serde_json::Value = serde_json::from_str(BUNDLE).unwrap();
        let fuse = serde_json::json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229});
        let kept = serde_json::json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            {"allow": true, "type": "b", "access": "m"},
        ]);
        let mut rules = kept.clone();
        // Without a kind, it would be about a disk as well.
        rules[1]["type"] = "a".into();
        let disk = serde_json::json!({"allow": true, "type": "b", "major": 8, "minor": 0, "access": "rwm"});
        rules.as_array_mut().unwrap().push(disk);
        spec["linux"]["devices"] = serde_json::json!([fuse]);
        spec["linux"]["resources"]["devices"] = rules;
        let spec =
            guest_spec(serde_json::from_value(spec).unwrap(), &rootfs(), GuestFeatures::default()).unwrap();
        let linux = spec.linux().as_ref().unwrap();
        assert_eq!(linux.devices().as_ref().unwrap()[0].path().to_str(), Some("/dev/fuse"));
        let kept: Vec<LinuxDeviceCgroup> = serde_json::from_value(kept).unwrap();
        assert_eq!(linux.resources().as_ref().unwrap().devices().as_ref(), Some(&kept));
    }

    #[test]
    fn what_needs_the_host_is_refused() {
        let with = |from: &str, to: &str| {
            guest_spec(parse(&BUNDLE.replace(from, to)), &rootfs(), GuestFeatures::default()).unwrap_err()
        };
        let hooks = with(r#""root""#, r#""hooks": {"poststop": [{"path": "/bin/x"}]}, "root""#);
        assert_eq!(hooks, SpecError::Hooks);
        let joined = with(r#"{"type": "uts"}"#, r#"{"type": "uts", "path": "/proc/1/ns/uts"}"#);
        assert!(matches!(joined, SpecError::NamespacePath { .. }), "{joined}");
        let disk = with(
            r#""seccomp""#,
            r#""devices": [{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}], "seccomp""#,
        );
        assert_eq!(disk, SpecError::Disk("/dev/sda".into()));
        assert_eq!(with(r#""args": ["sh"], "#, ""), SpecError::NoProcess);
        assert_eq!(with(r#"["sh"]"#, "[]"), SpecError::NoProcess);
    }
}
