//! Resource limits of the OCI specification as files of cgroup version 2.
//!
//! The specification speaks of version 1 (`config-linux.md`, "Control groups"). What version 2 has under
//! another name is mapped; what it has not is refused, since a limit that is dropped silently is none.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

/// What a file of the cgroup is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The file's name.
    pub file: String,
    /// What is written.
    pub value: String,
}

/// Why limits cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Cgroup version 2 has nothing like it.
    #[error("linux.resources.{0} has no counterpart in cgroup version 2: leave it out")]
    NoCounterpart(&'static str),
    /// The value has no meaning.
    #[error("linux.resources.{field} is {value}, which is no limit")]
    Value {
        /// The field in the notation of `config.json`.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// Swap is counted together with memory.
    #[error(
        "linux.resources.memory.swap is a limit for memory and swap together: memory.limit is missing or larger"
    )]
    SwapWithoutLimit,
}

/// The limits of `resources`, in the order in which they are to be written.
///
/// `quota` is the quota in force, in the form of `cpu.max`; a period alone leaves it as it is. Device
/// rules are no files, and not among the limits.
///
/// # Errors
/// [`LimitError`] names the field that cannot be honoured.
pub fn limits(resources: &LinuxResources, quota: &str) -> Result<Vec<Limit>, LimitError> {
    let mut limits = Vec::new();
    if let Some(cpu) = resources.cpu() {
        add_cpu(&mut limits, cpu, quota)?;
    }
    if let Some(memory) = resources.memory() {
        add_memory(&mut limits, memory)?;
    }
    if let Some(pids) = resources.pids() {
        match pids.limit() {
            0 => {}
            limit => add(&mut limits, "pids.max", number_or_max(limit)),
        }
    }
    if let Some(io) = resources.block_io() {
        add_block_io(&mut limits, io)?;
    }
    for huge in resources.hugepage_limits().iter().flatten() {
        let size = huge.page_size();
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let value = size.clone();
            return Err(LimitError::Value { field: "hugepageLimits.pageSize", value });
        }
        add(&mut limits, &format!("hugetlb.{size}.max"), huge.limit().to_string());
    }
    if let Some(network) = resources.network()
        && (network.class_id().is_some() || network.priorities().iter().flatten().next().is_some())
    {
        return Err(LimitError::NoCounterpart("network"));
    }
    Ok(limits)
}

fn add(limits: &mut Vec<Limit>, file: &str, value: String) {
    limits.push(Limit { file: file.to_owned(), value });
}

/// Any negative number is no limit.
fn number_or_max(number: i64) -> String {
    if number < 0 { "max".to_owned() } else { number.to_string() }
}

fn refuse(field: &'static str, given: bool) -> Result<(), LimitError> {
    if given { Err(LimitError::NoCounterpart(field)) } else { Ok(()) }
}

fn add_cpu(limits: &mut Vec<Limit>, cpu: &LinuxCpu, quota: &str) -> Result<(), LimitError> {
    refuse("cpu.realtimeRuntime", cpu.realtime_runtime().is_some())?;
    refuse("cpu.realtimePeriod", cpu.realtime_period().is_some())?;
    if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
        add(limits, "cpuset.cpus", cpus.clone());
    }
    if let Some(mems) = cpu.mems().as_ref().filter(|mems| !mems.is_empty()) {
        add(limits, "cpuset.mems", mems.clone());
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares > 0) {
        add(limits, "cpu.weight", weight(shares, (2, 262_144)));
    }
    let given = cpu.quota().map(|quota| if quota > 0 { quota.to_string() } else { "max".to_owned() });
    match (given, cpu.period().filter(|period| *period > 0)) {
        (None, None) => {}
        (Some(quota), None) => add(limits, "cpu.max", quota),
        (given, Some(period)) => {
            add(limits, "cpu.max", format!("{} {period}", given.as_deref().unwrap_or(quota)));
        }
    }
    Ok(())
}

/// From the range of version 1 to the 1 to 10000 of version 2, linearly, as Kubernetes does (KEP-2254).
fn weight(value: u64, (least, most): (u64, u64)) -> String {
    let value = value.clamp(least, most);
    (1 + (value - least) * 9999 / (most - least)).to_string()
}

fn add_memory(limits: &mut Vec<Limit>, memory: &LinuxMemory) -> Result<(), LimitError> {
    refuse("memory.kernel", memory.kernel().is_some())?;
    refuse("memory.kernelTCP", memory.kernel_tcp().is_some())?;
    refuse("memory.swappiness", memory.swappiness().is_some())?;
    refuse("memory.disableOOMKiller", memory.disable_oom_killer() == Some(true))?;
    if let Some(reservation) = memory.reservation() {
        add(limits, "memory.low", number_or_max(reservation));
    }
    if let Some(swap) = memory.swap() {
        let value = match memory.limit() {
            _ if swap < 0 => "max".to_owned(),
            Some(limit @ 0..) if swap >= limit => (swap - limit).to_string(),
            _ => return Err(LimitError::SwapWithoutLimit),
        };
        add(limits, "memory.swap.max", value);
    }
    if let Some(limit) = memory.limit() {
        add(limits, "memory.max", number_or_max(limit));
    }
    Ok(())
}

fn add_block_io(limits: &mut Vec<Limit>, io: &LinuxBlockIo) -> Result<(), LimitError> {
    refuse("blockIO.leafWeight", io.leaf_weight().is_some())?;
    let io_weight = |value: u16| weight(value.into(), (10, 1000));
    if let Some(value) = io.weight().filter(|weight| *weight > 0) {
        add(limits, "io.weight", format!("default {}", io_weight(value)));
    }
    for device in io.weight_device().iter().flatten() {
        refuse("blockIO.weightDevice.leafWeight", device.leaf_weight().is_some())?;
        if let Some(value) = device.weight() {
            let value = format!("{}:{} {}", device.major(), device.minor(), io_weight(value));
            add(limits, "io.weight", value);
        }
    }
    let throttles = [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.iter().flatten() {
            add(limits, "io.max", throttle(key, device));
        }
    }
    Ok(())
}

/// A rate of 0 takes the limit away.
fn throttle(key: &str, device: &LinuxThrottleDevice) -> String {
    let rate = match device.rate() {
        0 => "max".to_owned(),
        rate => rate.to_string(),
    };
    format!("{}:{} {key}={rate}", device.major(), device.minor())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(resources: serde_json::Value) -> Result<Vec<(String, String)>, LimitError> {
        let resources = serde_json::from_value(resources).unwrap();
        let limits = limits(&resources, "70000")?;
        Ok(limits.into_iter().map(|limit| (limit.file, limit.value)).collect())
    }

    #[test]
    fn every_limit_goes_to_its_file() {
        let cases = [
            (json!({"cpu": {"shares": 2}}), vec![("cpu.weight", "1")]),
            (json!({"cpu": {"shares": 1024}}), vec![("cpu.weight", "39")]),
            (json!({"cpu": {"shares": 262_144}}), vec![("cpu.weight", "10000")]),
            (json!({"cpu": {"shares": 1 << 30}}), vec![("cpu.weight", "10000")]),
            (json!({"cpu": {"quota": 50_000}}), vec![("cpu.max", "50000")]),
            (json!({"cpu": {"quota": -1, "period": 9000}}), vec![("cpu.max", "max 9000")]),
            (json!({"cpu": {"period": 9000}}), vec![("cpu.max", "70000 9000")]),
            (
                json!({"cpu": {"cpus": "0-1", "mems": "0"}}),
                vec![("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
            ),
            (json!({"memory": {"limit": 4096}}), vec![("memory.max", "4096")]),
            (
                json!({"memory": {"limit": -1, "swap": -1}}),
                vec![("memory.swap.max", "max"), ("memory.max", "max")],
            ),
            (
                json!({"memory": {"reservation": 1, "limit": 10, "swap": 10}}),
                vec![("memory.low", "1"), ("memory.swap.max", "0"), ("memory.max", "10")],
            ),
            (json!({"pids": {"limit": 7}}), vec![("pids.max", "7")]),
            (json!({"pids": {"limit": -1}}), vec![("pids.max", "max")]),
            (json!({"pids": {"limit": 0}}), vec![]),
            (
                json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
                vec![("hugetlb.2MB.max", "4194304")],
            ),
            (
                json!({"blockIO": {"weight": 1000, "weightDevice": [{"major": 8, "minor": 1, "weight": 10}]}}),
                vec![("io.weight", "default 10000"), ("io.weight", "8:1 1")],
            ),
            (
                json!({"blockIO": {
                    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 100}],
                    "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
                }}),
                vec![("io.max", "8:0 rbps=100"), ("io.max", "8:0 wiops=max")],
            ),
        ];
        for (resources, want) in cases {
            let want: Vec<_> =
                want.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect();
            assert_eq!(read(resources.clone()), Ok(want), "{resources}");
        }
    }

    #[test]
    fn what_version_2_has_not_is_refused_by_name() {
        let cases = [
            (json!({"memory": {"kernel": 1}}), "memory.kernel "),
            (json!({"memory": {"kernelTCP": 1}}), "memory.kernelTCP"),
            (json!({"memory": {"swappiness": 1}}), "memory.swappiness"),
            (json!({"memory": {"disableOOMKiller": true}}), "memory.disableOOMKiller"),
            (json!({"memory": {"swap": 10}}), "memory.swap"),
            (json!({"memory": {"limit": 11, "swap": 10}}), "memory.swap"),
            (json!({"cpu": {"realtimeRuntime": 1}}), "cpu.realtimeRuntime"),
            (json!({"cpu": {"realtimePeriod": 1}}), "cpu.realtimePeriod"),
            (json!({"blockIO": {"leafWeight": 10}}), "blockIO.leafWeight"),
            (
                json!({"blockIO": {"weightDevice": [{"major": 8, "minor": 1, "leafWeight": 10}]}}),
                "leafWeight",
            ),
            (json!({"network": {"classID": 1}}), "network"),
            (json!({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}), "hugepageLimits.pageSize"),
        ];
        for (resources, want) in cases {
            let error = read(resources.clone()).unwrap_err().to_string();
            assert!(error.contains(want), "{error:?} does not name {want:?}");
        }
    }
}
