//! What a container uses, in the form of runc's events, which engines read.

use serde_json::{Map, Value, json};
use vc_agent::{BlockIo, ContainerStats, MemoryUsage, VolumeStats, VolumeUsage};

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

/// How full a volume is, as Kata's agent protocol has it in JSON (`VolumeStatsResponse` of csi.proto): 1 is bytes, 2
/// is inodes.
pub(super) fn of_volume(stats: &VolumeStats) -> Value {
    let VolumeStats { bytes, inodes, fault } = stats;
    let usage = |usage: &VolumeUsage, unit: u8| json!({"available": usage.available, "total": usage.total, "used": usage.used, "unit": unit});
    let usages =
        [bytes.as_ref().map(|bytes| usage(bytes, 1)), inodes.as_ref().map(|inodes| usage(inodes, 2))];
    json!({
        "usage": usages.into_iter().flatten().collect::<Vec<_>>(),
        "volume_condition": {"abnormal": fault.is_some(), "message": fault.as_deref().unwrap_or("OK")},
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_has_bytes_and_inodes_and_perhaps_a_fault() {
        let bytes = Some(VolumeUsage { total: 3, used: 2, available: 1 });
        let stats = VolumeStats { bytes, inodes: None, fault: Some("read-only".into()) };
        let expected = json!({
            "usage": [{"available": 1, "total": 3, "used": 2, "unit": 1}],
            "volume_condition": {"abnormal": true, "message": "read-only"},
        });
        assert_eq!(of_volume(&stats), expected);
        let well = VolumeStats { inodes: bytes, ..VolumeStats::default() };
        assert_eq!(of_volume(&well)["usage"][0]["unit"], 2);
        assert_eq!(of_volume(&well)["volume_condition"], json!({"abnormal": false, "message": "OK"}));
    }
}
