//! From the messages of the wire to the port's requests, and from its answers to messages.

use std::net::IpAddr;

use vc_agent::{
    ContainerStats, CopyFile, FileContent, Interface, IpFamily, IpNetwork, Neighbor, ProcessRef, Route,
    StorageDriver, VolumeStats, VolumeUsage,
};
use vc_agent_protocol::agent::*;
use vc_agent_protocol::csi::{self, Unit, VolumeStatsResponse};
use vc_agent_protocol::types;
use vc_types::GuestPath;

pub(super) fn process(container: &str, exec: &str) -> ProcessRef {
    let container = container.parse().unwrap();
    let init = ProcessRef::init(&container);
    if exec == container.as_str() { init } else { ProcessRef { exec: Some(exec.parse().unwrap()), ..init } }
}

pub(super) fn path(text: &str) -> GuestPath {
    GuestPath::new(text).unwrap()
}

pub(super) fn storage(message: &Storage) -> vc_agent::Storage {
    let driver = StorageDriver::ALL.into_iter().find(|driver| driver.name() == message.driver).unwrap();
    vc_agent::Storage {
        driver_options: message.driver_options.clone(),
        options: message.options.clone(),
        shared: message.shared,
        ..vc_agent::Storage::new(driver, &message.source, &message.fstype, path(&message.mount_point))
    }
}

pub(super) fn copy_file(message: &CopyFileRequest) -> CopyFile<'_> {
    let number = |number: i64| u64::try_from(number).unwrap();
    let content = match message.file_mode & 0o170_000 {
        0o100_000 => FileContent::Regular {
            size: number(message.file_size),
            offset: number(message.offset),
            data: &message.data,
        },
        0o040_000 => FileContent::Directory,
        0o120_000 => FileContent::Symlink { target: std::str::from_utf8(&message.data).unwrap() },
        other => panic!("no kind of file: {other:o}"),
    };
    CopyFile {
        path: path(&message.path),
        content,
        mode: message.file_mode & 0o7777,
        directory_mode: message.dir_mode,
        uid: message.uid.try_into().unwrap(),
        gid: message.gid.try_into().unwrap(),
    }
}

fn family(family: IpFamily) -> types::IPFamily {
    if family == IpFamily::V4 { types::IPFamily::v4 } else { types::IPFamily::v6 }
}

pub(super) fn interface(message: &types::Interface) -> Interface {
    let network = |net: &types::IPAddress| format!("{}/{}", net.address, net.mask).parse().unwrap();
    Interface {
        name: message.name.clone(),
        device: message.device.clone(),
        mac: message.hw_addr.parse().ok(),
        addresses: message.ip_addresses.iter().map(network).collect(),
        mtu: message.mtu,
        pci: message.device_path.parse().ok(),
        kind: message.type_.clone(),
        flags: message.raw_flags,
    }
}

pub(super) fn interface_message(interface: &Interface) -> types::Interface {
    let address = |net: &IpNetwork| types::IPAddress {
        family: family(IpFamily::of(net.address())).into(),
        address: net.address().to_string(),
        mask: net.length().to_string(),
        ..Default::default()
    };
    types::Interface {
        name: interface.name.clone(),
        device: interface.device.clone(),
        hw_addr: interface.mac.map(|mac| mac.to_string()).unwrap_or_default(),
        ip_addresses: interface.addresses.iter().map(address).collect(),
        mtu: interface.mtu,
        device_path: interface.pci.as_ref().map(ToString::to_string).unwrap_or_default(),
        type_: interface.kind.clone(),
        raw_flags: interface.flags,
        ..Default::default()
    }
}

pub(super) fn route(message: &types::Route) -> Route {
    Route {
        family: if message.family == types::IPFamily::v4.into() { IpFamily::V4 } else { IpFamily::V6 },
        destination: message.dest.parse().ok(),
        gateway: message.gateway.parse().ok(),
        device: message.device.clone(),
        source: message.source.parse().ok(),
        scope: message.scope.try_into().unwrap(),
        flags: message.flags,
        mtu: message.mtu,
    }
}

pub(super) fn routes_message(routes: &[Route]) -> Routes {
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    let message = |route: &Route| types::Route {
        dest: route.destination.map(|net| net.to_string()).unwrap_or_default(),
        gateway: text(route.gateway),
        device: route.device.clone(),
        source: text(route.source),
        scope: route.scope.into(),
        family: family(route.family).into(),
        flags: route.flags,
        mtu: route.mtu,
        ..Default::default()
    };
    Routes { routes: routes.iter().map(message).collect(), ..Default::default() }
}

pub(super) fn neighbor(message: &types::ARPNeighbor) -> Neighbor {
    Neighbor {
        address: message.to_ip_address.address.parse().unwrap(),
        mac: message.lladdr.parse().unwrap(),
        device: message.device.clone(),
        state: message.state.try_into().unwrap(),
        flags: message.flags.try_into().unwrap(),
    }
}

pub(super) fn volume_message(stats: &VolumeStats) -> VolumeStatsResponse {
    let usage = |usage: Option<VolumeUsage>, unit: Unit| {
        usage.map(|usage| csi::VolumeUsage {
            available: usage.available,
            total: usage.total,
            used: usage.used,
            unit: unit.into(),
            ..Default::default()
        })
    };
    let all = [usage(stats.bytes, Unit::BYTES), usage(stats.inodes, Unit::INODES)];
    VolumeStatsResponse { usage: all.into_iter().flatten().collect(), ..Default::default() }
}

pub(super) fn stats_message(stats: &ContainerStats) -> StatsContainerResponse {
    let cpu_usage = CpuUsage { total_usage: stats.cpu.total, ..Default::default() };
    let usage = stats.memory.usage;
    let memory = MemoryData {
        usage: usage.current,
        max_usage: usage.peak,
        failcnt: usage.failures,
        limit: usage.limit,
        ..Default::default()
    };
    let (current, limit) = (stats.pids.current, stats.pids.limit);
    let cgroup = CgroupStats {
        cpu_stats: Some(CpuStats { cpu_usage: Some(cpu_usage).into(), ..Default::default() }).into(),
        memory_stats: Some(MemoryStats { usage: Some(memory).into(), ..Default::default() }).into(),
        pids_stats: Some(PidsStats { current, limit, ..Default::default() }).into(),
        ..Default::default()
    };
    let network = stats.network.iter();
    let network = network.map(|stats| NetworkStats { name: stats.name.clone(), ..Default::default() });
    StatsContainerResponse {
        cgroup_stats: Some(cgroup).into(),
        network_stats: network.collect(),
        ..Default::default()
    }
}
