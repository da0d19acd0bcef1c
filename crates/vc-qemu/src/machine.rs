//! A running QEMU.

use std::collections::BTreeSet;
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, OnceCell, Semaphore, watch};
use vc_device::{DeviceSpec, GuestLocation};
use vc_hypervisor::{
    Capabilities, ControlError, Hotplug, Machine, MachineExit, MachineSpec, PlugError, Resize, ResizeError,
    Statistics, StopError, UnplugError,
};
use vc_types::{AgentAddress, Deadline, DeviceId, MiB};

use crate::accelerator::Chosen;
use crate::devices::Devices;
#[cfg(test)]
use crate::devices::DevicesRecord;
use crate::launch::Connected;
use crate::process::Process;
use crate::qmp::Qmp;
use crate::resize::Limits;
use crate::sockets::Sockets;
use crate::tail::Tail;
use crate::vsock::Vsock;
use crate::{control, end, plug, reattach, resize, statistics};

/// The name that errors give QEMU.
pub(crate) const QEMU: &str = "QEMU";

/// A machine that QEMU runs. Dropping it kills QEMU and its helper.
#[derive(Debug)]
pub struct QemuMachine {
    shared: Arc<Shared>,
    address: AgentAddress,
    is_let_go: AtomicBool,
}

/// What a machine's tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) qmp: Qmp,
    pub(crate) next_fdset: AtomicI64,
    pub(crate) qemu: Process,
    pub(crate) vsock: Vsock,
    pub(crate) console: Tail,
    pub(crate) accelerator: Chosen,
    pub(crate) capabilities: OnceCell<Capabilities>,
    /// How far it can be resized.
    pub(crate) limits: Limits,
    /// Held by whoever resizes it.
    pub(crate) resizing: Semaphore,
    /// Those that QEMU listens on for its next owner; none if it has no next.
    pub(crate) sockets: Sockets,
    /// Told when the machine is let go.
    pub(crate) let_go: Notify,
    devices: Mutex<Devices>,
    exit: watch::Receiver<Option<MachineExit>>,
}

impl Shared {
    pub(crate) fn devices(&self) -> MutexGuard<'_, Devices> {
        self.devices.lock().expect("nothing panics while it holds the devices")
    }

    /// How the machine ended, if it has.
    pub(crate) fn ended(&self) -> Option<MachineExit> {
        self.exit.borrow().clone()
    }

    /// Waits for the machine's end. All callers are told the same.
    pub(crate) async fn exited(&self) -> MachineExit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(known) => known.clone().expect("waited until it is some"),
            // The task that watches has ended with the runtime.
            Err(_) => end::lost(self),
        }
    }
}

impl QemuMachine {
    pub(crate) fn new(connected: Connected, spec: &MachineSpec, devices: Devices) -> Self {
        let Connected { qemu, qmp, console, listening, vsock, accelerator, sockets } = connected;
        let address = vsock.transport.agent_address();
        let (sender, exit) = watch::channel(None);
        let shared = Arc::new(Shared {
            qmp,
            next_fdset: AtomicI64::new(devices.first_fdset()),
            qemu,
            vsock,
            console,
            accelerator,
            capabilities: OnceCell::new(),
            limits: Limits::of(spec),
            resizing: Semaphore::new(1),
            sockets,
            let_go: Notify::new(),
            devices: Mutex::new(devices),
            exit,
        });
        tokio::spawn(end::watch(shared.clone(), listening, sender));
        Self { shared, address, is_let_go: AtomicBool::new(false) }
    }
}

#[cfg(test)]
impl QemuMachine {
    /// The devices that hold a port.
    pub(crate) fn devices(&self) -> BTreeSet<DeviceId> {
        self.shared.devices().names()
    }

    /// What its handle says of its devices.
    pub(crate) fn record(&self) -> DevicesRecord {
        self.shared.devices().record(self.shared.next_fdset.load(Ordering::Relaxed))
    }
}

impl Drop for QemuMachine {
    fn drop(&mut self) {
        if self.is_let_go.load(Ordering::Relaxed) {
            return;
        }
        // Tasks still hold it; they end because the processes do.
        self.shared.qemu.kill();
        self.shared.vsock.abandon();
        self.shared.sockets.remove().unwrap_or_else(|error| tracing::warn!(%error, "a file is left"));
    }
}

impl Machine for QemuMachine {
    fn handle(&self) -> String {
        reattach::handle(&self.shared)
    }

    fn let_go(&self) {
        self.is_let_go.store(true, Ordering::Relaxed);
        self.shared.qemu.let_go();
        self.shared.vsock.let_go();
        self.shared.sockets.let_go();
        self.shared.let_go.notify_one();
    }

    fn agent_address(&self) -> &AgentAddress {
        &self.address
    }

    fn console_tail(&self) -> String {
        self.shared.console.text()
    }

    async fn capabilities(&self, deadline: Deadline) -> Result<Capabilities, ControlError> {
        control::capabilities(&self.shared, deadline).await
    }

    async fn statistics(&self, deadline: Deadline) -> Result<Statistics, ControlError> {
        statistics::statistics(&self.shared, deadline).await
    }

    async fn pause(&self, deadline: Deadline) -> Result<(), ControlError> {
        control::pause(&self.shared, deadline).await
    }

    async fn resume(&self, deadline: Deadline) -> Result<(), ControlError> {
        control::resume(&self.shared, deadline).await
    }

    async fn exited(&self) -> MachineExit {
        self.shared.exited().await
    }

    async fn power_down(&self, grace: Deadline, deadline: Deadline) -> Result<MachineExit, StopError> {
        end::press_power_button(&self.shared, grace).await;
        self.stop(deadline).await
    }

    async fn stop(&self, deadline: Deadline) -> Result<MachineExit, StopError> {
        let work = end::stop(self.shared.clone(), deadline);
        // A task of its own, so that the machine ends even if the caller leaves.
        tokio::spawn(work).await.expect("stopping does not panic and is not aborted")
    }
}

impl Hotplug for QemuMachine {
    async fn plug(&self, spec: &DeviceSpec, deadline: Deadline) -> Result<GuestLocation, PlugError> {
        let work = plug::plug(self.shared.clone(), spec.clone(), deadline);
        // A task of its own, so that a caller who leaves cannot leave half a plug behind.
        tokio::spawn(work).await.expect("plugging does not panic and is not aborted")
    }

    async fn plugged(&self, deadline: Deadline) -> Result<BTreeSet<DeviceId>, ControlError> {
        control::plugged(&self.shared, deadline).await
    }

    async fn unplug(&self, id: &DeviceId, deadline: Deadline) -> Result<(), UnplugError> {
        let work = plug::unplug(self.shared.clone(), id.clone(), deadline);
        tokio::spawn(work).await.expect("unplugging does not panic and is not aborted")
    }
}

impl Resize for QemuMachine {
    async fn resize_vcpus(&self, wanted: NonZeroU8, deadline: Deadline) -> Result<NonZeroU8, ResizeError> {
        let work = resize::vcpus(self.shared.clone(), wanted, deadline);
        tokio::spawn(work).await.expect("resizing does not panic and is not aborted")
    }

    async fn resize_memory(&self, wanted: MiB, deadline: Deadline) -> Result<MiB, ResizeError> {
        let work = resize::memory(self.shared.clone(), wanted, deadline);
        tokio::spawn(work).await.expect("resizing does not panic and is not aborted")
    }

    async fn grow_disk(&self, disk: &DeviceId, bytes: u64, deadline: Deadline) -> Result<(), ResizeError> {
        let work = resize::disk(self.shared.clone(), disk.clone(), bytes, deadline);
        tokio::spawn(work).await.expect("resizing does not panic and is not aborted")
    }
}
