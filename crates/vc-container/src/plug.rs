//! Plugging what a container needs into the machine.

use vc_device::{AttachStep, DeviceRequest, DeviceSpec, GuestLocation, PlannedFunction};
use vc_hypervisor::{Machine, PlugError};
use vc_storage::{DiskPlan, DiskPlug, OpenError, OpenImages};
use vc_types::{ContainerId, DeviceId};

use crate::devices::{DeviceUse, Devices};
use crate::error::{Cause, OperationError, Step};
use crate::passing;
use crate::timing::Budget;
use crate::undo::{Held, Undo};

/// The machine, and for whom it gets devices.
pub(crate) struct Plugs<'a, M> {
    pub(crate) machine: &'a M,
    pub(crate) devices: &'a Devices,
    pub(crate) container: &'a ContainerId,
    pub(crate) budget: Budget,
}

/// What is to be plugged.
enum Wanted<'a> {
    Disk(&'a DiskPlan, &'a OpenImages),
    Function(&'a PlannedFunction),
}

impl<M: Machine> Plugs<'_, M> {
    /// Plugs the disks of a plan, in their order. What is held of them is in `undo`, also on an error.
    pub(crate) async fn disks(
        &self,
        (planned, images): (&[DiskPlan], &OpenImages),
        undo: &mut Undo,
    ) -> Result<Vec<DiskPlug>, OperationError> {
        let mut plugged = Vec::new();
        for disk in planned {
            let (id, location) = self.plug(&Wanted::Disk(disk, images), undo).await?;
            plugged.push(DiskPlug { id, location });
        }
        Ok(plugged)
    }

    /// Plugs devices of the host, in their order; gives where the guest finds each.
    pub(crate) async fn functions(
        &self,
        planned: &[PlannedFunction],
        undo: &mut Undo,
    ) -> Result<Vec<GuestLocation>, OperationError> {
        let mut plugged = Vec::new();
        for function in planned {
            plugged.push(self.plug(&Wanted::Function(function), undo).await?.1);
        }
        Ok(plugged)
    }

    async fn plug(
        &self,
        wanted: &Wanted<'_>,
        undo: &mut Undo,
    ) -> Result<(DeviceId, GuestLocation), OperationError> {
        let attaching = |cause: Cause| OperationError::new(Step::Attach(self.container.clone()), cause);
        let request = wanted.request().map_err(attaching)?;
        let attached = self.devices.attach(&request, self.container, self.budget).await;
        let attached = attached.map_err(|error| attaching(Box::new(error).into()))?;
        let device = attached.device.clone();
        // Before the call: when it times out, the device may be plugged all the same.
        undo.push(Held::Device(DeviceUse::Used(attached.handle)));
        if let AttachStep::Ready(location) = attached.step {
            return Ok((device, location));
        }
        let failed = |cause: Cause| OperationError::new(wanted.step(device.clone()), cause);
        match self.plug_new(wanted, &device).await {
            Ok(location) => {
                let known = self.devices.plugged(&device, location.clone());
                known.map_err(|error| failed(Box::new(error).into()))?;
                Ok((device, location))
            }
            Err(cause @ Cause::Plug(PlugError::Unknown { .. })) => Err(failed(cause)),
            // Nothing of it is in the machine.
            Err(cause) => {
                if let Some(Held::Device(DeviceUse::Used(handle))) = undo.pop() {
                    self.devices.plug_failed(handle);
                }
                Err(failed(cause))
            }
        }
    }

    async fn plug_new(&self, wanted: &Wanted<'_>, device: &DeviceId) -> Result<GuestLocation, Cause> {
        let spec = wanted.spec(device)?;
        Ok(self.machine.plug(&spec, self.budget.deadline()).await?)
    }
}

impl Wanted<'_> {
    fn request(&self) -> Result<DeviceRequest, Cause> {
        match self {
            Self::Disk(disk, _) => disk.request().map_err(|_| Cause::Open(OpenError::NoDisk)),
            Self::Function(planned) => Ok(passing::request(planned)),
        }
    }

    fn spec(&self, device: &DeviceId) -> Result<DeviceSpec, Cause> {
        match self {
            Self::Disk(disk, images) => {
                let serial = device.as_str().parse().expect("short and plain");
                Ok(images.device(disk, device.clone(), Some(serial))?)
            }
            Self::Function(planned) => Ok(passing::spec(planned, device.clone())?),
        }
    }

    fn step(&self, device: DeviceId) -> Step {
        match self {
            Self::Disk(disk, _) => Step::Plug { device, layers: disk.paths() },
            Self::Function(planned) => Step::Pass { device, function: planned.member.function() },
        }
    }
}
