//! The Linux part: namespaces, devices, id mappings, sysctls, paths.

use super::{ConvertError, value};
use crate::oci;
use oci_spec::runtime::{
    Linux, LinuxDevice, LinuxIdMapping, LinuxIdMappingBuilder, LinuxIntelRdt, LinuxNamespace, LinuxResources,
    LinuxSeccomp,
};
use std::path::PathBuf;

impl TryFrom<&Linux> for oci::Linux {
    type Error = ConvertError;

    fn try_from(linux: &Linux) -> Result<Self, ConvertError> {
        let mappings = |list: &Option<Vec<LinuxIdMapping>>| {
            list.iter().flatten().map(mapping_to_wire).collect::<Vec<_>>()
        };
        let resources = linux.resources().as_ref().map(oci::LinuxResources::try_from).transpose()?;
        let seccomp = linux.seccomp().as_ref().map(oci::LinuxSeccomp::try_from).transpose()?;
        Ok(Self {
            uid_mappings: mappings(linux.uid_mappings()),
            gid_mappings: mappings(linux.gid_mappings()),
            sysctl: linux.sysctl().clone().unwrap_or_default(),
            resources: resources.into(),
            cgroups_path: value::optional_text("linux.cgroupsPath", linux.cgroups_path().as_ref())?,
            namespaces: value::each(linux.namespaces().iter().flatten(), namespace_to_wire)?,
            devices: value::each(linux.devices().iter().flatten(), device_to_wire)?,
            seccomp: seccomp.into(),
            rootfs_propagation: linux.rootfs_propagation().clone().unwrap_or_default(),
            masked_paths: linux.masked_paths().clone().unwrap_or_default(),
            readonly_paths: linux.readonly_paths().clone().unwrap_or_default(),
            mount_label: linux.mount_label().clone().unwrap_or_default(),
            intel_rdt: linux.intel_rdt().as_ref().map(intel_rdt_to_wire).into(),
            ..Self::default()
        })
    }
}

impl TryFrom<&oci::Linux> for Linux {
    type Error = ConvertError;

    fn try_from(wire: &oci::Linux) -> Result<Self, ConvertError> {
        let mappings = |list: &[oci::LinuxIDMapping]| {
            value::given(list.iter().map(mapping_from_wire).collect::<Vec<_>>())
        };
        let mut linux = Self::default();
        linux
            .set_uid_mappings(mappings(&wire.uid_mappings))
            .set_gid_mappings(mappings(&wire.gid_mappings))
            .set_sysctl(value::given(wire.sysctl.clone()))
            .set_resources(wire.resources.as_ref().map(LinuxResources::try_from).transpose()?)
            .set_cgroups_path(value::given(PathBuf::from(&wire.cgroups_path)))
            .set_namespaces(value::given(value::each(&wire.namespaces, namespace_from_wire)?))
            .set_devices(value::given(value::each(&wire.devices, device_from_wire)?))
            .set_seccomp(wire.seccomp.as_ref().map(LinuxSeccomp::try_from).transpose()?)
            .set_rootfs_propagation(value::given(wire.rootfs_propagation.clone()))
            .set_masked_paths(value::given(wire.masked_paths.clone()))
            .set_readonly_paths(value::given(wire.readonly_paths.clone()))
            .set_mount_label(value::given(wire.mount_label.clone()))
            .set_intel_rdt(wire.intel_rdt.as_ref().map(intel_rdt_from_wire));
        Ok(linux)
    }
}

fn mapping_to_wire(mapping: &LinuxIdMapping) -> oci::LinuxIDMapping {
    oci::LinuxIDMapping {
        host_id: mapping.host_id(),
        container_id: mapping.container_id(),
        size: mapping.size(),
        ..oci::LinuxIDMapping::default()
    }
}

fn mapping_from_wire(wire: &oci::LinuxIDMapping) -> LinuxIdMapping {
    let mapping = LinuxIdMappingBuilder::default()
        .host_id(wire.host_id)
        .container_id(wire.container_id)
        .size(wire.size);
    mapping.build().expect("no field of a mapping is required")
}

fn namespace_to_wire(namespace: &LinuxNamespace) -> Result<oci::LinuxNamespace, ConvertError> {
    Ok(oci::LinuxNamespace {
        type_: value::name(namespace.typ()),
        path: value::optional_text("linux.namespaces.path", namespace.path().as_ref())?,
        ..oci::LinuxNamespace::default()
    })
}

fn namespace_from_wire(wire: &oci::LinuxNamespace) -> Result<LinuxNamespace, ConvertError> {
    let mut namespace = LinuxNamespace::default();
    namespace
        .set_typ(value::named("linux.namespaces.type", &wire.type_)?)
        .set_path(value::given(PathBuf::from(&wire.path)));
    Ok(namespace)
}

fn device_to_wire(device: &LinuxDevice) -> Result<oci::LinuxDevice, ConvertError> {
    Ok(oci::LinuxDevice {
        path: value::text("linux.devices.path", device.path())?,
        type_: value::name(device.typ()),
        major: device.major(),
        minor: device.minor(),
        file_mode: device.file_mode().unwrap_or_default(),
        uid: device.uid().unwrap_or_default(),
        gid: device.gid().unwrap_or_default(),
        ..oci::LinuxDevice::default()
    })
}

fn device_from_wire(wire: &oci::LinuxDevice) -> Result<LinuxDevice, ConvertError> {
    let mut device = LinuxDevice::default();
    device
        .set_path(PathBuf::from(&wire.path))
        .set_typ(value::named("linux.devices.type", &wire.type_)?)
        .set_major(wire.major)
        .set_minor(wire.minor)
        .set_file_mode(value::given(wire.file_mode))
        .set_uid(value::given(wire.uid))
        .set_gid(value::given(wire.gid));
    Ok(device)
}

fn intel_rdt_to_wire(rdt: &LinuxIntelRdt) -> oci::LinuxIntelRdt {
    oci::LinuxIntelRdt {
        l3_cache_schema: rdt.l3_cache_schema().clone().unwrap_or_default(),
        ..oci::LinuxIntelRdt::default()
    }
}

fn intel_rdt_from_wire(wire: &oci::LinuxIntelRdt) -> LinuxIntelRdt {
    let mut rdt = LinuxIntelRdt::default();
    rdt.set_l3_cache_schema(value::given(wire.l3_cache_schema.clone()));
    rdt
}
