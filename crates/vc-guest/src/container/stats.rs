//! StatsContainer: what the container's cgroup and network namespace have counted.

use super::Container;
use super::counters::{Counter, Counters, Usage, pairs};
use crate::statistics::{BlockDevice, Interface, block_devices, interfaces};
use std::collections::HashMap;
use vc_agent_protocol::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStats,
    NetworkStats, PidsStats, StatsContainerResponse, ThrottlingData,
};

/// The kernel counts processor time in microseconds, the protocol in nanoseconds.
const NANOSECONDS: u64 = 1000;

/// As many lines as `memory.stat` has, and some more (Linux 6.12 writes up to 60).
const MEMORY_PARTS: usize = 64;

impl Container {
    /// Processor time, memory, processes, block devices and huge pages, as counted by cgroup version 2,
    /// and the interfaces of the container's network namespace.
    pub(crate) fn stats(&self) -> StatsContainerResponse {
        let counters = self.counters.get_or_init(|| Counters::open(self.cgroup.path(), self.init));
        // One buffer for all of them: each is read, and then used at once.
        let buffer = &mut Vec::new();
        let stats = CgroupStats {
            cpu_stats: Some(processor(&counters.processor, buffer)).into(),
            memory_stats: Some(memory(counters, buffer)).into(),
            pids_stats: Some(PidsStats {
                current: counters.processes.number(buffer).unwrap_or_default(),
                limit: counters.most_processes.number(buffer).unwrap_or_default(),
                ..Default::default()
            })
            .into(),
            blkio_stats: Some(block_io(&counters.disks, buffer)).into(),
            hugetlb_stats: huge_pages(counters, buffer),
            ..Default::default()
        };
        StatsContainerResponse {
            cgroup_stats: Some(stats).into(),
            network_stats: interfaces(&counters.network.text(buffer)).into_iter().map(network).collect(),
            ..Default::default()
        }
    }
}

fn processor(counter: &Counter, buffer: &mut Vec<u8>) -> CpuStats {
    let (mut usage, mut throttling) = (CpuUsage::default(), ThrottlingData::default());
    for (key, number) in pairs(&counter.text(buffer)) {
        let time = number.saturating_mul(NANOSECONDS);
        match key {
            "usage_usec" => usage.total_usage = time,
            "system_usec" => usage.usage_in_kernelmode = time,
            "user_usec" => usage.usage_in_usermode = time,
            "nr_periods" => throttling.periods = number,
            "nr_throttled" => throttling.throttled_periods = number,
            "throttled_usec" => throttling.throttled_time = time,
            _ => {}
        }
    }
    CpuStats { cpu_usage: Some(usage).into(), throttling_data: Some(throttling).into(), ..Default::default() }
}

fn memory(counters: &Counters, buffer: &mut Vec<u8>) -> MemoryStats {
    let mut stats = HashMap::with_capacity(MEMORY_PARTS);
    stats.extend(pairs(&counters.memory_parts.text(buffer)).map(|(key, number)| (key.to_owned(), number)));
    MemoryStats {
        cache: stats.get("file").copied().unwrap_or_default(),
        usage: Some(usage(&counters.memory, buffer)).into(),
        swap_usage: Some(usage(&counters.swap, buffer)).into(),
        use_hierarchy: true,
        stats,
        ..Default::default()
    }
}

fn usage(counters: &Usage, buffer: &mut Vec<u8>) -> MemoryData {
    MemoryData {
        usage: counters.current.number(buffer).unwrap_or_default(),
        limit: counters.most.number(buffer).unwrap_or(u64::MAX),
        max_usage: counters.peak.number(buffer).unwrap_or_default(),
        failcnt: counters.events.entry("max", buffer),
        ..Default::default()
    }
}

fn block_io(counter: &Counter, buffer: &mut Vec<u8>) -> BlkioStats {
    let devices = block_devices(&counter.text(buffer));
    let entry = |device: &BlockDevice, op: &str, value| BlkioStatsEntry {
        major: device.major,
        minor: device.minor,
        op: op.to_owned(),
        value,
        ..Default::default()
    };
    let both =
        |device: &BlockDevice, read, write| [entry(device, "read", read), entry(device, "write", write)];
    let bytes = |device: &BlockDevice| both(device, device.read_bytes, device.written_bytes);
    let calls = |device: &BlockDevice| both(device, device.reads, device.writes);
    BlkioStats {
        io_service_bytes_recursive: devices.iter().flat_map(bytes).collect(),
        io_serviced_recursive: devices.iter().flat_map(calls).collect(),
        ..Default::default()
    }
}

fn huge_pages(counters: &Counters, buffer: &mut Vec<u8>) -> HashMap<String, HugetlbStats> {
    let mut stats = HashMap::new();
    for (size, used, events) in &counters.huge_pages {
        let usage = used.number(buffer).unwrap_or_default();
        let failcnt = events.entry("max", buffer);
        stats.insert(size.clone(), HugetlbStats { usage, failcnt, ..Default::default() });
    }
    stats
}

fn network(interface: Interface) -> NetworkStats {
    NetworkStats {
        name: interface.name,
        rx_bytes: interface.received.bytes,
        rx_packets: interface.received.packets,
        rx_errors: interface.received.errors,
        rx_dropped: interface.received.dropped,
        tx_bytes: interface.sent.bytes,
        tx_packets: interface.sent.packets,
        tx_errors: interface.sent.errors,
        tx_dropped: interface.sent.dropped,
        ..Default::default()
    }
}
