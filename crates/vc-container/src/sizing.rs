//! How large the machine has to be for its containers, and growing it.
//!
//! The machine has what it was launched with, and on top what the containers' limits add up to: their CPU
//! quotas (or, if none has one, the CPUs that their sets name), their memory and huge pages. It grows as
//! far as it was launched for; containers get no more than it has, and what it has is published. What it
//! has grown to it keeps when a container stops: the next one needs it again.

mod cpuset;

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use tokio::sync::{Semaphore, watch};
use vc_agent::{Agent, Online};
use vc_hypervisor::{Machine, MachineSpec, MemoryGrowth};
use vc_types::{ContainerId, MiB};

use crate::error::Cause;
use crate::guest::Guest;
use crate::timing::Budget;

pub use cpuset::InvalidCpuSet;

/// What a machine has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// vCPUs.
    pub vcpus: NonZeroU8,
    /// Memory.
    pub memory: MiB,
}

/// Why nobody can tell how large the machine has to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// A CPU set that is none.
    #[error(transparent)]
    CpuSet(#[from] InvalidCpuSet),
    /// The change before has not ended in time.
    #[error("the machine is still being resized for another container")]
    Busy,
}

/// The size of a machine, and who needs what of it.
#[derive(Debug)]
pub(crate) struct Sizing {
    least: Size,
    most: Size,
    /// Its one permit is with whoever resizes the machine.
    turn: Semaphore,
    claims: Mutex<Claims>,
    now: watch::Sender<Option<Size>>,
}

#[derive(Debug)]
struct Claims {
    by: BTreeMap<ContainerId, LinuxResources>,
    now: Size,
}

impl Sizing {
    pub(crate) fn new(spec: &MachineSpec) -> Self {
        let least = Size { vcpus: spec.vcpus, memory: spec.memory };
        let most = match spec.memory_growth {
            MemoryGrowth::None => spec.memory,
            MemoryGrowth::Dimms { most } | MemoryGrowth::VirtioMem { most } => most.max(spec.memory),
        };
        let most = Size { vcpus: spec.max_vcpus.max(spec.vcpus), memory: most };
        let claims = Claims { by: BTreeMap::new(), now: least };
        Self { least, most, turn: Semaphore::new(1), claims: Mutex::new(claims), now: watch::channel(None).0 }
    }

    /// What the machine has, once that was changed.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Size>> {
        self.now.subscribe()
    }

    /// Grows the machine for what `id` needs now. On an error the machine may have grown, but not the claim.
    pub(crate) async fn claim<M: Machine, A: Agent>(
        &self,
        guest: &Guest<M, A>,
        id: &ContainerId,
        resources: LinuxResources,
        budget: Budget,
    ) -> Result<(), Cause> {
        let turn = tokio::time::timeout(budget.remaining(), self.turn.acquire()).await;
        let _turn = turn.map_err(|_| SizeError::Busy)?.expect("nobody closes it");
        let (now, wanted) = {
            let claims = self.claims();
            let others = claims.by.iter().filter(|(other, _)| *other != id).map(|(_, claim)| claim);
            (claims.now, wanted(self.least, others.chain([&resources]))?.at_most(self.most))
        };
        if let Some(now) = grow(guest, now, wanted, budget).await? {
            self.claims().now = now;
            self.now.send_replace(Some(now));
        }
        self.claims().by.insert(id.clone(), resources);
        Ok(())
    }

    /// What the machine has.
    pub(crate) fn now(&self) -> Size {
        self.claims().now
    }

    /// Forgets what a container needs.
    pub(crate) fn release(&self, id: &ContainerId) {
        self.claims().by.remove(id);
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().expect("nothing panics while it holds the claims")
    }
}

impl Size {
    fn at_most(self, most: Self) -> Self {
        Self { vcpus: self.vcpus.min(most.vcpus), memory: self.memory.min(most.memory) }
    }
}

/// Gives the machine what it lacks, and has the guest take it into use; none when it lacks nothing.
async fn grow<M: Machine, A: Agent>(
    guest: &Guest<M, A>,
    now: Size,
    wanted: Size,
    budget: Budget,
) -> Result<Option<Size>, Cause> {
    let mut grown = now;
    if wanted.vcpus > now.vcpus {
        grown.vcpus = guest.machine.resize_vcpus(wanted.vcpus, budget.deadline()).await?;
    }
    if wanted.memory > now.memory {
        grown.memory = guest.machine.resize_memory(wanted.memory, budget.deadline()).await?;
    }
    if grown == now {
        return Ok(None);
    }
    let cpus = u32::from(grown.vcpus.get().saturating_sub(now.vcpus.get()));
    let online = Online { cpus, memory: grown.memory > now.memory, wait: true };
    guest.ask(guest.agent.online(online, budget.deadline())).await?;
    Ok(Some(grown))
}

/// The size for containers with these limits.
fn wanted<'a>(
    least: Size,
    claims: impl Iterator<Item = &'a LinuxResources> + Clone,
) -> Result<Size, SizeError> {
    let mut sets = cpuset::CpuSet::default();
    for cpus in claims.clone().filter_map(|claim| claim.cpu().as_ref()?.cpus().as_ref()) {
        sets.add(cpus)?;
    }
    let quotas = claims.clone().filter_map(processor_time).fold(Duration::ZERO, Duration::saturating_add);
    let cpus = if quotas.is_zero() { sets.len() } else { quotas.as_nanos().div_ceil(1_000_000_000) };
    let vcpus = u128::from(least.vcpus.get()).saturating_add(cpus);
    let vcpus = NonZeroU8::new(u8::try_from(vcpus).unwrap_or(u8::MAX)).unwrap_or(NonZeroU8::MAX);
    let bytes = claims.flat_map(memory).fold(least.memory.bytes(), u64::saturating_add);
    let memory = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
    Ok(Size { vcpus, memory: MiB::new(memory).unwrap_or(least.memory) })
}

/// How much processor time the limits give in a second.
fn processor_time(resources: &LinuxResources) -> Option<Duration> {
    let cpu = resources.cpu().as_ref()?;
    let quota = u64::try_from(cpu.quota()?).ok().filter(|quota| *quota > 0)?;
    // What the kernel has when no period is given (cgroup v2, `cpu.max`), in microseconds.
    let period = cpu.period().filter(|period| *period > 0).unwrap_or(100_000);
    let nanos = u128::from(quota) * 1_000_000_000 / u128::from(period);
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// The limits of memory and huge pages, in bytes.
fn memory(resources: &LinuxResources) -> impl Iterator<Item = u64> {
    let limit = resources.memory().as_ref().and_then(|memory| memory.limit());
    let huge = resources.hugepage_limits().iter().flatten().map(|huge| huge.limit());
    limit.into_iter().chain(huge).filter_map(|limit| u64::try_from(limit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(vcpus: u8, memory: u32) -> Size {
        Size { vcpus: NonZeroU8::new(vcpus).unwrap(), memory: MiB::new(memory).unwrap() }
    }

    fn of(claims: &[&str]) -> Result<Size, SizeError> {
        let claims: Vec<LinuxResources> =
            claims.iter().map(|json| serde_json::from_str(json).unwrap()).collect();
        wanted(size(1, 256), claims.iter())
    }

    #[test]
    fn limits_add_up_to_the_size() {
        assert_eq!(of(&[]), Ok(size(1, 256)));
        let half = r#"{"cpu": {"quota": 50000, "period": 100000}, "memory": {"limit": 67108864}}"#;
        assert_eq!(of(&[half]), Ok(size(2, 320)));
        assert_eq!(of(&[half, half]), Ok(size(2, 384)), "two halves are one");
        assert_eq!(of(&[half, half, half]), Ok(size(3, 448)));
        assert_eq!(of(&[r#"{"cpu": {"quota": -1}, "memory": {"limit": -1}}"#]), Ok(size(1, 256)));
    }

    #[test]
    fn cpu_sets_count_when_nobody_has_a_quota_and_no_cpu_counts_twice() {
        let set = |cpus: &str| format!(r#"{{"cpu": {{"cpus": "{cpus}"}}}}"#);
        assert_eq!(of(&[&set("0-1"), &set("1,3")]), Ok(size(4, 256)));
        assert_eq!(of(&[&set("0-7"), r#"{"cpu": {"quota": 100000}}"#]), Ok(size(2, 256)));
    }

    #[test]
    fn l43_a_bad_cpu_set_is_an_error_and_huge_pages_count_without_a_memory_limit() {
        assert!(matches!(of(&[r#"{"cpu": {"cpus": "0-x"}}"#]), Err(SizeError::CpuSet(_))));
        let huge = r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#;
        assert_eq!(of(&[huge]), Ok(size(1, 260)));
    }

    #[test]
    fn what_nobody_can_have_is_no_overflow() {
        let most = format!(
            r#"{{"cpu": {{"quota": {}, "period": 1}}, "memory": {{"limit": {}}}}}"#,
            i64::MAX,
            i64::MAX
        );
        let all = of(&[&most, &most, &most]).unwrap();
        assert_eq!((all.vcpus.get(), all.memory.get()), (u8::MAX, u32::MAX));
    }
}
