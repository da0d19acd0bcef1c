//! Devices of the host that a container gets for itself, by VFIO: which they are, and how the guest knows them.
//!
//! A container asks for them by nodes below `/dev/vfio` in `linux.devices`, as device plugins and container engines
//! put them there. Which devices are behind a node is found out before anything is done. By which number the guest
//! counts them is known once they are plugged, and only then are they annotated.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::sync::Arc;

use oci_spec::runtime::{LinuxDevice as OciDevice, LinuxDeviceCgroup, LinuxDeviceType, Spec};
use serde::{Deserialize, Serialize};
use vc_agent::Device;
use vc_device::{
    Access, AnnotationError, CdiKinds, ContainerRole, DeviceIdentity, DeviceRequest, DeviceSource,
    DeviceSpec, GroupMember, GuestLocation, LinuxDevice, LinuxDeviceError, Moment, NodeKind, Place,
    PlannedFunction, Port, Requested, Sibling, Sysfs, SysfsError, VfioApSpec, VfioFunction, VfioHandle,
    VfioMode, VfioPath, VfioPciSpec, VfioPlan, VfioPlanError, VfioPolicy, VfioWanted, annotations, plan_vfio,
    request_of_linux_device,
};
use vc_types::{DeviceId, GuestPath};

use crate::devices::Devices;

/// How devices of the host are passed to containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passing {
    /// Whether and where they are plugged, and who drives them in the guest. They are plugged when their container
    /// is created: a policy that only allows it at the launch has every such container refused.
    pub policy: VfioPolicy,
    /// Which of them the guest counts, and under which names.
    pub kinds: CdiKinds,
    /// Where the host's devices are looked up.
    pub sysfs: Sysfs,
}

impl Default for Passing {
    /// None are passed.
    fn default() -> Self {
        let policy = VfioPolicy { cold_plug: None, hot_plug: None, mode: VfioMode::GuestKernel };
        Self { policy, kinds: CdiKinds::default(), sysfs: Sysfs::new("/sys") }
    }
}

/// Why devices of the host are not passed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// An entry of `linux.devices` cannot be used.
    #[error(transparent)]
    Node(#[from] LinuxDeviceError),
    /// They cannot be passed.
    #[error(transparent)]
    Plan(#[from] VfioPlanError),
    /// A device that the machine has is not known on the host any more.
    #[error("a device of the machine cannot be looked up")]
    Lookup(#[from] SysfsError),
    /// They cannot be told to the container.
    #[error(transparent)]
    Annotation(#[from] AnnotationError),
    /// A node cannot be opened.
    #[error("cannot open {node}")]
    Open {
        /// The node.
        node: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The agent does not know how to give them to a container.
    #[error("the agent in the guest gives containers no devices of the kind {0}")]
    NoHandler(&'static str),
}

/// The devices that a container asks for.
#[derive(Debug)]
pub(crate) struct Passed {
    pub(crate) plan: VfioPlan,
    /// The nodes it asked for.
    wanted: Vec<VfioWanted>,
    /// Their numbers on the host.
    numbers: BTreeSet<(i64, i64)>,
    role: ContainerRole,
}

impl Passing {
    /// Finds out what a container asks for. Changes nothing.
    pub(crate) fn plan(&self, spec: &Spec) -> Result<Passed, PassError> {
        let role = role(spec);
        let mut passed =
            Passed { plan: VfioPlan::default(), wanted: Vec::new(), numbers: BTreeSet::new(), role };
        let linux = spec.linux().as_ref();
        for device in linux.and_then(|linux| linux.devices().as_ref()).into_iter().flatten() {
            if !is_character(device) {
                continue;
            }
            let asked = request_of_linux_device(&linux_device(device), Access::ReadWrite, &self.sysfs, None)?;
            if let Some(Requested::Vfio(wanted)) = asked {
                passed.numbers.insert((device.major(), device.minor()));
                passed.wanted.push(wanted);
            }
        }
        if passed.wanted.is_empty() {
            return Ok(passed);
        }
        // Nobody asked for these: they came with all others of the host.
        if self.policy.cold_plug.is_none() && self.policy.hot_plug.is_none() && may_use_all_devices(spec) {
            passed.wanted.clear();
            return Ok(passed);
        }
        // What the machine has already is used by each container that asks for it, and counted.
        let (present, moment) = (BTreeSet::new(), (Moment::Running, role));
        passed.plan = plan_vfio(&passed.wanted, &self.sysfs, &present, self.policy, moment)?;
        Ok(passed)
    }

    /// The specification for a guest whose kernel drives the devices, or that gets none: their nodes are the host's,
    /// and mean nothing there.
    pub(crate) fn without_nodes(&self, mut spec: Spec, passed: &Passed) -> Spec {
        let hands_on = self.policy.mode == VfioMode::Vfio && !passed.wanted.is_empty();
        if passed.numbers.is_empty() || hands_on {
            return spec;
        }
        let Some(mut linux) = spec.linux().clone() else { return spec };
        let is_theirs = |major, minor| passed.numbers.contains(&(major, minor));
        if let Some(mut devices) = linux.devices().clone() {
            devices.retain(|device| !is_character(device) || !is_theirs(device.major(), device.minor()));
            linux.set_devices(Some(devices));
        }
        if let Some(mut resources) = linux.resources().clone() {
            let is_kept = |rule: &LinuxDeviceCgroup| {
                rule.major().zip(rule.minor()).is_none_or(|(major, minor)| !is_theirs(major, minor))
            };
            let rules = resources.devices().clone();
            resources.set_devices(rules.map(|rules| rules.into_iter().filter(is_kept).collect()));
            linux.set_resources(Some(resources));
        }
        spec.set_linux(Some(linux));
        spec
    }

    /// Tells the container its devices by the numbers that the guest counts them by, now that they are plugged.
    pub(crate) fn annotate(
        &self,
        mut spec: Spec,
        passed: &Passed,
        devices: &Devices,
    ) -> Result<Spec, PassError> {
        if passed.plan.functions.is_empty() {
            return Ok(spec);
        }
        let siblings = self.siblings(devices)?;
        let found = annotations(&passed.plan, &siblings, &self.kinds, (self.policy.mode, passed.role))?;
        let mut all = spec.annotations().clone().unwrap_or_default();
        all.extend(found);
        spec.set_annotations(Some(all));
        Ok(spec)
    }

    /// What the agent is told of the devices: of each node, what is behind it and where.
    pub(crate) fn for_agent(
        &self,
        passed: &Passed,
        locations: &[GuestLocation],
        handlers: &[String],
    ) -> Result<Vec<Device>, PassError> {
        let kind = match self.policy.mode {
            VfioMode::Vfio => "vfio-pci",
            VfioMode::GuestKernel => "vfio-pci-gk",
        };
        if passed.plan.functions.is_empty() {
            return Ok(Vec::new());
        }
        if !handlers.iter().any(|handler| handler == kind) {
            return match self.policy.mode {
                VfioMode::Vfio => Err(PassError::NoHandler(kind)),
                // The guest's kernel has found them by itself.
                VfioMode::GuestKernel => Ok(Vec::new()),
            };
        }
        let mut groups: BTreeMap<u32, Device> = BTreeMap::new();
        for (planned, location) in passed.plan.functions.iter().zip(locations) {
            let Some(node) = passed.node_of(planned) else { continue };
            let device = groups.entry(planned.group).or_insert_with(|| Device {
                id: node.as_str().rsplit('/').next().unwrap_or_default().to_owned(),
                kind: kind.to_owned(),
                vm_path: String::new(),
                container_path: node.as_str().to_owned(),
                options: Vec::new(),
            });
            device.options.push(format!("{}={location}", planned.member.function()));
        }
        Ok(groups.into_values().collect())
    }

    /// What of the host is plugged by VFIO, and where.
    fn siblings(&self, devices: &Devices) -> Result<Vec<Sibling>, PassError> {
        let mut siblings = Vec::new();
        for (identity, location) in devices.located() {
            let DeviceIdentity::Vfio(VfioFunction::Pci(bdf)) = identity else { continue };
            let function = self.sysfs.pci_function(bdf)?;
            siblings.extend(
                function.zip(Place::on_pci(&location)).map(|(function, place)| Sibling { function, place }),
            );
        }
        Ok(siblings)
    }
}

impl Passed {
    /// The container's node for the group of a device.
    fn node_of(&self, planned: &PlannedFunction) -> Option<&GuestPath> {
        let of_group = |path: VfioPath| {
            self.plan.functions.iter().any(|other| other.group == planned.group && other.via == path)
        };
        self.wanted.iter().find(|wanted| of_group(wanted.path)).map(|wanted| &wanted.node.path)
    }
}

/// What the registry is asked for.
pub(crate) fn request(planned: &PlannedFunction) -> DeviceRequest {
    planned.request().unwrap_or_else(|| {
        let source = DeviceSource::Vfio {
            function: planned.member.function(),
            via: planned.via,
            port: Port::RootPort,
        };
        DeviceRequest { source, access: Access::ReadWrite, node: None }
    })
}

/// What the machine is asked for. Nodes of devices are opened here, so that what was found is what is plugged.
pub(crate) fn spec(planned: &PlannedFunction, id: DeviceId) -> Result<DeviceSpec, PassError> {
    let function = planned.member.function();
    let open = |node: String| {
        let file = File::options().read(true).write(true).open(&node);
        file.map(Arc::new).map_err(|source| PassError::Open { node, source })
    };
    if let GroupMember::Ap { mdev, queues } = &planned.member {
        return Ok(VfioApSpec { id, mdev: *mdev, queues: queues.clone() }.into());
    }
    let handle = match planned.via {
        VfioPath::Cdev(_) => {
            VfioHandle::Cdev { device: open(planned.via.to_string())?, iommufd: open("/dev/iommu".into())? }
        }
        VfioPath::Control | VfioPath::Group(_) => VfioHandle::Group(planned.group),
    };
    Ok(VfioPciSpec { id, function, handle }.into())
}

/// What a container is in its pod, as the engines tell by annotations.
fn role(spec: &Spec) -> ContainerRole {
    let kinds =
        [("io.kubernetes.cri.container-type", "sandbox"), ("io.kubernetes.cri-o.ContainerType", "sandbox")];
    let annotations = spec.annotations().as_ref();
    let has = |(key, value): (&str, &str)| {
        annotations.and_then(|all| all.get(key)).is_some_and(|known| known == value)
    };
    if kinds.into_iter().any(has) { ContainerRole::Pause } else { ContainerRole::Workload }
}

/// Whether the container may use every device there is, as engines let a privileged one, which then has the nodes of
/// all of the host's.
fn may_use_all_devices(spec: &Spec) -> bool {
    let linux = spec.linux().as_ref();
    let rules = linux.and_then(|linux| linux.resources().as_ref()?.devices().as_ref());
    rules.into_iter().flatten().any(|rule| {
        let is_any_kind = rule.typ().is_none_or(|kind| kind == LinuxDeviceType::A);
        rule.allow() && is_any_kind && rule.major().is_none() && rule.minor().is_none()
    })
}

fn is_character(device: &OciDevice) -> bool {
    matches!(device.typ(), LinuxDeviceType::C | LinuxDeviceType::U)
}

fn linux_device(device: &OciDevice) -> LinuxDevice {
    LinuxDevice {
        path: device.path().to_string_lossy().into_owned(),
        kind: NodeKind::Character,
        major: device.major(),
        minor: device.minor(),
        mode: device.file_mode(),
        uid: device.uid(),
        gid: device.gid(),
    }
}
