//! What a machine has used.

use std::time::Duration;

use vc_types::DeviceId;

/// What a running machine has used so far, and what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The vCPUs, by number.
    pub vcpus: Vec<VcpuStatistics>,
    /// The processor time of all the hypervisor's threads.
    pub cpu_time: Duration,
    /// The memory of the host that the hypervisor's process occupies, the guest's included, in bytes.
    pub resident: u64,
    /// The memory that the guest has, in bytes.
    pub guest_memory: u64,
    /// The disks, plugged and built in, by name.
    pub disks: Vec<DiskStatistics>,
}

/// What one vCPU has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuStatistics {
    /// Its number.
    pub index: u32,
    /// The thread of the host that runs it, as for sched_setaffinity(2) or a cgroup.
    pub thread: u32,
    /// The processor time of that thread.
    pub cpu_time: Duration,
}

/// What was read from and written to one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskStatistics {
    /// The disk.
    pub device: DeviceId,
    /// Bytes that the guest has read.
    pub read_bytes: u64,
    /// Bytes that the guest has written.
    pub written_bytes: u64,
    /// Read requests.
    pub reads: u64,
    /// Write requests.
    pub writes: u64,
    /// Requests that failed.
    pub failed: u64,
}
