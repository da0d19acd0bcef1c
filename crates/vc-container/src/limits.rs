//! A change to a container's limits as values: what they are after it, and what takes it back.

use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxPids, LinuxResources};

/// What the kernel has when nobody has said anything (cgroup v2, `cpu.weight` 100 and `cpu.max`; the
/// shares are those of the OCI specification that become that weight; `vm.swappiness`).
const SHARES: u64 = 1024;
const PERIOD: u64 = 100_000;
const UNLIMITED: i64 = -1;
const SWAPPINESS: u64 = 60;

/// More huge pages than there can be: the kernel takes it for `max` (`hugetlb.<size>.max`), and has no -1 there.
const ALL_HUGE_PAGES: i64 = i64::MAX;

/// The limits after `change`: what that does not give stays.
pub(crate) fn merged(before: &LinuxResources, change: &LinuxResources) -> LinuxResources {
    let mut after = before.clone();
    if let Some(new) = change.cpu() {
        let mut cpu = before.cpu().clone().unwrap_or_default();
        new.shares().map(|value| cpu.set_shares(Some(value)));
        new.quota().map(|value| cpu.set_quota(Some(value)));
        new.burst().map(|value| cpu.set_burst(Some(value)));
        new.period().map(|value| cpu.set_period(Some(value)));
        new.realtime_runtime().map(|value| cpu.set_realtime_runtime(Some(value)));
        new.realtime_period().map(|value| cpu.set_realtime_period(Some(value)));
        new.idle().map(|value| cpu.set_idle(Some(value)));
        new.cpus().clone().map(|value| cpu.set_cpus(Some(value)));
        new.mems().clone().map(|value| cpu.set_mems(Some(value)));
        after.set_cpu(Some(cpu));
    }
    if let Some(new) = change.memory() {
        let mut memory = before.memory().unwrap_or_default();
        new.limit().map(|value| memory.set_limit(Some(value)));
        new.reservation().map(|value| memory.set_reservation(Some(value)));
        new.swap().map(|value| memory.set_swap(Some(value)));
        new.swappiness().map(|value| memory.set_swappiness(Some(value)));
        after.set_memory(Some(memory));
    }
    if let Some(new) = change.hugepage_limits() {
        let mut all = before.hugepage_limits().clone().unwrap_or_default();
        all.retain(|old| new.iter().all(|new| new.page_size() != old.page_size()));
        all.extend(new.iter().cloned());
        after.set_hugepage_limits(Some(all));
    }
    if let Some(new) = change.unified() {
        let mut all = before.unified().clone().unwrap_or_default();
        all.extend(new.clone());
        after.set_unified(Some(all));
    }
    change.pids().map(|value| after.set_pids(Some(value)));
    change.block_io().clone().map(|value| after.set_block_io(Some(value)));
    change.network().clone().map(|value| after.set_network(Some(value)));
    change.devices().clone().map(|value| after.set_devices(Some(value)));
    change.rdma().clone().map(|value| after.set_rdma(Some(value)));
    after
}

/// The change that takes `change` back: each limit it gives, as it was before, or as the kernel has it. What is given by
/// the name of a file (`unified`) no agent takes, so that nothing of it is ever to be taken back.
pub(crate) fn reverse(before: &LinuxResources, change: &LinuxResources) -> LinuxResources {
    let mut back = LinuxResources::default();
    if let Some(new) = change.cpu() {
        let old = before.cpu().clone().unwrap_or_default();
        let mut cpu = LinuxCpu::default();
        cpu.set_shares(new.shares().map(|_| old.shares().unwrap_or(SHARES)));
        cpu.set_quota(new.quota().map(|_| old.quota().unwrap_or(UNLIMITED)));
        cpu.set_period(new.period().map(|_| old.period().unwrap_or(PERIOD)));
        cpu.set_burst(new.burst().map(|_| old.burst().unwrap_or(0)));
        cpu.set_idle(new.idle().map(|_| old.idle().unwrap_or(0)));
        back.set_cpu(Some(cpu));
    }
    if let Some(new) = change.memory() {
        let old = before.memory().unwrap_or_default();
        let mut memory = LinuxMemory::default();
        memory.set_limit(new.limit().map(|_| old.limit().unwrap_or(UNLIMITED)));
        memory.set_reservation(new.reservation().map(|_| old.reservation().unwrap_or(0)));
        memory.set_swap(new.swap().map(|_| old.swap().unwrap_or(UNLIMITED)));
        memory.set_swappiness(new.swappiness().map(|_| old.swappiness().unwrap_or(SWAPPINESS)));
        back.set_memory(Some(memory));
    }
    if let Some(new) = change.hugepage_limits() {
        let old = before.hugepage_limits().clone().unwrap_or_default();
        let as_before = |new: &LinuxHugepageLimit| {
            let known = old.iter().find(|old| old.page_size() == new.page_size());
            let mut limit = known.unwrap_or(new).clone();
            if known.is_none() {
                limit.set_limit(ALL_HUGE_PAGES);
            }
            limit
        };
        back.set_hugepage_limits(Some(new.iter().map(as_before).collect()));
    }
    if change.pids().is_some() {
        let mut unlimited = LinuxPids::default();
        unlimited.set_limit(UNLIMITED);
        back.set_pids(Some(before.pids().unwrap_or(unlimited)));
    }
    back
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn l39_every_limit_of_a_change_is_kept_and_the_others_stay() {
        let before =
            of(r#"{"cpu": {"shares": 2, "period": 5}, "memory": {"limit": 1}, "pids": {"limit": 3}}"#);
        let change = of(
            r#"{"cpu": {"shares": 9, "quota": 7}, "memory": {"swap": 2, "reservation": 1}, "pids": {"limit": 4}}"#,
        );
        let after = merged(&before, &change);
        let want = of(r#"{"cpu": {"shares": 9, "quota": 7, "period": 5},
            "memory": {"limit": 1, "swap": 2, "reservation": 1}, "pids": {"limit": 4}}"#);
        assert_eq!(after, want);
        assert_eq!(merged(&after, &reverse(&before, &change)).cpu().as_ref().unwrap().shares(), Some(2));
    }

    #[test]
    fn huge_pages_and_swappiness_are_taken_back_too() {
        let change = of(
            r#"{"memory": {"swappiness": 5}, "hugepageLimits": [{"pageSize": "2MB", "limit": 4}, {"pageSize": "1GB", "limit": 2}]}"#,
        );
        let before = of(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 8}]}"#);
        let back = of(
            r#"{"memory": {"swappiness": 60}, "hugepageLimits": [{"pageSize": "2MB", "limit": 8}, {"pageSize": "1GB", "limit": 9223372036854775807}]}"#,
        );
        assert_eq!(reverse(&before, &change), back);
    }

    #[test]
    fn what_was_without_limit_is_so_again() {
        let change = of(r#"{"cpu": {"quota": 7}, "memory": {"limit": 1}, "pids": {"limit": 4}}"#);
        let back = reverse(&LinuxResources::default(), &change);
        let want = of(r#"{"cpu": {"quota": -1}, "memory": {"limit": -1}, "pids": {"limit": -1}}"#);
        assert_eq!(back, want);
    }
}
