//! A hypervisor and its machines with a call that goes wrong.

use std::collections::BTreeSet;
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex, Weak};

use vc_device::{DeviceSpec, GuestLocation};
use vc_hypervisor::{
    Capabilities, ControlError, Hotplug, Hypervisor, LaunchError, Machine, MachineExit, MachineSpec,
    PlugError, Resize, ResizeError, Statistics, StopError, UnplugError,
};
use vc_types::{AgentAddress, Deadline, DeviceId, HostPath, MiB};

use super::{Fault, Faults, passed};

const REASON: &str = "fault asked for";

/// What the answer to a call that goes wrong says.
enum Wrong {
    Refused,
    /// Nothing, before the deadline.
    Unknown,
}

pub(crate) struct FaultyHypervisor<H: Hypervisor> {
    inner: H,
    faults: Faults,
    last: Mutex<Weak<H::Machine>>,
}

impl<H: Hypervisor> FaultyHypervisor<H> {
    pub(crate) fn new(inner: H, faults: &Faults) -> Self {
        Self { inner, faults: faults.clone(), last: Mutex::default() }
    }

    /// The machine that was launched last, as it is: no call goes wrong.
    pub(crate) fn machine(&self) -> Option<Arc<H::Machine>> {
        self.last.lock().unwrap().upgrade()
    }

    fn wrap(&self, machine: H::Machine) -> FaultyMachine<H::Machine> {
        let inner = Arc::new(machine);
        *self.last.lock().unwrap() = Arc::downgrade(&inner);
        FaultyMachine { inner, faults: self.faults.clone() }
    }
}

impl<H: Hypervisor> Hypervisor for FaultyHypervisor<H> {
    type Machine = FaultyMachine<H::Machine>;

    async fn launch(&self, spec: &MachineSpec, deadline: Deadline) -> Result<Self::Machine, LaunchError> {
        let late = LaunchError::Deadline { step: "waiting for the fault" };
        let launched = match self.faults.meet("launch") {
            None => self.inner.launch(spec, deadline).await,
            Some(Fault::Refuse | Fault::Vanish) => Err(LaunchError::Control(REASON.into())),
            Some(Fault::Hang | Fault::DoneLate) => {
                passed(Some(deadline)).await;
                Err(late)
            }
            Some(Fault::AnswerLate) => {
                // A launch that fails leaves nothing.
                drop(self.inner.launch(spec, deadline).await);
                passed(Some(deadline)).await;
                Err(late)
            }
        };
        launched.map(|machine| self.wrap(machine))
    }

    async fn reattach(
        &self,
        spec: &MachineSpec,
        handle: &str,
        deadline: Deadline,
    ) -> Result<Option<Self::Machine>, LaunchError> {
        let found = self.inner.reattach(spec, handle, deadline).await?;
        Ok(found.map(|machine| self.wrap(machine)))
    }

    async fn clean_up(&self, spec: &MachineSpec, deadline: Deadline) -> Result<(), StopError> {
        self.inner.clean_up(spec, deadline).await
    }
}

#[derive(Debug)]
pub(crate) struct FaultyMachine<M> {
    inner: Arc<M>,
    faults: Faults,
}

impl<M: Machine> FaultyMachine<M> {
    /// Makes a call, or has it go wrong; `wrong` makes the answer then.
    async fn pass<T, E>(
        &self,
        what: &'static str,
        deadline: Deadline,
        work: impl Future<Output = Result<T, E>> + Send,
        wrong: impl FnOnce(Wrong) -> E + Send,
    ) -> Result<T, E> {
        match self.faults.meet(what) {
            None => work.await,
            Some(Fault::Refuse) => Err(wrong(Wrong::Refused)),
            Some(Fault::Hang | Fault::DoneLate) => {
                passed(Some(deadline)).await;
                Err(wrong(Wrong::Unknown))
            }
            Some(Fault::AnswerLate) => {
                drop(work.await);
                passed(Some(deadline)).await;
                Err(wrong(Wrong::Unknown))
            }
            Some(Fault::Vanish) => {
                // What cannot be ended is found by the call that follows.
                drop(self.inner.stop(deadline).await);
                work.await
            }
        }
    }

    async fn control<T>(
        &self,
        step: &'static str,
        deadline: Deadline,
        work: impl Future<Output = Result<T, ControlError>> + Send,
    ) -> Result<T, ControlError> {
        let wrong = |answer| match answer {
            Wrong::Refused => ControlError::Refused { step, source: REASON.into() },
            Wrong::Unknown => ControlError::Unknown { step },
        };
        self.pass(step, deadline, work, wrong).await
    }

    async fn resize<T>(
        &self,
        step: &'static str,
        deadline: Deadline,
        work: impl Future<Output = Result<T, ResizeError>> + Send,
    ) -> Result<T, ResizeError> {
        let wrong = |answer| match answer {
            Wrong::Refused => ResizeError::Refused { step, source: REASON.into() },
            Wrong::Unknown => ResizeError::Unknown { step },
        };
        self.pass(step, deadline, work, wrong).await
    }

    async fn end(
        &self,
        deadline: Deadline,
        work: impl Future<Output = Result<MachineExit, StopError>> + Send,
    ) -> Result<MachineExit, StopError> {
        let wrong = |answer| match answer {
            Wrong::Refused => StopError::Leftover {
                path: HostPath::new("/fault").unwrap(),
                source: std::io::Error::other(REASON),
            },
            Wrong::Unknown => StopError::StillRunning { program: "fault", pid: 0 },
        };
        self.pass("stop the machine", deadline, work, wrong).await
    }
}

impl<M: Machine> Machine for FaultyMachine<M> {
    fn handle(&self) -> String {
        self.inner.handle()
    }

    fn let_go(&self) {
        self.inner.let_go();
    }

    fn agent_address(&self) -> &AgentAddress {
        self.inner.agent_address()
    }

    fn console_tail(&self) -> String {
        self.inner.console_tail()
    }

    async fn capabilities(&self, deadline: Deadline) -> Result<Capabilities, ControlError> {
        self.control("capabilities", deadline, self.inner.capabilities(deadline)).await
    }

    async fn statistics(&self, deadline: Deadline) -> Result<Statistics, ControlError> {
        self.control("statistics", deadline, self.inner.statistics(deadline)).await
    }

    async fn pause(&self, deadline: Deadline) -> Result<(), ControlError> {
        self.control("pause the machine", deadline, self.inner.pause(deadline)).await
    }

    async fn resume(&self, deadline: Deadline) -> Result<(), ControlError> {
        self.control("resume the machine", deadline, self.inner.resume(deadline)).await
    }

    async fn exited(&self) -> MachineExit {
        self.inner.exited().await
    }

    async fn power_down(&self, grace: Deadline, deadline: Deadline) -> Result<MachineExit, StopError> {
        self.end(deadline, self.inner.power_down(grace, deadline)).await
    }

    async fn stop(&self, deadline: Deadline) -> Result<MachineExit, StopError> {
        self.end(deadline, self.inner.stop(deadline)).await
    }
}

impl<M: Machine> Hotplug for FaultyMachine<M> {
    async fn plug(&self, spec: &DeviceSpec, deadline: Deadline) -> Result<GuestLocation, PlugError> {
        let (device, step) = (spec.id().clone(), "plug");
        let wrong = |answer| match answer {
            Wrong::Refused => PlugError::Refused { device, step, source: REASON.into() },
            Wrong::Unknown => PlugError::Unknown { device, step },
        };
        self.pass(step, deadline, self.inner.plug(spec, deadline), wrong).await
    }

    async fn plugged(&self, deadline: Deadline) -> Result<BTreeSet<DeviceId>, ControlError> {
        self.control("plugged", deadline, self.inner.plugged(deadline)).await
    }

    async fn unplug(&self, id: &DeviceId, deadline: Deadline) -> Result<(), UnplugError> {
        let (device, step) = (id.clone(), "unplug");
        let wrong = |answer| match answer {
            Wrong::Refused => UnplugError::GuestRefused { device },
            Wrong::Unknown => UnplugError::Unknown { device, step },
        };
        self.pass(step, deadline, self.inner.unplug(id, deadline), wrong).await
    }
}

impl<M: Machine> Resize for FaultyMachine<M> {
    async fn resize_vcpus(&self, wanted: NonZeroU8, deadline: Deadline) -> Result<NonZeroU8, ResizeError> {
        self.resize("resize the vCPUs", deadline, self.inner.resize_vcpus(wanted, deadline)).await
    }

    async fn resize_memory(&self, wanted: MiB, deadline: Deadline) -> Result<MiB, ResizeError> {
        self.resize("resize the memory", deadline, self.inner.resize_memory(wanted, deadline)).await
    }

    async fn grow_disk(&self, disk: &DeviceId, bytes: u64, deadline: Deadline) -> Result<(), ResizeError> {
        self.resize("grow a disk", deadline, self.inner.grow_disk(disk, bytes, deadline)).await
    }
}
