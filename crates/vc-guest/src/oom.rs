//! Containers whose processes the kernel killed for want of memory, for GetOOMEvent.

use crate::cgroup::Cgroup;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use vc_types::ContainerId;

/// How many events nobody asked for are kept; then the oldest go.
const MAX_KEPT: usize = 1024;

/// The events that no call has returned yet, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct OomKills(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    events: Mutex<VecDeque<ContainerId>>,
    more: Notify,
}

impl OomKills {
    /// The next container that lost a process. Each event is returned once, to one caller.
    ///
    /// # Cancel safety
    /// An event is taken only by a call that returns it.
    pub(crate) async fn next(&self) -> ContainerId {
        loop {
            let more = self.0.more.notified();
            if let Some(container) = self.events().pop_front() {
                return container;
            }
            more.await;
        }
    }

    /// Reports the kills in `cgroup`, which is that of `container`, until it is gone.
    pub(crate) async fn watch(self, container: ContainerId, cgroup: Cgroup) {
        let mut known = 0;
        while let Some(kills) = cgroup.next_oom_kill(known).await {
            known = kills;
            self.add(container.clone());
        }
    }

    fn add(&self, container: ContainerId) {
        let mut events = self.events();
        if events.len() == MAX_KEPT {
            events.pop_front();
        }
        events.push_back(container);
        drop(events);
        self.0.more.notify_one();
    }

    fn events(&self) -> std::sync::MutexGuard<'_, VecDeque<ContainerId>> {
        self.0.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn each_event_goes_to_one_caller_in_order_and_early_ones_wait() {
        let kills = OomKills::default();
        for name in ["a", "b"] {
            kills.add(name.parse().unwrap());
        }
        assert_eq!(kills.next().await.as_str(), "a");
        assert_eq!(kills.next().await.as_str(), "b");
        let waiting = tokio::spawn({
            let kills = kills.clone();
            async move { kills.next().await }
        });
        tokio::task::yield_now().await;
        kills.add("c".parse().unwrap());
        let event = tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
        assert_eq!(event.unwrap().as_str(), "c");
    }

    #[tokio::test]
    async fn events_that_nobody_asks_for_are_bounded() {
        let kills = OomKills::default();
        for _ in 0..2 * MAX_KEPT {
            kills.add("a".parse().unwrap());
        }
        assert_eq!(kills.events().len(), MAX_KEPT);
    }
}
