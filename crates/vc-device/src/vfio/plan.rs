//! Which devices are behind the VFIO nodes of a container, and when each is plugged.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{ContainerRole, Moment, Port, VfioMode, VfioPath, VfioPolicy};
use crate::request::{ContainerNode, DeviceRequest, DeviceSource};
use crate::spec::{Access, VfioFunction};
use crate::sysfs::{GroupMember, IommuGroup, Sysfs, SysfsError};

/// A VFIO node that a container asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VfioWanted {
    /// The node on the host.
    pub path: VfioPath,
    /// The node in the container.
    pub node: ContainerNode,
}

/// When a device is plugged, and where; AP queues are on a bus of their own, whatever the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// It is on the command line that launches the machine.
    Cold(Port),
    /// It is plugged into the running machine.
    Hot(Port),
    /// The machine has it already; nothing is plugged.
    Present,
}

/// One device of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFunction {
    /// The device.
    pub member: GroupMember,
    /// The number of its IOMMU group.
    pub group: u32,
    /// The node that it is opened by.
    pub via: VfioPath,
    /// When, and where.
    pub when: When,
}

impl PlannedFunction {
    /// What the registry is asked for; `None` for a device that the machine has already.
    pub fn request(&self) -> Option<DeviceRequest> {
        let (When::Cold(port) | When::Hot(port)) = self.when else { return None };
        let via = self.via;
        let source = match self.member {
            GroupMember::Ap { mdev, .. } => DeviceSource::VfioAp { mdev, via },
            _ => DeviceSource::Vfio { function: self.member.function(), via, port },
        };
        Some(DeviceRequest { source, access: Access::ReadWrite, node: None })
    }
}

/// What becomes of a container's VFIO nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VfioPlan {
    /// The devices, whole groups in the order in which they were asked for, each device once.
    pub functions: Vec<PlannedFunction>,
    /// The nodes that the container gets, the control device first. None when the guest's kernel
    /// drives the devices itself.
    pub nodes: Vec<VfioWanted>,
}

/// Why VFIO devices cannot be passed.
#[derive(Debug, thiserror::Error)]
pub enum VfioPlanError {
    /// Facts about the host are missing.
    #[error("what is behind {path} cannot be read")]
    Sysfs {
        /// The node.
        path: VfioPath,
        /// What went wrong.
        #[source]
        source: SysfsError,
    },
    /// The host has no such group or device.
    #[error("{path} does not exist on this host: is the IOMMU on, and the device bound to vfio-pci?")]
    NoSuchDevice {
        /// The node.
        path: VfioPath,
    },
    /// Only bridges are in the group.
    #[error("{path} has no device that could be passed: IOMMU group {group} has only bridges")]
    OnlyBridges {
        /// The node.
        path: VfioPath,
        /// The group.
        group: u32,
    },
    /// A member of the group is used by the host.
    #[error("{path} cannot be passed: {function} of IOMMU group {group} {}; bind it to vfio-pci", bound(.driver))]
    MemberNotBound {
        /// The node.
        path: VfioPath,
        /// The group.
        group: u32,
        /// The member.
        function: VfioFunction,
        /// The driver that it is bound to.
        driver: Option<String>,
    },
    /// A device is asked for by its own node, and another one of its group has none.
    #[error("{path} cannot be passed: {function} of IOMMU group {group} has no node below /dev/vfio/devices")]
    MemberWithoutCdev {
        /// The node.
        path: VfioPath,
        /// The group.
        group: u32,
        /// The member.
        function: VfioFunction,
    },
    /// Neither cold plug nor hot plug is configured.
    #[error("{path} cannot be passed: set the port for cold-plugged or for hot-plugged VFIO devices")]
    NoPort {
        /// The node.
        path: VfioPath,
    },
    /// Devices are only plugged when the machine is launched, and this one was not.
    #[error(
        "{path} cannot be passed: only cold plug is configured, and the machine was launched without {function}"
    )]
    NotColdPlugged {
        /// The node.
        path: VfioPath,
        /// The device.
        function: VfioFunction,
    },
}

fn bound(driver: &Option<String>) -> String {
    driver.as_ref().map_or_else(|| "has no driver".to_owned(), |driver| format!("is bound to {driver}"))
}

/// Plans the VFIO nodes `wanted` for `moment`.
///
/// `present` has the devices that the machine has already, so that none is plugged twice. A plan for
/// [`Moment::Launch`] has what is on the command line; with hot plug configured that is nothing.
///
/// # Errors
/// [`VfioPlanError`]. A group is planned whole or not at all.
pub fn plan_vfio(
    wanted: &[VfioWanted],
    sysfs: &Sysfs,
    present: &BTreeSet<VfioFunction>,
    policy: VfioPolicy,
    (moment, role): (Moment, ContainerRole),
) -> Result<VfioPlan, VfioPlanError> {
    let mut plan = VfioPlan::default();
    if role == ContainerRole::Pause {
        return Ok(plan);
    }
    for VfioWanted { path, .. } in wanted {
        let Some(group) = group(sysfs, *path)? else { continue };
        for member in members(*path, &group)? {
            let function = member.function();
            if plan.functions.iter().any(|planned| planned.member.function() == function) {
                continue;
            }
            let via = node_of(*path, &group, member)?;
            let Some(when) = when(*path, member, present, policy, moment)? else { continue };
            plan.functions.push(PlannedFunction { member: member.clone(), group: group.number, via, when });
        }
    }
    if policy.mode == VfioMode::Vfio {
        plan.nodes = wanted.to_vec();
        plan.nodes.sort_by_key(|wanted| wanted.path != VfioPath::Control);
    }
    Ok(plan)
}

/// The group behind a node; `None` for the control device.
fn group(sysfs: &Sysfs, path: VfioPath) -> Result<Option<IommuGroup>, VfioPlanError> {
    let unreadable = |source| VfioPlanError::Sysfs { path, source };
    let number = match path {
        VfioPath::Control => return Ok(None),
        VfioPath::Group(number) => Some(number),
        VfioPath::Cdev(number) => sysfs.vfio_cdev(number).map_err(unreadable)?.map(|(group, _)| group),
    };
    let number = number.ok_or(VfioPlanError::NoSuchDevice { path })?;
    let group = sysfs.iommu_group(number).map_err(unreadable)?;
    group.map(Some).ok_or(VfioPlanError::NoSuchDevice { path })
}

/// The members that are passed: all but bridges, and all of them ready.
fn members(path: VfioPath, group: &IommuGroup) -> Result<Vec<&GroupMember>, VfioPlanError> {
    let members: Vec<_> = group.members.iter().filter(|member| !member.is_way_to_others()).collect();
    if members.is_empty() {
        return Err(VfioPlanError::OnlyBridges { path, group: group.number });
    }
    for member in &members {
        if let Some(function) = member.pci().filter(|function| !function.is_bound_to_vfio()) {
            let driver = function.driver.clone();
            let function = member.function();
            return Err(VfioPlanError::MemberNotBound { path, group: group.number, function, driver });
        }
    }
    Ok(members)
}

/// The node by which a member is opened when its group was asked for by `path`.
fn node_of(path: VfioPath, group: &IommuGroup, member: &GroupMember) -> Result<VfioPath, VfioPlanError> {
    match (path, member.pci()) {
        (VfioPath::Cdev(_), Some(function)) => function.vfio_cdev.map(VfioPath::Cdev).ok_or_else(|| {
            VfioPlanError::MemberWithoutCdev { path, group: group.number, function: member.function() }
        }),
        _ => Ok(path),
    }
}

/// When a member is plugged; `None` if not at this moment.
fn when(
    path: VfioPath,
    member: &GroupMember,
    present: &BTreeSet<VfioFunction>,
    policy: VfioPolicy,
    moment: Moment,
) -> Result<Option<When>, VfioPlanError> {
    let function = member.function();
    if present.contains(&function) {
        return Ok(Some(When::Present));
    }
    // A conventional function has no place behind an express port.
    let fitting = |port| {
        if member.pci().is_some_and(|function| !function.is_express) { Port::BridgePort } else { port }
    };
    match (policy.hot_plug, policy.cold_plug, moment) {
        (Some(port), _, Moment::Running) => Ok(Some(When::Hot(fitting(port)))),
        (Some(_), _, Moment::Launch) => Ok(None),
        (None, Some(port), Moment::Launch) => Ok(Some(When::Cold(fitting(port)))),
        (None, Some(_), Moment::Running) => Err(VfioPlanError::NotColdPlugged { path, function }),
        (None, None, _) => Err(VfioPlanError::NoPort { path }),
    }
}
