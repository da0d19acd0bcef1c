//! Who waits for which event.
//!
//! A waiter is registered before the command is sent that brings the event about, so that no event
//! comes unheard. Sources: QEMU's `qapi/qdev.json`, `qapi/run-state.json`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::Value;
use tokio::sync::oneshot;
use vc_types::DeviceId;

/// What became of an unplug request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UnplugOutcome {
    /// QEMU has let go of the device.
    Gone,
    /// The guest refused.
    Refused,
}

/// Looks at an event's name and data; `true` when it need not be called again.
type Waiter = Box<dyn FnMut(&str, &Value) -> bool + Send>;

/// The waiters.
#[derive(Clone, Default)]
pub(crate) struct Events(Arc<Mutex<Vec<Waiter>>>);

impl Events {
    /// Resolves with what `pick` makes of the first event that it is for.
    pub(crate) fn expect<T: Send + 'static>(
        &self,
        mut pick: impl FnMut(&str, &Value) -> Option<T> + Send + 'static,
    ) -> oneshot::Receiver<T> {
        let (sender, receiver) = oneshot::channel();
        let mut sender = Some(sender);
        let waiter: Waiter = Box::new(move |name, data| {
            if sender.as_ref().is_none_or(oneshot::Sender::is_closed) {
                return true;
            }
            let Some(picked) = pick(name, data) else { return false };
            // Whoever gave up has dropped the other end.
            sender.take().map(|sender| sender.send(picked));
            true
        });
        // No event has an empty name: this only drops those who have given up.
        self.hear("", &Value::Null);
        self.waiting().push(waiter);
        receiver
    }

    /// Resolves when QEMU has let go of `device`, or the guest refused.
    ///
    /// QEMU sends DEVICE_DELETED twice for a virtio device: once for the backend, which has only a
    /// path, and once with the device's id, which counts.
    pub(super) fn expect_unplug(&self, device: &DeviceId) -> oneshot::Receiver<UnplugOutcome> {
        let device = device.clone();
        self.expect(move |name, data| {
            let outcome = match name {
                "DEVICE_DELETED" => UnplugOutcome::Gone,
                "DEVICE_UNPLUG_GUEST_ERROR" => UnplugOutcome::Refused,
                _ => return None,
            };
            (data.get("device").and_then(Value::as_str) == Some(device.as_str())).then_some(outcome)
        })
    }

    /// Shows an event to every waiter.
    pub(super) fn hear(&self, name: &str, data: &Value) {
        self.waiting().retain_mut(|waiter| !waiter(name, data));
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiter>> {
        self.0.lock().expect("nothing panics while it holds the waiters")
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({} waiting)", self.waiting().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_gave_up_is_forgotten() {
        let events = Events::default();
        for _ in 0..100 {
            drop(events.expect_unplug(&"b0".parse().unwrap()));
        }
        let kept = events.expect_unplug(&"b0".parse().unwrap());
        assert_eq!(events.waiting().len(), 1);
        drop(kept);
    }
}
