//! StatsContainer: what the container's cgroup and network namespace have counted.

use super::Container;
use crate::statistics::{BlockDevice, block_devices, interfaces};
use std::collections::HashMap;
use vc_agent_protocol::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStats,
    NetworkStats, PidsStats, StatsContainerResponse, ThrottlingData,
};

/// The kernel counts processor time in microseconds, the protocol in nanoseconds.
const NANOSECONDS: u64 = 1000;

impl Container {
    /// Processor time, memory, processes, block devices and huge pages, as counted by cgroup version 2,
    /// and the interfaces of the container's network namespace.
    pub(crate) fn stats(&self) -> StatsContainerResponse {
        let stats = CgroupStats {
            cpu_stats: Some(self.cpu()).into(),
            memory_stats: Some(self.memory()).into(),
            pids_stats: Some(self.pids()).into(),
            blkio_stats: Some(self.block_io()).into(),
            hugetlb_stats: self.huge_pages(),
            ..Default::default()
        };
        StatsContainerResponse {
            cgroup_stats: Some(stats).into(),
            network_stats: self.network(),
            ..Default::default()
        }
    }

    fn cpu(&self) -> CpuStats {
        let stat = self.cgroup.numbers("cpu.stat");
        let number = |key: &str| stat.get(key).copied().unwrap_or_default();
        let time = |key: &str| number(key).saturating_mul(NANOSECONDS);
        let usage = CpuUsage {
            total_usage: time("usage_usec"),
            usage_in_kernelmode: time("system_usec"),
            usage_in_usermode: time("user_usec"),
            ..Default::default()
        };
        let throttling = ThrottlingData {
            periods: number("nr_periods"),
            throttled_periods: number("nr_throttled"),
            throttled_time: time("throttled_usec"),
            ..Default::default()
        };
        CpuStats {
            cpu_usage: Some(usage).into(),
            throttling_data: Some(throttling).into(),
            ..Default::default()
        }
    }

    fn memory(&self) -> MemoryStats {
        let stat = self.cgroup.numbers("memory.stat");
        let failures = |file: &str| self.cgroup.numbers(file).get("max").copied().unwrap_or_default();
        let data = |prefix: &str| MemoryData {
            usage: self.cgroup.number(&format!("{prefix}.current")).unwrap_or_default(),
            limit: self.cgroup.number(&format!("{prefix}.max")).unwrap_or(u64::MAX),
            max_usage: self.cgroup.number(&format!("{prefix}.peak")).unwrap_or_default(),
            failcnt: failures(&format!("{prefix}.events")),
            ..Default::default()
        };
        MemoryStats {
            cache: stat.get("file").copied().unwrap_or_default(),
            usage: Some(data("memory")).into(),
            swap_usage: Some(data("memory.swap")).into(),
            use_hierarchy: true,
            stats: stat,
            ..Default::default()
        }
    }

    fn pids(&self) -> PidsStats {
        PidsStats {
            current: self.cgroup.number("pids.current").unwrap_or_default(),
            limit: self.cgroup.number("pids.max").unwrap_or_default(),
            ..Default::default()
        }
    }

    fn block_io(&self) -> BlkioStats {
        let devices = block_devices(&self.cgroup.text("io.stat"));
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

    /// By page size, such as `2MB`.
    fn huge_pages(&self) -> HashMap<String, HugetlbStats> {
        let files = std::fs::read_dir(self.cgroup.path()).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let size = |name: String| Some(name.strip_prefix("hugetlb.")?.strip_suffix(".current")?.to_owned());
        let sizes = names.filter_map(size).filter(|size| !size.contains('.'));
        let stats = |size: &str| HugetlbStats {
            usage: self.cgroup.number(&format!("hugetlb.{size}.current")).unwrap_or_default(),
            failcnt: self
                .cgroup
                .numbers(&format!("hugetlb.{size}.events"))
                .get("max")
                .copied()
                .unwrap_or_default(),
            ..Default::default()
        };
        sizes.map(|size| (size.clone(), stats(&size))).collect()
    }

    /// None once the first process has ended: its namespace cannot be named any more.
    fn network(&self) -> Vec<NetworkStats> {
        let Ok(init) = self.process("") else { return Vec::new() };
        let text = std::fs::read_to_string(format!("/proc/{}/net/dev", init.pid)).unwrap_or_default();
        let stats = |interface: crate::statistics::Interface| NetworkStats {
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
        };
        interfaces(&text).into_iter().map(stats).collect()
    }
}
