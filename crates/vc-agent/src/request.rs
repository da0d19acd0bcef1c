//! What the agent is told when a sandbox, a container or a process is to be.

use oci_spec::runtime::{Process, Spec};
use vc_types::{ContainerId, ExecId, GuestPath, SandboxId};

use crate::{ProcessRef, Storage};

/// Prepares the guest for containers.
#[derive(Clone, Debug)]
pub struct CreateSandbox {
    /// The sandbox's id.
    pub id: SandboxId,
    /// The guest's host name.
    pub hostname: String,
    /// Lines of the guest's `/etc/resolv.conf`.
    pub dns: Vec<String>,
    /// Mounted for all containers of the sandbox, in this order.
    pub storages: Vec<Storage>,
    /// Loaded before anything else.
    pub kernel_modules: Vec<KernelModule>,
    /// Where the guest's image keeps OCI hooks that run for every container.
    pub guest_hooks: Option<GuestPath>,
    /// Whether the sandbox makes a pid namespace for all containers that want to share one.
    pub shared_pid_namespace: bool,
}

impl CreateSandbox {
    /// A sandbox without anything but its name, which is its host name too.
    pub fn new(id: SandboxId) -> Self {
        let hostname = id.to_string();
        Self {
            id,
            hostname,
            dns: Vec::new(),
            storages: Vec::new(),
            kernel_modules: Vec::new(),
            guest_hooks: None,
            shared_pid_namespace: false,
        }
    }
}

/// A module of the guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelModule {
    /// Its name.
    pub name: String,
    /// Its parameters, each as `name=value`.
    pub parameters: Vec<String>,
}

/// Creates a container.
#[derive(Clone, Debug)]
pub struct CreateContainer {
    /// The container's id.
    pub id: ContainerId,
    /// What it is, by the OCI runtime specification; every path in it is one of the guest.
    pub spec: Spec,
    /// Mounted before it is created, in this order.
    pub storages: Vec<Storage>,
    /// Devices of the guest that `spec` names by their numbers on the host.
    pub devices: Vec<Device>,
    /// Whether it joins the pid namespace that all containers of the sandbox share.
    pub shared_pid_namespace: bool,
}

impl CreateContainer {
    /// A container that needs no storages and no devices.
    pub fn new(id: ContainerId, spec: Spec) -> Self {
        Self { id, spec, storages: Vec::new(), devices: Vec::new(), shared_pid_namespace: false }
    }
}

/// A device that was given to the machine for a container. Field names are those of the agent protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// By which the agent finds it: a PCI path for the kind `blk`, `id:lun` for `scsi`.
    pub id: String,
    /// Its kind, a device handler of the agent ([`GuestDetails::devices`](crate::GuestDetails::devices)).
    pub kind: String,
    /// Its node in the guest, where the kind is found by that; else empty.
    pub vm_path: String,
    /// Its node in the container.
    pub container_path: String,
    /// Options of the kind.
    pub options: Vec<String>,
}

/// Starts another process in a running container.
#[derive(Clone, Debug)]
pub struct ExecProcess {
    /// The container.
    pub container: ContainerId,
    /// How the process is called from now on.
    pub exec: ExecId,
    /// What it is, by the OCI runtime specification.
    pub process: Process,
}

impl ExecProcess {
    /// The process, for everything that is asked of it later.
    pub fn reference(&self) -> ProcessRef {
        ProcessRef { container: self.container.clone(), exec: Some(self.exec.clone()) }
    }
}
