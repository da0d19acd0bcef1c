//! The specification as a whole, its root and its mounts.

use super::{ConvertError, value};
use crate::oci;
use oci_spec::runtime::{Hooks, Linux, Mount, Process, Root, Solaris, Spec, Windows};
use std::path::PathBuf;

impl TryFrom<&Spec> for oci::Spec {
    type Error = ConvertError;

    fn try_from(spec: &Spec) -> Result<Self, ConvertError> {
        let root = spec.root().as_ref().map(root_to_wire).transpose()?;
        let process = spec.process().as_ref().map(oci::Process::try_from).transpose()?;
        let hooks = spec.hooks().as_ref().map(oci::Hooks::try_from).transpose()?;
        let linux = spec.linux().as_ref().map(oci::Linux::try_from).transpose()?;
        Ok(Self {
            version: spec.version().clone(),
            process: process.into(),
            root: root.into(),
            hostname: spec.hostname().clone().unwrap_or_default(),
            mounts: value::each(spec.mounts().iter().flatten(), oci::Mount::try_from)?,
            hooks: hooks.into(),
            annotations: spec.annotations().clone().unwrap_or_default(),
            linux: linux.into(),
            solaris: spec.solaris().as_ref().map(|_| oci::Solaris::default()).into(),
            windows: spec.windows().as_ref().map(|_| oci::Windows::default()).into(),
            ..Self::default()
        })
    }
}

impl TryFrom<&oci::Spec> for Spec {
    type Error = ConvertError;

    fn try_from(wire: &oci::Spec) -> Result<Self, ConvertError> {
        let mut spec = Self::default();
        spec.set_version(wire.version.clone())
            .set_process(wire.process.as_ref().map(Process::try_from).transpose()?)
            .set_root(wire.root.as_ref().map(root_from_wire))
            .set_hostname(value::given(wire.hostname.clone()))
            .set_mounts(value::given(wire.mounts.iter().map(Mount::from).collect::<Vec<_>>()))
            .set_hooks(wire.hooks.as_ref().map(Hooks::from))
            .set_annotations(value::given(wire.annotations.clone()))
            .set_linux(wire.linux.as_ref().map(Linux::try_from).transpose()?)
            .set_solaris(wire.solaris.as_ref().map(|_| Solaris::default()))
            .set_windows(wire.windows.as_ref().map(|_| Windows::default()));
        Ok(spec)
    }
}

impl TryFrom<&Mount> for oci::Mount {
    type Error = ConvertError;

    fn try_from(mount: &Mount) -> Result<Self, ConvertError> {
        Ok(Self {
            destination: value::text("mounts.destination", mount.destination())?,
            source: value::optional_text("mounts.source", mount.source().as_ref())?,
            type_: mount.typ().clone().unwrap_or_default(),
            options: mount.options().clone().unwrap_or_default(),
            ..Self::default()
        })
    }
}

impl From<&oci::Mount> for Mount {
    fn from(wire: &oci::Mount) -> Self {
        let mut mount = Self::default();
        mount
            .set_destination(PathBuf::from(&wire.destination))
            .set_source(value::given(PathBuf::from(&wire.source)))
            .set_typ(value::given(wire.type_.clone()))
            .set_options(value::given(wire.options.clone()));
        mount
    }
}

fn root_to_wire(root: &Root) -> Result<oci::Root, ConvertError> {
    Ok(oci::Root {
        path: value::text("root.path", root.path())?,
        readonly: root.readonly().unwrap_or_default(),
        ..oci::Root::default()
    })
}

fn root_from_wire(wire: &oci::Root) -> Root {
    let mut root = Root::default();
    root.set_path(PathBuf::from(&wire.path)).set_readonly(value::given(wire.readonly));
    root
}
