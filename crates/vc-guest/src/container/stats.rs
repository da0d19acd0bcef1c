//! StatsContainer: what the container's cgroup has counted.

use super::Container;
use vc_agent_protocol::agent::{
    CgroupStats, CpuStats, CpuUsage, MemoryData, MemoryStats, PidsStats, StatsContainerResponse,
    ThrottlingData,
};

/// The kernel counts processor time in microseconds, the protocol in nanoseconds.
const NANOSECONDS: u64 = 1000;

impl Container {
    /// Processor time, memory and processes, as counted by cgroup version 2.
    pub(crate) fn stats(&self) -> StatsContainerResponse {
        let stats = CgroupStats {
            cpu_stats: Some(self.cpu()).into(),
            memory_stats: Some(self.memory()).into(),
            pids_stats: Some(self.pids()).into(),
            ..Default::default()
        };
        StatsContainerResponse { cgroup_stats: Some(stats).into(), ..Default::default() }
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
        let events = self.cgroup.numbers("memory.events");
        let data = |prefix: &str, failures: u64| MemoryData {
            usage: self.cgroup.number(&format!("{prefix}.current")).unwrap_or_default(),
            limit: self.cgroup.number(&format!("{prefix}.max")).unwrap_or(u64::MAX),
            failcnt: failures,
            ..Default::default()
        };
        MemoryStats {
            cache: stat.get("file").copied().unwrap_or_default(),
            usage: Some(data("memory", events.get("max").copied().unwrap_or_default())).into(),
            swap_usage: Some(data("memory.swap", 0)).into(),
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
}
