//! Namespaces of a container that is in a machine: those of the host are refused before anything is made, those of its pod
//! are the machine's.

use std::path::Path;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use crate::failure::Failure;

/// Whether the specification asks for nothing but namespaces of its own, or those of the pod whose first container engines
/// know by the pid `sandbox`. A network of its own, with nothing in it, is what a machine has; so are the processes.
///
/// # Errors
/// When it asks for a namespace that exists (an engine's network, another container's), or for the host's network or
/// processes. The message says what to do.
pub(crate) fn check(spec: &Spec, sandbox: Option<u32>) -> Result<(), Failure> {
    let refused =
        |what: String, remedy: &str| Err(Failure::message(format!("the container is to {what}: {remedy}")));
    for namespace in all(spec) {
        let Some(path) = namespace.path() else { continue };
        if sandbox.is_some_and(|pid| is_of(pid, namespace.typ(), path)) {
            continue;
        }
        return if namespace.typ() == LinuxNamespaceType::Network {
            refused(format!("have the network {}", path.display()), NETWORK)
        } else {
            let remedy = "it is in a machine of its own or its pod's; leave out what joins another container, such as --ipc";
            refused(format!("be in the namespace {}", path.display()), remedy)
        };
    }
    let has = |typ| all(spec).iter().any(|namespace| namespace.typ() == typ);
    if !has(LinuxNamespaceType::Network) {
        return refused("have the host's network".into(), NETWORK);
    }
    if !has(LinuxNamespaceType::Pid) {
        let remedy = "they are not in its machine; leave out `--pid host` (in config.json: a pid namespace is missing)";
        return refused("see the host's processes".into(), remedy);
    }
    Ok(())
}

/// What is said to whoever wants another network.
const NETWORK: &str =
    "machines have no network yet; use `--network none` (in config.json: a network namespace without a path)";

fn all(spec: &Spec) -> &[LinuxNamespace] {
    spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default()
}

/// Whether the path is that of the process's namespace, of a kind that containers in one machine can share.
fn is_of(pid: u32, kind: LinuxNamespaceType, path: &Path) -> bool {
    let name = match kind {
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Pid => "pid",
        _ => return false,
    };
    path == Path::new(&format!("/proc/{pid}/ns/{name}"))
}

/// Whether the container shares its pod's `ipc`, and with it `/dev/shm`.
pub(crate) fn joins_ipc(spec: &Spec) -> bool {
    all(spec).iter().any(|namespace| namespace.typ() == LinuxNamespaceType::Ipc && namespace.path().is_some())
}

/// The specification without the namespaces that are the pod's: what is left out is the machine's.
pub(crate) fn joined(spec: Spec) -> Spec {
    retain(spec, |namespace| namespace.path().is_none())
}

/// The specification of the first container in a machine, which has the machine's own `ipc` and `uts`, so that others may
/// share them; and the machine's host name. A user namespace has rights only over those that are made in it.
pub(crate) fn of_first(mut spec: Spec) -> (Spec, Option<String>) {
    let hostname = spec.hostname().clone();
    if all(&spec).iter().any(|namespace| namespace.typ() == LinuxNamespaceType::User) {
        return (spec, hostname);
    }
    spec.set_hostname(None);
    let shared = [LinuxNamespaceType::Ipc, LinuxNamespaceType::Uts];
    (retain(spec, |namespace| !shared.contains(&namespace.typ())), hostname)
}

fn retain(mut spec: Spec, keep: impl FnMut(&LinuxNamespace) -> bool) -> Spec {
    if let Some(linux) = spec.linux_mut() {
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        namespaces.retain(keep);
        linux.set_namespaces(Some(namespaces));
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &serde_json::Value) -> Spec {
        let spec = serde_json::json!({"ociVersion": "1.2.0", "hostname": "web", "linux": {"namespaces": namespaces}});
        serde_json::from_value(spec).unwrap()
    }

    fn said(namespaces: &serde_json::Value, sandbox: Option<u32>) -> Option<String> {
        check(&spec(namespaces), sandbox).err().map(|failure| failure.line())
    }

    fn kinds(spec: &Spec) -> Vec<String> {
        all(spec).iter().map(|namespace| namespace.typ().to_string()).collect()
    }

    #[test]
    fn only_namespaces_of_its_own_are_accepted() {
        assert_eq!(said(&serde_json::json!([{"type": "network"}, {"type": "pid"}]), None), None);
        for (namespaces, part) in [
            (
                serde_json::json!([{"type": "network", "path": "/run/netns/x"}, {"type": "pid"}]),
                "/run/netns/x: machines",
            ),
            (serde_json::json!([{"type": "pid"}]), "the host's network: machines"),
            (serde_json::json!([{"type": "network"}]), "--pid host"),
            (serde_json::json!([{"type": "ipc", "path": "/proc/1/ns/ipc"}]), "--ipc"),
        ] {
            for sandbox in [None, Some(7)] {
                let said = said(&namespaces, sandbox).unwrap();
                assert!(said.contains(part), "{part:?} is not in {said:?}");
            }
        }
    }

    /// As Podman has it for a member of a pod that shares its pids.
    #[test]
    fn a_member_has_those_of_its_pod_and_no_others() {
        let of = |pid: u32| {
            serde_json::json!([
                {"type": "pid", "path": format!("/proc/{pid}/ns/pid")},
                {"type": "network", "path": format!("/proc/{pid}/ns/net")},
                {"type": "ipc", "path": format!("/proc/{pid}/ns/ipc")},
                {"type": "uts", "path": format!("/proc/{pid}/ns/uts")},
                {"type": "mount"},
            ])
        };
        assert_eq!(said(&of(7), Some(7)), None);
        assert!(said(&of(8), Some(7)).unwrap().contains("/proc/8/ns/pid"));
        let user = serde_json::json!([{"type": "user", "path": "/proc/7/ns/user"}]);
        assert!(said(&user, Some(7)).unwrap().contains("/proc/7/ns/user"));
        assert!(joins_ipc(&spec(&of(7))));
        assert_eq!(kinds(&joined(spec(&of(7)))), ["mnt"]);
    }

    #[test]
    fn the_first_has_the_machines_own() {
        let own = serde_json::json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]);
        assert!(!joins_ipc(&spec(&own)));
        let (first, hostname) = of_first(spec(&own));
        assert_eq!((kinds(&first), hostname.as_deref()), (vec!["pid".into(), "mnt".into()], Some("web")));
        assert_eq!(first.hostname(), &None);
        let users = serde_json::json!([{"type": "user"}, {"type": "ipc"}, {"type": "uts"}]);
        let (first, hostname) = of_first(spec(&users));
        assert_eq!((kinds(&first).len(), first.hostname()), (3, &hostname));
    }
}
