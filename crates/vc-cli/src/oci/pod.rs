//! Pods: in whose machine a container is to be, by the annotations that container engines give it.

use oci_spec::runtime::Spec;
use vc_types::ContainerId;

use crate::failure::Failure;

/// The annotations that tell what a container is to its pod, and which container is the pod's first one. Each engine that
/// speaks to OCI runtimes about pods has a pair: CRI-O, whose names Podman uses too, and containerd.
const NAMES: [(&str, &str); 2] = [
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
];

/// What a container is called that is not the first of its pod. The first is a `sandbox`, or, for Podman, nothing.
const MEMBER: &str = "container";

/// The container in whose machine this one is to be; `None` if it is to have its own.
///
/// # Errors
/// When the annotations say that there is one, and not which.
pub(crate) fn sandbox_of(spec: &Spec) -> Result<Option<ContainerId>, Failure> {
    let Some(annotations) = spec.annotations() else { return Ok(None) };
    for (kind, id) in NAMES {
        if annotations.get(kind).is_none_or(|kind| kind != MEMBER) {
            continue;
        }
        let named = annotations.get(id).map(String::as_str).unwrap_or_default();
        let failed = |error| Failure::step(format!("use the annotation {id}"), error);
        return named.parse().map(Some).map_err(failed);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(annotations: serde_json::Value) -> Result<Option<String>, String> {
        let spec = serde_json::json!({"ociVersion": "1.2.0", "annotations": annotations});
        let sandbox = sandbox_of(&serde_json::from_value(spec).unwrap());
        sandbox.map(|id| id.map(|id| id.to_string())).map_err(|failure| failure.line())
    }

    #[test]
    fn members_name_their_sandbox() {
        let podman = serde_json::json!({
            "io.container.manager": "libpod",
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.SandboxID": "ed33",
        });
        assert_eq!(sandbox(podman), Ok(Some("ed33".into())));
        let containerd = |kind: &str| {
            sandbox(serde_json::json!({
                "io.kubernetes.cri.container-type": kind,
                "io.kubernetes.cri.sandbox-id": "ed33",
            }))
        };
        assert_eq!(containerd("container"), Ok(Some("ed33".into())));
        assert_eq!(containerd("sandbox"), Ok(None));
        assert_eq!(sandbox(serde_json::json!({"io.container.manager": "libpod"})), Ok(None));
        let nameless = sandbox(serde_json::json!({"io.kubernetes.cri-o.ContainerType": "container"}));
        assert!(nameless.unwrap_err().contains("io.kubernetes.cri-o.SandboxID"));
    }
}
