//! The OCI specification as the guest runs it.

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Process, Spec};
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
pub(crate) const DEVICE_HANDLERS: &[&str] = &[];

/// Whether seccomp filters are applied; else they are refused.
pub(crate) const SUPPORTS_SECCOMP: bool = false;

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
    check_process(spec.process().as_ref().ok_or(SpecError::Missing("process"))?)?;
    let root = spec.root().as_ref().ok_or(SpecError::Missing("root"))?;
    GuestPath::new(root.path().to_string_lossy()).map_err(|error| SpecError::Path("root path", error))?;
    if spec.hooks().is_some() {
        return Err(SpecError::Unsupported("hooks"));
    }
    if spec.version().is_empty() {
        spec.set_version(OCI_VERSION.to_owned());
    }
    let has_hostname = spec.hostname().is_some();
    let linux = spec.linux_mut().as_mut().ok_or(SpecError::Missing("linux part"))?;
    if linux.seccomp().is_some() {
        return Err(SpecError::Unsupported("seccomp filters"));
    }
    let cgroup = cgroup_path(linux.cgroups_path().as_deref(), id)?;
    linux.set_cgroups_path(Some(cgroup));
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    add_namespace(&mut namespaces, LinuxNamespaceType::Mount);
    if has_hostname {
        add_namespace(&mut namespaces, LinuxNamespaceType::Uts);
    }
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Pid);
    add_namespace(&mut namespaces, LinuxNamespaceType::Pid);
    if let (Some(path), Some(pid)) = (shared_pid, namespaces.last_mut()) {
        pid.set_path(Some(path.to_owned()));
    }
    linux.set_namespaces(Some(namespaces));
    Ok(spec)
}

/// The process of an exec.
///
/// # Errors
/// [`SpecError`] says which part cannot be run.
pub fn exec_process(wire: &oci::Process) -> Result<Process, SpecError> {
    let process = Process::try_from(wire)?;
    check_process(&process)?;
    Ok(process)
}

fn check_process(process: &Process) -> Result<(), SpecError> {
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
    Ok(())
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

    #[test]
    fn what_would_be_another_container_is_refused() {
        type Change = fn(&mut oci::Spec);
        let cases: [(Change, &str); 7] = [
            (|s| s.process = None.into(), "no process"),
            (|s| s.process.as_mut().unwrap().args.clear(), "no process arguments"),
            (|s| s.process.as_mut().unwrap().cwd = "x".into(), "working directory"),
            (|s| s.root = None.into(), "no root"),
            (|s| s.root.as_mut().unwrap().path = "rootfs".into(), "root path"),
            (|s| s.hooks = Some(oci::Hooks::default()).into(), "hooks"),
            (|s| s.linux = None.into(), "no linux part"),
        ];
        for (change, want) in cases {
            let error = convert(change).unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} does not speak of {want:?}");
        }
        let long = convert(|s| s.process.as_mut().unwrap().env = vec!["x".repeat(MAX_ARGUMENTS)]);
        assert!(matches!(long, Err(SpecError::TooLong)));
    }
}
