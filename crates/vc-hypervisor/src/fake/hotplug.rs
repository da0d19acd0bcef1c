//! The devices of a fake machine.

use std::collections::BTreeSet;

use vc_device::{DeviceSpec, GuestLocation, PortWish};
use vc_types::{Deadline, DeviceId};

use super::{FakeMachine, Fault};
use crate::{ControlError, Hotplug, PlugError, UnplugError};

impl Hotplug for FakeMachine {
    async fn plug(&self, spec: &DeviceSpec, deadline: Deadline) -> Result<GuestLocation, PlugError> {
        let device = spec.id().clone();
        let fault = self.hypervisor.call();
        if fault == Some(Fault::Die) {
            self.die();
        }
        if let Some(exit) = self.gone() {
            return Err(PlugError::MachineGone { device, exit });
        }
        if fault == Some(Fault::Fail) {
            let source = "fault asked for".into();
            return Err(PlugError::Refused { device, step: "plug", source });
        }
        let taken = match spec.port_wish() {
            PortWish::Disk => self.topology().take_for_disk(&device),
            PortWish::Port(kind) => self.topology().take(&device, kind),
            PortWish::Nothing => {
                return Err(PlugError::Unsupported { device, reason: "the fake has no such devices" });
            }
        };
        let place = taken.map_err(|source| PlugError::Port { device: device.clone(), source })?;
        if fault == Some(Fault::Hang) {
            tokio::time::sleep(deadline.remaining()).await;
            return Err(PlugError::Unknown { device, step: "plug" });
        }
        if let DeviceSpec::Block(block) = spec {
            // Of a device it is not this, and nobody asks.
            let bytes = block.image.metadata().map_or(0, |image| image.len());
            self.running.disks().insert(device, bytes);
        }
        Ok(place.guest_location())
    }

    async fn plugged(&self, deadline: Deadline) -> Result<BTreeSet<DeviceId>, ControlError> {
        self.controlled("tell its devices", deadline).await?;
        Ok(self.running.devices().into_iter().collect())
    }

    async fn unplug(&self, id: &DeviceId, deadline: Deadline) -> Result<(), UnplugError> {
        let device = id.clone();
        let fault = self.hypervisor.call();
        if fault == Some(Fault::Die) {
            self.die();
        }
        if let Some(exit) = self.gone() {
            return Err(UnplugError::MachineGone { device, exit });
        }
        match fault {
            Some(Fault::Fail) => return Err(UnplugError::GuestRefused { device }),
            Some(Fault::Hang) => {
                tokio::time::sleep(deadline.remaining()).await;
                return Err(UnplugError::GuestHoldsOn { device });
            }
            Some(Fault::Die) | None => {}
        }
        let given = self.topology().give_back(id);
        given.map_err(|source| UnplugError::NotPlugged { device, source })?;
        self.running.disks().remove(id);
        Ok(())
    }
}
