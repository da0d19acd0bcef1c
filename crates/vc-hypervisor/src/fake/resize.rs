//! The size of a fake machine.

use std::num::NonZeroU8;

use vc_types::{Deadline, DeviceId, MiB};

use super::FakeMachine;
use crate::{ControlError, Resize, ResizeError};

impl Resize for FakeMachine {
    async fn resize_vcpus(&self, wanted: NonZeroU8, deadline: Deadline) -> Result<NonZeroU8, ResizeError> {
        self.controlled("change the vCPUs", deadline).await.map_err(resize_error)?;
        let mut size = self.size();
        if wanted > size.most_vcpus {
            return Err(ResizeError::TooManyVcpus { most: size.most_vcpus.get() });
        }
        if wanted < size.least_vcpus {
            return Err(ResizeError::TooLittle { least: format!("{} vCPUs", size.least_vcpus) });
        }
        size.vcpus = wanted;
        Ok(wanted)
    }

    async fn resize_memory(&self, wanted: MiB, deadline: Deadline) -> Result<MiB, ResizeError> {
        self.controlled("change the memory", deadline).await.map_err(resize_error)?;
        let mut size = self.size();
        if wanted > size.most_memory {
            return Err(ResizeError::TooMuchMemory { most: size.most_memory });
        }
        if wanted < size.least_memory {
            return Err(ResizeError::TooLittle { least: size.least_memory.to_string() });
        }
        size.memory = wanted;
        Ok(wanted)
    }

    async fn grow_disk(&self, disk: &DeviceId, bytes: u64, deadline: Deadline) -> Result<(), ResizeError> {
        self.controlled("grow a disk", deadline).await.map_err(resize_error)?;
        let mut disks = self.running.disks();
        let size = disks.get_mut(disk).ok_or_else(|| ResizeError::NoDisk { device: disk.clone() })?;
        if bytes < *size {
            return Err(ResizeError::TooLittle { least: format!("{size} bytes of {disk}") });
        }
        *size = bytes;
        Ok(())
    }
}

fn resize_error(error: ControlError) -> ResizeError {
    match error {
        ControlError::Refused { step, source } => ResizeError::Refused { step, source },
        ControlError::Unknown { step } => ResizeError::Unknown { step },
        ControlError::MachineGone { exit, .. } => ResizeError::MachineGone { exit },
    }
}
