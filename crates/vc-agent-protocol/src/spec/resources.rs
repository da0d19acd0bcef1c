//! Resource limits: of a container's specification, and of an update.

use super::{ConvertError, value};
use crate::oci;
use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxHugepageLimit, LinuxInterfacePriority,
    LinuxMemory, LinuxNetwork, LinuxPids, LinuxResources, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
    LinuxWeightDevice, LinuxWeightDeviceBuilder,
};

/// The device number of a cgroup rule that means any.
const ANY: i64 = -1;

impl TryFrom<&LinuxResources> for oci::LinuxResources {
    type Error = ConvertError;

    fn try_from(resources: &LinuxResources) -> Result<Self, ConvertError> {
        Ok(Self {
            devices: resources.devices().iter().flatten().map(rule_to_wire).collect(),
            memory: resources.memory().as_ref().map(memory_to_wire).into(),
            cpu: resources.cpu().as_ref().map(cpu_to_wire).into(),
            pids: resources.pids().as_ref().map(pids_to_wire).into(),
            block_io: resources.block_io().as_ref().map(block_io_to_wire).into(),
            hugepage_limits: value::each(resources.hugepage_limits().iter().flatten(), hugepage_to_wire)?,
            network: resources.network().as_ref().map(network_to_wire).into(),
            ..Self::default()
        })
    }
}

impl TryFrom<&oci::LinuxResources> for LinuxResources {
    type Error = ConvertError;

    fn try_from(wire: &oci::LinuxResources) -> Result<Self, ConvertError> {
        let mut resources = Self::default();
        resources
            .set_devices(value::given(value::each(&wire.devices, rule_from_wire)?))
            .set_memory(wire.memory.as_ref().map(memory_from_wire))
            .set_cpu(wire.cpu.as_ref().map(cpu_from_wire))
            .set_pids(wire.pids.as_ref().map(pids_from_wire))
            .set_block_io(wire.block_io.as_ref().map(block_io_from_wire).transpose()?)
            .set_hugepage_limits(value::given(value::each(&wire.hugepage_limits, hugepage_from_wire)?))
            .set_network(wire.network.as_ref().map(network_from_wire));
        Ok(resources)
    }
}

fn rule_to_wire(rule: &LinuxDeviceCgroup) -> oci::LinuxDeviceCgroup {
    oci::LinuxDeviceCgroup {
        allow: rule.allow(),
        type_: rule.typ().map(value::name).unwrap_or_default(),
        major: rule.major().unwrap_or(ANY),
        minor: rule.minor().unwrap_or(ANY),
        access: rule.access().clone().unwrap_or_default(),
        ..oci::LinuxDeviceCgroup::default()
    }
}

fn rule_from_wire(wire: &oci::LinuxDeviceCgroup) -> Result<LinuxDeviceCgroup, ConvertError> {
    let typ: Option<LinuxDeviceType> = match wire.type_.as_str() {
        "" => None,
        name => Some(value::named("linux.resources.devices.type", name)?),
    };
    let number = |number: i64| (number >= 0).then_some(number);
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(wire.allow)
        .set_typ(typ)
        .set_major(number(wire.major))
        .set_minor(number(wire.minor))
        .set_access(value::given(wire.access.clone()));
    Ok(rule)
}

fn memory_to_wire(memory: &LinuxMemory) -> oci::LinuxMemory {
    oci::LinuxMemory {
        limit: memory.limit().unwrap_or_default(),
        reservation: memory.reservation().unwrap_or_default(),
        swap: memory.swap().unwrap_or_default(),
        kernel: memory.kernel().unwrap_or_default(),
        kernel_tcp: memory.kernel_tcp().unwrap_or_default(),
        swappiness: memory.swappiness().unwrap_or_default(),
        disable_oom_killer: memory.disable_oom_killer().unwrap_or_default(),
        ..oci::LinuxMemory::default()
    }
}

fn memory_from_wire(wire: &oci::LinuxMemory) -> LinuxMemory {
    let mut memory = LinuxMemory::default();
    memory
        .set_limit(value::given(wire.limit))
        .set_reservation(value::given(wire.reservation))
        .set_swap(value::given(wire.swap))
        .set_kernel(value::given(wire.kernel))
        .set_kernel_tcp(value::given(wire.kernel_tcp))
        .set_swappiness(value::given(wire.swappiness))
        .set_disable_oom_killer(value::given(wire.disable_oom_killer));
    memory
}

fn cpu_to_wire(cpu: &LinuxCpu) -> oci::LinuxCPU {
    oci::LinuxCPU {
        shares: cpu.shares().unwrap_or_default(),
        quota: cpu.quota().unwrap_or_default(),
        period: cpu.period().unwrap_or_default(),
        realtime_runtime: cpu.realtime_runtime().unwrap_or_default(),
        realtime_period: cpu.realtime_period().unwrap_or_default(),
        cpus: cpu.cpus().clone().unwrap_or_default(),
        mems: cpu.mems().clone().unwrap_or_default(),
        ..oci::LinuxCPU::default()
    }
}

fn cpu_from_wire(wire: &oci::LinuxCPU) -> LinuxCpu {
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(value::given(wire.shares))
        .set_quota(value::given(wire.quota))
        .set_period(value::given(wire.period))
        .set_realtime_runtime(value::given(wire.realtime_runtime))
        .set_realtime_period(value::given(wire.realtime_period))
        .set_cpus(value::given(wire.cpus.clone()))
        .set_mems(value::given(wire.mems.clone()));
    cpu
}

fn pids_to_wire(pids: &LinuxPids) -> oci::LinuxPids {
    oci::LinuxPids { limit: pids.limit(), ..oci::LinuxPids::default() }
}

fn pids_from_wire(wire: &oci::LinuxPids) -> LinuxPids {
    let mut pids = LinuxPids::default();
    pids.set_limit(wire.limit);
    pids
}

fn block_io_to_wire(io: &LinuxBlockIo) -> oci::LinuxBlockIO {
    let throttle = |list: &Option<Vec<LinuxThrottleDevice>>| {
        list.iter().flatten().map(throttle_to_wire).collect::<Vec<_>>()
    };
    oci::LinuxBlockIO {
        weight: io.weight().unwrap_or_default().into(),
        leaf_weight: io.leaf_weight().unwrap_or_default().into(),
        weight_device: io.weight_device().iter().flatten().map(weight_to_wire).collect(),
        throttle_read_bps_device: throttle(io.throttle_read_bps_device()),
        throttle_write_bps_device: throttle(io.throttle_write_bps_device()),
        throttle_read_iops_device: throttle(io.throttle_read_iops_device()),
        throttle_write_iops_device: throttle(io.throttle_write_iops_device()),
        ..oci::LinuxBlockIO::default()
    }
}

fn block_io_from_wire(wire: &oci::LinuxBlockIO) -> Result<LinuxBlockIo, ConvertError> {
    let throttle = |list: &[oci::LinuxThrottleDevice]| {
        value::given(list.iter().map(throttle_from_wire).collect::<Vec<_>>())
    };
    let mut io = LinuxBlockIo::default();
    io.set_weight(value::given_number("linux.resources.blockIO.weight", wire.weight)?)
        .set_leaf_weight(value::given_number("linux.resources.blockIO.leafWeight", wire.leaf_weight)?)
        .set_weight_device(value::given(value::each(&wire.weight_device, weight_from_wire)?))
        .set_throttle_read_bps_device(throttle(&wire.throttle_read_bps_device))
        .set_throttle_write_bps_device(throttle(&wire.throttle_write_bps_device))
        .set_throttle_read_iops_device(throttle(&wire.throttle_read_iops_device))
        .set_throttle_write_iops_device(throttle(&wire.throttle_write_iops_device));
    Ok(io)
}

fn weight_to_wire(device: &LinuxWeightDevice) -> oci::LinuxWeightDevice {
    oci::LinuxWeightDevice {
        major: device.major(),
        minor: device.minor(),
        weight: device.weight().unwrap_or_default().into(),
        leaf_weight: device.leaf_weight().unwrap_or_default().into(),
        ..oci::LinuxWeightDevice::default()
    }
}

fn weight_from_wire(wire: &oci::LinuxWeightDevice) -> Result<LinuxWeightDevice, ConvertError> {
    let mut device = LinuxWeightDeviceBuilder::default().major(wire.major).minor(wire.minor);
    if let Some(weight) =
        value::given_number::<_, u16>("linux.resources.blockIO.weightDevice.weight", wire.weight)?
    {
        device = device.weight(weight);
    }
    if let Some(weight) =
        value::given_number::<_, u16>("linux.resources.blockIO.weightDevice.leafWeight", wire.leaf_weight)?
    {
        device = device.leaf_weight(weight);
    }
    Ok(device.build().expect("no field of a device's weight is required"))
}

fn throttle_to_wire(device: &LinuxThrottleDevice) -> oci::LinuxThrottleDevice {
    oci::LinuxThrottleDevice {
        major: device.major(),
        minor: device.minor(),
        rate: device.rate(),
        ..oci::LinuxThrottleDevice::default()
    }
}

fn throttle_from_wire(wire: &oci::LinuxThrottleDevice) -> LinuxThrottleDevice {
    let device = LinuxThrottleDeviceBuilder::default().major(wire.major).minor(wire.minor).rate(wire.rate);
    device.build().expect("no field of a device's throttle is required")
}

fn hugepage_to_wire(limit: &LinuxHugepageLimit) -> Result<oci::LinuxHugepageLimit, ConvertError> {
    Ok(oci::LinuxHugepageLimit {
        page_size: limit.page_size().clone(),
        limit: value::number("linux.resources.hugepageLimits.limit", limit.limit())?,
        ..oci::LinuxHugepageLimit::default()
    })
}

fn hugepage_from_wire(wire: &oci::LinuxHugepageLimit) -> Result<LinuxHugepageLimit, ConvertError> {
    let mut limit = LinuxHugepageLimit::default();
    limit
        .set_page_size(wire.page_size.clone())
        .set_limit(value::number("linux.resources.hugepageLimits.limit", wire.limit)?);
    Ok(limit)
}

fn network_to_wire(network: &LinuxNetwork) -> oci::LinuxNetwork {
    let priority = |priority: &LinuxInterfacePriority| oci::LinuxInterfacePriority {
        name: priority.name().clone(),
        priority: priority.priority(),
        ..oci::LinuxInterfacePriority::default()
    };
    oci::LinuxNetwork {
        class_id: network.class_id().unwrap_or_default(),
        priorities: network.priorities().iter().flatten().map(priority).collect(),
        ..oci::LinuxNetwork::default()
    }
}

fn network_from_wire(wire: &oci::LinuxNetwork) -> LinuxNetwork {
    let priority = |wire: &oci::LinuxInterfacePriority| {
        let mut priority = LinuxInterfacePriority::default();
        priority.set_name(wire.name.clone()).set_priority(wire.priority);
        priority
    };
    let mut network = LinuxNetwork::default();
    network
        .set_class_id(value::given(wire.class_id))
        .set_priorities(value::given(wire.priorities.iter().map(priority).collect::<Vec<_>>()));
    network
}
