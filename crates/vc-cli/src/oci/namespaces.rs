//! Namespaces of the host that a container is to be in: it is in a machine, so that is refused before anything is made.

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::failure::Failure;

/// Whether the specification asks for nothing but namespaces of its own. A network of its own, with nothing in it, is
/// what a machine has; so are the processes.
///
/// # Errors
/// When it asks for a namespace that exists (an engine's network, another container's, a pod's), or for the host's
/// network or processes. The message says what to do.
pub(crate) fn check(spec: &Spec) -> Result<(), Failure> {
    let all = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let refused =
        |what: String, remedy: &str| Err(Failure::message(format!("the container is to {what}: {remedy}")));
    for namespace in all {
        let Some(path) = namespace.path() else { continue };
        return if namespace.typ() == LinuxNamespaceType::Network {
            refused(format!("have the network {}", path.display()), NETWORK)
        } else {
            let remedy =
                "it is in a machine of its own; leave out what joins another container, such as --ipc";
            refused(format!("be in the namespace {}", path.display()), remedy)
        };
    }
    let has = |typ| all.iter().any(|namespace| namespace.typ() == typ);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn said(namespaces: &serde_json::Value) -> Option<String> {
        let spec = serde_json::json!({"ociVersion": "1.2.0", "linux": {"namespaces": namespaces}});
        check(&serde_json::from_value(spec).unwrap()).err().map(|failure| failure.line())
    }

    #[test]
    fn only_namespaces_of_its_own_are_accepted() {
        assert_eq!(said(&serde_json::json!([{"type": "network"}, {"type": "pid"}])), None);
        for (namespaces, part) in [
            (
                serde_json::json!([{"type": "network", "path": "/run/netns/x"}, {"type": "pid"}]),
                "/run/netns/x: machines",
            ),
            (serde_json::json!([{"type": "pid"}]), "the host's network: machines"),
            (serde_json::json!([{"type": "network"}]), "--pid host"),
            (serde_json::json!([{"type": "ipc", "path": "/proc/1/ns/ipc"}]), "--ipc"),
        ] {
            let said = said(&namespaces).unwrap();
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }
}
