//! GetOOMEvent: which containers ran out of memory.

use crate::sys::watch_descriptor;
use nix::sys::uio::pread;
use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::Interest;
use tokio::sync::Notify;
use vc_types::ContainerId;

/// Events that nobody asked for; of more, the oldest are forgotten.
const MAX_EVENTS: usize = 1024;

/// Containers that ran out of memory and that the host has not heard of yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct OomEvents(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    waiting: Mutex<VecDeque<ContainerId>>,
    news: Notify,
}

impl OomEvents {
    /// Watches `events`, the file `memory.events` of the container's cgroup, until the cgroup is removed.
    ///
    /// # Errors
    /// The error of opening the file.
    pub(crate) fn watch(&self, id: ContainerId, events: &Path) -> std::io::Result<()> {
        let events = watch_descriptor(File::open(events)?.into(), Interest::PRIORITY)?;
        let all = self.clone();
        tokio::spawn(async move {
            let mut before = 0;
            let mut buffer = [0; 1024];
            // Reading is what arms the next event; a removed cgroup answers ENODEV.
            while let Ok(length) = pread(events.get_ref(), &mut buffer, 0) {
                let now = kills(&String::from_utf8_lossy(&buffer[..length]));
                if now > before {
                    tracing::info!(container = %id, "out of memory");
                    all.push(id.clone());
                }
                before = now;
                let Ok(mut ready) = events.ready(Interest::PRIORITY).await else { return };
                ready.clear_ready();
            }
        });
        Ok(())
    }

    /// The next container that ran out of memory.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub(crate) async fn next(&self) -> ContainerId {
        loop {
            let news = self.0.news.notified();
            if let Some(id) = self.lock().pop_front() {
                return id;
            }
            news.await;
        }
    }

    fn push(&self, id: ContainerId) {
        let mut waiting = self.lock();
        if waiting.len() >= MAX_EVENTS {
            waiting.pop_front();
        }
        waiting.push_back(id);
        // Kept for one who asks later, and passed on by none who goes away.
        self.0.news.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<ContainerId>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many processes of the cgroup the kernel has killed: the line `oom_kill` (cgroup-v2.rst).
fn kills(events: &str) -> u64 {
    let line = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn kills_are_told_from_other_events() {
        assert_eq!(kills("low 0\nhigh 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 0\n"), 2);
        assert_eq!(kills(""), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_told_once_and_outlives_those_who_do_not_wait_for_it() {
        let events = OomEvents::default();
        let id = |text: &str| text.parse::<ContainerId>().unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(1), events.next()).await.is_err());
        events.push(id("a"));
        events.push(id("b"));
        assert_eq!((events.next().await, events.next().await), (id("a"), id("b")));
        assert!(tokio::time::timeout(Duration::from_secs(1), events.next()).await.is_err());
        let waiter = tokio::spawn({
            let events = events.clone();
            async move { events.next().await }
        });
        tokio::task::yield_now().await;
        events.push(id("c"));
        assert_eq!(waiter.await.unwrap(), id("c"));
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten() {
        let events = OomEvents::default();
        for n in 0..=MAX_EVENTS {
            events.push(n.to_string().parse().unwrap());
        }
        assert_eq!(events.lock().len(), MAX_EVENTS);
        assert_eq!(events.lock()[0].as_str(), "1");
    }
}
