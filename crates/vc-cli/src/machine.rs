//! The machine that the options ask for.

use std::num::NonZeroU8;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use vc_container::SandboxSpec;
use vc_hypervisor::{Accelerator, MachineSpec};
use vc_qemu::{Qemu, QemuConfig};
use vc_types::{HostPath, MiB, SandboxId};

use crate::cli::Machine;
use crate::failure::Failure;
use crate::guest_image::GuestImage;
use crate::serial::text;

/// What a machine is made of: every option is decided and every path absolute, so that another process,
/// in another directory, makes the same machine of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MachinePlan {
    vcpus: NonZeroU8,
    #[serde(with = "text")]
    memory: MiB,
    #[serde(with = "text")]
    accelerator: Accelerator,
    kernel: PathBuf,
    initrd: PathBuf,
    qemu: PathBuf,
    vsock_program: PathBuf,
}

impl MachinePlan {
    /// Decides what `options` leave open.
    pub(crate) fn from_options(options: &Machine) -> Result<Self, Failure> {
        let image = GuestImage::locate(options)?;
        Ok(Self {
            vcpus: options.cpus,
            memory: options.memory,
            accelerator: options.accel,
            kernel: image.kernel.as_path().to_owned(),
            initrd: image.initrd.as_path().to_owned(),
            qemu: options.qemu.clone(),
            vsock_program: options.vsock_program.clone(),
        })
    }

    /// The hypervisor that makes the machine.
    pub(crate) fn hypervisor(&self) -> Qemu {
        Qemu::new(QemuConfig {
            program: self.qemu.clone(),
            vsock_program: self.vsock_program.clone(),
            ..QemuConfig::default()
        })
    }

    /// The sandbox called `name`, whose files are below `dir`.
    pub(crate) fn sandbox(&self, name: &SandboxId, dir: HostPath) -> Result<SandboxSpec, Failure> {
        let path = |path: &PathBuf| {
            HostPath::new(path).map_err(|error| Failure::step(format!("use {}", path.display()), error))
        };
        let mut machine = MachineSpec::new(name.clone(), path(&self.kernel)?, path(&self.initrd)?, dir);
        machine.vcpus = self.vcpus;
        machine.memory = self.memory;
        machine.accelerator = self.accelerator;
        Ok(SandboxSpec { hostname: "vc".into(), ..SandboxSpec::new(machine) })
    }
}
