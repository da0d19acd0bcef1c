//! What a machine has used: QEMU's own counters over QMP, and the kernel's about its process (proc(5)).
//!
//! The answer to `query-blockstats` differs between releases, so only what is needed of it is read.
//! QMP has no counters of networks: those of a tap are the host's (`/sys/class/net/TAP/statistics`).

use std::io;
use std::time::Duration;

use qapi::qmp;
use serde_json::Value;
use vc_hypervisor::{ControlError, DiskStatistics, Statistics, VcpuStatistics};
use vc_types::Deadline;

use crate::control::control_error;
use crate::machine::Shared;
use crate::qmp::QmpError;

const STEP: &str = "tell its statistics";

pub(crate) async fn statistics(shared: &Shared, deadline: Deadline) -> Result<Statistics, ControlError> {
    let asked = ask(shared, deadline).await;
    match asked {
        Ok(Answers { threads, memory, disks }) => {
            let host = |source: io::Error| ControlError::Refused { step: STEP, source: source.into() };
            let pid = shared.qemu.pid();
            let vcpus = threads.into_iter().filter_map(|(index, thread)| {
                // A vCPU that was unplugged since has no thread.
                let text = std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/stat")).ok()?;
                Some(VcpuStatistics { index, thread, cpu_time: cpu_time(&text)? })
            });
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(host)?;
            let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).map_err(host)?;
            let unreadable = || host(io::ErrorKind::InvalidData.into());
            Ok(Statistics {
                vcpus: vcpus.collect(),
                cpu_time: cpu_time(&stat).ok_or_else(unreadable)?,
                resident: resident(&statm).ok_or_else(unreadable)?,
                guest_memory: memory,
                disks,
            })
        }
        Err(error) => Err(control_error(shared, STEP, error).await),
    }
}

struct Answers {
    /// Number and thread of each vCPU.
    threads: Vec<(u32, u32)>,
    memory: u64,
    disks: Vec<DiskStatistics>,
}

async fn ask(shared: &Shared, deadline: Deadline) -> Result<Answers, QmpError> {
    let qmp = &shared.qmp;
    let cpus = qmp.query(qmp::query_cpus_fast {}, deadline);
    let memory = qmp.execute(qmp::query_memory_size_summary {}, deadline);
    let disks = qmp.query(qmp::query_blockstats { query_nodes: None }, deadline);
    let (cpus, memory, disks) = tokio::try_join!(cpus, memory, disks)?;
    Ok(Answers {
        threads: list(&cpus).filter_map(thread).collect(),
        memory: memory.base_memory + memory.plugged_memory.unwrap_or(0),
        disks: list(&disks).filter_map(disk).collect(),
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn thread(cpu: &Value) -> Option<(u32, u32)> {
    let number = |name| u32::try_from(cpu.get(name)?.as_u64()?).ok();
    Some((number("cpu-index")?, number("thread-id")?))
}

/// Disks are known by the names of their images, which are the devices' own.
fn disk(entry: &Value) -> Option<DiskStatistics> {
    let device = entry.get("node-name")?.as_str()?.parse().ok()?;
    let count = |name| entry.pointer(name).and_then(Value::as_u64).unwrap_or(0);
    Some(DiskStatistics {
        device,
        read_bytes: count("/stats/rd_bytes"),
        written_bytes: count("/stats/wr_bytes"),
        reads: count("/stats/rd_operations"),
        writes: count("/stats/wr_operations"),
        failed: count("/stats/failed_rd_operations") + count("/stats/failed_wr_operations"),
    })
}

/// User and system time of the text of a `stat` file: the fields 14 and 15, in clock ticks. The second
/// field is a name in parentheses that may hold anything.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_millis(ticks.saturating_mul(1000) / per_second))
}

/// The resident memory of the text of `statm`: the second field, in pages.
fn resident(statm: &str) -> Option<u64> {
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_thread_whose_name_has_a_parenthesis_is_read() {
        // From Linux 6.18, shortened behind the times.
        let stat = "1234 (CPU 0/TCG) 1) S 1 1234 1234 0 -1 4194624 100 0 0 0 150 50 0 0 20 0 4 0 5\n";
        let second = rustix::param::clock_ticks_per_second();
        assert_eq!(cpu_time(stat), Some(Duration::from_millis(200 * 1000 / second)));
        assert_eq!(cpu_time("no stat"), None);
        assert_eq!(resident("9999 3 1 1 0 1 0\n"), Some(3 * rustix::param::page_size() as u64));
    }

    #[test]
    fn only_named_disks_are_counted() {
        // From QEMU 7.2, shortened.
        let entry = json!({"device": "", "node-name": "d0", "qdev": "/machine/peripheral/d0/virtio-backend",
            "stats": {"rd_bytes": 4096, "rd_operations": 2, "wr_bytes": 0, "failed_rd_operations": 1}});
        let counted = disk(&entry).unwrap();
        assert_eq!(
            (counted.device.as_str(), counted.read_bytes, counted.reads, counted.failed),
            ("d0", 4096, 2, 1)
        );
        assert_eq!(disk(&json!({"device": "floppy0", "stats": {}})), None);
    }
}
