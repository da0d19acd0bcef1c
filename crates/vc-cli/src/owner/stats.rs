//! What a container uses, in the form of runc's events, which engines read.

use serde_json::{Map, Value, json};
use vc_agent::{BlockIo, ContainerStats, MemoryUsage};

/// The `data` of an event of type `stats` (runc, `types/events.go`).
pub(super) fn as_runc(stats: &ContainerStats) -> Value {
    let ContainerStats { cpu, memory, pids, block_io, huge_pages, network } = stats;
    let huge: Map<_, _> = huge_pages
        .iter()
        .map(|(size, pages)| {
            let usage = json!({"usage": pages.current, "max": pages.peak, "failcnt": pages.failures});
            (size.clone(), usage)
        })
        .collect();
    let interface = |interface: &vc_agent::NetworkStats| {
        let (received, sent) = (&interface.received, &interface.sent);
        json!({
            "Name": interface.name,
            "RxBytes": received.bytes, "RxPackets": received.packets,
            "RxErrors": received.errors, "RxDropped": received.dropped,
            "TxBytes": sent.bytes, "TxPackets": sent.packets, "TxErrors": sent.errors, "TxDropped": sent.dropped,
        })
    };
    json!({
        "cpu": {
            "usage": {"total": cpu.total, "percpu": cpu.per_cpu, "kernel": cpu.kernel, "user": cpu.user},
            "throttling": {
                "periods": cpu.periods, "throttledPeriods": cpu.throttled_periods, "throttledTime": cpu.throttled,
            },
        },
        "memory": {
            "cache": memory.cache, "usage": usage(&memory.usage), "swap": usage(&memory.swap),
            "kernel": usage(&memory.kernel), "raw": memory.details,
        },
        "pids": {"current": pids.current, "limit": pids.limit},
        "blkio": {
            "ioServiceBytesRecursive": entries(&block_io.bytes), "ioServicedRecursive": entries(&block_io.requests),
        },
        "hugetlb": huge,
        "network_interfaces": network.iter().map(interface).collect::<Vec<_>>(),
    })
}

fn usage(memory: &MemoryUsage) -> Value {
    let MemoryUsage { current, peak, failures, limit } = memory;
    json!({"usage": current, "max": peak, "failcnt": failures, "limit": limit})
}

fn entries(list: &[BlockIo]) -> Vec<Value> {
    let entry =
        |io: &BlockIo| json!({"major": io.major, "minor": io.minor, "op": io.operation, "value": io.value});
    list.iter().map(entry).collect()
}
