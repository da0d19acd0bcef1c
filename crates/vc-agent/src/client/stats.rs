//! From the wire's figures to the port's.

use protobuf::MessageField;
use vc_agent_protocol::agent::{
    BlkioStatsEntry, CpuStats as CpuMessage, HugetlbStats, MemoryData, MemoryStats as MemoryMessage,
    NetworkStats as NetworkMessage, StatsContainerResponse,
};

use crate::{
    BlockIo, BlockIoStats, ContainerStats, CpuStats, HugePageStats, MemoryStats, MemoryUsage, NetworkStats,
    PidsStats, Traffic,
};

pub(super) fn from_wire(answer: StatsContainerResponse) -> ContainerStats {
    let cgroup = answer.cgroup_stats.into_option().unwrap_or_default();
    let pids = cgroup.pids_stats.into_option().unwrap_or_default();
    let block_io = cgroup.blkio_stats.into_option().unwrap_or_default();
    ContainerStats {
        cpu: cpu(cgroup.cpu_stats.into_option().unwrap_or_default()),
        memory: memory(cgroup.memory_stats.into_option().unwrap_or_default()),
        pids: PidsStats { current: pids.current, limit: pids.limit },
        block_io: BlockIoStats {
            bytes: block_io.io_service_bytes_recursive.into_iter().map(disk).collect(),
            requests: block_io.io_serviced_recursive.into_iter().map(disk).collect(),
        },
        huge_pages: cgroup
            .hugetlb_stats
            .into_iter()
            .map(|(size, stats)| (size, huge_pages(&stats)))
            .collect(),
        network: answer.network_stats.into_iter().map(network).collect(),
    }
}

fn cpu(message: CpuMessage) -> CpuStats {
    let usage = message.cpu_usage.into_option().unwrap_or_default();
    let throttling = message.throttling_data.into_option().unwrap_or_default();
    CpuStats {
        total: usage.total_usage,
        kernel: usage.usage_in_kernelmode,
        user: usage.usage_in_usermode,
        per_cpu: usage.percpu_usage,
        periods: throttling.periods,
        throttled_periods: throttling.throttled_periods,
        throttled: throttling.throttled_time,
    }
}

fn memory(message: MemoryMessage) -> MemoryStats {
    MemoryStats {
        usage: usage(message.usage),
        swap: usage(message.swap_usage),
        kernel: usage(message.kernel_usage),
        cache: message.cache,
        details: message.stats.into_iter().collect(),
    }
}

fn usage(message: MessageField<MemoryData>) -> MemoryUsage {
    let message = message.into_option().unwrap_or_default();
    MemoryUsage {
        current: message.usage,
        peak: message.max_usage,
        failures: message.failcnt,
        limit: message.limit,
    }
}

fn huge_pages(message: &HugetlbStats) -> HugePageStats {
    HugePageStats { current: message.usage, peak: message.max_usage, failures: message.failcnt }
}

fn disk(message: BlkioStatsEntry) -> BlockIo {
    BlockIo { major: message.major, minor: message.minor, operation: message.op, value: message.value }
}

fn network(message: NetworkMessage) -> NetworkStats {
    NetworkStats {
        name: message.name,
        received: Traffic {
            bytes: message.rx_bytes,
            packets: message.rx_packets,
            errors: message.rx_errors,
            dropped: message.rx_dropped,
        },
        sent: Traffic {
            bytes: message.tx_bytes,
            packets: message.tx_packets,
            errors: message.tx_errors,
            dropped: message.tx_dropped,
        },
    }
}
