//! The mounts of a specification as the plan has them.

use oci_spec::runtime::{MountBuilder, Spec};
use vc_storage::{Edit, MountEdit, PlanError};

/// Replaces each mount as its edit says.
pub(crate) fn apply(mut spec: Spec, edits: &[MountEdit]) -> Result<Spec, PlanError> {
    let mounts = spec.mounts().clone().unwrap_or_default();
    if mounts.len() != edits.len() {
        return Err(PlanError::Facts { asked: mounts.len(), known: edits.len() });
    }
    let mut edited = Vec::new();
    for (mount, edit) in mounts.into_iter().zip(edits) {
        match &edit.edit {
            Edit::Keep => edited.push(mount),
            Edit::Remove => {}
            Edit::Replace { kind, source, options } => {
                let replaced = MountBuilder::default()
                    .destination(mount.destination())
                    .typ(kind.clone())
                    .source(source)
                    .options(options.clone())
                    .build();
                edited.push(replaced.expect("a destination is all it takes"));
            }
        }
    }
    spec.set_mounts(Some(edited));
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vc_storage::Decision;

    #[test]
    fn each_mount_is_edited_in_its_place() {
        let spec = || -> Spec {
            serde_json::from_str(
                r#"{"ociVersion": "1.2.0", "mounts": [{"destination": "/a"}, {"destination": "/b"}, {"destination": "/c", "type": "bind", "source": "/host"}]}"#,
            )
            .unwrap()
        };
        let edit = |edit| MountEdit {
            destination: String::new(),
            decision: Decision { way: "", reason: String::new() },
            edit,
        };
        let bind =
            || Edit::Replace { kind: "bind".into(), source: "/guest".into(), options: vec!["ro".into()] };
        let edited = apply(spec(), &[edit(Edit::Keep), edit(Edit::Remove), edit(bind())]).unwrap();
        let mounts = edited.mounts().clone().unwrap();
        let named: Vec<_> = mounts.iter().map(|mount| mount.destination().to_str().unwrap()).collect();
        assert_eq!(named, ["/a", "/c"]);
        assert_eq!(mounts[1].source().as_deref(), Some(std::path::Path::new("/guest")));
        assert_eq!(mounts[1].options().clone().unwrap(), ["ro"]);
        assert!(apply(spec(), &[]).is_err());
    }
}
