//! What a container uses. The guest tells it: numbers to show, not to trust.

use std::collections::BTreeMap;

/// What a container uses. What the guest does not tell is 0 or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerStats {
    /// Processor time.
    pub cpu: CpuStats,
    /// Memory.
    pub memory: MemoryStats,
    /// Processes and threads.
    pub pids: PidsStats,
    /// Disks.
    pub block_io: BlockIoStats,
    /// Huge pages, by the name of their size, such as `2MB`.
    pub huge_pages: BTreeMap<String, HugePageStats>,
    /// The interfaces of the guest, which its containers share.
    pub network: Vec<NetworkStats>,
}

/// Processor time, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuStats {
    /// All of it.
    pub total: u64,
    /// In the kernel.
    pub kernel: u64,
    /// Outside of it.
    pub user: u64,
    /// By processor, where the kernel counts that (not with cgroup v2).
    pub per_cpu: Vec<u64>,
    /// How many periods of the limit there were.
    pub periods: u64,
    /// In how many the limit was met.
    pub throttled_periods: u64,
    /// How long the container was held back.
    pub throttled: u64,
}

/// Memory, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// All of it.
    pub usage: MemoryUsage,
    /// Swap space.
    pub swap: MemoryUsage,
    /// Memory of the kernel on behalf of the container.
    pub kernel: MemoryUsage,
    /// The page cache.
    pub cache: u64,
    /// The kernel's own figures, by its names (`memory.stat` of cgroup v2).
    pub details: BTreeMap<String, u64>,
}

/// Use of one kind of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// Now.
    pub current: u64,
    /// At most so far.
    pub peak: u64,
    /// How often the limit was met.
    pub failures: u64,
    /// The limit; `u64::MAX` and large numbers near it mean none.
    pub limit: u64,
}

/// Processes and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidsStats {
    /// How many there are.
    pub current: u64,
    /// How many there may be; 0 means any number.
    pub limit: u64,
}

/// Traffic with disks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIoStats {
    /// Bytes.
    pub bytes: Vec<BlockIo>,
    /// Requests.
    pub requests: Vec<BlockIo>,
}

/// Traffic of one kind with one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockIo {
    /// The disk's major number in the guest.
    pub major: u64,
    /// Its minor number.
    pub minor: u64,
    /// What is counted, as the kernel calls it: `read`, `write`, …
    pub operation: String,
    /// How much.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HugePageStats {
    /// Now.
    pub current: u64,
    /// At most so far.
    pub peak: u64,
    /// How often the limit was met.
    pub failures: u64,
}

/// Traffic of one interface (proc_net_dev, proc(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    /// The interface.
    pub name: String,
    /// What came.
    pub received: Traffic,
    /// What went.
    pub sent: Traffic,
}

/// Traffic in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
    /// Packets in error.
    pub errors: u64,
    /// Packets dropped.
    pub dropped: u64,
}
