//! Who waits for which device to go.

use std::collections::HashMap;
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

/// The waiters, by device.
#[derive(Clone, Debug, Default)]
pub(super) struct Unplugs {
    waiting: Arc<Mutex<HashMap<String, Vec<oneshot::Sender<UnplugOutcome>>>>>,
}

impl Unplugs {
    pub(super) fn expect(&self, device: &DeviceId) -> oneshot::Receiver<UnplugOutcome> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        let waiters = waiting.entry(device.to_string()).or_default();
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(sender);
        receiver
    }

    /// Tells the waiters of the device that `event` is about, if it is about one.
    ///
    /// QEMU sends DEVICE_DELETED twice for a virtio device: once for the backend, which has only a
    /// path, and once with the device's id, which counts.
    pub(super) fn hear(&self, event: &str, data: Option<&Value>) {
        let outcome = match event {
            "DEVICE_DELETED" => UnplugOutcome::Gone,
            "DEVICE_UNPLUG_GUEST_ERROR" => UnplugOutcome::Refused,
            _ => return,
        };
        let Some(device) = data.and_then(|data| data.get("device")).and_then(Value::as_str) else { return };
        for waiter in self.waiting().remove(device).into_iter().flatten() {
            // Whoever gave up has dropped the other end.
            let _ = waiter.send(outcome);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Vec<oneshot::Sender<UnplugOutcome>>>> {
        self.waiting.lock().expect("nothing panics while it holds the waiters")
    }
}
