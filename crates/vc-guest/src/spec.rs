//! The OCI specification as the guest runs it.

use crate::resources::{LimitError, limits};
use oci_spec::runtime::{
    Hooks, Linux, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType, LinuxSeccomp, LinuxSeccompAction,
    Mount, Process, Spec,
};
use std::path::{Path, PathBuf};
use vc_agent_protocol::oci;
use vc_agent_protocol::spec::ConvertError;
use vc_types::{ContainerId, GuestPath, InvalidPath};

/// The version of the runtime specification that is assumed when none is given.
const OCI_VERSION: &str = "1.2.0";

/// The longest arguments and environment taken, in bytes: half of what execve(2) takes with the
/// usual stack limit of 8 MiB.
const MAX_ARGUMENTS: usize = 1 << 20;

/// The kinds of devices of a request that this agent gives to containers (GetGuestDetails).
pub(crate) const DEVICE_HANDLERS: &[&str] = &["blk", "scsi", "mmioblk", "nvdimm"];

/// Why a specification cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The message has a value that the specification does not know.
    #[error("the OCI specification is not usable")]
    Convert(#[from] ConvertError),
    /// A part that every container needs.
    #[error("the OCI specification has no {0}")]
    Missing(&'static str),
    /// A part that this agent cannot honour; running without it would be another container.
    #[error("this agent does not support {0}: the host must not send it")]
    Unsupported(&'static str),
    /// A value that no runtime could honour.
    #[error("{0} is {1:?}, which no container can have")]
    Value(&'static str, String),
    /// A part that has a meaning only together with another.
    #[error("{0} has no meaning without {1}")]
    Without(&'static str, &'static str),
    /// A limit that the guest cannot set.
    #[error("the OCI specification has a limit that cannot be set")]
    Limit(#[from] LimitError),
    /// A path that is not absolute, or has `..`.
    #[error("the {0} of the OCI specification is not usable")]
    Path(&'static str, #[source] InvalidPath),
    /// Arguments or environment larger than execve(2) takes.
    #[error("arguments and environment are larger than {MAX_ARGUMENTS} bytes")]
    TooLong,
}

/// The specification of the container `id`, ready for the executor.
///
/// The container always has a mount and a pid namespace of its own; the latter is the one at
/// `shared_pid` when the sandbox shares it. An empty cgroup path becomes `/vc/<id>`.
///
/// # Errors
/// [`SpecError`] says which part cannot be run.
pub fn container_spec(
    wire: &oci::Spec,
    id: &ContainerId,
    shared_pid: Option<&Path>,
) -> Result<Spec, SpecError> {
    let mut spec = Spec::try_from(wire)?;
    let mut process = spec.process().clone().ok_or(SpecError::Missing("process"))?;
    check_process(&mut process)?;
    spec.set_process(Some(process));
    let root = spec.root().as_ref().ok_or(SpecError::Missing("root"))?;
    GuestPath::new(root.path().to_string_lossy()).map_err(|error| SpecError::Path("root path", error))?;
    refuse("solaris", spec.solaris().is_some())?;
    refuse("windows", spec.windows().is_some())?;
    spec.mounts().iter().flatten().try_for_each(check_mount)?;
    spec.hooks().iter().try_for_each(check_hooks)?;
    match spec.version().as_str() {
        "" => drop(spec.set_version(OCI_VERSION.to_owned())),
        version if version.starts_with("1.") => {}
        version => return Err(SpecError::Value("ociVersion", version.to_owned())),
    }
    let has_hostname = spec.hostname().is_some();
    let linux = spec.linux_mut().as_mut().ok_or(SpecError::Missing("linux part"))?;
    check_linux(linux)?;
    let cgroup = cgroup_path(linux.cgroups_path().as_deref(), id)?;
    linux.set_cgroups_path(Some(cgroup));
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    add_namespace(&mut namespaces, LinuxNamespaceType::Mount);
    if has_hostname {
        add_namespace(&mut namespaces, LinuxNamespaceType::Uts);
    }
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Pid);
    add_namespace(&mut namespaces, LinuxNamespaceType::Pid);
    if shared_pid.is_some() && namespaces.iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User)
    {
        // It would have no rights over the pids, so that it could not even mount its /proc.
        return Err(SpecError::Unsupported("a user namespace together with the sandbox's pids"));
    }
    if let (Some(path), Some(pid)) = (shared_pid, namespaces.last_mut()) {
        pid.set_path(Some(path.to_owned()));
    }
    linux.set_namespaces(Some(namespaces));
    Ok(spec)
}

/// Checks the hooks: each has an absolute path and, if any, a timeout of at least a second (`config.md`,
/// "POSIX-platform Hooks").
fn check_hooks(hooks: &Hooks) -> Result<(), SpecError> {
    let before = [hooks.prestart(), hooks.create_runtime(), hooks.create_container()];
    let after = [hooks.start_container(), hooks.poststart(), hooks.poststop()];
    for hook in before.into_iter().chain(after).flatten().flatten() {
        GuestPath::new(hook.path().to_string_lossy())
            .map_err(|error| SpecError::Path("path of a hook", error))?;
        if let Some(seconds @ ..=0) = hook.timeout() {
            return Err(SpecError::Value("the timeout of a hook", seconds.to_string()));
        }
    }
    Ok(())
}

/// The process of an exec.
///
/// # Errors
/// [`SpecError`] says which part cannot be run.
pub fn exec_process(wire: &oci::Process) -> Result<Process, SpecError> {
    let mut process = Process::try_from(wire)?;
    check_process(&mut process)?;
    Ok(process)
}

/// Checks a process, and fills in what is not given: no capabilities at all.
fn check_process(process: &mut Process) -> Result<(), SpecError> {
    let arguments = process.args().iter().flatten();
    if arguments.clone().next().is_none_or(String::is_empty) {
        return Err(SpecError::Missing("process arguments"));
    }
    let texts = arguments.chain(process.env().iter().flatten());
    if texts.map(String::len).sum::<usize>() > MAX_ARGUMENTS {
        return Err(SpecError::TooLong);
    }
    let cwd = process.cwd().to_string_lossy();
    GuestPath::new(cwd).map_err(|error| SpecError::Path("process working directory", error))?;
    refuse("process.user.username", process.user().username().is_some())?;
    refuse("process.apparmorProfile", process.apparmor_profile().is_some())?;
    refuse("process.selinuxLabel", process.selinux_label().is_some())?;
    if process.capabilities().is_none() {
        process.set_capabilities(Some(no_capabilities()));
    }
    Ok(())
}

fn no_capabilities() -> LinuxCapabilities {
    let none = || Some(std::collections::HashSet::new());
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(none())
        .set_effective(none())
        .set_inheritable(none())
        .set_permitted(none())
        .set_ambient(none());
    capabilities
}

fn refuse(field: &'static str, is_given: bool) -> Result<(), SpecError> {
    if is_given { Err(SpecError::Unsupported(field)) } else { Ok(()) }
}

fn check_mount(mount: &Mount) -> Result<(), SpecError> {
    GuestPath::new(mount.destination().to_string_lossy())
        .map_err(|error| SpecError::Path("mount destination", error))?;
    let has =
        |names: [&str; 2]| mount.options().iter().flatten().any(|option| names.contains(&option.as_str()));
    refuse("an id-mapped mount", has(["idmap", "ridmap"]))?;
    // libcontainer 0.7 drops these. Private is what every mount of the guest is, and a slave of a private
    // mount is one as well.
    refuse("a shared mount", has(["shared", "rshared"]))?;
    refuse("an unbindable mount", has(["unbindable", "runbindable"]))
}

fn check_linux(linux: &mut Linux) -> Result<(), SpecError> {
    refuse("linux.mountLabel", linux.mount_label().is_some())?;
    refuse("linux.intelRdt", linux.intel_rdt().is_some())?;
    check_users(linux)?;
    linux.seccomp().as_ref().map_or(Ok(()), check_seccomp)?;
    if let Some(resources) = linux.resources() {
        limits(resources, "max")?;
    }
    if let Some(given) = linux.rootfs_propagation().clone() {
        // The kernel's names for the recursive forms mean the same here: it is always recursive.
        let plain = given.strip_prefix('r').unwrap_or(&given);
        if !["shared", "slave", "private", "unbindable"].contains(&plain) {
            return Err(SpecError::Value("linux.rootfsPropagation", given));
        }
        linux.set_rootfs_propagation(Some(plain.to_owned()));
    }
    Ok(())
}

/// A new user namespace has the ids that it is given; one that exists has its own.
fn check_users(linux: &Linux) -> Result<(), SpecError> {
    let mut namespaces = linux.namespaces().iter().flatten();
    let users = namespaces.find(|namespace| namespace.typ() == LinuxNamespaceType::User);
    let is_new = users.is_some_and(|namespace| namespace.path().is_none());
    let lists = [("linux.uidMappings", linux.uid_mappings()), ("linux.gidMappings", linux.gid_mappings())];
    for (field, mappings) in lists {
        match mappings.as_deref().unwrap_or_default() {
            [] if is_new => return Err(SpecError::Missing(field)),
            [] => {}
            _ if !is_new => return Err(SpecError::Without(field, "a new user namespace")),
            mappings if mappings.iter().any(|mapping| mapping.size() == 0) => {
                return Err(SpecError::Value(field, "a mapping of no ids".to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_seccomp(seccomp: &LinuxSeccomp) -> Result<(), SpecError> {
    refuse("linux.seccomp", !crate::SUPPORTS_SECCOMP)?;
    let mut rules = seccomp.syscalls().iter().flatten();
    let notifies = rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    let default = seccomp.default_action() == LinuxSeccompAction::ScmpActNotify;
    refuse("the seccomp action SCMP_ACT_NOTIFY", notifies || default)
}

fn add_namespace(namespaces: &mut Vec<LinuxNamespace>, typ: LinuxNamespaceType) {
    if !namespaces.iter().any(|namespace| namespace.typ() == typ) {
        let mut namespace = LinuxNamespace::default();
        namespace.set_typ(typ).set_path(None);
        namespaces.push(namespace);
    }
}

/// The container's cgroup below the root of the hierarchy. systemd's form `slice:prefix:name` means
/// the same name, since no systemd runs here.
fn cgroup_path(given: Option<&Path>, id: &ContainerId) -> Result<PathBuf, SpecError> {
    let given = given.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let path = match given.rsplit_once(':') {
        Some((_, name)) => format!("/vc/{name}"),
        None if given.is_empty() => format!("/vc/{id}"),
        None => given,
    };
    let path = GuestPath::new(path).map_err(|error| SpecError::Path("cgroup path", error))?;
    if path.as_str() == "/" {
        return Err(SpecError::Missing("cgroup path other than the root"));
    }
    Ok(PathBuf::from(path.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> oci::Spec {
        let process = oci::Process { args: vec!["sh".into()], cwd: "/".into(), ..Default::default() };
        let root = oci::Root { path: "/run/rootfs".into(), ..Default::default() };
        oci::Spec {
            process: Some(process).into(),
            root: Some(root).into(),
            linux: Some(oci::Linux::default()).into(),
            ..Default::default()
        }
    }

    fn convert(change: impl FnOnce(&mut oci::Spec)) -> Result<Spec, SpecError> {
        let mut wire = wire();
        change(&mut wire);
        container_spec(&wire, &"box".parse().unwrap(), None)
    }

    fn namespaces(spec: &Spec) -> Vec<(LinuxNamespaceType, Option<PathBuf>)> {
        let list = spec.linux().as_ref().unwrap().namespaces().clone().unwrap();
        list.iter().map(|namespace| (namespace.typ(), namespace.path().clone())).collect()
    }

    #[test]
    fn a_container_always_has_its_own_mounts_and_pids() {
        let spec = convert(|_| ()).unwrap();
        assert_eq!(spec.version(), "1.2.0");
        let own = [(LinuxNamespaceType::Mount, None), (LinuxNamespaceType::Pid, None)];
        assert_eq!(namespaces(&spec), own);

        let shared = Path::new("/proc/7/ns/pid");
        let pid = oci::LinuxNamespace { type_: "pid".into(), ..Default::default() };
        let mut wire = wire();
        wire.linux.as_mut().unwrap().namespaces = vec![pid];
        wire.hostname = "box".into();
        let spec = container_spec(&wire, &"box".parse().unwrap(), Some(shared)).unwrap();
        let want = [
            (LinuxNamespaceType::Mount, None),
            (LinuxNamespaceType::Uts, None),
            (LinuxNamespaceType::Pid, Some(shared.to_owned())),
        ];
        assert_eq!(namespaces(&spec), want);
    }

    #[test]
    fn cgroup_paths_of_all_forms_are_below_the_root() {
        for (given, want) in [("", "/vc/box"), ("/a/b", "/a/b"), ("system.slice:cri:box2", "/vc/box2")] {
            let spec = convert(|spec| spec.linux.as_mut().unwrap().cgroups_path = given.into()).unwrap();
            let path = spec.linux().as_ref().unwrap().cgroups_path().clone().unwrap();
            assert_eq!(path, Path::new(want), "{given:?}");
        }
        for bad in ["/../x", "relative", "/", "a:b:../../x"] {
            let result = convert(|spec| spec.linux.as_mut().unwrap().cgroups_path = bad.into());
            assert!(result.is_err(), "{bad:?}");
        }
    }

    fn mapping(size: u32) -> oci::LinuxIDMapping {
        oci::LinuxIDMapping { host_id: 1000, size, ..Default::default() }
    }

    #[test]
    fn a_new_user_namespace_needs_ids_and_pids_of_its_own() {
        let spec = |uids: Vec<_>, gids: Vec<_>, path: &str, shared: Option<&Path>| {
            let user = oci::LinuxNamespace { type_: "user".into(), path: path.into(), ..Default::default() };
            let mut wire = wire();
            let linux = wire.linux.as_mut().unwrap();
            linux.namespaces = vec![user];
            linux.uid_mappings = uids;
            linux.gid_mappings = gids;
            container_spec(&wire, &"box".parse().unwrap(), shared)
        };
        assert!(spec(vec![mapping(5)], vec![mapping(5)], "", None).is_ok());
        assert!(spec(vec![], vec![], "/proc/7/ns/user", None).is_ok());
        let shared = Path::new("/proc/7/ns/pid");
        for (result, want) in [
            (spec(vec![mapping(5)], vec![], "", None), "no linux.gidMappings"),
            (spec(vec![mapping(0)], vec![mapping(5)], "", None), "linux.uidMappings"),
            (spec(vec![mapping(5)], vec![], "/proc/7/ns/user", None), "without a new user namespace"),
            (spec(vec![mapping(5)], vec![mapping(5)], "", Some(shared)), "together with the sandbox's pids"),
        ] {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} does not speak of {want:?}");
        }
    }

    #[test]
    fn what_would_be_another_container_is_refused() {
        type Change = fn(&mut oci::Spec);
        let mount = |option: &str| oci::Mount {
            destination: "/mnt".into(),
            options: vec![option.into()],
            ..Default::default()
        };
        for (option, want) in [("rshared", "shared"), ("unbindable", "unbindable"), ("idmap", "id-mapped")] {
            let error = convert(|spec| spec.mounts = vec![mount(option)]).unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} does not speak of {want:?}");
        }
        assert!(convert(|spec| spec.mounts = vec![mount("rslave"), mount("rprivate")]).is_ok());
        let cases: [(Change, &str); 7] = [
            (|s| s.process = None.into(), "no process"),
            (|s| s.process.as_mut().unwrap().args.clear(), "no process arguments"),
            (|s| s.process.as_mut().unwrap().cwd = "x".into(), "working directory"),
            (|s| s.root = None.into(), "no root"),
            (|s| s.root.as_mut().unwrap().path = "rootfs".into(), "root path"),
            (|s| s.linux.as_mut().unwrap().uid_mappings = vec![mapping(5)], "without a new user namespace"),
            (|s| s.linux = None.into(), "no linux part"),
        ];
        for (change, want) in cases {
            let error = convert(change).unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} does not speak of {want:?}");
        }
        for (path, timeout, want) in
            [("", 0, "path of a hook"), ("x", 0, "path of a hook"), ("/x", -1, "timeout")]
        {
            let hook = oci::Hook { path: path.into(), timeout, ..Default::default() };
            let change = |s: &mut oci::Spec| s.hooks.mut_or_insert_default().poststop = vec![hook];
            let error = convert(change).unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} does not speak of {want:?}");
        }
        let long = convert(|s| s.process.as_mut().unwrap().env = vec!["x".repeat(MAX_ARGUMENTS)]);
        assert!(matches!(long, Err(SpecError::TooLong)));
    }
}
