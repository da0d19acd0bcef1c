//! The network of a container: none is all there is yet, so everything else is refused before anything is made.

use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::failure::Failure;

/// What is said to whoever wants another network.
const REMEDY: &str = "machines have no network yet; use `--network none`";

/// Whether the specification asks for a network namespace of its own, which is what the machine has.
///
/// # Errors
/// When it asks for one that exists (an engine's network, or a pod's), or for the host's.
pub(crate) fn check(spec: &Spec) -> Result<(), Failure> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    let network = namespaces.into_iter().flatten().find(|one| one.typ() == LinuxNamespaceType::Network);
    match network.map(|network| network.path()) {
        Some(None) => Ok(()),
        Some(Some(path)) => Err(Failure::message(format!(
            "the container is to have the network of {}: {REMEDY}",
            path.display()
        ))),
        None => Err(Failure::message(format!(
            "the container is to have the host's network: {REMEDY} (in config.json: a network namespace without a path)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(namespaces: serde_json::Value) -> Option<String> {
        let spec = serde_json::json!({"ociVersion": "1.2.0", "linux": {"namespaces": namespaces}});
        check(&serde_json::from_value(spec).unwrap()).err().map(|failure| failure.line())
    }

    #[test]
    fn only_a_network_of_its_own_is_accepted() {
        assert_eq!(said(serde_json::json!([{"type": "network"}])), None);
        let joined = said(serde_json::json!([{"type": "network", "path": "/run/netns/x"}])).unwrap();
        assert!(joined.contains("/run/netns/x") && joined.contains("--network none"), "{joined}");
        let host = said(serde_json::json!([{"type": "pid"}])).unwrap();
        assert!(host.contains("the host's network") && host.contains("--network none"), "{host}");
    }
}
